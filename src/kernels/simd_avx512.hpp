// AVX-512 F, BW, DQ, VL.
#pragma once

#include <immintrin.h>

#define xsimd attend_xsimd_avx512
#include <xsimd/xsimd.hpp>
#define ATTEND_ARCH xsimd::avx512bw
#include "kernels/simd.hpp"
#include "kernels/simd_xsimd.hpp"

namespace attend {
namespace {

// 24 accumulators, 2 lane vectors, broadcasts as memory operands: 26 of 32 registers. 24 chains cover the latency of two
// 512-bit pipes (Intel); one pipe (Zen 4) needs 4 to 8 chains, and 2 + 12 loads for 24 FMAs keep it fed.
template <class T>
struct Tiles {
  static constexpr int kVectors = 2, kColumns = 12;
  // Attention: scores with lanes = queries; output with lanes = features and 4 + 24 + 1 registers.
  static constexpr int kScoreVectors = 1, kScoreColumns = 16;
  static constexpr int kOutVectors = 4, kOutQueries = 6;
};

ATTEND_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTEND_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
ATTEND_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return _mm512_fmadd_ps(a, b, c); }
ATTEND_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return _mm512_fmadd_pd(a, b, c); }

ATTEND_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return _mm512_max_ps(a, b); }
ATTEND_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return _mm512_max_pd(a, b); }

// "Not less than" keeps a NaN.
ATTEND_INLINE vec<float> scale_or_zero(vec<float> p, vec<float> n, vec<float> y, vec<float> cut) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(y, cut, _CMP_NLT_UQ), p, n);
}
ATTEND_INLINE vec<double> scale_or_zero(vec<double> p, vec<double> n, vec<double> y, vec<double> cut) {
  return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(y, cut, _CMP_NLT_UQ), p, n);
}

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

}  // namespace
}  // namespace attend
