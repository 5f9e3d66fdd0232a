#include "drivers/matmul.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace attend {
namespace {

// Below this many FMAs a thread costs more to wake (some microseconds) than it saves.
constexpr double kWorkPerThread = 1 << 19;
// Rows and columns that one call of the kernel takes at most on the short way, and so never more work than one thread
// has.
constexpr int64_t kMostSmall = 96;
// Rows and columns of C are split over threads at multiples of these: the widest panel, and a multiple of every tile's
// columns.
constexpr int64_t kRowUnit = 32, kColumnUnit = 48;
// Columns of one thread's share from which on it is cut further, so that a slow core does not hold up the rest.
constexpr int64_t kColumnShare = 384;

// Columns so few that rows of A which are contiguous along k are turned in registers each time they are read, and not
// packed.
constexpr int64_t kFewColumns = 4;

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes run along the contiguous dimension of C; but along the longer one where the other has too few elements to fill
// them. Where that is the columns, C^T = B^T A^T is computed instead: the same chains.
bool turns(int64_t m, int64_t n, int64_t c_row, int64_t c_col) {
  constexpr int64_t kFewest = 1, kMany = 16;
  if (m <= kFewest && n >= kMany) return true;
  if (n <= kFewest && m >= kMany) return false;
  const bool by_rows = c_row == 1 || m == 1, by_columns = c_col == 1 || n == 1;
  return by_columns && (!by_rows || n > m);
}

// One matrix of the product with the lanes along its rows, and what the loops need to know of it.
template <class T>
struct Plan {
  int64_t m, n, k;
  int64_t a_row, a_k, b_k, b_col, c_row, c_col, bias_row = 0, bias_col = 0;
  bool turned, pack_a, pack_b, one_column;

  explicit Plan(const Matmul &p) : turned(turns(p.c.rows(), p.c.columns(), p.c.stride[0], p.c.stride[1])) {
    const size_t row = turned ? 1 : 0, column = turned ? 0 : 1;
    const Tensor &a = turned ? p.b : p.a, &b = turned ? p.a : p.b;
    m = p.c.shape[row];
    n = p.c.shape[column];
    k = p.a.columns();
    a_row = a.stride[row];
    a_k = a.stride[column];
    b_k = b.stride[row];
    b_col = b.stride[column];
    c_row = p.c.stride[row];
    c_col = p.c.stride[column];
    if (p.bias) bias_row = p.bias.stride[row], bias_col = p.bias.stride[column];
    settle(p.alpha);
  }
  Plan(const MatrixView<T> &a, const MatrixView<T> &b, const MatrixView<T> &c, double alpha)
      : k(a.columns), turned(turns(c.rows, c.columns, c.row, c.column)) {
    m = turned ? c.columns : c.rows;
    n = turned ? c.rows : c.columns;
    a_row = turned ? b.column : a.row;
    a_k = turned ? b.row : a.column;
    b_k = turned ? a.column : b.row;
    b_col = turned ? a.row : b.column;
    c_row = turned ? c.column : c.row;
    c_col = turned ? c.row : c.column;
    settle(alpha);
  }

  void settle(double alpha) {
    // A and B are not read where alpha, as the kernels see it, is 0.
    if (static_cast<T>(alpha) == T(0)) k = 0;
    if (m == 1) a_row = c_row = 1;
    if (k == 1) a_k = b_k = 1;
    pack_a = k > 0 && (a_row == 1 ? pays_a() : a_k != 1 || n > kFewColumns);
    pack_b = k > 0 && pays_b();
    one_column = n == 1 && m > kMostSmall && k > 0 && a_row == 1 && !pack_a && !pack_b;
  }

  static constexpr int64_t kElement = static_cast<int64_t>(sizeof(T));
  int64_t depth() const { return std::min(k, Contract<T>::kMatmulChunk); }

  // A panel read in place touches one or two lines every a_k elements: as many pages as rows, and with strides of a
  // power of two few sets of the caches. Packing costs about 2 / n of the product.
  bool pays_a() const {
    const int64_t span = std::abs(a_k) * kElement * depth();
    return n >= 128 && m > kRowUnit && span > (1 << 19);
  }
  // B is read once per panel of rows. Contiguous columns stay in the L1 unless they begin in the same sets of it,
  // which repeat every 4 KiB. Contiguous rows are read in place whatever their stride: a panel touches a line or two
  // of each, from the L2 at worst, and copying them cost 2 to 4 % where it was measured (n = 192 to 2048).
  bool pays_b() const {
    if (m <= 2 * kRowUnit || n <= kFewColumns || b_col == 1) return false;
    if (b_k != 1) return true;
    return shares_sets(b_col * kElement, 4096) && depth() * kElement >= 1024;
  }

  // More than the L2 holds: the kernels then fetch ahead what they need next.
  bool far() const { return k >= 64 && (m * n + std::max(m, n) * k) * kElement > (1 << 19); }

  // Rows of A that pass by one panel of B's columns before the next: as many as stay in the L2, in blocks of equal
  // size.
  int64_t row_block(int64_t rows) const {
    int64_t most = Contract<T>::kMatmulRows;
    if (one_column || rows <= most) return rows;
    if (!pack_a) most = std::max(most, (1 << 19) / (kElement * std::max<int64_t>(1, depth())) / kRowUnit * kRowUnit);
    return divide_up(divide_up(rows, divide_up(rows, most)), kRowUnit) * kRowUnit;
  }

  int64_t a_panel() const { return std::min(divide_up(m, kRowUnit) * kRowUnit, Contract<T>::kMatmulRows) * depth(); }

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
    if (pack_a) elements += a_panel();
    if (pack_b) elements += Contract<T>::kMatmulPanels;
    if (one_column) elements += Contract<T>::kLongColumn;
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
  explicit Piece(int64_t total) : begin(0), size(total) {}
  Piece(int64_t total, int64_t pieces, int64_t unit, int64_t i) : begin(0), size(total) {
    if (pieces == 1) return;
    const int64_t units = divide_up(total, unit);
    begin = units * i / pieces * unit;
    size = std::min(total, units * (i + 1) / pieces * unit) - begin;
  }
};

// What all blocks of one product share.
template <class T>
MatmulBlock<T> block_of(double alpha, double beta, const Plan<T> &plan) {
  MatmulBlock<T> x;
  x.a_row = plan.a_row;
  x.a_k = plan.a_k;
  x.b_k = plan.b_k;
  x.b_col = plan.b_col;
  x.c_row = plan.c_row;
  x.c_col = plan.c_col;
  x.bias_row = plan.bias_row;
  x.bias_col = plan.bias_col;
  x.alpha = static_cast<T>(alpha);
  x.beta = static_cast<T>(beta);
  x.pack_a = plan.pack_a;
  x.pack_b = plan.pack_b;
  x.one_column = plan.one_column;
  x.far = plan.far();
  return x;
}

// LOOP 4 and LOOP 3 of one matrix, or of a piece of it.
template <class T>
void multiply(void (*kernel)(const MatmulBlock<T> &), const Matmul &p, const Plan<T> &plan, const Piece &rows,
              const Piece &columns, int64_t head, int64_t batch, char *scratch, MatmulBlock<T> *x) {
  const Tensor &left = plan.turned ? p.b : p.a, &right = plan.turned ? p.a : p.b;
  const T *a = left.at<T>(0, 0, head, batch), *b = right.at<T>(0, 0, head, batch);
  T *c = p.c.at<T>(0, 0, head, batch) + columns.begin * plan.c_col;
  const T *bias = p.bias ? p.bias.at<T>(0, 0, head, batch) + columns.begin * plan.bias_col : nullptr;
  const int64_t row_block = plan.row_block(rows.size);
  x->n = columns.size;
  x->b_panel = reinterpret_cast<T *>(scratch);
  x->a_panel = x->b_panel + (plan.pack_b ? Contract<T>::kMatmulPanels : 0);
  int64_t k = 0;
  do {  // LOOP 4; once for k = 0, where A and B may be null
    x->k = std::min(Contract<T>::kMatmulChunk, plan.k - k);
    x->first = k == 0;
    x->b = x->k > 0 ? b + k * plan.b_k + columns.begin * plan.b_col : nullptr;
    for (int64_t i = rows.begin; i < rows.begin + rows.size; i += row_block) {  // LOOP 3
      x->m = std::min(row_block, rows.begin + rows.size - i);
      x->a = x->k > 0 ? a + i * plan.a_row + k * plan.a_k : nullptr;
      x->c = c + i * plan.c_row;
      x->bias = bias == nullptr ? nullptr : bias + i * plan.bias_row;
      kernel(*x);
    }
    k += x->k;
  } while (k < plan.k);
}

template <class T>
Acquired run(void (*kernel)(const MatmulBlock<T> &), const Matmul &p, const Execution &execution) {
  const Plan<T> plan(p);
  const int64_t heads = p.c.heads(), slices = heads * p.c.batch();
  // A step of self-attention may have no rows; the kernels take it that there is something to compute.
  if (plan.m == 0 || plan.n == 0 || slices == 0) return Acquired::ok;
  const Need need = plan.need(slices);
  const Scratch scratch(execution, need, need.tasks == 1 ? 1 : usable_threads(execution.threads));
  if (scratch.result() != Acquired::ok) return scratch.result();
  if (slices == 1 && scratch.threads() == 1) {
    MatmulBlock<T> x = block_of(p.alpha, p.beta, plan);
    multiply(kernel, p, plan, Piece(plan.m), Piece(plan.n), 0, 0, scratch.of_thread(0), &x);
    return Acquired::ok;
  }
  const Cut cut(plan.m, plan.n, slices, scratch.threads());
  const int64_t pieces = cut.rows * cut.columns;
  parallel_for(scratch.threads(), pieces * slices, [&](int64_t task, int thread) {
    const int64_t slice = task / pieces, piece = task % pieces;
    const Piece rows(plan.m, cut.rows, kRowUnit, piece % cut.rows);
    const Piece columns(plan.n, cut.columns, kColumnUnit, piece / cut.rows);
    if (rows.size <= 0 || columns.size <= 0) return;
    MatmulBlock<T> x = block_of(p.alpha, p.beta, plan);
    multiply(kernel, p, plan, rows, columns, slice % heads, slice / heads, scratch.of_thread(thread), &x);
  });
  return Acquired::ok;
}

template <class T>
Need need_of(const Matmul &p) {
  return Plan<T>(p).need(p.c.heads() * p.c.batch());
}

}  // namespace

template <class T>
bool matmul_small(void (*kernel)(const MatmulBlock<T> &), double alpha, const MatrixView<T> &a, const MatrixView<T> &b,
                  double beta, const MatrixView<T> &c, const SmallMatmulExtras<T> &extras) {
  if (a.columns > Contract<T>::kMatmulChunk) return false;
  const Plan<T> plan(a, b, c, alpha);
  if (plan.m > kMostSmall || plan.n > kMostSmall || plan.pack_b) return false;
  if (plan.pack_a && plan.a_panel() > extras.panel_elements) return false;
  MatmulBlock<T> x = block_of(alpha, beta, plan);
  x.m = plan.m;
  x.n = plan.n;
  x.k = plan.k;
  x.a = plan.turned ? b.data : a.data;
  x.b = plan.turned ? a.data : b.data;
  x.c = c.data;
  x.bias = extras.bias.data;
  x.bias_row = plan.turned ? extras.bias.column : extras.bias.row;
  x.bias_col = plan.turned ? extras.bias.row : extras.bias.column;
  x.a_panel = extras.panel;
  x.first = true;
  kernel(x);
  return true;
}
template bool matmul_small(void (*)(const MatmulBlock<float> &), double, const MatrixView<float> &,
                           const MatrixView<float> &, double, const MatrixView<float> &,
                           const SmallMatmulExtras<float> &);
template bool matmul_small(void (*)(const MatmulBlock<double> &), double, const MatrixView<double> &,
                           const MatrixView<double> &, double, const MatrixView<double> &,
                           const SmallMatmulExtras<double> &);

Need matmul_need(const Matmul &problem) {
  return with_element(problem.dtype, [&](auto t) { return need_of<decltype(t)>(problem); });
}

Acquired matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution) {
  return with_element(problem.dtype,
                      [&](auto t) { return run(kernels_of<decltype(t)>(kernels).matmul, problem, execution); });
}

}  // namespace attend
