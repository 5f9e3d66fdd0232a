// What the two attention functions do with options that are wrong in ways of their own.
#include <cmath>
#include <limits>

#include "operands.hpp"

using namespace operands;

namespace {

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
const attend_tensor kUnused = {};
const int64_t kOffsets[] = {0, 1};
const int64_t kNegative[] = {0, -1, 0, 0}, kBeyondKeys[] = {0, 1 << 20, 0, 0}, kTwo[] = {2, 2, 2, 2},
              kThree[] = {2, 3, 2, 2};
char g_bytes[8];
const attend_tensor kBytes = {g_bytes, ATTEND_U8, 1, {1, 0, 0, 0}, {1, 0, 0, 0}};
const attend_tensor kBools = {g_bytes, ATTEND_BOOL, 1, {1, 0, 0, 0}, {1, 0, 0, 0}};
const attend_tensor kManyBools = {g_bytes, ATTEND_BOOL, 1, {1 << 20, 0, 0, 0}, {0, 0, 0, 0}};

struct Wrong {
  const char *field;
  int reason;
  void (*spoil)(attend_attention_options &);
  Twin twin = Twin::agrees;
};

const Wrong kWrong[] = {
    {"softcap", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.softcap = -30; }},
    {"softcap", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.softcap = HUGE_VAL; }},
    {"softcap", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.softcap = std::nan(""); }},
    {"kv_lengths", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.kv_lengths = kNegative; }, Twin::accepts},
    {"kv_lengths", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.kv_lengths = kBeyondKeys; },
     Twin::accepts},
    {"kv_first", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.kv_first = kNegative; }, Twin::accepts},
    {"kv_first", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.kv_first = kBeyondKeys; }, Twin::accepts},
    {"kv_first", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) {
       o.kv_lengths = kTwo;
       o.kv_first = kThree;
     },
     Twin::accepts},
    {"window_left", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.window_left = 1; }},
    {"window_left", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.window_right = 1; }},
    {"window_left", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) {
       o.flags = ATTEND_WINDOW;
       o.window_left = -2;
     }},
    {"flags", ATTEND_UNSUPPORTED, [](attend_attention_options &o) { o.flags = 32; }},
    {"mask", ATTEND_INVALID_RANK, [](attend_attention_options &o) { o.mask = &kUnused; }},
    {"bias", ATTEND_INVALID_RANK, [](attend_attention_options &o) { o.bias = &kUnused; }},
    {"alibi_slopes", ATTEND_INVALID_RANK, [](attend_attention_options &o) { o.alibi_slopes = &kUnused; }},
    {"sinks", ATTEND_INVALID_RANK, [](attend_attention_options &o) { o.sinks = &kUnused; }},
    {"mask", ATTEND_INVALID_DTYPE, [](attend_attention_options &o) { o.mask = &kBytes; }},
    {"bias", ATTEND_INVALID_DTYPE, [](attend_attention_options &o) { o.bias = &kBools; }},
    {"mask", ATTEND_INVALID_SHAPE, [](attend_attention_options &o) { o.mask = &kManyBools; }},
    {"scale", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.scale = std::nan(""); }},
    {"scale", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.scale = HUGE_VAL; }},
    {"scale", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.scale = -HUGE_VAL; }},
    {"reserved2", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.reserved2 = 1; }},
    {"scores_stage", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.scores_stage = 4; }},
    {"scores_stage", ATTEND_INVALID_VALUE, [](attend_attention_options &o) { o.scores_stage = 0xffffffff; }},
    {"flags", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) { o.flags = ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT; }},
    {"query_offset", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) {
       o.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
       o.query_offset = -1;
     }},
    {"query_offsets", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) {
       o.flags = ATTEND_CAUSAL_TOP_LEFT;
       o.query_offset = 1;
       o.query_offsets = kOffsets;
     }},
    {"query_offsets", ATTEND_INVALID_VALUE,
     [](attend_attention_options &o) {
       o.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
       o.query_offsets = kOffsets;
     }},
};

float *floats(const Operand &operand) { return static_cast<float *>(operand.view.data); }

}  // namespace

TEST_CASE("attention options") {
  for (const Wrong &w : kWrong) {
    INFO(w.field);
    AttentionCall call;
    w.spoil(call.options.value);
    expect_failure(call, w.reason, std::string("options.") + w.field, w.twin);
    SelfAttentionCall self;
    w.spoil(self.attention_options.value);
    expect_failure(self, w.reason, std::string("attention_options.") + w.field, w.twin);
  }
}

// Infinite or 0 once they are rounded to the element type.
TEST_CASE("a scale or softcap beyond the element type") {
  const struct {
    const char *field;
    double attend_attention_options::*number;
    uint32_t dtype;
    std::vector<double> wrong, right;
  } cases[] = {
      {"scale",
       &attend_attention_options::scale,
       ATTEND_F32,
       {1e39, -1e39, 3.5e38, 1e-46, -1e-300},
       {3.4e38, 1e-45, -1}},
      {"scale", &attend_attention_options::scale, ATTEND_F64, {}, {1.7e308, 1e-46, 5e-324}},
      {"softcap", &attend_attention_options::softcap, ATTEND_F32, {1e39, 3.5e38, 1e-46, 5e-324}, {3.4e38, 1e-45}},
      {"softcap", &attend_attention_options::softcap, ATTEND_F64, {}, {1.7e308, 1e-46, 5e-324}},
  };
  for (const auto &c : cases) {
    AttentionCall call({c.dtype});
    SelfAttentionCall self({c.dtype});
    for (const double number : c.wrong) {
      INFO(c.field << " " << number);
      call.options.value.*c.number = self.attention_options.value.*c.number = number;
      expect_failure(call, ATTEND_INVALID_VALUE, std::string("options.") + c.field);
      expect_failure(self, ATTEND_INVALID_VALUE, std::string("attention_options.") + c.field);
    }
    for (const double number : c.right) {
      INFO(c.field << " " << number);
      call.options.value.*c.number = self.attention_options.value.*c.number = number;
      expect_success(call);
      expect_success(self);
    }
  }
}

TEST_CASE("sequences that begin where they end, and of nothing") {
  AttentionCall call;
  call.options.value.kv_first = call.options.value.kv_lengths = kTwo;
  expect_success(call);
  CHECK(floats(call.out)[0] == 0);
  CHECK(floats(call.lse)[0] == -HUGE_VALF);
  CHECK(floats(call.scores)[0] == -HUGE_VALF);
  SelfAttentionCall self;
  self.attention_options.value.kv_first = self.attention_options.value.kv_lengths = kTwo;
  expect_success(self);
  CHECK(floats(self.lse)[0] == -HUGE_VALF);
  const int64_t all[] = {7, 7};
  call.options.value.kv_lengths = nullptr;
  call.options.value.kv_first = all;
  expect_success(call);
}

TEST_CASE("query offsets that are valid, however far") {
  for (const int64_t offset : {kMost, -kMost, std::numeric_limits<int64_t>::min(), int64_t{-1}}) {
    AttentionCall call;
    call.options.value.flags = ATTEND_CAUSAL_TOP_LEFT;
    call.options.value.query_offset = offset;
    expect_success(call);
    CHECK((floats(call.out)[0] == 0) == (offset < 0));
    CHECK((floats(call.lse)[0] == -HUGE_VALF) == (offset < 0));
  }
  AttentionCall call;
  call.options.value.query_offsets = kOffsets;
  expect_success(call);
}
