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
template <int F>
ATTEND_INLINE vec<float> bytes_of(const int8_t (*p)[4]) {
  const __m512i four = _mm512_loadu_si512(p);
  return _mm512_cvtepi32_ps(_mm512_srai_epi32(F == 3 ? four : _mm512_slli_epi32(four, 24 - 8 * F), 24));
}
// By way of f16, of whose bits f8e4m3's are the upper ones, but for the exponent's bias, 8 less, and NaN, which is
// f16's 480.
ATTEND_INLINE vec<float> widened_lanes(const f8e4m3 *p) {
  const __m256i lanes = _mm256_cvtepu8_epi16(sixteen_bytes(p));
  const __m256i size = _mm256_and_si256(lanes, _mm256_set1_epi16(0x7f)),
                sign = _mm256_and_si256(lanes, _mm256_set1_epi16(0x80));
  const __m256i nan = _mm256_maskz_set1_epi16(_mm256_cmpeq_epi16_mask(size, _mm256_set1_epi16(0x7f)), 0x7e00);
  const __m256i bits = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(size, 7), _mm256_slli_epi16(sign, 8)), nan);
  return _mm512_mul_ps(_mm512_cvtph_ps(bits), _mm512_set1_ps(0x1p8f));
}

ATTEND_INLINE void narrow_lanes(bf16 *p, vec<float> v) {
  const __m512 f = v;
  const __m512i bits = _mm512_castps_si512(f);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i right =
      _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q), bits, _mm512_set1_epi32(0x400000));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(right, 16)));
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

// f(k, r) for k = 0..15 in order, r lane i = p[i * stride + k]: two features at a time are turned, as one 32-bit element,
// and parted in their lanes.
template <>
constexpr bool kOwnColumns<bf16> = true;
template <class F>
ATTEND_INLINE void own_columns(const bf16 *p, int64_t stride, const F &f) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  ATTEND_UNROLL
  for (int b = 0; b < 16; b += 8) {
    __m512i q[4];
    ATTEND_UNROLL
    for (int i = 0; i < 4; ++i) {
      const bf16 *row = p + i * stride + b;
      __m512i v = _mm512_castsi128_si512(sixteen_bytes(row));
      v = _mm512_mask_broadcast_i32x4(v, 0x00f0, sixteen_bytes(row + 4 * stride));
      v = _mm512_mask_broadcast_i32x4(v, 0x0f00, sixteen_bytes(row + 8 * stride));
      q[i] = _mm512_mask_broadcast_i32x4(v, 0xf000, sixteen_bytes(row + 12 * stride));
    }
    const __m512i t0 = _mm512_unpacklo_epi32(q[0], q[1]), t1 = _mm512_unpacklo_epi32(q[2], q[3]);
    const __m512i t2 = _mm512_unpackhi_epi32(q[0], q[1]), t3 = _mm512_unpackhi_epi32(q[2], q[3]);
    const __m512i pairs[4] = {_mm512_unpacklo_epi64(t0, t1), _mm512_unpackhi_epi64(t0, t1),
                              _mm512_unpacklo_epi64(t2, t3), _mm512_unpackhi_epi64(t2, t3)};
    ATTEND_UNROLL
    for (int i = 0; i < 4; ++i) {
      f(b + 2 * i, vec<float>(_mm512_castsi512_ps(_mm512_slli_epi32(pairs[i], 16))));
      f(b + 2 * i + 1, vec<float>(_mm512_castsi512_ps(_mm512_and_si512(pairs[i], upper))));
    }
  }
}

}  // namespace
}  // namespace attend
