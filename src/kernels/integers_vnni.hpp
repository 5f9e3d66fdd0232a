// Products of 8-bit integers by AVX-512 VNNI, as integers.hpp has them by pairs: four times the FMAs of f32 a cycle.
//
// Of A and B one must be unsigned, the other signed. Where both have one type, A is moved by 128 into the other as it
// is packed, and its zero point with it; B, whose columns are read in place where they are contiguous, stays. Zero points
// are left out of the tile: over a chunk of depth K
//
//     sum (a - za)(b - zb) = sum a b - za sum b - (sum a - K za) zb
//
// where sums over rows of A and columns of B are read once. Accumulators begin with what follows from them.
#pragma once

#include "kernels/columns.hpp"
#include "kernels/integers_vnni_few.hpp"

namespace attend {
namespace {

// 24 accumulators, three vectors of A, and a broadcast quad of B: 28 of 32 registers, 11 loads for 24 products.
constexpr int kQuadVectors = 3, kQuadColumns = 8;
static_assert(IntegerBlock::kGroup % kQuadColumns == 0, "whole tiles");
static_assert(kQuadHeight <= IntegerBlock::kHeight * 2, "columns of B have room for pairs");

// Moves the elements of A when it is added, if they have B's type.
ATTEND_INLINE bool moves(const IntegerBlock &x) { return x.a.type == x.b.type; }

// The zero point of what was moved.
ATTEND_INLINE int32_t a_zero(const IntegerBlock &x, int64_t i) {
  return number_at(x.a_zero, i) + (!moves(x) ? 0 : x.a.type == Dtype::i8 ? 128 : -128);
}
// a b modulo 2^32.
ATTEND_INLINE int32_t product(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

// Those of [begin, end): in place where their elements are neighbours and make whole quads.
QuadColumns columns_of(const IntegerBlock &x, int64_t begin, int64_t end) {
  const auto *const from = static_cast<const uint8_t *>(x.b.data) + begin * x.b.col_stride;
  const bool even = (end - begin) % 2 == 0;  // tiles are
  if (x.b.row_stride == 1 && x.k % 4 == 0 && even) return {from, x.b.col_stride};
  auto *const to = reinterpret_cast<uint8_t *>(x.b_panel);
  if (x.b.row_stride != 1 && x.b.col_stride == 1) {
    for (int64_t j = 0; j < end - begin; j += kQuadLanes)
      pack_across(from + j, x.b.row_stride, end - begin - j, x.k, to + j * kQuadHeight);
  } else {
    for (int64_t j = 0; j < end - begin; ++j)
      pack_column(from + j * x.b.col_stride, x.b.row_stride, x.k, false, to + j * kQuadHeight);
  }
  return {to, kQuadHeight};
}

// What the zero points of a block add to its sums: to those of row i and column j
//     -(a_zero[i] b_sum[j] + a_rest[i] b_zero[j])
// which is -a_zero[0] b_sum[j] unless it differs `by_rows`. Columns count from the group's first.
struct ZeroPoints {
  bool by_rows;
  alignas(64) int32_t a_zero[IntegerBlock::kRows], a_rest[IntegerBlock::kRows];
  int32_t b_zero[IntegerBlock::kGroup], b_sum[IntegerBlock::kGroup];

  explicit ZeroPoints(const IntegerBlock &x)
      : by_rows((x.a_zero.data != nullptr && x.a_zero.step != 0 && x.m > 1) || x.b_zero.data != nullptr) {
    for (int64_t i = 0; i < IntegerBlock::kRows; ++i) a_zero[i] = attend::a_zero(x, smaller(i, x.m - 1));
  }
};

// Vectors of the next panel of rows, of which `left` are left. (Four are two and two: one vector alone waits for loads.)
ATTEND_INLINE int64_t panel_vectors(int64_t left) { return left == 4 ? 2 : smaller<int64_t>(left, kQuadVectors); }
ATTEND_INLINE int64_t quads_of(int64_t depth) { return (depth + 3) / 4; }
ATTEND_INLINE int64_t vectors_of(int64_t rows) { return (rows + kQuadLanes - 1) / kQuadLanes; }

// f(panel, its first vector of rows, how many) for A's panels.
template <class F>
ATTEND_INLINE void each_panel(const IntegerBlock &x, const F &f) {
  auto *panel = reinterpret_cast<uint8_t *>(x.a_panel);
  const int64_t all = vectors_of(x.m);
  for (int64_t i = 0; i < all;) {
    const int64_t vectors = panel_vectors(all - i);
    f(panel, i, vectors);
    panel += vectors * 4 * kQuadLanes * quads_of(x.k);
    i += vectors;
  }
}

void pack_rows(const IntegerBlock &x, ZeroPoints *zeros) {
  each_panel(x, [&](uint8_t *panel, int64_t first, int64_t vectors) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t row = (first + v) * kQuadLanes, step = vectors * 4 * kQuadLanes;
      uint8_t *const to = panel + v * 4 * kQuadLanes;
      each_quad(
          static_cast<const uint8_t *>(x.a.data) + row * x.a.row_stride, x.a.row_stride, x.a.col_stride, x.m - row, x.k,
          moves(x), [&](int64_t quad, Bytes bytes) __attribute__((always_inline)) {
            _mm512_storeu_si512(to + quad * step, bytes);
          });
      if (!zeros->by_rows) continue;
      Bytes sum = _mm512_setzero_si512();
      for (int64_t quad = 0; quad < quads_of(x.k); ++quad) {
        const Bytes bytes = _mm512_loadu_si512(to + quad * step);
        sum = x.b.type == Dtype::u8 ? add_quads<true>(sum, bytes, ones()) : add_quads<false>(sum, bytes, ones());
      }
      const Bytes of_zero =
          _mm512_mullo_epi32(_mm512_load_si512(zeros->a_zero + row), _mm512_set1_epi32(static_cast<int32_t>(x.k)));
      _mm512_store_si512(zeros->a_rest + row, _mm512_sub_epi32(sum, of_zero));
    }
  });
}

// The sums of a group's columns [begin, end) before its products, where zero points differ by rows.
void begin_sums(const IntegerBlock &x, const ZeroPoints &zeros, int64_t begin, int64_t end) {
  for (int64_t j = begin; j < end; ++j) {
    const Bytes sum = _mm512_set1_epi32(zeros.b_sum[j - begin]), zero = _mm512_set1_epi32(zeros.b_zero[j - begin]);
    for (int64_t i = 0; i < x.m; i += kQuadLanes) {
      int32_t *const to = x.sums + j * x.ld + i;
      Bytes v = x.begins ? _mm512_setzero_si512() : _mm512_loadu_si512(to);
      v = _mm512_sub_epi32(v, _mm512_mullo_epi32(_mm512_load_si512(zeros.a_zero + i), sum));
      v = _mm512_sub_epi32(v, _mm512_mullo_epi32(_mm512_load_si512(zeros.a_rest + i), zero));
      _mm512_storeu_si512(to, v);
    }
  }
}

// Sums of column j begin with begin[j] and, in the lanes of `old`, what is there.
struct Begin {
  const int32_t *of_column;
  __mmask16 old;
};
template <bool U, int MV, int NR>
ATTEND_INLINE void quad_tile(const IntegerBlock &x, const Begin &begin, const uint8_t *panel, const QuadColumns &b,
                             int32_t *to) {
  Bytes acc[MV][NR];
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) {
      acc[v][j] = _mm512_add_epi32(_mm512_set1_epi32(begin.of_column[j]),
                                   _mm512_maskz_loadu_epi32(begin.old, to + j * x.ld + v * kQuadLanes));
    }
  }
  Columns<uint8_t, NR, int64_t> columns(b.first, 4, b.step);
  const auto step = [&]() __attribute__((always_inline)) {
    Bytes a[MV];
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) a[v] = _mm512_loadu_si512(panel + 4 * kQuadLanes * v);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      const Bytes quad = quad_at(columns.at(j));
      ATTEND_UNROLL
      for (int v = 0; v < MV; ++v) acc[v][j] = add_quads<U>(acc[v][j], a[v], quad);
    }
    panel += 4 * kQuadLanes * MV;
    columns.next();
  };
  int64_t k = 0;
  for (; k + 4 < x.k; k += 8) {
    step();
    step();
  }
  if (k < x.k) step();
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) _mm512_storeu_si512(to + j * x.ld + v * kQuadLanes, acc[v][j]);
  }
}

// All rows against NR columns.
template <bool U, int NR>
void quad_columns(const IntegerBlock &x, const Begin &begin, const QuadColumns &b, int64_t j) {
  each_panel(x, [&](const uint8_t *panel, int64_t first, int64_t vectors) {
    int32_t *const to = x.sums + j * x.ld + first * kQuadLanes;
    with_constant<kQuadVectors>(
        vectors, [&](auto mv)
                     __attribute__((always_inline)) { quad_tile<U, decltype(mv)::value, NR>(x, begin, panel, b, to); });
  });
}

template <bool U>
void many_columns(const IntegerBlock &x) {
  ZeroPoints zeros(x);
  pack_rows(x, &zeros);
  for (int64_t group = 0; group < x.n; group += IntegerBlock::kGroup) {
    const int64_t size = smaller<int64_t>(x.n - group, IntegerBlock::kGroup);
    const QuadColumns b = columns_of(x, group, group + size);
    int32_t begin[IntegerBlock::kGroup] = {};
    sum_columns<U>(b, size, x.k, zeros.b_sum);
    for (int64_t j = 0; j < size; ++j) {
      zeros.b_zero[j] = number_at(x.b_zero, group + j);
      if (!zeros.by_rows) begin[j] = product(-zeros.a_zero[0], zeros.b_sum[j]);
    }
    if (zeros.by_rows) begin_sums(x, zeros, group, group + size);
    const auto old = static_cast<__mmask16>(zeros.by_rows || !x.begins ? 0xffff : 0);
    for (int64_t j = 0; j < size; j += kQuadColumns) {
      // One column too many is cheaper than its code: B's panels and the sums have room.
      with_constant<kQuadColumns / 2>(smaller<int64_t>(kQuadColumns, size - j + 1) / 2, [&](auto pairs_of) {
        quad_columns<U, 2 * decltype(pairs_of)::value>(x, {begin + j, old}, {b.first + j * b.step, b.step}, group + j);
      });
    }
  }
}

void integers(const IntegerBlock &x) {
  if (!x.pack_a) return few_columns(x);
  if (x.b.type == Dtype::u8) {
    many_columns<true>(x);
  } else {
    many_columns<false>(x);
  }
}

}  // namespace
}  // namespace attend
