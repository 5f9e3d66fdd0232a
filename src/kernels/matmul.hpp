// LOOP 2 of the matrix product: one block of rows, one chunk of k, all columns of a block.
//
//     C = fma(alpha, chunk, C0),   chunk = one tile,   C0 = C, or for the first chunk fma(beta, C, bias)
//
// Lanes run along the rows of C. The driver decides whether A is read in place or packed into panels of MR lanes, and
// whether B is read in place or NR columns at a time are packed before the rows pass by.
#pragma once

#include "kernels/matmul_runs.hpp"
#include "kernels/matmul_tiles.hpp"
#include "kernels/matmul_turned.hpp"

namespace attend {
namespace {

// The first columns of a block whose panels of A are still to be packed, though p is of them already: each vector of A is stored
// beside its FMAs. (A copy ahead of them took 4 to 5 % of a product of 192 or 384 cubed on an Intel, where the tile alone is at
// 99 % of the peak.)
template <class T>
void pack_beside(const MatmulBlock<T> &x, const Panels<T> &p, Next *next) {
  constexpr int MV = Tiles<T>::kVectors, NR = Tiles<T>::kColumns, MR = MV * kLanes<T>;
  constexpr int64_t kAhead = 16;  // rows
  const T *const a = static_cast<const T *>(x.a.data);
  int64_t i = 0;
  for (; i + MR <= x.m; i += MR) {
    Tile<T, MV, NR> tile;
    tile.zero();
    if (x.far) ask_for_c<T, MV, NR>(x, i, 0);
    tile.accumulate(x.k, a + i, x.a.col_stride, p.b, p.b_k, p.b_col,
                    PanelCopy<T, MV>{x.a_panel + i * x.k, kAhead * x.a.col_stride});
    finish_tile<T, MV, NR, false>(x, p, tile, i, MR, 0);
  }
  if (i == x.m) return;
  pack_panels<T, MR>(x.m - i, x.k, a + i, x.a.col_stride, x.a_panel + i * x.k);
  matmul_rows<T, NR>(x, p, 0, next, i);
}

// Packs all rows of the block.
template <class T>
void pack_a(const MatmulBlock<T> &x) {
  constexpr int MR = Tiles<T>::kVectors * kLanes<T>;
  with_factor<T>(x.a.type, [&](auto stored) {
    const auto *a = static_cast<const decltype(stored) *>(x.a.data);
    if (x.a.row_stride == 1) return pack_panels<T, MR>(x.m, x.k, a, x.a.col_stride, x.a_panel);
    for (int64_t i = 0; i < x.m; i += MR) {
      const int64_t lanes = smaller<int64_t>(MR, x.m - i);
      pack_panel<T, MR, false>(MR, lanes, x.k, a + i * x.a.row_stride, x.a.row_stride, x.a.col_stride, T(1),
                               x.a_panel + i * x.k);
    }
  });
}

// Packs the columns [begin, end) in panels of `width`, `panel` elements apart, from `to` on.
template <class T>
void pack_b(const MatmulBlock<T> &x, int64_t begin, int64_t end, int64_t width, int64_t panel, T *to) {
  constexpr int NR = Tiles<T>::kColumns;
  with_factor<T>(x.b.type, [&](auto stored) {
    const auto *from = static_cast<const decltype(stored) *>(x.b.data) + begin * x.b.col_stride;
    if (x.b.row_stride == 1) {
      pack_columns(end - begin, x.k, from, x.b.col_stride, to, Contract<T>::kMatmulHeight);
    } else if (width == NR && x.b.col_stride == 1) {
      pack_rows<T, NR>(end - begin, x.k, from, x.b.row_stride, to, panel);
    } else {
      pack_rows(width, end - begin, x.k, from, x.b.row_stride, x.b.col_stride, to, panel);
    }
  });
}

// LOOP 2, LOOP 1 of the columns of one panel of B.
template <class T>
ATTEND_INLINE void matmul_panel(const MatmulBlock<T> &x, const Panels<T> &p, int64_t j, int64_t columns, Next *next) {
  with_constant<Tiles<T>::kFlatColumns>(
      columns, [&](auto nr) __attribute__((always_inline)) { matmul_columns<T, decltype(nr)::value>(x, p, j, next); });
}

// Without a chunk A and B may be null: nothing is added to them.
template <class T>
ATTEND_INLINE Panels<T> panels_of(const MatmulBlock<T> &x, T *buffer) {
  constexpr int MR = kTileRows<T>;
  return {finish_of(x),     static_cast<const T *>(x.a.data), x.a.col_stride,
          x.k > 0 ? MR : 0, x.pack_a ? 0 : x.ahead,           static_cast<const T *>(x.b.data),
          x.b.row_stride,   x.k > 0 ? x.b.col_stride : 0,     buffer};
}

// With one operand packed, or both.
template <class T>
__attribute__((noinline)) void matmul_packed(const MatmulBlock<T> &x) {
  if (x.in_runs) return matmul_runs(x);
  constexpr int NR = Tiles<T>::kColumns;
  T buffer[kTileRows<T> * NR];
  Panels<T> p = panels_of(x, buffer);
  const int64_t width = x.n <= NR ? x.n : balanced(x.n, NR);
  const bool beside = x.pack_a && width == NR && x.a.row_stride == 1 && !is_narrow<T>(x.a.type) && x.next_a == nullptr;
  if (x.pack_a) {
    constexpr int MR = kTileRows<T>;
    if (!beside) pack_a(x);
    p.a = x.a_panel, p.a_k = MR, p.a_step = MR * x.k;
  }
  // B is packed some panels at a time, so that the next ones can be asked for meanwhile.
  const bool along_k = x.b.row_stride == 1;
  const int64_t group = x.pack_b ? Contract<T>::kMatmulColumns / width * width : x.n;
  const int64_t panel = width * Contract<T>::kMatmulHeight;
  Next next;
  for (int64_t g = 0; g < x.n; g += group) {
    const int64_t end = smaller(x.n, g + group);
    if (x.pack_b) {
      T *const to = x.b_panel + (x.keeps_b ? g * Contract<T>::kMatmulHeight : 0);
      if (!x.b_is_packed) pack_b(x, g, end, width, panel, to);
      p.b = to;
      p.b_k = along_k ? 1 : width;
      p.b_col = along_k ? Contract<T>::kMatmulHeight : 1;
      if (!x.b_is_packed) next.begin(x, g + group, smaller(group, x.n - end));
    }
    if (x.next_a != nullptr && end == x.n) {
      const int64_t element = size_of(x.a.type);
      next.begin(x.next_a, x.next_rows * element, x.a.col_stride * element);
    }
    for (int64_t j = g; j < end; j += width) {  // LOOP 2
      if (!x.pack_b && x.next_a == nullptr) next.begin(x, j + width, smaller(width, x.n - j - width));
      if (beside && j == 0) {
        pack_beside(x, p, &next);
      } else {
        matmul_panel(x, p, j, smaller(width, end - j), &next);
      }
      p.b += x.pack_b ? panel : width * x.b.col_stride;
    }
  }
}

// Flat tiles pass by an A in the L2 less often: if they are no smaller. (On Emerald Rapids, times 9 to 12 columns 1.15 to 1.35 times
// the speed, 18 1.19, 24 to 48 1.05, 128 x 128 x 128 1.05; tiles of 22 vectors for 24, of 64 columns, 0.87 to 1.0.)
template <class T>
ATTEND_INLINE bool suits_flat(const MatmulBlock<T> &x) {
  using Of = Tiles<T>;
  return x.ahead != 0 && x.m > kTileRows<T> && x.n > Of::kColumns &&
         Of::kFlatVectors * balanced(x.n, Of::kFlatColumns) >= Of::kVectors * balanced(x.n, Of::kColumns);
}

// (Packing is elsewhere: of a product of 8 x 8 x 8 what is here already takes a tenth of the time.)
template <class T>
void matmul(const MatmulBlock<T> &x) {
  constexpr int MR = kTileRows<T>;
  static_assert(Contract<T>::kMc % MR == 0 && Tiles<T>::kFlatColumns <= 16, "panels must fit the scratch");
  static_assert(Tiles<T>::kFlatVectors * Tiles<T>::kFlatColumns <= Tiles<T>::kVectors * Tiles<T>::kColumns,
                "the buffer is of one tile");
  if (x.k > Contract<T>::kKc) return dot(x);
  if (x.pack_a || x.pack_b) return matmul_packed(x);
  if (x.a.row_stride != 1 && x.k > 0) return few_columns(x);
  if (x.long_columns && x.k > 0) return long_columns(x);
  T buffer[MR * Tiles<T>::kColumns];
  Panels<T> p = panels_of(x, buffer);
  Next next;
  if constexpr (kLanes<T> * sizeof(T) == 64) {
    if (x.tall) {
      return with_constant<kTallColumns>(
          x.n, [&](auto nr) __attribute__((always_inline)) { tall_columns<T, decltype(nr)::value>(x, p, &next); });
    }
  }
  if (x.n == 1 && x.m > MR) {
    // One column of a tile has too few chains: two tiles' rows.
    p.a_step *= 2;
    return matmul_columns<T, 1, 2 * Tiles<T>::kVectors>(x, p, 0, &next);
  }
  const int64_t most = is_flat<T>(x.m) || suits_flat(x) ? Tiles<T>::kFlatColumns : Tiles<T>::kColumns,
                width = x.n <= most ? x.n : balanced(x.n, most);
  for (int64_t j = 0; j < x.n; j += width) {  // LOOP 2
    const int64_t columns = smaller(width, x.n - j);
    if (x.k > 0) next.begin(x, j + width, smaller(width, x.n - j - width));
    if (x.m > MR && x.k > 0) p.a_step = vectors_of<T>(columns) * kLanes<T>;
    matmul_panel(x, p, j, columns, &next);
    p.b += width * p.b_col;
  }
}

}  // namespace
}  // namespace attend
