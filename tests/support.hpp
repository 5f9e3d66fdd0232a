// What the numerical tests share: seeds, the loop over instruction sets, and strided operands that notice stray writes.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "attend/attend.h"
#include "reference/reference.hpp"

// Sanitizers make frames larger and loops slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ATTEND_TEST_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ATTEND_TEST_SANITIZED
#endif
#endif

namespace attend::test {

using Shape = std::array<int64_t, 4>;

// Fresh inputs at every run; ATTEND_TEST_SEED repeats one.
inline unsigned run_seed() {
  static const unsigned seed = [] {
    const char *given = std::getenv("ATTEND_TEST_SEED");
    const unsigned s =
        given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device()();
    MESSAGE("ATTEND_TEST_SEED=" << s);
    return s;
  }();
  return seed;
}

// Rounds of a random test: fewer under sanitizers, `longer` with ATTEND_TEST_LONG.
inline int rounds(int usual, int longer) {
#if defined(ATTEND_TEST_SANITIZED)
  usual = std::max(2, usual / 6);
#endif
  return std::getenv("ATTEND_TEST_LONG") != nullptr ? longer : usual;
}

class Random {
 public:
  explicit Random(unsigned stream) : engine_(run_seed() + 7919 * stream) {}
  int64_t in(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool one_in(int64_t n) { return in(1, n) == 1; }
  double normal() { return normal_(engine_); }
  template <class T>
  T pick(std::initializer_list<T> choices) {
    return choices.begin()[in(0, static_cast<int64_t>(choices.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

// Whether products and sums are fused on it, so that its bits are those of all others of which that is true.
inline bool fuses([[maybe_unused]] const std::string &isa) {
#ifdef __ARM_FEATURE_FMA  // src/kernels/simd_generic.hpp
  return true;
#else
  return isa != "generic" && isa != "sse42";
#endif
}

// Runs f once for every instruction set of this CPU and names it when a check inside fails.
template <class F>
void for_each_isa(const F &f) {
  for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) {
    REQUIRE(attend_set_isa(name) == ATTEND_OK);
    INFO("isa " << std::string(name));
    f();
  }
  attend_set_isa(nullptr);
}

template <class T>
constexpr uint32_t kDtype = sizeof(T) == 4 ? ATTEND_F32 : ATTEND_F64;
// Unit roundoff, and a type in which errors of T are far above rounding.
template <class T>
constexpr double kUnit = std::numeric_limits<T>::epsilon() / 2;
template <class T>
using Wide = std::conditional_t<sizeof(T) == 4, double, long double>;

inline bool ok(attend_status status) {
  INFO(std::string(attend_status_argument(status)) << ": " << std::string(attend_status_string(status)));
  CHECK(status == ATTEND_OK);
  return status == ATTEND_OK;
}

template <class Options>
Options options_with(int32_t threads) {
  Options options = {};
  options.size = sizeof options;
  options.threads = threads;
  return options;
}

// Memory that begins at a cache line, so that a layout decides how its elements are aligned.
template <class T>
struct LineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kLine{64};
  T *allocate(size_t count) { return static_cast<T *>(::operator new(count * sizeof(T), kLine)); }
  void deallocate(T *memory, size_t) { ::operator delete(memory, kLine); }
  bool operator==(const LineAllocator &) const { return true; }
  bool operator!=(const LineAllocator &) const { return false; }
};

// A tensor in memory of its own, with gaps between its elements and guards around them.
template <class T>
class Operand {
 public:
  // `order` lists the dimensions from the one contiguous in memory outwards; `padding` elements follow each run of the
  // first, `sign` -1 turns the dimension round, 0 repeats the same elements (a stride of 0: inputs only).
  struct Layout {
    std::array<size_t, 4> order = {0, 1, 2, 3};
    int64_t padding = 0, step = 1, offset = 0;
    Shape sign = {1, 1, 1, 1};
  };

  Operand(const Shape &shape, const Layout &layout) : shape_(shape) {
    int64_t reach = layout.step;
    int64_t first = kGuard + layout.offset;
    for (size_t i = 0; i < 4; ++i) {
      const size_t d = layout.order[i];
      stride_[d] = reach * layout.sign[d];
      if (stride_[d] < 0) first += reach * std::max<int64_t>(0, shape[d] - 1);
      if (layout.sign[d] != 0) reach *= std::max<int64_t>(1, shape[d]);
      if (i == 0) reach += layout.padding;
    }
    memory_.assign(static_cast<size_t>(reach + 2 * kGuard + layout.offset), poison());
    first_ = first;
  }
  static Layout random_layout(Random &random) {
    Layout l;
    if (random.one_in(2)) std::swap(l.order[0], l.order[1]);
    if (random.one_in(4)) std::swap(l.order[1], l.order[2]);
    if (random.one_in(6)) std::swap(l.order[2], l.order[3]);
    if (random.one_in(6)) l.step = random.in(2, 3);
    l.padding = random.pick<int64_t>({0, 0, 1, 17});
    l.offset = random.in(0, 15);
    for (int64_t &sign : l.sign) sign = random.one_in(8) ? -1 : 1;
    return l;
  }
  // Now and then a dimension from `first` on that repeats its elements.
  static Layout random_input_layout(Random &random, size_t first = 0) {
    Layout l = random_layout(random);
    for (size_t d = first; d < 4; ++d) {
      if (random.one_in(16)) l.sign[d] = 0;
    }
    return l;
  }

  const Shape &shape() const { return shape_; }
  T &at(int64_t i, int64_t j, int64_t h = 0, int64_t b = 0) {
    return memory_[static_cast<size_t>(first_ + i * stride_[0] + j * stride_[1] + h * stride_[2] + b * stride_[3])];
  }
  T view_at(int64_t i, int64_t j, int64_t h, int64_t b) const { return const_cast<Operand *>(this)->at(i, j, h, b); }
  // f(element, i, j, h, b)
  template <class F>
  void each(const F &f) {
    for (int64_t b = 0; b < shape_[3]; ++b)
      for (int64_t h = 0; h < shape_[2]; ++h)
        for (int64_t j = 0; j < shape_[1]; ++j)
          for (int64_t i = 0; i < shape_[0]; ++i) f(at(i, j, h, b), i, j, h, b);
  }
  void fill(Random &random, double size = 1) {
    each([&](T &x, auto...) { x = static_cast<T>(size * random.normal()); });
  }
  void fill_with(T value) {
    each([&](T &x, auto...) { x = value; });
  }
  // Drawn like fill, but exact in sums: integers in -8..8.
  void fill_integers(Random &random) {
    each([&](T &x, auto...) { x = static_cast<T>(random.in(-8, 8)); });
  }

  const attend_tensor *tensor() {
    tensor_ = {memory_.data() + first_, kDtype<T>, 4, {}, {}};
    std::copy(shape_.begin(), shape_.end(), tensor_.shape);
    std::copy(stride_.begin(), stride_.end(), tensor_.stride);
    return &tensor_;
  }
  reference::View<T> view() { return {memory_.data() + first_, shape_, stride_}; }

  // The same values in another layout.
  Operand in(const Layout &layout) {
    Operand other(shape_, layout);
    other.each([this](T &x, int64_t i, int64_t j, int64_t h, int64_t b) { x = at(i, j, h, b); });
    return other;
  }

  // Every byte, those between the elements too.
  bool same_memory(const Operand &other) const {
    return memory_.size() == other.memory_.size() &&
           std::memcmp(memory_.data(), other.memory_.data(), memory_.size() * sizeof(T)) == 0;
  }
  // Everything that is no element still holds the poison.
  bool gaps_untouched() {
    auto rest = memory_;
    each([&](T &x, auto...) { rest[static_cast<size_t>(&x - memory_.data())] = poison(); });
    const T p = poison();
    return std::all_of(rest.begin(), rest.end(), [&](const T &x) { return std::memcmp(&x, &p, sizeof p) == 0; });
  }
  // The values, in the order of each().
  std::vector<T> values() {
    std::vector<T> v;
    each([&](T &x, auto...) { v.push_back(x); });
    return v;
  }

 private:
  static constexpr int64_t kGuard = 64;
  // A NaN with a payload: read by mistake it spreads, overwritten by mistake it is missed.
  static T poison() {
    T p;
    if constexpr (sizeof(T) == 4) {
      const uint32_t bits = 0x7fc0a77eu;
      std::memcpy(&p, &bits, sizeof p);
    } else {
      const uint64_t bits = 0x7ff8a77ea77ea77eull;
      std::memcpy(&p, &bits, sizeof p);
    }
    return p;
  }

  Shape shape_, stride_ = {};
  std::vector<T, LineAllocator<T>> memory_;
  int64_t first_ = 0;
  attend_tensor tensor_ = {};
};

template <class T>
Operand<T> drawn(const Shape &shape, unsigned stream, double size = 1) {
  Random random(stream);
  Operand<T> o(shape, {});
  o.fill(random, size);
  return o;
}

// Columns of an operand, of one head and batch.
template <class T>
attend_tensor columns_of(Operand<T> &o, int64_t first, int64_t count, int64_t head = 0, int64_t batch = 0) {
  attend_tensor t = *o.tensor();
  t.data = &o.at(0, first, head, batch);
  t.rank = 2;
  t.shape[1] = count;
  return t;
}

// `part` is what stands in columns first .. of `whole`.
template <class T>
bool is_part(Operand<T> &part, Operand<T> &whole, int64_t first, int64_t head = 0, int64_t batch = 0) {
  bool same = true;
  part.each([&](T &x, int64_t i, int64_t j, auto...) {
    same &= std::memcmp(&x, &whole.at(i, first + j, head, batch), sizeof x) == 0;
  });
  return same;
}

// A wide copy of an operand for the oracle, dense.
template <class T>
struct WideCopy : reference::Buffer<Wide<T>> {
  explicit WideCopy(Operand<T> &from, bool absolute = false)
      : reference::Buffer<Wide<T>>(from.shape()[0], from.shape()[1], from.shape()[2], from.shape()[3]) {
    from.each([&](T &x, int64_t i, int64_t j, int64_t h, int64_t b) {
      *this->view.address(i, j, h, b) = absolute ? std::fabs(Wide<T>(x)) : Wide<T>(x);
    });
  }
};

template <class T>
bool same_bits(const std::vector<T> &a, const std::vector<T> &b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// Largest |got - want| / bound over all elements; NaN only where both are NaN, infinities equal.
template <class T, class Bound>
double worst_ratio(Operand<T> &got, reference::View<Wide<T>> want, const Bound &bound) {
  double worst = 0;
  got.each([&](T &x, int64_t i, int64_t j, int64_t h, int64_t b) {
    const Wide<T> w = want.at(i, j, h, b);
    if (Wide<T>(x) == w || (std::isnan(x) && std::isnan(w))) return;
    const double ratio = static_cast<double>(std::fabs(Wide<T>(x) - w)) / static_cast<double>(bound(i, j, h, b));
    if (!(ratio <= worst)) worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
  });
  return worst;
}

}  // namespace attend::test
