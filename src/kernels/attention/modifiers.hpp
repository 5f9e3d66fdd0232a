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

// c tanh(s / c): with z = |s / c| it is c (1 - e) / (1 + e), e = exp(-2 z); near 0, where 1 - e cancels, the Taylor series
// of tanh; nearer still, where tanh(z) is z, s itself, of which z has lost bits if c is huge. A c whose reciprocal would
// be infinite is scaled, and s with it.
template <class T>
ATTEND_INLINE vec<T> softcapped(vec<T> s, T cap) {
  constexpr T kSmall = sizeof(T) == 4 ? T(0.4) : T(0.1), kTiny = sizeof(T) == 4 ? T(1e-4) : T(1e-8);
  constexpr T kSeries[] = {T(-929569.0 / 638512875.0), T(21844.0 / 6081075.0), T(-1382.0 / 155925.0), T(62.0 / 2835.0),
                           T(-17.0 / 315.0),           T(2.0 / 15.0),          T(-1.0 / 3.0)};
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1));
  const T up = sizeof(T) == 4 ? (cap < T(0x1p-124) ? T(0x1p32) : T(1)) : (cap < T(0x1p-1020) ? T(0x1p64) : T(1));
  const vec<T> size = select(s < zero, zero - s, s), z = size * broadcast(up) * broadcast(T(1) / (cap * up));
  const vec_bool<T> is_small = z < broadcast(kSmall);
  const vec<T> e = exp2_nonpositive(z * broadcast(T(-2) * ExpConstants<T>::kLog2E));
  const vec<T> near = select(is_small, z, zero), near2 = near * near;  // (elsewhere the series would overflow)
  const vec<T> series = fma(polynomial(near2, kSeries) * near2, near, near);
  const vec<T> t = select(is_small, series, divide(one - e, one + e)) * broadcast(cap);
  return select(z < broadcast(kTiny), s, select(s < zero, zero - t, t));
}

// Adds the bias to what the mask left in a line for each of the rows: 0, or the -inf that stays.
template <class T, class S>
void added_lines(const AttentionBlock<T> &x, const RowsRef<const S> &bias, int64_t row, int64_t rows, int64_t key,
                 int64_t keys, T *lines) {
  constexpr int W = kLanes<T>;
  for (int64_t i = 0; i < rows; ++i) {
    T *line = lines + i * W;
    const S *b = row_at(x, bias, row + i) + key * bias.element_stride;
    if (keys == W && bias.element_stride == 1) {
      const vec<T> r = load(line);
      store(line, select(r == broadcast(T(0)), load_as<T>(b), r));
    } else {
      for (int64_t k = 0; k < keys; ++k) line[k] = line[k] == T(0) ? widened(b[k * bias.element_stride]) : line[k];
    }
  }
}

// What bias and mask add to the scores of the lanes from `row` of the block on, for `keys` keys (at most kLanes) from
// `key` on: [key][lane], -inf where they hide; the lanes without a row are 0.
template <class T>
ATTEND_INLINE void added_square(const AttentionBlock<T> &x, int64_t row, int64_t key, int64_t keys, T *added) {
  constexpr int W = kLanes<T>;
  const int64_t rows = smaller<int64_t>(W, x.rows - row), m_key = x.mask.element_stride;
  int64_t stride = 0;
  if (x.mask.data == nullptr && is_even(x, rows_as<T>(x.bias), &stride)) {
    return with_float<T>(x.bias.type, [&](auto stored) {
      const auto bias = rows_as<decltype(stored)>(x.bias);
      const int64_t b_key = bias.element_stride;
      pack_panel<T>(W, rows, keys, row_at(x, bias, row) + key * b_key, stride, b_key, T(1), added);
    });
  }
#ifdef ATTEND_HIDDEN_SQUARE
  if constexpr (sizeof(T) == sizeof(float)) {
    if (x.bias.data == nullptr && rows == W && keys == W && m_key == 1) {
      const uint8_t *of_row[W];
      for (int64_t i = 0; i < W; ++i) of_row[i] = row_at(x, x.mask, row + i) + key;
      return hidden_square(of_row, added);
    }
  }
#endif
  // A line for each row, then turned.
  T lines[W * W];
  for (int64_t i = 0; i < rows; ++i) {
    T *line = lines + i * W;
    store(line, broadcast(T(0)));
    if (x.mask.data != nullptr) {
      const uint8_t *m = row_at(x, x.mask, row + i) + key * m_key;
      if (keys == W && m_key == 1) {
        store(line, hidden_lanes<T>(m));
      } else {
        for (int64_t k = 0; k < keys; ++k) line[k] = m[k * m_key] != 0 ? T(0) : kMinusInfinity<T>;
      }
    }
  }
  if (x.bias.data != nullptr) {
    with_float<T>(x.bias.type,
                  [&](auto stored) { added_lines(x, rows_as<decltype(stored)>(x.bias), row, rows, key, keys, lines); });
  }
  pack_panel<T>(W, rows, keys, lines, W, 1, T(1), added);
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

// Turns the products of a run in t.s into scores of the given stage, and finds their maxima again. Whether bias or mask
// may hide something.
template <class T>
bool modify_scores(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeyRun &run, ScoresStage stage) {
  constexpr int W = kLanes<T>;
  const int64_t size = run.end - run.begin;
  const bool masks = stage >= ScoresStage::masked, adds = masks && run.adds;
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  const bool only_adds = adds && x.softcap == T(0) && x.slopes == nullptr && !run.hides;
  vec<T> hidden = zero;  // +inf where bias or mask are -inf
  T added[W * W];
  for (int i = 0; i < t.vectors; ++i) {
    vec<T> top = least;
    for (int64_t j0 = 0; j0 < size; j0 += W) {
      const int64_t keys = smaller<int64_t>(W, size - j0);
      T *at = t.s + j0 * t.lanes + i * W;
      if (adds) added_square(x, t.row + i * W, run.begin + j0, keys, added);
      if (only_adds && keys == W) {
        // The usual case. Four chains, since one of maxima would wait for itself.
        constexpr int kChains = W < 4 ? W : 4;
        vec<T> tops[kChains], hides[kChains];
        for (int c = 0; c < kChains; ++c) tops[c] = least, hides[c] = zero;
        ATTEND_UNROLL
        for (int j = 0; j < W; ++j, at += t.lanes) {
          const vec<T> a = load(added + j * W), s = select(a == least, least, load(at) + a);
          hides[j % kChains] = maximum(zero - a, hides[j % kChains]);
          tops[j % kChains] = maximum(s, tops[j % kChains]);
          store(at, s);
        }
        for (int c = 0; c < kChains; ++c) {
          top = maximum(tops[c], top);
          hidden = maximum(hides[c], hidden);
        }
        continue;
      }
      for (int64_t j = 0; j < keys; ++j, at += t.lanes) {
        const int64_t key = run.begin + j0 + j;
        vec<T> s = load(at);
        if (x.softcap != T(0) && stage >= ScoresStage::softcapped) s = softcapped(s, x.softcap);
        if (masks) {
          if (x.slopes != nullptr) {
            const vec<T> distance = distances<T>(x.position - key, t.item() + i * W);
            s = fma(maximum(distance, zero - distance), zero - load(t.slope() + i * W), s);
          }
          if (adds) {
            const vec<T> a = load(added + j * W);
            s = select(a == least, least, s + a);
            hidden = maximum(zero - a, hidden);
          }
          if (run.hides) s = hide(x, t, key, i, s);
        }
        top = maximum(s, top);
        store(at, s);
      }
    }
    store(t.slice_m() + i * W, top);
  }
  return any_infinite(hidden);
}

}  // namespace
}  // namespace attend
