#include "drivers/softmax.hpp"

#include <algorithm>
#include <cmath>

#include "drivers/cache.hpp"

namespace attend {
namespace {

// The layouts have orders of summation of their own, so the choice depends on shapes and strides alone. (Columns of one
// element are a row, whatever their stride: there is nothing to add.)
bool is_contiguous(const Softmax &p) { return p.x.stride[0] == 1 && p.y.stride[0] == 1 && p.x.rows() != 1; }

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

double bytes_of_y(const Softmax &p) {
  return static_cast<double>(p.y.rows()) * static_cast<double>(p.y.columns()) *
         static_cast<double>(p.y.heads() * p.y.batch()) * static_cast<double>(size_of(p.y.dtype));
}

// Results too large to be found in a cache by whoever reads them next.
bool is_large(const Softmax &p) { return bytes_of_y(p) > static_cast<double>(kUsualL3Share); }

// Whether y can be written past the caches, in whole lines: the kernels look for where these begin, which must be the same
// in columns that are side by side. Contiguous columns whose ends share lines must be long: at 1024 f32 that takes 0.8 of
// the time, at 256 1.25 times it.
bool has_lines(const Softmax &p) {
  constexpr int64_t kBytes = 64, kLongColumn = 4096;
  const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(p.y.data) % kBytes);
  const int64_t size = size_of(p.y.dtype);
  if (address % size != 0) return false;
  if (!is_contiguous(p)) return p.y.stride[1] == 1 && p.y.stride[0] * size % kBytes == 0;
  return (address == 0 && p.y.stride[1] * size % kBytes == 0) || p.y.rows() * size >= kLongColumn;
}

// A long column's spans of whole chunks, the work of one task.
constexpr int64_t kSpanChunks = 32;
template <class T>
constexpr int64_t kSpan = kSpanChunks *Contract<T>::kSoftmaxChunk;

template <class T>
int64_t spans_of(int64_t rows) {
  return (rows + kSpan<T> - 1) / kSpan<T>;
}

// Bytes of a value for each chunk of a long column.
template <class T>
int64_t chunk_bytes(int64_t rows) {
  const int64_t chunks = (rows + Contract<T>::kSoftmaxChunk - 1) / Contract<T>::kSoftmaxChunk;
  return aligned(chunks * static_cast<int64_t>(sizeof(T)));
}

// Elements of scratch for a block: of contiguous columns two groups, of 16 KiB or of one column; else two strips of four
// 64-byte vectors up to 4 MiB (8192 rows; the 512 KiB of 1024 rows are half of a usual L2), of two or one up to 8 MiB. (Wide
// strips visit fewer pages: 8192 rows take 0.9 of the time of two vectors, these at 32768 rows half of one's.) Longer columns
// have none.
template <class T>
int64_t scratch_size(const Softmax &p) {
  constexpr int64_t kVector = 64 / static_cast<int64_t>(sizeof(T)), kMiB = (1 << 20) / static_cast<int64_t>(sizeof(T));
  const int64_t rows = p.x.rows();
  if (is_contiguous(p)) {
    return is_large(p) || p.y.is_narrow() ? 2 * std::max((rows + kVector - 1) / kVector * kVector, kMiB / 64) : 0;
  }
  if (rows > 4 * kMiB / kVector) return 0;
  const int64_t strips = 2 * rows * kVector;
  return 4 * strips <= 4 * kMiB ? 4 * strips : 2 * strips <= 8 * kMiB ? 2 * strips : strips;
}

template <class T>
Need need_of(const Softmax &p) {
  const int64_t slices = p.x.heads() * p.x.batch();
  Need need;
  if (is_long<T>(p)) {
    need.tasks = p.x.columns() * slices;
    if (need.tasks < kMostThreads) need.tasks *= std::min<int64_t>(kMostThreads, spans_of<T>(p.x.rows()));
    need.per_thread =
        2 * chunk_bytes<T>(p.x.rows()) + (p.y.is_narrow() ? kSpan<T> * static_cast<int64_t>(sizeof(T)) : 0);
    return need;
  }
  need.tasks = blocks_of(p, is_contiguous(p) ? columns_per_task(p, 1) : kLine) * slices;
  need.per_thread = aligned(scratch_size<T>(p) * static_cast<int64_t>(sizeof(T)));
  return need;
}

// The part of the block that does not depend on the task.
template <class T>
SoftmaxBlock<T> common_of(const Softmax &p) {
  SoftmaxBlock<T> x = {};
  x.rows = p.x.rows();
  x.scale = static_cast<T>(p.scale);
  x.log = p.log;
  x.natural_log = natural_log;
  x.stream = is_large(p) && has_lines(p) && !p.y.is_narrow();
  x.asks = is_wide_core() && !x.stream && bytes_of_y(p) >= 1 << 16;
  x.far = bytes_of_y(p) >= 2 * kUsualL2;
  x.scratch_size = scratch_size<T>(p);
  return x;
}

template <class T>
MatrixRef<T> columns_of(const Tensor &t, int64_t column, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.at<T>(0, column, head, batch), t.stride[0], t.stride[1]};
}

template <class T>
void set_columns(const Softmax &p, int64_t column, int64_t head, int64_t batch, SoftmaxBlock<T> *x) {
  x->x = p.x.matrix(0, column, head, batch);
  x->y = p.y.matrix(0, column, head, batch);
  x->lse = columns_of<T>(p.lse, column, head, batch);
  x->bias = p.bias.matrix(0, column, head, batch);
  x->mask = columns_of<const uint8_t>(p.mask, column, head, batch);
}

// One column, its spans in parallel.
template <class T>
void run_long(void (*kernel)(const LongSoftmaxBlock<T> &), const SoftmaxBlock<T> &column, const Scratch &of_call,
              int own_thread, int threads) {
  const int64_t rows = column.rows;
  char *const scratch = of_call.of_thread(own_thread);
  T of_column[3];
  LongSoftmaxBlock<T> common = {};
  common.block = column;
  common.maxima = reinterpret_cast<T *>(scratch);
  common.chunks = reinterpret_cast<T *>(scratch + chunk_bytes<T>(rows));
  common.of_column = of_column;
  const auto for_spans = [&](typename LongSoftmaxBlock<T>::Step step) {
    parallel_for(of_call.executor(), threads, spans_of<T>(rows), [&](int64_t span, int thread) {
      LongSoftmaxBlock<T> x = common;
      const int64_t row = span * kSpan<T>;
      x.step = step;
      x.block.columns = 1;
      x.block.rows = std::min(kSpan<T>, rows - row);
      x.block.x.data = element_of(x.block.x, row, 0);
      x.block.y.data = element_of(x.block.y, row, 0);
      x.block.scratch =
          reinterpret_cast<T *>(of_call.of_thread(threads > 1 ? thread : own_thread) + 2 * chunk_bytes<T>(rows));
      if (x.block.bias.data != nullptr) x.block.bias.data = element_of(x.block.bias, row, 0);
      if (x.block.mask.data != nullptr) x.block.mask.data += row * x.block.mask.row_stride;
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
Acquired softmax_of(const KernelsOf<T> &kernels, const Softmax &p, const Execution &execution, int threads) {
  const Scratch scratch(execution, need_of<T>(p), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();
  const SoftmaxBlock<T> common = common_of<T>(p);
  const int64_t heads = p.x.heads(), columns = p.x.columns();
  if (is_long<T>(p)) {
    // Whole columns to a thread, or, where there are too few to keep all threads at work to the end, their spans.
    const int64_t count = columns * heads * p.x.batch(), workers = scratch.threads();
    const bool splits = count < 4 * workers && count % workers != 0;
    parallel_for(scratch.executor(), splits ? 1 : scratch.threads(), count, [&](int64_t i, int thread) {
      SoftmaxBlock<T> x = common;
      set_columns(p, i % columns, i / columns % heads, i / columns / heads, &x);
      run_long(kernels.softmax_long, x, scratch, thread, splits ? scratch.threads() : 1);
    });
    return Acquired::ok;
  }
  const auto kernel = is_contiguous(p) ? kernels.softmax_contiguous : kernels.softmax_strided;
  const int64_t block = columns_per_task(p, scratch.threads()), blocks = blocks_of(p, block);
  parallel_for(scratch.executor(), scratch.threads(), blocks * heads * p.x.batch(), [&](int64_t task, int thread) {
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
  return with_acc(problem.y.dtype, [&](auto t) { return need_of<decltype(t)>(problem); });
}

Acquired softmax(const KernelTable &kernels, const Softmax &problem, const Execution &execution) {
  // Some 0.3 ns an element; a second thread pays from about 16 Ki elements on.
  constexpr double kElementsPerThread = 1 << 14;
  int threads = execution.usable_threads();
  const double elements = static_cast<double>(problem.x.rows()) * static_cast<double>(problem.x.columns()) *
                          static_cast<double>(problem.x.heads() * problem.x.batch());
  if (elements < kElementsPerThread * threads) threads = std::max(1, static_cast<int>(elements / kElementsPerThread));
  return with_acc(problem.y.dtype,
                  [&](auto t) { return softmax_of(kernels_of<decltype(t)>(kernels), problem, execution, threads); });
}

}  // namespace attend
