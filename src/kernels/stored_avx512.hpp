// Stored elements by AVX-512: kernels/widen.hpp.
#pragma once

#include "kernels/stored.hpp"

#define ATTEND_STORED_VECTORS

namespace attend {
namespace {

ATTEND_INLINE __m256i sixteen_of(const void *p) { return _mm256_loadu_si256(static_cast<const __m256i *>(p)); }
ATTEND_INLINE __m128i sixteen_bytes(const void *p) { return _mm_loadu_si128(static_cast<const __m128i *>(p)); }

ATTEND_INLINE vec<float> widened_lanes(const bf16 *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen_of(p)), 16));
}
ATTEND_INLINE vec<float> widened_lanes(const f16 *p) { return _mm512_cvtph_ps(sixteen_of(p)); }
ATTEND_INLINE vec<float> widened_lanes(const int8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen_bytes(p)));
}
ATTEND_INLINE vec<float> widened_lanes(const uint8_t *p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen_bytes(p)));
}
// By way of f16, of whose bits f8e4m3's are the upper ones, but for the exponent's bias, 8 less, and NaN, which is
// f16's 480. (A sign stands twice above them when it is extended.)
ATTEND_INLINE vec<float> widened_lanes(const f8e4m3 *p) {
  const __m256i lanes = _mm256_cvtepi8_epi16(sixteen_bytes(p));
  const __m256i size = _mm256_and_si256(_mm256_slli_epi16(lanes, 7), _mm256_set1_epi16(static_cast<int16_t>(0xbfff)));
  const __mmask16 is_nan = _mm256_cmpeq_epi16_mask(
      _mm256_or_si256(lanes, _mm256_set1_epi16(static_cast<int16_t>(0xff80))), _mm256_set1_epi16(-1));
  const __m256i bits = _mm256_mask_mov_epi16(size, is_nan, _mm256_or_si256(size, _mm256_set1_epi16(0x7e00)));
  return _mm512_mul_ps(_mm512_cvtph_ps(bits), _mm512_set1_ps(0x1p8f));
}

// (The upper halves by one permutation: a shift and a truncation take three steps.)
ATTEND_INLINE void narrow_lanes(bf16 *p, vec<float> v) {
  const __m512i bits = _mm512_castps_si512(v),
                upper = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d,
                                         0xb0009, 0x70005, 0x30001);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i half = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_mask_add_epi32(half, odd, half, _mm512_set1_epi32(1));
  const __m512i right =
      _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, right)));
}
ATTEND_INLINE void narrow_lanes(f16 *p, vec<float> v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
template <class S>
ATTEND_INLINE void narrow_lanes(S *p, vec<float> v) {
  float r[16];
  store(r, v);
  for (int i = 0; i < 16; ++i) narrow(r[i], p + i);
}

ATTEND_INLINE vec<float> lower_bf16(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
ATTEND_INLINE vec<float> upper_bf16(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Number `of` of those that share 32 bits with others of their row.
ATTEND_INLINE vec<float> part_of(const float *, __m512i lanes, int) { return _mm512_castsi512_ps(lanes); }
ATTEND_INLINE vec<float> part_of(const bf16 *, __m512i lanes, int of) {
  return of == 0 ? lower_bf16(lanes) : upper_bf16(lanes);
}
// (Of one permutation for both: truncation to 16 bits takes two steps for each.)
ATTEND_INLINE vec<float> part_of(const f16 *, __m512i lanes, int of) {
  const __m512i order = _mm512_set_epi32(0x1f001d, 0x1b0019, 0x170015, 0x130011, 0xf000d, 0xb0009, 0x70005, 0x30001,
                                         0x1e001c, 0x1a0018, 0x160014, 0x120010, 0xe000c, 0xa0008, 0x60004, 0x20000);
  const __m512i parted = _mm512_permutexvar_epi16(order, lanes);
  return _mm512_cvtph_ps(of == 0 ? _mm512_castsi512_si256(parted) : _mm512_extracti64x4_epi64(parted, 1));
}
// (As the last bits of 2^23 or 2^15, with no shift but one and no conversion: slower by 3 to 14 %.)
ATTEND_INLINE vec<float> part_of(const int8_t *, __m512i lanes, int of) {
  const __m512i top = of == 3 ? lanes : _mm512_slli_epi32(lanes, static_cast<unsigned>(24 - 8 * of));
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(top, 24));
}

// f(first + k, r) for the columns of some 32-bit elements, r[g] lane i: what these hold, one to four features, is turned as one
// and parted in its lanes.
template <int N, class S, int G, class F>
ATTEND_INLINE void parted_columns(const S *const (&p)[G], int first, const __m512i (&lanes)[G][N], const F &f) {
  constexpr int kParts = 4 / static_cast<int>(sizeof(S));
  ATTEND_UNROLL
  for (int i = 0; i < kParts * N; ++i) {
    vec<float> column[G];
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g) column[g] = part_of(p[g], lanes[g][i / kParts], i % kParts);
    f(first + i, column);
  }
}
// f(k, r) for k = 0..15 in order, r[g] lane i = p[g][i * stride + k]. By fours also where octets_of takes less time: between the
// columns few queries ask for what memory is to give, which comes faster so (bf16 in pages of 16: 0.91 to 0.95 by eights).
template <class S, int G, class F>
ATTEND_INLINE void columns_by_fours(const S *const (&p)[G], int64_t stride, const F &f) {
  constexpr int kSize = static_cast<int>(sizeof(S));
  const RowsOfSquares<G> rows(p, kSize * stride);
  ATTEND_UNROLL
  for (int k = 0; k < 16; k += 16 / kSize) {
    __m512i lanes[G][4];
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g) quads_of(rows, g, k * kSize, lanes[g]);
    parted_columns(p, k, lanes, f);
  }
}
// The same of one square, at the best pace in the caches.
template <class S, class F>
ATTEND_INLINE void own_columns(const S *p, int64_t stride, const F &f) {
  constexpr int kSize = static_cast<int>(sizeof(S));
  const S *const one[1] = {p};
  const auto column = [&](int k, const vec<float>(&r)[1]) __attribute__((always_inline)) { f(k, r[0]); };
  if constexpr (kSize == 1) {
    columns_of(one, stride, column);
  } else {
    const RowsOfSquares<1> rows(one, kSize * stride);
    ATTEND_UNROLL
    for (int k = 0; k < 16; k += 32 / kSize) {
      __m512i lanes[1][8];
      octets_of(rows, 0, k * kSize, lanes[0]);
      parted_columns(one, k, lanes, column);
    }
  }
}
#define ATTEND_COLUMNS_OF(S)                                                         \
  template <>                                                                        \
  constexpr bool kOwnColumns<S> = true;                                              \
  template <>                                                                        \
  constexpr bool kOwnColumnsOfSquares<S> = true;                                     \
  template <int G, class F>                                                          \
  ATTEND_INLINE void columns_of(const S *const(&p)[G], int64_t stride, const F &f) { \
    columns_by_fours(p, stride, f);                                                  \
  }
ATTEND_COLUMNS_OF(float)
ATTEND_COLUMNS_OF(bf16)
ATTEND_COLUMNS_OF(int8_t)
#undef ATTEND_COLUMNS_OF

// f(k, r) for k = 0..7 in order, of elements of 32 bits or of 16, which are four of 32.
template <class S, class F>
ATTEND_INLINE void half_columns(const S *p, int64_t stride, const F &f) {
  constexpr int kSize = static_cast<int>(sizeof(S));
  static_assert(kSize == 4 || kSize == 2);
  const S *const one[1] = {p};
  const RowsOfSquares<1> rows(one, kSize * stride);
  __m512i lanes[1][2 * kSize];
  if constexpr (kSize == 4) {
    octets_of(rows, 0, 0, lanes[0]);
  } else {
    quads_of(rows, 0, 0, lanes[0]);
  }
  parted_columns(
      one, 0, lanes, [&](int k, const vec<float>(&r)[1]) __attribute__((always_inline)) { f(k, r[0]); });
}

// Every magnitude of f8e4m3 as bf16, which holds it exactly.
struct MagnitudesOfF8 {
  uint16_t bits[128];
};
constexpr MagnitudesOfF8 magnitudes_of_f8() {
  MagnitudesOfF8 to = {};
  for (unsigned size = 0; size < 128; ++size) {
    unsigned bits = (size << 4) + (120u << 7);
    if (size < 8) {  // steps of 2^-9
      unsigned exponent = 118, steps = size;
      while (steps > 1) steps >>= 1, ++exponent;
      bits = size == 0 ? 0 : (exponent << 7) + ((size << 7 >> (exponent - 118)) & 0x7fu);
    }
    to.bits[size] = static_cast<uint16_t>(size == 127 ? 0x7fc0u : bits);
  }
  return to;
}
alignas(64) constexpr MagnitudesOfF8 kMagnitudesOfF8 = magnitudes_of_f8();

// Looked up, two features at a time, in two tables of 64: six steps for two vectors, and one more each to part them.
template <>
constexpr bool kOwnColumns<f8e4m3> = true;
template <>
constexpr bool kOwnColumnsOfSquares<f8e4m3> = true;
template <int G, class F>
ATTEND_INLINE void columns_of(const f8e4m3 *const (&p)[G], int64_t stride, const F &f) {
  const uint16_t *const table = kMagnitudesOfF8.bits;
  const __m512i t0 = _mm512_load_si512(table), t1 = _mm512_load_si512(table + 32), t2 = _mm512_load_si512(table + 64),
                t3 = _mm512_load_si512(table + 96), signs = _mm512_set1_epi16(static_cast<int16_t>(0x8000));
  // Of the lower byte of 16 bits; its sign is the top bit of `high`.
  const auto pairs_of = [&](__m512i low, __m512i high) __attribute__((always_inline)) {
    const __m512i small = _mm512_permutex2var_epi16(t0, low, t1), large = _mm512_permutex2var_epi16(t2, low, t3);
    const __m512i size = _mm512_mask_mov_epi16(small, _mm512_test_epi16_mask(low, _mm512_set1_epi16(0x40)), large);
    return _mm512_ternarylogic_epi32(size, high, signs, 0xf8);  // size | (high & signs)
  };
  __m512i quads[G][4];
  const RowsOfSquares<G> rows(p, stride);
  ATTEND_UNROLL
  for (int g = 0; g < G; ++g) quads_of(rows, g, 0, quads[g]);
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    vec<float> column[4][G];
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g) {
      const __m512i even = pairs_of(quads[g][i], _mm512_slli_epi16(quads[g][i], 8)),
                    odd = pairs_of(_mm512_srli_epi16(quads[g][i], 8), quads[g][i]);
      column[0][g] = lower_bf16(even), column[1][g] = lower_bf16(odd);
      column[2][g] = upper_bf16(even), column[3][g] = upper_bf16(odd);
    }
    ATTEND_UNROLL
    for (int k = 0; k < 4; ++k) f(4 * i + k, column[k]);
  }
}

// f(k, r) for k = 0 .. 64 / sizeof(S) - 1 in order, r[g] lane i = p[g][i * stride + k]: a line of each of 16 rows is loaded once,
// and turned as 32-bit elements. (Where rows share the sets of the L1 what is loaded in two or four parts comes from
// the L2 as often.)
template <>
constexpr bool kOwnLines<float> = true;
template <>
constexpr bool kOwnLines<bf16> = true;
template <>
constexpr bool kOwnLines<f16> = true;
template <>
constexpr bool kOwnLines<int8_t> = true;
template <int G, class S, class F>
ATTEND_INLINE void lines_of(const S *const (&p)[G], int64_t stride, const F &f) {
  constexpr int kParts = 4 / static_cast<int>(sizeof(S));
  vec<float> r[G][16];  // bits; of two, half of them in memory
  ATTEND_UNROLL
  for (int g = 0; g < G; ++g) {
    ATTEND_UNROLL
    for (int i = 0; i < 16; ++i) r[g][i] = _mm512_loadu_ps(p[g] + i * stride);
    transpose(r[g]);
  }
  ATTEND_UNROLL
  for (int k = 0; k < 16; ++k) {
    ATTEND_UNROLL
    for (int of = 0; of < kParts; ++of) {
      vec<float> column[G];
      ATTEND_UNROLL
      for (int g = 0; g < G; ++g) column[g] = part_of(p[g], _mm512_castps_si512(r[g][k]), of);
      f(kParts * k + of, column);
    }
  }
}

}  // namespace
}  // namespace attend
