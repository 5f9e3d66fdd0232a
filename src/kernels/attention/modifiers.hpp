// What becomes of the scores between the products and the exponentials: softcap, ALiBi, bias, mask, and what positions
// hide. A call that asks for none of these never comes here, but for the keys around its diagonal.
#pragma once

#include "kernels/attention/scores.hpp"

namespace attend {
namespace {

// Whether the run's scores are more than products.
template <class T>
ATTEND_INLINE bool is_modified(const AttentionBlock<T> &x, const KeyRun &run) {
  return run.hides || run.adds || x.softcap != T(0) || x.slopes != nullptr;
}

// Whether that is what the mask hides, which is known (hidden_of), and nothing else.
template <class T>
ATTEND_INLINE bool only_masks(const AttentionBlock<T> &x, const KeyRun &run) {
  return !run.hides && x.bias.data == nullptr && x.softcap == T(0) && x.slopes == nullptr && keeps_hidden(x);
}

// c tanh(s / c): with z = |s / c| it is c (1 - e) / (1 + e), e = exp(-2 z); near 0, where 1 - e cancels, the Taylor series
// of tanh; nearer still, where tanh(z) is z, s itself, of which z has lost bits if c is huge. A c whose reciprocal would
// be infinite is scaled, and s with it.
template <class T>
struct Softcap {
  static constexpr T kSmall = sizeof(T) == 4 ? T(0.4) : T(0.1), kTiny = sizeof(T) == 4 ? T(1e-4) : T(1e-8);
  T cap, up, inverse;
  explicit Softcap(T c) : cap(c) {
    up = sizeof(T) == 4 ? (cap < T(0x1p-124) ? T(0x1p32) : T(1)) : (cap < T(0x1p-1020) ? T(0x1p64) : T(1));
    inverse = T(1) / (cap * up);
  }
  // |s|, and z of it.
  ATTEND_INLINE static vec<T> magnitude(vec<T> s) {
    const vec<T> zero = broadcast(T(0));
    return select(s < zero, zero - s, s);
  }
  ATTEND_INLINE vec<T> ratio(vec<T> size) const { return size * broadcast(up) * broadcast(inverse); }
  // kNear: all of them are so near to 0.
  template <bool kNear = false>
  ATTEND_INLINE vec<T> operator()(vec<T> s) const {
    constexpr T kSeries[] = {
        T(-929569.0 / 638512875.0), T(21844.0 / 6081075.0), T(-1382.0 / 155925.0), T(62.0 / 2835.0),
        T(-17.0 / 315.0),           T(2.0 / 15.0),          T(-1.0 / 3.0)};
    const vec<T> zero = broadcast(T(0)), z = ratio(magnitude(s));
    vec<T> near = z;
    if constexpr (!kNear) near = select(z < broadcast(kSmall), z, zero);  // (elsewhere the series would overflow)
    const vec<T> near2 = near * near;
    vec<T> t = fma(polynomial(near2, kSeries) * near2, near, near);
    if constexpr (!kNear) {
      const vec<T> one = broadcast(T(1)), e = exp2_nonpositive(z * broadcast(T(-2) * ExpConstants<T>::kLog2E));
      t = select(z < broadcast(kSmall), t, divide(one - e, one + e));
    }
    t = t * broadcast(cap);
    return select(z < broadcast(kTiny), s, select(s < zero, zero - t, t));
  }
};

// The scores of `keys` keys and a vector of rows; the greatest of each lane. Most models' caps are far above nearly all of
// their scores: where all of a square are near 0, which is asked once, they take half the time.
template <class T>
ATTEND_INLINE vec<T> cap_square(const Softcap<T> &capped, T *at, int64_t lanes, int64_t keys) {
  vec<T> size = broadcast(T(0)), top = broadcast(kMinusInfinity<T>);
  for (int64_t j = 0; j < keys; ++j) size = maximum(Softcap<T>::magnitude(load(at + j * lanes)), size);
  const auto each = [&](auto near) __attribute__((always_inline)) {
    for (int64_t j = 0; j < keys; ++j) {
      const vec<T> s = capped.template operator()<decltype(near)::value != 0>(load(at + j * lanes));
      top = maximum(s, top);
      store(at + j * lanes, s);
    }
  };
  all(capped.ratio(size) < broadcast(Softcap<T>::kSmall)) ? each(Int<1>()) : each(Int<0>());
  return top;
}

// What the bias adds to the scores of the lanes from `row` of the block on, for `keys` keys (at most kLanes) from `key` on: a
// row for each key, a column for each lane; a whole square of the type T in place, if it may, else copied, the lanes without a
// row 0.
template <class T>
ATTEND_INLINE MatrixRef<const T> bias_square(const AttentionBlock<T> &x, int64_t row, int64_t key, int64_t keys,
                                             bool in_place, T *copy) {
  constexpr int W = kLanes<T>;
  const int64_t rows = smaller<int64_t>(W, x.rows - row), step = x.bias.element_stride;
  int64_t stride = 0;
  const RowsRef<const T> own = rows_as<T>(x.bias);
  const bool even = is_even(x, own, &stride);
  if (in_place && even && step == 1 && rows == W && keys == W && !is_narrow<T>(x.bias.type)) {
    return {row_at(x, own, row) + key, 1, stride};
  }
  with_float<T>(x.bias.type, [&](auto stored) {
    using S = decltype(stored);
    const RowsRef<const S> bias = rows_as<S>(x.bias);
    if (even) return pack_panel<T>(W, rows, keys, row_at(x, bias, row) + key * step, stride, step, T(1), copy);
    for (int64_t i = 0; i < W; ++i) {
      const S *b = row_at(x, bias, row + smaller(i, rows - 1)) + key * step;
      for (int64_t k = 0; k < keys; ++k) copy[k * W + i] = i < rows ? widened(b[k * step]) : T(0);
    }
  });
  return {copy, W, 1};
}

// The keys that the mask hides, as bits of each lane's row (HiddenKeys), for `keys` keys (at most kSegment) from `key` on.
// Whether there are any.
template <class T>
ATTEND_INLINE bool hidden_bits(const AttentionBlock<T> &x, int64_t row, int64_t key, int64_t keys, uint32_t *bits) {
  constexpr int W = kLanes<T>;
  const int64_t rows = smaller<int64_t>(W, x.rows - row), step = x.mask.element_stride;
  int64_t stride = 0;
  for (int i = 0; i < W; ++i) bits[i] = 0;
  if (is_even(x, x.mask, &stride) && stride == 1 && rows == W && step != 1) {  // rows side by side: all of them at once
    const uint8_t *m = row_at(x, x.mask, row) + key * step;
    for (int64_t k = 0; k < keys; ++k, m += step) {
      for (int i = 0; i < W; ++i) bits[i] |= static_cast<uint32_t>(m[i] == 0) << k;
    }
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      const uint8_t *m = row_at(x, x.mask, row + i) + key * step;
      if (step == 1 && keys == kSegment) {
        bits[i] = zero_bytes(m);
      } else {
        for (int64_t k = 0; k < keys; ++k) bits[i] |= static_cast<uint32_t>(m[k * step] == 0) << k;
      }
    }
  }
  uint32_t any = 0;
  for (int i = 0; i < W; ++i) any |= bits[i];
  return any != 0;
}

// ahead + item, each rounded once: the bits must not depend on the lane that a row has.
template <class T>
ATTEND_INLINE vec<T> distances(int64_t ahead, const T *item) {
  constexpr int64_t kExact = 1 << 23;  // with an item added still exact in float
  if (ahead <= kExact && ahead >= -kExact) return load(item) + broadcast(static_cast<T>(ahead));
  T lanes[kLanes<T>];
  for (int l = 0; l < kLanes<T>; ++l) lanes[l] = static_cast<T>(ahead + static_cast<int64_t>(item[l]));
  return load(lanes);
}

// The products of a run in t.s, each key's times its number, and their maxima again.
template <class T>
__attribute__((noinline)) void scale_scores(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key,
                                            int64_t keys) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < t.vectors; ++i) {
    vec<T> top = broadcast(kMinusInfinity<T>);
    T *at = t.s + i * W;
    for (int64_t j = 0; j < keys; ++j, at += t.lanes) {
      const vec<T> s = load(at) * broadcast(scale_at(x, x.k_scale, x.pages.of_k_scale, key + j));
      top = maximum(s, top);
      store(at, s);
    }
    store(t.slice_m() + i * W, top);
  }
}

// The weights of a slice, each key's times its number; a weight of 0 stays 0, whatever the number of a key that is hidden.
template <class T>
__attribute__((noinline)) void scale_weights(const AttentionBlock<T> &x, const QueryTile<T> &t,
                                             const KeySlice<T> &slice) {
  constexpr int W = kLanes<T>;
  const vec<T> zero = broadcast(T(0));
  const auto scaled = [&](vec<T> weight, vec<T> scale) { return select(weight == zero, zero, weight * scale); };
  if (t.s_row != 1) {  // [row][key]
    for (int64_t j = 0; j < slice.size(); j += W) {
      const vec<T> scale =
          scales_of(x, x.v_scale, x.pages.of_v_scale, slice.begin + j, smaller<int64_t>(W, slice.size() - j));
      for (int64_t q = 0; q < t.count; ++q) store(t.s + q * t.s_row + j, scaled(load(t.s + q * t.s_row + j), scale));
    }
    return;
  }
  for (int64_t j = 0; j < slice.size(); ++j) {
    const vec<T> scale = broadcast(scale_at(x, x.v_scale, x.pages.of_v_scale, slice.begin + j));
    for (int64_t i = 0; i < t.lanes; i += W) store(t.s + j * t.s_key + i, scaled(load(t.s + j * t.s_key + i), scale));
  }
}

// The scores of kLanes keys, one after the other: stored where they come from, and the greatest of each lane, in several chains,
// since one of maxima would wait for itself.
template <class T>
struct SquareOfScores {
  static constexpr int kChains = kLanes<T> < 4 ? kLanes<T> : 4;
  T *at;
  int64_t lanes;
  vec<T> tops[kChains];
  ATTEND_INLINE SquareOfScores(const QueryTile<T> &t, T *first) : at(first), lanes(t.lanes) {
    for (vec<T> &top : tops) top = broadcast(kMinusInfinity<T>);
  }
  ATTEND_INLINE vec<T> next() const { return load(at); }
  ATTEND_INLINE void put(int chain, vec<T> s) {
    tops[chain] = maximum(s, tops[chain]);
    store(at, s);
    at += lanes;
  }
  ATTEND_INLINE vec<T> greatest() const {
    vec<T> top = tops[0];
    for (int c = 1; c < kChains; ++c) top = maximum(tops[c], top);
    return top;
  }
};
template <class T>
ATTEND_INLINE vec<T> add_mask(SquareOfScores<T> scores, HiddenKeys<T> *keys) {
  constexpr int kChains = SquareOfScores<T>::kChains;
  for (int j = 0; j < kLanes<T>; j += kChains) {
    ATTEND_UNROLL
    for (int c = 0; c < kChains; ++c) scores.put(c, keys->hide_next(scores.next()));
  }
  return scores.greatest();
}
// A bias in place is turned in registers.
template <class T>
ATTEND_INLINE vec<T> add_bias(SquareOfScores<T> scores, const MatrixRef<const T> &bias, vec<T> *hidden) {
  constexpr int W = kLanes<T>, kChains = SquareOfScores<T>::kChains;
  const vec<T> least = broadcast(kMinusInfinity<T>);
  const auto add = [&](int j, vec<T> a) __attribute__((always_inline)) {
    const vec_bool<T> hides = a == least;
    *hidden = select(hides, least, *hidden);
    scores.put(j % kChains, select(hides, least, scores.next() + a));
  };
  if (bias.row_stride == 1) {
    each_column<T>(bias.data, bias.col_stride, add);
  } else {
    for (int j = 0; j < W; j += kChains) {
      ATTEND_UNROLL
      for (int c = 0; c < kChains; ++c) add(c, load(bias.data + (j + c) * W));
    }
  }
  return scores.greatest();
}

// Turns the products of a run in t.s into scores of the given stage, and finds their maxima again. Whether bias or mask
// may hide something. `kept`: what the mask hides has been looked at (hidden_of).
template <class T>
bool modify_scores(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeyRun &run, ScoresStage stage, bool kept) {
  constexpr int W = kLanes<T>;
  static_assert(kSegment % W == 0 && kSegment == 32, "bits of a key for each lane");
  const int64_t size = run.end - run.begin;
  const bool masked = stage >= ScoresStage::masked, caps = x.softcap != T(0) && stage >= ScoresStage::softcapped;
  const bool has_mask = masked && run.adds && x.mask.data != nullptr;
  const bool has_bias = masked && run.adds && x.bias.data != nullptr;
  const bool nothing_else = !masked || (x.slopes == nullptr && !run.hides),
             only_adds = nothing_else && (has_mask || has_bias);
  kept = kept && keeps_hidden(x) && run.begin % kSegment == 0;
  const Softcap<T> capped(caps ? x.softcap : T(1));  // (1 / 0 would raise its flag)
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  vec<T> hidden = zero;  // -inf where the bias is
  bool hides = false;    // the mask
  T copy[W * W];
  MatrixRef<const T> bias = {copy, W, 1};
  for (int i = 0; i < t.vectors; ++i) {
    vec<T> top = least;
    uint32_t bits[W] = {};
    HiddenKeys<T> of_mask(bits);
    for (int64_t j0 = 0; j0 < size; j0 += W) {
      const int64_t row = t.row + i * W, key = run.begin + j0, keys = smaller<int64_t>(W, size - j0);
      T *at = t.s + j0 * t.lanes + i * W;
      if (caps) {
        const vec<T> of_square = cap_square(capped, at, t.lanes, keys);
        if (nothing_else && !only_adds) {
          top = maximum(of_square, top);
          continue;
        }
      }
      if (has_mask && kept && j0 % kSegment == 0) {
        hides = true;
        of_mask = HiddenKeys<T>(hidden_of(x, key, row));
      } else if (has_mask && j0 % kSegment == 0) {
        hides |= hidden_bits(x, row, key, smaller(kSegment, size - j0), bits);
        of_mask = HiddenKeys<T>(bits);
      }
      if (has_bias) bias = bias_square(x, row, key, keys, only_adds, copy);
      if (only_adds && keys == W) {  // the usual case
        vec<T> of_square = least;
        if (has_bias) of_square = add_bias<T>({t, at}, bias, &hidden);
        if (has_mask) of_square = add_mask<T>({t, at}, &of_mask);
        top = maximum(of_square, top);
        continue;
      }
      for (int64_t j = 0; j < keys; ++j, at += t.lanes) {
        vec<T> s = load(at);
        if (masked && x.slopes != nullptr) {
          const vec<T> distance = distances<T>(x.position - key - j, t.item() + i * W);
          s = fma(maximum(distance, zero - distance), zero - load(t.slope() + i * W), s);
        }
        if (has_bias) {
          const vec<T> a = load(bias.data + j * W);
          const vec_bool<T> of_key = a == least;
          s = select(of_key, least, s + a);
          hidden = select(of_key, least, hidden);
        }
        if (has_mask) s = of_mask.hide_next(s);
        if (masked && run.hides) s = hide(x, t, key + j, i, s);
        top = maximum(s, top);
        store(at, s);
      }
    }
    store(t.slice_m() + i * W, top);
  }
  return hides || any(hidden == least);
}

}  // namespace
}  // namespace attend
