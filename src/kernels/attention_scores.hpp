// The scores of attention.hpp: S = scale K^T Q of a slice of keys, and what masks, biases and the softcap make of them.
#pragma once

#include "kernels/attention_output.hpp"

namespace attend {
namespace {

// Bias and mask, which group_refine wants next, come from memory where they are large: their lines are asked for while
// the products are computed.
template <class T>
ATTEND_INLINE void ask_for_added(const AttentionBlock<T> &x, const Group<T> &g, int64_t key) {
  if (x.bias != nullptr && x.bias_key == 1 && x.bias_item != 0) {
    const T *from = x.bias + key + g.first * x.bias_item;
    for (int64_t i = 0; i < g.count; ++i) __builtin_prefetch(from + i * x.bias_item, 0, 2);
  }
  if (x.mask != nullptr && x.mask_key == 1 && x.mask_item != 0) {
    const uint8_t *from = x.mask + key + g.first * x.mask_item;
    for (int64_t i = 0; i < g.count; ++i) __builtin_prefetch(from + i * x.mask_item, 0, 2);
  }
}

// Scores of the slice for group g into g.s; their maxima into g.chunk_maximum.
template <class T, int MV>
void score_tiles(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  constexpr int NR = score_columns<T, MV>, W = kLanes<T>, QL = MV * W;
  vec<T> top[MV];
  for (int i = 0; i < MV; ++i) top[i] = broadcast(kMinusInfinity<T>);
  const int64_t k_item = slice.k_item, keys = slice.size(), width = keys <= NR ? keys : balanced(keys, NR);
  for (int64_t j = 0; j < keys; j += width) {
    with_constant<NR>(
        smaller(width, keys - j), [&](auto nr) __attribute__((always_inline)) {
          Tile<T, MV, decltype(nr)::value> tile;
          tile.zero();
          const T *k = slice.k + j * k_item;
          if (MV == 1 && decltype(nr)::value == NR && x.far) {
            // A line of the keys two tiles on, and one of this tile's values, for each feature.
            const intptr_t apart =
                reinterpret_cast<intptr_t>(slice.v + j * x.v_item) - reinterpret_cast<intptr_t>(k + 2 * NR * k_item);
            const Prefetches<T> ahead = {k + 2 * NR * k_item, apart / static_cast<intptr_t>(sizeof(T)), NR};
            tile.accumulate(x.features, g.queries, QL, k, x.k_feature, k_item, ahead);
          } else {
            tile.template accumulate<false>(x.features, g.queries, QL, k, x.k_feature, k_item, Tail<T>(W));
          }
          ask_for_added(x, g, slice.begin + j);
          T *s = g.s + j * QL;
          tile.each([&](int i, int jj, vec<T> v) __attribute__((always_inline)) {
            store(s + jj * QL + i * W, v);
            top[i] = maximum(v, top[i]);
          });
        });
  }
  for (int i = 0; i < MV; ++i) store(g.chunk_maximum + i * W, top[i]);
}

template <class T>
ATTEND_INLINE void group_scores(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  with_constant<Tiles<T>::kScoreVectors>(
      g.vectors, [&](auto mv) __attribute__((always_inline)) { score_tiles<T, decltype(mv)::value>(x, g, slice); });
}

// c tanh(s / c), where s and c both carry log2(e): with z = |s / c| it is (1 - e) / (1 + e), e = exp(-2 z). Near 0,
// where 1 - e cancels, it is the Taylor series of tanh.
template <class T>
ATTEND_INLINE vec<T> softcapped(vec<T> s, T cap) {
  constexpr T kSmall = sizeof(T) == 4 ? T(0.4) : T(0.1);
  constexpr T kSeries[] = {T(-929569.0 / 638512875.0), T(21844.0 / 6081075.0), T(-1382.0 / 155925.0), T(62.0 / 2835.0),
                           T(-17.0 / 315.0),           T(2.0 / 15.0),          T(-1.0 / 3.0)};
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1));
  const vec<T> size = select(s < zero, zero - s, s);
  const vec<T> z = size * broadcast(T(1) / cap), z2 = z * z;
  const vec<T> e = exp2_nonpositive(z * broadcast(T(-2) * ExpConstants<T>::kLog2E));
  const vec<T> series = fma(polynomial(z2, kSeries) * z2, z, z);
  const vec<T> t = select(z < broadcast(kSmall), series, divide(one - e, one + e)) * broadcast(cap);
  return select(s < zero, zero - t, t);
}

// What bias and mask add to the scores of the lanes from query `q` of the block on, for `keys` keys (at most kLanes)
// from `key` on, in base 2: [key][lane], -inf where they hide; the lanes without a query are 0.
template <class T>
ATTEND_INLINE void added_square(const AttentionBlock<T> &x, int64_t q, int64_t key, int64_t keys, T *added) {
  constexpr int W = kLanes<T>;
  const int64_t queries = smaller<int64_t>(W, x.queries - q);
  const T *bias = x.bias == nullptr ? nullptr : x.bias + key * x.bias_key + q * x.bias_item;
  if (x.mask == nullptr) {
    pack_panel<T>(W, queries, keys, bias, x.bias_item, x.bias_key, ExpConstants<T>::kLog2E, added);
  } else {
    // Rows of a query each, then turned.
    const uint8_t *mask = x.mask + key * x.mask_key + q * x.mask_item;
    T rows[W * W];
    for (int64_t i = 0; i < queries; ++i) {
      const uint8_t *m = mask + i * x.mask_item;
      T *row = rows + i * W;
      if (keys == W && x.mask_key == 1) {
        store(row, hidden_lanes<T>(m));
      } else {
        for (int64_t k = 0; k < keys; ++k) row[k] = m[k * x.mask_key] != 0 ? T(0) : kMinusInfinity<T>;
      }
      if (bias == nullptr) continue;
      const T *b = bias + i * x.bias_item;
      if (keys == W && x.bias_key == 1) {
        const vec<T> r = load(row);
        store(row, select(r == broadcast(T(0)), load(b) * broadcast(ExpConstants<T>::kLog2E), r));
      } else {
        for (int64_t k = 0; k < keys; ++k) {
          row[k] = row[k] == T(0) ? b[k * x.bias_key] * ExpConstants<T>::kLog2E : row[k];
        }
      }
    }
    pack_panel<T>(W, queries, keys, rows, W, 1, T(1), added);
  }
}

// Which lanes of vector i of the group see `key`, as far as positions go.
template <class T>
ATTEND_INLINE vec<T> hide(const AttentionBlock<T> &x, const Group<T> &g, int64_t key, int i, vec<T> s) {
  constexpr int64_t kFar = 1000;  // beyond any lane, exact in every type
  const auto lane_of = [&](int64_t key_of_lane_0, int64_t step) {
    if (step == 0) return key < key_of_lane_0 ? -kFar : kFar;
    return larger(-kFar, smaller(kFar, key - key_of_lane_0 - g.first - i * kLanes<T>));
  };
  const vec<T> lane = load(kLaneIndex<T>), least = broadcast(kMinusInfinity<T>);
  // Seen by lanes beyond the one for which `key` is the end, and not beyond the one for which it is the first key.
  s = select(broadcast(static_cast<T>(lane_of(x.visible, x.visible_step))) < lane, s, least);
  if (x.hidden_step != 0 || x.hidden > 0) {
    s = select(broadcast(static_cast<T>(lane_of(x.hidden, x.hidden_step))) < lane, least, s);
  }
  return s;
}

// ahead + lane, each rounded once: the bits must not depend on the lane that a query has.
template <class T>
ATTEND_INLINE vec<T> distances(int64_t ahead) {
  constexpr int64_t kExact = 1 << 23;  // with a lane added still exact in float
  if (ahead <= kExact && ahead >= -kExact) return load(kLaneIndex<T>) + broadcast(static_cast<T>(ahead));
  T lanes[kLanes<T>];
  for (int l = 0; l < kLanes<T>; ++l) lanes[l] = static_cast<T>(ahead + l);
  return load(lanes);
}

// Turns the scores of the slice into those of the given stage (ATTEND_SCORES_...), and finds their maxima again.
// Whether bias or mask may hide something.
template <class T>
bool group_refine(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice, int stage) {
  constexpr int W = kLanes<T>;
  constexpr int kSoftcapped = 1, kMasked = 2;
  const bool adds = stage >= kMasked && (x.bias != nullptr || x.mask != nullptr);
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  const bool only_adds = adds && x.softcap == T(0) && x.slope == T(0) && !slice.masked;
  vec<T> not_finite = zero;  // NaN where bias or mask are infinite
  T added[W * W];
  for (int i = 0; i < g.vectors; ++i) {
    vec<T> top = least;
    for (int64_t j0 = 0; j0 < slice.size(); j0 += W) {
      const int64_t keys = smaller<int64_t>(W, slice.size() - j0);
      T *at = g.s + j0 * g.lanes + i * W;
      if (adds) added_square(x, g.first + i * W, slice.begin + j0, keys, added);
      if (only_adds && keys == W) {
        // The usual case. Four chains, since one of maxima would wait for itself.
        constexpr int kChains = W < 4 ? W : 4;
        vec<T> tops[kChains], infinite[kChains];
        for (int c = 0; c < kChains; ++c) tops[c] = least, infinite[c] = zero;
        ATTEND_UNROLL
        for (int j = 0; j < W; ++j, at += g.lanes) {
          const vec<T> a = load(added + j * W), s = select(a == least, least, load(at) + a);
          infinite[j % kChains] = fma(a, zero, infinite[j % kChains]);
          tops[j % kChains] = maximum(s, tops[j % kChains]);
          store(at, s);
        }
        for (int c = 0; c < kChains; ++c) {
          top = maximum(tops[c], top);
          not_finite = not_finite + infinite[c];
        }
        continue;
      }
      for (int64_t j = 0; j < keys; ++j, at += g.lanes) {
        const int64_t key = slice.begin + j0 + j;
        vec<T> s = load(at);
        if (x.softcap != T(0) && stage >= kSoftcapped) s = softcapped(s, x.softcap);
        if (stage >= kMasked) {
          if (x.slope != T(0)) {
            const vec<T> distance = distances<T>(x.position + g.first + i * W - key);
            s = fma(maximum(distance, zero - distance), broadcast(-x.slope), s);
          }
          if (adds) {
            const vec<T> a = load(added + j * W);
            s = select(a == least, least, s + a);
            not_finite = fma(a, zero, not_finite);
          }
          if (slice.masked) s = hide(x, g, key, i, s);
        }
        top = maximum(s, top);
        store(at, s);
      }
    }
    store(g.chunk_maximum + i * W, top);
  }
  return any_nan(not_finite);
}

}  // namespace
}  // namespace attend
