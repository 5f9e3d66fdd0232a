// attend_attention_backward: what may be wrong with it, and the same bits everywhere. Its formula is another test's.
#pragma once

#include "attention_calls.hpp"

namespace attend::fuzz {

template <class T>
class BackwardCall : public AttentionBase<T> {
  using Base = AttentionBase<T>;

 public:
  explicit BackwardCall(Decoder &d) {
    this->function_ = "attend_attention_backward";
    int64_t features = d.extent(), values = d.extent(), queries = d.extent(), keys = d.extent();
    int64_t kv_heads = few(d), group = d.pick<int64_t>({1, 1, 2, 3}), batch = few(d);
    if (d.one_in(8)) keys = d.pick<int64_t>({255, 256, 257, 300, 513, 2100});
    if (d.one_in(8)) queries = d.pick<int64_t>({63, 64, 65, 130});
    limit({&features, &values, &queries, &keys, &kv_heads, &batch}, 1 << 15);
    const int64_t heads = kv_heads * group;
    const auto operand = [&](const char *name, Role role, const Shape &shape, bool required = true) {
      return &this->add(d, name, role, kDtype<T>, shape, required);
    };
    const Shape q = some_of(d, {features, queries, heads, batch}, 3),
                k = some_of(d, {features, keys, kv_heads, batch}, 3),
                v = some_of(d, {values, keys, kv_heads, batch}, 3), out = {values, queries, heads, batch};
    q_ = operand("q", Role::input, q);
    k_ = operand("k", Role::input, k);
    v_ = operand("v", Role::input, v);
    out_ = operand("out", Role::input, out);
    d_out_ = operand("d_out", Role::input, out);
    d_q_ = operand("d_q", Role::output, q, false);
    d_k_ = operand("d_k", Role::output, k, false);
    d_v_ = operand("d_v", Role::output, v, false);
    this->add_options(d, "attention_options", {queries, keys, heads, batch});
    d_lse_ = operand("options.d_lse", Role::input, {1, queries, heads, batch}, false);
    d_bias_ = operand("options.d_bias", Role::output, Extent(this->bias_->view).shape, false);
    d_sinks_ = operand("options.d_sinks", Role::output, {heads, 1, 1, 1}, false);
    d_lse_->given = d.one_in(3);
    d_bias_->given = this->bias_->given && d.one_in(2);
    d_sinks_->given = this->sinks_->given && d.one_in(2);
    options_.value.threads = static_cast<int32_t>(d.in(0, 3));
    delta_ = operand("options.delta", Role::output, {1, queries, heads, batch}, false);
    delta_->given = d.one_in(4);
    this->heads_ = {head_of("options", ATTEND_ACCUMULATE | ATTEND_PARTIAL | ATTEND_CONTINUE, options_),
                    head_of("attention_options", 31, this->attention_)};
  }

 private:
  int64_t batch() const override { return Extent(out_->view).shape[3]; }
  int64_t keys() const override { return Extent(k_->view).shape[1]; }

  void connect() override {
    this->lse_->given = false;  // one that is not the call's has no meaning
    Base::connect();
    for (Operand *p : {d_lse_, d_bias_, d_sinks_, delta_}) p->given &= options_.given;
    // What is written is poison at first: nothing to add to.
    options_.value.flags &= ~uint32_t{ATTEND_ACCUMULATE};
    options_.value.d_lse = d_lse_->tensor();
    options_.value.d_bias = d_bias_->tensor();
    options_.value.d_sinks = d_sinks_->tensor();
    options_.value.delta = delta_->tensor();
  }
  attend_status run() override {
    return attend_attention_backward(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(), d_out_->tensor(),
                                     d_q_->tensor(), d_k_->tensor(), d_v_->tensor(), options_.pointer(),
                                     this->attention_.pointer());
  }
  attend_status workspace(uint64_t *bytes) override {
    return attend_attention_backward_workspace(q_->tensor(), k_->tensor(), v_->tensor(), out_->tensor(),
                                               d_out_->tensor(), d_q_->tensor(), d_k_->tensor(), d_v_->tensor(),
                                               options_.pointer(), this->attention_.pointer(), bytes);
  }
  void find_faults(Faults *faults) const override {
    Base::find_faults(faults);
    const attend_attention_options &o = this->attention_.value;
    const auto wrong = [&](const char *field, int reason = ATTEND_INVALID_VALUE) {
      faults->add(reason, std::string("attention_options.") + field);
    };
    if (o.threads != 0) wrong("threads");
    if (o.workspace != nullptr) wrong("workspace");
    if (o.message != nullptr) wrong("message");
    if ((o.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) != 0) wrong("flags", ATTEND_UNSUPPORTED);
    if (this->scores_->given) wrong("scores", ATTEND_UNSUPPORTED);
    if ((options_.value.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) != 0) {  // without a state
      faults->add(ATTEND_NULL_POINTER, "options.d_q_state");
    }
    if (d_bias_->given && !this->bias_->given) faults->add(ATTEND_INVALID_VALUE, "options.d_bias");
    if (d_sinks_->given && !this->sinks_->given) faults->add(ATTEND_INVALID_VALUE, "options.d_sinks");
  }
  void find_shape_faults(Faults *faults) const override {
    const Shape out = Extent(out_->view).shape;
    this->find_operand_faults(faults, *q_, *k_, *v_, out);
    this->expect_shape(faults, *d_out_, out);
    for (const Operand *of : {d_lse_, delta_}) this->expect_shape(faults, *of, {1, out[1], out[2], out[3]});
    for (const auto &[gradient, of] : {std::pair{d_q_, q_}, {d_k_, k_}, {d_v_, v_}}) {
      this->expect_shape(faults, *gradient, Extent(of->view).shape);
    }
    if (this->bias_->given) this->expect_shape(faults, *d_bias_, Extent(this->bias_->view).shape);
    if (this->sinks_->given) this->expect_shape(faults, *d_sinks_, Extent(this->sinks_->view).shape);
  }
  void expect() override {}
  void compare(const std::string &) const override {}

  Operand *q_, *k_, *v_, *out_, *d_out_, *d_q_, *d_k_, *d_v_, *d_lse_, *d_bias_, *d_sinks_, *delta_;
  Boxed<attend_attention_backward_options> options_;
};

}  // namespace attend::fuzz
