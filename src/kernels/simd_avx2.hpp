// AVX2 with FMA.
#pragma once

#include <immintrin.h>

#define xsimd attend_xsimd_avx2
#include <xsimd/xsimd.hpp>
#define ATTEND_ARCH xsimd::fma3<xsimd::avx2>
#include "kernels/simd.hpp"
#include "kernels/simd_xsimd.hpp"
#include "kernels/transpose_avx2.hpp"

namespace attend {
namespace {

// 12 accumulators, 2 lane vectors, 1 broadcast: 15 of 16 registers.
template <class T>
struct Tiles {
  static constexpr int kVectors = 2, kColumns = 6, kFlatVectors = 2, kFlatColumns = 6;
  static constexpr int kScoreVectors = 2, kScoreColumns = 6, kNarrowColumns = 12;
  static constexpr int kOutVectors = 2, kOutQueries = 6, kFewVectors = 4, kFewQueries = 3;
  static constexpr int kGroupVectors = 2;
  static constexpr int kStripVectors = 4;  // softmax of columns side by side
};

ATTEND_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTEND_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
ATTEND_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm256_fmadd_ps(a, b, c); }
ATTEND_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm256_fmadd_pd(a, b, c); }

ATTEND_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm256_max_ps(a, b); }
ATTEND_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return _mm256_max_pd(a, b); }

ATTEND_INLINE vec<float> swap_pairs(vec<float> v) { return _mm256_permute_ps(v, 0xb1); }
ATTEND_INLINE vec<double> swap_pairs(vec<double> v) { return _mm256_permute_pd(v, 0x5); }

ATTEND_INLINE vec<float> with_exponent(vec<float> low_bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(low_bits), 23));
}
ATTEND_INLINE vec<double> with_exponent(vec<double> low_bits) {
  return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(low_bits), 52));
}
ATTEND_INLINE vec<float> zero_below(vec<float> v, vec<float> y, vec<float> cut) {
  return _mm256_andnot_ps(_mm256_cmp_ps(y, cut, _CMP_LT_OQ), v);
}
ATTEND_INLINE vec<double> zero_below(vec<double> v, vec<double> y, vec<double> cut) {
  return _mm256_andnot_pd(_mm256_cmp_pd(y, cut, _CMP_LT_OQ), v);
}

// In-register transposes, r[i] lane j <-> r[j] lane i.
ATTEND_INLINE void transpose(vec<float> (&r)[8]) { transpose_eight(r); }
ATTEND_INLINE void transpose(vec<double> (&r)[4]) {
  const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
  const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
  r[0] = _mm256_permute2f128_pd(a, c, 0x20);
  r[1] = _mm256_permute2f128_pd(b, d, 0x20);
  r[2] = _mm256_permute2f128_pd(a, c, 0x31);
  r[3] = _mm256_permute2f128_pd(b, d, 0x31);
}

#define ATTEND_ZERO_BYTES
ATTEND_INLINE uint32_t zero_bytes(const uint8_t *p) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
  return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
}

#define ATTEND_HIDDEN_LANES
ATTEND_INLINE vec<float> hidden_lanes_f32(const uint8_t *visible) {
  const __m256i lanes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(visible)));
  const __m256i hidden = _mm256_cmpeq_epi32(lanes, _mm256_setzero_si256());
  return _mm256_and_ps(_mm256_castsi256_ps(hidden), _mm256_set1_ps(-__builtin_inff()));
}

// The bit of the key at hand becomes the sign, by which blends choose.
#define ATTEND_HIDDEN_KEYS
template <class T>
struct HiddenKeys;
template <>
struct HiddenKeys<float> {
  explicit HiddenKeys(const uint32_t *of_rows)
      : rows(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(of_rows))), up(_mm256_set1_epi32(31)) {}
  __m256i rows, up;
  ATTEND_INLINE vec<float> hide_next(vec<float> s) {
    const __m256 sign = _mm256_castsi256_ps(_mm256_sllv_epi32(rows, up));
    up = _mm256_sub_epi32(up, _mm256_set1_epi32(1));
    return _mm256_blendv_ps(s, _mm256_set1_ps(-__builtin_inff()), sign);
  }
  ATTEND_INLINE static vec<float> hide(const uint32_t *of_rows, int64_t key, vec<float> s) {
    HiddenKeys keys(of_rows);
    keys.up = _mm256_set1_epi32(static_cast<int>(31 - key));
    return keys.hide_next(s);
  }
};
template <>
struct HiddenKeys<double> {
  explicit HiddenKeys(const uint32_t *of_rows)
      : rows(_mm256_cvtepu32_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i *>(of_rows)))),
        up(_mm256_set1_epi64x(63)) {}
  __m256i rows, up;
  ATTEND_INLINE vec<double> hide_next(vec<double> s) {
    const __m256d sign = _mm256_castsi256_pd(_mm256_sllv_epi64(rows, up));
    up = _mm256_sub_epi64(up, _mm256_set1_epi64x(1));
    return _mm256_blendv_pd(s, _mm256_set1_pd(-__builtin_inf()), sign);
  }
  ATTEND_INLINE static vec<double> hide(const uint32_t *of_rows, int64_t key, vec<double> s) {
    HiddenKeys keys(of_rows);
    keys.up = _mm256_set1_epi64x(63 - key);
    return keys.hide_next(s);
  }
};

ATTEND_INLINE void stream_store(float *p, vec<float> v) { _mm256_stream_ps(p, v); }
ATTEND_INLINE void stream_store(double *p, vec<double> v) { _mm256_stream_pd(p, v); }
ATTEND_INLINE void stream_fence() { _mm_sfence(); }

// Loads by mask (cheap on every CPU); stores in halves, since masked stores are microcoded on AMD.
template <class T>
struct Tail {
  explicit Tail(int64_t n) : count(static_cast<int>(n)) {
    if constexpr (sizeof(T) == 4) {
      mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    } else {
      mask = _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
    }
  }
  int count;
  __m256i mask;
};
ATTEND_INLINE vec<float> load(const float *p, const Tail<float> &t) { return _mm256_maskload_ps(p, t.mask); }
ATTEND_INLINE vec<double> load(const double *p, const Tail<double> &t) { return _mm256_maskload_pd(p, t.mask); }
ATTEND_INLINE void store(float *p, vec<float> v, const Tail<float> &t) {
  if (t.count == 8) return _mm256_storeu_ps(p, v);
  __m128 part = _mm256_castps256_ps128(v);
  if ((t.count & 4) != 0) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if ((t.count & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64 *>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if ((t.count & 1) != 0) _mm_store_ss(p, part);
}
ATTEND_INLINE void store(double *p, vec<double> v, const Tail<double> &t) {
  if (t.count == 4) return _mm256_storeu_pd(p, v);
  __m128d part = _mm256_castpd256_pd128(v);
  if ((t.count & 2) != 0) {
    _mm_storeu_pd(p, part);
    part = _mm256_extractf128_pd(v, 1);
    p += 2;
  }
  if ((t.count & 1) != 0) _mm_store_sd(p, part);
}

// Lane l of the result is lane from[l] of v. There is no such instruction for doubles: they move as pairs of floats.
#define ATTEND_PERMUTATIONS
template <class T>
struct Permutation {
  explicit Permutation(const int64_t (&from)[32 / sizeof(T)]) {
    int32_t floats[8];
    for (int i = 0; i < 8; ++i) {
      const int pair = static_cast<int>(sizeof(T) / 4);
      floats[i] = static_cast<int32_t>(from[i / pair] * pair + i % pair);
    }
    index = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(floats));
  }
  __m256i index;
};
ATTEND_INLINE vec<float> permute(vec<float> v, const Permutation<float> &p) {
  return _mm256_permutevar8x32_ps(v, p.index);
}
ATTEND_INLINE vec<double> permute(vec<double> v, const Permutation<double> &p) {
  return _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(v), p.index));
}

}  // namespace
}  // namespace attend

#include "kernels/pairs_avx2.hpp"
#include "kernels/stored_avx2.hpp"
