// What is wrong on one rank is said on all, before anything is written.
#include <cinttypes>

#include "mpi/world.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// A call that works on any number of ranks: five queries and keys on each.
struct Call {
  Array q{ATTEND_F32, {4, 5, 2, 2}}, k{ATTEND_F32, {4, 5, 1, 2}}, v{ATTEND_F32, {3, 5, 1, 2}},
      out{ATTEND_F32, {3, 5, 2, 2}}, lse{ATTEND_F32, {1, 5, 2, 2}}, sinks{ATTEND_F32, {2, 1, 1, 1}};
  std::vector<int64_t> lengths = {5, 0}, query_ranges, key_ranges;
  char workspace[64];
  char text[400] = "";
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  attend_attention_options a = ATTEND_ATTENTION_OPTIONS_INIT;
  const bool here = world().rank == world().ranks - 1;  // where something is wrong

  Call() {
    for (Array *x : {&q, &k, &v, &sinks}) x->fill_with_bytes(0);
    o.timeout = 30;
    o.message = text, o.message_size = sizeof text;
    a.flags = ATTEND_CAUSAL_TOP_LEFT;
    a.lse = &lse.t, a.sinks = &sinks.t, a.kv_lengths = lengths.data();
    const int64_t first = 5 * world().rank;
    query_ranges = {first + 3, 2, first, 3}, key_ranges = {first, 5};
  }
  void give_ranges() {
    o.query_ranges = query_ranges.data(), o.query_range_count = 2;
    o.key_ranges = key_ranges.data(), o.key_range_count = 1;
  }
  attend_status run() { return attend_mpi_attention(world().comm, &q.t, &k.t, &v.t, &out.t, &o, &a); }
};

// All ranks get this, `words` among the sentence, and no output.
void expect(int reason, const char *argument, const char *words, const std::function<void(Call &)> &spoil) {
  Call call;
  spoil(call);
  const Array nothing(ATTEND_F32, {3, 5, 2, 2});
  const attend_status s = call.run();
  INFO("rank " << world().rank << " argument " << argument << " says " << std::string(call.text));
  CHECK(ATTEND_REASON(s) == reason);
  CHECK(std::string(attend_status_argument(s)) == argument);
  CHECK(std::string(call.text).find(words) != std::string::npos);
  if (*argument != 0) CHECK(std::string(call.text).rfind(std::string(argument) + ": ", 0) == 0);
  CHECK(call.out.same_memory(nothing));
  CHECK(on_all_ranks(ATTEND_REASON(s) == reason));
}

}  // namespace

TEST_CASE("a rank's fault is every rank's, and names it") {
  Call good;
  good.give_ranges();
  CHECK(good.run() == ATTEND_OK);
  const std::string last = "rank " + std::to_string(world().ranks - 1) + " of ";
  const char *const where = last.c_str();
  expect(ATTEND_NULL_POINTER, "q", where, [](Call &c) { c.q.t.data = c.here ? nullptr : c.q.t.data; });
  expect(ATTEND_INVALID_SHAPE, "v", where, [](Call &c) { c.v.t.shape[1] = c.here ? 4 : 5; });
  expect(ATTEND_INVALID_DTYPE, "k", where, [](Call &c) { c.k.t.dtype = c.here ? ATTEND_U8 : ATTEND_F32; });
  // (The smaller of two moves onto the larger: it would reach into whatever lies behind a smaller one.)
  expect(ATTEND_OVERLAP, "out", where, [](Call &c) { c.v.t.data = c.here ? c.out.t.data : c.v.t.data; });
  expect(ATTEND_OVERLAP, "attention_options.lse", where,
         [](Call &c) { c.lse.t.data = c.here ? c.k.t.data : c.lse.t.data; });
  expect(ATTEND_INVALID_STRUCT_SIZE, "attention_options.size", where, [](Call &c) { c.a.size -= c.here ? 8 : 0; });
  expect(ATTEND_UNSUPPORTED, "options.flags", where, [](Call &c) { c.o.flags = c.here ? ATTEND_MPI_ALL_RANKS : 0; });
  expect(ATTEND_INVALID_VALUE, "options.threads", where, [](Call &c) { c.o.threads = c.here ? -1 : 0; });
  expect(ATTEND_INVALID_VALUE, "options.timeout", where, [](Call &c) { c.o.timeout = c.here ? -1 : 30; });
  expect(ATTEND_INVALID_VALUE, "options.root", where, [](Call &c) { c.o.root = c.here ? 1 : 0; });
  expect(ATTEND_WORKSPACE_TOO_SMALL, "options.workspace_size", where, [](Call &c) {
    if (c.here) c.o.workspace = c.workspace, c.o.workspace_size = sizeof c.workspace;
  });
  expect(ATTEND_INVALID_VALUE, "attention_options.threads", where, [](Call &c) { c.a.threads = c.here; });
  expect(ATTEND_INVALID_VALUE, "attention_options.reserved", where, [](Call &c) { c.a.reserved = c.here; });
  expect(ATTEND_UNSUPPORTED, "attention_options.key_offset", where, [](Call &c) { c.a.key_offset = c.here ? 256 : 0; });
  expect(ATTEND_UNSUPPORTED, "attention_options.flags", where,
         [](Call &c) { c.a.flags |= c.here ? ATTEND_PARTIAL : 0; });
  expect(ATTEND_INVALID_VALUE, "attention_options.flags", where,
         [](Call &c) { c.a.flags = c.here ? ATTEND_CAUSAL_BOTTOM_RIGHT : ATTEND_CAUSAL_TOP_LEFT; });
  expect(ATTEND_INVALID_VALUE, "options.query_ranges", where, [](Call &c) {
    c.give_ranges();
    if (c.here) c.query_ranges[0] = -1;
  });
  expect(ATTEND_INVALID_SHAPE, "options.query_ranges", where, [](Call &c) {
    c.give_ranges();
    if (c.here) c.query_ranges[1] = 1;
  });
  expect(ATTEND_INVALID_VALUE, "options.key_ranges", where, [](Call &c) {
    c.give_ranges();
    if (c.here) c.key_ranges[1] = 6;
  });
  // The same on all ranks, and with the lowest rank's name.
  expect(ATTEND_INVALID_VALUE, "attention_options.kv_lengths", "rank 0 of ", [](Call &c) { c.lengths[0] = 1 << 20; });
  expect(ATTEND_INVALID_VALUE, "attention_options.scale", "rank 0 of ", [](Call &c) { c.a.scale = HUGE_VAL; });
}

TEST_CASE("keys that no rank has, or several have") {
  expect(ATTEND_INVALID_SHAPE, "options.key_ranges", "position ", [](Call &c) {
    c.give_ranges();
    if (c.here) c.key_ranges[0] += 1;
  });
  if (world().ranks == 1) return;
  expect(ATTEND_INVALID_SHAPE, "options.key_ranges", "position 5.", [](Call &c) {
    c.give_ranges();
    if (c.here) c.key_ranges[0] = 0;
  });
}

TEST_CASE("what ranks must have in common") {
  if (world().ranks == 1) return;
  expect(ATTEND_RANKS_DIFFER, "q", "features, from 4 to 6",
         [](Call &c) { c.q.t.shape[0] = c.k.t.shape[0] = 4, c.here ? c.q.t.shape[0] = c.k.t.shape[0] = 6 : 4; });
  expect(ATTEND_RANKS_DIFFER, "out", "element types",
         [](Call &c) { c.out.t.dtype = c.here ? ATTEND_BF16 : ATTEND_F32; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.flags", "differ", [](Call &c) { c.a.flags = c.here ? 0 : 1; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.scale", "differ", [](Call &c) { c.a.scale = c.here ? 1 : 0; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.query_offset", "differ",
         [](Call &c) { c.a.query_offset = c.here ? 7 : 6; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.sinks", "differ",
         [](Call &c) { *static_cast<float *>(c.sinks.t.data) = c.here ? 1 : 0; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.kv_lengths", "differ", [](Call &c) { c.lengths[1] = c.here ? 2 : 1; });
  expect(ATTEND_RANKS_DIFFER, "attention_options.kv_lengths", "differ",
         [](Call &c) { c.a.kv_lengths = c.here ? nullptr : c.a.kv_lengths; });
  expect(ATTEND_RANKS_DIFFER, "options.key_ranges", "some", [](Call &c) {
    if (c.here) c.give_ranges(), c.o.query_ranges = nullptr, c.o.query_range_count = 0;
  });
  expect(ATTEND_RANKS_DIFFER, "options.query_ranges", "some", [](Call &c) {
    if (c.here) c.give_ranges(), c.o.key_ranges = nullptr, c.o.key_range_count = 0;
  });
  // An instruction set without FMA on one rank.
  const bool here = world().rank == 0;
  if (here) attend_set_isa("generic");
  expect(ATTEND_RANKS_DIFFER, "", "attend_isa()", [](Call &) {});
  if (here) attend_set_isa(nullptr);
  // Another function: what is at hand is compared alike.
  Call call;
  call.o.timeout = 30;
  uint64_t bytes = 0;
  const attend_status s = here ? call.run()
                               : attend_mpi_attention_workspace(world().comm, &call.q.t, &call.k.t, &call.v.t,
                                                                &call.out.t, &call.o, &call.a, &bytes);
  CHECK(ATTEND_REASON(s) == ATTEND_RANKS_DIFFER);
  CHECK(bytes == 0);
}

TEST_CASE("decoding: spans that begin elsewhere, and what has no meaning") {
  const auto decode = [](const std::function<void(Call &)> &spoil, int reason, const char *argument) {
    Call c;
    c.a.sinks = nullptr;
    c.o.key_range_count = 1;
    c.key_ranges = {kSpan * world().rank, 5};
    c.o.key_ranges = c.key_ranges.data();
    spoil(c);
    const attend_status s = attend_mpi_decode(world().comm, &c.q.t, &c.k.t, &c.v.t, &c.out.t, &c.o, &c.a);
    INFO("rank " << world().rank << " says " << std::string(c.text));
    CHECK(ATTEND_REASON(s) == reason);
    CHECK(std::string(attend_status_argument(s)) == argument);
  };
  static const unsigned char visible = 1;
  static const attend_tensor mask = {const_cast<unsigned char *>(&visible), ATTEND_BOOL, 1, {1}, {}};
  decode([](Call &c) { c.a.mask = &mask; }, ATTEND_UNSUPPORTED, "attention_options.mask");
  decode([](Call &c) { c.give_ranges(); }, ATTEND_INVALID_VALUE, "options.query_ranges");
  decode([](Call &c) { c.o.root = world().ranks; }, ATTEND_INVALID_VALUE, "options.root");
  decode([](Call &c) { c.key_ranges[0] += c.here ? 256 : 0; }, ATTEND_INVALID_SHAPE, "options.key_ranges");
  if (world().ranks == 1) return;
  // More than a message of MPI holds, which sizes alone tell.
  Call many;
  many.a = ATTEND_ATTENTION_OPTIONS_INIT;
  for (Array *x : {&many.q, &many.k, &many.v, &many.out}) {
    x->t.shape[0] = x->t.shape[2] = x->t.shape[3] = 1;
    x->t.data = nullptr;
  }
  many.q.t.shape[1] = many.out.t.shape[1] = int64_t{1} << 30;
  uint64_t bytes = 0;
  const attend_status s =
      attend_mpi_decode_workspace(world().comm, &many.q.t, &many.k.t, &many.v.t, &many.out.t, &many.o, &many.a, &bytes);
  CHECK(ATTEND_REASON(s) == ATTEND_OVERFLOW);
  CHECK(std::string(attend_status_argument(s)) == "q");
  // Five keys a rank, one behind the other; and holes between the spans.
  decode([](Call &c) { c.o.key_ranges = nullptr, c.o.key_range_count = 0; }, ATTEND_INVALID_SHAPE, "k");
  decode([](Call &) {}, ATTEND_INVALID_SHAPE, "options.key_ranges");
  decode([](Call &c) { c.q.t.shape[1] = c.out.t.shape[1] = c.lse.t.shape[1] = c.here ? 3 : 4; }, ATTEND_RANKS_DIFFER,
         "q");
}

TEST_CASE("communicators: each has its own, which goes with it") {
  MPI_Comm half = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world().rank % 2, world().rank, &half);
  for (int i = 0; i < 3; ++i) {
    Call call;
    CHECK(attend_mpi_attention(MPI_Comm_c2f(half), &call.q.t, &call.k.t, &call.v.t, &call.out.t, &call.o, &call.a) ==
          ATTEND_OK);
  }
  MPI_Comm_free(&half);
  Call call;
  const attend_status s =
      attend_mpi_attention(MPI_Comm_c2f(MPI_COMM_NULL), &call.q.t, &call.k.t, &call.v.t, &call.out.t, &call.o, &call.a);
  CHECK(ATTEND_REASON(s) == ATTEND_INVALID_VALUE);
  CHECK(std::string(attend_status_argument(s)) == "communicator");
}
