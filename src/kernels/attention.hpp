// Fused attention of one block of queries: O = V softmax(S), S = scale K^T Q, one chunk of 256 keys after the other.
//
// The block is worked on in groups of QL queries, one per lane of kScoreVectors vectors. For each chunk and group:
//
//     scores   s[key][query]  = tile(panel = queries, transposed and scaled once;  b = K in place)    lanes = queries
//     softmax  m_c, exp2, l_c: straight down the lanes, no horizontal step
//     output   o[query][feature] = fma(o, 2^(m_old - m), o_c 2^(m_c - m)),
//              o_c = tile(panel = V in place;  b = the exponentials)                                  lanes = features
//
// Only the queries are copied, and keys that begin in the same sets of the L1: [N, H, D] arrays with H * D a power of
// two took 1.6 times as long without. (Copying V too gains nothing.) The scores of a chunk (256 x QL) stay in the L1
// between the three steps; a chunk of K and V stays in the L2 for all groups of the block. Where the features of V are
// not contiguous the last tile is turned: lanes are queries, b is V; the chain of every element is the same, and so are
// its bits. Few queries have the first two steps of attention_few.hpp.
//
// Scores carry log2(e): exponentials are exp2, maxima are in base 2. A query's arithmetic depends on nothing but its
// own data and the absolute positions of the chunks.
//
// 32 queries a group (2 x 12 scores) lose 2 % against 16 on Zen 4, where their scores fill the L1, and gain 8 % on
// Intel, where 1 x 16 starves for loads: the driver chooses by the size of the L1.
#pragma once

#include "kernels/attention_few.hpp"

namespace attend {
namespace {

// Folds maximum and sum of a slice, for the lanes of vector i, into the running ones, and leaves the factors of the
// fold for the output.
template <class T>
ATTEND_INLINE void fold_slice(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice, int i, vec<T> sum) {
  constexpr int W = kLanes<T>;
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1)), least = broadcast(kMinusInfinity<T>);
  const vec<T> top = load(g.chunk_maximum + i * W);
  vec<T> now = top, total = sum;
  if (slice.first && x.sink == nullptr) {
    // As below: 0 before and a factor of 1, where the slice has anything.
    store(g.new_factor + i * W, one);
  } else {
    const vec<T> before = load(g.maximum + i * W);
    now = maximum(top, before);
    const vec<T> safe = select(now == least, zero, now);
    const vec<T> old_factor = exp2_nonpositive(before - safe), new_factor = exp2_nonpositive(top - safe);
    total = fma(load(g.sum + i * W), old_factor, sum * new_factor);
    store(g.old_factor + i * W, old_factor);
    store(g.new_factor + i * W, new_factor);
  }
  store(g.maximum + i * W, now);
  store(g.sum + i * W, total);
  if (slice.last) store(g.inverse + i * W, x.part ? one : select(total == zero, zero, divide(one, total)));
}

// The group's weights in place of its scores.
template <class T>
void group_softmax(const AttentionBlock<T> &x, const Group<T> &g, const Slice<T> &slice) {
  constexpr int W = kLanes<T>;
  for (int i = 0; i < g.vectors; ++i) {
    // exp2(-inf - -inf) would be NaN: where nothing is visible 0 is subtracted and every exponential is 0.
    const vec<T> shift = shift_of(load(g.chunk_maximum + i * W));
    vec<T> sum = broadcast(T(0));
    T *s = g.s + i * W;
    for (int64_t j = 0; j < slice.size(); ++j, s += g.lanes) {
      const vec<T> e = exp2_nonpositive(load(s) - shift);
      sum = sum + e;
      store(s, e);
    }
    fold_slice(x, g, slice, i, sum);
  }
}

// What the caller asked to see of the scores (ATTEND_SCORES_...), computed again now that maximum and sum are known:
// rare, and so kept out of the way of the rest. Stages 0 and 1 show every key, also hidden ones and those beyond the
// length.
template <class T>
void group_emit(const AttentionBlock<T> &x, const Group<T> &g) {
  constexpr int W = kLanes<T>;
  constexpr int kMasked = 2, kProbabilities = 3;
  for (int64_t c0 = 0; c0 < x.scores_keys; c0 += Contract<T>::kKeyChunk) {
    const int64_t end = smaller(c0 + Contract<T>::kKeyChunk, x.scores_keys);
    const Slice<T> all = {c0, end, x.k + c0 * x.k_item, x.v + c0 * x.v_item, x.k_item, true, true, true};
    Slice<T> known = all;
    if (x.scores_stage >= kMasked) known.end = larger(c0, smaller(all.end, x.keys));
    group_scores(x, g, known);
    group_refine(x, g, known, x.scores_stage);
    for (int64_t j = 0; j < all.size(); ++j) {
      T *s = g.s + j * g.lanes;
      for (int i = 0; i < g.lanes; i += W) {
        vec<T> v = j < known.size() ? load(s + i) : broadcast(kMinusInfinity<T>);
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

// Whether the group's scores are more than products.
template <class T>
ATTEND_INLINE bool is_refined(const AttentionBlock<T> &x) {
  return x.bias != nullptr || x.mask != nullptr || x.softcap != T(0) || x.slope != T(0);
}

// One group and one slice of its keys.
template <class T>
void group_slice(const AttentionBlock<T> &x, Group<T> g, const Slice<T> &slice, int64_t end, FiniteChunk<T> *chunk) {
  constexpr int kMasked = 2;
  const bool plain = !slice.masked && !is_refined(x);
  bool hides = false;
  if (g.count <= kFewMost<T> && x.k_feature == 1 && slice.size() >= kLanes<T>) {
    const bool turned = !plain || x.v_feature != 1;
    vec<T> sum;
    with_constant<kFewMost<T>>(
        g.count, [&](auto nq) __attribute__((always_inline)) {
          constexpr int NQ = decltype(nq)::value;
          if (turned) return few_scores<T, NQ, true>(x, g, slice);
          few_scores<T, NQ, false>(x, g, slice);
          sum = few_weights<T, NQ>(x, g, slice);
        });
    if (!turned) {
      fold_slice(x, g, slice, 0, sum);
      g.s_key = 1, g.s_query = x.scratch_keys;
      return group_output(x, g, slice, true);
    }
    if (!plain) hides = group_refine(x, g, slice, kMasked);
  } else {
    // By position only the keys around the diagonal and before a window are hidden to some queries: these alone pass by
    // once more. `seen` are the keys that all queries see.
    const int64_t seen_from = larger(slice.begin, first_key(x, g.first + g.count - 1));
    const int64_t seen_to = smaller(slice.end, end_key(x, g.first));
    const int64_t borders[] = {slice.begin, slice.masked ? smaller(seen_from, slice.end) : slice.begin,
                               slice.masked ? larger(seen_to, seen_from) : slice.end, slice.end};
    vec<T> top[Tiles<T>::kScoreVectors];
    for (int i = 0; i < g.vectors; ++i) top[i] = broadcast(kMinusInfinity<T>);
    for (int part = 0; part < 3; ++part) {
      Slice<T> keys_of = slice;
      keys_of.begin = borders[part];
      keys_of.k += (keys_of.begin - slice.begin) * slice.k_item;
      keys_of.end = smaller(slice.end, borders[part + 1]);
      keys_of.masked = part != 1;
      if (keys_of.begin >= keys_of.end) continue;
      Group<T> h = g;
      h.s += (keys_of.begin - slice.begin) * g.lanes;
      group_scores(x, h, keys_of);
      if (keys_of.masked || is_refined(x)) hides |= group_refine(x, h, keys_of, kMasked);
      for (int i = 0; i < g.vectors; ++i) top[i] = maximum(load(g.chunk_maximum + i * kLanes<T>), top[i]);
    }
    for (int i = 0; i < g.vectors; ++i) store(g.chunk_maximum + i * kLanes<T>, top[i]);
  }
  // A hidden key's weight is 0, and 0 times what is not finite would be NaN.
  const bool finite =
      (!slice.masked && !hides) || (hides ? chunk->is_finite(x, slice.begin, end) : hides_only_finite(x, g, slice));
  group_softmax(x, g, slice);
  group_output(x, g, slice, finite);
}

template <class T>
void attention(const AttentionBlock<T> &x) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  constexpr int64_t kMost = Tiles<T>::kScoreVectors * kLanes<T>;
  static_assert(Contract<T>::kQueryBlock % kMost == 0 && kMost <= Contract<T>::kScoreLanes, "groups fit the scratch");
  const int64_t size = group_size(x);
  for (int64_t first = 0; first < x.queries; first += size) {
    const Group<T> g = group_of(x, first);
    pack_panel<T>(g.lanes, g.count, x.features, x.q + first * x.q_item, x.q_item, x.q_feature, x.scale_log2, g.queries);
    const vec<T> maximum = broadcast(first_maximum(x)), sum = broadcast(first_sum(x));
    for (int64_t i = 0; i < g.lanes; i += kLanes<T>) {
      store(g.maximum + i, maximum);
      store(g.sum + i, sum);
      store(g.inverse + i, broadcast(T(0)));
    }
  }
  const int64_t end = end_key(x, x.queries - 1);
  for (int64_t c0 = first_key(x, 0) / kChunk * kChunk; c0 < end; c0 += kChunk) {
    FiniteChunk<T> chunk;
    const int64_t c_begin = larger(c0, first_key(x, 0)), c_end = smaller(c0 + kChunk, end);
    const T *keys = x.k + c_begin * x.k_item;
    int64_t k_item = x.k_item;
    if (x.copied_item != 0) {
      T *const copy = group_of(x, 0).copied;
      k_item = x.copied_item;
      pack_columns(c_end - c_begin, x.features, keys, x.k_item, copy, k_item);
      keys = copy;
    }
    for (int64_t first = 0; first < x.queries; first += size) {
      const Group<T> g = group_of(x, first);
      // The keys that any query of the group sees, and those that all see.
      const int64_t from = first_key(x, first), to = end_key(x, first + g.count - 1);
      const int64_t all_from = first_key(x, first + g.count - 1), all_to = end_key(x, first);
      Slice<T> slice;
      slice.begin = larger(c0, from);
      slice.end = smaller(c0 + kChunk, to);
      if (slice.begin >= slice.end) continue;
      slice.k = keys + (slice.begin - c_begin) * k_item;
      slice.v = x.v + slice.begin * x.v_item;
      slice.k_item = k_item;
      slice.first = slice.begin == from;
      slice.last = slice.end == to;
      slice.masked = slice.begin < all_from || slice.end > all_to;
      group_slice(x, g, slice, end, &chunk);
    }
  }
  for (int64_t first = 0; first < x.queries; first += size) {
    const Group<T> g = group_of(x, first);
    group_finish(x, g, first_key(x, first) >= end_key(x, first + g.count - 1));
    for (int64_t i = 0; i < g.count; ++i) {
      x.maximum[first + i] = g.maximum[i];
      x.sum[first + i] = g.sum[i];
    }
    if (x.scores != nullptr) group_emit(x, g);
  }
}

}  // namespace
}  // namespace attend
