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

#include "kernels/integers_vnni_few.hpp"
#include "kernels/quad_panels.hpp"

namespace attend {
namespace {

template <bool U>
struct ByteProducts {
  using Element = uint8_t;
  using Sums = Bytes;
  static ATTEND_INLINE Sums add(Sums sums, Bytes of_a, Bytes of_b) { return add_quads<U>(sums, of_a, of_b); }
  static ATTEND_INLINE Bytes total(Sums sums) { return sums; }
};

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

// a_rest, from the packed rows.
void sum_rows(const IntegerBlock &x, ZeroPoints *zeros) {
  each_panel<uint8_t>(x, [&](const uint8_t *panel, int64_t first, int64_t vectors) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t row = (first + v) * kQuadLanes, quads = quads_of<uint8_t>(x.k);
      Bytes sum = _mm512_setzero_si512();
      for (int64_t quad = 0; quad < quads; ++quad) {
        const Bytes bytes = _mm512_loadu_si512(panel + (quad * vectors + v) * 4 * kQuadLanes);
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

template <bool U>
void many_columns(const IntegerBlock &x) {
  ZeroPoints zeros(x);
  pack_rows<uint8_t>(x, moves(x));
  if (zeros.by_rows) sum_rows(x, &zeros);
  for (int64_t group = 0; group < x.n; group += IntegerBlock::kGroup) {
    const int64_t size = smaller<int64_t>(x.n - group, IntegerBlock::kGroup);
    const QuadColumns b = columns_of<uint8_t>(x, group, group + size);
    int32_t begin[IntegerBlock::kGroup] = {};
    sum_columns<U>(b, size, x.k, zeros.b_sum);
    for (int64_t j = 0; j < size; ++j) {
      zeros.b_zero[j] = number_at(x.b_zero, group + j);
      if (!zeros.by_rows) begin[j] = product(-zeros.a_zero[0], zeros.b_sum[j]);
    }
    if (zeros.by_rows) begin_sums(x, zeros, group, group + size);
    const auto old = static_cast<__mmask16>(zeros.by_rows || !x.begins ? 0xffff : 0);
    multiply_group<ByteProducts<U>>(x, b, group, size, {begin, old});
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
