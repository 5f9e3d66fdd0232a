#include "drivers/softmax.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

// Columns of one task: about 16 Ki elements, so that a task is microseconds long, in whole cache lines of columns.
int64_t columns_per_task(const Softmax &p) {
  constexpr int64_t kElements = 1 << 14, kLine = 64;
  const int64_t columns = kElements / std::max<int64_t>(1, p.x.rows());
  return std::max(kLine, columns / kLine * kLine);
}

int64_t blocks_of(const Softmax &p) { return (p.x.columns() + columns_per_task(p) - 1) / columns_per_task(p); }

double natural_log(double x) { return std::log(x); }

template <class T>
void run(void (*contiguous)(const SoftmaxBlock<T> &), void (*strided)(const SoftmaxBlock<T> &), const Softmax &p,
         int threads) {
  SoftmaxBlock<T> common = {};
  common.rows = p.x.rows();
  common.x_row = p.x.stride[0];
  common.x_col = p.x.stride[1];
  common.y_row = p.y.stride[0];
  common.y_col = p.y.stride[1];
  common.lse_col = p.lse.stride[1];
  common.scale = static_cast<T>(p.scale);
  common.log = p.log;
  common.natural_log = natural_log;
  // The layouts have orders of summation of their own, so the choice depends on the strides alone.
  const bool one_row = p.x.rows() == 1;
  const auto kernel = (common.x_row == 1 && common.y_row == 1) || one_row ? contiguous : strided;

  const int64_t block = columns_per_task(p), blocks = blocks_of(p);
  parallel_for(threads, blocks * p.x.heads() * p.x.batch(), [&](int64_t task, int) {
    const int64_t column = task % blocks * block, head = task / blocks % p.x.heads(),
                  batch = task / blocks / p.x.heads();
    SoftmaxBlock<T> x = common;
    x.columns = std::min(block, p.x.columns() - column);
    x.x = p.x.at<T>(0, column, head, batch);
    x.y = p.y.at<T>(0, column, head, batch);
    x.lse = p.lse ? p.lse.at<T>(0, column, head, batch) : nullptr;
    kernel(x);
  });
}

}  // namespace

Need softmax_need(const Softmax &problem) {
  Need need;
  need.tasks = blocks_of(problem) * problem.x.heads() * problem.x.batch();
  return need;
}

Acquired softmax(const KernelTable &kernels, const Softmax &problem, const Execution &execution) {
  // Some 2 ns an element; a second thread pays from about 16 Ki elements on.
  constexpr double kElementsPerThread = 1 << 14;
  int threads = usable_threads(execution.threads);
  const double elements = static_cast<double>(problem.x.rows()) * static_cast<double>(problem.x.columns()) *
                          static_cast<double>(problem.x.heads() * problem.x.batch());
  if (elements < kElementsPerThread * threads) threads = std::max(1, static_cast<int>(elements / kElementsPerThread));
  if (problem.dtype == Dtype::f32) {
    run<float>(kernels.softmax_contiguous_f32, kernels.softmax_strided_f32, problem, threads);
  } else {
    run<double>(kernels.softmax_contiguous_f64, kernels.softmax_strided_f64, problem, threads);
  }
  return Acquired::ok;
}

}  // namespace attend
