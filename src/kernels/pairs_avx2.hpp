// Pairs of 16-bit integers by AVX2: kernels/pairs.hpp.
#pragma once

#include "kernels/simd.hpp"

#define ATTEND_PAIRS

namespace attend {
namespace {

constexpr int kPairs = 8;
constexpr int kIntegerVectors = 2;
using PairVec = __m256i;
using SumVec = __m256i;

ATTEND_INLINE PairVec load_pairs(const int16_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
ATTEND_INLINE void store_pairs(int16_t *p, PairVec v) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
ATTEND_INLINE PairVec broadcast_pair(const void *p) {
  int32_t pair;
  __builtin_memcpy(&pair, p, sizeof pair);
  return _mm256_set1_epi32(pair);
}
ATTEND_INLINE PairVec pairs_along(const int8_t *p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
ATTEND_INLINE PairVec pairs_along(const uint8_t *p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
ATTEND_INLINE __m128i interleaved(const void *even, const void *odd) {
  return _mm_unpacklo_epi8(_mm_loadl_epi64(static_cast<const __m128i *>(even)),
                           _mm_loadl_epi64(static_cast<const __m128i *>(odd)));
}
ATTEND_INLINE PairVec pairs_across(const int8_t *even, const int8_t *odd) {
  return _mm256_cvtepi8_epi16(interleaved(even, odd));
}
ATTEND_INLINE PairVec pairs_across(const uint8_t *even, const uint8_t *odd) {
  return _mm256_cvtepu8_epi16(interleaved(even, odd));
}
ATTEND_INLINE PairVec minus(PairVec a, PairVec b) { return _mm256_sub_epi16(a, b); }
ATTEND_INLINE void transpose(PairVec (&r)[kPairs]) {
  vec<float> lanes[kPairs];
  ATTEND_UNROLL
  for (int i = 0; i < kPairs; ++i) lanes[i] = _mm256_castsi256_ps(r[i]);
  transpose(lanes);
  ATTEND_UNROLL
  for (int i = 0; i < kPairs; ++i) r[i] = _mm256_castps_si256(lanes[i]);
}

ATTEND_INLINE SumVec load_sums(const int32_t *p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
ATTEND_INLINE void store_sums(int32_t *p, SumVec v) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
ATTEND_INLINE SumVec no_sums() { return _mm256_setzero_si256(); }
ATTEND_INLINE SumVec add_products(PairVec a, PairVec b, SumVec c) {
  return _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
}
ATTEND_INLINE int32_t total_of(SumVec v) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 1)));
}

}  // namespace
}  // namespace attend
