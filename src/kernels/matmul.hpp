// LOOP 2 to LOOP 0 of the matrix product: one block of rows, one chunk of k, all columns of a block.
//
//     C = fma(alpha, chunk, C0),   chunk = one tile,   C0 = C, or for the first chunk fma(beta, C, bias)
//
// Lanes run along the rows of C. A is read in place where its rows are contiguous and packed into panels of MR lanes
// otherwise; B is read in place always.
#pragma once

#include "kernels/pack.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

// How a tile meets C; the first two are unrolled over the registers, the third covers everything else by way of a buffer.
enum class Finish { kStore, kAdd, kGeneral };

template <class T>
Finish finish_of(const MatmulBlock<T> &x) {
  if (x.c_row != 1 || x.k == 0) return Finish::kGeneral;
  if (!x.first || (x.beta == T(1) && x.bias == nullptr)) return Finish::kAdd;
  return x.beta == T(0) && x.bias == nullptr ? Finish::kStore : Finish::kGeneral;
}

// Rows i0.. and columns j0.. of C from a buffer of tile columns `width` apart. Scalar: edges of strides, bias and beta.
template <class T>
void finish_general(const MatmulBlock<T> &x, int64_t i0, int64_t rows, int64_t j0, int64_t columns, const T *tile,
                    int64_t width) {
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) {
      T *c = x.c + (i0 + i) * x.c_row + (j0 + j) * x.c_col;
      T start = T(0);
      if (!x.first) {
        start = *c;
      } else {
        if (x.bias != nullptr) start = x.bias[(i0 + i) * x.bias_row + (j0 + j) * x.bias_col];
        if (x.beta != T(0)) start = fused(x.beta, *c, start);
      }
      *c = x.k == 0 ? start : fused(x.alpha, tile[j * width + i], start);
    }
  }
}

// One tile: MV vectors of rows from i0 (the last one partial if kPartial), NR columns from j0.
template <class T, int MV, int NR, bool kPartial>
ATTEND_INLINE void matmul_tile(const MatmulBlock<T> &x, Finish finish, const T *panel, int64_t panel_k, bool padded,
                               int64_t i0, int64_t rows, int64_t j0) {
  constexpr int W = kLanes<T>;
  const Tail<T> tail(rows - (MV - 1) * W);
  const T *b = x.b + j0 * x.b_col;
  Tile<T, MV, NR> tile;
  tile.zero();
  if (kPartial && !padded) {
    tile.template accumulate<true>(x.k, panel, panel_k, b, x.b_k, x.b_col, tail);
  } else {
    tile.template accumulate<false>(x.k, panel, panel_k, b, x.b_k, x.b_col, tail);
  }
  const vec<T> alpha = broadcast(x.alpha);
  T *c = x.c + i0 + j0 * x.c_col;
  const int64_t c_col = x.c_col;
  if (finish == Finish::kStore) {
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *p = c + j * c_col + i * W;
      const vec<T> r = fma(alpha, v, broadcast(T(0)));
      kPartial &&i == MV - 1 ? store(p, r, tail) : store(p, r);
    });
  } else if (finish == Finish::kAdd) {
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *p = c + j * c_col + i * W;
      if (kPartial && i == MV - 1) {
        store(p, fma(alpha, v, load(p, tail)), tail);
      } else {
        store(p, fma(alpha, v, load(p)));
      }
    });
  } else {
    T buffer[MV * W * NR];
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) { store(buffer + (j * MV + i) * W, v); });
    finish_general(x, i0, rows, j0, NR, buffer, MV * W);
  }
}

// LOOP 1: all rows of the block against NR columns. B's columns stay in the L1 while A's panels pass from the L2.
template <class T, int NR>
void matmul_columns(const MatmulBlock<T> &x, Finish finish, const T *a, int64_t a_k, int64_t panel_step, bool padded,
                    int64_t j0) {
  constexpr int MV = Tiles<T>::kVectors, W = kLanes<T>, MR = MV * W;
  int64_t i = 0;
  for (; i + MR <= x.m; i += MR, a += panel_step) {
    matmul_tile<T, MV, NR, false>(x, finish, a, a_k, padded, i, MR, j0);
  }
  const int64_t rows = x.m - i;
  if (rows == 0) return;
  with_constant<MV>((rows + W - 1) / W, [&](auto mv) __attribute__((always_inline)) {
    constexpr int V = decltype(mv)::value;
    if (rows == V * W) {
      matmul_tile<T, V, NR, false>(x, finish, a, a_k, padded, i, rows, j0);
    } else {
      matmul_tile<T, V, NR, true>(x, finish, a, a_k, padded, i, rows, j0);
    }
  });
}

template <class T>
void matmul(const MatmulBlock<T> &x) {
  constexpr int MR = Tiles<T>::kVectors * kLanes<T>, NR = Tiles<T>::kColumns;
  static_assert(Contract<T>::kMatmulRows % MR == 0, "packed panels must fit the scratch");
  const T *a = x.a;
  int64_t a_k = x.a_k, panel_step = MR;
  const bool packed = x.a_row != 1;
  if (packed) {
    a_k = MR;
    panel_step = MR * x.k;
    for (int64_t i = 0; i < x.m; i += MR) {
      pack_panel(MR, smaller<int64_t>(MR, x.m - i), x.k, x.a + i * x.a_row, x.a_row, x.a_k, T(1), x.panel + i * x.k);
    }
    a = x.panel;
  }
  const Finish finish = finish_of(x);
  const int64_t width = balanced(x.n, NR);
  for (int64_t j = 0; j < x.n; j += width) {  // LOOP 2
    with_constant<NR>(
        smaller(width, x.n - j), [&](auto nr) __attribute__((always_inline)) {
          matmul_columns<T, decltype(nr)::value>(x, finish, a, a_k, panel_step, packed, j);
        });
  }
}

}  // namespace
}  // namespace attend
