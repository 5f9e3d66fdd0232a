// Fused attention of one block of queries: O = V softmax(S), S = scale K^T Q, one chunk of 256 keys after the other.
//
// The block is worked on in groups of QL queries, one per lane of kScoreVectors vectors. For each chunk and group:
//
//     scores   s[key][query]  = tile(panel = queries, transposed and scaled once;  b = K in place)    lanes = queries
//     softmax  m_c, exp2, l_c: straight down the lanes, no horizontal step
//     output   o[query][feature] = fma(o, 2^(m_old - m), o_c 2^(m_c - m)),
//              o_c = tile(panel = V in place;  b = the exponentials)                                  lanes = features
//
// Only the queries are ever copied. The scores of a chunk (256 x QL) stay in the L1 between the three steps; a chunk of K and V
// stays in the L2 for all groups of the block. Where the features of V are not contiguous the last tile is turned: lanes are
// queries, b is V; the chain of every element is the same, and so are its bits.
//
// Scores carry log2(e): exponentials are exp2, maxima are in base 2. A query's arithmetic depends on nothing but its own data
// and the absolute positions of the chunks.
//
// Measured and dropped on Zen 4: 32 queries a group (2 x 12 scores) loses 2 % at N = 256 and 4 % at N = 16 against 16.
#pragma once

#include "kernels/attention_output.hpp"

namespace attend {
namespace {

// Scores of keys [c0, c0 + kb) for group g into g.s, their maxima into g.chunk_maximum. kMasked: some of these keys are hidden
// from some of the queries; their scores are -inf.
template <class T, bool kMasked>
void group_scores(const AttentionBlock<T> &x, const Group<T> &g, int64_t c0, int64_t kb) {
  constexpr int MV = Tiles<T>::kScoreVectors, NR = Tiles<T>::kScoreColumns, W = kLanes<T>, QL = MV * W;
  vec<T> top[MV];
  for (int i = 0; i < MV; ++i) top[i] = broadcast(kMinusInfinity<T>);
  const int64_t width = balanced(kb, NR);
  for (int64_t j = 0; j < kb; j += width) {
    with_constant<NR>(
        smaller(width, kb - j), [&](auto nr) __attribute__((always_inline)) {
          Tile<T, MV, decltype(nr)::value> tile;
          tile.zero();
          tile.template accumulate<false>(x.features, g.queries, QL, x.k + (c0 + j) * x.k_item, x.k_feature, x.k_item,
                                          Tail<T>(W));
          T *s = g.s + j * QL;
          tile.each([&](int i, int jj, vec<T> v) __attribute__((always_inline)) {
            if (kMasked) v = select(sees<T>(x, g.first, c0 + j + jj, i), v, broadcast(kMinusInfinity<T>));
            store(s + jj * QL + i * W, v);
            top[i] = maximum(v, top[i]);
          });
        });
  }
  for (int i = 0; i < MV; ++i) store(g.chunk_maximum + i * W, top[i]);
}

// The group's exponentials in place of its scores; folds the chunk's maximum and sum into the running ones and leaves the
// factors of the fold for the output.
template <class T>
void group_softmax(const Group<T> &g, int64_t kb, bool last) {
  constexpr int MV = Tiles<T>::kScoreVectors, W = kLanes<T>, QL = MV * W;
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  for (int i = 0; i < MV; ++i) {
    const vec<T> top = load(g.chunk_maximum + i * W);
    // exp2(-inf - -inf) would be NaN: where nothing is visible 0 is subtracted and every exponential is 0.
    const vec<T> shift = select(top == least, zero, top);
    vec<T> sum = zero;
    T *s = g.s + i * W;
    for (int64_t j = 0; j < kb; ++j, s += QL) {
      const vec<T> e = exp2_nonpositive(load(s) - shift);
      sum = sum + e;
      store(s, e);
    }
    const vec<T> before = load(g.maximum + i * W);
    const vec<T> now = maximum(top, before);
    const vec<T> safe = select(now == least, zero, now);
    const vec<T> old_factor = exp2_nonpositive(before - safe), new_factor = exp2_nonpositive(top - safe);
    const vec<T> total = fma(load(g.sum + i * W), old_factor, sum * new_factor);
    store(g.maximum + i * W, now);
    store(g.sum + i * W, total);
    store(g.old_factor + i * W, old_factor);
    store(g.new_factor + i * W, new_factor);
    if (last) store(g.inverse + i * W, select(total == zero, zero, broadcast(T(1)) / total));
  }
}

// What the caller asked to see of the scores (ATTEND_SCORES_...), computed again now that maximum and sum are known: rare, and
// so kept out of the way of the rest. Stages 0 and 1 show hidden keys too.
template <class T>
void group_emit(const AttentionBlock<T> &x, const Group<T> &g) {
  constexpr int QL = Tiles<T>::kScoreVectors * kLanes<T>, W = kLanes<T>;
  constexpr int kMasked = 2, kProbabilities = 3;
  for (int64_t c0 = 0; c0 < x.keys; c0 += Contract<T>::kKeyChunk) {
    const int64_t kb = smaller(Contract<T>::kKeyChunk, x.keys - c0);
    x.scores_stage >= kMasked ? group_scores<T, true>(x, g, c0, kb) : group_scores<T, false>(x, g, c0, kb);
    for (int64_t j = 0; j < kb; ++j) {
      T *s = g.s + j * QL;
      for (int i = 0; i < QL; i += W) {
        vec<T> v = load(s + i);
        if (x.scores_stage == kProbabilities) {
          const vec<T> top = load(g.maximum + i), least = broadcast(kMinusInfinity<T>);
          v = exp2_nonpositive(v - select(top == least, broadcast(T(0)), top)) * load(g.inverse + i);
        } else {
          v = v * broadcast(ExpConstants<T>::kLn2);
        }
        store(s + i, v);
      }
      for (int64_t i = 0; i < g.count; ++i) x.scores[(c0 + j) * x.scores_key + (g.first + i) * x.scores_item] = s[i];
    }
  }
}

template <class T>
void attention(const AttentionBlock<T> &x) {
  constexpr int QL = Tiles<T>::kScoreVectors * kLanes<T>;
  static_assert(Contract<T>::kQueryBlock % QL == 0 && QL <= Contract<T>::kScoreLanes, "groups must fit the scratch");
  const int64_t groups = (x.queries + QL - 1) / QL;
  for (int64_t t = 0; t < groups; ++t) {
    const Group<T> g = group_of(x, t);
    pack_panel<T>(QL, g.count, x.features, x.q + g.first * x.q_item, x.q_item, x.q_feature, x.scale_log2, g.queries);
    for (int64_t i = 0; i < QL; ++i) {
      g.maximum[i] = kMinusInfinity<T>;
      g.sum[i] = g.inverse[i] = T(0);
    }
  }
  const int64_t end = keys_seen(x, x.queries - 1);
  for (int64_t c0 = 0; c0 < end; c0 += Contract<T>::kKeyChunk) {
    for (int64_t t = 0; t < groups; ++t) {
      const Group<T> g = group_of(x, t);
      const int64_t group_end = keys_seen(x, g.first + g.count - 1);
      const int64_t kb = smaller(Contract<T>::kKeyChunk, group_end - c0);
      if (kb <= 0) continue;
      const bool last = c0 + kb == group_end;
      const bool masked = keys_seen(x, g.first) < c0 + kb;
      masked ? group_scores<T, true>(x, g, c0, kb) : group_scores<T, false>(x, g, c0, kb);
      group_softmax(g, kb, last);
      group_output(x, g, c0, kb, last);
    }
  }
  for (int64_t t = 0; t < groups; ++t) {
    const Group<T> g = group_of(x, t);
    group_finish(x, g, keys_seen(x, g.first + g.count - 1) == 0);
    for (int64_t i = 0; i < g.count; ++i) {
      x.maximum[g.first + i] = g.maximum[i];
      x.sum[g.first + i] = g.sum[i];
    }
    if (x.scores != nullptr) group_emit(x, g);
  }
}

}  // namespace
}  // namespace attend
