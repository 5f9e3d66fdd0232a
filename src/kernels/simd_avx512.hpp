// AVX-512 F, BW, DQ, VL.
#pragma once

#include <immintrin.h>

#define xsimd attend_xsimd_avx512
#include <xsimd/xsimd.hpp>
#define ATTEND_ARCH xsimd::avx512bw
#include "kernels/simd.hpp"
#include "kernels/simd_xsimd.hpp"
#include "kernels/transpose_avx2.hpp"
#include "kernels/transpose_avx512.hpp"

namespace attend {
namespace {

// 24 accumulators, 3 lane vectors and a broadcast: 28 of 32 registers. 24 chains cover the latency of two 512-bit pipes
// (Intel); one pipe (Zen 4) needs 4 to 8 chains. 3 x 8 takes 11 loads for 24 FMAs where 2 x 12 takes 14: 1.02 times the speed on
// an Intel core of one's own with A's vectors across lines, 1.08 beside another thread of the core (4 x 6 the same, and
// reads A more often). The flat 2 x 12 are for products of 1 or 2 and of 4 vectors of rows.
template <class T>
struct Tiles {
  static constexpr int kVectors = 3, kColumns = 8, kFlatVectors = 2, kFlatColumns = 12;
  // Attention: scores with lanes = queries, 2 x 12 or 1 x 16; output with lanes = features, 2 x 12 (4 x 6 reads V twice
  // as often, from the L2: 8 % less on Intel) or, for few queries, 8 x 3 with the values as memory operands.
  static constexpr int kScoreVectors = 2, kScoreColumns = 12, kNarrowColumns = 16;
  static constexpr int kOutVectors = 2, kOutQueries = 12, kFewVectors = 8, kFewQueries = 3;
  static constexpr int kGroupVectors = 4;
  static constexpr int kStripVectors = 4;  // softmax of columns side by side
};

ATTEND_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTEND_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
ATTEND_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
ATTEND_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }

ATTEND_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm512_max_ps(a, b); }
ATTEND_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return _mm512_max_pd(a, b); }

ATTEND_INLINE vec<float> swap_pairs(vec<float> v) { return _mm512_permute_ps(v, 0xb1); }
ATTEND_INLINE vec<double> swap_pairs(vec<double> v) { return _mm512_permute_pd(v, 0x55); }

// Masks for exp.hpp: "not at most" and "not below" are true of NaN. A lane that is left out is 0 and raises nothing.
#define ATTEND_MASKED_EXP
ATTEND_INLINE __mmask16 is_not_at_most(vec<float> a, float b) {
  return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_NLE_UQ);
}
ATTEND_INLINE __mmask8 is_not_at_most(vec<double> a, double b) {
  return _mm512_cmp_pd_mask(a, _mm512_set1_pd(b), _CMP_NLE_UQ);
}
ATTEND_INLINE __mmask16 is_not_below(vec<float> a, float b) {
  return _mm512_cmp_ps_mask(a, _mm512_set1_ps(b), _CMP_NLT_UQ);
}
ATTEND_INLINE __mmask8 is_not_below(vec<double> a, double b) {
  return _mm512_cmp_pd_mask(a, _mm512_set1_pd(b), _CMP_NLT_UQ);
}
ATTEND_INLINE vec<float> subtract_where(__mmask16 m, vec<float> a, vec<float> b) {
  return _mm512_maskz_sub_ps(m, a, b);
}
ATTEND_INLINE vec<double> subtract_where(__mmask8 m, vec<double> a, vec<double> b) {
  return _mm512_maskz_sub_pd(m, a, b);
}
ATTEND_INLINE vec<float> multiply_where(__mmask16 m, vec<float> a, vec<float> b) {
  return _mm512_maskz_mul_ps(m, a, b);
}
ATTEND_INLINE vec<double> multiply_where(__mmask8 m, vec<double> a, vec<double> b) {
  return _mm512_maskz_mul_pd(m, a, b);
}
ATTEND_INLINE vec<float> fma_where(__mmask16 m, vec<float> a, vec<float> b, vec<float> c) {
  return _mm512_maskz_fmadd_ps(m, a, b, c);
}
ATTEND_INLINE vec<double> fma_where(__mmask8 m, vec<double> a, vec<double> b, vec<double> c) {
  return _mm512_maskz_fmadd_pd(m, a, b, c);
}
// p * 2^n
ATTEND_INLINE vec<float> scale_where(__mmask16 m, vec<float> p, vec<float> n) {
  return _mm512_maskz_scalef_ps(m, p, n);
}
ATTEND_INLINE vec<double> scale_where(__mmask8 m, vec<double> p, vec<double> n) {
  return _mm512_maskz_scalef_pd(m, p, n);
}

ATTEND_INLINE void transpose(vec<float> (&r)[16]) {
  __m512 q[16];
  ATTEND_UNROLL
  for (int i = 0; i < 16; ++i) q[i] = r[i];
  transpose(q);
  ATTEND_UNROLL
  for (int i = 0; i < 16; ++i) r[i] = q[i];
}
ATTEND_INLINE void transpose(vec<double> (&r)[8]) {
  __m512d t[8];
  ATTEND_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
  }
  ATTEND_UNROLL
  for (int i = 0; i < 2; ++i) {
    const __m512d a = _mm512_shuffle_f64x2(t[i], t[i + 2], 0x88), b = _mm512_shuffle_f64x2(t[i], t[i + 2], 0xdd);
    const __m512d c = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0x88),
                  d = _mm512_shuffle_f64x2(t[i + 4], t[i + 6], 0xdd);
    r[i] = _mm512_shuffle_f64x2(a, c, 0x88);
    r[i + 4] = _mm512_shuffle_f64x2(a, c, 0xdd);
    r[i + 2] = _mm512_shuffle_f64x2(b, d, 0x88);
    r[i + 6] = _mm512_shuffle_f64x2(b, d, 0xdd);
  }
}

#define ATTEND_ZERO_BYTES
ATTEND_INLINE uint32_t zero_bytes(const uint8_t *p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return _mm256_testn_epi8_mask(bytes, bytes);
}

#define ATTEND_HIDDEN_LANES
ATTEND_INLINE vec<float> hidden_lanes_f32(const uint8_t *visible) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(visible));
  return _mm512_maskz_mov_ps(_mm_testn_epi8_mask(bytes, bytes), _mm512_set1_ps(-__builtin_inff()));
}

#define ATTEND_HIDDEN_KEYS
template <class T>
struct HiddenKeys;
template <>
struct HiddenKeys<float> {
  explicit HiddenKeys(const uint32_t *of_rows) : rows(_mm512_loadu_si512(of_rows)), bit(_mm512_set1_epi32(1)) {}
  __m512i rows, bit;
  ATTEND_INLINE vec<float> hide_next(vec<float> s) {
    const __mmask16 hidden = _mm512_test_epi32_mask(rows, bit);
    bit = _mm512_add_epi32(bit, bit);
    return _mm512_mask_mov_ps(s, hidden, _mm512_set1_ps(-__builtin_inff()));
  }
  ATTEND_INLINE static vec<float> hide(const uint32_t *of_rows, int64_t key, vec<float> s) {
    HiddenKeys keys(of_rows);
    keys.bit = _mm512_set1_epi32(static_cast<int>(1u << key));
    return keys.hide_next(s);
  }
};
template <>
struct HiddenKeys<double> {
  explicit HiddenKeys(const uint32_t *of_rows)
      : rows(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(of_rows))), bit(_mm256_set1_epi32(1)) {}
  __m256i rows, bit;
  ATTEND_INLINE vec<double> hide_next(vec<double> s) {
    const __mmask8 hidden = _mm256_test_epi32_mask(rows, bit);
    bit = _mm256_add_epi32(bit, bit);
    return _mm512_mask_mov_pd(s, hidden, _mm512_set1_pd(-__builtin_inf()));
  }
  ATTEND_INLINE static vec<double> hide(const uint32_t *of_rows, int64_t key, vec<double> s) {
    HiddenKeys keys(of_rows);
    keys.bit = _mm256_set1_epi32(static_cast<int>(1u << key));
    return keys.hide_next(s);
  }
};

ATTEND_INLINE void stream_store(float *p, vec<float> v) { _mm512_stream_ps(p, v); }
ATTEND_INLINE void stream_store(double *p, vec<double> v) { _mm512_stream_pd(p, v); }
ATTEND_INLINE void stream_fence() { _mm_sfence(); }

template <class T>
struct Tail {
  explicit Tail(int64_t n) : mask(static_cast<uint16_t>((1u << n) - 1u)) {}
  uint16_t mask;
};
ATTEND_INLINE vec<float> load(const float *p, Tail<float> t) { return _mm512_maskz_loadu_ps(t.mask, p); }
ATTEND_INLINE vec<double> load(const double *p, Tail<double> t) {
  return _mm512_maskz_loadu_pd(static_cast<__mmask8>(t.mask), p);
}
ATTEND_INLINE void store(float *p, vec<float> v, Tail<float> t) { _mm512_mask_storeu_ps(p, t.mask, v); }
ATTEND_INLINE void store(double *p, vec<double> v, Tail<double> t) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(t.mask), v);
}

// Lane l of the result is lane from[l] of v.
#define ATTEND_PERMUTATIONS
template <class T>
struct Permutation;
template <>
struct Permutation<float> {
  explicit Permutation(const int64_t (&from)[16])
      : index(_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi64_epi32(_mm512_loadu_si512(from))),
                                 _mm512_cvtepi64_epi32(_mm512_loadu_si512(from + 8)), 1)) {}
  __m512i index;
};
template <>
struct Permutation<double> {
  explicit Permutation(const int64_t (&from)[8]) : index(_mm512_loadu_si512(from)) {}
  __m512i index;
};
ATTEND_INLINE vec<float> permute(vec<float> v, const Permutation<float> &p) {
  return _mm512_permutexvar_ps(p.index, v);
}
ATTEND_INLINE vec<double> permute(vec<double> v, const Permutation<double> &p) {
  return _mm512_permutexvar_pd(p.index, v);
}

// Half vectors: two FMAs of them a cycle where there is one of whole ones, for tiles of few rows.
#define ATTEND_HALF_VECTORS
template <class T>
struct HalfOf;
template <>
struct HalfOf<float> {
  using type = __m256;
};
template <>
struct HalfOf<double> {
  using type = __m256d;
};
template <class T>
using half = typename HalfOf<T>::type;
ATTEND_INLINE __m256 broadcast_half(float x) { return _mm256_set1_ps(x); }
ATTEND_INLINE __m256d broadcast_half(double x) { return _mm256_set1_pd(x); }
ATTEND_INLINE __m256 fma_half(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
ATTEND_INLINE __m256d fma_half(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
ATTEND_INLINE void transpose_half(__m256 (&r)[8]) { transpose_eight(r); }
ATTEND_INLINE __m256 load_half(const float *p) { return _mm256_loadu_ps(p); }
ATTEND_INLINE __m256 load_half(const float *p, Tail<float> t) {
  return _mm256_maskz_loadu_ps(static_cast<__mmask8>(t.mask), p);
}
ATTEND_INLINE __m256d load_half(const double *p, Tail<double> t) {
  return _mm256_maskz_loadu_pd(static_cast<__mmask8>(t.mask), p);
}
ATTEND_INLINE void store_half(float *p, __m256 v) { _mm256_storeu_ps(p, v); }
ATTEND_INLINE void store_half(float *p, __m256 v, Tail<float> t) {
  _mm256_mask_storeu_ps(p, static_cast<__mmask8>(t.mask), v);
}
ATTEND_INLINE void store_half(double *p, __m256d v, Tail<double> t) {
  _mm256_mask_storeu_pd(p, static_cast<__mmask8>(t.mask), v);
}

}  // namespace
}  // namespace attend

#include "kernels/stored_avx512.hpp"
