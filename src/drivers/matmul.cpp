#include "drivers/matmul.hpp"

#include <algorithm>
#include <utility>

namespace attend {
namespace {

// Columns of C in one task: a multiple of every table's tile width (12, 6, 4), and enough to pay for packing A.
constexpr int64_t kColumns = 192;
// Below this many FMAs a thread costs more to wake (some microseconds) than it saves.
constexpr double kWorkPerThread = 1 << 19;

// Lanes run along the contiguous dimension of C. Where that is the columns, C^T = B^T A^T is computed instead: the same chains.
Matmul oriented(Matmul p) {
  const int64_t m = p.c.rows(), n = p.c.columns();
  const bool by_rows = p.c.stride[0] == 1 || m == 1, by_columns = p.c.stride[1] == 1 || n == 1;
  if (!by_columns || (by_rows && n <= m)) return p;
  std::swap(p.a, p.b);
  for (Tensor *t : {&p.a, &p.b, &p.c, &p.bias}) {
    std::swap(t->shape[0], t->shape[1]);
    std::swap(t->stride[0], t->stride[1]);
  }
  return p;
}

// alpha as the kernels see it: A and B are not read where it is 0.
bool reads_operands(const Matmul &p) { return (p.dtype == Dtype::f32 ? static_cast<float>(p.alpha) : p.alpha) != 0; }

bool packs(const Matmul &p) { return p.a.stride[0] != 1 && reads_operands(p); }

struct Blocks {
  int64_t rows, columns, heads, batch;
  int64_t count() const { return rows * columns * heads * batch; }
};

Blocks blocks_of(const Matmul &p, int64_t row_block) {
  return {(p.c.rows() + row_block - 1) / row_block, (p.c.columns() + kColumns - 1) / kColumns, p.c.heads(),
          p.c.batch()};
}

template <class T>
Need need_of(const Matmul &problem) {
  const Matmul p = oriented(problem);
  Need need;
  need.tasks = blocks_of(p, Contract<T>::kMatmulRows).count();
  if (packs(p)) {
    constexpr int64_t kPanelLanes = 32;  // the widest panel of any table
    const int64_t rows = std::min(p.c.rows() + kPanelLanes - 1, Contract<T>::kMatmulRows) / kPanelLanes * kPanelLanes;
    const int64_t depth = std::min(p.a.columns(), Contract<T>::kMatmulChunk);
    need.per_thread = aligned(rows * depth * static_cast<int64_t>(sizeof(T)));
  }
  return need;
}

// One block of C: all chunks of k in order.
template <class T>
void run_block(void (*kernel)(const MatmulBlock<T> &), const Matmul &p, MatmulBlock<T> x, int64_t row, int64_t column,
               int64_t head, int64_t batch) {
  const int64_t depth = reads_operands(p) ? p.a.columns() : 0;
  x.c = p.c.at<T>(row, column, head, batch);
  x.bias = p.bias ? p.bias.at<T>(row, column, head, batch) : nullptr;
  x.first = true;
  x.k = 0;
  if (depth == 0) return kernel(x);
  for (int64_t k = 0; k < depth; k += Contract<T>::kMatmulChunk) {  // LOOP 4
    x.k = std::min(Contract<T>::kMatmulChunk, depth - k);
    x.a = p.a.at<T>(row, k, head, batch);
    x.b = p.b.at<T>(k, column, head, batch);
    kernel(x);
    x.first = false;
  }
}

template <class T>
Acquired run(void (*kernel)(const MatmulBlock<T> &), const Matmul &problem, const Execution &execution) {
  const Matmul p = oriented(problem);
  const Blocks blocks = blocks_of(p, Contract<T>::kMatmulRows);
  const int64_t tasks = blocks.count();
  if (tasks == 0) return Acquired::ok;

  int threads = usable_threads(execution.threads);
  const double work = static_cast<double>(p.c.rows()) * static_cast<double>(p.c.columns()) *
                      static_cast<double>(p.c.heads() * p.c.batch()) * (static_cast<double>(p.a.columns()) + 1);
  if (work < kWorkPerThread * threads) threads = std::max(1, static_cast<int>(work / kWorkPerThread));
  const Scratch scratch(execution, need_of<T>(problem), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();

  MatmulBlock<T> common = {};
  common.a_row = p.a.stride[0];
  common.a_k = p.a.stride[1];
  common.b_k = p.b.stride[0];
  common.b_col = p.b.stride[1];
  // An extent of 1 has a stride of 0 here; one row is as contiguous as any number.
  common.c_row = p.c.rows() == 1 ? 1 : p.c.stride[0];
  common.c_col = p.c.stride[1];
  common.bias_row = p.bias.stride[0];
  common.bias_col = p.bias.stride[1];
  common.alpha = static_cast<T>(p.alpha);
  common.beta = static_cast<T>(p.beta);

  parallel_for(scratch.threads(), tasks, [&](int64_t task, int thread) {
    // Rows fastest: neighbouring tasks share the columns of B.
    const int64_t row = task % blocks.rows * Contract<T>::kMatmulRows;
    const int64_t column = task / blocks.rows % blocks.columns * kColumns;
    const int64_t slice = task / (blocks.rows * blocks.columns);
    MatmulBlock<T> x = common;
    x.m = std::min(Contract<T>::kMatmulRows, p.c.rows() - row);
    x.n = std::min(kColumns, p.c.columns() - column);
    x.panel = reinterpret_cast<T *>(scratch.of_thread(thread));
    run_block<T>(kernel, p, x, row, column, slice % blocks.heads, slice / blocks.heads);
  });
  return Acquired::ok;
}

}  // namespace

Need matmul_need(const Matmul &problem) {
  return problem.dtype == Dtype::f32 ? need_of<float>(problem) : need_of<double>(problem);
}

Acquired matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution) {
  return problem.dtype == Dtype::f32 ? run<float>(kernels.matmul_f32, problem, execution)
                                     : run<double>(kernels.matmul_f64, problem, execution);
}

}  // namespace attend
