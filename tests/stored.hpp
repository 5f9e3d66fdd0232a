// Operands of the narrow types beside the same numbers in f32, by conversions written from the formats' definitions: sign,
// exponent and significand, in double, nothing of the library's.
#pragma once

#include "support.hpp"

namespace attend::test {

struct Format {
  uint32_t dtype;
  int exponent_bits, significand_bits;
  bool has_infinity;  // else only all ones is NaN, and what is too large becomes the largest
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
};
constexpr Format kFormats[] = {
    {ATTEND_BF16, 8, 7, true}, {ATTEND_F16, 5, 10, true}, {ATTEND_F8E4M3, 4, 3, false}, {ATTEND_F32, 8, 23, true}};

inline const Format &format_of(uint32_t dtype) {
  for (const Format &f : kFormats) {
    if (f.dtype == dtype) return f;
  }
  FAIL("no floating-point format");
  return kFormats[0];
}

inline double number_of(const Format &f, uint32_t bits) {
  const int sign = static_cast<int>(bits >> (f.exponent_bits + f.significand_bits) & 1u);
  const uint32_t steps = bits & ((1u << f.significand_bits) - 1u);
  const int exponent = static_cast<int>(bits >> f.significand_bits & ((1u << f.exponent_bits) - 1u));
  const int last = (1 << f.exponent_bits) - 1;
  double size = 0;
  if (exponent == last && (f.has_infinity || steps == (1u << f.significand_bits) - 1u)) {
    size = f.has_infinity && steps == 0 ? HUGE_VAL : std::nan("");
  } else if (exponent == 0) {
    size = std::ldexp(steps, 1 - f.bias() - f.significand_bits);
  } else {
    size = std::ldexp(steps + (1u << f.significand_bits), exponent - f.bias() - f.significand_bits);
  }
  return sign != 0 ? -size : size;
}

inline uint32_t nearest_bits(const Format &f, double v) {
  const int width = f.exponent_bits + f.significand_bits;
  const uint32_t sign = std::signbit(v) ? 1u << width : 0u, all = (1u << width) - 1u;
  const uint32_t infinity = ((1u << f.exponent_bits) - 1u) << f.significand_bits;
  if (std::isnan(v)) return sign | (f.has_infinity ? infinity | 1u << (f.significand_bits - 1) : all);
  const uint32_t too_large = f.has_infinity ? infinity : all - 1u;
  if (v == 0 || std::isinf(v)) return v == 0 ? sign : sign | too_large;
  int exponent = 0;
  std::frexp(v, &exponent);
  const int step = std::max(exponent - 1, 1 - f.bias()) - f.significand_bits;
  const double steps = std::nearbyint(std::ldexp(std::fabs(v), -step));
  // In steps of the smallest binade they count up through all numbers.
  const double bits = steps + std::ldexp(step + f.significand_bits + f.bias() - 1, f.significand_bits);
  return sign | (bits >= too_large ? too_large : static_cast<uint32_t>(bits));
}

// The same in f32, elementwise.
inline double number_in(uint32_t dtype, uint32_t bits) {
  if (dtype == ATTEND_I8) return static_cast<int8_t>(bits);
  if (dtype == ATTEND_U8) return static_cast<uint8_t>(bits);
  return number_of(format_of(dtype), bits);
}
inline uint32_t nearest_in(uint32_t dtype, double v) {
  if (dtype != ATTEND_I8 && dtype != ATTEND_U8) return nearest_bits(format_of(dtype), v);
  const double least = dtype == ATTEND_I8 ? -128 : 0, most = dtype == ATTEND_I8 ? 127 : 255;
  return static_cast<uint32_t>(static_cast<int32_t>(std::clamp(std::nearbyint(v), least, most))) & 0xffu;
}

inline uint32_t any_float(Random &random) { return random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16}); }

struct Product {
  int64_t m, n, k;
};

// `most` bounds the work. Thin products, packed ones, edges of tiles and blocks; `depths`: those of the chunks of k.
inline Product random_product(Random &random, int64_t most, std::initializer_list<int64_t> depths) {
  Product p;
  do {
    const auto extent = [&] {
      return random.one_in(3) ? random.in(1, 6)
                              : random.pick<int64_t>({7,  8,  9,  15,  16,  17,  31,  33,  47,  48, 49,
                                                      95, 96, 97, 128, 191, 193, 200, 383, 385, 390});
    };
    p = {extent(), extent(), random.one_in(4) ? random.pick<int64_t>(depths) : extent()};
  } while (p.m * p.n * p.k > most);
  return p;
}

// An operand of any of these types, or f32, and its numbers in f32 in the same layout.
class Stored {
 public:
  Stored(uint32_t dtype, const Shape &shape, const Operand<float>::Layout &layout)
      : numbers(shape, layout),
        dtype_(dtype),
        bytes_(shape, same<uint8_t>(layout)),
        halves_(shape, same<uint16_t>(layout)) {}

  Operand<float> numbers;

  uint32_t dtype() const { return dtype_; }
  // Draws, and rounds to the type.
  void fill(Random &random, double size = 1) {
    numbers.fill(random, size);
    round();
  }
  void fill_with(float value) {
    numbers.fill_with(value);
    round();
  }
  void round() {
    numbers.each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) {
      if (dtype_ == ATTEND_F32) return;
      const uint32_t bits = nearest_in(dtype_, static_cast<double>(x));
      set(bits, i, j, h, b);
      x = static_cast<float>(number_in(dtype_, bits));
    });
  }
  const attend_tensor *tensor() {
    if (dtype_ == ATTEND_F32) return numbers.tensor();
    tensor_ = width() == 1 ? *bytes_.tensor() : *halves_.tensor();
    tensor_.dtype = dtype_;
    return &tensor_;
  }
  uint32_t bits(int64_t i, int64_t j, int64_t h, int64_t b) {
    if (width() == 1) return bytes_.at(i, j, h, b);
    return halves_.at(i, j, h, b);
  }
  void copy_column(Stored &from, int64_t j, int64_t h, int64_t b) {
    for (int64_t i = 0; i < numbers.shape()[0]; ++i) {
      if (dtype_ == ATTEND_F32) {
        numbers.at(i, j, h, b) = from.numbers.at(i, j, h, b);
      } else {
        set(from.bits(i, j, h, b), i, j, h, b);
      }
    }
  }
  // Every byte, those between the elements too.
  bool same_memory(const Stored &other) const {
    return dtype_ == ATTEND_F32 ? numbers.same_memory(other.numbers)
           : width() == 1       ? bytes_.same_memory(other.bytes_)
                                : halves_.same_memory(other.halves_);
  }
  bool gaps_untouched() {
    return dtype_ == ATTEND_F32 ? numbers.gaps_untouched()
           : width() == 1       ? bytes_.gaps_untouched()
                                : halves_.gaps_untouched();
  }
  // Whether this holds `wanted`, the f32 call's results, rounded once. NaN is NaN.
  bool is_rounded(Operand<float> &wanted) {
    bool all = true;
    wanted.each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) {
      if (dtype_ == ATTEND_F32) {
        const float y = numbers.at(i, j, h, b);
        all = all && (std::isnan(x) ? std::isnan(y) : std::memcmp(&x, &y, sizeof x) == 0);
      } else if (std::isnan(x)) {
        all = all && std::isnan(number_in(dtype_, bits(i, j, h, b)));
      } else {
        all = all && nearest_in(dtype_, static_cast<double>(x)) == bits(i, j, h, b);
      }
    });
    return all;
  }

 private:
  template <class T>
  static typename Operand<T>::Layout same(const Operand<float>::Layout &l) {
    typename Operand<T>::Layout other;
    other.order = l.order, other.padding = l.padding, other.step = l.step, other.offset = l.offset, other.sign = l.sign;
    return other;
  }
  int width() const { return dtype_ == ATTEND_I8 || dtype_ == ATTEND_U8 || dtype_ == ATTEND_F8E4M3 ? 1 : 2; }
  void set(uint32_t bits, int64_t i, int64_t j, int64_t h, int64_t b) {
    if (width() == 1) {
      bytes_.at(i, j, h, b) = static_cast<uint8_t>(bits);
    } else {
      halves_.at(i, j, h, b) = static_cast<uint16_t>(bits);
    }
  }

  uint32_t dtype_;
  Operand<uint8_t> bytes_;
  Operand<uint16_t> halves_;
  attend_tensor tensor_ = {};
};

}  // namespace attend::test
