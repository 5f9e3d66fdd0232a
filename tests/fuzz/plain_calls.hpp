// attend_matmul, attend_softmax and attend_attention_merge: arguments, formula, bound.
#pragma once

#include "call.hpp"

namespace attend::fuzz {

// Where nothing can be said of a result.
constexpr double kNoBound = -1;

// Elements of the type T are near what the oracle says: NaN where it is NaN, infinite where it is infinite.
template <class T, class Bound>
void compare_with(const Operand &got, const reference::View<Wide<T>> &want, const std::string &told,
                  const Bound &bound) {
  got.each([&](const unsigned char *at, int64_t i, int64_t j, int64_t h, int64_t b) {
    const Wide<T> x = Operand::get<T>(at), w = want.at(i, j, h, b);
    if (x == w || (std::isnan(x) && std::isnan(w))) return;
    const double most = bound(i, j, h, b), error = static_cast<double>(std::fabs(x - w));
    if (most == kNoBound || (std::isfinite(w) && error <= most)) return;
    fail(told + ": " + got.name + " (" + std::to_string(i) + ", " + std::to_string(j) + ", " + std::to_string(h) +
         ", " + std::to_string(b) + ") is " + std::to_string(x) + ", not " + std::to_string(w) + ", bound " +
         std::to_string(most) + ", error " + std::to_string(error));
  });
}

template <class T>
constexpr uint32_t kDtype = sizeof(T) == 4 ? ATTEND_F32 : ATTEND_F64;

// What an option may be: finite in the element type, and not 0 there unless it is.
template <class T>
bool is_number_of(double x) {
  return std::fabs(x) <= static_cast<double>(std::numeric_limits<T>::max()) && (x == 0 || static_cast<T>(x) != 0);
}

inline Shape some_of(Decoder &d, Shape shape, size_t first = 0) {
  for (size_t i = first; i < 4; ++i) {
    if (d.one_in(3)) shape[i] = 1;
  }
  return shape;
}
// Halves the largest until the product is small enough to compute naively a few times.
inline void limit(std::initializer_list<int64_t *> extents, int64_t most) {
  const auto product = [&] {
    int64_t p = 1;
    for (const int64_t *e : extents) p *= *e;
    return p;
  };
  while (product() > most) {
    int64_t *largest = *extents.begin();
    for (int64_t *e : extents) largest = *e > *largest ? e : largest;
    *largest /= 2;
  }
}
inline int64_t few(Decoder &d) { return d.pick<int64_t>({1, 1, 2, 1, 2, 1, 3, 1, 1, 2, 1, 2, 1, 2, 1, 0}); }

template <class T>
class MatmulCall : public Call {
 public:
  explicit MatmulCall(Decoder &d) {
    function_ = "attend_matmul";
    extremes_ = true;
    int64_t m = d.extent(), n = d.extent(), k = d.extent(), heads = few(d), batch = few(d);
    if (d.one_in(8)) k = d.pick<int64_t>({255, 256, 257, 511, 512, 513, 0, 1030});
    limit({&m, &n, &k, &heads, &batch}, 1 << 16);
    a_ = &add(d, "a", Role::input, kDtype<T>, some_of(d, {m, k, heads, batch}, 2));
    b_ = &add(d, "b", Role::input, kDtype<T>, some_of(d, {k, n, heads, batch}, 2));
    c_ = &add(d, "c", Role::both, kDtype<T>, {m, n, heads, batch});
    bias_ = &add(d, "options.bias", Role::input, kDtype<T>, some_of(d, {m, n, heads, batch}), false);
    bias_->given = d.in(0, 1) != 0;
    const auto numbers = [&](const char *name, uint32_t dtype, bool of_a) {
      Operand &o = add(d, name, Role::input, dtype, some_of(d, {of_a ? m : 1, of_a ? 1 : n, heads, batch}), false);
      o.given = false;
      return &o;
    };
    numbers_ = {numbers("options.a_scale", ATTEND_F32, true), numbers("options.b_scale", ATTEND_F32, false),
                numbers("options.a_zero", ATTEND_I32, true), numbers("options.b_zero", ATTEND_I32, false)};
    if (d.one_in(3)) make_integers(d);
    alpha_ = d.pick({1.0, 1.0, -1.0, 0.7, 0.0, 2.0, 1e-60, std::nan("")});
    beta_ = d.pick({0.0, 0.0, 1.0, 0.7, -2.0, 1e-60, -0.0, std::nan("")});
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    heads_ = {head_of("options", 0, options_)};
  }

 private:
  // Integers on both sides, on one beside floating point, or numbers that do not belong.
  void make_integers(Decoder &d) {
    const auto integer = [&] { return d.pick<uint32_t>({ATTEND_I8, ATTEND_U8}); };
    const int64_t sides = d.in(0, 3);
    const bool both = sides < 2;
    if (both || sides == 2) a_->view.dtype = both ? integer() : ATTEND_I8;
    if (both || (sides == 3 && d.in(0, 7) != 0)) b_->view.dtype = both ? integer() : ATTEND_I8;
    if (sides == 0) {
      c_->view.dtype = bias_->view.dtype = ATTEND_I32;
      certain_one_ = d.in(0, 3) != 0;
    }
    for (size_t i = 0; i < numbers_.size(); ++i) numbers_[i]->given = (i < 2 ? sides != 0 : both) && d.in(0, 1) != 0;
    if (d.one_in(8)) numbers_[static_cast<size_t>(d.in(0, 3))]->given = true;
  }
  void connect() override {
    for (Operand *o : {bias_, numbers_[0], numbers_[1], numbers_[2], numbers_[3]}) o->given &= options_.given;
    if (certain_one_) alpha_ = 1, beta_ = 0;  // what an int32 C wants
    options_.value.bias = bias_->tensor();
    options_.value.a_scale = numbers_[0]->tensor();
    options_.value.b_scale = numbers_[1]->tensor();
    options_.value.a_zero = numbers_[2]->tensor();
    options_.value.b_zero = numbers_[3]->tensor();
  }
  attend_status run() override {
    return attend_matmul(alpha_, a_->tensor(), b_->tensor(), beta_, c_->tensor(), options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_matmul_workspace(alpha_, a_->tensor(), b_->tensor(), beta_, c_->tensor(), options_.pointer(), bytes);
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape c = Extent(c_->view).shape;
    const int64_t depth = Extent(a_->view).shape[1];
    expect_shape(faults, *a_, {c[0], depth, c[2], c[3]}, 12);
    expect_shape(faults, *b_, {depth, c[1], c[2], c[3]}, 12);
    expect_shape(faults, *bias_, c, 15);
    for (size_t i = 0; i < numbers_.size(); ++i) {
      expect_shape(faults, *numbers_[i], {i % 2 == 0 ? c[0] : 1, i % 2 == 0 ? 1 : c[1], c[2], c[3]}, 15);
    }
  }
  // Which numbers go with which types, and what they may be.
  void find_faults(Faults *faults) const override {
    const auto is_integer = [](const Operand *o) { return o->view.dtype >= ATTEND_I8; };
    const bool given = std::any_of(numbers_.begin(), numbers_.end(), [](Operand *o) { return o->given; });
    if (!given && !is_integer(a_) && !is_integer(b_) && !is_integer(c_)) return;
    faults->add(ATTEND_INVALID_VALUE, "*", false);
    faults->add(ATTEND_INVALID_DTYPE, "*", false);
  }
  void expect() override {
    const WideCopy<T> a(*a_), b(*b_), abs_a(*a_, true), abs_b(*b_, true);
    want_ = std::make_unique<WideCopy<T>>(*c_);
    size_ = std::make_unique<WideCopy<T>>(*c_, true);
    std::unique_ptr<WideCopy<T>> bias, abs_bias;
    if (bias_->given) {
      bias = std::make_unique<WideCopy<T>>(*bias_);
      abs_bias = std::make_unique<WideCopy<T>>(*bias_, true);
    }
    const T alpha = static_cast<T>(alpha_), beta = static_cast<T>(beta_);
    reference::naive::matmul<Wide<T>>(alpha, a.view, b.view, beta, want_->view, bias ? &bias->view : nullptr);
    reference::naive::matmul<Wide<T>>(std::fabs(alpha), abs_a.view, abs_b.view, std::fabs(beta), size_->view,
                                      bias ? &abs_bias->view : nullptr);
    depth_ = static_cast<double>(a.view.shape[1]);
    // A sum, or the product before alpha, may overflow where the oracle's does not.
    const double terms = a.largest * b.largest * depth_ * std::max(1.0, std::fabs(alpha_)) +
                         std::max(1.0, std::fabs(beta_)) * want_->largest + (bias ? bias->largest : 0);
    overflows_ = !(terms < static_cast<double>(std::numeric_limits<T>::max()) / 16);
  }
  void compare(const std::string &isa) const override {
    using Limits = std::numeric_limits<T>;
    compare_with<T>(*c_, want_->view, "attend_matmul on " + isa, [&](int64_t i, int64_t j, int64_t h, int64_t b) {
      const double size = static_cast<double>(size_->view.at(i, j, h, b));
      if (overflows_) return kNoBound;
      return (depth_ + 2) * (1.001 * kUnit<T> * size + 4 * static_cast<double>(Limits::denorm_min()));
    });
  }

  Operand *a_, *b_, *c_, *bias_;
  std::array<Operand *, 4> numbers_ = {};  // scales, zero points
  double alpha_, beta_, depth_ = 0;
  bool overflows_ = false, certain_one_ = false;
  Boxed<attend_matmul_options> options_;
  std::unique_ptr<WideCopy<T>> want_, size_;
};

template <class T>
class SoftmaxCall : public Call {
 public:
  explicit SoftmaxCall(Decoder &d) {
    function_ = "attend_softmax";
    int64_t m = d.extent(), n = d.extent(), heads = few(d), batch = few(d);
    if (d.one_in(8)) m = d.pick<int64_t>({255, 511, 512, 513, 527, 1025, 0, 2049});
    limit({&m, &n, &heads, &batch}, 1 << 13);
    if (d.one_in(250)) m = d.pick<int64_t>({32769, 65537, 81921}), n = heads = batch = 1;
    const Shape shape = {m, n, heads, batch};
    x_ = &add(d, "x", Role::input, kDtype<T>, shape);
    y_ = &add(d, "y", Role::output, kDtype<T>, shape);
    lse_ = &add(d, "options.lse", Role::output, kDtype<T>, {1, n, heads, batch}, false);
    mask_ = &add(d, "options.mask", Role::input, ATTEND_BOOL, some_of(d, shape), false);
    bias_ = &add(d, "options.bias", Role::input, kDtype<T>, some_of(d, shape), false);
    for (Operand *o : {lse_, mask_, bias_}) o->given = d.in(0, 1) != 0;
    in_place_ = y_;
    options_.value.scale = d.pick({0.0, 1.0, 0.3, -1.7, 2.0, double{std::numeric_limits<T>::min()}});
    options_.value.flags = d.one_in(3) ? ATTEND_LOG : 0;
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    heads_ = {head_of("options", ATTEND_LOG, options_)};
  }

 private:
  void connect() override {
    if (!options_.given) options_.value = {};
    for (Operand *o : {lse_, mask_, bias_}) o->given &= options_.given;
    options_.value.lse = lse_->tensor();
    options_.value.mask = mask_->tensor();
    options_.value.bias = bias_->tensor();
  }
  attend_status run() override { return attend_softmax(x_->tensor(), y_->tensor(), options_.pointer()); }
  attend_status workspace(uint64_t *bytes) override {
    return attend_softmax_workspace(x_->tensor(), y_->tensor(), options_.pointer(), bytes);
  }
  void spoil_option(Decoder &d) override { options_.value.scale = d.pick({std::nan(""), HUGE_VAL, 1e-60}); }
  void find_faults(Faults *faults) const override {
    if (options_.given && !is_number_of<T>(options_.value.scale)) faults->add(ATTEND_INVALID_VALUE, "options.scale");
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape x = Extent(x_->view).shape;
    expect_shape(faults, *y_, x);
    expect_shape(faults, *lse_, {1, x[1], x[2], x[3]});
    expect_shape(faults, *mask_, x, 15);
    expect_shape(faults, *bias_, x, 15);
  }
  void expect() override {
    constexpr Wide<T> kInfinity = std::numeric_limits<Wide<T>>::infinity();
    const Shape s = Extent(x_->view).shape;
    rows_ = static_cast<double>(s[0]);
    scores_ = std::make_unique<WideCopy<T>>(*x_);
    want_ = std::make_unique<reference::Buffer<Wide<T>>>(s[0], s[1], s[2], s[3]);
    sums_ = std::make_unique<reference::Buffer<Wide<T>>>(1, s[1], s[2], s[3]);
    size_ = std::make_unique<reference::Buffer<double>>(1, s[1], s[2], s[3]);
    const std::unique_ptr<WideCopy<T>> bias = bias_->given ? std::make_unique<WideCopy<T>>(*bias_) : nullptr;
    reference::View<const uint8_t> mask = {};
    if (mask_->given) {
      const Extent e(mask_->view);
      mask = {static_cast<const uint8_t *>(mask_->view.data), e.shape, e.stride};
    }
    const T scale = options_.value.scale == 0 ? T(1) : static_cast<T>(options_.value.scale);
    x_->each([&](const unsigned char *, int64_t i, int64_t j, int64_t h, int64_t b) {
      Wide<T> &score = scores_->view.at(i, j, h, b);
      const Wide<T> product = scale * score, added = bias ? bias->view.at(i, j, h, b) : Wide<T>(0);
      score = product + added;
      if ((mask_->given && !mask.at(i, j, h, b)) || added == -kInfinity) score = -kInfinity;
      double &largest = size_->view.at(0, j, h, b);
      if (std::isfinite(score)) largest = std::max(largest, static_cast<double>(std::fabs(score) + std::fabs(product)));
    });
    log_ = (options_.value.flags & ATTEND_LOG) != 0;
    reference::naive::softmax<Wide<T>>(scores_->view, want_->view, 1, log_, &sums_->view);
  }
  // Rounding a score of size s moves its weight, and each of those that it is divided by, by that much, relatively.
  void compare(const std::string &isa) const override {
    const double ulp = 2 * kUnit<T>;
    const std::string told = "attend_softmax on " + isa;
    const auto size = [&](int64_t j, int64_t h, int64_t b) { return size_->view.at(0, j, h, b); };
    compare_with<T>(*y_, want_->view, told, [&](int64_t i, int64_t j, int64_t h, int64_t b) {
      if (log_) return ulp * (4 * size(j, h, b) + std::log(rows_ + 1) + 4);
      // A masked entry is exactly 0.
      if (std::isinf(scores_->view.at(i, j, h, b))) return 0.0;
      return ulp * ((4 + 4 * size(j, h, b)) * static_cast<double>(want_->view.at(i, j, h, b)) + 1);
    });
    if (!lse_->given) return;
    compare_with<T>(*lse_, sums_->view, told, [&](int64_t, int64_t j, int64_t h, int64_t b) {
      return ulp * (2 * size(j, h, b) + std::log(rows_ + 1) + 4);
    });
  }

  Operand *x_, *y_, *lse_, *mask_, *bias_;
  Boxed<attend_softmax_options> options_;
  bool log_ = false;
  double rows_ = 0;
  std::unique_ptr<WideCopy<T>> scores_;
  std::unique_ptr<reference::Buffer<Wide<T>>> want_, sums_;
  std::unique_ptr<reference::Buffer<double>> size_;
};

template <class T>
class MergeCall : public Call {
 public:
  explicit MergeCall(Decoder &d) {
    function_ = "attend_attention_merge";
    int64_t f = d.extent(), n = d.extent(), heads = few(d), batch = few(d);
    limit({&f, &n, &heads, &batch}, 1 << 13);
    out_a_ = &add(d, "out_a", Role::both, kDtype<T>, {f, n, heads, batch});
    lse_a_ = &add(d, "lse_a", Role::both, kDtype<T>, {1, n, heads, batch});
    out_b_ = &add(d, "out_b", Role::input, kDtype<T>, {f, n, heads, batch});
    lse_b_ = &add(d, "lse_b", Role::input, kDtype<T>, {1, n, heads, batch});
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    heads_ = {head_of("options", 0, options_)};
  }

 private:
  void connect() override {}
  attend_status run() override {
    return attend_attention_merge(out_a_->tensor(), lse_a_->tensor(), out_b_->tensor(), lse_b_->tensor(),
                                  options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_attention_merge_workspace(out_a_->tensor(), lse_a_->tensor(), out_b_->tensor(), lse_b_->tensor(),
                                            options_.pointer(), bytes);
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape s = Extent(out_a_->view).shape;
    expect_shape(faults, *lse_a_, {1, s[1], s[2], s[3]});
    expect_shape(faults, *out_b_, s);
    expect_shape(faults, *lse_b_, {1, s[1], s[2], s[3]});
  }
  void expect() override {
    constexpr Wide<T> kInfinity = std::numeric_limits<Wide<T>>::infinity();
    out_ = std::make_unique<WideCopy<T>>(*out_a_);
    lse_ = std::make_unique<WideCopy<T>>(*lse_a_);
    size_ = std::make_unique<WideCopy<T>>(*out_a_, true);
    const WideCopy<T> out_b(*out_b_), lse_b(*lse_b_);
    lse_a_->each([&](const unsigned char *, int64_t, int64_t i, int64_t h, int64_t b) {
      Wide<T> &la = lse_->view.at(0, i, h, b);
      const Wide<T> lb = lse_b.view.at(0, i, h, b), m = std::isnan(la) || std::isnan(lb) ? la + lb : std::max(la, lb);
      if (m == -kInfinity) return;
      const Wide<T> wa = std::exp(la - m), wb = std::exp(lb - m);
      for (int64_t f = 0; f < out_->view.shape[0]; ++f) {
        Wide<T> &a = out_->view.at(f, i, h, b);
        const Wide<T> other = out_b.view.at(f, i, h, b);
        size_->view.at(f, i, h, b) = std::max(std::fabs(a), std::fabs(other));
        // What an empty set holds does not matter.
        a = ((wa == 0 ? 0 : wa * a) + (wb == 0 ? 0 : wb * other)) / (wa + wb);
      }
      la = m + std::log(wa + wb);
    });
  }
  void compare(const std::string &isa) const override {
    const double ulp = 2 * kUnit<T>;
    compare_with<T>(*out_a_, out_->view, "attend_attention_merge on " + isa,
                    [&](int64_t f, int64_t i, int64_t h, int64_t b) {
                      return 4 * ulp * static_cast<double>(size_->view.at(f, i, h, b));
                    });
    compare_with<T>(*lse_a_, lse_->view, "attend_attention_merge on " + isa,
                    [&](int64_t, int64_t i, int64_t h, int64_t b) {
                      return 4 * ulp * (1 + std::fabs(static_cast<double>(lse_->view.at(0, i, h, b))));
                    });
  }

  Operand *out_a_, *lse_a_, *out_b_, *lse_b_;
  Boxed<attend_merge_options> options_;
  std::unique_ptr<WideCopy<T>> out_, lse_, size_;
};

}  // namespace attend::fuzz
