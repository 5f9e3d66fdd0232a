#include "drivers/matmul.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace attend {
namespace {

// Below this many FMAs a thread costs more to wake (some microseconds) than it saves.
constexpr double kWorkPerThread = 1 << 19;
// Rows and columns of C are split over threads at multiples of these: the widest panel, and a multiple of every tile's columns.
constexpr int64_t kRowUnit = 32, kColumnUnit = 48;
// Columns of one thread's share from which on it is cut further, so that a slow core does not hold up the rest.
constexpr int64_t kColumnShare = 384;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes run along the contiguous dimension of C. Where that is the columns, C^T = B^T A^T is computed instead: the same chains.
bool turns(const Matmul &p) {
  const int64_t m = p.c.rows(), n = p.c.columns();
  const bool by_rows = p.c.stride[0] == 1 || m == 1, by_columns = p.c.stride[1] == 1 || n == 1;
  return by_columns && (!by_rows || n > m);
}

// One matrix of the product with the lanes along its rows, and what the loops need to know of it.
template <class T>
struct Plan {
  int64_t m, n, k;
  const Tensor *a, *b;
  int64_t a_row, a_k, b_k, b_col, c_row, c_col, bias_row, bias_col;
  bool turned, pack_a, pack_b;

  explicit Plan(const Matmul &p) {
    turned = turns(p);
    const size_t row = turned ? 1 : 0, column = turned ? 0 : 1;
    a = turned ? &p.b : &p.a;
    b = turned ? &p.a : &p.b;
    m = p.c.shape[row];
    n = p.c.shape[column];
    // A and B are not read where alpha, as the kernels see it, is 0.
    k = static_cast<T>(p.alpha) == T(0) ? 0 : p.a.columns();
    a_row = m == 1 ? 1 : a->stride[row];
    a_k = a->stride[column];
    b_k = k == 1 ? 1 : b->stride[row];
    b_col = b->stride[column];
    c_row = m == 1 ? 1 : p.c.stride[row];
    c_col = p.c.stride[column];
    bias_row = p.bias.stride[row];
    bias_col = p.bias.stride[column];
    pack_a = k > 0 && (a_row != 1 || pays_a());
    pack_b = k > 0 && pays_b();
  }

  static constexpr int64_t kElement = static_cast<int64_t>(sizeof(T));
  int64_t depth() const { return std::min(k, Contract<T>::kMatmulChunk); }

  // A panel read in place touches one or two lines every a_k elements: as many pages as rows, and with strides of a power of two
  // few sets of the caches. Packing costs about 2 / n of the product.
  bool pays_a() const {
    const int64_t span = std::abs(a_k) * kElement * depth();
    return n >= 128 && m > kRowUnit && span > (1 << 19);
  }
  // B's columns are read once per panel of rows. In place they are fine where they are contiguous and do not share sets.
  bool pays_b() const {
    if (m <= 2 * kRowUnit) return false;
    if (b_k == 1) return std::abs(b_col) * kElement % 1024 == 0 && depth() * kElement >= 1024;
    return std::abs(b_k) * kElement * depth() > (1 << 17);
  }

  // Rows of A that pass by one panel of B's columns before the next: as many as stay in the L2.
  int64_t row_block() const {
    if (pack_a) return Contract<T>::kMatmulRows;
    constexpr int64_t kBytes = 1 << 19;
    return std::max(Contract<T>::kMatmulRows,
                    kBytes / (kElement * std::max<int64_t>(1, depth())) / kRowUnit * kRowUnit);
  }

  // Threads that have work for `slices` such matrices.
  int64_t tasks(int64_t slices) const {
    const double work =
        static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(slices) * (static_cast<double>(k) + 1);
    if (work < 2 * kWorkPerThread) return 1;
    const int64_t cells = divide_up(m, kRowUnit) * divide_up(n, kColumnUnit) * slices;
    return work < kWorkPerThread * static_cast<double>(cells) ? static_cast<int64_t>(work / kWorkPerThread) : cells;
  }

  Need need(int64_t slices) const {
    Need need;
    need.tasks = tasks(slices);
    int64_t elements = 0;
    if (pack_a) elements += std::min(divide_up(m, kRowUnit) * kRowUnit, Contract<T>::kMatmulRows) * depth();
    if (pack_b) elements += Contract<T>::kMatmulColumns * Contract<T>::kMatmulHeight;
    need.per_thread = aligned(elements * kElement);
    return need;
  }
};

// How C is cut into tasks: columns first, then rows.
struct Cut {
  int64_t rows = 1, columns = 1;  // pieces
  Cut(int64_t m, int64_t n, int64_t slices, int threads) {
    if (threads == 1 || slices >= 4 * threads) return;
    const int64_t wanted = divide_up(threads, slices);
    columns = std::min(wanted, divide_up(n, kColumnUnit));
    rows = std::min(divide_up(wanted, columns), divide_up(m, kRowUnit));
    while (n / columns >= 2 * kColumnShare) columns *= 2;
  }
};

// The i-th of `pieces` pieces of `total`, cut at multiples of `unit`.
struct Piece {
  int64_t begin, size;
  Piece(int64_t total, int64_t pieces, int64_t unit, int64_t i) : begin(0), size(total) {
    if (pieces == 1) return;
    const int64_t units = divide_up(total, unit);
    begin = units * i / pieces * unit;
    size = std::min(total, units * (i + 1) / pieces * unit) - begin;
  }
};

template <class T>
Acquired run(void (*kernel)(const MatmulBlock<T> &), const Matmul &p, const Execution &execution) {
  const Plan<T> plan(p);
  const int64_t slices = p.c.heads() * p.c.batch();
  const Need need = plan.need(slices);
  const Scratch scratch(execution, need, need.tasks == 1 ? 1 : usable_threads(execution.threads));
  if (scratch.result() != Acquired::ok) return scratch.result();

  MatmulBlock<T> common = {};
  common.a_row = plan.a_row;
  common.a_k = plan.a_k;
  common.b_k = plan.b_k;
  common.b_col = plan.b_col;
  common.c_row = plan.c_row;
  common.c_col = plan.c_col;
  common.bias_row = plan.bias_row;
  common.bias_col = plan.bias_col;
  common.alpha = static_cast<T>(p.alpha);
  common.beta = static_cast<T>(p.beta);
  common.pack_a = plan.pack_a;
  common.pack_b = plan.pack_b;

  const Cut cut(plan.m, plan.n, slices, scratch.threads());
  const int64_t pieces = cut.rows * cut.columns, row_block = plan.row_block();
  const auto task_body = [&](int64_t task, int thread) {
    const int64_t slice = task / pieces, piece = task % pieces, head = slice % p.c.heads(), batch = slice / p.c.heads();
    const Piece rows(plan.m, cut.rows, kRowUnit, piece % cut.rows);
    const Piece columns(plan.n, cut.columns, kColumnUnit, piece / cut.rows);
    if (rows.size <= 0 || columns.size <= 0) return;
    const T *a = plan.a->template at<T>(0, 0, head, batch), *b = plan.b->template at<T>(0, 0, head, batch);
    T *c = p.c.at<T>(0, 0, head, batch);
    const T *bias = p.bias ? p.bias.at<T>(0, 0, head, batch) : nullptr;
    MatmulBlock<T> x = common;
    x.n = columns.size;
    x.b_panel = reinterpret_cast<T *>(scratch.of_thread(thread));
    x.a_panel = x.b_panel + (plan.pack_b ? Contract<T>::kMatmulColumns * Contract<T>::kMatmulHeight : 0);
    int64_t k = 0;
    do {  // LOOP 4; once for k = 0
      x.k = std::min(Contract<T>::kMatmulChunk, plan.k - k);
      x.first = k == 0;
      if (x.k > 0) x.b = b + k * plan.b_k + columns.begin * plan.b_col;
      for (int64_t i = rows.begin; i < rows.begin + rows.size; i += row_block) {  // LOOP 3
        x.m = std::min(row_block, rows.begin + rows.size - i);
        if (x.k > 0) x.a = a + i * plan.a_row + k * plan.a_k;
        x.c = c + i * plan.c_row + columns.begin * plan.c_col;
        x.bias = bias == nullptr ? nullptr : bias + i * plan.bias_row + columns.begin * plan.bias_col;
        kernel(x);
      }
      k += x.k;
    } while (k < plan.k);
  };
  parallel_for(scratch.threads(), pieces * slices, task_body);
  return Acquired::ok;
}

template <class T>
Need need_of(const Matmul &p) {
  return Plan<T>(p).need(p.c.heads() * p.c.batch());
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
