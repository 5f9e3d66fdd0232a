// The running state of rows, and its one merge.
//
// m is the maximum of the scores so far, l the sum of exp(score - m), o the sum of exp(score - m) times the values: at
// first -inf, 0 and +0. Two such states over disjoint sets of keys become one by
//
//     m = max(m_a, m_b)     l = fma(l_a, e^(m_a - m), l_b e^(m_b - m))     o = fma(o_a, e^(m_a - m), o_b e^(m_b - m))
//
// (Milakov and Gimelshein, arXiv 1805.02867). It is used three times, each time in the order of the keys: chunks, also
// those that threads computed apart, are folded into the open span of Contract<T>::kKeySpan keys, spans into the whole,
// and last the sink. An empty state changes nothing but the sign of a zero, which is made + at the end: so it does not
// matter what chunks and spans a row shares with others that see more.
//
// Scores are natural, not in base 2: a bias of the type's largest number stays what it is, and a distance under ALiBi,
// or a mask added to a score, is rounded as the formula rounds it. That costs one product an exponential, 0.4 to 0.7 % of
// a call.
#pragma once

#include "kernels/attention/hidden_blocks.hpp"

namespace attend {
namespace {

// exp(a - b) for a <= b, b finite.
template <class T>
ATTEND_INLINE vec<T> exp_of_difference(vec<T> a, vec<T> b) {
  return exp2_nonpositive((a - b) * broadcast(ExpConstants<T>::kLog2E));
}

template <class T>
struct Fold {
  vec<T> m, l, old_factor, new_factor;
};

template <class T>
ATTEND_INLINE Fold<T> fold(vec<T> m_old, vec<T> l_old, vec<T> m_new, vec<T> l_new) {
  Fold<T> f;
  f.m = maximum(m_new, m_old);
  const vec<T> shift = shift_of(f.m);
  f.old_factor = exp_of_difference(m_old, shift);
  f.new_factor = exp_of_difference(m_new, shift);
  f.l = fma(l_old, f.old_factor, l_new * f.new_factor);
  return f;
}

ATTEND_INLINE float fma(float a, float b, float c) { return fused(a, b, c); }
ATTEND_INLINE double fma(double a, double b, double c) { return fused(a, b, c); }

// The same for elements of o, of vectors and of scalars; and the result: a product may be -0, which the sum is not.
template <class V>
ATTEND_INLINE V fold_output(V o_old, V old_factor, V o_new, V new_factor) {
  return fma(o_old, old_factor, o_new * new_factor);
}
template <class V>
ATTEND_INLINE V finish_output(V o, V factor, V zero) {
  return o * factor + zero;
}

// `count` elements of one row.
template <class T>
void fold_row(T *to, int64_t to_stride, vec<T> old_factor, const T *o, int64_t o_stride, vec<T> new_factor,
              int64_t count) {
  constexpr int W = kLanes<T>;
  for (int64_t f = 0; f < count; f += W) {
    const int64_t lanes = smaller<int64_t>(W, count - f);
    const vec<T> old = load_lanes<T>(to + f * to_stride, to_stride, lanes);
    const vec<T> part = load_lanes<T>(o + f * o_stride, o_stride, lanes);
    store_lanes(to + f * to_stride, to_stride, lanes, fold_output(old, old_factor, part, new_factor));
  }
}

// The state of rows over all keys, and their sinks (a score whose value is 0; -inf = none), together; the factor that
// makes of o the result. A part keeps its o as it is.
template <class T>
struct Finished {
  vec<T> m, l, factor;
};
template <class T>
ATTEND_INLINE Finished<T> finish(const AttentionBlock<T> &x, vec<T> m, vec<T> l, vec<T> sink) {
  const vec<T> one = broadcast(T(1)), least = broadcast(kMinusInfinity<T>);
  if (x.part) return {m, l, one};
  if (x.sinks == nullptr) return {m, l, inverse_or_zero(l)};
  const Fold<T> f = fold(m, l, sink, select(sink == least, broadcast(T(0)), one));
  return {f.m, f.l, f.old_factor * inverse_or_zero(f.l)};
}

// The state of the tile's rows in vector i over all keys: writes the block's m and l, and the factors.
template <class T>
ATTEND_INLINE void finish_rows(const AttentionBlock<T> &x, const QueryTile<T> &t, int i, vec<T> m, vec<T> l) {
  constexpr int W = kLanes<T>;
  const int64_t row = t.row + i * W;
  vec<T> sink = m;
  if (x.sinks != nullptr) {
    T sinks[W];
    for (int64_t lane = 0; lane < W; ++lane) {
      sinks[lane] = x.sinks[smaller(row + lane, x.rows - 1) / x.items * x.sink_stride];
    }
    sink = load(sinks);
  }
  const Finished<T> r = finish(x, m, l, sink);
  store(x.m + row, r.m);
  store(x.l + row, r.l);
  store(t.finish() + i * W, r.factor);
}

// Folds a slice, its maxima in t.slice_m() and its sums at hand, into the state of the lanes of vector i; leaves the
// factors for the output.
template <class T>
ATTEND_INLINE void fold_slice(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, int i,
                              vec<T> l) {
  constexpr int W = kLanes<T>;
  Fold<T> f;
  f.m = load(t.slice_m() + i * W);
  f.l = l;
  if (!slice.first) {  // else a factor of 1, as the fold of an empty state has it
    f = fold(load(t.m() + i * W), load(t.l() + i * W), f.m, l);
    store(t.old_factor() + i * W, f.old_factor);
    store(t.new_factor() + i * W, f.new_factor);
  }
  store(t.m() + i * W, f.m);
  store(t.l() + i * W, f.l);
  if (slice.last) finish_rows(x, t, i, f.m, f.l);
}

// The weights of the runs in place of their scores, [key][lane], and their fold.
template <class T>
void softmax_slice(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const KeyRuns &runs) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < t.vectors; ++i) {
    // -inf - -inf would be NaN: where nothing is visible 0 is subtracted and every weight is 0.
    const vec<T> shift = shift_of(load(t.slice_m() + i * W));
    vec<T> l = broadcast(T(0));
    for (int n = 0; n < runs.count; ++n) {
      T *s = t.s + (runs.run[n].begin - slice.begin) * t.lanes + i * W;
      for (int64_t j = runs.run[n].begin; j < runs.run[n].end; ++j, s += t.lanes) {
        const vec<T> e = exp_of_difference(load(s), shift);
        l = l + e;
        store(s, e);
      }
    }
    fold_slice(x, t, slice, i, l);
  }
}

// Closes the tile's open span, its o in t.output: into the whole, whose o is `out`.
template <class T>
void close_span(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < t.vectors; ++i) {
    const Fold<T> f =
        fold(load(t.span_m() + i * W), load(t.span_l() + i * W), load(t.m() + i * W), load(t.l() + i * W));
    store(t.span_m() + i * W, f.m);
    store(t.span_l() + i * W, f.l);
    store(t.old_factor() + i * W, f.old_factor);
    store(t.new_factor() + i * W, f.new_factor);
    store(t.m() + i * W, broadcast(kMinusInfinity<T>));
    store(t.l() + i * W, broadcast(T(0)));
  }
  for (int64_t i = 0; i < t.count; ++i) {
    fold_row(row_at(x, x.out, t.row + i), x.out.element_stride, broadcast(t.old_factor()[i]),
             x.by_features ? t.output + i * x.value_features : t.output + i, x.by_features ? 1 : t.lanes,
             broadcast(t.new_factor()[i]), x.value_features);
  }
}

}  // namespace
}  // namespace attend
