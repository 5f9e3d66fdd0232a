// What the caller asked to see of the scores, computed again now that maximum and sum are known: rare, and so kept out of
// the way of the rest.
#pragma once

#include "kernels/attention/modifiers.hpp"
#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// Every key that exists, hidden or not, in the stages before `masked`; those before and behind them as -inf, or as a
// probability 0.
template <class T>
void show_scores(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  const bool probabilities = x.scores_stage == ScoresStage::probabilities;
  // Before the sink was folded in, as finish() has it.
  const T *const m = x.spans ? t.span_m() : t.m();
  const auto show = [&](int64_t element, const T *s) {
    for (int64_t i = 0; i < t.count; ++i) row_at(x, x.scores, t.row + i)[element * x.scores.element_stride] = s[i];
  };
  for (int64_t c0 = 0; c0 < x.keys; c0 += Contract<T>::kKeyChunk) {
    const int64_t size = smaller(Contract<T>::kKeyChunk, x.keys - c0);
    StagedChunk<T> chunk = stage(x, c0, c0 + size);
    const MatrixRef<const T> keys = chunk.keys(c0);
    scores_of(x, t, c0, size, keys, keys, x.looked_at, false);
    if (scales_keys(x.k_scale)) scale_scores(x, t, c0, size);
    modify_scores(x, t, {c0, c0 + size, x.rises, x.looked_at}, x.scores_stage, false);
    for (int64_t j = 0; j < size; ++j) {
      T *s = t.s + j * t.lanes;
      for (int64_t i = 0; probabilities && i < t.lanes; i += W) {
        store(s + i, exp_of_difference(load(s + i), shift_of(load(m + i))) * load(t.finish() + i));
      }
      show(x.scores_before + c0 + j, s);
    }
  }
  for (int64_t i = 0; i < t.lanes; ++i) t.s[i] = probabilities ? T(0) : kMinusInfinity<T>;
  for (int64_t j = 0; j < x.scores_before; ++j) show(j, t.s);
  for (int64_t j = x.scores_before + larger<int64_t>(0, x.keys); j < x.scores_keys; ++j) show(j, t.s);
}

}  // namespace
}  // namespace attend
