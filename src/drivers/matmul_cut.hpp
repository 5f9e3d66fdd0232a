// How a matrix product is turned and cut into tasks, whatever its elements.
#pragma once

#include <algorithm>
#include <utility>

#include "drivers/matmul.hpp"

namespace attend {

// Below this many FMAs a thread costs more to wake (some microseconds) than it saves.
constexpr double kFmasPerThread = 1 << 19;
// Rows and columns of C are split over threads at multiples of these: the widest panel, and a multiple of every tile's
// columns.
constexpr int64_t kRowUnit = 48, kColumnUnit = 48;
// Columns of one thread's share from which on it is cut further, so that a slow core does not hold up the rest.
constexpr int64_t kColumnShare = 384;

// (By value, unlike std::min, which takes addresses: g++ would then keep a plan in memory.)
constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes run along the contiguous dimension of C; but along the longer one where the other has too few elements to fill
// them. Where that is the columns, C^T = B^T A^T is computed instead: the same chains. Of two to four elements that pays
// where the operand's columns are contiguous, or k is long enough for its squares to be turned (2 and 3 of 16 to 64, k = 32
// to 63: 1.03 to 1.7 times the speed, 4: 0.88 to 1.36; at k = 16 0.6 to 1, eight rows 0.7).
inline bool is_thin(int64_t few, int64_t many, int64_t k, int64_t stride) {
  constexpr int64_t kMany = 16, kDeep = 32;
  return many >= kMany && (few <= 1 || (few <= kFewColumns && (stride == 1 || k >= kDeep)));
}
inline bool turns(const StoredMatrix &a, const StoredMatrix &b, const StoredMatrix &c, int64_t m, int64_t n,
                  int64_t k) {
  if (is_thin(m, n, k, b.col_stride)) return true;
  if (is_thin(n, m, k, a.row_stride)) return false;
  const bool by_rows = c.row_stride == 1 || m == 1, by_columns = c.col_stride == 1 || n == 1;
  return by_columns && (!by_rows || n > m);
}

template <class Matrix>
Matrix transposed(Matrix m) {
  std::swap(m.row_stride, m.col_stride);
  return m;
}

inline StoredMatrix moved(const StoredMatrix &m, int64_t row, int64_t column) {
  return m.data == nullptr ? m : StoredMatrix{element_of(m, row, column), m.row_stride, m.col_stride, m.type};
}

// The numbers of A's rows (dimension 0) or B's columns (1) from `first` on.
template <class T>
NumbersRef<const T> numbers(const Tensor &t, size_t dimension, int64_t first, int64_t head, int64_t batch) {
  if (!t) return {nullptr, 0};
  return {t.at<const T>(dimension == 0 ? first : 0, dimension == 1 ? first : 0, head, batch), t.stride[dimension]};
}

// Rows and columns of a block of C.
struct Place {
  int64_t i, j, m, n, head, batch;
};

// C from the sums of a block, or, where these are null, C0. c and bias are the whole matrices, of the product as it is
// computed: transposed or not.
inline void scale_sums(const KernelTable &kernels, const Matmul &p, bool transposes, const StoredMatrix &sums,
                       const StoredMatrix &c, const StoredMatrix &bias, const Place &at) {
  const Tensor &of_rows = transposes ? p.scales->b : p.scales->a, &of_columns = transposes ? p.scales->a : p.scales->b;
  const size_t rows = transposes ? 1 : 0, columns = 1 - rows;
  kernels.scale({at.m, at.n, sums, moved(c, at.i, at.j), moved(bias, at.i, at.j),
                 numbers<float>(of_rows, rows, at.i, at.head, at.batch),
                 numbers<float>(of_columns, columns, at.j, at.head, at.batch), static_cast<float>(p.alpha),
                 static_cast<float>(p.beta)});
}

// Threads that have work for `slices` products.
inline int64_t tasks_of(int64_t m, int64_t n, int64_t k, int64_t slices) {
  const double work =
      static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(slices) * (static_cast<double>(k) + 1);
  if (work < 2 * kFmasPerThread) return 1;
  const int64_t cells = divide_up(m, kRowUnit) * divide_up(n, kColumnUnit) * slices;
  return work < kFmasPerThread * static_cast<double>(cells) ? static_cast<int64_t>(work / kFmasPerThread) : cells;
}

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

// f(rows, columns, slice, thread) for every piece of every slice of C, on the threads that the scratch is for.
template <class F>
void for_each_piece(const Scratch &scratch, int64_t m, int64_t n, int64_t slices, const F &f) {
  const Cut cut(m, n, slices, scratch.threads());
  const int64_t pieces = cut.rows * cut.columns;
  parallel_for(scratch.executor(), scratch.threads(), pieces * slices, [&](int64_t task, int thread) {
    const int64_t piece = task % pieces;
    const Piece rows(m, cut.rows, kRowUnit, piece % cut.rows);
    const Piece columns(n, cut.columns, kColumnUnit, piece / cut.rows);
    if (rows.size > 0 && columns.size > 0) f(rows, columns, task / pieces, thread);
  });
}

}  // namespace attend
