#include "drivers/softmax.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

// Columns of one task: about 16 Ki elements, so that a task is microseconds long, in whole strips of columns.
int64_t columns_per_task(const Softmax &p) {
  constexpr int64_t kElements = 1 << 14, kLine = 128;
  const int64_t columns = kElements / std::max<int64_t>(1, p.x.rows());
  return std::max(kLine, columns / kLine * kLine);
}

int64_t blocks_of(const Softmax &p) { return (p.x.columns() + columns_per_task(p) - 1) / columns_per_task(p); }

double natural_log(double x) { return std::log(x); }

// The layouts have orders of summation of their own, so the choice depends on shapes and strides alone.
bool is_contiguous(const Softmax &p) { return (p.x.stride[0] == 1 && p.y.stride[0] == 1) || p.x.rows() == 1; }

// Results too large to be found in a cache by whoever reads them next.
bool is_large(const Softmax &p) {
  constexpr double kBytes = 1 << 23;
  return static_cast<double>(p.y.rows()) * static_cast<double>(p.y.columns()) *
             static_cast<double>(p.y.heads() * p.y.batch()) * static_cast<double>(size_of(p.dtype)) >
         kBytes;
}

template <class T>
bool needs_scratch(const Softmax &p) {
  return !is_contiguous(p) || (is_large(p) && p.x.rows() <= Contract<T>::kSoftmaxScratch / 2);
}

// Whether all of y's vectors, whatever their size, begin at multiples of it.
bool is_aligned(const Softmax &p) {
  constexpr int64_t kVector = 64;
  const size_t contiguous = is_contiguous(p) ? 0 : 1;
  bool aligned = reinterpret_cast<uintptr_t>(p.y.data) % kVector == 0 && p.y.stride[contiguous] == 1;
  for (size_t i = 0; i < 4; ++i) {
    if (i != contiguous) aligned &= p.y.stride[i] * size_of(p.dtype) % kVector == 0;
  }
  return aligned;
}

template <class T>
Need need_of(const Softmax &p) {
  Need need;
  need.tasks = blocks_of(p) * p.x.heads() * p.x.batch();
  if (needs_scratch<T>(p)) need.per_thread = Contract<T>::kSoftmaxScratch * static_cast<int64_t>(sizeof(T));
  return need;
}

template <class T>
Acquired run(void (*contiguous)(const SoftmaxBlock<T> &), void (*strided)(const SoftmaxBlock<T> &), const Softmax &p,
             const Execution &execution, int threads) {
  const Scratch scratch(execution, need_of<T>(p), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();
  SoftmaxBlock<T> common = {};
  common.rows = p.x.rows();
  common.x_row = p.x.stride[0];
  common.x_col = p.x.stride[1];
  common.y_row = p.y.stride[0];
  common.y_col = p.y.stride[1];
  if (p.bias) common.bias_row = p.bias.stride[0], common.bias_col = p.bias.stride[1];
  if (p.mask) common.mask_row = p.mask.stride[0], common.mask_col = p.mask.stride[1];
  if (p.lse) common.lse_col = p.lse.stride[1];
  common.scale = static_cast<T>(p.scale);
  common.log = p.log;
  common.natural_log = natural_log;
  common.stream = is_large(p) && needs_scratch<T>(p) && is_aligned(p) && !(is_contiguous(p) && p.log);
  common.ahead = (1 << 14) / static_cast<int64_t>(sizeof(T));
  const auto kernel = is_contiguous(p) ? contiguous : strided;

  const int64_t block = columns_per_task(p), blocks = blocks_of(p);
  parallel_for(scratch.threads(), blocks * p.x.heads() * p.x.batch(), [&](int64_t task, int thread) {
    const int64_t column = task % blocks * block, head = task / blocks % p.x.heads(),
                  batch = task / blocks / p.x.heads();
    SoftmaxBlock<T> x = common;
    x.columns = std::min(block, p.x.columns() - column);
    x.x = p.x.at<T>(0, column, head, batch);
    x.y = p.y.at<T>(0, column, head, batch);
    x.lse = p.lse ? p.lse.at<T>(0, column, head, batch) : nullptr;
    x.bias = p.bias ? p.bias.at<T>(0, column, head, batch) : nullptr;
    x.mask = p.mask ? p.mask.at<uint8_t>(0, column, head, batch) : nullptr;
    x.scratch = reinterpret_cast<T *>(scratch.of_thread(thread));
    kernel(x);
  });
  return Acquired::ok;
}

}  // namespace

Need softmax_need(const Softmax &problem) {
  return problem.dtype == Dtype::f32 ? need_of<float>(problem) : need_of<double>(problem);
}

Acquired softmax(const KernelTable &kernels, const Softmax &problem, const Execution &execution) {
  // Some 0.3 ns an element; a second thread pays from about 16 Ki elements on.
  constexpr double kElementsPerThread = 1 << 14;
  int threads = usable_threads(execution.threads);
  const double elements = static_cast<double>(problem.x.rows()) * static_cast<double>(problem.x.columns()) *
                          static_cast<double>(problem.x.heads() * problem.x.batch());
  if (elements < kElementsPerThread * threads) threads = std::max(1, static_cast<int>(elements / kElementsPerThread));
  return problem.dtype == Dtype::f32
             ? run<float>(kernels.softmax_contiguous_f32, kernels.softmax_strided_f32, problem, execution, threads)
             : run<double>(kernels.softmax_contiguous_f64, kernels.softmax_strided_f64, problem, execution, threads);
}

}  // namespace attend
