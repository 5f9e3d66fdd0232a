// Portable C++ for CPUs that no other table fits, and the table of odd shapes in the tests. Vectors are arrays of
// ATTEND_GENERIC_BYTES bytes, whose loops the compiler vectorises with what the baseline has. ATTEND_GENERIC_FMA makes
// fma a real one: then the bits are those of the other FMA instruction sets.
#pragma once

#include "kernels/simd.hpp"

#if defined(__ARM_FEATURE_FMA)  // where even the oldest CPU has it
#define ATTEND_GENERIC_FMA
#endif
#ifndef ATTEND_GENERIC_BYTES
#define ATTEND_GENERIC_BYTES 16
#endif

namespace attend {
namespace {

template <class T>
constexpr int kLanes = ATTEND_GENERIC_BYTES > sizeof(T) ? ATTEND_GENERIC_BYTES / static_cast<int>(sizeof(T)) : 1;

template <class T>
struct vec {
  T lane[kLanes<T>];
};
template <class T>
struct vec_bool {
  bool lane[kLanes<T>];
};

#ifndef ATTEND_GENERIC_TILES
template <class T>
struct Tiles {
  static constexpr int kVectors = 1, kColumns = 4, kFlatVectors = 1, kFlatColumns = 4;
  static constexpr int kScoreVectors = 1, kScoreColumns = 4, kNarrowColumns = 4;
  static constexpr int kOutVectors = 1, kOutQueries = 4, kFewVectors = 2, kFewQueries = 2;
  static constexpr int kGroupVectors = 1;
  static constexpr int kStripVectors = 1;
};
#else
template <class T>
struct Tiles {
  static constexpr int kVectors = 3, kColumns = 5, kFlatVectors = 3, kFlatColumns = 5;
  static constexpr int kScoreVectors = 4, kScoreColumns = 5, kNarrowColumns = 3;
  static constexpr int kOutVectors = 3, kOutQueries = 5, kFewVectors = 4, kFewQueries = 2;
  static constexpr int kGroupVectors = 3;
  static constexpr int kStripVectors = 4;
};
#endif

template <class T, class F>
ATTEND_INLINE vec<T> each(const F &f) {
  vec<T> r;
  for (int i = 0; i < kLanes<T>; ++i) r.lane[i] = f(i);
  return r;
}

template <class T>
ATTEND_INLINE vec<T> loaded_once(vec<T> v) {
  return v;
}
template <class T>
ATTEND_INLINE vec<T> broadcast(T x) {
  return each<T>([=](int) { return x; });
}
template <class T>
ATTEND_INLINE vec<T> load(const T *p) {
  return each<T>([=](int i) { return p[i]; });
}
template <class T>
ATTEND_INLINE void store(T *p, vec<T> v) {
  for (int i = 0; i < kLanes<T>; ++i) p[i] = v.lane[i];
}
template <class T>
ATTEND_INLINE void stream_store(T *p, vec<T> v) {
  store(p, v);
}
ATTEND_INLINE void stream_fence() {}
template <class T>
ATTEND_INLINE vec<T> operator+(vec<T> a, vec<T> b) {
  return each<T>([&](int i) { return a.lane[i] + b.lane[i]; });
}
template <class T>
ATTEND_INLINE vec<T> operator-(vec<T> a, vec<T> b) {
  return each<T>([&](int i) { return a.lane[i] - b.lane[i]; });
}
template <class T>
ATTEND_INLINE vec<T> operator*(vec<T> a, vec<T> b) {
  return each<T>([&](int i) { return a.lane[i] * b.lane[i]; });
}
template <class T>
ATTEND_INLINE vec<T> divide(vec<T> a, vec<T> b) {
  return each<T>([&](int i) { return a.lane[i] / b.lane[i]; });
}
template <class T>
ATTEND_INLINE vec_bool<T> operator<(vec<T> a, vec<T> b) {
  vec_bool<T> r;
  for (int i = 0; i < kLanes<T>; ++i) r.lane[i] = a.lane[i] < b.lane[i];
  return r;
}
template <class T>
ATTEND_INLINE vec_bool<T> operator==(vec<T> a, vec<T> b) {
  vec_bool<T> r;
  for (int i = 0; i < kLanes<T>; ++i) r.lane[i] = a.lane[i] == b.lane[i];
  return r;
}
template <class T>
ATTEND_INLINE vec<T> select(vec_bool<T> which, vec<T> yes, vec<T> no) {
  return each<T>([&](int i) { return which.lane[i] ? yes.lane[i] : no.lane[i]; });
}
template <class T>
ATTEND_INLINE bool any(vec_bool<T> b) {
  bool r = false;
  for (int i = 0; i < kLanes<T>; ++i) r |= b.lane[i];
  return r;
}
template <class T>
ATTEND_INLINE bool all(vec_bool<T> b) {
  bool r = true;
  for (int i = 0; i < kLanes<T>; ++i) r &= b.lane[i];
  return r;
}
template <class T>
ATTEND_INLINE vec<T> maximum(vec<T> a, vec<T> b) {
  return each<T>([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}

template <class T>
ATTEND_INLINE vec<T> swap_pairs(vec<T> v) {
  return each<T>([&](int i) { return v.lane[i ^ 1]; });
}

#ifdef ATTEND_GENERIC_FMA
ATTEND_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
ATTEND_INLINE double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
template <class T>
ATTEND_INLINE T fused(T a, T b, T c) {
  return a * b + c;
}
#endif
template <class T>
ATTEND_INLINE vec<T> fma(vec<T> a, vec<T> b, vec<T> c) {
  return each<T>([&](int i) { return fused(a.lane[i], b.lane[i], c.lane[i]); });
}

// Adding and subtracting 1.5 * 2^(mantissa bits) rounds to nearest even for |v| below 2^(mantissa bits - 2): exp.hpp asks
// for no others.
template <class T>
constexpr T kRounder = sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);
template <class T>
ATTEND_INLINE vec<T> round(vec<T> v) {
  return each<T>([&](int i) { return (v.lane[i] + kRounder<T>)-kRounder<T>; });
}

ATTEND_INLINE float with_exponent(float low_bits) {
  uint32_t bits;
  __builtin_memcpy(&bits, &low_bits, sizeof bits);
  bits <<= 23;
  __builtin_memcpy(&low_bits, &bits, sizeof bits);
  return low_bits;
}
ATTEND_INLINE double with_exponent(double low_bits) {
  uint64_t bits;
  __builtin_memcpy(&bits, &low_bits, sizeof bits);
  bits <<= 52;
  __builtin_memcpy(&low_bits, &bits, sizeof bits);
  return low_bits;
}
template <class T>
ATTEND_INLINE vec<T> with_exponent(vec<T> low_bits) {
  return each<T>([&](int i) { return with_exponent(low_bits.lane[i]); });
}
template <class T>
ATTEND_INLINE vec<T> zero_below(vec<T> v, vec<T> y, vec<T> cut) {
  return each<T>([&](int i) { return y.lane[i] < cut.lane[i] ? T(0) : v.lane[i]; });
}

template <class T, int N>
ATTEND_INLINE void transpose(vec<T> (&r)[N]) {
  for (int i = 0; i < N; ++i) {
    for (int j = 0; j < i; ++j) {
      const T x = r[i].lane[j];
      r[i].lane[j] = r[j].lane[i];
      r[j].lane[i] = x;
    }
  }
}

template <class T>
struct Tail {
  explicit Tail(int64_t n) : count(static_cast<int>(n)) {}
  int count;
};
template <class T>
ATTEND_INLINE vec<T> load(const T *p, Tail<T> t) {
  return each<T>([&](int i) { return i < t.count ? p[i] : T(0); });
}
template <class T>
ATTEND_INLINE void store(T *p, vec<T> v, Tail<T> t) {
  for (int i = 0; i < t.count; ++i) p[i] = v.lane[i];
}

}  // namespace
}  // namespace attend
