// The state of a group of queries, what its queries see, and the output step of attention.hpp: o = V P for one chunk
// of keys.
#pragma once

#include "kernels/pack.hpp"
#include "kernels/softmax.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

// Queries up to which attention_few.hpp takes the first two steps.
template <class T>
constexpr int kFewMost = kLanes<T> > 1 ? kLanes<T> / 2 : 1;

// Columns of the tile whose lanes are MV vectors of queries.
template <class T, int MV>
constexpr int score_columns = MV == 1 ? Tiles<T>::kNarrowColumns : Tiles<T>::kScoreColumns;

// Queries of the block, one per lane of `vectors`, and their place in the scratch. `count` of them exist; the rest are
// zero and their results are dropped.
template <class T>
struct Group {
  int64_t first, count;
  int vectors;
  int64_t lanes;                         // in them
  T *queries;                            // [feature][lane], scaled
  T *output;                             // o while it is summed, unless that happens in `out` itself
  T *maximum, *sum;                      // running, per lane
  T *chunk_maximum;                      // of this chunk
  T *old_factor, *new_factor, *inverse;  // of the fold; 1 / sum at the last chunk
  T *s;                                  // scores and then weights of the slice; shared by all groups
  int64_t s_key, s_query;                // their strides: [key][lane], or of few queries [query][key]
  T *copied;                             // keys of the chunk, if they are copied; shared by all groups
};

// The keys [begin, end) of one chunk that a group works on.
template <class T>
struct Slice {
  int64_t begin, end;
  const T *k, *v;  // of key `begin`; keys may be copied
  int64_t k_item;
  bool first, last;  // of the group's slices
  bool masked;       // some query does not see some key
  int64_t size() const { return end - begin; }
};

// Queries of every group but the last: the kernel's lanes, or fewer where their scores would fill the L1.
template <class T>
ATTEND_INLINE int64_t group_size(const AttentionBlock<T> &x) {
  return smaller<int64_t>(Tiles<T>::kScoreVectors * kLanes<T>, x.group_lanes);
}

template <class T>
ATTEND_INLINE Group<T> group_of(const AttentionBlock<T> &x, int64_t first) {
  const int64_t queries = x.scratch_queries;
  Group<T> g;
  g.first = first;
  g.count = smaller(group_size(x), x.queries - first);
  g.vectors = static_cast<int>((g.count + kLanes<T> - 1) / kLanes<T>);
  g.lanes = g.vectors * kLanes<T>;
  T *p = x.scratch;
  g.s = p, p += x.scratch_keys * smaller(queries, Contract<T>::kScoreLanes);
  g.s_key = g.lanes, g.s_query = 1;
  g.maximum = p + first, p += queries;
  g.sum = p + first, p += queries;
  g.chunk_maximum = p + first, p += queries;
  g.old_factor = p + first, p += queries;
  g.new_factor = p + first, p += queries;
  g.inverse = p + first, p += 3 * queries;
  g.queries = p + first * x.features, p += queries * x.features;
  g.output = p + first * x.value_features, p += queries * x.value_features;
  g.copied = p;
  return g;
}

// Query i of the block sees keys from `first_key` to before `end_key`, if these are in order.
template <class T>
ATTEND_INLINE int64_t end_key(const AttentionBlock<T> &x, int64_t i) {
  return larger<int64_t>(0, smaller(x.keys, x.visible + x.visible_step * i));
}
template <class T>
ATTEND_INLINE int64_t first_key(const AttentionBlock<T> &x, int64_t i) {
  return larger<int64_t>(x.from_key, smaller(x.keys, x.hidden + x.hidden_step * i));
}

// The running maximum and sum before any key. A sink is a score before all others, whose value is 0.
template <class T>
ATTEND_INLINE T first_maximum(const AttentionBlock<T> &x) {
  return x.sink != nullptr ? *x.sink * ExpConstants<T>::kLog2E : kMinusInfinity<T>;
}
template <class T>
ATTEND_INLINE T first_sum(const AttentionBlock<T> &x) {
  return x.sink != nullptr && *x.sink != kMinusInfinity<T> ? T(1) : T(0);
}

// o and its leading dimension: in `out` where its features are contiguous, in the scratch where not.
template <class T>
ATTEND_INLINE bool sums_in_place(const AttentionBlock<T> &x) {
  return x.v_feature == 1 && x.out_feature == 1;
}

// NQ queries from q0 of the group, MV vectors of features from f (the last partial if kPartial): lanes = features.
// Hidden keys have the weight 0. A chunk of V does not stay in the L1 from tile to tile: its rows are asked for ahead,
// a chunk if they come from memory and pass by only once (+6 % of the product, 25 % where rows are not aligned, Intel).
// (Not inlined: among the other shapes' variables those of the loop would not all find a register.)
template <class T, int MV, int NQ, bool kPartial, class Stride>
__attribute__((noinline)) void output_tile(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice,
                                           int64_t q0, int64_t f, T *o, int64_t ld, Stride s_query) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kRowsAhead = 8;
  const Tail<T> tail(kPartial ? x.value_features - f - (MV - 1) * W : W);
  const T *v = slice.v + f, *weights = g.s + q0 * g.s_query;
  Tile<T, MV, NQ> tile;
  tile.zero();
  if (kPartial) {
    tile.template accumulate<kPartial>(slice.size(), v, x.v_item, weights, g.s_key, s_query, tail);
  } else {
    const PanelAhead<T, MV> ahead = {v + (x.far ? Contract<T>::kKeyChunk : kRowsAhead) * x.v_item, x.v_item};
    tile.accumulate(slice.size(), v, x.v_item, weights, g.s_key, s_query, ahead);
  }
  tile.each([&](int i, int j, vec<T> acc) __attribute__((always_inline)) {
    T *at = o + (q0 + j) * ld + f + i * W;
    const bool partial = kPartial && i == MV - 1;
    vec<T> r = acc * broadcast(g.new_factor[q0 + j]);
    if (!slice.first) r = fma(partial ? load(at, tail) : load(at), broadcast(g.old_factor[q0 + j]), r);
    if (slice.last) r = r * broadcast(g.inverse[q0 + j]);
    partial ? store(at, r, tail) : store(at, r);
  });
}

template <class T, int MV, int NQ, class Stride>
void output_tiles(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice, Stride s_query) {
  constexpr int W = kLanes<T>;
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
                output_tile<T, M, N, false>(x, g, slice, q, f, o, ld, s_query);
              } else {
                output_tile<T, M, N, true>(x, g, slice, q, f, o, ld, s_query);
              }
            });
          });
    }
  }
}

template <class T>
ATTEND_INLINE void output_by_features(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  if (g.count <= Tiles<T>::kFewQueries) {
    output_tiles<T, Tiles<T>::kFewVectors, Tiles<T>::kFewQueries>(x, g, slice, g.s_query);
  } else if (g.s_query == 1) {
    output_tiles<T, Tiles<T>::kOutVectors, Tiles<T>::kOutQueries>(x, g, slice, Adjacent());
  } else {
    output_tiles<T, Tiles<T>::kOutVectors, kFewMost<T>>(x, g, slice, g.s_query);
  }
}

// The turned tile: lanes = queries, b = V with any strides; o is [feature][lane] in the scratch.
template <class T, int MV>
void output_tiles_by_queries(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  constexpr int NR = score_columns<T, MV>, W = kLanes<T>;
  const int64_t width = balanced(x.value_features, NR);
  for (int64_t f = 0; f < x.value_features; f += width) {
    with_constant<NR>(
        smaller(width, x.value_features - f), [&](auto nr) __attribute__((always_inline)) {
          Tile<T, MV, decltype(nr)::value> tile;
          tile.zero();
          tile.template accumulate<false>(slice.size(), g.s, g.lanes, slice.v + f * x.v_feature, x.v_item, x.v_feature,
                                          Tail<T>(W));
          tile.each([&](int i, int j, vec<T> acc) __attribute__((always_inline)) {
            T *at = g.output + (f + j) * g.lanes + i * W;
            vec<T> r = acc * load(g.new_factor + i * W);
            if (!slice.first) r = fma(load(at), load(g.old_factor + i * W), r);
            if (slice.last) r = r * load(g.inverse + i * W);
            store(at, r);
          });
        });
  }
}

template <class T>
ATTEND_INLINE void output_by_queries(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  with_constant<Tiles<T>::kScoreVectors>(
      g.vectors, [&](auto mv)
                     __attribute__((always_inline)) { output_tiles_by_queries<T, decltype(mv)::value>(x, g, slice); });
}

template <class T>
ATTEND_INLINE bool any_nan(vec<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  bool any = false;
  for (int l = 0; l < kLanes<T>; ++l) any |= lanes[l] != lanes[l];
  return any;
}

// Whether V is finite for the keys [begin, end).
template <class T>
bool is_finite(const AttentionBlock<T> &x, int64_t begin, int64_t end) {
  // 0 times what is not finite is NaN. Four chains, since one would wait for itself.
  T sum = T(0);
  vec<T> sums[4];
  for (vec<T> &s : sums) s = broadcast(T(0));
  for (int64_t key = begin; key < end; ++key) {
    const T *v = x.v + key * x.v_item;
    int64_t f = 0;
    for (; x.v_feature == 1 && f + 4 * kLanes<T> <= x.value_features; f += 4 * kLanes<T>) {
      ATTEND_UNROLL
      for (int i = 0; i < 4; ++i) sums[i] = fma(load(v + f + i * kLanes<T>), broadcast(T(0)), sums[i]);
    }
    for (; x.v_feature == 1 && f + kLanes<T> <= x.value_features; f += kLanes<T>) {
      sums[0] = fma(load(v + f), broadcast(T(0)), sums[0]);
    }
    for (; f < x.value_features; ++f) sum = sum + v[f * x.v_feature] * T(0);
  }
  return sum == T(0) && !any_nan((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The same for those keys only that some query of the group does not see by position: few, behind a causal diagonal
// and before a window.
template <class T>
bool hides_only_finite(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  const int64_t seen_from = larger(slice.begin, first_key(x, g.first + g.count - 1));
  const int64_t seen_to = smaller(slice.end, end_key(x, g.first));
  if (seen_from >= seen_to) return is_finite(x, slice.begin, slice.end);
  return is_finite(x, slice.begin, seen_from) && is_finite(x, seen_to, slice.end);
}

// What bias and mask hide may be any key of a chunk: looked at once for all groups, and only if something is hidden.
template <class T>
struct FiniteChunk {
  bool known = false, finite = false;
  // Of the chunk that `key` is in, up to `end`.
  ATTEND_INLINE bool is_finite(const AttentionBlock<T> &x, int64_t key, int64_t end) {
    constexpr int64_t kChunk = Contract<T>::kKeyChunk;
    const int64_t c0 = key / kChunk * kChunk;
    if (!known) finite = attend::is_finite(x, c0, smaller(c0 + kChunk, end));
    known = true;
    return finite;
  }
};

// Whether the query of the block does not see the key: not to be told from a score of -inf, which a visible key may have
// too.
template <class T>
bool is_hidden(const AttentionBlock<T> &x, int64_t query, int64_t key) {
  return key < first_key(x, query) || key >= end_key(x, query) ||
         (x.mask != nullptr && x.mask[key * x.mask_key + query * x.mask_item] == 0) ||
         (x.bias != nullptr && x.bias[key * x.bias_key + query * x.bias_item] == kMinusInfinity<T>);
}

// The same sums with the hidden keys left out. Rare, and so one element at a time.
template <class T>
void output_without_hidden(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice, T *o, int64_t query,
                           int64_t feature) {
  for (int64_t i = 0; i < g.count; ++i) {
    for (int64_t f = 0; f < x.value_features; ++f) {
      T acc = T(0);
      for (int64_t k = 0; k < slice.size(); ++k) {
        if (is_hidden(x, g.first + i, slice.begin + k)) continue;
        const T p = g.s[k * g.s_key + i * g.s_query];
        acc = fused(slice.v[k * x.v_item + f * x.v_feature], p, acc);
      }
      T *at = o + i * query + f * feature;
      T r = acc * g.new_factor[i];
      if (!slice.first) r = fused(*at, g.old_factor[i], r);
      *at = slice.last ? r * g.inverse[i] : r;
    }
  }
}

template <class T>
void group_output(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice, bool finite) {
  if (x.value_features == 0) return;  // lse and scores may be wanted all the same
  const bool by_features = x.v_feature == 1;
  if (!finite) {
    T *o = by_features && sums_in_place(x) ? x.out + g.first * x.out_item : g.output;
    const int64_t ld = sums_in_place(x) ? x.out_item : x.value_features;
    return output_without_hidden(x, g, slice, o, by_features ? ld : 1, by_features ? 1 : g.lanes);
  }
  by_features ? output_by_features(x, g, slice) : output_by_queries(x, g, slice);
}

// Moves o to `out` where it was summed elsewhere; a group that sees nothing at all gives 0.
template <class T>
void group_finish(const AttentionBlock<T> &x, const Group<T> &g, bool sees_nothing) {
  if (sums_in_place(x) && !sees_nothing) return;
  const int64_t query = x.v_feature == 1 ? x.value_features : 1, feature = x.v_feature == 1 ? 1 : g.lanes;
  for (int64_t i = 0; i < g.count; ++i) {
    T *to = x.out + (g.first + i) * x.out_item;
    for (int64_t f = 0; f < x.value_features; ++f) {
      to[f * x.out_feature] = sees_nothing ? T(0) : g.output[i * query + f * feature];
    }
  }
}

}  // namespace
}  // namespace attend
