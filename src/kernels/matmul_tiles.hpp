// LOOP 1 and LOOP 0 of the matrix product: the rows of a block against the columns of one tile.
#pragma once

#include "kernels/matmul_long.hpp"
#include "kernels/pack.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

template <class T>
constexpr int kTileRows = Tiles<T>::kVectors *kLanes<T>;
// Vectors of the tiles of so many columns: flat ones have more of these, for products of few rows.
template <class T>
constexpr int vectors_of(int64_t columns) {
  return columns > Tiles<T>::kColumns ? Tiles<T>::kFlatVectors : Tiles<T>::kVectors;
}
// Whether flat tiles suit a product of so many rows better.
template <class T>
ATTEND_INLINE bool is_flat(int64_t rows) {
  constexpr int64_t kFlat = Tiles<T>::kFlatVectors * kLanes<T>;
  return rows <= kFlat || (rows > kTileRows<T> && rows <= 2 * kFlat);
}

// What all tiles of a block share.
template <class T>
struct Panels {
  Finish finish;
  const T *a;
  int64_t a_k, a_step;  // strides of A's panels: from k to k, from panel to panel
  int64_t ahead;        // MatmulBlock's; 0 if A is packed
  const T *b;           // of the first of the columns at hand
  int64_t b_k, b_col;
  T *buffer;  // of a tile, for Finish::kGeneral (here since one of their own would align the stack of all tiles)
};

// What the tiles ask for in advance, into the L2: the columns of B that come next, or the rows of A. Each tile takes two
// lines' worth a k in its loop without a branch: every kStep k a round of prefetches instead cost 6 % of the product, by the
// mispredicted ends of the loop.
struct Next {
  static constexpr int64_t kLine = 64;
  const char *at;     // the next lines
  int64_t count = 0;  // pairs of lines of each k, or of columns, still to be asked for
  int64_t pair;       // bytes from one pair to the next
  int64_t second;     // from the first of a pair to the second
  int64_t step;       // from k to k

  // Of this many contiguous bytes each k.
  ATTEND_INLINE void begin(const void *data, int64_t bytes, int64_t from_k_to_k) {
    const int64_t before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) % kLine);
    at = static_cast<const char *>(data);
    count = (before + bytes + 2 * kLine - 1) / (2 * kLine);
    second = kLine;
    pair = 2 * kLine;
    step = from_k_to_k;
  }
  template <class T>
  ATTEND_INLINE void begin(const MatmulBlock<T> &x, int64_t column, int64_t columns) {
    constexpr int64_t kElement = sizeof(T);
    if (!x.far || columns <= 0 || is_narrow<T>(x.b.type)) return;  // count stays 0
    const T *b = static_cast<const T *>(x.b.data) + column * x.b.col_stride;
    if (x.b.row_stride != 1) return begin(b, columns * kElement, x.b.row_stride * kElement);
    at = reinterpret_cast<const char *>(b);
    count = (columns + 1) / 2;
    second = x.b.col_stride * kElement;
    pair = 2 * second;
    step = kElement;
  }
  ATTEND_INLINE Prefetches take(const void *idle) {
    if (count == 0) return {static_cast<const char *>(idle), 0, 0};
    --count;
    const Prefetches r = {at, second, step};
    at += pair;
    return r;
  }
};

// Cores that gain by asking for A (MatmulPlan::ahead) have vectors of a line.
template <class T>
constexpr bool kAsksForA = kLanes<T> * sizeof(T) == 64;

// The lines of C that a tile will write.
template <class T, int MV, int NR>
ATTEND_INLINE void ask_for_c(const MatmulBlock<T> &x, int64_t i0, int64_t j0) {
  constexpr int W = kLanes<T>;
  for (int64_t j = 0; x.c.row_stride == 1 && j < NR; ++j) {
    T *const to = x.c.data + i0 + (j0 + j) * x.c.col_stride;
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) __builtin_prefetch(to + i * W, 1, 3);
    __builtin_prefetch(to + MV * W - 1, 1, 3);
  }
}

// The end of a tile: its sums to C.
template <class T, int MV, int NR, bool kPartial>
ATTEND_INLINE void finish_tile(const MatmulBlock<T> &x, const Panels<T> &p, const Tile<T, MV, NR> &tile, int64_t i0,
                               int64_t rows, int64_t j0) {
  constexpr int W = kLanes<T>;
  const Tail<T> tail(rows - (MV - 1) * W);
  const vec<T> alpha = broadcast(x.alpha);
  T *c = x.c.data + i0 + j0 * x.c.col_stride;
  const int64_t c_col = x.c.col_stride;
  if (p.finish == Finish::kStore) {
    vec<T> start[MV];
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) {
      start[i] = broadcast(T(0));
      if (x.bias.data == nullptr) continue;
      const T *bias = x.bias.data + i0 + i * W;
      start[i] = kPartial && i == MV - 1 ? load(bias, tail) : load(bias);
    }
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *to = c + j * c_col + i * W;
      const vec<T> r = stored_sum(alpha, v, start[i]);
      kPartial &&i == MV - 1 ? store(to, r, tail) : store(to, r);
    });
  } else if (p.finish == Finish::kAdd) {
    const vec<T> zero = broadcast(added_zero(x));
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) {
      T *to = c + j * c_col + i * W;
      if (kPartial && i == MV - 1) {
        store(to, fma(alpha, v, load(to, tail) + zero), tail);
      } else {
        store(to, fma(alpha, v, load(to) + zero));
      }
    });
  } else {
    T *const buffer = p.buffer;
    tile.each([&](int i, int j, vec<T> v) __attribute__((always_inline)) { store(buffer + (j * MV + i) * W, v); });
    finish_general(x, i0, rows, j0, NR, buffer, MV * W);
  }
}

// One tile: MV vectors of rows from i0 (the last one partial if kPartial), NR columns from j0.
template <class T, int MV, int NR, bool kPartial>
ATTEND_INLINE void matmul_tile(const MatmulBlock<T> &x, const Panels<T> &p, const T *a, int64_t i0, int64_t rows,
                               int64_t j0, Next *next) {
  constexpr int W = kLanes<T>;
  Tile<T, MV, NR> tile;
  tile.zero();
  // Wide tiles ask for lines of C and B in advance.
  constexpr bool kWide = !kPartial && MV == vectors_of<T>(NR) && 2 * NR > Tiles<T>::kColumns;
  if (kAsksForA<T> && !kPartial && p.ahead != 0) {
    tile.accumulate(x.k, a, p.a_k, p.b, p.b_k, p.b_col, PanelAhead<T, MV, T, 3>{a + p.ahead, p.a_k});
  } else if (kWide && x.far) {
    ask_for_c<T, MV, NR>(x, i0, j0);
    tile.accumulate(x.k, a, p.a_k, p.b, p.b_k, p.b_col, next->take(a));
  } else {
    tile.template accumulate<kPartial>(x.k, a, p.a_k, p.b, p.b_k, p.b_col, rows - (MV - 1) * W);
  }
  finish_tile<T, MV, NR, kPartial>(x, p, tile, i0, rows, j0);
}

#ifdef ATTEND_HALF_VECTORS
// At most half a vector of rows, NR columns.
template <class T, int NR>
ATTEND_INLINE void half_tile(const MatmulBlock<T> &x, const Panels<T> &p, const T *a, int64_t i0, int64_t rows,
                             int64_t j0) {
  constexpr int W = kLanes<T> / 2;
  const Tail<T> tail(rows);
  half<T> acc[NR];
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) acc[j] = broadcast_half(T(0));
  Columns<T, NR, int64_t> columns(p.b, p.b_k, p.b_col);
  for (int64_t k = 0; k < x.k; ++k, a += p.a_k, columns.next()) {
    const half<T> lanes = load_half(a, tail);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[j] = fma_half(lanes, broadcast_half(*columns.at(j)), acc[j]);
  }
  T *c = x.c.data + i0 + j0 * x.c.col_stride;
  const half<T> alpha = broadcast_half(x.alpha);
  if (p.finish == Finish::kGeneral) {
    T *const buffer = p.buffer;
    const Tail<T> all(W);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store_half(buffer + j * W, acc[j], all);
    finish_general(x, i0, rows, j0, NR, buffer, W);
  } else {
    const bool adds = p.finish == Finish::kAdd;
    half<T> start = broadcast_half(adds ? added_zero(x) : T(0));
    if (!adds && x.bias.data != nullptr) start = load_half(x.bias.data + i0, tail);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j, c += x.c.col_stride) {
      const half<T> r = adds ? fma_half(alpha, acc[j], load_half(c, tail) + start) : stored_sum(alpha, acc[j], start);
      store_half(c, r, tail);
    }
  }
}
#endif

// LOOP 1: the rows of the block from `first` on, a multiple of the panel, against NR columns. B's columns stay in the L1 while
// A's panels pass from the L2.
template <class T, int NR, int MV = vectors_of<T>(NR)>
ATTEND_INLINE void matmul_rows(const MatmulBlock<T> &x, const Panels<T> &p, int64_t j0, Next *next, int64_t first) {
  constexpr int W = kLanes<T>, MR = MV * W;
  const T *a = p.a + first / MR * p.a_step;
  int64_t i = first;
  // Rows read in place that end a vector behind a whole panel of three are two and two: one vector has too few chains (64 x 64 x
  // 16 took 1.1 times as long).
  const auto is_uneven = [&](int64_t rows) __attribute__((always_inline)) {
    return MV == 3 && rows > MR && rows <= MR + W && p.a_step == MR;
  };
  for (; i + MR <= x.m && !is_uneven(x.m - i); i += MR, a += p.a_step) {
    matmul_tile<T, MV, NR, false>(x, p, a, i, MR, j0, next);
  }
  if constexpr (MV == 3) {
    if (is_uneven(x.m - i)) {
      matmul_tile<T, 2, NR, false>(x, p, a, i, 2 * W, j0, next);
      i += 2 * W, a += 2 * W;
    }
  }
  int64_t rows = x.m - i;
#ifdef ATTEND_HALF_VECTORS
  // The rest in half vectors if that is a half vector more than whole ones.
  const int64_t whole = rows / W * W;
  if (!x.wide_core && rows > whole && rows <= whole + W / 2) {
    half_tile<T, NR>(x, p, x.k > 0 ? a + whole : a, i + whole, rows - whole, j0);
    rows = whole;
  }
#endif
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

template <class T, int NR, int MV = vectors_of<T>(NR)>
void matmul_columns(const MatmulBlock<T> &x, const Panels<T> &p, int64_t j0, Next *next) {
  matmul_rows<T, NR, MV>(x, p, j0, next, 0);
}

// Few columns, A's columns contiguous and in the L2: tall tiles read it in runs of up to 12 lines, where three leave the next page
// to each k, have enough chains, and keep no sums in memory. (On an Intel, 512 x 512: one column 1.5 times the speed of
// matmul_long.hpp, two 1.4 of tiles of three vectors, three 1.1; four 0.86 to 1.09. With A asked for up to 3 MiB:
// 640 x 640 to 900 x 900 1.05 to 1.3 times the sums in the scratch; one column of 4 MiB 0.93 to 1.03.)
template <class T, int NR>
void tall_columns(const MatmulBlock<T> &x, Panels<T> p, Next *next) {
  constexpr int W = kLanes<T>, kMost = NR <= 2 ? 12 : 6;
  int64_t i = 0;
  // Whole vectors of rows, about as many in each tile, an even number.
  for (int64_t left; (left = (x.m - i) / W) > 1;) {
    const int64_t even = (balanced(left, kMost) + 1) / 2;
    with_constant<kMost / 2>(
        smaller(even, left / 2), [&](auto half) __attribute__((always_inline)) {
          constexpr int MV = 2 * decltype(half)::value;
          matmul_tile<T, MV, NR, false>(x, p, p.a + i, i, MV * W, 0, next);
          i += MV * W;
        });
  }
  p.a += i % kTileRows<T>;
  matmul_rows<T, NR>(x, p, 0, next, i);
}

}  // namespace
}  // namespace attend
