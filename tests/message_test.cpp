// The sentences that failing calls leave in their caller's buffer. bad_input_*_test looks at every message's form.
#include <clocale>
#include <cmath>
#include <limits>

#include "operands.hpp"

using namespace operands;

namespace {

const int64_t kNumbers[] = {7, 9};
constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// Spoils a call of its own, and compares what it says.
template <class SomeCall, class Spoil>
void expect_said(const std::string &message, const Spoil &spoil, const Layout &layout = {}) {
  SomeCall call(layout);
  spoil(call);
  CHECK(call.run() != ATTEND_OK);
  CHECK(message_of(call) == message);
}

}  // namespace

TEST_CASE("messages of shapes") {
  expect_said<MatmulCall>("b: has 5 rows, not a's 4 columns.", [](auto &c) { ++c.b.view.shape[0]; });
  expect_said<MatmulCall>("b: has 1 row, not a's 4 columns.", [](auto &c) { c.b.view.shape[0] = 1; });
  expect_said<MatmulCall>("b: has 3 heads, not 1 or a's 2.", [](auto &c) { ++c.b.view.shape[2]; });
  expect_said<MatmulCall>("c: has 4 rows, not a's 3.", [](auto &c) { ++c.c.view.shape[0]; });
  expect_said<MatmulCall>("c: has 6 columns, not b's 5.", [](auto &c) { ++c.c.view.shape[1]; });
  expect_said<MatmulCall>("c: has 3 batches, not 2.", [](auto &c) { ++c.c.view.shape[3]; });
  expect_said<MatmulCall>("options.bias: has 4 rows, not 1 or c's 3.", [](auto &c) { ++c.bias.view.shape[0]; });
  expect_said<MatmulCall>("a: has -1 rows, not 0 or more.", [](auto &c) { c.a.view.shape[0] = -1; });
  expect_said<SoftmaxCall>("y: has 6 columns, not x's 5.", [](auto &c) { ++c.y.view.shape[1]; });
  expect_said<SoftmaxCall>("options.lse: has 2 rows, not 1.", [](auto &c) { ++c.lse.view.shape[0]; });
  expect_said<SoftmaxBackwardCall>("d_y: has 6 columns, not y's 5.", [](auto &c) { ++c.d_y.view.shape[1]; });
  expect_said<SoftmaxBackwardCall>("d_x: has 7 rows, not y's 6.", [](auto &c) { ++c.d_x.view.shape[0]; });
  expect_said<SoftmaxBackwardCall>("options.d_lse: has 2 rows, not 1.", [](auto &c) { ++c.d_lse.view.shape[0]; });
  expect_said<AttentionCall>("k: has 5 features, not q's 4.", [](auto &c) { ++c.k.view.shape[0]; });
  expect_said<AttentionCall>("v: has 8 keys, not k's 7.", [](auto &c) { ++c.v.view.shape[1]; });
  expect_said<AttentionCall>("k: has 3 heads; q's 4 heads are no multiple of them.",
                             [](auto &c) { c.k.view.shape[2] = c.v.view.shape[2] = 3; });
  expect_said<AttentionCall>("k: has 3 batches, not 1 or q's 2.", [](auto &c) { ++c.k.view.shape[3]; });
  expect_said<AttentionCall>("out: has 4 features, not v's 3.", [](auto &c) { ++c.out.view.shape[0]; });
  expect_said<AttentionCall>("out: has 7 queries, not q's 6.", [](auto &c) { ++c.out.view.shape[1]; });
  expect_said<AttentionCall>("options.scores: has 8 keys, not k's 7.", [](auto &c) { ++c.scores.view.shape[0]; });
  expect_said<AttentionCall>("options.mask: has 6 keys, not 1 or k's 7.", [](auto &c) {
    static unsigned char bytes[36];
    static const attend_tensor mask = {bytes, ATTEND_BOOL, 2, {6, 6}, {1, 6}};
    c.options.value.mask = &mask;
  });
  expect_said<AttentionCall>("options.sinks: has 2 heads, not q's 4.", [](auto &c) {
    static const attend_tensor sinks = {c.q.view.data, ATTEND_F32, 1, {2}, {1}};
    c.options.value.sinks = &sinks;
  });
  expect_said<AttentionCall>("q: has 0 features, not 1 or more.",
                             [](auto &c) { c.q.view.shape[0] = c.k.view.shape[0] = 0; });
  expect_said<SelfAttentionCall>("weights.w_q: has 6 columns, not x's 5 features.",
                                 [](auto &c) { ++c.w_q.view.shape[1]; });
  expect_said<SelfAttentionCall>("weights.w_k: has 5 rows, not weights.w_q's 4.",
                                 [](auto &c) { ++c.w_k.view.shape[0]; });
  expect_said<SelfAttentionCall>("weights.b_k: has 2 columns, not 1.", [](auto &c) { ++c.b_k.view.shape[1]; });
  expect_said<SelfAttentionCall>("weights.w_o: has 4 columns, not weights.w_v's 3 rows.",
                                 [](auto &c) { ++c.w_o.view.shape[1]; });
  expect_said<SelfAttentionCall>("out: has 8 features, not weights.w_o's 7.", [](auto &c) { ++c.out.view.shape[0]; });
  expect_said<SelfAttentionCall>("attention_options.scores: has 7 keys, not x's 6 items.",
                                 [](auto &c) { ++c.scores.view.shape[0]; });
  expect_said<SelfAttentionCall>("weights.w_k: has 3 heads; weights.w_q's 4 heads are no multiple of them.",
                                 [](auto &c) {
                                   for (Operand *o : {&c.w_k, &c.w_v, &c.b_k, &c.b_v}) o->view.shape[2] = 3;
                                 });
  expect_said<SelfAttentionCall>("x: has 2 heads, not 1.", [](auto &c) { c.x.view.shape[2] = 2; });
  expect_said<MergeCall>("lse_b: has 6 queries, not out_a's 5.", [](auto &c) { ++c.lse_b.view.shape[1]; });
}

TEST_CASE("messages of types, ranks, memory") {
  expect_said<AttentionCall>(
      "k: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands.",
      [](auto &c) { c.k.view.dtype = ATTEND_F64; });
  expect_said<AttentionCall>("q: is bool; float32, float64, bfloat16 or float16 is needed.",
                             [](auto &c) { c.q.view.dtype = ATTEND_BOOL; });
  expect_said<AttentionCall>("q: is int32; float32, float64, bfloat16 or float16 is needed.",
                             [](auto &c) { c.q.view.dtype = ATTEND_I32; });
  expect_said<AttentionCall>(
      "q: has dtype 99, which is no element type; float32, float64, bfloat16 or float16 is needed.",
      [](auto &c) { c.q.view.dtype = 99; });
  expect_said<SoftmaxCall>("options.mask: is float32; bool is needed.",
                           [](auto &c) { c.options.value.mask = &c.x.view; });
  expect_said<MatmulCall>("b: has rank 5, not 1, 2, 3 or 4.", [](auto &c) { c.b.view.rank = 5; });
  expect_said<MatmulCall>("b: is null, but required.", [](auto &c) { c.pb = nullptr; });
  expect_said<MatmulCall>("b: has 80 elements, but null data.", [](auto &c) { c.b.view.data = nullptr; });
  expect_said<SelfAttentionCall>("weights: is null, but required.", [](auto &c) { c.pweights = nullptr; });
  expect_said<MatmulCall>("c: its 5 columns have stride 2, but need one of at least 3 to share no memory.",
                          [](auto &c) { c.c.view.stride[1] = 2; });
  expect_said<MatmulCall>("c: its 2 heads have stride -14, but need one of at least 19 to share no memory.",
                          [](auto &c) { c.c.view.stride[2] = -14; });
  expect_said<MatmulCall>(
      "b: spans more bytes than 63 bits can count: 4 rows of stride 1, 5 columns of stride 4611686018427387903, "
      "2 heads of stride 30, 2 batches of stride 90.",
      [](auto &c) { c.b.view.stride[1] = kMost / 2; });
  expect_said<AttentionCall>("out: overlaps k's memory, but needs its own.",
                             [](auto &c) { c.out.view.data = c.k.view.data; });
  expect_said<AttentionCall>("options.lse: overlaps out's memory, but needs its own.",
                             [](auto &c) { c.lse.view.data = c.out.view.data; });
  expect_said<SelfAttentionCall>("attention_options.lse: overlaps weights.b_k's memory, but needs its own.",
                                 [](auto &c) { c.lse.view.data = c.b_k.view.data; });
  expect_said<AttentionCall>("out: overlaps options.kv_lengths's memory, but needs its own.", [](auto &c) {
    c.options.value.kv_lengths = static_cast<const int64_t *>(c.out.view.data);
    static_cast<int64_t *>(c.out.view.data)[0] = 1;
    static_cast<int64_t *>(c.out.view.data)[1] = 2;
  });
  AttentionCall features;
  for (Operand *o : {&features.q, &features.k}) o->view = {o->view.data, ATTEND_F32, 1, {kMost / 16, 0, 0, 0}, {}};
  CHECK(message_of(features) == "q: has 576460752303423487 features, not at most 2147483647.");
}

TEST_CASE("messages of options") {
  expect_said<MatmulCall>("options.flags: has 0x20008, which means nothing here.",
                          [](auto &c) { c.options.value.flags = 0x20008 | ATTEND_NATIVE_DOT; });
  expect_said<MatmulCall>("options.threads: is -3, but must be 0 or more.",
                          [](auto &c) { c.options.value.threads = -3; });
  expect_said<MatmulCall>("options.reserved: is 7, but must be 0.", [](auto &c) { c.options.value.reserved = 7; });
  expect_said<MatmulCall>("options.workspace: is null, but has a size.",
                          [](auto &c) { c.options.value.workspace_size = 7; });
  expect_said<AttentionCall>("options.state: is null, but required with ATTEND_PARTIAL and ATTEND_CONTINUE.",
                             [](auto &c) { c.options.value.flags = ATTEND_CONTINUE; });
  expect_said<SoftmaxCall>("options.scale: is inf, but must be finite.",
                           [](auto &c) { c.options.value.scale = HUGE_VAL; });
  expect_said<SoftmaxCall>("options.scale: is nan, but must be finite.",
                           [](auto &c) { c.options.value.scale = -std::nan(""); });
  expect_said<SoftmaxCall>("options.scale: is 1e+39, which is beyond float32's largest number.",
                           [](auto &c) { c.options.value.scale = 1e39; });
  expect_said<SoftmaxCall>("options.scale: is -2.5e-47, which is 0 in float32.",
                           [](auto &c) { c.options.value.scale = -2.5e-47; });
  expect_said<AttentionCall>("options.softcap: is -0.1, but must be finite and 0 or more.",
                             [](auto &c) { c.options.value.softcap = -0.1; });
  expect_said<AttentionCall>("options.window_left: left and right are 1 and 0, but must be 0 without ATTEND_WINDOW.",
                             [](auto &c) { c.options.value.window_left = 1; });
  expect_said<AttentionCall>("options.window_left: left and right are 3 and -2, but must be -1 or more.", [](auto &c) {
    c.options.value.flags = ATTEND_WINDOW;
    c.options.value.window_left = 3;
    c.options.value.window_right = -2;
  });
  expect_said<AttentionCall>("options.scores_stage: is 4294967295, but must be 0, 1, 2 or 3.",
                             [](auto &c) { c.options.value.scores_stage = 0xffffffff; });
  expect_said<AttentionCall>("options.flags: has both of the causal flags, not one or none.",
                             [](auto &c) { c.options.value.flags = 3; });
  expect_said<AttentionCall>("options.query_offset: is -1, but must be 0 where causal is bottom-right.", [](auto &c) {
    c.options.value.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
    c.options.value.query_offset = -1;
  });
  expect_said<AttentionCall>("options.query_offsets: is given beside one offset for all, 5.", [](auto &c) {
    c.options.value.query_offset = 5;
    c.options.value.query_offsets = kNumbers;
  });
  expect_said<AttentionCall>("options.query_offsets: is given, but must not be where causal is bottom-right.",
                             [](auto &c) {
                               c.options.value.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
                               c.options.value.query_offsets = kNumbers;
                             });
  expect_said<AttentionCall>("options.kv_lengths: is 9 for batch 1, but must be 0 to 7.",
                             [](auto &c) { c.options.value.kv_lengths = kNumbers; });
  expect_said<SelfAttentionCall>("attention_options.kv_first: is 7 for batch 0, but must be 0 to 6.",
                                 [](auto &c) { c.attention_options.value.kv_first = kNumbers; });
  expect_said<SelfAttentionCall>("weights.b_o: is given, but not weights.w_o's matrix.",
                                 [](auto &c) { c.weights.w_o = nullptr; });
  expect_said<SelfAttentionCall>("weights.reserved: is 1, but must be 0.", [](auto &c) { c.weights.reserved = 1; });
  expect_said<SelfAttentionCall>("weights.size: is 8 bytes, not 72 or more.", [](auto &c) { c.weights.size = 8; });
  expect_said<SelfAttentionCall>("attention_options.size: is 9 bytes, not 240 or more.",
                                 [](auto &c) { c.attention_options.value.size = 9; });
  expect_said<SelfAttentionCall>(
      "attention_options.size: is 256 bytes, of which this version knows 240, and byte 242 is not 0.", [](auto &c) {
        c.attention_options.value.size = 256;
        c.attention_options.tail[2] = 1;
      });
  expect_said<SelfAttentionCall>("attention_options.threads: is 2, but must be 0: those of options count.",
                                 [](auto &c) { c.attention_options.value.threads = 2; });
  expect_said<SelfAttentionCall>("attention_options.executor: is given, but that of options counts.", [](auto &c) {
    static const attend_executor executor = {sizeof executor, 0, [](void *, int32_t, attend_task, void *) {}, nullptr};
    c.attention_options.value.executor = &executor;
  });
  expect_said<MatmulCall>("options.executor: has null for its run.", [](auto &c) {
    static const attend_executor executor = ATTEND_EXECUTOR_INIT;
    c.options.value.executor = &executor;
  });
  expect_said<MatmulCall>("options.executor: has -1 workers, not 0 or more.", [](auto &c) {
    static const attend_executor executor = {sizeof executor, -1, nullptr, nullptr};
    c.options.value.executor = &executor;
  });
  expect_said<MatmulCall>("options.executor: is 4 bytes, not 24 or more.", [](auto &c) {
    static const attend_executor executor = {4, 0, nullptr, nullptr};
    c.options.value.executor = &executor;
  });
}

TEST_CASE("messages of memory that does not suffice") {
  int compared = 0;
  for (int f = 0; f < kFunctions; ++f) {
    const auto call = make(f, {ATTEND_F32, 8});
    const uint64_t needed = call->workspace_bytes(1);
    if (needed == 0) continue;  // merge
    INFO(call->function);
    char byte;
    call->set_workspace(&byte, 1);
    if (call->run() == ATTEND_OK) continue;  // the needs of the small ways
    CHECK(message_of(*call).find("options.workspace_size: is 1 bytes, but one thread needs ") == 0);
    ++compared;
  }
  CHECK(compared >= 3);
  MatmulCall call;
  CHECK(message_of(call, [&call] { (void)call.workspace(nullptr); }) == "bytes: is null, but required.");
}

TEST_CASE("room for messages") {
  AttentionCall call;
  ++call.k.view.shape[0];
  const std::string whole = "k: has 5 features, not q's 4.";
  for (uint64_t size = 1; size <= whole.size() + 2; ++size) {
    CHECK(message_of(call, size) == whole.substr(0, size - 1));
  }
  CHECK(message_of(call, uint64_t{1} << 20) == whole);
  // A size of 0: nothing is written, the status is the same.
  char untouched = '?';
  call.options.value.message = &untouched;
  CHECK(ATTEND_REASON(call.run()) == ATTEND_INVALID_SHAPE);
  CHECK(untouched == '?');
  // More than there is: no more is written than is said.
  char room[64];
  call.options.value.message = room;
  call.options.value.message_size = std::numeric_limits<uint64_t>::max();
  CHECK(ATTEND_REASON(call.run()) == ATTEND_INVALID_SHAPE);
  CHECK(room == whole);
}

TEST_CASE("messages: left alone by success and by a wrong size") {
  for (int f = 0; f < kFunctions; ++f) {
    const auto call = make(f);
    INFO(call->function);
    CHECK(message_of(*call, [&call] { expect_success(*call); }) == "");
    for (const uint32_t size : {0u, call->heads[0].struct_size - 1}) {
      *call->heads[0].size = size;
      CHECK(message_of(*call, [&call] { CHECK(ATTEND_REASON(call->run()) == ATTEND_INVALID_STRUCT_SIZE); }) == "");
    }
  }
}

TEST_CASE("messages: null with a size, and those of attention_options") {
  for (int f = 0; f < kFunctions; ++f) {
    const auto call = make(f);
    for (const Head &head : call->heads) {
      INFO(call->function << " " << head.name);
      *head.message_size = 1;
      expect_failure(*call, ATTEND_NULL_POINTER, head.name + ".message");
      *head.message_size = 0;
    }
  }
  SelfAttentionCall call;
  char room[80] = "?";
  call.attention_options.value.message = room;
  for (const uint64_t size : {uint64_t{0}, uint64_t{sizeof room}}) {
    call.attention_options.value.message_size = size;
    expect_failure(call, ATTEND_INVALID_VALUE, "attention_options.message");
  }
  CHECK(message_of(call) == "attention_options.message: is given, but that of options counts.");
  ++call.w_k.view.shape[0];
  CHECK(call.run() != ATTEND_OK);
  CHECK(std::string(room) == "?");
}

TEST_CASE("messages: numbers have a point in every locale") {
  const char *const locale = std::setlocale(LC_NUMERIC, nullptr);
  const std::string before = locale == nullptr ? "C" : locale;
  bool has_comma = false;
  for (const char *name : {"de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "de_AT.UTF-8", "ps_AF.UTF-8"}) {
    if (std::setlocale(LC_NUMERIC, name) == nullptr) continue;
    has_comma = true;
    expect_said<AttentionCall>("options.softcap: is -1234.5, but must be finite and 0 or more.",
                               [](auto &c) { c.options.value.softcap = -1234.5; });
  }
  if (!has_comma) MESSAGE("no locale with another point is installed");
  std::setlocale(LC_NUMERIC, before.c_str());
}
