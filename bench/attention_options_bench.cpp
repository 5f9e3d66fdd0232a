// attend_bench_attention_options: what the options of attention and the layout of its operands cost beside the plain
// call, and decoding beside a plain loop that reads the same keys and values.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

// One way to call attention on the operands of a problem.
struct Variant {
  const char *name;
  void (*set)(attend_attention_options &options, const attend_tensor &mask, const attend_tensor &bias);
};

void plain(attend_attention_options &, const attend_tensor &, const attend_tensor &) {}

constexpr Variant kVariants[] = {
    {"plain", plain},
    {"mask", [](attend_attention_options &o, const attend_tensor &mask, const attend_tensor &) { o.mask = &mask; }},
    {"bias", [](attend_attention_options &o, const attend_tensor &, const attend_tensor &bias) { o.bias = &bias; }},
    {"softcap", [](attend_attention_options &o, const attend_tensor &, const attend_tensor &) { o.softcap = 20; }},
    {"causal", [](attend_attention_options &o, const attend_tensor &,
                  const attend_tensor &) { o.flags = ATTEND_CAUSAL_TOP_LEFT; }},
    {"window_256",
     [](attend_attention_options &o, const attend_tensor &, const attend_tensor &) {
       o.flags = ATTEND_CAUSAL_TOP_LEFT | ATTEND_WINDOW;
       o.window_left = 256;
     }},
};

// [N, H, D] in the words of NumPy: the heads of an item lie side by side.
attend_tensor interleaved(attend_tensor t) {
  t.stride[1] = t.shape[0] * t.shape[2];
  t.stride[2] = t.shape[0];
  return t;
}

struct OptionsProblem : AttentionProblem<float> {
  Operand<float> bias;
  std::vector<uint8_t> mask_bytes;
  attend_tensor mask;

  OptionsProblem(int64_t features, int64_t items, int64_t heads, int64_t kv_heads)
      : AttentionProblem(features, items, items, heads, kv_heads),
        bias(items, items),
        mask_bytes(static_cast<std::size_t>(items * items)),
        mask(bias.tensor()) {
    std::mt19937 random(2);
    bias.fill_with_normals(random);
    for (uint8_t &visible : mask_bytes) visible = random() % 5 != 0;
    mask.data = mask_bytes.data();
    mask.dtype = ATTEND_BOOL;
  }

  attend_status run(const Row &row, const Variant &variant, bool interleaves) const {
    attend_tensor operands[] = {q.tensor(), k.tensor(), v.tensor(), out.tensor()};
    for (attend_tensor &t : operands) {
      if (interleaves) t = interleaved(t);
    }
    auto options = make_options<attend_attention_options>(row.threads);
    variant.set(options, mask, bias.tensor());
    return attend_attention(&operands[0], &operands[1], &operands[2], &operands[3], &options);
  }
};

void register_options(int64_t features, int64_t items, double one_core) {
  const std::string name = "options/f32/N:" + std::to_string(items) + "/D:" + std::to_string(features) + "/";
  for (const Variant &variant : kVariants) {
    for (const Row &row : all_rows(false)) {
      if (row.path != Path::library) continue;
      register_row(name + variant.name, row, [=](benchmark::State &state) {
        const auto &problem = problem_for<OptionsProblem>(features, items, int64_t{1}, int64_t{1});
        const double seconds = time_calls(state, row, [&] { return problem.run(row, variant, false); });
        const bool causal = std::string(variant.name) == "causal";
        count_flops(state, row, problem.flops(causal, items, 1), seconds, one_core);
      });
    }
  }
}

void register_heads(int64_t features, int64_t heads, double one_core) {
  constexpr int64_t kItems = 512;
  const struct {
    const char *name;
    int64_t kv_heads;
    bool interleaves;
  } layouts[] = {{"apart", heads, false}, {"interleaved", heads, true}, {"grouped", heads / 4, false}};
  for (const auto &layout : layouts) {
    const std::string name = "heads/f32/N:512/D:" + std::to_string(features) + "/H:" + std::to_string(heads) + "/";
    for (const Row &row : all_rows(false)) {
      if (row.path != Path::library) continue;
      register_row(name + layout.name, row, [=](benchmark::State &state) {
        const auto &problem = problem_for<OptionsProblem>(features, kItems, heads, layout.kv_heads);
        const double seconds =
            time_calls(state, row, [&] { return problem.run(row, kVariants[0], layout.interleaves); });
        count_flops(state, row, problem.flops(false, kItems, heads), seconds, one_core);
      });
    }
  }
}

// A few queries against a long cache of keys and values: bound by reading them.
void register_decode(int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads) {
  constexpr int64_t kFeatures = 128;
  const std::string name = "decode/f32/queries:" + std::to_string(queries) + "/keys:" + std::to_string(keys) +
                           "/D:128/heads:" + std::to_string(heads) + "/kv:" + std::to_string(kv_heads);
  const auto bytes = [](const AttentionProblem<float> &p) { return 4 * (p.k.elements() + p.v.elements()); };
  register_row(name, {"read", Path::blocked, 1}, [=](benchmark::State &state) {
    const auto &problem = problem_for<AttentionProblem<float>>(kFeatures, queries, keys, heads, kv_heads);
    const double seconds = time_calls(state, {"read", Path::blocked, 1}, [&] {
      for (const auto *operand : {&problem.k, &problem.v}) {
        benchmark::DoNotOptimize(read_all(operand->tensor().data, static_cast<std::size_t>(operand->elements()) * 4));
      }
      return ATTEND_OK;
    });
    count_bytes(state, bytes(problem), seconds);
  });
  for (const Row &row : all_rows(false)) {
    if (row.path != Path::library) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<AttentionProblem<float>>(kFeatures, queries, keys, heads, kv_heads);
      count_bytes(state, bytes(problem), time_calls(state, row, [&] { return problem.run(row, false); }));
    });
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    for (const int64_t items : {256, 1024, 4096}) register_options(64, items, peak.f32);
    for (const int64_t width : {1024, 2048, 4096}) {
      for (const int64_t features : {64, 128}) register_heads(features, width / features, peak.f32);
    }
    for (const int64_t keys : {4096, 16384, 131072}) {
      register_decode(1, keys, 1, 1);
      register_decode(1, keys, 8, 1);
      register_decode(4, keys, 1, 1);
      register_decode(4, keys, 8, 1);
    }
  });
}
