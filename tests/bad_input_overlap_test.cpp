// Outputs on the memory of another operand: refused, and nothing written.
#include <algorithm>
#include <utility>

#include "operands.hpp"

using namespace operands;

namespace {

// The one that is named when output i lies on operand j: of two outputs the later, but of the merge's the earlier.
const std::string &overlapping(const Call &call, size_t i, size_t j) {
  const bool later = call.function != "attend_attention_merge";
  return call.slots[call.slots[j].output && (j > i) == later ? j : i].name;
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
    if (name == "y" || name == "d_x") output.stride[3] += 1;  // not in place
    expect_failure(call, ATTEND_OVERLAP, name, Twin::accepts);
  });
  // Partly, of operands without gaps and with some.
  for (const int64_t shift : {1, 3}) {
    for (const uint32_t dtype : {ATTEND_F32, ATTEND_F64}) {
      for (const bool gap : {false, true}) {
        pairs({dtype, 1, gap},
              [=](Call &call, attend_tensor &output, const attend_tensor &other, const std::string &name) {
                if (gap && other.shape[0] <= shift) return;  // the output may lie in the gaps
                output.data = static_cast<char *>(other.data) + shift * (dtype == ATTEND_F32 ? 4 : 8);
                expect_failure(call, ATTEND_OVERLAP, name, Twin::accepts);
              });
      }
    }
  }
}

// z[:, :1000] and z[:, 1:] of an array z with rows of 1001: neither begins or ends on the other's first or last element.
TEST_CASE("a constant shift along padded rows") {
  constexpr int64_t kRows = 8, kColumns = 1000, kPitch = 1001;
  std::vector<float> z(kRows * kPitch, 1.0f), w(kColumns * kColumns, 1.0f);
  const std::vector<float> before = z;
  const auto overlaps = [](attend_status status, const char *argument) {
    CHECK(ATTEND_REASON(status) == ATTEND_OVERLAP);
    CHECK(std::string(attend_status_argument(status)) == argument);
  };
  for (const bool reversed : {true, false}) {
    INFO("reversed " << reversed);
    const auto from = [&](int64_t first) {
      attend_tensor t = {z.data() + first, ATTEND_F32, 2, {kRows, kColumns, 0, 0}, {kPitch, 1, 0, 0}};
      if (reversed) std::swap(t.shape[0], t.shape[1]), std::swap(t.stride[0], t.stride[1]);
      return t;
    };
    const attend_tensor x = from(0), moved = from(1);
    const attend_tensor square = {w.data(), ATTEND_F32, 2, {x.shape[0], x.shape[0], 0, 0}, {1, x.shape[0], 0, 0}};
    overlaps(attend_softmax(&x, &moved, nullptr), "y");
    overlaps(attend_softmax(&moved, &x, nullptr), "y");
    overlaps(attend_matmul(1, &square, &x, 0, &moved, nullptr), "c");
    overlaps(attend_attention(&x, &x, &x, &moved, nullptr), "out");
    attend_self_attention_weights weights = {};
    weights.size = sizeof weights;
    weights.w_q = weights.w_k = weights.w_v = &square;
    overlaps(attend_self_attention(&x, &weights, &moved, nullptr, nullptr), "out");
  }
  CHECK(z == before);
  // Both halves of such rows are apart.
  const attend_tensor left = {z.data(), ATTEND_F32, 2, {500, kRows, 0, 0}, {1, kPitch, 0, 0}},
                      right = {z.data() + 500, ATTEND_F32, 2, {500, kRows, 0, 0}, {1, kPitch, 0, 0}};
  CHECK(attend_softmax(&left, &right, nullptr) == ATTEND_OK);
  CHECK(attend_attention(&left, &left, &left, &right, nullptr) == ATTEND_OK);
}

TEST_CASE("merge: an output at a constant shift") {
  // Rows of 4 values and their lse behind them, [N, 5]: out_a, lse_a and out_b, lse_b in one array are apart.
  constexpr int64_t n = 6, d = 4, pitch = 2 * (d + 1);
  std::vector<double> all((n + 1) * pitch, 0.5);
  const auto part = [&](int64_t first, int64_t rows) {
    return attend_tensor{all.data() + first, ATTEND_F64, 2, {rows, n, 0, 0}, {1, pitch, 0, 0}};
  };
  const attend_tensor out_a = part(0, d), lse_a = part(d, 1), out_b = part(d + 1, d), lse_b = part(2 * d + 1, 1);
  CHECK(attend_attention_merge(&out_a, &lse_a, &out_b, &lse_b, nullptr) == ATTEND_OK);
  const std::vector<double> before = all;
  const auto overlaps = [&](const attend_tensor &oa, const attend_tensor &la, const attend_tensor &ob,
                            const attend_tensor &lb, const char *argument) {
    const attend_status status = attend_attention_merge(&oa, &la, &ob, &lb, nullptr);
    CHECK(ATTEND_REASON(status) == ATTEND_OVERLAP);
    CHECK(std::string(attend_status_argument(status)) == argument);
    CHECK(all == before);
  };
  overlaps(out_a, part(2, 1), out_b, lse_b, "out_a");
  overlaps(out_a, lse_a, part(3, d), lse_b, "out_a");
  overlaps(out_a, lse_a, out_b, part(pitch + 1, 1), "out_a");
  overlaps(out_a, lse_a, part(d, d), lse_b, "lse_a");
  overlaps(out_a, part(pitch + d, 1), out_b, part(d, 1), "lse_a");
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

TEST_CASE("outputs that overlap lengths or offsets") {
  const auto of_attention = [](Call &call, attend_attention_options &options) {
    for (const int64_t *attend_attention_options::*field :
         {&attend_attention_options::kv_lengths, &attend_attention_options::kv_first,
          &attend_attention_options::query_offsets}) {
      for (const Slot &slot : call.slots) {
        if (!slot.output) continue;
        std::fill_n(slot.operand->memory.begin(), 4, 0.0);  // lengths of 0
        INFO(call.function << " " << slot.name);
        // The first number before the output, the last one on it.
        attend_tensor &view = slot.operand->view;
        options.*field = static_cast<const int64_t *>(view.data);
        expect_failure(call, ATTEND_OVERLAP, slot.name, Twin::accepts);
        view.data = static_cast<float *>(view.data) + 3;
        expect_failure(call, ATTEND_OVERLAP, slot.name, Twin::accepts);
        view.data = static_cast<float *>(view.data) + 1;
        expect_success(call);
        options.*field = nullptr;
      }
    }
  };
  AttentionCall attention;
  of_attention(attention, attention.options.value);
  SelfAttentionCall self;
  of_attention(self, self.attention_options.value);
}
