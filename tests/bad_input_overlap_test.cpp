// Outputs on the memory of another operand: refused, and nothing written.
#include "operands.hpp"

using namespace operands;

namespace {

// The one that is named when output i lies on operand j: of two outputs the later.
const std::string &overlapping(const Call &call, size_t i, size_t j) {
  return call.slots[call.slots[j].output && j > i ? j : i].name;
}

// What only some calls have: `field`, in turn on the memory of every output.
void expect_overlap(Call &call, const attend_tensor *&field, uint32_t dtype, int64_t rows) {
  for (const Slot &slot : call.slots) {
    if (!slot.output) continue;
    const attend_tensor view = {slot.operand->view.data, dtype, 1, {rows, 0, 0, 0}, {1, 0, 0, 0}};
    field = &view;
    INFO(call.function << " " << slot.name);
    expect_failure(call, ATTEND_OVERLAP, slot.name, Twin::accepts);
    field = nullptr;
  }
}

}  // namespace

TEST_CASE("outputs that overlap") {
  const auto pairs =
      [](const Layout &layout,
         const std::function<void(Call &, attend_tensor &, const attend_tensor &, const std::string &)> &test) {
        for (int f = 0; f < kFunctions; ++f) {
          for (size_t i = 0; i < make(f)->slots.size(); ++i) {
            for (size_t j = 0; j < make(f)->slots.size(); ++j) {
              const auto call = make(f, layout);
              if (i == j || !call->slots[i].output) continue;
              INFO(call->function << " " << call->slots[i].name << " on " << call->slots[j].name);
              test(*call, call->slots[i].operand->view, call->slots[j].operand->view, overlapping(*call, i, j));
            }
          }
        }
      };
  pairs({}, [](Call &call, attend_tensor &output, const attend_tensor &other, const std::string &name) {
    output.data = other.data;
    if (name == "y") output.stride[3] += 1;  // not in place
    expect_failure(call, ATTEND_OVERLAP, name, Twin::accepts);
  });
  // Partly, of operands without gaps.
  for (const int64_t shift : {1, 3}) {
    for (const uint32_t dtype : {ATTEND_F32, ATTEND_F64}) {
      pairs({dtype, 1, false},
            [=](Call &call, attend_tensor &output, const attend_tensor &other, const std::string &name) {
              output.data = static_cast<char *>(other.data) + shift * (dtype == ATTEND_F32 ? 4 : 8);
              expect_failure(call, ATTEND_OVERLAP, name, Twin::accepts);
            });
    }
  }
}

TEST_CASE("outputs that overlap a mask, a bias, slopes or sinks") {
  SoftmaxCall softmax;
  expect_overlap(softmax, softmax.options.value.mask, ATTEND_BOOL, 1);
  expect_overlap(softmax, softmax.options.value.bias, ATTEND_F32, 1);
  const auto of_attention = [](Call &call, attend_attention_options &options) {
    constexpr int64_t kHeads = 4;
    expect_overlap(call, options.mask, ATTEND_BOOL, 1);
    expect_overlap(call, options.bias, ATTEND_F32, 1);
    expect_overlap(call, options.alibi_slopes, ATTEND_F32, kHeads);
    expect_overlap(call, options.sinks, ATTEND_F32, kHeads);
    expect_success(call);
  };
  AttentionCall attention;
  of_attention(attention, attention.options.value);
  SelfAttentionCall self;
  of_attention(self, self.attention_options.value);
}
