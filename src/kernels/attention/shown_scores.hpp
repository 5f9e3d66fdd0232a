// What the caller asked to see of the scores, computed again now that maximum and sum are known: rare, and so kept out of
// the way of the rest.
#pragma once

#include "kernels/attention/modifiers.hpp"
#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// Every key up to the length, hidden or not, in the stages before `masked`; -inf, or as a probability 0, behind it.
template <class T>
void show_scores(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  const bool probabilities = x.scores_stage == ScoresStage::probabilities;
  // Before the sink was folded in, as finish() has it.
  const T *const m = has_spans(x) ? t.span_m : t.m;
  for (int64_t c0 = 0; c0 < x.scores_keys; c0 += Contract<T>::kKeyChunk) {
    const int64_t size = smaller(Contract<T>::kKeyChunk, x.scores_keys - c0);
    const int64_t known = larger<int64_t>(0, smaller<int64_t>(size, x.keys - c0));
    if (known > 0) {
      const StagedChunk<T> chunk = stage(x, c0, c0 + known);
      scores_of(x, t, c0, known, chunk.k, chunk.v);
      modify_scores(x, t, {c0, c0 + known, true, is_looked_at(x)}, x.scores_stage);
    }
    for (int64_t j = 0; j < size; ++j) {
      T *s = t.s + j * t.lanes;
      for (int64_t i = 0; i < t.lanes; i += W) {
        const vec<T> v = j < known ? load(s + i) : broadcast(kMinusInfinity<T>);
        store(s + i, probabilities ? exp_of_difference(v, shift_of(load(m + i))) * load(t.finish + i) : v);
      }
      for (int64_t i = 0; i < t.count; ++i) {
        row_at(x, x.scores, t.row + i)[(c0 + j) * x.scores.element_stride] = s[i];
      }
    }
  }
}

}  // namespace
}  // namespace attend
