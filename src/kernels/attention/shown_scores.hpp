// What the caller asked to see of the scores, computed again now that maximum and sum are known: rare, and so kept out of
// the way of the rest.
#pragma once

#include "kernels/attention/modifiers.hpp"
#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// Stages before `masked` show every key, also hidden ones and those beyond the length.
template <class T>
void show_scores(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  const ScoresStage stage = x.scores_stage;
  for (int64_t c0 = 0; c0 < x.scores_keys; c0 += Contract<T>::kKeyChunk) {
    const int64_t size = smaller(Contract<T>::kKeyChunk, x.scores_keys - c0);
    const int64_t known = stage >= ScoresStage::masked ? larger<int64_t>(0, smaller<int64_t>(size, x.keys - c0)) : size;
    scores_of(x, t, c0, known, columns_from(x.k, c0), columns_from(x.v, c0));
    modify_scores(x, t, {c0, c0 + known, true}, stage);
    for (int64_t j = 0; j < size; ++j) {
      T *s = t.s + j * t.lanes;
      for (int64_t i = 0; i < t.lanes; i += W) {
        vec<T> v = j < known ? load(s + i) : broadcast(kMinusInfinity<T>);
        if (stage == ScoresStage::probabilities) {
          v = exp2_nonpositive(v - shift_of(load(t.m + i))) * load(t.inverse + i);
        } else {
          v = v * broadcast(ExpConstants<T>::kLn2);
        }
        store(s + i, v);
      }
      for (int64_t i = 0; i < t.count; ++i) {
        row_at(x, x.scores, t.row + i)[(c0 + j) * x.scores.element_stride] = s[i];
      }
    }
  }
}

}  // namespace
}  // namespace attend
