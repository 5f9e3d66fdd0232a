// Stored elements by AVX2, with F16C: kernels/widen.hpp.
#pragma once

#include "kernels/stored.hpp"

#define ATTEND_STORED_VECTORS

namespace attend {
namespace {

template <class S>
ATTEND_INLINE __m128i eight_of(const S *p) {
  const auto *at = reinterpret_cast<const __m128i *>(p);
  return sizeof(S) == 2 ? _mm_loadu_si128(at) : _mm_loadl_epi64(at);
}

ATTEND_INLINE vec<float> widened_lanes(const bf16 *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight_of(p)), 16));
}
ATTEND_INLINE vec<float> widened_lanes(const f16 *p) { return _mm256_cvtph_ps(eight_of(p)); }
ATTEND_INLINE vec<float> widened_lanes(const int8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight_of(p)));
}
ATTEND_INLINE vec<float> widened_lanes(const uint8_t *p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight_of(p)));
}
#define ATTEND_BYTES_OF
template <int F>
ATTEND_INLINE vec<float> bytes_of(const int8_t (*p)[4]) {
  const __m256i four = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return _mm256_cvtepi32_ps(_mm256_srai_epi32(F == 3 ? four : _mm256_slli_epi32(four, 24 - 8 * F), 24));
}
// By way of f16, of whose bits f8e4m3's are the upper ones, but for the exponent's bias, 8 less, and NaN, which is
// f16's 480.
ATTEND_INLINE vec<float> widened_lanes(const f8e4m3 *p) {
  const __m128i lanes = _mm_cvtepu8_epi16(eight_of(p));
  const __m128i size = _mm_and_si128(lanes, _mm_set1_epi16(0x7f)), sign = _mm_and_si128(lanes, _mm_set1_epi16(0x80));
  const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(size, _mm_set1_epi16(0x7f)), _mm_set1_epi16(0x7e00));
  const __m128i bits = _mm_or_si128(_mm_or_si128(_mm_slli_epi16(size, 7), _mm_slli_epi16(sign, 8)), nan);
  return _mm256_mul_ps(_mm256_cvtph_ps(bits), _mm256_set1_ps(0x1p8f));
}

ATTEND_INLINE void narrow_lanes(bf16 *p, vec<float> v) {
  const __m256 f = v;
  const __m256i bits = _mm256_castps_si256(f);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i nan = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(f, f, _CMP_UNORD_Q));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), packed);
}
ATTEND_INLINE void narrow_lanes(f16 *p, vec<float> v) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
// Eight numbers of 32 bits that 8 bits hold, signed or not.
ATTEND_INLINE void store_bytes(int8_t *p, __m256i v) {
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packs_epi16(halves, halves));
}
ATTEND_INLINE void store_bytes(uint8_t *p, __m256i v) {
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i *>(p), _mm_packus_epi16(halves, halves));
}
template <class S>  // int8_t, uint8_t
ATTEND_INLINE void narrow_lanes(S *p, vec<float> v) {
  const __m256 f = v, is_number = _mm256_cmp_ps(f, f, _CMP_ORD_Q);
  const bool is_signed = static_cast<S>(-1) < 0;
  const __m256 least = _mm256_set1_ps(is_signed ? -128 : 0), most = _mm256_set1_ps(is_signed ? 127 : 255);
  const __m256i rounded = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(f, least), most));
  store_bytes(p, _mm256_and_si256(rounded, _mm256_castps_si256(is_number)));
}
// As narrow of one number; what is below the normal numbers, in steps of 2^-9, is rounded by the unit.
ATTEND_INLINE void narrow_lanes(f8e4m3 *p, vec<float> v) {
  const auto number = [](int n) __attribute__((always_inline)) { return _mm256_set1_epi32(n); };
  const __m256i bits = _mm256_castps_si256(v), size = _mm256_and_si256(bits, number(0x7fffffff));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(size, 20), number(1));
  const __m256i shifted = _mm256_add_epi32(size, number(0x7ffff - (120 << 23)));
  __m256i r = _mm256_srli_epi32(_mm256_add_epi32(shifted, odd), 20);
  // (Of larger numbers, which do not count here, none is beyond an integer: that would be an invalid operation.)
  const __m256 small = _mm256_min_ps(_mm256_castsi256_ps(size), _mm256_set1_ps(0x1p-6f));
  const __m256i steps = _mm256_cvtps_epi32(_mm256_mul_ps(small, _mm256_set1_ps(0x1p9f)));
  r = _mm256_blendv_epi8(r, steps, _mm256_cmpgt_epi32(number(0x3c800000), size));             // 2^-6
  r = _mm256_blendv_epi8(r, number(0x7e), _mm256_cmpgt_epi32(size, number(0x43e00000 - 1)));  // 448
  r = _mm256_blendv_epi8(r, number(0x7f), _mm256_cmpgt_epi32(size, number(0x7f800000)));
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), number(0x80));
  store_bytes(reinterpret_cast<uint8_t *>(p), _mm256_or_si256(r, sign));
}

// f(k, r) for k = 0..7 in order, r lane i = p[i * stride + k]: two features at a time are turned, as one 32-bit element,
// and parted in their lanes. A third of the shuffles of floats.
template <>
constexpr bool kOwnColumns<bf16> = true;
template <class F>
ATTEND_INLINE void own_columns(const bf16 *p, int64_t stride, const F &f) {
  __m256i q[4];
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    q[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(eight_of(p + i * stride)), eight_of(p + (i + 4) * stride), 1);
  }
  const __m256i a = _mm256_unpacklo_epi32(q[0], q[1]), b = _mm256_unpacklo_epi32(q[2], q[3]);
  const __m256i c = _mm256_unpackhi_epi32(q[0], q[1]), d = _mm256_unpackhi_epi32(q[2], q[3]);
  const __m256i pairs[4] = {_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b), _mm256_unpacklo_epi64(c, d),
                            _mm256_unpackhi_epi64(c, d)};
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    f(2 * i, vec<float>(_mm256_castsi256_ps(_mm256_slli_epi32(pairs[i], 16))));
    f(2 * i + 1, vec<float>(_mm256_castsi256_ps(_mm256_and_si256(pairs[i], upper))));
  }
}

}  // namespace
}  // namespace attend
