// Products of 8-bit integers: sums over k of (a - a_zero) (b - b_zero), exact in 32 bits (beyond, they wrap).
//
// A and B are widened to 16 bits and freed of their zero points when they are packed, so that the tile knows nothing of
// either: on AVX2 12 accumulators, two vectors of A, one broadcast pair of B and one product are the 16 registers, and 16
// products take two of its steps where f32 has one for 8. That is twice f32's peak on Zen, one and a half times Intel's.
#pragma once

#include "kernels/pairs.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

constexpr int kIntegerTile = IntegerBlock::kTile;  // columns
constexpr int64_t kIntegerRows = kIntegerVectors * kPairs;

// What to subtract from the elements of a row of A or a column of B.
ATTEND_INLINE int16_t zero_of(const NumbersRef<const int32_t> &zero, int64_t i) {
  return zero.data == nullptr ? int16_t{0} : static_cast<int16_t>(zero.data[i * zero.step]);
}
ATTEND_INLINE PairVec all_of(int16_t zero) {
  const int16_t pair[2] = {zero, zero};
  return broadcast_pair(pair);
}
// Those of kPairs rows or columns, a lane each.
ATTEND_INLINE PairVec zeros_of(const NumbersRef<const int32_t> &zero, int64_t first, int64_t count) {
  int16_t halves[2 * kPairs];
  for (int l = 0; l < kPairs; ++l)
    halves[2 * l] = halves[2 * l + 1] = l < count ? zero_of(zero, first + l) : int16_t{0};
  return load_pairs(halves);
}

// A row of A or a column of B: element i at first + i * step, less its zero.
template <class S>
struct Line {
  const S *first;
  int64_t step;
  int16_t zero;
  ATTEND_INLINE int16_t at(int64_t i) const { return static_cast<int16_t>(first[i * step] - zero); }
};

// to[pair][lane] = the pairs of kPairs lines from `begin` on, `width` lanes from pair to pair; of an odd depth the last pair
// has a 0, as all pairs of lanes from `count` on. line_step: from line to line.
template <class S>
void pack_lanes(const S *from, int64_t line_step, int64_t k_step, int64_t count, int64_t depth,
                const NumbersRef<const int32_t> &zero, int64_t begin, int16_t *to, int64_t width) {
  int64_t k = 0;
  if (count == kPairs && line_step == 1) {
    const PairVec zeros = zeros_of(zero, begin, count);
    for (; k + 2 <= depth; k += 2) {
      const S *even = from + k * k_step;
      store_pairs(to + k * width, minus(pairs_across(even, even + k_step), zeros));
    }
  } else if (count == kPairs && k_step == 1) {
    PairVec zeros[kPairs];
    for (int l = 0; l < kPairs; ++l) zeros[l] = all_of(zero_of(zero, begin + l));
    for (; k + 2 * kPairs <= depth; k += 2 * kPairs) {
      PairVec r[kPairs];
      ATTEND_UNROLL
      for (int l = 0; l < kPairs; ++l) r[l] = minus(pairs_along(from + l * line_step + k), zeros[l]);
      transpose(r);
      ATTEND_UNROLL
      for (int p = 0; p < kPairs; ++p) store_pairs(to + (k + 2 * p) * width, r[p]);
    }
  }
  for (; k < depth; k += 2) {
    int16_t *const pair = to + k * width;
    for (int64_t l = 0; l < kPairs; ++l) {
      const Line<S> line = {from + l * line_step, k_step, l < count ? zero_of(zero, begin + l) : int16_t{0}};
      pair[2 * l] = l < count ? line.at(k) : int16_t{0};
      pair[2 * l + 1] = l < count && k + 1 < depth ? line.at(k + 1) : int16_t{0};
    }
  }
}

// to[k] = one line.
template <class S>
void pack_line(const Line<S> &line, int64_t depth, int16_t *to) {
  int64_t k = 0;
  const PairVec zero = all_of(line.zero);
  for (; line.step == 1 && k + 2 * kPairs <= depth; k += 2 * kPairs) {
    store_pairs(to + k, minus(pairs_along(line.first + k), zero));
  }
  for (; k < depth; ++k) to[k] = line.at(k);
  if (depth % 2 != 0) to[depth] = 0;
}

template <class F>
ATTEND_INLINE void with_integer(Dtype type, const F &f) {
  type == Dtype::u8 ? f(uint8_t()) : f(int8_t());
}

// Panels of kIntegerRows rows, one behind the other.
void pack_integers_a(const IntegerBlock &x) {
  with_integer(x.a.type, [&](auto stored) {
    const auto *a = static_cast<const decltype(stored) *>(x.a.data);
    const int64_t pairs_of_k = (x.k + 1) / 2;
    for (int64_t i = 0; i < x.m; i += kPairs) {
      int16_t *const to = x.a_panel + (i / kIntegerRows * pairs_of_k * kIntegerRows + i % kIntegerRows) * 2;
      pack_lanes(a + i * x.a.row_stride, x.a.row_stride, x.a.col_stride, smaller<int64_t>(kPairs, x.m - i), x.k,
                 x.a_zero, i, to, kIntegerRows);
    }
  });
}

// Whether B's columns are packed as rows of pairs, kIntegerTile a panel, and not one by one.
ATTEND_INLINE bool has_rows(const IntegerBlock &x) {
  return x.b.row_stride != 1 && x.b.col_stride == 1 && x.n >= kPairs;
}

// The columns [begin, end), panels kIntegerTile columns of kIntegerHeight elements apart.
void pack_integers_b(const IntegerBlock &x, int64_t begin, int64_t end) {
  constexpr int64_t kHeight = IntegerBlock::kHeight;
  with_integer(x.b.type, [&](auto stored) {
    const auto *b = static_cast<const decltype(stored) *>(x.b.data);
    for (int64_t j = begin; j < end; j += has_rows(x) ? kIntegerTile : 1) {
      int16_t *const to = x.b_panel + (j - begin) * kHeight;
      const auto *from = b + j * x.b.col_stride;
      if (!has_rows(x)) {
        pack_line(Line<decltype(stored)>{from, x.b.row_stride, zero_of(x.b_zero, j)}, x.k, to);
      } else {
        // Eight lanes are stored for a panel's six: the next pair, of the next k, overwrites those behind.
        pack_lanes(from, 1, x.b.row_stride, smaller<int64_t>(kPairs, x.n - j), x.k, x.b_zero, j, to, kIntegerTile);
      }
    }
  });
}

template <int MV, int NR, class Stride>
ATTEND_INLINE void integer_tile(const IntegerBlock &x, const int16_t *panel, const int16_t *b, int64_t b_k,
                                Stride b_col, int32_t *to) {
  SumVec acc[MV][NR];
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) acc[i][j] = x.begins ? no_sums() : load_sums(to + j * x.ld + i * kPairs);
  }
  struct Pair {
    int16_t half[2];
  };
  Columns<Pair, NR, Stride> columns(reinterpret_cast<const Pair *>(b), b_k, b_col);
  const auto step = [&]() __attribute__((always_inline)) {
    PairVec a[MV];
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) a[i] = load_pairs(panel + 2 * i * kPairs);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      const PairVec v = broadcast_pair(columns.at(j));
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) acc[i][j] = add_products(a[i], v, acc[i][j]);
    }
    panel += 2 * kIntegerRows;
    columns.next();
  };
  // Two pairs at a time: on Zen 3 half as fast again as one (a loop of one is 14 cycles long where its steps take 8).
  int64_t k = 0;
  for (; k + 2 < x.k; k += 4) {
    step();
    step();
  }
  if (k < x.k) step();
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) store_sums(to + j * x.ld + i * kPairs, acc[i][j]);
  }
}

// All rows against NR columns, packed.
template <int NR>
void integer_columns(const IntegerBlock &x, const int16_t *b, int64_t j) {
  const int64_t panel = (x.k + 1) / 2 * 2 * kIntegerRows;
  const int16_t *a = x.a_panel;
  for (int64_t i = 0; i < x.m; i += kIntegerRows, a += panel) {
    int32_t *const to = x.sums + j * x.ld + i;
    const int64_t vectors = smaller<int64_t>(kIntegerVectors, (x.m - i + kPairs - 1) / kPairs);
    with_constant<kIntegerVectors>(
        vectors, [&](auto mv) __attribute__((always_inline)) {
          constexpr int MV = decltype(mv)::value;
          if (has_rows(x)) {
            integer_tile<MV, NR>(x, a, b, kIntegerTile, Adjacent(), to);
          } else {
            integer_tile<MV, NR>(x, a, b, 1, IntegerBlock::kHeight / 2, to);
          }
        });
  }
}

// Few columns, A's rows contiguous along k: dot products, the lanes along k, A read in place. (Only integers may be added in
// any order.)
template <int NR, class S>
void integer_dots(const IntegerBlock &x, const S *a) {
  constexpr int kStep = 2 * kPairs;
  for (int64_t i = 0; i < x.m; ++i, a += x.a.row_stride) {
    const Line<S> line = {a, 1, zero_of(x.a_zero, i)};
    const PairVec zero = all_of(line.zero);
    SumVec acc[NR];
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[j] = no_sums();
    int64_t k = 0;
    for (; k + kStep <= x.k; k += kStep) {
      __builtin_prefetch(a + k + 512);
      const PairVec v = minus(pairs_along(a + k), zero);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j)
        acc[j] = add_products(v, load_pairs(x.b_panel + j * IntegerBlock::kHeight + k), acc[j]);
    }
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      auto total = static_cast<uint32_t>(total_of(acc[j]));
      for (int64_t l = k; l < x.k; ++l) {
        total += static_cast<uint32_t>(line.at(l) * x.b_panel[j * IntegerBlock::kHeight + l]);
      }
      int32_t *const to = x.sums + j * x.ld + i;
      *to = static_cast<int32_t>(total + (x.begins ? 0u : static_cast<uint32_t>(*to)));
    }
  }
}

// V vectors of rows, from i on, and NR columns of a sweep over the columns [k, end) of A.
template <int V, int NR, class S>
ATTEND_INLINE void sweep_rows(const IntegerBlock &x, const S *a, int64_t i, int64_t k, int64_t end, bool begins) {
  PairVec zeros[V];
  SumVec acc[V][NR];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    zeros[v] = x.a_zero.data == nullptr ? all_of(0) : zeros_of(x.a_zero, i + v * kPairs, kPairs);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[v][j] = begins ? no_sums() : load_sums(x.sums + j * x.ld + i + v * kPairs);
  }
  for (int64_t l = k; l < end; l += 2) {
    const S *const even = a + l * x.a.col_stride + i;
    const S *const odd = l + 1 < end ? even + x.a.col_stride : even;  // whose pair in B has a 0 there
    PairVec b[NR];
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) b[j] = broadcast_pair(x.b_panel + j * IntegerBlock::kHeight + l);
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) {
      const PairVec lanes = minus(pairs_across(even + v * kPairs, odd + v * kPairs), zeros[v]);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) acc[v][j] = add_products(lanes, b[j], acc[v][j]);
    }
  }
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store_sums(x.sums + j * x.ld + i + v * kPairs, acc[v][j]);
  }
}

// Few columns, A's columns contiguous: sixteen of them at a time pass over all rows, whose sums stay in the caches; A is read
// in place. (A line at a time where registers allow it: lines of columns a power of two apart share a set of the L1.)
template <int NR, class S>
void integer_sweeps(const IntegerBlock &x, const S *a) {
  constexpr int64_t kSweep = 16;
  constexpr int V = NR == 1 ? 8 : NR == 2 ? 4 : 2;
  for (int64_t k = 0; k < x.k; k += kSweep) {
    const int64_t end = smaller(x.k, k + kSweep);
    const bool begins = x.begins && k == 0;
    int64_t i = 0;
    for (; i + V * kPairs <= x.m; i += V * kPairs) sweep_rows<V, NR>(x, a, i, k, end, begins);
    for (; i + kPairs <= x.m; i += kPairs) sweep_rows<1, NR>(x, a, i, k, end, begins);
    for (; i < x.m; ++i) {
      const Line<S> line = {a + i, x.a.col_stride, zero_of(x.a_zero, i)};
      for (int j = 0; j < NR; ++j) {
        int32_t *const to = x.sums + j * x.ld + i;
        uint32_t total = begins ? 0u : static_cast<uint32_t>(*to);
        for (int64_t l = k; l < end; ++l) {
          total += static_cast<uint32_t>(line.at(l) * x.b_panel[j * IntegerBlock::kHeight + l]);
        }
        *to = static_cast<int32_t>(total);
      }
    }
  }
}

void integers(const IntegerBlock &x) {
  if (!x.pack_a) {
    pack_integers_b(x, 0, x.n);
    with_integer(x.a.type, [&](auto stored) {
      const auto *const a = static_cast<const decltype(stored) *>(x.a.data);
      with_power_above<kFewColumns>(
          x.n, [&](auto nr) __attribute__((always_inline)) {
            x.a.col_stride == 1 ? integer_dots<decltype(nr)::value>(x, a) : integer_sweeps<decltype(nr)::value>(x, a);
          });
    });
  } else {
    pack_integers_a(x);
    for (int64_t g = 0; g < x.n; g += IntegerBlock::kGroup) {
      const int64_t end = smaller(x.n, g + IntegerBlock::kGroup);
      pack_integers_b(x, g, end);
      for (int64_t j = g; j < end; j += kIntegerTile) {
        // One column too many is cheaper than its code: B's panels and the sums have room.
        with_constant<kIntegerTile / 2>(
            smaller<int64_t>(kIntegerTile, end - j + 1) / 2, [&](auto pairs_of) __attribute__((always_inline)) {
              integer_columns<2 * decltype(pairs_of)::value>(x, x.b_panel + (j - g) * IntegerBlock::kHeight, j);
            });
      }
    }
  }
}

}  // namespace
}  // namespace attend
