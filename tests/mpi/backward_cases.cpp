// attend_mpi_attention_backward on random problems and shards: the bits of one call, the bytes that the header promises, and
// what is wrong on one rank.
#include <functional>

#include "mpi/world.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// All operands of one machine's call, on every rank.
struct Whole {
  int64_t d, dv, nq, nk, kv_heads, heads, batch;
  uint32_t acc;
  Array q, k, v, out, d_out, lse, d_lse, slopes, sinks, d_q, d_k, d_v;
  std::vector<int64_t> lengths, offsets;
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  attend_attention_backward_options g = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
  int wanted;

  static uint32_t narrow(Random &random, uint32_t acc) {
    return acc == ATTEND_F64 ? acc : random.pick<uint32_t>({ATTEND_F32, ATTEND_F32, ATTEND_BF16, ATTEND_F16});
  }
  // A gradient of what is shared by the batch is not narrow.
  static Array gradient(Random &random, uint32_t acc, const Array &of, int64_t batch) {
    const int64_t *const s = of.t.shape;
    return Array(s[3] == batch ? narrow(random, acc) : acc, {s[0], s[1], s[2], s[3]});
  }

  Whole(Random &random, uint32_t arithmetic)
      : d(random.pick<int64_t>({1, 3, 16, 24})),
        dv(random.pick<int64_t>({1, 8, 17})),
        nq(random.one_in(2) ? random.in(1, 900) : random.in(1, 60)),
        nk(nq < 100 && random.one_in(2) ? random.in(1, 3000) : random.in(1, 400)),
        kv_heads(random.in(1, 2)),
        heads(kv_heads * random.in(1, 3)),
        batch(random.in(1, 2)),
        acc(arithmetic),
        q(narrow(random, acc), {d, nq, heads, random.one_in(4) ? 1 : batch}),
        k(narrow(random, acc), {d, nk, kv_heads, random.one_in(4) ? 1 : batch}),
        v(narrow(random, acc), {dv, nk, kv_heads, random.one_in(4) ? 1 : batch}),
        out(narrow(random, acc), {dv, nq, heads, batch}),
        d_out(narrow(random, acc), {dv, nq, heads, batch}),
        lse(acc, {1, nq, heads, batch}),
        d_lse(acc, {1, nq, heads, batch}),
        slopes(acc, {heads, 1, 1, 1}),
        sinks(acc, {heads, 1, 1, 1}),
        d_q(gradient(random, acc, q, batch)),
        d_k(gradient(random, acc, k, batch)),
        d_v(gradient(random, acc, v, batch)),
        wanted(random.one_in(2) ? 7 : static_cast<int>(random.in(1, 7))) {
    for (Array *x : {&q, &k, &v, &d_out, &d_lse, &sinks, &d_q, &d_k, &d_v}) x->fill(random);
    slopes.fill(random, 0.1);
    for (int64_t b = 0; b < batch; ++b) lengths.push_back(random.in(0, nk)), offsets.push_back(random.in(-5, nk));
    if (random.one_in(3)) a.kv_lengths = lengths.data();
    if (random.one_in(2)) a.flags |= ATTEND_CAUSAL_TOP_LEFT;
    if (random.one_in(2)) a.query_offset = random.one_in(2) ? nk - nq : random.in(-5, nk);
    if (a.query_offset == 0 && random.one_in(4)) a.query_offsets = offsets.data();
    if (random.one_in(3)) {
      a.flags |= ATTEND_WINDOW;
      a.window_left = random.one_in(4) ? -1 : random.in(0, nk);
      a.window_right = random.one_in(4) ? -1 : random.one_in(8) ? INT64_MAX : random.in(0, nk);
    }
    if (random.one_in(3)) a.alibi_slopes = &slopes.t;
    if (random.one_in(3)) a.sinks = &sinks.t;
    if (random.one_in(4)) a.softcap = 3;
    if (random.one_in(3)) a.scale = 0.4;
    if (random.one_in(3)) g.flags = ATTEND_ACCUMULATE;
    if (random.one_in(2)) g.d_lse = &d_lse.t;
    a.lse = &lse.t;
  }
  const attend_tensor *if_wanted(int i, const Array &x) const { return (wanted >> i & 1) != 0 ? &x.t : nullptr; }
  void run() {
    if (world().rank == 0) {
      ok(attend_attention(&q.t, &k.t, &v.t, &out.t, &a));
      ok(attend_attention_backward(&q.t, &k.t, &v.t, &out.t, &d_out.t, if_wanted(0, d_q), if_wanted(1, d_k),
                                   if_wanted(2, d_v), &g, &a));
    }
    for (const Array *x : {&out, &lse, &d_q, &d_k, &d_v}) {
      const int64_t elements = x->t.shape[0] * x->t.shape[1] * x->t.shape[2] * x->t.shape[3];
      MPI_Bcast(x->t.data, static_cast<int>(elements * bytes_of_element(x->t.dtype)), MPI_BYTE, 0, MPI_COMM_WORLD);
    }
  }
};

void check(unsigned stream, int round, uint32_t acc) {
  Random random(stream + 10 * static_cast<unsigned>(round));
  Random own(own_stream(stream + static_cast<unsigned>(round)));
  Whole w(random, acc);
  INFO("round " << round << " rank " << world().rank << " D " << w.d << " Dv " << w.dv << " Nq " << w.nq << " Nk "
                << w.nk << " H " << w.heads << " Hkv " << w.kv_heads << " batch " << w.batch << " wanted " << w.wanted
                << " flags " << w.a.flags << " accumulates " << w.g.flags << " types " << w.q.t.dtype << w.k.t.dtype
                << w.d_out.t.dtype);
  const OwnIsa isa(own);
  const Split queries(random, w.nq, random.pick<int64_t>({1, 1, 64})),
      keys(random, w.nk, random.pick<int64_t>({1, 64, 256}));
  const auto of_queries = [&](const Array &x) { return own_columns(own, x.t, queries); };
  const auto of_keys = [&](const Array &x) { return own_columns(own, x.t, keys); };
  // What is added to, or poison.
  Array d_q = of_queries(w.d_q), d_k = of_keys(w.d_k), d_v = of_keys(w.d_v);
  if (w.g.flags == 0) {
    for (Array *x : {&d_q, &d_k, &d_v}) x->fill_with_bytes(0xfe);
  }
  w.run();
  const Array q = of_queries(w.q), k = of_keys(w.k), v = of_keys(w.v), out = of_queries(w.out),
              d_out = of_queries(w.d_out), lse = of_queries(w.lse), d_lse = of_queries(w.d_lse);
  attend_attention_options a = w.a;
  attend_attention_backward_options g = w.g;
  a.lse = &lse.t;
  if (g.d_lse != nullptr) g.d_lse = &d_lse.t;
  char text[400] = "";
  attend_mpi_options o = options_of_rank(own, text);
  if (own.one_in(3)) o.flags = ATTEND_MPI_COMPUTE_THREAD;
  give_queries(queries, &o), give_keys(keys, &o);
  const attend_tensor *const to_q = w.if_wanted(0, d_q), *const to_k = w.if_wanted(1, d_k),
                             *const to_v = w.if_wanted(2, d_v);
  uint64_t bytes = 0;
  std::vector<char> workspace;
  if (random.one_in(2)) {
    const attend_status s = attend_mpi_attention_backward_workspace(world().comm, &q.t, &k.t, &v.t, &out.t, &d_out.t,
                                                                    to_q, to_k, to_v, &o, &g, &a, &bytes);
    CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
    workspace.assign(bytes + 64, 'w');
    o.workspace = workspace.data(), o.workspace_size = bytes;
  }
  const int64_t before = bytes_sent();
  const attend_status s =
      attend_mpi_attention_backward(world().comm, &q.t, &k.t, &v.t, &out.t, &d_out.t, to_q, to_k, to_v, &o, &g, &a);
  CHECK_MESSAGE(s == ATTEND_OK, std::string(text));
  if (s != ATTEND_OK) return;
  if (to_q != nullptr) CHECK(are_own_columns(d_q.t, w.d_q.t, queries));
  if (to_k != nullptr) CHECK(are_own_columns(d_k.t, w.d_k.t, keys));
  if (to_v != nullptr) CHECK(are_own_columns(d_v.t, w.d_v.t, keys));
  for (size_t i = bytes; i < workspace.size(); ++i) CHECK(workspace[i] == 'w');
  const auto bytes_of = [](const Array &x) {
    return x.t.shape[0] * x.t.shape[2] * x.t.shape[3] * bytes_of_element(x.t.dtype);
  };
  int64_t expected = 0;
  if (to_q != nullptr) expected += (bytes_of(w.k) + bytes_of(w.v)) * columns_sent(keys, w.nk);
  if (to_k != nullptr || to_v != nullptr) {
    expected += (bytes_of(w.q) + bytes_of(w.d_out) + 2 * bytes_of(w.lse)) * columns_sent(queries, w.nq);
  }
  CHECK(bytes_sent() - before == expected);
}

// Five queries and keys on each rank.
struct Call {
  Array q{ATTEND_F32, {4, 5, 2, 2}}, k{ATTEND_F32, {4, 5, 1, 2}}, v{ATTEND_F32, {3, 5, 1, 2}},
      out{ATTEND_F32, {3, 5, 2, 2}}, d_out{ATTEND_F32, {3, 5, 2, 2}}, lse{ATTEND_F32, {1, 5, 2, 2}},
      d_q{ATTEND_F32, {4, 5, 2, 2}}, d_k{ATTEND_F32, {4, 5, 1, 2}}, d_v{ATTEND_F32, {3, 5, 1, 2}};
  std::vector<int64_t> ranges = {5 * world().rank, 5};
  char text[400] = "";
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  attend_attention_backward_options g = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
  const attend_tensor *to_q = &d_q.t;
  const bool here = world().rank == world().ranks - 1;  // where something is wrong

  Call() {
    for (Array *x : {&q, &k, &v, &out, &d_out, &lse}) x->fill_with_bytes(0);
    o.timeout = 30;
    o.message = text, o.message_size = sizeof text;
    a.lse = &lse.t;
  }
  attend_status run() {
    return attend_mpi_attention_backward(world().comm, &q.t, &k.t, &v.t, &out.t, &d_out.t, to_q, &d_k.t, &d_v.t, &o, &g,
                                         &a);
  }
};

void expect(int reason, const char *argument, const std::function<void(Call &)> &spoil) {
  Call call;
  spoil(call);
  const Call nothing;
  const attend_status s = call.run();
  INFO("rank " << world().rank << " argument " << std::string(argument) << " says " << std::string(call.text));
  CHECK(ATTEND_REASON(s) == reason);
  CHECK(std::string(attend_status_argument(s)) == argument);
  CHECK(std::string(call.text).rfind(std::string(argument) + ": ", 0) == 0);
  CHECK(call.d_q.same_memory(nothing.d_q));
  CHECK(call.d_k.same_memory(nothing.d_k));
  CHECK(call.d_v.same_memory(nothing.d_v));
  CHECK(on_all_ranks(ATTEND_REASON(s) == reason));
}

}  // namespace

TEST_CASE("gradients over ranks: every combination of features and shards, the bits of one process") {
  const Spans spans;
  const int fewer = kSpan == 512 ? 4 : 1;  // (its kernels are scalar)
  for (int round = 0, count = rounds(24 / fewer, 1000); round < count; ++round) check(2301, round, ATTEND_F32);
  for (int round = 0, count = rounds(8 / fewer, 500); round < count; ++round) check(2302, round, ATTEND_F64);
}

TEST_CASE("gradients over ranks: a rank's fault is every rank's") {
  CHECK(Call().run() == ATTEND_OK);
  static const unsigned char visible = 1;
  static const attend_tensor mask = {const_cast<unsigned char *>(&visible), ATTEND_BOOL, 1, {1}, {}};
  static const int64_t numbers[2] = {5, 5};
  expect(ATTEND_NULL_POINTER, "d_out", [](Call &c) { c.d_out.t.data = c.here ? nullptr : c.d_out.t.data; });
  expect(ATTEND_INVALID_SHAPE, "d_out", [](Call &c) { c.d_out.t.shape[1] = c.here ? 4 : 5; });
  expect(ATTEND_INVALID_DTYPE, "d_k", [](Call &c) { c.d_k.t.dtype = c.here ? ATTEND_I8 : ATTEND_F32; });
  expect(ATTEND_OVERLAP, "d_v", [](Call &c) { c.v.t.data = c.here ? c.d_v.t.data : c.v.t.data; });
  expect(ATTEND_NULL_POINTER, "attention_options.lse", [](Call &c) { c.a.lse = c.here ? nullptr : c.a.lse; });
  expect(ATTEND_UNSUPPORTED, "attention_options.lse",
         [](Call &c) { *reinterpret_cast<float *>(element(c.lse.t, 0, 3, 1, 1)) = c.here ? -1e9f : 2; });
  expect(ATTEND_UNSUPPORTED, "attention_options.mask", [](Call &c) { c.a.mask = c.here ? &mask : nullptr; });
  expect(ATTEND_INVALID_VALUE, "attention_options.threads", [](Call &c) { c.a.threads = c.here; });
  expect(ATTEND_INVALID_VALUE, "attention_options.kv_lengths", [](Call &c) {
    static const int64_t many[2] = {1 << 20, 0};
    c.a.kv_lengths = many;
  });
  expect(ATTEND_INVALID_STRUCT_SIZE, "backward_options.size", [](Call &c) { c.g.size -= c.here ? 8 : 0; });
  expect(ATTEND_UNSUPPORTED, "backward_options.flags", [](Call &c) { c.g.flags = c.here ? 1 : 0; });
  expect(ATTEND_UNSUPPORTED, "backward_options.flags", [](Call &c) { c.g.flags = c.here ? ATTEND_PARTIAL : 0; });
  expect(ATTEND_INVALID_VALUE, "backward_options.threads", [](Call &c) { c.g.threads = c.here; });
  expect(ATTEND_INVALID_VALUE, "backward_options.reserved", [](Call &c) { c.g.reserved = c.here; });
  expect(ATTEND_INVALID_VALUE, "backward_options.executor", [](Call &c) {
    static const attend_executor executor = {};
    c.g.executor = c.here ? &executor : nullptr;
  });
  expect(ATTEND_INVALID_SHAPE, "backward_options.d_lse", [](Call &c) { c.g.d_lse = c.here ? &c.q.t : &c.lse.t; });
  expect(ATTEND_UNSUPPORTED, "backward_options.d_sinks", [](Call &c) { c.g.d_sinks = c.here ? &c.lse.t : nullptr; });
  expect(ATTEND_UNSUPPORTED, "backward_options.d_q_state",
         [](Call &c) { c.g.d_q_state = c.here ? &c.lse.t : nullptr; });
  expect(ATTEND_UNSUPPORTED, "backward_options.total_keys",
         [](Call &c) { c.g.total_keys = c.here ? numbers : nullptr; });
  expect(ATTEND_UNSUPPORTED, "options.flags", [](Call &c) { c.o.flags = c.here ? ATTEND_MPI_ALL_RANKS : 0; });
  expect(ATTEND_INVALID_SHAPE, "options.query_ranges", [](Call &c) {  // which may leave nothing out here
    c.o.query_ranges = c.ranges.data(), c.o.query_range_count = 1;
    if (c.here) c.ranges[0] += 1;
  });
  if (world().ranks == 1) return;
  expect(ATTEND_RANKS_DIFFER, "d_q", [](Call &c) { c.to_q = c.here ? nullptr : c.to_q; });
  expect(ATTEND_RANKS_DIFFER, "d_out", [](Call &c) { c.d_out.t.dtype = c.here ? ATTEND_BF16 : ATTEND_F32; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.scale", [](Call &c) { c.a.scale = c.here ? 1 : 0; });
}
