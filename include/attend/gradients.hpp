// attend: gradients, for attend.hpp, which has what holds for all calls.
//
// SPDX-License-Identifier: BSD-3-Clause
//
//     std::vector<float> lse(heads * n);
//     const auto options = attend::attention_options().causal_top_left().lse(attend::tensor(lse, {heads, n, 1}));
//     const auto out = attend::attention(q, k, v, options);
//     const auto gradients = attend::attention_backward(q, k, v, out, d_out, options);  // gradients.d_q, .d_k, .d_v
#ifndef ATTEND_GRADIENTS_HPP
#define ATTEND_GRADIENTS_HPP

#include <attend/call.hpp>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

class attention_backward_options : public detail::head<attention_backward_options, attend_attention_backward_options> {
 public:
  // Gradients are added to what is there, those of bias and sinks too.
  attention_backward_options &accumulate() noexcept { return flag(ATTEND_ACCUMULATE); }
  // (1, Nq, H, B), where something was computed from lse: its gradient.
  template <class X>
  attention_backward_options &d_lse(const X &x) {
    return d_lse_ = detail::input(x), *this;
  }
  // Outputs, of the shapes of bias and sinks, of float (double).
  template <class X>
  attention_backward_options &d_bias(X &&x) {
    return d_bias_ = detail::output(std::forward<X>(x)), *this;
  }
  template <class X>
  attention_backward_options &d_sinks(X &&x) {
    return d_sinks_ = detail::output(std::forward<X>(x)), *this;
  }
  // Output, of lse's shape.
  template <class X>
  attention_backward_options &delta(X &&x) {
    return delta_ = detail::output(std::forward<X>(x)), *this;
  }
  // Keys in several calls, or queries, whose gradients are those of one: each but the last pauses, each but the first resumes.
  // What is between them lies in these, (2 D, Nq, H, B), (D, Nk, Hkv, B) and (Dv, Nk, Hkv, B), of float (double).
  template <class X>
  attention_backward_options &d_q_state(X &&x) {
    return d_q_state_ = detail::output(std::forward<X>(x)), *this;
  }
  template <class X>
  attention_backward_options &d_k_state(X &&x) {
    return d_k_state_ = detail::output(std::forward<X>(x)), *this;
  }
  template <class X>
  attention_backward_options &d_v_state(X &&x) {
    return d_v_state_ = detail::output(std::forward<X>(x)), *this;
  }
  // With d_q_state, one a batch: the keys of all calls.
  template <class X>
  attention_backward_options &total_keys(const X &x) {
    return total_keys_.set(x), *this;
  }
  attention_backward_options &pauses() noexcept { return flag(ATTEND_PARTIAL); }
  attention_backward_options &resumes() noexcept { return flag(ATTEND_CONTINUE); }

  attend_attention_backward_options get() const noexcept {
    attend_attention_backward_options o = c_;
    d_lse_.store(&o.d_lse);
    d_bias_.store(&o.d_bias);
    d_sinks_.store(&o.d_sinks);
    delta_.store(&o.delta);
    d_q_state_.store(&o.d_q_state);
    d_k_state_.store(&o.d_k_state);
    d_v_state_.store(&o.d_v_state);
    total_keys_.store(&o.total_keys);
    return o;
  }
  // Whether total_keys are one a batch, or one a sequence.
  status check(std::int64_t batch) const noexcept {
    return total_keys_.fit(batch) ? status() : total_keys_.misfit("options.total_keys", batch);
  }

 private:
  detail::slot d_lse_, d_bias_, d_sinks_, delta_, d_q_state_, d_k_state_, d_v_state_;
  detail::integers total_keys_;
};

// Of the shapes of q, k and v. Elements are of the arithmetic, float (double), which sums over batches that share an
// operand need; for narrow ones give outputs of your own.
template <class T>
struct attention_gradients {
  array<T> d_q, d_k, d_v;
};

namespace detail {

template <class X>
using arithmetic_of = std::conditional_t<std::is_same_v<value_of<X>, double>, double, float>;

struct backward_operands {
  attend_tensor q, k, v, out, d_out;
  slot d_q, d_k, d_v;

  // nullptr: it is not wanted.
  template <class DQ, class DK, class DV>
  void set_gradients(DQ &&of_q, DK &&of_k, DV &&of_v) {
    if constexpr (!std::is_null_pointer_v<bare<DQ>>) d_q = output(std::forward<DQ>(of_q));
    if constexpr (!std::is_null_pointer_v<bare<DK>>) d_k = output(std::forward<DK>(of_k));
    if constexpr (!std::is_null_pointer_v<bare<DV>>) d_v = output(std::forward<DV>(of_v));
  }
};
template <class Q, class K, class V, class Out, class DOut>
backward_operands backward_inputs(const Q &q, const K &k, const V &v, const Out &out, const DOut &d_out) {
  return {input(q), input(k), input(v), input(out), input(d_out), {}, {}, {}};
}

// What all options have is this call's own. Of the forward call's, threads and executor hold where this one has none; a
// workspace was that call's.
inline void take_head(attend_attention_options *from, attend_attention_backward_options *to) noexcept {
  if (to->threads == 0) to->threads = from->threads;
  if (to->executor == nullptr) to->executor = from->executor;
  to->flags |= from->flags & ATTEND_NATIVE_DOT;
  from->threads = 0;
  from->executor = nullptr;
  from->workspace = nullptr;
  from->workspace_size = 0;
  from->message = nullptr;
  from->message_size = 0;
}

// f is attend.h's function.
template <class F>
returns<void> attention_backward(const backward_operands &t, const attention_options &of_forward,
                                 const attention_backward_options &options, const F &f) {
  if (const status s = of_forward.check(extent(t.out, 3)); !s.ok()) return finish(s);
  const std::int64_t sequences = of_forward.get_sequences();
  if (const status s = options.check(sequences != 0 ? sequences : extent(t.out, 3)); !s.ok()) return finish(s);
  const attend_tensor *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
  t.d_q.store(&d_q);
  t.d_k.store(&d_k);
  t.d_v.store(&d_v);
  return call(options, [&](attend_attention_backward_options *o) {
    attend_attention_options forward = of_forward.get();
    take_head(&forward, o);
    return f(&t.q, &t.k, &t.v, &t.out, &t.d_out, d_q, d_k, d_v, o, &forward);
  });
}

}  // namespace detail

// Gradients of a number with respect to q, k and v, of which d_out (Dv, Nq, H, B) is that with respect to out. q, k, v
// and options are those of the attend::attention call, and out and lse, if options have it, what that wrote; they are
// only read. d_q, d_k, d_v have the shapes of q, k and v; nullptr: it is not wanted.
template <class Q, class K, class V, class Out, class DOut, class DQ, class DK, class DV,
          class = detail::unless_options<DQ>>
returns<void> attention_backward(const Q &q, const K &k, const V &v, const Out &out, const DOut &d_out, DQ &&d_q,
                                 DK &&d_k, DV &&d_v, const attention_options &options = {},
                                 const attention_backward_options &backward_options = {}) {
  auto t = detail::backward_inputs(q, k, v, out, d_out);
  t.set_gradients(std::forward<DQ>(d_q), std::forward<DK>(d_k), std::forward<DV>(d_v));
  return detail::attention_backward(t, options, backward_options, attend_attention_backward);
}
template <class Q, class K, class V, class Out, class DOut>
returns<attention_gradients<detail::arithmetic_of<Q>>> attention_backward(
    const Q &q, const K &k, const V &v, const Out &out, const DOut &d_out, const attention_options &options = {},
    const attention_backward_options &backward_options = {}) {
  using gradients = attention_gradients<detail::arithmetic_of<Q>>;
  auto t = detail::backward_inputs(q, k, v, out, d_out);
  gradients made;
  const auto run = [&]() -> returns<void> {
    if ((backward_options.get().flags & ATTEND_ACCUMULATE) != 0) {
      return detail::finish({ATTEND_INVALID_VALUE, "options.flags",
                             "has ATTEND_ACCUMULATE, but without outputs there is nothing to add to."});
    }
    const struct {
      decltype(made.d_q) *gradient;
      const attend_tensor *of;
      detail::slot *slot;
    } all[] = {{&made.d_q, &t.q, &t.d_q}, {&made.d_k, &t.k, &t.d_k}, {&made.d_v, &t.v, &t.d_v}};
    for (const auto &one : all) {
      if (const status s = one.gradient->allocate(detail::shape_of(*one.of)); !s.ok()) return detail::finish(s);
      *one.slot = one.gradient->c();
    }
    return detail::attention_backward(t, options, backward_options, attend_attention_backward);
  };
#ifndef ATTEND_NO_EXCEPTIONS
  run();
  return made;
#else
  const status s = run();
  return {s, s.ok() ? std::move(made) : gradients()};
#endif
}
template <class Q, class K, class V, class Out, class DOut, class DQ, class DK, class DV>
returns<std::uint64_t> attention_backward_workspace(const Q &q, const K &k, const V &v, const Out &out,
                                                    const DOut &d_out, DQ &&d_q, DK &&d_k, DV &&d_v,
                                                    const attention_options &options = {},
                                                    const attention_backward_options &backward_options = {}) {
  auto t = detail::backward_inputs(q, k, v, out, d_out);
  t.set_gradients(std::forward<DQ>(d_q), std::forward<DK>(d_k), std::forward<DV>(d_v));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::attention_backward(t, options, backward_options, [&](auto... arguments) {
      return attend_attention_backward_workspace(arguments..., bytes);
    });
  });
}

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_GRADIENTS_HPP
