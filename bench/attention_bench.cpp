// attend_bench_attention: O = V softmax(K^T Q / sqrt(D)) for N queries and keys, and the notebook's self-attention.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>

#include "eigen.hpp"
#include "google_benchmark.hpp"
#include "onednn.hpp"

namespace {

using namespace attend::bench;

// The naive path takes seconds of more, and so does the blocked one.
constexpr double kLargestNaive = 2e8, kLargestBlocked = 3e9;

// The same by three calls, with memory for all scores: what fusing gains.
template <class T>
struct Unfused {
  const AttentionProblem<T> &problem;
  Operand<T> scores;
  attend_tensor keys;  // transposed

  explicit Unfused(const AttentionProblem<T> &p)
      : problem(p), scores(p.k.tensor().shape[1], p.items(), p.heads()), keys(p.k.tensor()) {
    std::swap(keys.shape[0], keys.shape[1]);
    std::swap(keys.stride[0], keys.stride[1]);
  }
  attend_status run(int32_t threads) const {
    const auto products = make_options<attend_matmul_options>(threads);
    const auto softmax = make_options<attend_softmax_options>(threads);
    const double scale = 1 / std::sqrt(static_cast<double>(problem.q.tensor().shape[0]));
    attend_status status = attend_matmul(scale, &keys, &problem.q.tensor(), 0, &scores.tensor(), &products);
    if (status == ATTEND_OK) status = attend_softmax(&scores.tensor(), &scores.tensor(), &softmax);
    if (status != ATTEND_OK) return status;
    return attend_matmul(1, &problem.v.tensor(), &scores.tensor(), 0, &problem.out.tensor(), &products);
  }
};

void register_peer(const std::string &name, const char *peer, int64_t features, int64_t items, int64_t heads,
                   double one_core) {
  const Row row = {peer, Path::blocked, 1};
  register_row(name, row, [=](benchmark::State &state) {
    const auto &problem = problem_for<AttentionProblem<float>>(features, items, heads);
    const float *q = problem.q.view().data, *k = problem.k.view().data, *v = problem.v.view().data;
    float *out = problem.out.view().data;
    problem.run({"", Path::library, 1}, false);
    const std::vector<float> ours(out, out + features * items * heads);
    std::vector<float> scaled(k, k + features * items * heads);
    for (float &x : scaled) x /= std::sqrt(static_cast<float>(features));
    const std::function<void()> call =
        row.name == std::string("onednn")
            ? onednn::attention(features, items, heads, q, scaled.data(), v, out)
            : std::function<void()>([=] { eigen::attention(features, items, heads, q, k, v, out); });
    if (!call) return state.SkipWithError("it has reference code alone for this");
    call();
    if (!agrees(state, ours, out, 1e-4)) return;
    const double seconds = time_calls(state, row, [&] { return call(), ATTEND_OK; });
    count_flops(state, row, problem.flops(false, items, heads), seconds, one_core);
  });
}

template <class T>
void register_shape(int64_t features, int64_t items, int64_t heads, bool causal, double one_core) {
  const std::string name = std::string("attention/") + kTypeName<T> + "/N:" + std::to_string(items) +
                           "/D:" + std::to_string(features) + "/heads:" + std::to_string(heads) +
                           (causal ? "/causal" : "/full");
  const double flops = 4.0 * static_cast<double>(items * items * features * heads);
  for (const Row &row : all_rows(flops <= kLargestNaive)) {
    if (row.path == Path::blocked && flops > kLargestBlocked) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<AttentionProblem<T>>(features, items, heads);
      const double seconds = time_calls(state, row, [&] { return problem.run(row, causal); });
      count_flops(state, row, problem.flops(causal, items, heads), seconds, one_core);
      count_bytes(state, problem.bytes(), seconds);
    });
  }
  if (causal) return;
  register_row(name, {"unfused", Path::blocked, 1}, [=](benchmark::State &state) {
    attend_set_isa(nullptr);
    const auto &problem = problem_for<AttentionProblem<T>>(features, items, heads);
    const Unfused<T> unfused(problem);
    const Row row = {"unfused", Path::blocked, 1};
    const double seconds = time_calls(state, row, [&] { return unfused.run(1); });
    count_flops(state, row, problem.flops(false, items, heads), seconds, one_core);
  });
  if (!std::is_same_v<T, float>) return;
  if (!onednn::version().empty()) register_peer(name, "onednn", features, items, heads, one_core);
  if (!eigen::version().empty()) register_peer(name, "eigen", features, items, heads, one_core);
}

// How time and memory grow with the length, one head: ours, which is given its whole scratch, and the same unfused.
void register_length(int64_t items, double one_core) {
  constexpr int64_t kFeatures = 64, kLongestUnfused = 8192;
  const std::string name = "length/f32/N:" + std::to_string(items) + "/D:64";
  for (const Row &row : all_rows(false)) {
    if (row.path != Path::library) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<AttentionProblem<float>>(kFeatures, items, int64_t{1});
      const double seconds = time_calls(state, row, [&] { return problem.run(row, false); });
      count_flops(state, row, problem.flops(false, items, 1), seconds, one_core);
      state.counters["scratch"] = static_cast<double>(problem.scratch_bytes(row.threads));
    });
  }
  if (items > kLongestUnfused) return;
  const Row row = {"unfused", Path::blocked, 1};
  register_row(name, row, [=](benchmark::State &state) {
    attend_set_isa(nullptr);
    const auto &problem = problem_for<AttentionProblem<float>>(kFeatures, items, int64_t{1});
    const Unfused<float> unfused(problem);
    const double seconds = time_calls(state, row, [&] { return unfused.run(1); });
    count_flops(state, row, problem.flops(false, items, 1), seconds, one_core);
    state.counters["scratch"] = 4 * unfused.scores.elements();
  });
}

// One query against a long cache of keys and values: bound by reading them.
template <class T>
void register_decode(int64_t keys, int64_t heads, int64_t kv_heads) {
  constexpr int64_t kFeatures = 128;
  const std::string name = std::string("decode/") + kTypeName<T> + "/keys:" + std::to_string(keys) +
                           "/D:128/heads:" + std::to_string(heads) + "/kv:" + std::to_string(kv_heads);
  for (const Row &row : all_rows(false)) {
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<AttentionProblem<T>>(kFeatures, int64_t{1}, keys, heads, kv_heads);
      count_bytes(state, problem.bytes(), time_calls(state, row, [&] { return problem.run(row, false); }));
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
    for (const int64_t items : {16, 32, 64, 128, 256, 512, 1024, 2048, 4096}) {
      for (const int64_t heads : {1, 8}) {
        for (const bool causal : {false, true}) {
          register_shape<T>(features, items, heads, causal, peak_of<T>(peak));
        }
      }
    }
  }
  for (const int64_t keys : {1024, 16384}) {
    register_decode<T>(keys, 8, 8);
    register_decode<T>(keys, 32, 4);
  }
  for (const int64_t keys : {16384, 131072}) {
    register_decode<T>(keys, 1, 1);
    register_decode<T>(keys, 8, 1);
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    for (const int64_t items : {512, 1024, 2048, 4096, 8192, 16384}) register_length(items, peak.f32);
    register_type<float>(peak);
    register_type<double>(peak);
  });
}
