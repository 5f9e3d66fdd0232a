// The accuracy of the exponentials, measured on the scalar instantiation: all FMA tables have its bits (bits_test.cpp).
#include "odd_tiles.hpp"
#include "support.hpp"

using namespace attend;

namespace {

template <class T>
T apply(vec<T> (*f)(vec<T>), T x) {
  return f(broadcast(x)).lane[0];
}

// Error in units in the last place of the exact result.
template <class T>
double ulps(T got, long double want) {
  int exponent = 0;
  std::frexp(want, &exponent);
  return static_cast<double>(std::fabs(static_cast<long double>(got) - want) /
                             std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits));
}

// The largest error over every `step`-th float of [lowest, -0].
template <class Exact>
double worst_float(vec<float> (*f)(vec<float>), float lowest, uint32_t step, const Exact &exact) {
  uint32_t end;
  std::memcpy(&end, &lowest, sizeof end);
  double worst = 0;
  for (uint32_t bits = 0x80000000u; bits <= end; bits += step) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    worst = std::max(worst, ulps(apply(f, x), exact(x)));
  }
  return worst;
}

template <class Exact>
double worst_double(vec<double> (*f)(vec<double>), double lowest, const Exact &exact) {
  test::Random random(71);
  double worst = 0;
  for (int i = 0; i < 400000; ++i) {
    const double u = static_cast<double>(random.in(0, INT64_C(1) << 52)) / 4503599627370496.0;
    // Spread evenly, gathered at 0, and beside the edges of the reduction, half-way between two n.
    double x = lowest * u;
    if (i % 3 == 1) x = -std::exp(-30 * u);
    if (i % 3 == 2) x = std::round(x) + 0.5 - 1e-13 * static_cast<double>(random.in(-5, 5));
    if (x < lowest || x > 0) continue;
    worst = std::max(worst, ulps(apply(f, x), exact(x)));
  }
  return worst;
}

// f is exactly 0 from just below `lowest` on, whatever the bits: a sample of all floats down to -inf.
bool zero_below(vec<float> (*f)(vec<float>), float lowest) {
  uint32_t bits;
  std::memcpy(&bits, &lowest, sizeof bits);
  bool zero = true;
  for (++bits; bits <= 0xff800000u; bits += 997) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    const float y = apply(f, x);
    zero &= y == 0 && !std::signbit(y);
  }
  return zero;
}

// ATTEND_TEST_LONG takes every float.
uint32_t step_of(uint32_t usual) { return std::getenv("ATTEND_TEST_LONG") != nullptr ? 1 : usual; }

constexpr float kLowestFloat = -87.33654022216796875f;  // the least whose exp is normal
constexpr double kLowestDouble = -708.39641853226407875;

}  // namespace

TEST_CASE("exp f32: 1.1 ulp on [ln FLT_MIN, 0], 0 below") {
  const uint32_t step = step_of(97);
  const double worst = worst_float(exp_nonpositive<float>, kLowestFloat, step,
                                   [](float x) { return std::exp(static_cast<long double>(x)); });
  MESSAGE("largest error " << worst << " ulp, one float in " << step);
  CHECK(worst <= 1.1);
  CHECK(apply(exp_nonpositive<float>, kLowestFloat) >= std::numeric_limits<float>::min());
  CHECK(zero_below(exp_nonpositive<float>, kLowestFloat));
}

// exp.hpp states 1.99, of which 0.81 is the polynomial's.
TEST_CASE("exp2 f32: 2 ulp above -125.5, 0 from there down") {
  const uint32_t step = step_of(397);
  const float least = std::nextafter(-125.5f, 0.0f);
  const double worst =
      worst_float(exp2_nonpositive<float>, least, step, [](float x) { return std::exp2(static_cast<long double>(x)); });
  MESSAGE("largest error " << worst << " ulp, one float in " << step);
  CHECK(worst <= 2);
  CHECK(apply(exp2_nonpositive<float>, least) >= std::numeric_limits<float>::min());
  CHECK(zero_below(exp2_nonpositive<float>, least));
}

TEST_CASE("exp and exp2 f64: 1.0 and 1.6 ulp on a dense sample, 0 below") {
  const double exp = worst_double(exp_nonpositive<double>, kLowestDouble,
                                  [](double x) { return std::exp(static_cast<long double>(x)); });
  const double exp2 =
      worst_double(exp2_nonpositive<double>, -1021.4, [](double x) { return std::exp2(static_cast<long double>(x)); });
  MESSAGE("largest errors " << exp << " and " << exp2 << " ulp");
  CHECK(exp <= 1.0);
  CHECK(exp2 <= 1.6);
  CHECK(apply(exp_nonpositive<double>, kLowestDouble) >= std::numeric_limits<double>::min());
  CHECK(apply(exp2_nonpositive<double>, std::nextafter(-1021.5, 0)) >= std::numeric_limits<double>::min());
  for (const double factor : {1 + 1e-15, 1.001, 1.5, 2.0, 100.0, 1e10, 1e300}) {
    CHECK(apply(exp_nonpositive<double>, kLowestDouble * factor) == 0);
    CHECK(apply(exp2_nonpositive<double>, -1022.0 * factor) == 0);
  }
}

TEST_CASE_TEMPLATE("exp, exp2: exact at 0, 0 far below, NaN for NaN", T, float, double) {
  for (vec<T> (*f)(vec<T>) :
       {static_cast<vec<T> (*)(vec<T>)>(exp_nonpositive<T>), static_cast<vec<T> (*)(vec<T>)>(exp2_nonpositive<T>)}) {
    CHECK(apply(f, T(0)) == 1);
    CHECK(apply(f, T(-2000)) == 0);
    CHECK(apply(f, std::numeric_limits<T>::lowest()) == 0);
    CHECK(apply(f, -std::numeric_limits<T>::infinity()) == 0);
    CHECK(std::isnan(apply(f, std::numeric_limits<T>::quiet_NaN())));
  }
}
