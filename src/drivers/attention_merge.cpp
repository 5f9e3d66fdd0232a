#include "drivers/attention_merge.hpp"

#include <algorithm>
#include <cmath>

#include "drivers/parallel.hpp"

namespace attend {
namespace {

// Some features of one query, `stride` elements apart.
template <class T>
void merge_features(T *out_a, int64_t stride_a, const T *out_b, int64_t stride_b, int64_t features, double w_a,
                    double w_b, double sum) {
  for (int64_t f = 0; f < features; ++f) {
    T &to = out_a[f * stride_a];
    // A weight of 0 takes part in nothing, so that the result over no keys may hold anything.
    const double from_a = w_a == 0 ? 0 : w_a * static_cast<double>(to);
    const double from_b = w_b == 0 ? 0 : w_b * static_cast<double>(out_b[f * stride_b]);
    to = static_cast<T>((from_a + from_b) / sum);
  }
}

// Every element is read and written once: bound by memory, and so plain code, with the weights in double.
template <class T>
void merge_query(const KernelTable &kernels, const AttentionMerge &p, int64_t query, int64_t head, int64_t batch) {
  T *lse_a = p.lse_a.at<T>(0, query, head, batch);
  const double a = static_cast<double>(*lse_a), b = static_cast<double>(*p.lse_b.at<T>(0, query, head, batch));
  const double top = a > b || std::isnan(a) ? a : b;  // NaN in either goes to all
  if (top == -HUGE_VAL) return;                       // two empty sets: a is their union already
  const double w_a = std::exp(a - top), w_b = std::exp(b - top), sum = w_a + w_b;
  *lse_a = static_cast<T>(top + std::log(sum));
  const int64_t features = p.out_a.rows();
  if (!p.out_a.is_narrow() && !p.out_b.is_narrow()) {
    return merge_features(p.out_a.at<T>(0, query, head, batch), p.out_a.stride[0], p.out_b.at<T>(0, query, head, batch),
                          p.out_b.stride[0], features, w_a, w_b, sum);
  }
  constexpr int64_t kMost = 128;
  constexpr Dtype own = dtype_of<T>();
  T widened_a[kMost], widened_b[kMost];
  for (int64_t f = 0; f < features; f += kMost) {
    const int64_t count = std::min(kMost, features - f);
    const StoredMatrix out_a = p.out_a.matrix(f, query, head, batch), in_a = {widened_a, 1, 0, own};
    kernels.convert({count, 1, out_a, in_a, {}});
    kernels.convert({count, 1, p.out_b.matrix(f, query, head, batch), {widened_b, 1, 0, own}, {}});
    merge_features(widened_a, 1, widened_b, 1, count, w_a, w_b, sum);
    kernels.convert({count, 1, in_a, out_a, {}});
  }
}

}  // namespace

void attention_merge(const KernelTable &kernels, const AttentionMerge &problem, const Execution &execution) {
  constexpr double kElementsPerThread = 1 << 15;
  const int64_t queries = problem.lse_a.columns(), heads = problem.lse_a.heads();
  const double elements = static_cast<double>(problem.lse_a.count) * static_cast<double>(problem.out_a.rows() + 1);
  const int most = std::max(1, static_cast<int>(std::min(elements / kElementsPerThread, 4096.0)));
  parallel_for(execution.executor, std::min(execution.usable_threads(), most), heads * problem.lse_a.batch(),
               [&](int64_t slice, int) {
                 for (int64_t query = 0; query < queries; ++query) {
                   with_acc(problem.out_a.dtype, [&](auto t) {
                     merge_query<decltype(t)>(kernels, problem, query, slice % heads, slice / heads);
                   });
                 }
               });
}

}  // namespace attend
