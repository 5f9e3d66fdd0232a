// LOOP 2 to LOOP 0 of the matrix product: one block of rows, one chunk of k, all columns of a block.
//
//     C = fma(alpha, chunk, C0),   chunk = one tile,   C0 = C, or for the first chunk fma(beta, C, bias)
//
// Lanes run along the rows of C. The driver decides whether A is read in place or packed into panels of MR lanes, and whether B is
// read in place or NR columns at a time are packed before the rows pass by.
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

// One element of C from its chunk.
template <class T>
ATTEND_INLINE T finished(const MatmulBlock<T> &x, T chunk, const T *c, const T *bias) {
  T start = T(0);
  if (!x.first) {
    start = *c;
  } else {
    if (x.bias != nullptr) start = *bias;
    if (x.beta != T(0)) start = fused(x.beta, *c, start);
  }
  return x.k == 0 ? start : fused(x.alpha, chunk, start);
}

// Rows i0.. and columns j0.. of C from a buffer of tile columns `width` apart: bias, beta, and any stride of C.
template <class T>
void finish_general(const MatmulBlock<T> &x, int64_t i0, int64_t rows, int64_t j0, int64_t columns, const T *tile,
                    int64_t width) {
  constexpr int W = kLanes<T>;
  const vec<T> alpha = broadcast(x.alpha), beta = broadcast(x.beta);
  const bool vectors = x.c_row == 1 && x.k != 0 && x.first && (x.bias == nullptr || x.bias_row == 1 || x.bias_row == 0);
  for (int64_t j = 0; j < columns; ++j) {
    T *c = x.c + i0 * x.c_row + (j0 + j) * x.c_col;
    const T *bias = x.bias == nullptr ? nullptr : x.bias + i0 * x.bias_row + (j0 + j) * x.bias_col;
    const T *chunk = tile + j * width;
    int64_t i = 0;
    for (; vectors && i + W <= rows; i += W) {
      vec<T> start = broadcast(T(0));
      if (x.bias != nullptr) start = x.bias_row == 1 ? load(bias + i) : broadcast(*bias);
      if (x.beta != T(0)) start = fma(beta, load(c + i), start);
      store(c + i, fma(alpha, load(chunk + i), start));
    }
    for (; i < rows; ++i) c[i * x.c_row] = finished(x, chunk[i], c + i * x.c_row, bias + i * x.bias_row);
  }
}

// What all tiles of a block share.
template <class T>
struct Panels {
  Finish finish;
  const T *a;
  int64_t a_k, a_step;  // strides of A's panels: from k to k, from panel to panel
  bool padded;          // lanes beyond the last row exist and are zero
  const T *b;           // of the first of the columns at hand
  int64_t b_k, b_col;
};

// One tile: MV vectors of rows from i0 (the last one partial if kPartial), NR columns from j0.
template <class T, int MV, int NR, bool kPartial>
ATTEND_INLINE void matmul_tile(const MatmulBlock<T> &x, const Panels<T> &p, const T *a, int64_t i0, int64_t rows,
                               int64_t j0) {
  constexpr int W = kLanes<T>;
  const Tail<T> tail(rows - (MV - 1) * W);
  Tile<T, MV, NR> tile;
  tile.zero();
  if (kPartial && !p.padded) {
    tile.template accumulate<true>(x.k, a, p.a_k, p.b, p.b_k, p.b_col, tail);
  } else {
    tile.template accumulate<false>(x.k, a, p.a_k, p.b, p.b_k, p.b_col, tail);
  }
  const vec<T> alpha = broadcast(x.alpha);
  T *c = x.c + i0 + j0 * x.c_col;
  const int64_t c_col = x.c_col;
  if (p.finish == Finish::kStore) {
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *to = c + j * c_col + i * W;
      const vec<T> r = fma(alpha, v, broadcast(T(0)));
      kPartial &&i == MV - 1 ? store(to, r, tail) : store(to, r);
    });
  } else if (p.finish == Finish::kAdd) {
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *to = c + j * c_col + i * W;
      if (kPartial && i == MV - 1) {
        store(to, fma(alpha, v, load(to, tail)), tail);
      } else {
        store(to, fma(alpha, v, load(to)));
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
void matmul_columns(const MatmulBlock<T> &x, const Panels<T> &p, int64_t j0) {
  constexpr int MV = Tiles<T>::kVectors, W = kLanes<T>, MR = MV * W;
  const T *a = p.a;
  int64_t i = 0;
  for (; i + MR <= x.m; i += MR, a += p.a_step) matmul_tile<T, MV, NR, false>(x, p, a, i, MR, j0);
  const int64_t rows = x.m - i;
  if (rows == 0) return;
  with_constant<MV>((rows + W - 1) / W, [&](auto mv) __attribute__((always_inline)) {
    constexpr int V = decltype(mv)::value;
    if (rows == V * W) {
      matmul_tile<T, V, NR, false>(x, p, a, i, rows, j0);
    } else {
      matmul_tile<T, V, NR, true>(x, p, a, i, rows, j0);
    }
  });
}

template <class T>
void matmul(const MatmulBlock<T> &x) {
  constexpr int MR = Tiles<T>::kVectors * kLanes<T>, NR = Tiles<T>::kColumns;
  static_assert(Contract<T>::kMatmulRows % MR == 0 && NR <= Contract<T>::kMatmulColumns, "panels must fit the scratch");
  // Without a chunk A and B may be null: nothing is added to them.
  Panels<T> p = {finish_of(x), x.a, x.a_k, x.k > 0 ? MR : 0, false, x.b, x.b_k, x.b_col};
  if (x.pack_a) {
    p.a = x.a_panel;
    p.a_k = MR;
    p.a_step = MR * x.k;
    p.padded = true;
    for (int64_t i = 0; i < x.m; i += MR) {
      pack_panel(MR, smaller<int64_t>(MR, x.m - i), x.k, x.a + i * x.a_row, x.a_row, x.a_k, T(1), x.a_panel + i * x.k);
    }
  }
  const int64_t width = balanced(x.n, NR);
  for (int64_t j = 0; j < x.n; j += width) {  // LOOP 2
    const int64_t columns = smaller(width, x.n - j);
    if (x.k > 0) p.b = x.b + j * x.b_col;
    if (x.pack_b) {
      if (x.b_k == 1) {
        p.b_col = Contract<T>::kMatmulHeight;
        pack_columns(columns, x.k, p.b, x.b_col, x.b_panel, p.b_col);
      } else {
        p.b_k = columns;
        p.b_col = 1;
        pack_rows(columns, x.k, p.b, x.b_k, x.b_col, x.b_panel);
      }
      p.b = x.b_panel;
    }
    with_constant<NR>(
        columns, [&](auto nr) __attribute__((always_inline)) { matmul_columns<T, decltype(nr)::value>(x, p, j); });
  }
}

}  // namespace
}  // namespace attend
