// Advanced SIMD of 64-bit Arm, which every such CPU has, fused multiply-add included.
#pragma once

#include <arm_neon.h>

#define xsimd attend_xsimd_neon
#include <xsimd/xsimd.hpp>
#define ATTEND_ARCH xsimd::neon64
#include "kernels/simd.hpp"
#include "kernels/simd_xsimd.hpp"

namespace attend {
namespace {

// 20 accumulators, 4 lane vectors, 5 columns' scalars: 29 of 32 registers. A fused multiply-add takes its scalar from a
// lane, so that nothing is broadcast. (g++ 12 spills one of the 24 accumulators of 6 columns.)
template <class T>
struct Tiles {
  static constexpr int kVectors = 4, kColumns = 5, kFlatVectors = 4, kFlatColumns = 5;
  static constexpr int kScoreVectors = 4, kScoreColumns = 5, kNarrowColumns = 16;
  static constexpr int kOutVectors = 4, kOutQueries = 5, kFewVectors = 8, kFewQueries = 2;
  static constexpr int kGroupVectors = 4;
  static constexpr int kStripVectors = 4;  // softmax of columns side by side
};

ATTEND_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTEND_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
ATTEND_INLINE vec<float> fma(vec<float> a, vec<float> b, vec<float> c) { return vfmaq_f32(c, a, b); }
ATTEND_INLINE vec<double> fma(vec<double> a, vec<double> b, vec<double> c) { return vfmaq_f64(c, a, b); }

ATTEND_INLINE vec<float> divide(vec<float> a, vec<float> b) { return vdivq_f32(a, b); }
ATTEND_INLINE vec<double> divide(vec<double> a, vec<double> b) { return vdivq_f64(a, b); }

// As x86 does it: b where either is NaN, or both are zeros.
ATTEND_INLINE vec<float> maximum(vec<float> a, vec<float> b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
ATTEND_INLINE vec<double> maximum(vec<double> a, vec<double> b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }

ATTEND_INLINE vec<float> swap_pairs(vec<float> v) { return vrev64q_f32(v); }
ATTEND_INLINE vec<double> swap_pairs(vec<double> v) { return vextq_f64(v, v, 1); }

ATTEND_INLINE vec<float> round(vec<float> v) { return vrndnq_f32(v); }
ATTEND_INLINE vec<double> round(vec<double> v) { return vrndnq_f64(v); }

ATTEND_INLINE vec<float> with_exponent(vec<float> low_bits) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(low_bits), 23));
}
ATTEND_INLINE vec<double> with_exponent(vec<double> low_bits) {
  return vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(low_bits), 52));
}
ATTEND_INLINE vec<float> zero_below(vec<float> v, vec<float> y, vec<float> cut) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(v), vcltq_f32(y, cut)));
}
ATTEND_INLINE vec<double> zero_below(vec<double> v, vec<double> y, vec<double> cut) {
  return vreinterpretq_f64_u64(vbicq_u64(vreinterpretq_u64_f64(v), vcltq_f64(y, cut)));
}

ATTEND_INLINE void transpose(vec<float> (&r)[4]) {
  const float32x4_t a = vtrn1q_f32(r[0], r[1]), b = vtrn2q_f32(r[0], r[1]);
  const float32x4_t c = vtrn1q_f32(r[2], r[3]), d = vtrn2q_f32(r[2], r[3]);
  const auto pairs = [](float32x4_t v) __attribute__((always_inline)) { return vreinterpretq_f64_f32(v); };
  r[0] = vreinterpretq_f32_f64(vtrn1q_f64(pairs(a), pairs(c)));
  r[1] = vreinterpretq_f32_f64(vtrn1q_f64(pairs(b), pairs(d)));
  r[2] = vreinterpretq_f32_f64(vtrn2q_f64(pairs(a), pairs(c)));
  r[3] = vreinterpretq_f32_f64(vtrn2q_f64(pairs(b), pairs(d)));
}
ATTEND_INLINE void transpose(vec<double> (&r)[2]) {
  const float64x2_t a = r[0], b = r[1];
  r[0] = vtrn1q_f64(a, b);
  r[1] = vtrn2q_f64(a, b);
}

// There is no intrinsic for a store past the caches.
template <class T>
ATTEND_INLINE void stream_store(T *p, vec<T> v) {
  store(p, v);
}
ATTEND_INLINE void stream_fence() {}

template <class T>
struct Tail {
  explicit Tail(int64_t n) : count(static_cast<int>(n)) {}
  int count;
};
ATTEND_INLINE vec<float> load(const float *p, const Tail<float> &t) {
  if (t.count == 4) return vld1q_f32(p);
  float32x4_t v = vdupq_n_f32(0);
  if (t.count == 1) return vld1q_lane_f32(p, v, 0);
  v = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
  return t.count == 2 ? v : vld1q_lane_f32(p + 2, v, 2);
}
ATTEND_INLINE vec<double> load(const double *p, const Tail<double> &t) {
  return t.count == 2 ? vld1q_f64(p) : vld1q_lane_f64(p, vdupq_n_f64(0), 0);
}
ATTEND_INLINE void store(float *p, vec<float> v, const Tail<float> &t) {
  if (t.count == 4) return vst1q_f32(p, v);
  if (t.count == 1) return vst1q_lane_f32(p, v, 0);
  vst1_f32(p, vget_low_f32(v));
  if (t.count == 3) vst1q_lane_f32(p + 2, v, 2);
}
ATTEND_INLINE void store(double *p, vec<double> v, const Tail<double> &t) {
  if (t.count == 2) return vst1q_f64(p, v);
  vst1q_lane_f64(p, v, 0);
}

}  // namespace
}  // namespace attend
