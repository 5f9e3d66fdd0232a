#include "drivers/softmax_backward.hpp"

#include <algorithm>

namespace attend {
namespace {

// Columns of a task are whole strips, in multiples of this.
constexpr int64_t kLine = 256;
// Elements of a task, microseconds; and of a thread below which another one does not pay.
constexpr int64_t kTaskElements = 1 << 14;

// The layouts have orders of summation of their own, so the choice depends on shapes and strides alone; not on those of
// d_y, which often repeats one number.
bool is_contiguous(const SoftmaxBackward &p) { return p.y.stride[0] == 1 && p.d_x.stride[0] == 1 && p.y.rows() != 1; }

// Whether d_x goes past the caches: too large to be found there by whoever reads it next, and not there already.
bool streams(const SoftmaxBackward &p) {
  const int64_t size = size_of(p.d_x.dtype);
  const bool is_new = !p.accumulates && p.d_x.data != p.y.data && p.d_x.data != p.d_y.data;
  return is_new && !p.d_x.is_narrow() && p.d_x.stride[is_contiguous(p) ? 0 : 1] == 1 &&
         reinterpret_cast<uintptr_t>(p.d_x.data) % static_cast<uintptr_t>(size) == 0 &&
         static_cast<double>(p.d_x.count) * static_cast<double>(size) > static_cast<double>(kUsualL3Share);
}

int64_t columns_per_task(const SoftmaxBackward &p, int threads) {
  if (is_contiguous(p)) return std::max<int64_t>(1, kTaskElements / p.y.rows());
  // As few tasks as keep the threads busy: rows are read in long runs.
  const int64_t columns = threads == 1 ? p.y.columns() + kLine - 1 : p.y.columns() / (4 * int64_t{threads});
  return std::max(kLine, columns / kLine * kLine);
}

template <class T>
void softmax_backward_of(const KernelsOf<T> &kernels, const SoftmaxBackward &p, const Executor &executor, int threads) {
  SoftmaxBackwardBlock<T> common = {};
  common.rows = p.y.rows();
  common.scale = static_cast<T>(p.scale);
  common.log = p.log;
  common.accumulates = p.accumulates;
  common.contiguous = is_contiguous(p);
  common.stream = streams(p);
  const int64_t heads = p.y.heads(), columns = p.y.columns(), block = columns_per_task(p, threads);
  const int64_t blocks = (columns + block - 1) / block;
  parallel_for(executor, threads, blocks * heads * p.y.batch(), [&](int64_t task, int) {
    const int64_t column = task % blocks * block, head = task / blocks % heads, batch = task / blocks / heads;
    SoftmaxBackwardBlock<T> x = common;
    x.columns = std::min(block, columns - column);
    x.y = p.y.matrix(0, column, head, batch);
    x.d_y = p.d_y.matrix(0, column, head, batch);
    x.d_x = p.d_x.matrix(0, column, head, batch);
    if (p.d_lse) x.d_lse = {p.d_lse.at<const T>(0, column, head, batch), p.d_lse.stride[0], p.d_lse.stride[1]};
    kernels.softmax_backward(x);
  });
}

}  // namespace

void softmax_backward(const KernelTable &kernels, const SoftmaxBackward &p, const Execution &execution) {
  const double elements = static_cast<double>(p.y.count);
  int threads = execution.usable_threads();
  if (elements < static_cast<double>(kTaskElements) * threads) {
    threads = std::max(1, static_cast<int>(elements / static_cast<double>(kTaskElements)));
  }
  with_acc(p.y.dtype,
           [&](auto t) { softmax_backward_of(kernels_of<decltype(t)>(kernels), p, execution.executor, threads); });
}

}  // namespace attend
