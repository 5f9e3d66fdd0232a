// attend_mpi_decode: the bits of one call, whoever has which spans.
#include "attention_problem.hpp"
#include "mpi/world.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
void check(unsigned stream, int round) {
  Random random(stream + 10 * static_cast<unsigned>(round));
  Random own(own_stream(stream + static_cast<unsigned>(round)));
  const int64_t most = kSpan == 512 ? 4000 : 3 * kSpan + 500;
  const int64_t nk = random.pick<int64_t>({kSpan - 1, kSpan, kSpan + 1, 2 * kSpan + 300, random.in(1, most)});
  const int64_t d = random.pick<int64_t>({1, 5, 16}), dv = random.pick<int64_t>({1, 8, 17}), nq = random.in(1, 3);
  const int64_t heads = random.pick<int64_t>({1, 2, 4}), kv_heads = heads / random.pick<int64_t>({1, heads}),
                batch = random.in(1, 2);
  uint32_t dtype = random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_I8});
  if (sizeof(T) == 8) dtype = ATTEND_F64;
  uint32_t narrow = random.pick<uint32_t>({ATTEND_F32, ATTEND_F16});
  if (sizeof(T) == 8) narrow = ATTEND_F64;
  Array q(narrow, {d, nq, heads, batch}), k(dtype, {d, nk, kv_heads, batch}), v(dtype, {dv, nk, kv_heads, batch}),
      out(narrow, {dv, nq, heads, batch}), lse(kDtype<T>, {1, nq, heads, batch}),
      scales(ATTEND_F32, {1, nk, kv_heads, batch}), slopes(kDtype<T>, {heads, 1, 1, 1}),
      sinks(kDtype<T>, {heads, 1, 1, 1});
  for (Array *a : {&q, &slopes, &sinks, &scales}) a->fill(random);
  k.fill(random, dtype == ATTEND_I8 ? 40 : 1), v.fill(random, dtype == ATTEND_I8 ? 40 : 1);

  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < batch; ++b) lengths.push_back(random.in(0, nk));
  if (random.one_in(2)) a.kv_lengths = lengths.data();
  if (random.one_in(2)) a.flags |= ATTEND_CAUSAL_TOP_LEFT, a.query_offset = random.in(nk / 2, nk);
  if (random.one_in(3)) {
    a.flags |= ATTEND_WINDOW;
    a.query_offset = nk - nq, a.window_left = random.in(0, nk), a.window_right = random.in(-1, 5);
  }
  if (random.one_in(3)) a.alibi_slopes = &slopes.t;
  if (random.one_in(3)) a.sinks = &sinks.t;
  if (random.one_in(4)) a.softcap = 3;
  if (dtype == ATTEND_I8) a.k_scale = a.v_scale = &scales.t;
  a.lse = random.one_in(2) ? &lse.t : nullptr;
  if (world().rank == 0) ok(attend_attention(&q.t, &k.t, &v.t, &out.t, &a));
  for (const Array *result : {&out, &lse}) {
    const int64_t elements = result->t.shape[0] * nq * heads * batch;
    MPI_Bcast(result->t.data, static_cast<int>(elements * bytes_of_element(result->t.dtype)), MPI_BYTE, 0,
              MPI_COMM_WORLD);
  }

  const OwnIsa isa(own);
  char text[400] = "";
  attend_mpi_options o = options_of_rank(own, text);
  o.root = static_cast<int32_t>(random.in(0, world().ranks - 1));
  if (random.one_in(2)) o.flags = ATTEND_MPI_ALL_RANKS;
  const bool is_root = world().rank == o.root, gets_results = is_root || o.flags != 0;
  const Split keys(random, nk, kSpan);
  INFO("round " << round << " Nk " << nk << " Nq " << nq << " H " << heads << " Hkv " << kv_heads << " D " << d
                << " Dv " << dv << " stored " << dtype << " flags " << a.flags << " rank " << world().rank);
  const Array own_k = own_columns(own, k.t, keys), own_v = own_columns(own, v.t, keys),
              own_scales = own_columns(own, scales.t, keys);
  Array own_out(narrow, {dv, nq, heads, batch}, {1, 0, 2, 3}, 3), own_lse = lse.like({1, nq, heads, batch});
  attend_tensor own_q = q.t, null_out = own_out.t, null_lse = own_lse.t;
  if (!is_root) own_q.data = nullptr;
  if (!gets_results) null_out.data = null_lse.data = nullptr;
  if (a.lse != nullptr) a.lse = &null_lse;
  if (dtype == ATTEND_I8) a.k_scale = a.v_scale = &own_scales.t;
  give_keys(keys, &o);
  uint64_t bytes = 0;
  std::vector<char> workspace;
  if (random.one_in(2)) {
    const attend_status s =
        attend_mpi_decode_workspace(world().comm, &own_q, &own_k.t, &own_v.t, &null_out, &o, &a, &bytes);
    CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
    workspace.assign(bytes + 64, 'w');
    o.workspace = workspace.data(), o.workspace_size = bytes;
  }
  const int64_t before = bytes_sent();
  const attend_status s = attend_mpi_decode(world().comm, &own_q, &own_k.t, &own_v.t, &null_out, &o, &a);
  CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
  if (s != ATTEND_OK) return;
  if (gets_results) CHECK(same_elements(own_out.t, out.t));
  if (gets_results && a.lse != nullptr) CHECK(same_elements(own_lse.t, lse.t));
  for (size_t i = bytes; i < workspace.size(); ++i) CHECK(workspace[i] == 'w');
  // One message for each span that has keys, unless it is the root's.
  const int64_t end = a.kv_lengths == nullptr ? nk : *std::max_element(lengths.begin(), lengths.end());
  int64_t spans = 0;
  for (size_t i = 0; i < keys.own().size(); i += 2) {
    for (int64_t at = keys.own()[i]; at < std::min(end, keys.own()[i] + keys.own()[i + 1]); at += kSpan) ++spans;
  }
  CHECK(bytes_sent() - before == (is_root ? 0 : spans * batch * heads * nq * (dv + 2) * int64_t{sizeof(T)}));
}

}  // namespace

TEST_CASE("decoding over ranks: the bits of one process, one message a span") {
  const Spans table;
  const int usual = kSpan == 512 ? 60 : 12;
  for (int round = 0, count = rounds(usual, 1000); round < count; ++round) check<float>(2201, round);
  for (int round = 0, count = rounds(usual / 3, 500); round < count; ++round) check<double>(2202, round);
}
