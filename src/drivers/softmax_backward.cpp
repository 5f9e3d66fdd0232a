#include "drivers/softmax_backward.hpp"

#include <algorithm>

namespace attend {
namespace {

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

// Columns of a task. Contiguous: about as many elements as above. Otherwise wide tasks, whose rows are long runs of memory
// and whose sums, three numbers a column, stay near.
template <class T>
constexpr int64_t kMostColumns = (1 << 14) / static_cast<int64_t>(sizeof(T));
constexpr int64_t kLeastColumns = 256;
template <class T>
int64_t columns_per_task(const SoftmaxBackward &p, int threads) {
  if (is_contiguous(p)) return std::max<int64_t>(1, kTaskElements / p.y.rows());
  const int64_t columns = p.y.columns() / (2 * int64_t{threads}) / kLeastColumns * kLeastColumns;
  return threads == 1 ? kMostColumns<T> : std::clamp(columns, kLeastColumns, kMostColumns<T>);
}

int64_t blocks_of(const SoftmaxBackward &p, int64_t columns) { return (p.y.columns() + columns - 1) / columns; }

template <class T>
Need need_of(const SoftmaxBackward &p) {
  constexpr int64_t kVector = 64 / static_cast<int64_t>(sizeof(T));
  const bool contiguous = is_contiguous(p);
  Need need;
  need.tasks = blocks_of(p, contiguous ? columns_per_task<T>(p, 1) : kLeastColumns) * p.y.heads() * p.y.batch();
  if (contiguous) return need;
  const int64_t columns = std::min((p.y.columns() + kVector - 1) / kVector * kVector, kMostColumns<T>);
  need.per_thread = 3 * columns * static_cast<int64_t>(sizeof(T));
  return need;
}

template <class T>
Acquired softmax_backward_of(const KernelsOf<T> &kernels, const SoftmaxBackward &p, const Execution &execution,
                             int threads) {
  const Scratch scratch(execution, need_of<T>(p), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();
  SoftmaxBackwardBlock<T> common = {};
  common.rows = p.y.rows();
  common.scale = static_cast<T>(p.scale);
  common.log = p.log;
  common.accumulates = p.accumulates;
  common.contiguous = is_contiguous(p);
  common.stream = streams(p);
  const int64_t heads = p.y.heads(), columns = p.y.columns(), block = columns_per_task<T>(p, scratch.threads());
  const int64_t blocks = blocks_of(p, block);
  parallel_for(scratch.executor(), scratch.threads(), blocks * heads * p.y.batch(), [&](int64_t task, int thread) {
    const int64_t column = task % blocks * block, head = task / blocks % heads, batch = task / blocks / heads;
    SoftmaxBackwardBlock<T> x = common;
    x.columns = std::min(block, columns - column);
    x.y = p.y.matrix(0, column, head, batch);
    x.d_y = p.d_y.matrix(0, column, head, batch);
    x.d_x = p.d_x.matrix(0, column, head, batch);
    if (p.d_lse) x.d_lse = {p.d_lse.at<const T>(0, column, head, batch), p.d_lse.stride[0], p.d_lse.stride[1]};
    if (!x.contiguous) x.scratch = reinterpret_cast<T *>(scratch.of_thread(thread));
    kernels.softmax_backward(x);
  });
  return Acquired::ok;
}

}  // namespace

Need softmax_backward_need(const SoftmaxBackward &problem) {
  return with_acc(problem.y.dtype, [&](auto t) { return need_of<decltype(t)>(problem); });
}

Acquired softmax_backward(const KernelTable &kernels, const SoftmaxBackward &p, const Execution &execution) {
  const double elements = static_cast<double>(p.y.count);
  int threads = execution.usable_threads();
  if (elements < static_cast<double>(kTaskElements) * threads) {
    threads = std::max(1, static_cast<int>(elements / static_cast<double>(kTaskElements)));
  }
  return with_acc(p.y.dtype,
                  [&](auto t) { return softmax_backward_of(kernels_of<decltype(t)>(kernels), p, execution, threads); });
}

}  // namespace attend
