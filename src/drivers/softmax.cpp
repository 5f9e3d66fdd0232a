#include "drivers/softmax.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

// The layouts have orders of summation of their own, so the choice depends on shapes and strides alone.
bool is_contiguous(const Softmax &p) { return (p.x.stride[0] == 1 && p.y.stride[0] == 1) || p.x.rows() == 1; }

template <class T>
bool is_long(const Softmax &p) {
  return is_contiguous(p) && p.x.rows() > Contract<T>::kSoftmaxLong;
}

// Columns of a task are whole strips, in multiples of this.
constexpr int64_t kLine = 128;

// Columns of one task. Contiguous: about 16 Ki elements, so that a task is microseconds long. Otherwise as few tasks as
// keep the threads busy, for the strips of a task work beside each other.
int64_t columns_per_task(const Softmax &p, int threads) {
  constexpr int64_t kElements = 1 << 14;
  const int64_t columns = is_contiguous(p) ? kElements / std::max<int64_t>(1, p.x.rows())
                          : threads == 1   ? p.x.columns() + kLine - 1
                                           : p.x.columns() / (4 * static_cast<int64_t>(threads));
  return std::max(kLine, columns / kLine * kLine);
}

int64_t blocks_of(const Softmax &p, int64_t columns) { return (p.x.columns() + columns - 1) / columns; }

double natural_log(double x) { return std::log(x); }

// Results too large to be found in a cache by whoever reads them next.
bool is_large(const Softmax &p) {
  constexpr double kBytes = 1 << 23;
  return static_cast<double>(p.y.rows()) * static_cast<double>(p.y.columns()) *
             static_cast<double>(p.y.heads() * p.y.batch()) * static_cast<double>(size_of(p.dtype)) >
         kBytes;
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

// A long column's spans of whole chunks, the work of one task.
constexpr int64_t kSpanChunks = 32;
template <class T>
constexpr int64_t kSpan = kSpanChunks *Contract<T>::kSoftmaxChunk;

template <class T>
int64_t chunks_of(const Softmax &p) {
  return (p.x.rows() + Contract<T>::kSoftmaxChunk - 1) / Contract<T>::kSoftmaxChunk;
}

template <class T>
Need need_of(const Softmax &p) {
  const auto bytes = [](int64_t elements) { return aligned(elements * static_cast<int64_t>(sizeof(T))); };
  Need need;
  if (is_long<T>(p)) {
    need.tasks = (p.x.rows() + kSpan<T> - 1) / kSpan<T>;
    need.shared = 2 * bytes(chunks_of<T>(p));
    return need;
  }
  need.tasks = blocks_of(p, is_contiguous(p) ? columns_per_task(p, 1) : kLine) * p.x.heads() * p.x.batch();
  if (!is_contiguous(p)) {
    need.per_thread = bytes(softmax_scratch<T>(p.x.rows()));
  } else if (is_large(p)) {
    need.per_thread = bytes(softmax_scratch_columns<T>(p.x.rows()));
  }
  return need;
}

template <class T>
struct Kernels {
  void (*contiguous)(const SoftmaxBlock<T> &);
  void (*strided)(const SoftmaxBlock<T> &);
  void (*of_long)(const LongSoftmaxBlock<T> &);
};

// The part of the block that does not depend on the task.
template <class T>
SoftmaxBlock<T> common_of(const Softmax &p) {
  SoftmaxBlock<T> x = {};
  x.rows = p.x.rows();
  x.x_row = p.x.stride[0];
  x.x_col = p.x.stride[1];
  x.y_row = p.y.stride[0];
  x.y_col = p.y.stride[1];
  if (p.bias) x.bias_row = p.bias.stride[0], x.bias_col = p.bias.stride[1];
  if (p.mask) x.mask_row = p.mask.stride[0], x.mask_col = p.mask.stride[1];
  if (p.lse) x.lse_col = p.lse.stride[1];
  x.scale = static_cast<T>(p.scale);
  x.log = p.log;
  x.natural_log = natural_log;
  x.stream = is_large(p) && is_aligned(p);
  x.ahead = (1 << 14) / static_cast<int64_t>(sizeof(T));
  return x;
}

template <class T>
void set_columns(const Softmax &p, int64_t column, int64_t head, int64_t batch, SoftmaxBlock<T> *x) {
  x->x = p.x.at<T>(0, column, head, batch);
  x->y = p.y.at<T>(0, column, head, batch);
  x->lse = p.lse ? p.lse.at<T>(0, column, head, batch) : nullptr;
  x->bias = p.bias ? p.bias.at<T>(0, column, head, batch) : nullptr;
  x->mask = p.mask ? p.mask.at<uint8_t>(0, column, head, batch) : nullptr;
}

// One column, its spans in parallel.
template <class T>
void run_long(void (*kernel)(const LongSoftmaxBlock<T> &), const SoftmaxBlock<T> &column, char *shared, int threads) {
  const int64_t rows = column.rows;
  const int64_t chunks = (rows + Contract<T>::kSoftmaxChunk - 1) / Contract<T>::kSoftmaxChunk;
  T of_column[3];
  LongSoftmaxBlock<T> common = {};
  common.block = column;
  common.maxima = reinterpret_cast<T *>(shared);
  common.chunks = reinterpret_cast<T *>(shared + aligned(chunks * static_cast<int64_t>(sizeof(T))));
  common.of_column = of_column;
  const auto for_spans = [&](typename LongSoftmaxBlock<T>::Step step) {
    parallel_for(threads, (rows + kSpan<T> - 1) / kSpan<T>, [&](int64_t span, int) {
      LongSoftmaxBlock<T> x = common;
      const int64_t row = span * kSpan<T>;
      x.step = step;
      x.block.columns = 1;
      x.block.rows = std::min(kSpan<T>, rows - row);
      x.block.x += row;
      x.block.y += row;
      if (x.block.bias != nullptr) x.block.bias += row * x.block.bias_row;
      if (x.block.mask != nullptr) x.block.mask += row * x.block.mask_row;
      x.maxima += span * kSpanChunks;
      x.chunks += span * kSpanChunks;
      kernel(x);
    });
  };
  for_spans(LongSoftmaxBlock<T>::sums);
  common.step = LongSoftmaxBlock<T>::fold;
  kernel(common);
  for_spans(LongSoftmaxBlock<T>::results);
}

template <class T>
Acquired run(const Kernels<T> &kernels, const Softmax &p, const Execution &execution, int threads) {
  const Scratch scratch(execution, need_of<T>(p), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();
  const SoftmaxBlock<T> common = common_of<T>(p);
  const int64_t heads = p.x.heads(), columns = p.x.columns();
  if (is_long<T>(p)) {
    for (int64_t i = 0; i < columns * heads * p.x.batch(); ++i) {
      SoftmaxBlock<T> x = common;
      set_columns(p, i % columns, i / columns % heads, i / columns / heads, &x);
      run_long(kernels.of_long, x, scratch.shared(), scratch.threads());
    }
    return Acquired::ok;
  }
  const auto kernel = is_contiguous(p) ? kernels.contiguous : kernels.strided;
  const int64_t block = columns_per_task(p, scratch.threads()), blocks = blocks_of(p, block);
  parallel_for(scratch.threads(), blocks * heads * p.x.batch(), [&](int64_t task, int thread) {
    const int64_t column = task % blocks * block;
    SoftmaxBlock<T> x = common;
    x.columns = std::min(block, columns - column);
    set_columns(p, column, task / blocks % heads, task / blocks / heads, &x);
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
             ? run<float>({kernels.softmax_contiguous_f32, kernels.softmax_strided_f32, kernels.softmax_long_f32},
                          problem, execution, threads)
             : run<double>({kernels.softmax_contiguous_f64, kernels.softmax_strided_f64, kernels.softmax_long_f64},
                           problem, execution, threads);
}

}  // namespace attend
