// SSE4.2: no FMA, so its bits differ from those of the other instruction sets.
#pragma once

#include <nmmintrin.h>

#define xsimd attend_xsimd_sse42
#include <xsimd/xsimd.hpp>
#define ATTEND_ARCH xsimd::sse4_2
#include "kernels/simd.hpp"
#include "kernels/simd_xsimd.hpp"

namespace attend {
namespace {

// 8 accumulators, 2 lane vectors, 1 broadcast and 2 products: 13 of 16 registers. (Two-operand instructions and
// products that need a register of their own: 12 accumulators spill.)
template <class T>
struct Tiles {
  static constexpr int kVectors = 2, kColumns = 4, kFlatVectors = 2, kFlatColumns = 4;
  static constexpr int kScoreVectors = 2, kScoreColumns = 4, kNarrowColumns = 8;
  static constexpr int kOutVectors = 2, kOutQueries = 4, kFewVectors = 4, kFewQueries = 2;
  static constexpr int kGroupVectors = 2;
  static constexpr int kStripVectors = 2;  // softmax of columns side by side
};

template <class T>
ATTEND_INLINE T fused(T a, T b, T c) {
  return a * b + c;
}
template <class T>
ATTEND_INLINE vec<T> fma(vec<T> a, vec<T> b, vec<T> c) {
  return a * b + c;
}

ATTEND_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm_max_ps(a, b); }
ATTEND_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return _mm_max_pd(a, b); }

ATTEND_INLINE vec<float> swap_pairs(vec<float> v) { return _mm_shuffle_ps(v, v, 0xb1); }
ATTEND_INLINE vec<double> swap_pairs(vec<double> v) { return _mm_shuffle_pd(v, v, 0x1); }

ATTEND_INLINE vec<float> with_exponent(vec<float> low_bits) {
  return _mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(low_bits), 23));
}
ATTEND_INLINE vec<double> with_exponent(vec<double> low_bits) {
  return _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(low_bits), 52));
}
ATTEND_INLINE vec<float> zero_below(vec<float> v, vec<float> y, vec<float> cut) {
  return _mm_andnot_ps(_mm_cmplt_ps(y, cut), v);
}
ATTEND_INLINE vec<double> zero_below(vec<double> v, vec<double> y, vec<double> cut) {
  return _mm_andnot_pd(_mm_cmplt_pd(y, cut), v);
}

// In-register transposes, r[i] lane j <-> r[j] lane i.
ATTEND_INLINE void transpose(vec<float> (&r)[4]) {
  const __m128 a = _mm_unpacklo_ps(r[0], r[1]), b = _mm_unpackhi_ps(r[0], r[1]);
  const __m128 c = _mm_unpacklo_ps(r[2], r[3]), d = _mm_unpackhi_ps(r[2], r[3]);
  r[0] = _mm_movelh_ps(a, c);
  r[1] = _mm_movehl_ps(c, a);
  r[2] = _mm_movelh_ps(b, d);
  r[3] = _mm_movehl_ps(d, b);
}
ATTEND_INLINE void transpose(vec<double> (&r)[2]) {
  const __m128d low = _mm_unpacklo_pd(r[0], r[1]);
  r[1] = _mm_unpackhi_pd(r[0], r[1]);
  r[0] = low;
}

ATTEND_INLINE void stream_store(float *p, vec<float> v) { _mm_stream_ps(p, v); }
ATTEND_INLINE void stream_store(double *p, vec<double> v) { _mm_stream_pd(p, v); }
ATTEND_INLINE void stream_fence() { _mm_sfence(); }

template <class T>
struct Tail {
  explicit Tail(int64_t n) : count(static_cast<int>(n)) {}
  int count;
};
ATTEND_INLINE __m128 load_pair(const float *p) {
  return _mm_loadl_pi(_mm_setzero_ps(), reinterpret_cast<const __m64 *>(p));
}
ATTEND_INLINE vec<float> load(const float *p, Tail<float> t) {
  switch (t.count) {
    case 1:
      return _mm_load_ss(p);
    case 2:
      return load_pair(p);
    case 3:
      return _mm_movelh_ps(load_pair(p), _mm_load_ss(p + 2));
    default:
      return _mm_loadu_ps(p);
  }
}
ATTEND_INLINE vec<double> load(const double *p, Tail<double> t) {
  return t.count == 1 ? _mm_load_sd(p) : _mm_loadu_pd(p);
}
ATTEND_INLINE void store(float *p, vec<float> v, Tail<float> t) {
  if (t.count == 4) return _mm_storeu_ps(p, v);
  __m128 part = v;
  if ((t.count & 2) != 0) {
    _mm_storel_pi(reinterpret_cast<__m64 *>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if ((t.count & 1) != 0) _mm_store_ss(p, part);
}
ATTEND_INLINE void store(double *p, vec<double> v, Tail<double> t) {
  if (t.count == 2) return _mm_storeu_pd(p, v);
  _mm_store_sd(p, v);
}

}  // namespace
}  // namespace attend
