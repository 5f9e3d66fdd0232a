// The fold of attention over chunks that were computed apart, on several threads: for every query the operations of
// attention.hpp in its order, o = fma(o, 2^(m_old - m), o_c 2^(m_c - m)), and so its bits.
#pragma once

#include "kernels/attention.hpp"

namespace attend {
namespace {

template <class T>
void attention_fold(const FoldBlock<T> &fold) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  const AttentionBlock<T> &x = *fold.x;
  const int64_t size = group_size(x);
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  for (int64_t query = 0; query < x.queries; ++query) {
    // The chunks that count are those that some query of this one's group sees.
    const int64_t group = query / size * size, group_end = smaller(group + size, x.queries);
    const int64_t from = first_key(x, group), to = end_key(x, group_end - 1);
    if (fold.begins) {
      x.maximum[query] = first_maximum(x);
      x.sum[query] = first_sum(x);
      for (int64_t f = 0; from >= to && f < x.value_features; ++f) x.out[query * x.out_item + f * x.out_feature] = T(0);
    }
    for (int64_t c = 0; c < fold.chunks; ++c) {
      const int64_t begin = (fold.first_chunk + c) * kChunk;
      if (larger(begin, from) >= smaller(begin + kChunk, to)) continue;
      const T *part = fold.parts[c];
      const vec<T> top = broadcast(part[x.queries * x.value_features + query]);
      const vec<T> chunk_sum = broadcast(part[x.queries * (x.value_features + 1) + query]);
      const vec<T> before = broadcast(x.maximum[query]), now = maximum(top, before);
      const vec<T> safe = select(now == least, zero, now);
      const vec<T> old_factor = exp2_nonpositive(before - safe), new_factor = exp2_nonpositive(top - safe);
      const vec<T> total = fma(broadcast(x.sum[query]), old_factor, chunk_sum * new_factor);
      const vec<T> inverse = select(total == zero, zero, divide(broadcast(T(1)), total));
      const bool first = begin <= from, last = begin + kChunk >= to;
      T *const out = x.out + query * x.out_item;
      const T *const o = part + query * x.value_features;
      for (int64_t f = 0; f < x.value_features; f += W) {
        const int64_t count = smaller<int64_t>(W, x.value_features - f);
        vec<T> r = load_lanes(o + f, 1, count) * new_factor;
        if (!first) r = fma(load_lanes(out + f * x.out_feature, x.out_feature, count), old_factor, r);
        if (last) r = r * inverse;
        store_lanes(out + f * x.out_feature, x.out_feature, count, r);
      }
      T lanes[W];
      store(lanes, now);
      x.maximum[query] = lanes[0];
      store(lanes, total);
      x.sum[query] = lanes[0];
    }
  }
}

}  // namespace
}  // namespace attend
