// The state of a group of queries, what its queries see, and the output step of attention.hpp: o = V P for one chunk of keys.
#pragma once

#include "kernels/pack.hpp"
#include "kernels/softmax.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

// QL queries of the block, one per lane, and their place in the scratch. `count` of them exist; the rest are zero and their
// results are dropped.
template <class T>
struct Group {
  int64_t first, count;
  T *queries;                            // [feature][lane], scaled
  T *output;                             // o while it is summed, unless that happens in `out` itself
  T *maximum, *sum;                      // running, per lane
  T *chunk_maximum;                      // of this chunk
  T *old_factor, *new_factor, *inverse;  // of the fold; 1 / sum at the last chunk
  T *s;                                  // [key][lane], scores and then exponentials of the chunk; shared by all groups
};

template <class T>
ATTEND_INLINE Group<T> group_of(const AttentionBlock<T> &x, int64_t t) {
  constexpr int64_t QL = Tiles<T>::kScoreVectors * kLanes<T>, kQueries = Contract<T>::kQueryBlock;
  Group<T> g;
  g.first = t * QL;
  g.count = smaller(QL, x.queries - g.first);
  T *p = x.scratch;
  g.s = p, p += Contract<T>::kKeyChunk * Contract<T>::kScoreLanes;
  g.maximum = p + g.first, p += kQueries;
  g.sum = p + g.first, p += kQueries;
  g.chunk_maximum = p + g.first, p += kQueries;
  g.old_factor = p + g.first, p += kQueries;
  g.new_factor = p + g.first, p += kQueries;
  g.inverse = p + g.first, p += kQueries;
  g.queries = p + g.first * x.features, p += kQueries * x.features;
  g.output = p + g.first * x.value_features;
  return g;
}

// Query i of the block sees keys [0, keys_seen).
template <class T>
ATTEND_INLINE int64_t keys_seen(const AttentionBlock<T> &x, int64_t i) {
  return larger<int64_t>(0, smaller(x.keys, x.visible + x.step * i));
}

// Which lanes of vector i of the group that begins with query `first` see `key`: lane + first + i W > key - visible.
template <class T>
ATTEND_INLINE vec_bool<T> sees(const AttentionBlock<T> &x, int64_t first, int64_t key, int i) {
  constexpr int64_t kFar = 1000;  // beyond any lane, exact in every type
  int64_t lane = x.step == 0 ? (key < x.visible ? -kFar : kFar) : key - x.visible - first - i * kLanes<T>;
  lane = larger(-kFar, smaller(kFar, lane));
  return broadcast(static_cast<T>(lane)) < load(kLaneIndex<T>);
}

// o and its leading dimension: in `out` where its features are contiguous, in the scratch where not.
template <class T>
ATTEND_INLINE bool sums_in_place(const AttentionBlock<T> &x) {
  return x.v_feature == 1 && x.out_feature == 1;
}

// NQ queries from q0 of the group, MV vectors of features from f (the last partial if kPartial): lanes = features.
template <class T, int MV, int NQ, bool kPartial>
ATTEND_INLINE void output_tile(const AttentionBlock<T> &x, const Group<T> &g, int64_t c0, int64_t kb, bool last,
                               int64_t q0, int64_t f, T *o, int64_t ld) {
  constexpr int W = kLanes<T>, QL = Tiles<T>::kScoreVectors * W;
  const Tail<T> tail(kPartial ? x.value_features - f - (MV - 1) * W : W);
  const T *v = x.v + c0 * x.v_item + f;
  const T *p = g.s + q0;
  // All NQ queries see the keys up to `common`; behind a causal diagonal each has its own end, at most NQ - 1 keys on.
  const int64_t common = larger<int64_t>(0, smaller(kb, keys_seen(x, g.first + q0) - c0));
  Tile<T, MV, NQ> tile;
  tile.zero();
  tile.template accumulate<kPartial>(common, v, x.v_item, p, QL, 1, tail);
  for (int64_t k = common; k < smaller(kb, keys_seen(x, g.first + q0 + NQ - 1) - c0); ++k) {
    ATTEND_UNROLL
    for (int j = 0; j < NQ; ++j) {
      // Hidden keys are skipped, not multiplied by 0: their V may be NaN.
      if (c0 + k >= keys_seen(x, g.first + q0 + j)) continue;
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) {
        const T *at = v + k * x.v_item + i * W;
        const vec<T> a = kPartial && i == MV - 1 ? load(at, tail) : load(at);
        tile.acc[i][j] = fma(a, broadcast(p[k * QL + j]), tile.acc[i][j]);
      }
    }
  }
  tile.each([&](int i, int j, vec<T> acc) __attribute__((always_inline)) {
    T *at = o + (q0 + j) * ld + f + i * W;
    const bool partial = kPartial && i == MV - 1;
    vec<T> r = acc * broadcast(g.new_factor[q0 + j]);
    if (c0 != 0) r = fma(partial ? load(at, tail) : load(at), broadcast(g.old_factor[q0 + j]), r);
    if (last) r = r * broadcast(g.inverse[q0 + j]);
    partial ? store(at, r, tail) : store(at, r);
  });
}

template <class T>
void output_by_features(const AttentionBlock<T> &x, const Group<T> &g, int64_t c0, int64_t kb, bool last) {
  constexpr int MV = Tiles<T>::kOutVectors, NQ = Tiles<T>::kOutQueries, W = kLanes<T>;
  T *o = sums_in_place(x) ? x.out + g.first * x.out_item : g.output;
  const int64_t ld = sums_in_place(x) ? x.out_item : x.value_features;
  const int64_t width = balanced(g.count, NQ);
  for (int64_t f = 0; f < x.value_features; f += MV * W) {
    const int64_t rest = smaller<int64_t>(x.value_features - f, MV * W);
    for (int64_t q = 0; q < g.count; q += width) {
      with_constant<NQ>(
          smaller(width, g.count - q), [&](auto nq) __attribute__((always_inline)) {
            constexpr int N = decltype(nq)::value;
            with_constant<MV>((rest + W - 1) / W, [&](auto mv) __attribute__((always_inline)) {
              constexpr int M = decltype(mv)::value;
              if (rest == M * W) {
                output_tile<T, M, N, false>(x, g, c0, kb, last, q, f, o, ld);
              } else {
                output_tile<T, M, N, true>(x, g, c0, kb, last, q, f, o, ld);
              }
            });
          });
    }
  }
}

// The turned tile: lanes = queries, b = V with any strides; o is [feature][lane] in the scratch.
template <class T>
void output_by_queries(const AttentionBlock<T> &x, const Group<T> &g, int64_t c0, int64_t kb, bool last) {
  constexpr int MV = Tiles<T>::kScoreVectors, NR = Tiles<T>::kScoreColumns, W = kLanes<T>, QL = MV * W;
  const int64_t common = larger<int64_t>(0, smaller(kb, keys_seen(x, g.first) - c0));
  const int64_t width = balanced(x.value_features, NR);
  for (int64_t f = 0; f < x.value_features; f += width) {
    with_constant<NR>(
        smaller(width, x.value_features - f), [&](auto nr) __attribute__((always_inline)) {
          constexpr int N = decltype(nr)::value;
          const T *v = x.v + c0 * x.v_item + f * x.v_feature;
          Tile<T, MV, N> tile;
          tile.zero();
          tile.template accumulate<false>(common, g.s, QL, v, x.v_item, x.v_feature, Tail<T>(W));
          for (int64_t k = common; k < kb; ++k) {
            ATTEND_UNROLL
            for (int j = 0; j < N; ++j) {
              const vec<T> b = broadcast(v[k * x.v_item + j * x.v_feature]);
              ATTEND_UNROLL
              for (int i = 0; i < MV; ++i) {
                const vec<T> next = fma(load(g.s + k * QL + i * W), b, tile.acc[i][j]);
                tile.acc[i][j] = select(sees<T>(x, g.first, c0 + k, i), next, tile.acc[i][j]);
              }
            }
          }
          tile.each([&](int i, int j, vec<T> acc) __attribute__((always_inline)) {
            T *at = g.output + (f + j) * QL + i * W;
            vec<T> r = acc * load(g.new_factor + i * W);
            if (c0 != 0) r = fma(load(at), load(g.old_factor + i * W), r);
            if (last) r = r * load(g.inverse + i * W);
            store(at, r);
          });
        });
  }
}

template <class T>
void group_output(const AttentionBlock<T> &x, const Group<T> &g, int64_t c0, int64_t kb, bool last) {
  if (x.value_features == 0) return;  // lse and scores may be wanted all the same
  x.v_feature == 1 ? output_by_features(x, g, c0, kb, last) : output_by_queries(x, g, c0, kb, last);
}

// Moves o to `out` where it was summed elsewhere; a group that sees nothing at all gives 0.
template <class T>
void group_finish(const AttentionBlock<T> &x, const Group<T> &g, bool sees_nothing) {
  constexpr int QL = Tiles<T>::kScoreVectors * kLanes<T>;
  if (sums_in_place(x) && !sees_nothing) return;
  const int64_t query = x.v_feature == 1 ? x.value_features : 1, feature = x.v_feature == 1 ? 1 : QL;
  for (int64_t i = 0; i < g.count; ++i) {
    T *to = x.out + (g.first + i) * x.out_item;
    for (int64_t f = 0; f < x.value_features; ++f) {
      to[f * x.out_feature] = sees_nothing ? T(0) : g.output[i * query + f * feature];
    }
  }
}

}  // namespace
}  // namespace attend
