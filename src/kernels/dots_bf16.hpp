// Products of bf16 by AVX512_BF16: a step, vdpbf16ps, adds the two products of a lane's pairs to its sum, one after the other.
// Each addition is rounded, to nearest even whatever the mode; operands and sums below 2^-126 are 0. So the sums are those
// of a chain over k that takes the second of two before the first: an f32 product's error bound, other bits.
//
// Of few columns the lanes run along k, and are summed at the end of each kDepth numbers, where the mode counts: A's rows
// pass by as they lie, at memory's pace.
#pragma once

#include "kernels/quad_panels.hpp"

namespace attend {
namespace {

struct PairProducts {
  using Element = uint16_t;
  using Sums = __m512;
  static ATTEND_INLINE Sums add(Sums sums, Bytes of_a, Bytes of_b) {
    return _mm512_dpbf16_ps(sums, reinterpret_cast<__m512bh>(of_a), reinterpret_cast<__m512bh>(of_b));
  }
  // A sum that fell below 2^-126 from the negative side is -0. It must not stay so where C is the sum itself, since it
  // does not where the sum is added to C0, and which of the two it is depends on the threads.
  static ATTEND_INLINE Bytes total(Sums sums) { return _mm512_castps_si512(_mm512_add_ps(sums, _mm512_setzero_ps())); }
};

// Lane i: the sum of v[i].
ATTEND_INLINE __m128 totals(const __m512 (&v)[4]) {
  const __m512 low = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
  const __m512 high = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
  const __m512 t = _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(t), _mm512_extractf32x8_ps(t, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Rows of A and columns of B contiguous along k; four rows at a time. Asking for the L2, so far ahead, was worth 1.1 to 1.25
// times the speed from memory on a Zen 4 (28 of 29 GB/s that a read loop had); for the L1 0.7 to 0.9, a row at a time 0.9.
template <int NR>
void few_dots(const IntegerBlock &x, const QuadColumns &b) {
  constexpr int R = 4, kLine = 32, kAhead = 2048;
  constexpr int64_t kSize = sizeof(uint16_t);
  const auto *const a = static_cast<const uint8_t *>(x.a.data);
  const uint8_t *column[NR];
  for (int64_t j = 0; j < NR; ++j) column[j] = b.first + smaller(j, x.n - 1) * b.step;
  for (int64_t i = 0; i < x.m; i += R) {
    const uint8_t *row[R];
    for (int r = 0; r < R; ++r) row[r] = a + smaller(i + r, x.m - 1) * x.a.row_stride * kSize;
    for (int64_t begin = 0; begin < x.k; begin += IntegerBlock::kDepth) {
      const int64_t end = smaller(x.k, begin + IntegerBlock::kDepth);
      __m512 acc[NR][R];
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) {
        ATTEND_UNROLL
        for (int r = 0; r < R; ++r) acc[j][r] = _mm512_setzero_ps();
      }
      int64_t k = begin;
      const auto step = [&](const auto &load) __attribute__((always_inline)) {
        __m512bh of_b[NR];
        ATTEND_UNROLL
        for (int j = 0; j < NR; ++j) of_b[j] = reinterpret_cast<__m512bh>(load(column[j]));
        ATTEND_UNROLL
        for (int r = 0; r < R; ++r) {
          const auto of_a = reinterpret_cast<__m512bh>(load(row[r]));
          __builtin_prefetch(row[r] + k * kSize + kAhead, 0, 2);
          ATTEND_UNROLL
          for (int j = 0; j < NR; ++j) acc[j][r] = _mm512_dpbf16_ps(acc[j][r], of_a, of_b[j]);
        }
      };
      for (; k + kLine <= end; k += kLine) {
        step([&](const uint8_t *p) __attribute__((always_inline)) { return _mm512_loadu_si512(p + k * kSize); });
      }
      if (k < end) {
        const auto there = static_cast<__mmask32>((uint64_t{1} << (end - k)) - 1);
        step([&](const uint8_t *p)
                 __attribute__((always_inline)) { return _mm512_maskz_loadu_epi16(there, p + k * kSize); });
      }
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) {
        auto *const to = reinterpret_cast<float *>(x.sums + j * x.ld + i);
        const bool begins = x.begins && begin == 0;
        _mm_storeu_ps(to, _mm_add_ps(totals(acc[j]), begins ? _mm_setzero_ps() : _mm_loadu_ps(to)));  // not -0
      }
    }
  }
}

void few_columns(const IntegerBlock &x) {
  const bool in_place = x.b.row_stride == 1;
  const QuadColumns b =
      in_place ? QuadColumns{static_cast<const uint8_t *>(x.b.data), x.b.col_stride * int64_t{sizeof(uint16_t)}}
               : columns_of<uint16_t>(x, 0, x.n);
  with_power_above<kFewColumns>(x.n, [&](auto nr) {
    constexpr int NR = decltype(nr)::value;
    few_dots<NR>(x, b);
  });
}

void dots(const IntegerBlock &x) {
  if (!x.pack_a) return few_columns(x);
  pack_rows<uint16_t>(x, false);
  const int32_t begin[IntegerBlock::kGroup] = {};  // 0.0
  for (int64_t group = 0; group < x.n; group += IntegerBlock::kGroup) {
    const int64_t size = smaller<int64_t>(x.n - group, IntegerBlock::kGroup);
    const QuadColumns b = columns_of<uint16_t>(x, group, group + size);
    multiply_group<PairProducts>(x, b, group, size, {begin, static_cast<__mmask16>(x.begins ? 0 : 0xffff)});
  }
}

}  // namespace
}  // namespace attend
