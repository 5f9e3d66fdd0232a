// The running state of rows, and its one merge.
//
// m is the maximum of the scores so far (base 2), l the sum of exp2(score - m), o the sum of exp2(score - m) times the
// values. Two such states over disjoint sets of keys become one by
//
//     m = max(m_a, m_b)     l = fma(l_a, 2^(m_a - m), l_b 2^(m_b - m))     o = fma(o_a, 2^(m_a - m), o_b 2^(m_b - m))
//
// (Milakov and Gimelshein, arXiv 1805.02867). Slices of keys, few rows, and parts that threads computed apart are all
// folded by this, in the order of the keys.
#pragma once

#include "kernels/attention/visibility.hpp"

namespace attend {
namespace {

template <class T>
struct Fold {
  vec<T> m, l, old_factor, new_factor;
};

template <class T>
ATTEND_INLINE Fold<T> fold(vec<T> m_old, vec<T> l_old, vec<T> m_new, vec<T> l_new) {
  Fold<T> f;
  f.m = maximum(m_new, m_old);
  const vec<T> shift = shift_of(f.m);
  f.old_factor = exp2_nonpositive(m_old - shift);
  f.new_factor = exp2_nonpositive(m_new - shift);
  f.l = fma(l_old, f.old_factor, l_new * f.new_factor);
  return f;
}

ATTEND_INLINE float fma(float a, float b, float c) { return fused(a, b, c); }
ATTEND_INLINE double fma(double a, double b, double c) { return fused(a, b, c); }

// The same for elements of o, of vectors and of scalars. `begins`: o_old is nothing yet, and not looked at.
template <class V>
ATTEND_INLINE V fold_output(bool begins, V o_old, V old_factor, V o_new, V new_factor) {
  const V r = o_new * new_factor;
  return begins ? r : fma(o_old, old_factor, r);
}

// 1 / l, or 0 where no key was seen.
template <class T>
ATTEND_INLINE vec<T> inverse_of(vec<T> l) {
  const vec<T> zero = broadcast(T(0));
  return select(l == zero, zero, divide(broadcast(T(1)), l));
}

// Folds a slice, its maxima in t.slice_m and its sums at hand, into the state of the lanes of vector i; leaves the
// factors for the output.
template <class T>
ATTEND_INLINE void fold_slice(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, int i,
                              vec<T> l) {
  constexpr int W = kLanes<T>;
  Fold<T> f = {load(t.slice_m + i * W), l, broadcast(T(0)), broadcast(T(1))};
  if (!slice.first || x.sinks != nullptr) {  // else 0 before and a factor of 1, as the fold has it
    f = fold(load(t.m + i * W), load(t.l + i * W), f.m, l);
    store(t.old_factor + i * W, f.old_factor);
  }
  store(t.new_factor + i * W, f.new_factor);
  store(t.m + i * W, f.m);
  store(t.l + i * W, f.l);
  if (slice.last) store(t.inverse + i * W, x.part ? broadcast(T(1)) : inverse_of(f.l));
}

// The slice's weights in place of its scores, [key][lane], and their fold.
template <class T>
void softmax_slice(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < t.vectors; ++i) {
    // exp2(-inf - -inf) would be NaN: where nothing is visible 0 is subtracted and every exponential is 0.
    const vec<T> shift = shift_of(load(t.slice_m + i * W));
    vec<T> l = broadcast(T(0));
    T *s = t.s + i * W;
    for (int64_t j = 0; j < slice.size(); ++j, s += t.lanes) {
      const vec<T> e = exp2_nonpositive(load(s) - shift);
      l = l + e;
      store(s, e);
    }
    fold_slice(x, t, slice, i, l);
  }
}

}  // namespace
}  // namespace attend
