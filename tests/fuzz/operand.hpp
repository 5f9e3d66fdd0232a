// What a call is made of, decoded from the fuzzer's bytes: tensors in memory of exactly the bytes that they span, and
// options in memory of exactly their size, so that the address sanitizer sees every stray access.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "attend/attend.h"
#include "reference/reference.hpp"

namespace attend::fuzz {

using Shape = std::array<int64_t, 4>;
using Bytes = std::vector<unsigned char>;
template <class T>
using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;
template <class T>
constexpr double kUnit = std::numeric_limits<T>::epsilon() / 2;

[[noreturn]] inline void fail(const std::string &what) {
  std::fprintf(stderr, "attend: %s\n", what.c_str());
  std::abort();  // libFuzzer keeps the input
}
inline void require(bool holds, const std::string &what) {
  if (!holds) fail(what);
}

// The fuzzer's bytes as choices. When they have run out every choice is its first, so first choices are the plain ones.
class Decoder {
 public:
  Decoder(const uint8_t *data, size_t size) : bytes_(data, size) {}
  int64_t in(int64_t low, int64_t high) { return bytes_.ConsumeIntegralInRange<int64_t>(low, high); }
  bool one_in(int64_t n) { return in(0, n - 1) == n - 1; }
  int64_t any() { return bytes_.ConsumeIntegral<int64_t>(); }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[in(0, static_cast<int64_t>(choices.size()) - 1)];
  }
  // Small, one beside a tile, or nothing.
  int64_t extent() {
    const int64_t kind = in(0, 15);
    if (kind < 8) return in(1, 9);
    if (kind < 13) return in(1, 40);
    return kind < 15 ? pick<int64_t>({12, 13, 15, 16, 17, 24, 25, 31, 32, 33, 48, 49, 63, 64, 65, 96, 97}) : in(0, 1);
  }

 private:
  FuzzedDataProvider bytes_;
};

// The contents of operands are drawn by a generator that the fuzzer seeds: its bytes go to what has structure.
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ >> 11;
  }
  int64_t in(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % static_cast<uint64_t>(high - low + 1));
  }

 private:
  uint64_t state_;
};

struct Allocation {
  std::unique_ptr<unsigned char[]> memory;
  Bytes before, written;  // written: not 0 where an output has elements
  explicit Allocation(size_t bytes) : memory(new unsigned char[bytes]), before(bytes) {}
  void keep() { std::copy_n(memory.get(), before.size(), before.begin()); }
  void restore() { std::copy(before.begin(), before.end(), memory.get()); }
};

// Shape and strides of rank 4, what they span, counted without overflow (in long double, exact up to 2^64).
struct Extent {
  Shape shape = {1, 1, 1, 1}, stride = {};
  bool negative = false, empty = false;
  long double low = 0, high = 0, count = 1;

  explicit Extent(const attend_tensor &t) {
    for (uint32_t i = 0; i < t.rank && i < 4; ++i) {
      shape[i] = t.shape[i];
      stride[i] = t.shape[i] == 1 ? 0 : t.stride[i];
      negative |= t.shape[i] < 0;
      empty |= t.shape[i] == 0;
      count *= static_cast<long double>(t.shape[i]);
      const long double reach =
          static_cast<long double>(t.shape[i] - (t.shape[i] > 0)) * static_cast<long double>(stride[i]);
      (reach < 0 ? low : high) += reach;
    }
  }
  long double span() const { return high - low + 1; }
};

enum class Role { input, output, both };

constexpr int64_t size_of(uint32_t dtype) {
  if (dtype == ATTEND_F64) return 8;
  return dtype == ATTEND_F32 || dtype == ATTEND_I32 ? 4 : dtype == ATTEND_BF16 || dtype == ATTEND_F16 ? 2 : 1;
}

struct Operand {
  std::string name;
  Role role;
  bool is_mask, required;
  attend_tensor view;
  bool given = true, aliased = false, has_data = true;
  std::shared_ptr<Allocation> allocation;
  bool backed = false;  // the allocation holds every element, and they are few enough to compute with

  Operand(std::string its_name, Role its_role, uint32_t dtype, bool is_required)
      : name(std::move(its_name)), role(its_role), is_mask(dtype == ATTEND_BOOL), required(is_required), view{} {
    view.dtype = dtype;
  }

  bool is_narrow() const { return view.dtype >= ATTEND_BF16 && view.dtype != ATTEND_BOOL; }
  bool holds_nan(const unsigned char *at) const {
    switch (view.dtype) {
      case ATTEND_F32:
        return std::isnan(get<float>(at));
      case ATTEND_F64:
        return std::isnan(get<double>(at));
      case ATTEND_BF16:
        return (get<uint16_t>(at) & 0x7fff) > 0x7f80;
      case ATTEND_F16:
        return (get<uint16_t>(at) & 0x7fff) > 0x7c00;
      default:
        return false;
    }
  }
  const attend_tensor *tensor() const { return given ? &view : nullptr; }
  bool writes() const { return role != Role::input; }
  // What the formulas look at.
  bool present() const { return given && backed; }

  // Any layout that attend.h allows: permuted, padded, turned round; for inputs with repeated or interleaved elements.
  void lay_out(Decoder &d, const Shape &shape) {
    std::copy(shape.begin(), shape.end(), view.shape);
    const int64_t kind = d.in(0, 15);
    std::array<size_t, 4> order = {0, 1, 2, 3};
    int64_t reach = 1, padding = 0;
    if (kind >= 4) {
      if (d.in(0, 1) != 0) std::swap(order[0], order[1]);
      if (d.one_in(3)) std::swap(order[1], order[2]);
      if (d.one_in(3)) std::swap(order[2], order[3]);
      if (d.one_in(4)) reach = d.in(1, 3);
      padding = d.pick<int64_t>({0, 1, 3, 17});
    }
    for (size_t i = 0; i < 4; ++i) {
      const size_t n = order[i];
      int64_t sign = 1;
      if (kind >= 8) sign = d.one_in(5) ? -1 : role == Role::input && d.one_in(8) ? 0 : 1;
      view.stride[n] = sign * reach;
      if (sign != 0) reach *= std::max<int64_t>(1, shape[n]);
      if (i == 0) reach += padding;
      // Columns that share cache sets take ways of their own.
      if (i == 0 && kind == 15) reach = (d.in(1, 2) * 2048 + d.in(-1, 1) * 64) / size_of(view.dtype);
    }
    if (kind == 14 && role == Role::input) {
      for (int64_t &stride : view.stride) stride = d.in(-4, 60);
    }
    view.rank = 4;
    // Entries beyond the rank are not looked at.
    while (view.rank > 1 && view.shape[view.rank - 1] == 1 && d.in(0, 1) == 0) {
      --view.rank;
      view.shape[view.rank] = -77;
      view.stride[view.rank] = INT64_MIN;
    }
  }

  void allocate(Decoder &d) {
    constexpr long double kMostBytes = 1 << 22, kMostElements = 1 << 19;
    const Extent e(view);
    const int64_t element = size_of(view.dtype);
    const bool sane = view.rank >= 1 && view.rank <= 4 && !e.negative;
    backed =
        sane && (e.empty || (e.span() * static_cast<long double>(element) <= kMostBytes && e.count <= kMostElements));
    backed &= has_data || e.empty;
    const bool spans = backed && !e.empty;
    // Alignments within a vector differ; what lies before the first element must not be written either.
    const int64_t shift = d.one_in(3) ? d.in(0, 15) : 0;
    const int64_t elements = spans ? static_cast<int64_t>(e.span()) + shift : 0;
    allocation = std::make_shared<Allocation>(static_cast<size_t>(elements * element));
    view.data = allocation->memory.get();
    if (spans) view.data = allocation->memory.get() + (shift - static_cast<int64_t>(e.low)) * element;
    if (!has_data || (e.empty && d.in(0, 1) != 0)) view.data = nullptr;
  }

  // f(address, i, j, h, b)
  template <class F>
  void each(const F &f) const {
    const Extent e(view);
    if (e.empty) return;
    const int64_t element = size_of(view.dtype);
    for (int64_t b = 0; b < e.shape[3]; ++b)
      for (int64_t h = 0; h < e.shape[2]; ++h)
        for (int64_t j = 0; j < e.shape[1]; ++j)
          for (int64_t i = 0; i < e.shape[0]; ++i) {
            const int64_t at = i * e.stride[0] + j * e.stride[1] + h * e.stride[2] + b * e.stride[3];
            f(static_cast<unsigned char *>(view.data) + at * element, i, j, h, b);
          }
  }

  // Moderate numbers, whose rounding the oracle can bound, and now and then special ones. Outputs keep the noise.
  void fill(Decoder &d, bool extremes) {
    const int64_t style = d.in(0, 7), special = d.one_in(4) ? d.in(1, 40) : 0;
    Noise noise(static_cast<uint64_t>(d.in(0, 65535)));
    for (size_t i = 0; i < allocation->before.size() && !aliased; ++i)
      allocation->memory[i] = static_cast<unsigned char>(noise.next());
    if (!backed || view.data == nullptr || role == Role::output) return;
    if (is_mask) {
      each([&](unsigned char *at, auto...) {
        *at = noise.in(0, 7) <= style ? static_cast<unsigned char>(noise.in(1, 255)) : 0;
      });
    } else if (view.dtype == ATTEND_I32) {  // now and then beyond what 8 bits hold
      each([&](unsigned char *at, auto...) { put(at, static_cast<int32_t>(noise.in(special != 0 ? -1 : 0, 127))); });
    } else if (view.dtype == ATTEND_F32) {
      each([&](unsigned char *at, auto...) { put(at, value<float>(noise, style, special, extremes)); });
    } else if (view.dtype == ATTEND_F64) {
      each([&](unsigned char *at, auto...) { put(at, value<double>(noise, style, special, extremes)); });
    }
  }

  template <class T>
  static void put(unsigned char *at, T value) {
    std::memcpy(at, &value, sizeof value);
  }
  template <class T>
  static T get(const unsigned char *at) {
    T value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }

 private:
  template <class T>
  static T value(Noise &noise, int64_t style, int64_t special, bool extremes) {
    using Limits = std::numeric_limits<T>;
    if (special != 0 && noise.in(0, special * special) == 0) {
      const T choices[] = {Limits::infinity(),   -Limits::infinity(), Limits::quiet_NaN(), T(0), -T(0),
                           Limits::denorm_min(), Limits::min(),       Limits::max()};
      return choices[noise.in(0, extremes ? 7 : 4)];
    }
    if (style == 1) return static_cast<T>(noise.in(-8, 8));
    if (style == 2) return T(1);
    if (style == 3) return static_cast<T>(std::ldexp(static_cast<double>(noise.in(-99, 99)), -8));
    return static_cast<T>(static_cast<double>(noise.in(-1000000, 1000000)) / 400000);
  }
};

// A dense copy in the oracle's type.
template <class T>
struct WideCopy : reference::Buffer<Wide<T>> {
  bool finite = true;
  double largest = 0;  // of the finite ones

  explicit WideCopy(const Operand &from, bool absolute = false) : WideCopy(from, Extent(from.view).shape, absolute) {}

 private:
  WideCopy(const Operand &from, const Shape &shape, bool absolute)
      : reference::Buffer<Wide<T>>(shape[0], shape[1], shape[2], shape[3]) {
    from.each([&](const unsigned char *at, int64_t i, int64_t j, int64_t h, int64_t b) {
      const Wide<T> x = Operand::get<T>(at);
      *this->view.address(i, j, h, b) = absolute ? std::fabs(x) : x;
      if (!std::isfinite(x)) {
        finite = false;
      } else {
        largest = std::max(largest, static_cast<double>(std::fabs(x)));
      }
    });
  }
};

// Options of any version, or none. `value` is edited, seal() makes what is passed.
template <class Options>
struct Boxed {
  Options value = {};
  bool given = true;
  Bytes tail;
  std::unique_ptr<unsigned char[]> sealed;

  Boxed() { value.size = sizeof value; }
  void seal() {
    if (value.size >= sizeof value) value.size = static_cast<uint32_t>(sizeof value + tail.size());
    sealed.reset(new unsigned char[std::max<size_t>(value.size, sizeof value.size)]);
    std::memcpy(sealed.get(), &value, std::clamp<size_t>(value.size, sizeof value.size, sizeof value));
    if (value.size > sizeof value) std::copy(tail.begin(), tail.end(), sealed.get() + sizeof value);
  }
  const Options *pointer() const { return given ? reinterpret_cast<const Options *>(sealed.get()) : nullptr; }
};

}  // namespace attend::fuzz
