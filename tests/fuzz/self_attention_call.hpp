// attend_self_attention: its weights, and the errors of its projections on top of those of attention.
#pragma once

#include "attention_calls.hpp"

namespace attend::fuzz {

template <class T>
class SelfAttentionCall : public AttentionBase<T> {
 public:
  explicit SelfAttentionCall(Decoder &d) {
    this->function_ = "attend_self_attention";
    int64_t features = d.extent(), head_features = d.extent(), values = d.extent(), items = d.extent();
    int64_t kv_heads = d.pick<int64_t>({1, 1, 2}), batch = few(d), outputs = d.extent();
    if (d.one_in(12)) items = d.pick<int64_t>({255, 256, 257, 300});
    limit({&features, &head_features, &items, &kv_heads, &batch}, 1 << 13);
    limit({&values, &items, &items, &kv_heads, &batch}, 1 << 17);
    const int64_t heads = kv_heads * d.pick<int64_t>({1, 1, 2, 3});
    const bool projects = d.in(0, 1) != 0;
    const auto weight = [&](const char *name, const Shape &shape, bool required) {
      return &this->add(d, std::string("weights.") + name, Role::input, kDtype<T>, shape, required);
    };
    x_ = &this->add(d, "x", Role::input, kDtype<T>, {features, items, 1, batch});
    w_q_ = weight("w_q", {head_features, features, heads, 1}, true);
    w_k_ = weight("w_k", {head_features, features, kv_heads, 1}, true);
    w_v_ = weight("w_v", {values, features, kv_heads, 1}, true);
    b_q_ = weight("b_q", {head_features, 1, heads, 1}, false);
    b_k_ = weight("b_k", {head_features, 1, kv_heads, 1}, false);
    b_v_ = weight("b_v", {values, 1, kv_heads, 1}, false);
    w_o_ = weight("w_o", {outputs, values, heads, 1}, false);
    b_o_ = weight("b_o", {outputs, 1, 1, 1}, false);
    for (Operand *o : {b_q_, b_k_, b_v_}) o->given = d.in(0, 1) != 0;
    w_o_->given = projects;
    b_o_->given = projects && d.in(0, 1) != 0;
    const Shape out = projects ? Shape{outputs, items, 1, batch} : Shape{values, items, heads, batch};
    out_ = &this->add(d, "out", Role::output, kDtype<T>, out);
    this->add_options(d, "attention_options", {items, items, heads, batch});
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    this->heads_ = {head_of("options", 0, options_), head_of("attention_options", 31, this->attention_)};
  }

 private:
  int64_t batch() const override { return Extent(out_->view).shape[3]; }
  int64_t keys() const override { return Extent(x_->view).shape[1]; }
  void connect() override {
    AttentionBase<T>::connect();
    attend_self_attention_weights &w = weights_.value;
    w.w_q = w_q_->tensor();
    w.w_k = w_k_->tensor();
    w.w_v = w_v_->tensor();
    w.b_q = b_q_->tensor();
    w.b_k = b_k_->tensor();
    w.b_v = b_v_->tensor();
    w.w_o = w_o_->tensor();
    w.b_o = b_o_->tensor();
  }
  void spoil_option(Decoder &d) override {
    switch (d.in(0, 7)) {
      case 0:
        weights_.given = false;
        break;
      case 1:
        weights_.value.reserved = 1;
        break;
      case 2:
        weights_.value.size = d.pick<uint32_t>({0, 4, 71});
        break;
      case 3:
        weights_.tail.assign(8, static_cast<unsigned char>(d.in(0, 1)));
        break;
      default:
        AttentionBase<T>::spoil_option(d);
    }
  }
  attend_status run() override {
    weights_.seal();
    return attend_self_attention(x_->tensor(), weights_.pointer(), out_->tensor(), options_.pointer(),
                                 this->attention_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    weights_.seal();
    return attend_self_attention_workspace(x_->tensor(), weights_.pointer(), out_->tensor(), options_.pointer(),
                                           this->attention_.pointer(), bytes);
  }
  void find_faults(Faults *faults) const override {
    AttentionBase<T>::find_faults(faults);
    if (!weights_.given) faults->add(ATTEND_NULL_POINTER, "weights");
    const bool longer = !weights_.tail.empty() && weights_.tail.back() != 0;
    if (weights_.value.size < sizeof weights_.value || longer) faults->add(ATTEND_INVALID_STRUCT_SIZE, "weights.size");
    if (weights_.value.reserved != 0) faults->add(ATTEND_INVALID_VALUE, "weights.reserved");
    if (b_o_->given && !w_o_->given) faults->add(ATTEND_INVALID_VALUE, "weights.b_o");
    const attend_attention_options &inner = this->attention_.value;
    if (inner.threads != 0) faults->add(ATTEND_INVALID_VALUE, "attention_options.threads");
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape x = Extent(x_->view).shape, q = Extent(w_q_->view).shape, k = Extent(w_k_->view).shape,
                v = Extent(w_v_->view).shape;
    if (x[0] == 0 || x[2] != 1) faults->add(ATTEND_INVALID_SHAPE, "x");
    if (q[0] == 0 || q[2] == 0) faults->add(ATTEND_INVALID_SHAPE, "weights.w_q");
    if (k[2] <= 0 || q[2] % k[2] != 0) faults->add(ATTEND_INVALID_SHAPE, "weights.w_k");
    // Q, K and V must be countable.
    long double count = static_cast<long double>(x[1]) * static_cast<long double>(x[3]);
    count *= static_cast<long double>(q[2]) * static_cast<long double>(std::max(q[0], v[0]));
    if (count >= 0x1p50L) faults->add(ATTEND_OVERFLOW, "x", false);
    this->expect_shape(faults, *w_q_, {q[0], x[0], q[2], 1});
    this->expect_shape(faults, *w_k_, {q[0], x[0], k[2], 1});
    this->expect_shape(faults, *w_v_, {v[0], x[0], k[2], 1});
    this->expect_shape(faults, *b_q_, {q[0], 1, q[2], 1});
    this->expect_shape(faults, *b_k_, {q[0], 1, k[2], 1});
    this->expect_shape(faults, *b_v_, {v[0], 1, k[2], 1});
    const int64_t outputs = w_o_->given ? Extent(w_o_->view).shape[0] : v[0];
    this->expect_shape(faults, *w_o_, {outputs, v[0], q[2], 1});
    this->expect_shape(faults, *b_o_, {outputs, 1, 1, 1});
    this->expect_shape(faults, *out_, {outputs, x[1], w_o_->given ? 1 : q[2], x[3]});
    this->find_option_faults(faults, x[1], x[1], q[2]);
  }

  // A projection's largest sum of absolute values, and its largest error.
  struct Projected {
    double size, error;
  };
  Projected projected(const Operand &w, const Operand &b) const {
    const WideCopy<T> weight(w, true), x(*x_, true);
    const std::unique_ptr<WideCopy<T>> bias = b.given ? std::make_unique<WideCopy<T>>(b, true) : nullptr;
    reference::Buffer<Wide<T>> sizes(weight.view.shape[0], x.view.shape[1], weight.view.shape[2], x.view.shape[3]);
    reference::naive::matmul<Wide<T>>(1, weight.view, x.view, 0, sizes.view, bias ? &bias->view : nullptr);
    double most = 0;
    for (const Wide<T> s : sizes.values) most = std::max(most, static_cast<double>(s));
    return {most, kUnit<T> * (static_cast<double>(x.view.shape[0]) + 3) * most};
  }

  void expect() override {
    const auto copy = [](const Operand *o, bool *finite) {
      auto wide = o->given ? std::make_unique<WideCopy<T>>(*o) : nullptr;
      if (wide) *finite &= wide->finite;
      return wide;
    };
    bool finite = true;
    const auto x = copy(x_, &finite), w_q = copy(w_q_, &finite), w_k = copy(w_k_, &finite), w_v = copy(w_v_, &finite),
               b_q = copy(b_q_, &finite), b_k = copy(b_k_, &finite), b_v = copy(b_v_, &finite),
               w_o = copy(w_o_, &finite), b_o = copy(b_o_, &finite);
    const int64_t items = x->view.shape[1], heads = w_q->view.shape[2];
    const reference::AttentionSpec<Wide<T>> spec = this->specify(items, items, heads);
    // A projection that is 0 in one type and tiny in the other makes NaN or Inf of what is infinite.
    if (!finite) return;
    AttentionBound<T> &bound = this->bound_;
    const Projected q = projected(*w_q_, *b_q_), k = projected(*w_k_, *b_k_), v = projected(*w_v_, *b_v_);
    bound.features = static_cast<double>(w_q->view.shape[0]);
    const double sum = bound.features * static_cast<double>(std::fabs(spec.scale_for(w_q->view.shape[0])));
    bound.partial = sum * q.size * k.size;
    bound.query_error = sum * (q.size * k.error + k.size * q.error);
    bound.values = v.size;
    bound.value_error = v.error;
    if (this->is_beyond_oracle()) return;
    reference::Weights<Wide<T>> w = {w_q->view, w_k->view, w_v->view};
    w.b_q = b_q ? &b_q->view : nullptr;
    w.b_k = b_k ? &b_k->view : nullptr;
    w.b_v = b_v ? &b_v->view : nullptr;
    w.w_o = w_o ? &w_o->view : nullptr;
    w.b_o = b_o ? &b_o->view : nullptr;
    const Shape out = Extent(out_->view).shape;
    this->want_out_ = std::make_unique<reference::Buffer<Wide<T>>>(out[0], out[1], out[2], out[3]);
    reference::naive::self_attention<Wide<T>>(x->view, w, this->want_out_->view, spec);
    out_bound_ = bound.output();
    if (!w_o) return;
    const double terms = static_cast<double>(heads * w_v->view.shape[0]), size = terms * w_o->largest;
    out_bound_ = size * out_bound_ + kUnit<T> * (terms + 3) * (size * v.size + (b_o ? b_o->largest : 0));
  }
  void compare(const std::string &isa) const override {
    if (!this->want_out_) return;
    const std::string told = "attend_self_attention on " + isa;
    compare_with<T>(*out_, this->want_out_->view, told, [&](auto...) { return out_bound_; });
    this->compare_options(told);
  }

  Operand *x_, *w_q_, *w_k_, *w_v_, *b_q_, *b_k_, *b_v_, *w_o_, *b_o_, *out_;
  Boxed<attend_self_attention_weights> weights_;
  Boxed<attend_self_attention_options> options_;
  double out_bound_ = 0;
};

}  // namespace attend::fuzz
