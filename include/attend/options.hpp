// attend: options and weights, for attend.hpp.
//
// SPDX-License-Identifier: BSD-3-Clause
//
// Setters have the names of attend.h's fields and return the options, so that they chain:
//
//     attend::attention_options().scale(0.125).causal_top_left().lse(lse)
//
// What is not set is off, or the default. Two kinds of fields have no setter and are set in c(): those of versions to
// come, and message with its size, for which calls have room of their own, where attend::error and attend::status find
// the sentence; they find it in yours if you give it.
//
// Lifetime.  Options keep views of the operands and integers they are given, and a pointer to the executor: all must
//            live until the call returns. Temporaries do, where the options are a temporary of the same statement.
//            Copies of options view the same memory.
// Threads.   Calls only read options: several may use the same ones at once, as far as their outputs differ.
#ifndef ATTEND_OPTIONS_HPP
#define ATTEND_OPTIONS_HPP

#include <attend/option.hpp>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

// get() of each is attend.h's structure, complete; it points into the options.

class matmul_options : public detail::head<matmul_options, attend_matmul_options> {
 public:
  // 1 and 0 by default.
  matmul_options &alpha(double value) noexcept { return alpha_ = value, *this; }
  matmul_options &beta(double value) noexcept { return beta_ = value, *this; }
  // Broadcasts to C: a column is a bias per row.
  template <class X>
  matmul_options &bias(const X &x) {
    return bias_ = detail::input(x), *this;
  }
  // Of operands of std::int8_t and std::uint8_t, one number, one a row of A, or one a column of B: floats, and integers of
  // std::int32_t, which are subtracted first.
  template <class X>
  matmul_options &a_scale(const X &x) {
    return a_scale_ = detail::input(x), *this;
  }
  template <class X>
  matmul_options &b_scale(const X &x) {
    return b_scale_ = detail::input(x), *this;
  }
  template <class X>
  matmul_options &a_zero(const X &x) {
    return a_zero_ = detail::input(x), *this;
  }
  template <class X>
  matmul_options &b_zero(const X &x) {
    return b_zero_ = detail::input(x), *this;
  }

  double get_alpha() const noexcept { return alpha_; }
  double get_beta() const noexcept { return beta_; }
  attend_matmul_options get() const noexcept {
    attend_matmul_options o = c_;
    bias_.store(&o.bias);
    a_scale_.store(&o.a_scale);
    b_scale_.store(&o.b_scale);
    a_zero_.store(&o.a_zero);
    b_zero_.store(&o.b_zero);
    return o;
  }

 private:
  double alpha_ = 1, beta_ = 0;
  detail::slot bias_, a_scale_, b_scale_, a_zero_, b_zero_;
};

class softmax_options : public detail::head<softmax_options, attend_softmax_options> {
 public:
  // Its logarithm.
  softmax_options &log() noexcept { return flag(ATTEND_LOG); }
  // 1 by default.
  softmax_options &scale(double value) noexcept { return c_.scale = value, *this; }
  // Of bool or unsigned char, broadcasts to x: true takes part.
  template <class X>
  softmax_options &mask(const X &x) {
    return mask_.set_mask(x), *this;
  }
  // Broadcasts to x: added after the scale.
  template <class X>
  softmax_options &bias(const X &x) {
    return bias_ = detail::input(x), *this;
  }
  // Output (1, N, H, B).
  template <class X>
  softmax_options &lse(X &&x) {
    return lse_ = detail::output(std::forward<X>(x)), *this;
  }

  attend_softmax_options get() const noexcept {
    attend_softmax_options o = c_;
    mask_.store(&o.mask);
    bias_.store(&o.bias);
    lse_.store(&o.lse);
    return o;
  }

 private:
  detail::slot mask_, bias_, lse_;
};

class softmax_backward_options : public detail::head<softmax_backward_options, attend_softmax_backward_options> {
 public:
  // y is the log-softmax.
  softmax_backward_options &log() noexcept { return flag(ATTEND_LOG); }
  // The gradient is added to what d_x holds.
  softmax_backward_options &accumulate() noexcept { return flag(ATTEND_ACCUMULATE); }
  // The forward call's; 1 by default.
  softmax_backward_options &scale(double value) noexcept { return c_.scale = value, *this; }
  // Gradient of lse (1, N, H, B), where that was used.
  template <class X>
  softmax_backward_options &d_lse(const X &x) {
    return d_lse_ = detail::input(x), *this;
  }

  attend_softmax_backward_options get() const noexcept {
    attend_softmax_backward_options o = c_;
    d_lse_.store(&o.d_lse);
    return o;
  }

 private:
  detail::slot d_lse_;
};

// Those of attention, and of self_attention, which takes all but k_scale, v_scale, key_starts and pages.
class attention_options : public detail::head<attention_options, attend_attention_options> {
 public:
  // 1 / sqrt(D) by default; 1 = unscaled.
  attention_options &scale(double value) noexcept { return c_.scale = value, *this; }
  attention_options &softcap(double value) noexcept { return c_.softcap = value, *this; }
  // Query i sees the keys up to i + query_offset.
  attention_options &causal_top_left() noexcept { return flag(ATTEND_CAUSAL_TOP_LEFT); }
  // The last query sees the last key.
  attention_options &causal_bottom_right() noexcept { return flag(ATTEND_CAUSAL_BOTTOM_RIGHT); }
  // So many keys on either side of the query's own; -1 = no bound there.
  attention_options &window(std::int64_t left, std::int64_t right) noexcept {
    c_.window_left = left;
    c_.window_right = right;
    return flag(ATTEND_WINDOW);
  }
  // Position of query 0 among the keys.
  attention_options &query_offset(std::int64_t position) noexcept { return c_.query_offset = position, *this; }
  // std::int64_t, one a batch, in a vector, an array, a span; another number of them is ATTEND_INVALID_SHAPE.
  template <class X>
  attention_options &query_offsets(const X &x) {
    return query_offsets_.set(x), *this;
  }
  template <class X>
  attention_options &kv_lengths(const X &x) {
    return kv_lengths_.set(x), *this;
  }
  template <class X>
  attention_options &kv_first(const X &x) {
    return kv_first_.set(x), *this;
  }
  // (Nk, Nq, H, B), broadcast, which is NumPy's [B, H, Nq, Nk]; of bool or unsigned char: true = visible.
  template <class X>
  attention_options &mask(const X &x) {
    return mask_.set_mask(x), *this;
  }
  // The same shape, added to the scores.
  template <class X>
  attention_options &bias(const X &x) {
    return bias_ = detail::input(x), *this;
  }
  // Of k and v of ATTEND_I8 (required) or ATTEND_F8E4M3, of float: shaped as they are, with one row or one key, and
  // broadcast. A scale for each key is attend::tensor(scales, {batch, heads, keys, 1}).
  template <class X>
  attention_options &k_scale(const X &x) {
    return k_scale_ = detail::input(x), *this;
  }
  template <class X>
  attention_options &v_scale(const X &x) {
    return v_scale_ = detail::input(x), *this;
  }
  // Packed sequences, without padding: std::int64_t, the columns of q (of k and v) where they begin, and the number of
  // all, so one more than there are sequences, which `sequences` follows from. What is one a batch is one a sequence then.
  template <class X>
  attention_options &query_starts(const X &x) {
    return query_starts_.set(x), *this;
  }
  template <class X>
  attention_options &key_starts(const X &x) {
    return key_starts_.set(x), *this;
  }
  // Of std::int32_t (most pages of a sequence, B), which is NumPy's [B, pages]: k and v are pools of pages,
  // (D, page size, Hkv, pages of the pool), of which each sequence has its own. With kv_lengths.
  template <class X>
  attention_options &pages(const X &x) {
    return pages_ = detail::input(x), *this;
  }
  // Keys in several calls, with the bits of one: of each but the first `resumes`, of each but the last `pauses`. What is
  // between them lies in `state`, (2 (Dv + 2), Nq, H, B), which is NumPy's [B, H, Nq, 2 (Dv + 2)], of float (double).
  template <class X>
  attention_options &state(X &&x) {
    return state_ = detail::output(std::forward<X>(x)), *this;
  }
  attention_options &pauses() noexcept { return flag(ATTEND_PARTIAL); }
  attention_options &resumes() noexcept { return flag(ATTEND_CONTINUE); }
  // Keys before those of this call: a multiple of 256.
  attention_options &key_offset(std::int64_t keys) noexcept { return c_.key_offset = keys, *this; }
  // (H)
  template <class X>
  attention_options &alibi_slopes(const X &x) {
    return alibi_slopes_ = detail::input(x), *this;
  }
  // (H)
  template <class X>
  attention_options &sinks(const X &x) {
    return sinks_ = detail::input(x), *this;
  }
  // Output (1, Nq, H, B).
  template <class X>
  attention_options &lse(X &&x) {
    return lse_ = detail::output(std::forward<X>(x)), *this;
  }
  // Output (Nk, Nq, H, B), and which scores: ATTEND_SCORES_...
  template <class X>
  attention_options &scores(X &&x, std::uint32_t stage) {
    c_.scores_stage = stage;
    return scores_ = detail::output(std::forward<X>(x)), *this;
  }

  attend_attention_options get() const noexcept {
    attend_attention_options o = c_;
    query_offsets_.store(&o.query_offsets);
    kv_lengths_.store(&o.kv_lengths);
    kv_first_.store(&o.kv_first);
    mask_.store(&o.mask);
    bias_.store(&o.bias);
    alibi_slopes_.store(&o.alibi_slopes);
    sinks_.store(&o.sinks);
    lse_.store(&o.lse);
    scores_.store(&o.scores);
    k_scale_.store(&o.k_scale);
    v_scale_.store(&o.v_scale);
    query_starts_.store(&o.query_starts);
    key_starts_.store(&o.key_starts);
    pages_.store(&o.pages);
    state_.store(&o.state);
    if (get_sequences() != 0) o.sequences = get_sequences();
    return o;
  }
  // Those that starts speak of; 0 = there are no starts.
  std::int64_t get_sequences() const noexcept {
    return query_starts_.given() ? query_starts_.count() - 1 : key_starts_.given() ? key_starts_.count() - 1 : 0;
  }
  // Whether starts speak of as many sequences, and other integers are one a batch, or one a sequence.
  status check(std::int64_t batch) const noexcept {
    if (!query_starts_.begin_sequences()) return query_starts_.no_sequences("options.query_starts");
    if (!key_starts_.begin_sequences()) return key_starts_.no_sequences("options.key_starts");
    if (get_sequences() != 0) batch = get_sequences();
    if (!key_starts_.fit(batch + 1)) return key_starts_.misfit("options.key_starts", batch + 1, "query_starts has");
    if (!query_offsets_.fit(batch)) return query_offsets_.misfit("options.query_offsets", batch);
    if (!kv_lengths_.fit(batch)) return kv_lengths_.misfit("options.kv_lengths", batch);
    return kv_first_.fit(batch) ? status() : kv_first_.misfit("options.kv_first", batch);
  }

 private:
  detail::integers query_offsets_, kv_lengths_, kv_first_, query_starts_, key_starts_;
  detail::slot mask_, bias_, pages_, k_scale_, v_scale_, alibi_slopes_, sinks_, lse_, scores_, state_;
};

class merge_options : public detail::head<merge_options, attend_merge_options> {
 public:
  attend_merge_options get() const noexcept { return c_; }
};

class convert_options : public detail::head<convert_options, attend_convert_options> {
 public:
  // Of whichever of x and y is ATTEND_I8, ATTEND_U8 or ATTEND_F8E4M3, of float, broadcast to x: a scale for each of its
  // columns is attend::tensor(scales, {n, 1}), for each row a vector, for all one number.
  template <class X>
  convert_options &scale(const X &x) {
    c_.flags &= ~ATTEND_COMPUTE_SCALE;
    return scale_ = detail::input(x), *this;
  }
  // Output of the same shapes, where y is ATTEND_I8 or ATTEND_F8E4M3: the scale is computed, and written there.
  template <class X>
  convert_options &compute_scale(X &&x) {
    return scale_ = detail::output(std::forward<X>(x)), flag(ATTEND_COMPUTE_SCALE);
  }

  attend_convert_options get() const noexcept {
    attend_convert_options o = c_;
    scale_.store(&o.scale);
    return o;
  }

 private:
  detail::slot scale_;
};

// Views, as options are.
class self_attention_weights {
 public:
  // (Dh, D, H), (Dh, D, Hkv), (Dv, D, Hkv): attend::matrix(w_q, {heads, out, in}).
  template <class Q, class K, class V>
  self_attention_weights(const Q &w_q, const K &w_k, const V &w_v) {
    w_q_ = detail::input(w_q);
    w_k_ = detail::input(w_k);
    w_v_ = detail::input(w_v);
  }
  // (Dh, 1, H), (Dh, 1, Hkv), (Dv, 1, Hkv): attend::tensor(b_q, {heads, 1, out}); of one head, a vector.
  template <class X>
  self_attention_weights &b_q(const X &x) {
    return b_q_ = detail::input(x), *this;
  }
  template <class X>
  self_attention_weights &b_k(const X &x) {
    return b_k_ = detail::input(x), *this;
  }
  template <class X>
  self_attention_weights &b_v(const X &x) {
    return b_v_ = detail::input(x), *this;
  }
  // (Dout, Dv, H): of an array [Dout, H, Dv], attend::columns(w_o, {Dout, Dv, H}, {H * Dv, 1, Dv}).
  template <class X>
  self_attention_weights &w_o(const X &x) {
    return w_o_ = detail::input(x), *this;
  }
  // (Dout), only with w_o.
  template <class X>
  self_attention_weights &b_o(const X &x) {
    return b_o_ = detail::input(x), *this;
  }

  attend_self_attention_weights get() const noexcept {
    attend_self_attention_weights w = ATTEND_SELF_ATTENTION_WEIGHTS_INIT;
    w_q_.store(&w.w_q);
    w_k_.store(&w.w_k);
    w_v_.store(&w.w_v);
    b_q_.store(&w.b_q);
    b_k_.store(&w.b_k);
    b_v_.store(&w.b_v);
    w_o_.store(&w.w_o);
    b_o_.store(&w.b_o);
    return w;
  }

 private:
  detail::slot w_q_, w_k_, w_v_, b_q_, b_k_, b_v_, w_o_, b_o_;
};

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_OPTIONS_HPP
