// attend_bench_backward: gradients of attention, for each instruction set; one head alone and eight.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <random>
#include <string>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

struct BackwardProblem : AttentionProblem<float> {
  Operand<float> lse, d_out, d_q, d_k, d_v;

  BackwardProblem(int64_t features, int64_t items, int64_t heads)
      : AttentionProblem(features, items, heads),
        lse(1, items, heads),
        d_out(features, items, heads),
        d_q(features, items, heads),
        d_k(features, items, heads),
        d_v(features, items, heads) {
    std::mt19937 random(2);
    d_out.fill_with_normals(random);
  }

  attend_attention_options forward_options(bool causal) const {
    auto options = make_options<attend_attention_options>();
    options.lse = &lse.tensor();
    if (causal) options.flags = ATTEND_CAUSAL_TOP_LEFT;
    return options;
  }
  attend_status forward(bool causal) const {
    const attend_attention_options options = forward_options(causal);
    return attend_attention(&q.tensor(), &k.tensor(), &v.tensor(), &out.tensor(), &options);
  }
  attend_status backward(const attend_attention_backward_options &options, bool causal) const {
    const attend_attention_options of_forward = forward_options(causal);
    return attend_attention_backward(&q.tensor(), &k.tensor(), &v.tensor(), &out.tensor(), &d_out.tensor(),
                                     &d_q.tensor(), &d_k.tensor(), &d_v.tensor(), &options, &of_forward);
  }
  uint64_t scratch(const attend_attention_backward_options &options, bool causal) const {
    uint64_t bytes = 0;
    const attend_attention_options of_forward = forward_options(causal);
    attend_attention_backward_workspace(&q.tensor(), &k.tensor(), &v.tensor(), &out.tensor(), &d_out.tensor(),
                                        &d_q.tensor(), &d_k.tensor(), &d_v.tensor(), &options, &of_forward, &bytes);
    return bytes;
  }
};

void register_backward(int64_t features, int64_t items, int64_t heads, bool causal, double one_core) {
  const std::string name = "backward/f32/N:" + std::to_string(items) + "/D:" + std::to_string(features) +
                           "/heads:" + std::to_string(heads) + (causal ? "/causal" : "/full");
  for (const Row &row : all_rows(false)) {
    if (row.path != Path::library) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<BackwardProblem>(features, items, heads);
      if (problem.forward(causal) != ATTEND_OK) return state.SkipWithError("the forward call fails");
      auto options = make_options<attend_attention_backward_options>(row.threads);
      const Workspace workspace([&](uint64_t *bytes) {
        *bytes = problem.scratch(options, causal);
        return ATTEND_OK;
      });
      workspace.give_to(options);
      const double seconds = time_calls(state, row, [&] { return problem.backward(options, causal); });
      // Five products of the forward pass's two.
      count_flops(state, row, 2.5 * problem.flops(causal, items, heads), seconds, one_core);
      state.counters["scratch"] = static_cast<double>(problem.scratch(options, causal));
    });
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    for (const int64_t features : {64, 128}) {
      for (const int64_t items : {256, 512, 1024, 4096}) {
        for (const int64_t heads : {1, 8}) {
          if (items == 4096 && heads == 8) continue;
          for (const bool causal : {false, true}) register_backward(features, items, heads, causal, peak.f32);
        }
      }
    }
  });
}
