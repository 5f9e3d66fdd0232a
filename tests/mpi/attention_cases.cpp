// attend_mpi_attention on random problems and shards: the bits of one call, and the bytes that the header promises.
#include "attention_problem.hpp"
#include "mpi/world.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// A problem's keys and values in another type, with scales where it has them.
struct Stored {
  Array k, v, k_scale, v_scale;
  bool has_scales = false, of_features = false;

  Stored(Random &random, const attend_tensor &wide_k, const attend_tensor &wide_v, uint32_t dtype)
      : k(dtype, {wide_k.shape[0], wide_k.shape[1], wide_k.shape[2], wide_k.shape[3]}),
        v(dtype, {wide_v.shape[0], wide_v.shape[1], wide_v.shape[2], wide_v.shape[3]}),
        k_scale(ATTEND_F32, {1, 1, 1, 1}),
        v_scale(ATTEND_F32, {1, 1, 1, 1}),
        has_scales(dtype == ATTEND_I8 || (dtype == ATTEND_F8E4M3 && random.one_in(2))),
        of_features(random.one_in(2)) {
    if (!has_scales) {
      ok(attend_convert(&wide_k, &k.t, nullptr));
      ok(attend_convert(&wide_v, &v.t, nullptr));
      return;
    }
    convert(random, wide_k, &k, &k_scale);
    convert(random, wide_v, &v, &v_scale);
  }
  void convert(Random &random, const attend_tensor &wide, Array *narrow, Array *scale) const {
    const int64_t heads = wide.shape[2], batch = wide.shape[3];
    attend_convert_options o = options_with<attend_convert_options>(1);
    if (of_features) {
      *scale = Array(ATTEND_F32, {wide.shape[0], 1, heads, 1});
      scale->fill(random);
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < wide.shape[0]; ++i) {
          float *const s = reinterpret_cast<float *>(element(scale->t, i, 0, h));
          *s = std::fabs(*s) / 32 + 0.01f;
        }
    } else {
      *scale = Array(ATTEND_F32, {1, wide.shape[1], heads, batch});
      o.flags = ATTEND_COMPUTE_SCALE;
    }
    o.scale = &scale->t;
    ok(attend_convert(&wide, &narrow->t, &o));
  }
};

template <class T>
void check(unsigned stream, int round) {
  Random random(stream + 10 * static_cast<unsigned>(round));
  Random own(own_stream(stream + static_cast<unsigned>(round)));
  // Many keys, many queries, or the problem's own choice.
  const int64_t kind = random.in(0, 2);
  const int64_t most_keys = kind == 0 ? random.in(500, 2500) : kind == 1 ? random.in(1, 300) : 0;
  Problem<T> p(random, most_keys, kind == 0 ? random.in(1, 12) : kind == 1 ? random.in(1, 150) : 0);
  if (!p.firsts.empty()) {  // what lies before them is poison
    for (Operand<T> *o : {&p.k, &p.v, &p.bias}) o->fill(random);
  }
  attend_attention_options a = p.options;
  a.kv_first = nullptr;
  a.scores_stage = 0;
  if (a.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) {
    a.flags ^= ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_CAUSAL_TOP_LEFT;
    a.query_offset = p.nk - p.nq;
  }
  uint32_t dtype = random.pick<uint32_t>({ATTEND_F32, ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3});
  if (sizeof(T) == 8) dtype = ATTEND_F64;
  INFO("round " << round << p.description() << " stored " << dtype << " rank " << world().rank);
  if (dtype == ATTEND_I8 || dtype == ATTEND_F8E4M3) {  // (of keys that do not exist, too)
    p.k.fill(random), p.v.fill(random);
  }
  Stored stored(random, *p.k.tensor(), *p.v.tensor(), dtype);
  if (stored.has_scales) a.k_scale = &stored.k_scale.t, a.v_scale = &stored.v_scale.t;

  // One process, the first.
  Array out(kDtype<T>, {p.dv, p.nq, p.heads, p.batch}), lse(kDtype<T>, {1, p.nq, p.heads, p.batch});
  a.lse = &lse.t;
  if (world().rank == 0) ok(attend_attention(p.q.tensor(), &stored.k.t, &stored.v.t, &out.t, &a));
  for (const Array *result : {&out, &lse}) {
    const int64_t elements = result->t.shape[0] * p.nq * p.heads * p.batch;
    MPI_Bcast(result->t.data, static_cast<int>(elements * int64_t{sizeof(T)}), MPI_BYTE, 0, MPI_COMM_WORLD);
  }

  // All ranks.
  const OwnIsa isa(own);
  const Split queries(random, p.nq, random.pick<int64_t>({1, 1, 16})),
      keys(random, p.nk, random.pick<int64_t>({1, 64, 256}));
  const Array q = own_columns(own, *p.q.tensor(), queries), k = own_columns(own, stored.k.t, keys),
              v = own_columns(own, stored.v.t, keys);
  Array own_out = own_columns(own, out.t, queries), own_lse = own_columns(own, lse.t, queries);
  own_out.fill_with_bytes(0xfe), own_lse.fill_with_bytes(0xfe);
  a.threads = 0;
  a.lse = own.one_in(8) ? nullptr : &own_lse.t;
  const Shape one = {1, 1, 1, 1};
  Array mask(ATTEND_BOOL, one), bias(ATTEND_F32, one), k_scale(ATTEND_F32, one), v_scale(ATTEND_F32, one);
  if (a.mask != nullptr)
    mask = own_columns(own, *a.mask, queries, a.mask->shape[1] == 1 && p.nq != 1), a.mask = &mask.t;
  if (a.bias != nullptr)
    bias = own_columns(own, *a.bias, queries, a.bias->shape[1] == 1 && p.nq != 1), a.bias = &bias.t;
  int64_t bytes_of_key = p.kv_heads * p.batch * (p.d + p.dv) * bytes_of_element(dtype);
  if (stored.has_scales && !stored.of_features) {
    k_scale = own_columns(own, stored.k_scale.t, keys), v_scale = own_columns(own, stored.v_scale.t, keys);
    a.k_scale = &k_scale.t, a.v_scale = &v_scale.t;
  }
  for (const attend_tensor *scale : {a.k_scale, a.v_scale}) {
    if (scale != nullptr && scale->shape[0] == 1) bytes_of_key += 4 * scale->shape[2] * scale->shape[3];
  }
  char text[400] = "";
  attend_mpi_options o = options_of_rank(own, text);
  if (own.one_in(3)) o.flags = ATTEND_MPI_COMPUTE_THREAD;
  give_queries(queries, &o), give_keys(keys, &o);
  uint64_t bytes = 0;
  std::vector<char> workspace;
  if (random.one_in(2)) {
    const attend_status s = attend_mpi_attention_workspace(world().comm, &q.t, &k.t, &v.t, &own_out.t, &o, &a, &bytes);
    CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
    workspace.assign(bytes + 64, 'w');
    o.workspace = workspace.data(), o.workspace_size = bytes;
  }
  const int64_t before = bytes_sent();
  const attend_status s = attend_mpi_attention(world().comm, &q.t, &k.t, &v.t, &own_out.t, &o, &a);
  CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
  if (s != ATTEND_OK) return;
  CHECK(are_own_columns(own_out.t, out.t, queries));
  if (a.lse != nullptr) CHECK(are_own_columns(own_lse.t, lse.t, queries));
  for (size_t i = bytes; i < workspace.size(); ++i) CHECK(workspace[i] == 'w');
  CHECK(bytes_sent() - before == bytes_of_key * columns_sent(keys, p.nk));
}

}  // namespace

TEST_CASE("attention over ranks: every combination of features and shards, the bits of one process") {
  const Spans spans;
  const int fewer = kSpan == 512 ? 4 : 1;  // (its kernels are scalar)
  for (int round = 0, count = rounds(150 / fewer, 2000); round < count; ++round) check<float>(2101, round);
  for (int round = 0, count = rounds(50 / fewer, 1000); round < count; ++round) check<double>(2102, round);
}
