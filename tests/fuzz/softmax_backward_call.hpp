// attend_softmax_backward: arguments, formula, bound.
#pragma once

#include "plain_calls.hpp"

namespace attend::fuzz {

template <class T>
class SoftmaxBackwardCall : public Call {
 public:
  explicit SoftmaxBackwardCall(Decoder &d) {
    function_ = "attend_softmax_backward";
    int64_t m = d.extent(), n = d.extent(), heads = few(d), batch = few(d);
    if (d.one_in(8)) m = d.pick<int64_t>({255, 257, 511, 512, 513, 1025, 0});
    limit({&m, &n, &heads, &batch}, 1 << 13);
    accumulates_ = d.one_in(3);
    const Shape shape = {m, n, heads, batch};
    y_ = &add(d, "y", Role::input, kDtype<T>, shape);
    d_y_ = &add(d, "d_y", Role::input, kDtype<T>, shape);
    d_x_ = &add(d, "d_x", accumulates_ ? Role::both : Role::output, kDtype<T>, shape);
    d_lse_ = &add(d, "options.d_lse", Role::input, kDtype<T>, {1, n, heads, batch}, false);
    d_lse_->given = d.in(0, 1) != 0;
    in_place_ = d_x_;
    in_place_with_ = 2;
    options_.value.scale = d.pick({0.0, 1.0, 0.3, -1.7});
    options_.value.flags = (d.one_in(3) ? ATTEND_LOG : 0) | (accumulates_ ? ATTEND_ACCUMULATE : 0);
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    heads_ = {head_of("options", ATTEND_LOG | ATTEND_ACCUMULATE, options_)};
  }

 private:
  void connect() override {
    if (!options_.given) options_.value = {};
    d_lse_->given &= options_.given;
    options_.value.d_lse = d_lse_->tensor();
  }
  attend_status run() override {
    return attend_softmax_backward(y_->tensor(), d_y_->tensor(), d_x_->tensor(), options_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_softmax_backward_workspace(y_->tensor(), d_y_->tensor(), d_x_->tensor(), options_.pointer(), bytes);
  }
  void spoil_option(Decoder &d) override { options_.value.scale = d.pick({std::nan(""), HUGE_VAL, 1e-60}); }
  void find_faults(Faults *faults) const override {
    if (options_.given && !is_number_of<T>(options_.value.scale)) faults->add(ATTEND_INVALID_VALUE, "options.scale");
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape y = Extent(y_->view).shape;
    expect_shape(faults, *d_y_, y);
    expect_shape(faults, *d_x_, y);
    expect_shape(faults, *d_lse_, {1, y[1], y[2], y[3]});
  }
  // y is no softmax here but any numbers, for which the formula holds as well; its logarithms are not above 0.
  void expect() override {
    const Shape s = Extent(y_->view).shape;
    log_ = (options_.value.flags & ATTEND_LOG) != 0;
    const bool adds = (options_.value.flags & ATTEND_ACCUMULATE) != 0;
    WideCopy<T> y(*y_), d_y(*d_y_);
    const std::unique_ptr<WideCopy<T>> d_lse = d_lse_->given ? std::make_unique<WideCopy<T>>(*d_lse_) : nullptr;
    want_ = std::make_unique<reference::Buffer<Wide<T>>>(s[0], s[1], s[2], s[3]);
    size_ = std::make_unique<reference::Buffer<double>>(s[0], s[1], s[2], s[3]);
    const double scale = options_.value.scale == 0 ? 1 : std::fabs(options_.value.scale);
    const Wide<T> masked = log_ ? -std::numeric_limits<Wide<T>>::infinity() : Wide<T>(0);
    const std::unique_ptr<WideCopy<T>> before = adds ? std::make_unique<WideCopy<T>>(*d_x_) : nullptr;
    reference::Buffer<double> sums(1, s[1], s[2], s[3]);
    const auto weight = [&](Wide<T> v) { return static_cast<double>(log_ ? std::exp(v) : std::fabs(v)); };
    y_->each([&](const unsigned char *, int64_t i, int64_t j, int64_t h, int64_t b) {
      Wide<T> &v = y.view.at(i, j, h, b);
      if (log_ && v > 0) v = 0;
      double &sum = sums.view.at(0, j, h, b);
      if (i == 0 && d_lse) sum = static_cast<double>(std::fabs(d_lse->view.at(0, j, h, b)));
      if (v != masked) sum += (log_ ? 1 : weight(v)) * static_cast<double>(std::fabs(d_y.view.at(i, j, h, b)));
    });
    y_->each([&](const unsigned char *, int64_t i, int64_t j, int64_t h, int64_t b) {
      const double of_y = weight(y.view.at(i, j, h, b)), sum = sums.view.at(0, j, h, b),
                   of_d = static_cast<double>(std::fabs(d_y.view.at(i, j, h, b)));
      double &size = size_->view.at(i, j, h, b);
      size = y.view.at(i, j, h, b) == masked ? 0 : scale * (log_ ? of_d + of_y * sum : of_y * (of_d + sum));
      if (!before) return;
      want_->view.at(i, j, h, b) = before->view.at(i, j, h, b);
      size += static_cast<double>(std::fabs(before->view.at(i, j, h, b)));
    });
    reference::naive::softmax_backward<Wide<T>>(y.view, d_y.view, want_->view,
                                                static_cast<double>(static_cast<T>(options_.value.scale)), log_,
                                                d_lse ? &d_lse->view : nullptr, adds);
  }
  void compare(const std::string &isa) const override {
    compare_with<T>(*d_x_, want_->view, "attend_softmax_backward on " + isa,
                    [&](int64_t i, int64_t j, int64_t h, int64_t b) {
                      return 24 * kUnit<T> * size_->view.at(i, j, h, b) + std::numeric_limits<T>::min();
                    });
  }

  Operand *y_, *d_y_, *d_x_, *d_lse_;
  Boxed<attend_softmax_backward_options> options_;
  bool log_ = false, accumulates_ = false;
  std::unique_ptr<reference::Buffer<Wide<T>>> want_;
  std::unique_ptr<reference::Buffer<double>> size_;
};

}  // namespace attend::fuzz
