// ONNX's Attention cases through the C ABI: 3-D inputs with interleaved heads, caches, masks, windows, softcap, score
// outputs.
#include <algorithm>
#include <utility>

#include "onnx_vectors.hpp"
#include "support.hpp"

using namespace attend::test;

namespace {

// (D, N, H, B) of an activation: [B, H, N, D] reversed, or [B, N, H * D] with the heads split off the last axis.
attend_tensor activation(OnnxArray &array, int64_t heads) {
  attend_tensor t = array.reversed();
  if (t.rank == 4) return t;
  const int64_t features = t.shape[0] / heads;
  return {t.data, t.dtype, 4, {features, t.shape[1], heads, t.shape[2]}, {1, t.stride[1], features, t.stride[2]}};
}

// Appends the items of `more` to those of a cache: both [B, H, N, D].
OnnxArray concatenated(const OnnxArray &cache, const attend_tensor &more) {
  OnnxArray all = cache;
  const int64_t d = more.shape[0], old = cache.shape[2], items = old + more.shape[1];
  all.shape[2] = items;
  const int64_t element = static_cast<int64_t>(cache.element()), bytes = d * element;
  all.bytes.clear();
  for (int64_t b = 0; b < more.shape[3]; ++b)
    for (int64_t h = 0; h < more.shape[2]; ++h)
      for (int64_t j = 0; j < items; ++j) {
        const char *item = j < old
                               ? cache.bytes.data() + ((b * more.shape[2] + h) * old + j) * bytes
                               : static_cast<const char *>(more.data) +
                                     ((j - old) * more.stride[1] + h * more.stride[2] + b * more.stride[3]) * element;
        all.bytes.insert(all.bytes.end(), item, item + bytes);
      }
  return all;
}

// A mask whose last axis is shorter than the keys is padded with what hides.
OnnxArray padded(const OnnxArray &mask, int64_t keys) {
  OnnxArray all = mask;
  const size_t element = mask.element(), old = static_cast<size_t>(mask.shape.back()) * element;
  const float hidden = -std::numeric_limits<float>::infinity();
  const uint16_t hidden_half = 0xfc00;
  const char *hides = "";
  if (element == sizeof hidden) hides = reinterpret_cast<const char *>(&hidden);
  if (element == sizeof hidden_half) hides = reinterpret_cast<const char *>(&hidden_half);
  all.shape.back() = keys;
  all.bytes.clear();
  for (size_t row = 0; row < mask.bytes.size(); row += old) {
    all.bytes.insert(all.bytes.end(), mask.bytes.begin() + static_cast<std::ptrdiff_t>(row),
                     mask.bytes.begin() + static_cast<std::ptrdiff_t>(row + old));
    for (size_t j = old / element; j < static_cast<size_t>(keys); ++j) {
      all.bytes.insert(all.bytes.end(), hides, hides + element);
    }
  }
  return all;
}

// Sizes to the left and to the right of a query; absent or -1: no bound on that side.
void set_window(const OnnxCase &c, attend_attention_options *options) {
  const int64_t left = static_cast<int64_t>(c.attribute("left_window_size", -1)),
                right = static_cast<int64_t>(c.attribute("right_window_size", -1));
  if (left < 0 && right < 0) return;
  options->flags |= ATTEND_WINDOW;
  options->window_left = std::max<int64_t>(left, -1);
  options->window_right = std::max<int64_t>(right, -1);
}

bool run(OnnxCase &c) {
  attend_tensor q = activation(c.inputs["Q"], static_cast<int64_t>(c.attribute("q_num_heads", 1)));
  const int64_t kv_heads = static_cast<int64_t>(c.attribute("kv_num_heads", 1));
  attend_tensor k = activation(c.inputs["K"], kv_heads), v = activation(c.inputs["V"], kv_heads);
  OnnxArray all_k, all_v;
  attend_attention_options options = {};
  options.size = sizeof options;
  const bool causal = c.attribute("is_causal", 0) != 0;
  if (c.has_input("past_key")) {
    options.query_offset = c.inputs["past_key"].shape[2];
    all_k = concatenated(c.inputs["past_key"], k);
    all_v = concatenated(c.inputs["past_value"], v);
    k = all_k.reversed();
    v = all_v.reversed();
  }
  std::vector<int64_t> lengths;
  if (c.has_input("nonpad_kv_seqlen")) {
    for (const double n : c.inputs["nonpad_kv_seqlen"].values) lengths.push_back(static_cast<int64_t>(n));
    options.kv_lengths = lengths.data();
  }
  if (causal) options.flags |= lengths.empty() ? ATTEND_CAUSAL_TOP_LEFT : ATTEND_CAUSAL_BOTTOM_RIGHT;
  set_window(c, &options);
  options.scale = c.attribute("scale", 0);
  options.softcap = c.attribute("softcap", 0);
  OnnxArray mask;
  attend_tensor mask_view;
  if (c.has_input("attn_mask")) {
    mask = padded(c.inputs["attn_mask"], k.shape[1]);
    mask_view = mask.reversed();
    (mask.dtype == "bool" ? options.mask : options.bias) = &mask_view;
  }
  OnnxArray &expected = c.outputs["Y"];
  OnnxArray result = expected;
  std::fill(result.bytes.begin(), result.bytes.end(), 'x');
  std::vector<float> scores;
  attend_tensor y = activation(result, q.shape[2]), scores_view;
  if (c.outputs.count("qk_matmul_output") != 0) {
    scores.assign(c.outputs["qk_matmul_output"].values.size(), 77.0f);
    scores_view = c.outputs["qk_matmul_output"].reversed();
    scores_view.data = scores.data();
    scores_view.dtype = ATTEND_F32;
    options.scores = &scores_view;
    options.scores_stage = static_cast<uint32_t>(c.attribute("qk_matmul_output_mode", 0));
  }
  if (!ok(attend_attention(&q, &k, &v, &y, &options))) return false;
  result.widen();
  return close(result.values, expected) && (scores.empty() || close(scores, c.outputs["qk_matmul_output"]));
}

}  // namespace

// No stored case has a window to the right.
TEST_CASE("windows of the operator") {
  const struct {
    std::map<std::string, double> attributes;
    bool window;
    int64_t left, right;
  } cases[] = {
      {{}, false, 0, 0},
      {{{"left_window_size", -1}, {"right_window_size", -1}}, false, 0, 0},
      {{{"left_window_size", 2}}, true, 2, -1},
      {{{"right_window_size", 3}}, true, -1, 3},
      {{{"left_window_size", 0}, {"right_window_size", 0}}, true, 0, 0},
      {{{"left_window_size", 4}, {"right_window_size", 1}}, true, 4, 1},
  };
  for (const auto &expected : cases) {
    OnnxCase c;
    c.attributes = expected.attributes;
    attend_attention_options options = {};
    set_window(c, &options);
    CHECK((options.flags == ATTEND_WINDOW) == expected.window);
    CHECK(options.window_left == expected.left);
    CHECK(options.window_right == expected.right);
  }
}

TEST_CASE("Attention") {
  int passed = 0, failed = 0;
  for (OnnxCase &c : onnx_cases("Attention")) {
    INFO(c.name);
    for_each_isa([&] { ++(run(c) ? passed : failed); });
  }
  MESSAGE("passed " << passed << ", failed " << failed << " (each case on every instruction set)");
}
