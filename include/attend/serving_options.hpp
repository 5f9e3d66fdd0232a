// attend: options of the calls that fill caches, for attend.hpp. options.hpp says what holds for all options.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_SERVING_OPTIONS_HPP
#define ATTEND_SERVING_OPTIONS_HPP

#include <attend/options.hpp>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

namespace detail {

// Integers of calls over ragged batches.
class token_integers {
 public:
  integers starts, offsets, positions, slots;

  // Whether they are one a batch and one a token of x.
  status check(const attend_tensor &x) const noexcept {
    const auto extent = [&](std::uint32_t d) { return d < x.rank && d < 4 ? x.shape[d] : 1; };
    const std::int64_t batch = starts.given() ? starts.count() - 1 : extent(3), tokens = product(extent(1), extent(3));
    if (!offsets.fit(batch)) return offsets.misfit("options.offsets", batch);
    if (!positions.fit(tokens)) return positions.misfit("options.positions", tokens, "the tokens are");
    return slots.fit(tokens) ? status() : slots.misfit("options.slots", tokens, "the tokens are");
  }
  template <class Struct>
  void store(Struct *o) const noexcept {
    starts.store(&o->starts);
    offsets.store(&o->offsets);
    positions.store(&o->positions);
    if (starts.given()) o->sequences = starts.count() - 1;
  }
};

}  // namespace detail

class rotary_options : public detail::head<rotary_options, attend_rotary_options> {
 public:
  // Pairs are features 2i and 2i + 1; by default i and i + rotary_dims / 2.
  rotary_options &interleaved() noexcept { return flag(ATTEND_ROTARY_INTERLEAVED); }
  // By the opposite angle.
  rotary_options &inverse() noexcept { return flag(ATTEND_ROTARY_INVERSE); }
  // The first so many features; all by default.
  rotary_options &rotary_dims(std::int64_t features) noexcept { return c_.rotary_dims = features, *this; }
  // std::int64_t, as all integers here: one a token, or one a batch, the position of its first token; 0 by default.
  template <class X>
  rotary_options &positions(const X &x) {
    return integers_.positions.set(x), *this;
  }
  template <class X>
  rotary_options &offsets(const X &x) {
    return integers_.offsets.set(x), *this;
  }
  // Sequences packed one after the other: the columns where they begin, and behind them the number of all columns.
  template <class X>
  rotary_options &starts(const X &x) {
    return integers_.starts.set(x), *this;
  }

  attend_rotary_options get() const noexcept {
    attend_rotary_options o = c_;
    integers_.store(&o);
    return o;
  }
  // Whether integers are as many as x wants.
  status check(const attend_tensor &x) const noexcept { return integers_.check(x); }

 private:
  detail::token_integers integers_;
};

class kv_append_options : public detail::head<kv_append_options, attend_kv_append_options> {
 public:
  // Tables: keys are rotated. The next three as in rotary_options.
  template <class Cos, class Sin>
  kv_append_options &rotary(const Cos &cos, const Sin &sin) {
    cos_ = detail::input(cos);
    sin_ = detail::input(sin);
    return *this;
  }
  kv_append_options &interleaved() noexcept { return flag(ATTEND_ROTARY_INTERLEAVED); }
  kv_append_options &rotary_dims(std::int64_t features) noexcept { return c_.rotary_dims = features, *this; }
  template <class X>
  kv_append_options &positions(const X &x) {
    return integers_.positions.set(x), *this;
  }
  // std::int64_t, one a batch: the column of its cache where its first new token goes; 0 by default.
  template <class X>
  kv_append_options &offsets(const X &x) {
    return integers_.offsets.set(x), *this;
  }
  // One a token, instead: page * page size + column; -1 = nowhere.
  template <class X>
  kv_append_options &slots(const X &x) {
    return integers_.slots.set(x), *this;
  }
  // Packed sequences, as in rotary_options.
  template <class X>
  kv_append_options &starts(const X &x) {
    return integers_.starts.set(x), *this;
  }
  // The page of each run of columns of a sequence, std::int32_t: attend::tensor(table, {batch, most pages}).
  template <class X>
  kv_append_options &pages(const X &x) {
    return pages_ = detail::input(x), *this;
  }
  // Of caches of ATTEND_I8 (required) or ATTEND_F8E4M3, of float: given, as for attention ...
  template <class X>
  kv_append_options &k_scale(const X &x) {
    c_.flags &= ~ATTEND_COMPUTE_K_SCALE;
    return k_scale_ = detail::input(x), *this;
  }
  template <class X>
  kv_append_options &v_scale(const X &x) {
    c_.flags &= ~ATTEND_COMPUTE_V_SCALE;
    return v_scale_ = detail::input(x), *this;
  }
  // ... or outputs, one of each token and head, shaped as the cache with one row.
  template <class X>
  kv_append_options &compute_k_scale(X &&x) {
    return k_scale_ = detail::output(std::forward<X>(x)), flag(ATTEND_COMPUTE_K_SCALE);
  }
  template <class X>
  kv_append_options &compute_v_scale(X &&x) {
    return v_scale_ = detail::output(std::forward<X>(x)), flag(ATTEND_COMPUTE_V_SCALE);
  }

  attend_kv_append_options get() const noexcept {
    attend_kv_append_options o = c_;
    integers_.store(&o);
    integers_.slots.store(&o.slots);
    pages_.store(&o.pages);
    k_scale_.store(&o.k_scale);
    v_scale_.store(&o.v_scale);
    cos_.store(&o.cos);
    sin_.store(&o.sin);
    return o;
  }
  status check(const attend_tensor &k) const noexcept { return integers_.check(k); }

 private:
  detail::token_integers integers_;
  detail::slot pages_, k_scale_, v_scale_, cos_, sin_;
};

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_SERVING_OPTIONS_HPP
