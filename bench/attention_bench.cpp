// attend_bench_attention: O = V softmax(K^T Q / sqrt(D)) for N queries and keys, and the notebook's self-attention.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <random>
#include <string>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

// The naive path writes scores of the whole sequence for every query, one product at a time.
constexpr int64_t kLargestNaive = 256;

template <class T>
void register_shape(int64_t features, int64_t items, int64_t heads, bool causal, double one_core) {
  const std::string name = std::string("attention/") + kTypeName<T> + "/N:" + std::to_string(items) +
                           "/D:" + std::to_string(features) + "/heads:" + std::to_string(heads) +
                           (causal ? "/causal" : "/full");
  for (const Row &row : all_rows(items <= kLargestNaive)) {
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<AttentionProblem<T>>(features, items, heads);
      const double seconds = time_calls(state, row, [&] { return problem.run(row, causal); });
      count_flops(state, row, problem.flops(causal, items, heads), seconds, one_core);
    });
  }
}

// Three items of four features, one head, with biases: about 300 multiplications, so the time is that of the call.
template <class T>
struct NotebookProblem {
  static constexpr int64_t kFeatures = 4, kItems = 3;
  Operand<T> x{kFeatures, kItems}, out{kFeatures, kItems};
  Operand<T> w_q{kFeatures, kFeatures}, w_k{kFeatures, kFeatures}, w_v{kFeatures, kFeatures};
  Operand<T> b_q{kFeatures, 1}, b_k{kFeatures, 1}, b_v{kFeatures, 1};
  attend_self_attention_weights weights = {};
  Workspace workspace;

  NotebookProblem()
      : workspace([this](uint64_t *bytes) {
          // Filled here, since the query needs them and members are made in order.
          weights.size = sizeof(weights);
          weights.w_q = &w_q.tensor();
          weights.w_k = &w_k.tensor();
          weights.w_v = &w_v.tensor();
          weights.b_q = &b_q.tensor();
          weights.b_k = &b_k.tensor();
          weights.b_v = &b_v.tensor();
          const auto options = make_options<attend_self_attention_options>(attend_threads());
          return attend_self_attention_workspace(&x.tensor(), &weights, &out.tensor(), &options, nullptr, bytes);
        }) {
    std::mt19937 random(1);
    for (Operand<T> *operand : {&x, &w_q, &w_k, &w_v, &b_q, &b_k, &b_v}) operand->fill_with_normals(random);
  }

  attend_status run(const Row &row) const {
    if (row.path == Path::library) {
      auto options = make_options<attend_self_attention_options>(row.threads);
      workspace.give_to(options);
      return attend_self_attention(&x.tensor(), &weights, &out.tensor(), &options, nullptr);
    }
    attend::reference::View<T> bias_q = b_q.view(), bias_k = b_k.view(), bias_v = b_v.view();
    attend::reference::Weights<T> w = {w_q.view(), w_k.view(), w_v.view()};
    w.b_q = &bias_q;
    w.b_k = &bias_k;
    w.b_v = &bias_v;
    if (row.path == Path::naive) {
      attend::reference::naive::self_attention<T>(x.view(), w, out.view());
    } else {
      attend::reference::blocked::self_attention<T>(x.view(), w, out.view());
    }
    return ATTEND_OK;
  }
};

template <class T>
void register_type(const FmaPeak &peak) {
  for (const Row &row : all_rows(true)) {
    register_row(std::string("self_attention/") + kTypeName<T> + "/notebook_3x4", row, [=](benchmark::State &state) {
      const auto &problem = problem_for<NotebookProblem<T>>();
      time_calls(state, row, [&] { return problem.run(row); });
    });
  }
  for (const int64_t features : {64, 128}) {
    for (const int64_t items : {16, 64, 256, 1024, 4096}) {
      for (const int64_t heads : {1, 8}) {
        for (const bool causal : {false, true}) {
          register_shape<T>(features, items, heads, causal, peak_of<T>(peak));
        }
      }
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    register_type<float>(peak);
    register_type<double>(peak);
  });
}
