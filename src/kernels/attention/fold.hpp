// Parts of attention that threads computed apart, each over one chunk of keys, folded in order: online_softmax.hpp's
// merge, row by row, and so the bits of a whole call.
#pragma once

#include "kernels/attention/output.hpp"

namespace attend {
namespace {

template <class T>
void attention_fold(const FoldBlock<T> &parts) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  const AttentionBlock<T> &x = *parts.x;
  const int64_t rows = rows_of(x), dv = x.value_features, stride = x.out.element_stride;
  for (int64_t row = 0; row < rows; ++row) {
    // The chunks that count are those that some row of this one's tile sees.
    const KeyRange seen = seen_by_any(x, tile_of(x, row / tile_rows(x) * tile_rows(x)));
    T *const out = row_at(x, x.out, row);
    if (parts.begins) {
      const T *sink = x.sinks == nullptr ? nullptr : x.sinks + row / x.items * x.sink_stride;
      x.m[row] = sink == nullptr ? kMinusInfinity<T> : first_m(*sink);
      x.l[row] = sink == nullptr ? T(0) : first_l(*sink);
      for (int64_t f = 0; seen.begin >= seen.end && f < dv; ++f) out[f * stride] = T(0);
    }
    for (int64_t c = 0; c < parts.chunks; ++c) {
      const int64_t begin = (parts.first_chunk + c) * kChunk;
      if (larger(begin, seen.begin) >= smaller(begin + kChunk, seen.end)) continue;
      const T *const o = parts.parts[c] + row * dv, *const m = parts.parts[c] + rows * dv + row, *const l = m + rows;
      const Fold<T> f = fold(broadcast(x.m[row]), broadcast(x.l[row]), broadcast(*m), broadcast(*l));
      const vec<T> inverse = inverse_of(f.l);
      const bool begins = begin <= seen.begin, last = begin + kChunk >= seen.end;
      for (int64_t at = 0; at < dv; at += W) {
        const int64_t count = smaller<int64_t>(W, dv - at);
        const vec<T> old = begins ? inverse : load_lanes(out + at * stride, stride, count);
        vec<T> r = fold_output(begins, old, f.old_factor, load_lanes(o + at, 1, count), f.new_factor);
        if (last) r = r * inverse;
        store_lanes(out + at * stride, stride, count, r);
      }
      T lanes[W];
      store(lanes, f.m);
      x.m[row] = lanes[0];
      store(lanes, f.l);
      x.l[row] = lanes[0];
    }
  }
}

}  // namespace
}  // namespace attend
