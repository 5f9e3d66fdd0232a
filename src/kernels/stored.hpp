// Elements as they are stored, and as arithmetic has them: widened exactly to f32, rounded once, to nearest even, from
// it. Scalars in integer arithmetic, so that neither flags nor modes of the floating-point unit take part; the backends
// have the same a vector at a time where the instruction set helps.
#pragma once

#include "kernels/table.hpp"

namespace attend {
namespace {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};
struct f8e4m3 {
  uint8_t bits;
};

ATTEND_SHARED float float_of(uint32_t bits) {
  float v = 0;
  __builtin_memcpy(&v, &bits, sizeof v);
  return v;
}
ATTEND_SHARED uint32_t bits_of(float v) {
  uint32_t bits = 0;
  __builtin_memcpy(&bits, &v, sizeof bits);
  return bits;
}

ATTEND_SHARED float widened(float v) { return v; }
ATTEND_SHARED double widened(double v) { return v; }
ATTEND_SHARED float widened(bf16 v) { return float_of(static_cast<uint32_t>(v.bits) << 16); }
ATTEND_SHARED float widened(int8_t v) { return static_cast<float>(v); }
ATTEND_SHARED float widened(uint8_t v) { return static_cast<float>(v); }

// Below the normal numbers the significand counts steps of `least`: an exact product of f32's normal numbers. (Through a
// subnormal f32 it would be 80 times slower, and 0 where the caller flushes these.)
ATTEND_SHARED float widened(f16 v) {
  const uint32_t sign = (v.bits & 0x8000u) << 16, size = v.bits & 0x7fffu;
  if (size < 0x400u) return float_of(sign | bits_of(static_cast<float>(size) * 0x1p-24f));
  const uint32_t rebias = size >= 0x7c00u ? 2 * 112u : 112u;  // infinities and NaN keep the largest exponent
  return float_of(sign | ((size << 13) + (rebias << 23)));
}
ATTEND_SHARED float widened(f8e4m3 v) {
  const uint32_t sign = (v.bits & 0x80u) << 24, size = v.bits & 0x7fu;
  if (size < 0x8u) return float_of(sign | bits_of(static_cast<float>(size) * 0x1p-9f));
  return float_of(sign | (size == 0x7fu ? 0x7fc00000u : (size << 20) + (120u << 23)));
}

// A magnitude's bits with `dropped` of them rounded away, to nearest even.
ATTEND_SHARED uint32_t rounded_bits(uint32_t size, uint32_t dropped) {
  return (size + ((1u << (dropped - 1)) - 1u) + ((size >> dropped) & 1u)) >> dropped;
}
// The same of a magnitude in steps of 2^least, which are more than its own: the significand shifted.
ATTEND_SHARED uint32_t rounded_steps(uint32_t size, int least) {
  const int dropped = least + 150 - static_cast<int>(size >> 23);
  return dropped > 24 ? 0u : rounded_bits((size & 0x7fffffu) | 0x800000u, static_cast<uint32_t>(dropped));
}

ATTEND_SHARED void narrow(float v, float *to) { *to = v; }
ATTEND_SHARED void narrow(double v, double *to) { *to = v; }
ATTEND_SHARED void narrow(float v, bf16 *to) {
  const uint32_t bits = bits_of(v);
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to->bits = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40u : rounded_bits(bits, 16));
}
ATTEND_SHARED void narrow(float v, f16 *to) {
  const uint32_t sign = bits_of(v) >> 16 & 0x8000u, size = bits_of(v) & 0x7fffffffu;
  uint32_t r = 0;
  if (size > 0x7f800000u) {
    r = 0x7e00u;
  } else if (size >= 0x477ff000u) {  // 65520
    r = 0x7c00u;
  } else if (size < 0x38800000u) {  // 2^-14
    r = rounded_steps(size, -24);
  } else {
    r = rounded_bits(size - (112u << 23), 13);
  }
  to->bits = static_cast<uint16_t>(sign | r);
}
// Beyond the largest, 448, all becomes that, infinities too.
ATTEND_SHARED void narrow(float v, f8e4m3 *to) {
  const uint32_t sign = bits_of(v) >> 24 & 0x80u, size = bits_of(v) & 0x7fffffffu;
  uint32_t r = 0;
  if (size > 0x7f800000u) {
    r = 0x7fu;
  } else if (size >= 0x43e00000u) {  // 448
    r = 0x7eu;
  } else if (size < 0x3c800000u) {  // 2^-6
    r = rounded_steps(size, -9);
  } else {
    r = rounded_bits(size - (120u << 23), 20);
  }
  to->bits = static_cast<uint8_t>(sign | r);
}

// Integers: to nearest even, then the nearest there is; NaN becomes 0. (A sum with 1.5 * 2^23 rounds to the units as all
// sums are rounded.)
ATTEND_SHARED int32_t rounded_integer(float v, float least, float most) {
  if (v != v) return 0;
  v = v < least ? least : v > most ? most : v;
  const float kUnits = 0x1.8p23f;
  return static_cast<int32_t>(bits_of(v + kUnits) - bits_of(kUnits));
}
ATTEND_SHARED void narrow(float v, int8_t *to) { *to = static_cast<int8_t>(rounded_integer(v, -128, 127)); }
ATTEND_SHARED void narrow(float v, uint8_t *to) { *to = static_cast<uint8_t>(rounded_integer(v, 0, 255)); }

// f(S()) for the type S that these elements have. Not more types than an operand can have: each is code.
template <class T, class F>
ATTEND_SHARED void with_float(Dtype type, const F &f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (type == Dtype::bf16) return f(bf16());
    if (type == Dtype::f16) return f(f16());
  }
  f(T());
}
template <class T, class F>
ATTEND_SHARED void with_factor(Dtype type, const F &f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (type == Dtype::i8) return f(int8_t());
  }
  with_float<T>(type, f);
}
template <class T, class F>
ATTEND_SHARED void with_key_or_value(Dtype type, const F &f) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (type == Dtype::f8e4m3) return f(f8e4m3());
  }
  with_factor<T>(type, f);
}

}  // namespace
}  // namespace attend
