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
  const T *b;           // of the first of the columns at hand
  int64_t b_k, b_col;
};

// What the tiles ask for in advance, into the L2: the columns of B that come next. Each tile takes two lines' worth a k in its loop
// without a branch: every kStep k a round of prefetches instead cost 6 % of the product, by the mispredicted ends of the loop.
template <class T>
struct Next {
  static constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const T *b;      // the next columns
  int64_t count;   // pairs of columns, or of lines of each row, still to be asked for
  int64_t pair;    // from one pair to the next
  int64_t second;  // from the first of a pair to the second
  int64_t step;    // from k to k

  ATTEND_INLINE void begin(const MatmulBlock<T> &x, const T *from, int64_t columns) {
    const bool along_k = x.b_k == 1;
    b = from;
    count = !x.far || columns <= 0 ? 0 : (columns / (along_k ? 1 : kLine) + 2) / 2;
    second = along_k ? x.b_col : kLine;
    pair = 2 * second;
    step = x.b_k;
  }
  ATTEND_INLINE Prefetches<T> take(const T *idle) {
    if (count == 0) return {idle, 0, 0};
    --count;
    const Prefetches<T> r = {b, second, step};
    b += pair;
    return r;
  }
};

// One tile: MV vectors of rows from i0 (the last one partial if kPartial), NR columns from j0.
template <class T, int MV, int NR, bool kPartial>
ATTEND_INLINE void matmul_tile(const MatmulBlock<T> &x, const Panels<T> &p, const T *a, int64_t i0, int64_t rows,
                               int64_t j0, Next<T> *next) {
  constexpr int W = kLanes<T>;
  const Tail<T> tail(rows - (MV - 1) * W);
  Tile<T, MV, NR> tile;
  tile.zero();
  // Wide tiles ask for lines of C and B in advance.
  constexpr bool kWide = !kPartial && MV == Tiles<T>::kVectors && 2 * NR > Tiles<T>::kColumns;
  if (kWide && x.far) {
    for (int64_t j = 0; x.c_row == 1 && j < NR; ++j) {
      __builtin_prefetch(x.c + i0 + (j0 + j) * x.c_col, 1, 3);
      __builtin_prefetch(x.c + i0 + (j0 + j) * x.c_col + rows - 1, 1, 3);
    }
    tile.accumulate(x.k, a, p.a_k, p.b, p.b_k, p.b_col, next->take(a));
  } else {
    tile.template accumulate<kPartial>(x.k, a, p.a_k, p.b, p.b_k, p.b_col, tail);
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
void matmul_columns(const MatmulBlock<T> &x, const Panels<T> &p, int64_t j0, Next<T> *next) {
  constexpr int MV = Tiles<T>::kVectors, W = kLanes<T>, MR = MV * W;
  const T *a = p.a;
  int64_t i = 0;
  for (; i + MR <= x.m; i += MR, a += p.a_step) {
    matmul_tile<T, MV, NR, false>(x, p, a, i, MR, j0, next);
  }
  const int64_t rows = x.m - i;
  if (rows == 0) return;
  with_constant<MV>((rows + W - 1) / W, [&](auto mv) __attribute__((always_inline)) {
    constexpr int V = decltype(mv)::value;
    if (rows == V * W) {
      matmul_tile<T, V, NR, false>(x, p, a, i, rows, j0, next);
    } else {
      matmul_tile<T, V, NR, true>(x, p, a, i, rows, j0, next);
    }
  });
}

// Packs all rows of the block.
template <class T>
void pack_a(const MatmulBlock<T> &x, Panels<T> *p) {
  constexpr int MR = Tiles<T>::kVectors * kLanes<T>;
  p->a = x.a_panel;
  p->a_k = MR;
  p->a_step = MR * x.k;
  if (x.a_row == 1) return pack_panels(MR, x.m, x.k, x.a, x.a_k, x.a_panel);
  for (int64_t i = 0; i < x.m; i += MR) {
    const int64_t lanes = smaller<int64_t>(MR, x.m - i);
    pack_panel(MR, lanes, x.k, x.a + i * x.a_row, x.a_row, x.a_k, T(1), x.a_panel + i * x.k);
  }
}

template <class T>
void matmul(const MatmulBlock<T> &x) {
  constexpr int MR = Tiles<T>::kVectors * kLanes<T>, NR = Tiles<T>::kColumns;
  static_assert(Contract<T>::kMatmulRows % MR == 0 && NR <= 16, "panels must fit the scratch");
  // Without a chunk A and B may be null: nothing is added to them.
  Panels<T> p = {finish_of(x), x.a, x.a_k, x.k > 0 ? MR : 0, x.b, x.b_k, x.b_col};
  if (x.pack_a) pack_a(x, &p);
  const int64_t width = balanced(x.n, NR);
  // B is packed some panels at a time, so that the next ones can be asked for meanwhile.
  const bool along_k = x.b_k == 1;
  const int64_t group = Contract<T>::kMatmulColumns / width * width;
  const int64_t panel = along_k ? width * Contract<T>::kMatmulHeight : width * x.k;
  Next<T> next;
  for (int64_t g = 0; g < x.n; g += group) {
    const int64_t end = smaller(x.n, g + group);
    if (x.pack_b) {
      const T *from = x.b + g * x.b_col;
      along_k ? pack_columns(end - g, x.k, from, x.b_col, x.b_panel, Contract<T>::kMatmulHeight)
              : pack_rows(width, end - g, x.k, from, x.b_k, x.b_col, x.b_panel);
      p.b = x.b_panel;
      p.b_k = along_k ? 1 : width;
      p.b_col = along_k ? Contract<T>::kMatmulHeight : 1;
      next.begin(x, from + group * x.b_col, smaller(group, x.n - end));
    }
    for (int64_t j = g; j < end; j += width) {  // LOOP 2
      if (!x.pack_b && x.k > 0) {
        p.b = x.b + j * x.b_col;
        next.begin(x, p.b + width * x.b_col, smaller(width, x.n - j - width));
      }
      with_constant<NR>(
          smaller(width, end - j), [&](auto nr) __attribute__((always_inline)) {
            matmul_columns<T, decltype(nr)::value>(x, p, j, &next);
          });
      if (x.pack_b) p.b += panel;
    }
  }
}

}  // namespace
}  // namespace attend
