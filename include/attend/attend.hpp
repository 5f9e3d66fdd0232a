// attend for C++17 and newer: the functions of attend.h on vectors, spans, pointers, C arrays and Eigen matrices.
//
// SPDX-License-Identifier: BSD-3-Clause
//
//     std::vector<float> q(heads * n * d), k(q), v(q);
//     const attend::extents shape{heads, n, d};
//     auto out = attend::attention(attend::tensor(q, shape), attend::tensor(k, shape), attend::tensor(v, shape),
//                                  attend::attention_options().causal_top_left());
//
// attend.h says what each function computes, its shapes, its aliasing rules and its bits, which are the same from here;
// tensor.hpp what an operand may be: an attend::tensor, an array that a call returned, or whatever knows its shape (an
// Eigen matrix, a C array; a vector is one column); element.hpp of what types, narrow ones of your own too. options.hpp
// and serving_options.hpp have the options; gradients.hpp attention_backward.
//
// Results.   Each function has two forms. Without an output it returns an attend::array, the one thing that the header
//            allocates. With one it writes there and returns nothing; that may be a temporary view, but not const.
// Errors.    attend::error is thrown, with reason(), argument() and what(), a sentence with the numbers at hand; nothing
//            was written then. With ATTEND_NO_EXCEPTIONS defined, or compiled without exceptions, functions return
//            attend::result<..> and attend::status instead, with that sentence in text().
// Memory.    As in attend.h: no call but those that return arrays allocates where a workspace is given.
// Threads.   Any function may be called from any number of threads at once.
#ifndef ATTEND_ATTEND_HPP
#define ATTEND_ATTEND_HPP

#include <attend/gradients.hpp>
#include <attend/serving_options.hpp>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

namespace detail {

template <class T>
constexpr bool is_byte = std::is_same_v<T, std::int8_t> || std::is_same_v<T, std::uint8_t>;
template <class A, class B>
using product_of = std::conditional_t<!is_byte<value_of<A>>, value_of<A>,
                                      std::conditional_t<is_byte<value_of<B>>, std::int32_t, value_of<B>>>;

inline returns<void> matmul(const attend_tensor &a, const attend_tensor &b, const attend_tensor &c,
                            const matmul_options &options) {
  return call(options,
              [&](const auto *o) { return attend_matmul(options.get_alpha(), &a, &b, options.get_beta(), &c, o); });
}
inline returns<void> softmax(const attend_tensor &x, const attend_tensor &y, const softmax_options &options) {
  return call(options, [&](const auto *o) { return attend_softmax(&x, &y, o); });
}
inline returns<void> softmax_backward(const attend_tensor &y, const attend_tensor &d_y, const attend_tensor &d_x,
                                      const softmax_backward_options &options) {
  return call(options, [&](const auto *o) { return attend_softmax_backward(&y, &d_y, &d_x, o); });
}
// Of the result of attention: packed queries have one, pages one for each column of the table.
inline std::int64_t batch_of(const attend_tensor &q, const attend_tensor &k, const attend_tensor &v,
                             const attention_options &options) {
  const attend_attention_options o = options.get();
  if (o.query_starts != nullptr) return 1;
  if (o.sequences > 0) return o.sequences;
  if (o.pages != nullptr) return extent(*o.pages, 1);
  return extent(q, 3) == 1 ? common(k, v, 3) : extent(q, 3);
}
inline returns<void> attention(const attend_tensor &q, const attend_tensor &k, const attend_tensor &v,
                               const attend_tensor &out, const attention_options &options) {
  if (const status s = options.check(extent(out, 3)); !s.ok()) return finish(s);
  return call(options, [&](const auto *o) { return attend_attention(&q, &k, &v, &out, o); });
}

// What all options have is said once here, with the attention's; attend.h wants it in the self-attention's.
inline attend_self_attention_options take_head(attend_attention_options *from) noexcept {
  attend_self_attention_options o = ATTEND_SELF_ATTENTION_OPTIONS_INIT;
  o.flags = from->flags & ATTEND_NATIVE_DOT;
  o.threads = std::exchange(from->threads, 0);
  o.workspace = std::exchange(from->workspace, nullptr);
  o.workspace_size = std::exchange(from->workspace_size, std::uint64_t{0});
  o.message = std::exchange(from->message, nullptr);
  o.message_size = std::exchange(from->message_size, std::uint64_t{0});
  o.executor = std::exchange(from->executor, nullptr);
  return o;
}
inline returns<void> self_attention(const attend_tensor &x, const self_attention_weights &weights,
                                    const attend_tensor &out, const attention_options &options) {
  if (const status s = options.check(extent(out, 3)); !s.ok()) return finish(s);
  return call(options, [&](attend_attention_options *o) {
    const attend_self_attention_options head = take_head(o);
    const attend_self_attention_weights w = weights.get();
    return attend_self_attention(&x, &w, &out, &head, o);
  });
}
inline returns<void> convert(const attend_tensor &x, const attend_tensor &y, const convert_options &options) {
  return call(options, [&](const auto *o) { return attend_convert(&x, &y, o); });
}

inline returns<void> rotary(const attend_tensor &x, const attend_tensor &cos, const attend_tensor &sin,
                            const attend_tensor &y, const rotary_options &options) {
  if (const status s = options.check(x); !s.ok()) return finish(s);
  return call(options, [&](const auto *o) { return attend_rotary(&x, &cos, &sin, &y, o); });
}
// v and v_cache may be null.
inline returns<void> kv_append(const attend_tensor &k, const attend_tensor *v, const attend_tensor &k_cache,
                               const attend_tensor *v_cache, const kv_append_options &options) {
  if (const status s = options.check(k); !s.ok()) return finish(s);
  return call(options, [&](const auto *o) { return attend_kv_append(&k, v, &k_cache, v_cache, o); });
}
inline returns<std::uint64_t> kv_append_workspace(const attend_tensor &k, const attend_tensor *v,
                                                  const attend_tensor &k_cache, const attend_tensor *v_cache,
                                                  const kv_append_options &options) {
  return ask([&](std::uint64_t *bytes) {
    return call(options, [&](const auto *o) { return attend_kv_append_workspace(&k, v, &k_cache, v_cache, o, bytes); });
  });
}

}  // namespace detail

// ---------------------------------------------------------------------------------------------------------- matmul --

// alpha A B + beta C (+ bias): a (M, K, H, B), b (K, N, H, B), c (M, N, H, B); heads and batch of a, b and bias
// broadcast. For a product by rows, let c be attend::matrix(memory, {M, N}).
template <class A, class B, class C, class = detail::unless_options<C>>
returns<void> matmul(const A &a, const B &b, C &&c, const matmul_options &options = {}) {
  return detail::matmul(detail::input(a), detail::input(b), detail::output(std::forward<C>(c)), options);
}
// Beta must be 0 here. The result has the elements of A; of B where A's are 8-bit integers and B's floating point; sums in
// std::int32_t where both are integers.
template <class A, class B>
returns<array<detail::product_of<A, B>>> matmul(const A &a, const B &b, const matmul_options &options = {}) {
  const attend_tensor ta = detail::input(a), tb = detail::input(b);
  const extents shape = {detail::extent(ta, 0), detail::extent(tb, 1), detail::common(ta, tb, 2),
                         detail::common(ta, tb, 3)};
  return detail::make<detail::product_of<A, B>>(shape, [&](const attend_tensor &c) {
    if (options.get_beta() != 0) {
      return detail::finish({ATTEND_INVALID_VALUE, "beta", "must be 0 without an output: there is no C to read."});
    }
    return detail::matmul(ta, tb, c, options);
  });
}
// Bytes of a workspace for the call, an upper bound from shapes, strides and options.threads alone. Data may be null:
// attend::tensor<float>(nullptr, {n, d}).
template <class A, class B, class C>
returns<std::uint64_t> matmul_workspace(const A &a, const B &b, C &&c, const matmul_options &options = {}) {
  const attend_tensor ta = detail::input(a), tb = detail::input(b), tc = detail::output(std::forward<C>(c));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options, [&](const auto *o) {
      return attend_matmul_workspace(options.get_alpha(), &ta, &tb, options.get_beta(), &tc, o, bytes);
    });
  });
}

// --------------------------------------------------------------------------------------------------------- softmax --

// Softmax down each column: x, y (M, N, H, B). y may be x.
template <class X, class Y, class = detail::unless_options<Y>>
returns<void> softmax(const X &x, Y &&y, const softmax_options &options = {}) {
  return detail::softmax(detail::input(x), detail::output(std::forward<Y>(y)), options);
}
template <class X>
returns<array<detail::value_of<X>>> softmax(const X &x, const softmax_options &options = {}) {
  const attend_tensor t = detail::input(x);
  return detail::make<detail::value_of<X>>(detail::shape_of(t),
                                           [&](const attend_tensor &y) { return detail::softmax(t, y, options); });
}
template <class X, class Y>
returns<std::uint64_t> softmax_workspace(const X &x, Y &&y, const softmax_options &options = {}) {
  const attend_tensor tx = detail::input(x), ty = detail::output(std::forward<Y>(y));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options, [&](const auto *o) { return attend_softmax_workspace(&tx, &ty, o, bytes); });
  });
}

// Its gradient: y, d_y, d_x (M, N, H, B). d_x may be d_y or y.
template <class Y, class DY, class DX, class = detail::unless_options<DX>>
returns<void> softmax_backward(const Y &y, const DY &d_y, DX &&d_x, const softmax_backward_options &options = {}) {
  return detail::softmax_backward(detail::input(y), detail::input(d_y), detail::output(std::forward<DX>(d_x)), options);
}
template <class Y, class DY>
returns<array<detail::value_of<Y>>> softmax_backward(const Y &y, const DY &d_y,
                                                     const softmax_backward_options &options = {}) {
  const attend_tensor t = detail::input(y), td = detail::input(d_y);
  return detail::make<detail::value_of<Y>>(
      detail::shape_of(t), [&](const attend_tensor &d_x) { return detail::softmax_backward(t, td, d_x, options); });
}
template <class Y, class DY, class DX>
returns<std::uint64_t> softmax_backward_workspace(const Y &y, const DY &d_y, DX &&d_x,
                                                  const softmax_backward_options &options = {}) {
  const attend_tensor ty = detail::input(y), td = detail::input(d_y), tx = detail::output(std::forward<DX>(d_x));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options,
                        [&](const auto *o) { return attend_softmax_backward_workspace(&ty, &td, &tx, o, bytes); });
  });
}

// ------------------------------------------------------------------------------------------------------- attention --

// V softmax(scale K^T Q): q (D, Nq, H, B), k (D, Nk, Hkv, B), v (Dv, Nk, Hkv, B), out (Dv, Nq, H, B).
template <class Q, class K, class V, class Out, class = detail::unless_options<Out>>
returns<void> attention(const Q &q, const K &k, const V &v, Out &&out, const attention_options &options = {}) {
  return detail::attention(detail::input(q), detail::input(k), detail::input(v), detail::output(std::forward<Out>(out)),
                           options);
}
template <class Q, class K, class V>
returns<array<detail::value_of<Q>>> attention(const Q &q, const K &k, const V &v,
                                              const attention_options &options = {}) {
  const attend_tensor tq = detail::input(q), tk = detail::input(k), tv = detail::input(v);
  const extents shape = {detail::extent(tv, 0), detail::extent(tq, 1), detail::extent(tq, 2),
                         detail::batch_of(tq, tk, tv, options)};
  return detail::make<detail::value_of<Q>>(
      shape, [&](const attend_tensor &out) { return detail::attention(tq, tk, tv, out, options); });
}
template <class Q, class K, class V, class Out>
returns<std::uint64_t> attention_workspace(const Q &q, const K &k, const V &v, Out &&out,
                                           const attention_options &options = {}) {
  const attend_tensor tq = detail::input(q), tk = detail::input(k), tv = detail::input(v);
  const attend_tensor to = detail::output(std::forward<Out>(out));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options,
                        [&](const auto *o) { return attend_attention_workspace(&tq, &tk, &tv, &to, o, bytes); });
  });
}

// The union of two disjoint key sets, into out_a (Dv, Nq, H, B) and lse_a (1, Nq, H, B), which hold one of them before;
// out_b and lse_b, of the same shapes, hold the other.
template <class OutA, class LseA, class OutB, class LseB>
returns<void> attention_merge(OutA &&out_a, LseA &&lse_a, const OutB &out_b, const LseB &lse_b,
                              const merge_options &options = {}) {
  const attend_tensor oa = detail::output(std::forward<OutA>(out_a)), ob = detail::input(out_b);
  const attend_tensor la = detail::output(std::forward<LseA>(lse_a)), lb = detail::input(lse_b);
  return detail::call(options, [&](const auto *o) { return attend_attention_merge(&oa, &la, &ob, &lb, o); });
}
// Says 0.
template <class OutA, class LseA, class OutB, class LseB>
returns<std::uint64_t> attention_merge_workspace(OutA &&out_a, LseA &&lse_a, const OutB &out_b, const LseB &lse_b,
                                                 const merge_options &options = {}) {
  const attend_tensor oa = detail::output(std::forward<OutA>(out_a)), ob = detail::input(out_b);
  const attend_tensor la = detail::output(std::forward<LseA>(lse_a)), lb = detail::input(lse_b);
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options,
                        [&](const auto *o) { return attend_attention_merge_workspace(&oa, &la, &ob, &lb, o, bytes); });
  });
}

// -------------------------------------------------------------------------------------------------- self-attention --

// Projections, attention, and with w_o the output projection: x (D, N, 1, B), out (Dv, N, H, B), or (Dout, N, 1, B).
// One set of options serves both: threads, workspace and executor are those of the whole call.
template <class X, class Out, class = detail::unless_options<Out>>
returns<void> self_attention(const X &x, const self_attention_weights &weights, Out &&out,
                             const attention_options &options = {}) {
  return detail::self_attention(detail::input(x), weights, detail::output(std::forward<Out>(out)), options);
}
template <class X>
returns<array<detail::value_of<X>>> self_attention(const X &x, const self_attention_weights &weights,
                                                   const attention_options &options = {}) {
  const attend_tensor t = detail::input(x);
  const attend_self_attention_weights w = weights.get();
  const std::int64_t rows = detail::extent(w.w_o != nullptr ? *w.w_o : *w.w_v, 0);
  const std::int64_t heads = w.w_o != nullptr ? 1 : detail::extent(*w.w_q, 2);
  return detail::make<detail::value_of<X>>(
      {rows, detail::extent(t, 1), heads, detail::extent(t, 3)},
      [&](const attend_tensor &out) { return detail::self_attention(t, weights, out, options); });
}
template <class X, class Out>
returns<std::uint64_t> self_attention_workspace(const X &x, const self_attention_weights &weights, Out &&out,
                                                const attention_options &options = {}) {
  const attend_tensor t = detail::input(x), to = detail::output(std::forward<Out>(out));
  const attend_self_attention_weights w = weights.get();
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options, [&](attend_attention_options *o) {
      const attend_self_attention_options head = detail::take_head(o);
      return attend_self_attention_workspace(&t, &w, &to, &head, o, bytes);
    });
  });
}

// --------------------------------------------------------------------------------------------------------- convert --

// Any element type but bool to any other: x, y (M, N, H, B). y may be x where elements have one size.
template <class X, class Y, class = detail::unless_options<Y>>
returns<void> convert(const X &x, Y &&y, const convert_options &options = {}) {
  return detail::convert(detail::input(x), detail::output(std::forward<Y>(y)), options);
}
// attend::convert<std::int8_t>(x, attend::convert_options().compute_scale(scale))
template <class To, class X>
returns<array<To>> convert(const X &x, const convert_options &options = {}) {
  const attend_tensor t = detail::input(x);
  return detail::make<To>(detail::shape_of(t), [&](const attend_tensor &y) { return detail::convert(t, y, options); });
}
// Says 0.
template <class X, class Y>
returns<std::uint64_t> convert_workspace(const X &x, Y &&y, const convert_options &options = {}) {
  const attend_tensor tx = detail::input(x), ty = detail::output(std::forward<Y>(y));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options, [&](const auto *o) { return attend_convert_workspace(&tx, &ty, o, bytes); });
  });
}

// ----------------------------------------------------------------------------------------------- rotary and caches --

// Each pair of features of a token turned by the angle of its position: x, y (D, N, H, B), cos and sin (rotary_dims / 2,
// positions, 1 or H, 1 or B). y may be x.
template <class X, class Cos, class Sin, class Y, class = detail::unless_options<Y>>
returns<void> rotary(const X &x, const Cos &cos, const Sin &sin, Y &&y, const rotary_options &options = {}) {
  return detail::rotary(detail::input(x), detail::input(cos), detail::input(sin), detail::output(std::forward<Y>(y)),
                        options);
}
template <class X, class Cos, class Sin>
returns<array<detail::value_of<X>>> rotary(const X &x, const Cos &cos, const Sin &sin,
                                           const rotary_options &options = {}) {
  const attend_tensor t = detail::input(x), tc = detail::input(cos), ts = detail::input(sin);
  return detail::make<detail::value_of<X>>(
      detail::shape_of(t), [&](const attend_tensor &y) { return detail::rotary(t, tc, ts, y, options); });
}
// Says 0.
template <class X, class Cos, class Sin, class Y>
returns<std::uint64_t> rotary_workspace(const X &x, const Cos &cos, const Sin &sin, Y &&y,
                                        const rotary_options &options = {}) {
  const attend_tensor tx = detail::input(x), tc = detail::input(cos), ts = detail::input(sin),
                      ty = detail::output(std::forward<Y>(y));
  return detail::ask([&](std::uint64_t *bytes) {
    return detail::call(options, [&](const auto *o) { return attend_rotary_workspace(&tx, &tc, &ts, &ty, o, bytes); });
  });
}

// New keys (D, new, Hkv, B) and values into their caches, (D, capacity, Hkv, B) or pools of pages.
template <class K, class V, class KCache, class VCache, class = detail::unless_options<VCache>>
returns<void> kv_append(const K &k, const V &v, KCache &&k_cache, VCache &&v_cache,
                        const kv_append_options &options = {}) {
  const attend_tensor tv = detail::input(v), to = detail::output(std::forward<VCache>(v_cache));
  return detail::kv_append(detail::input(k), &tv, detail::output(std::forward<KCache>(k_cache)), &to, options);
}
// Keys alone, of which values are a part.
template <class K, class KCache, class = detail::unless_options<KCache>>
returns<void> kv_append(const K &k, KCache &&k_cache, const kv_append_options &options = {}) {
  return detail::kv_append(detail::input(k), nullptr, detail::output(std::forward<KCache>(k_cache)), nullptr, options);
}
// 8 bytes a token and up to 126 more with slots, else 0.
template <class K, class V, class KCache, class VCache>
returns<std::uint64_t> kv_append_workspace(const K &k, const V &v, KCache &&k_cache, VCache &&v_cache,
                                           const kv_append_options &options = {}) {
  const attend_tensor tv = detail::input(v), to = detail::output(std::forward<VCache>(v_cache));
  return detail::kv_append_workspace(detail::input(k), &tv, detail::output(std::forward<KCache>(k_cache)), &to,
                                     options);
}
template <class K, class KCache>
returns<std::uint64_t> kv_append_workspace(const K &k, KCache &&k_cache, const kv_append_options &options = {}) {
  return detail::kv_append_workspace(detail::input(k), nullptr, detail::output(std::forward<KCache>(k_cache)), nullptr,
                                     options);
}

// --------------------------------------------------------------------------------------------------------- library --

// These are attend.h's, function by function.
inline std::uint32_t version() noexcept { return attend_version(); }
inline std::uint32_t contract() noexcept { return attend_contract(); }

inline const char *isa() noexcept { return attend_isa(); }
// Null past the last.
inline const char *isa_name(std::int32_t i) noexcept { return attend_isa_name(i); }
// Null = the best.
inline returns<void> set_isa(const char *name) { return detail::finish(attend_set_isa(name)); }

inline std::int32_t threads() noexcept { return attend_threads(); }
// 0 = the default.
inline returns<void> set_threads(std::int32_t threads) { return detail::finish(attend_set_threads(threads)); }

// For all calls that name none of their own; null = the library's threads again. The executor must live until it is
// replaced and every call that began before has returned.
inline returns<void> set_executor(const executor *e) {
  return detail::finish(attend_set_executor(e == nullptr ? nullptr : &e->c()));
}

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_ATTEND_HPP
