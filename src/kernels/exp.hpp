// exp and exp2 for arguments <= 0, as softmax needs them: exactly 1 at 0, exactly 0 where the result would not be normal,
// NaN for NaN. Of arguments that are not NaN, -inf among them, none raises an exception but inexact and underflow.
//
// Method: n = round(y), 2^y = 2^n * 2^(y - n), a polynomial for the second factor. The coefficients come from
// exp_coefficients.py (minimax on the relative error, rounded one by one); their own errors are
//
//     exp2 f32 degree 5   0.81 ulp (degree 6: 0.11)      exp2 f64 degree 11   0.53 ulp (degree 10: 3.9)
//     exp  f32 degree 6   0.03 ulp (degree 5: 2.3)       exp  f64 degree 12   0.02 ulp (degree 11: 0.33)
//
// With all roundings: exp f32 1.00 ulp (every float), exp f64 0.97, exp2 f32 1.99, exp2 f64 1.5 (tests/exp_test.cpp).
//
// exp2 serves attention, whose argument is a difference of scores times log2(e): its error of an ulp is below that of
// the scores. exp serves the standalone softmax: a reduction in two FMAs and the form 1 + (f + f^2 q(f)), which adds the
// large terms last.
//
// Below the cut the result is 0. A clamp instead would yield the smallest normal number, which turns subnormal when it is
// divided by the sum, and slow. For exp the cut is the argument of that number. For exp2 it is where n reaches the
// exponent of it, so that the bits of 2^(n - 1) are those of 0 there and nothing needs to be compared: the arguments
// between, whose results would be normal, lose less than twice the smallest normal number.
//
// Where an instruction set has masks (ATTEND_MASKED_EXP), what is below the cut is left out; elsewhere it is raised to
// the cut first. Rounding down, with a polynomial on [0, 1), was tried: y - floor(y) is not exact for -1/2 < y < 0, and
// AVX-512's vreduceps, for whose sake it would be done, rounds that difference down where a subtraction rounds to
// nearest, so that bits would differ between instruction sets.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr float kExp2Cut = -125.5f;  // rounds to -126: exp2 is 0 from here down
  static constexpr float kExp2[] = {0x1.5cbe5cp-10f, 0x1.3cf408p-7f, 0x1.c6b596p-5f, 0x1.ebf9a4p-3f, 0x1.62e42ap-1f};
  static constexpr float kExpCut = -0x1.5d589ep+6f;  // the least x whose exp is at least FLT_MIN
  static constexpr float kExpLeast = -88.0f;         // where n is -127
  // Added to n it leaves n + 127, the exponent of 2^n, in the low bits.
  static constexpr float kExponent = 12582912.0f + 127.0f;
  static constexpr float kExp[] = {0x1.6ac74cp-10f, 0x1.123de0p-7f, 0x1.555858p-5f, 0x1.55548cp-3f, 0x1.fffffcp-2f};
  static constexpr float kLog2E = 0x1.715476p+0f;
  static constexpr float kLn2 = 0x1.62e430p-1f;
  // ln 2 in two parts; the first has 15 bits, so that n times it is exact without an FMA too.
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
};

template <>
struct ExpConstants<double> {
  static constexpr double kExp2Cut = -1021.5;
  static constexpr double kExp2[] = {0x1.ee4162a045a7bp-32, 0x1.e64c7abd0a474p-28, 0x1.b5213fa5cc230p-24,
                                     0x1.62bfaf1107076p-20, 0x1.ffcbfe55a3dcep-17, 0x1.4309131727c1dp-13,
                                     0x1.5d87fe78457a2p-10, 0x1.3b2ab6fb9da52p-7,  0x1.c6b08d704a26fp-5,
                                     0x1.ebfbdff82c5b3p-3,  0x1.62e42fefa39efp-1};
  static constexpr double kExpCut = -0x1.6232bdd7abcd2p+9;
  static constexpr double kExpLeast = -709.0;
  static constexpr double kExponent = 6755399441055744.0 + 1023.0;
  static constexpr double kExp[] = {0x1.204045adce464p-29,
                                    0x1.af7546f90f436p-26,
                                    0x1.27e4498417cacp-22,
                                    0x1.71ddeab4cdc0bp-19,
                                    0x1.a01a01e8bbd2bp-16,
                                    0x1.a01a01b5ef403p-13,
                                    0x1.6c16c16c0a404p-10,
                                    0x1.111111110e54ep-7,
                                    0x1.555555555556cp-5,
                                    0x1.555555555555dp-3,
                                    0x1.0p-1};
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  // 32 bits, so that n (11 bits) times it is exact.
  static constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
};

// Horner's rule from the highest degree down for N vectors in step, all coefficients times `factor`, a power of two.
template <class T, int N, int M>
ATTEND_INLINE void polynomial(const vec<T> (&f)[N], vec<T> (&p)[N], const T (&coefficient)[M], T factor) {
  ATTEND_UNROLL
  for (int i = 0; i < N; ++i) p[i] = broadcast(factor * coefficient[0]);
#pragma GCC unroll 16
  for (int k = 1; k < M; ++k) {
    ATTEND_UNROLL
    for (int i = 0; i < N; ++i) p[i] = fma(p[i], f[i], broadcast(factor * coefficient[k]));
  }
}
template <class T, int M>
ATTEND_INLINE vec<T> polynomial(vec<T> f, const T (&coefficient)[M], T factor = T(1)) {
  const vec<T> one[] = {f};
  vec<T> p[1];
  polynomial(one, p, coefficient, factor);
  return p[0];
}

template <class T>
ATTEND_INLINE vec<T> exp2_nonpositive(vec<T> y) {
  using C = ExpConstants<T>;
#ifdef ATTEND_MASKED_EXP
  const auto live = is_not_at_most(y, C::kExp2Cut);
  const vec<T> n = round(y), f = subtract_where(live, y, n);
  return scale_where(live, fma(polynomial(f, C::kExp2), f, broadcast(T(1))), n);
#else
  const vec<T> bounded = maximum(broadcast(C::kExp2Cut), y), n = round(bounded), f = bounded - n;
  const vec<T> twice = fma(polynomial(f, C::kExp2, T(2)), f, broadcast(T(2)));
  return twice * with_exponent(n + broadcast(C::kExponent - T(1)));
#endif
}

// exp of N vectors, step by step for all of them: each is one chain of dependent operations, and the schedulers of a core
// do not see far enough ahead to find the next one by themselves.
template <class T, int N>
ATTEND_INLINE void exp_nonpositive(vec<T> (&x)[N]) {
  using C = ExpConstants<T>;
#define ATTEND_EACH \
  ATTEND_UNROLL     \
  for (int i = 0; i < N; ++i)
  vec<T> n[N], f[N], p[N];
#ifdef ATTEND_MASKED_EXP
  decltype(is_not_below(x[0], C::kExpCut)) live[N];
  ATTEND_EACH live[i] = is_not_below(x[i], C::kExpCut);
  ATTEND_EACH n[i] = multiply_where(live[i], x[i], broadcast(C::kLog2E));
  ATTEND_EACH n[i] = round(n[i]);
  ATTEND_EACH f[i] = fma_where(live[i], n[i], broadcast(-C::kLn2High), x[i]);
#else
  ATTEND_EACH f[i] = maximum(broadcast(C::kExpLeast), x[i]);
  ATTEND_EACH n[i] = f[i] * broadcast(C::kLog2E);
  ATTEND_EACH n[i] = round(n[i]);
  ATTEND_EACH f[i] = fma(n[i], broadcast(-C::kLn2High), f[i]);
#endif
  ATTEND_EACH f[i] = fma(n[i], broadcast(-C::kLn2Low), f[i]);
  polynomial(f, p, C::kExp, T(1));
  ATTEND_EACH p[i] = fma(p[i], f[i] * f[i], f[i]);
  ATTEND_EACH p[i] = p[i] + broadcast(T(1));
#ifdef ATTEND_MASKED_EXP
  ATTEND_EACH x[i] = scale_where(live[i], p[i], n[i]);
#else
  ATTEND_EACH n[i] = with_exponent(n[i] + broadcast(C::kExponent));
  ATTEND_EACH p[i] = p[i] * n[i];
  ATTEND_EACH x[i] = zero_below(p[i], x[i], broadcast(C::kExpCut));
#endif
#undef ATTEND_EACH
}

template <class T>
ATTEND_INLINE vec<T> exp_nonpositive(vec<T> x) {
  vec<T> one[] = {x};
  exp_nonpositive(one);
  return one[0];
}

}  // namespace
}  // namespace attend
