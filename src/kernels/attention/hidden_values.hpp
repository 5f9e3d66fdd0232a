// Values of hidden keys: a hidden key weighs 0, but 0 times what is not finite is NaN. Where V may hold such, the sums
// are formed without the hidden keys.
#pragma once

#include "kernels/attention/online_softmax.hpp"
#include "kernels/attention/stage.hpp"

namespace attend {
namespace {

// Whether `keys` columns are finite.
template <class T>
bool is_finite(const MatrixRef<const T> &v, int64_t features, int64_t keys) {
  // 0 times what is not finite is NaN. Four chains, since one would wait for itself.
  constexpr int W = kLanes<T>;
  T sum = T(0);
  vec<T> sums[4];
  for (vec<T> &s : sums) s = broadcast(T(0));
  for (int64_t key = 0; key < keys; ++key) {
    const T *at = v.data + key * v.col_stride;
    int64_t f = 0;
    for (; v.row_stride == 1 && f + 4 * W <= features; f += 4 * W) {
      ATTEND_UNROLL
      for (int i = 0; i < 4; ++i) sums[i] = fma(load(at + f + i * W), broadcast(T(0)), sums[i]);
    }
    for (; v.row_stride == 1 && f + W <= features; f += W) {
      sums[0] = fma(load(at + f), broadcast(T(0)), sums[0]);
    }
    for (; f < features; ++f) sum = sum + at[f * v.row_stride] * T(0);
  }
  const vec<T> all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  T lanes[W];
  store(lanes, all);
  for (int l = 0; l < W; ++l) sum = sum + lanes[l];
  return sum == T(0);
}

// What bias and mask hide may be any key of a chunk: looked at once for all tiles, and only if something is hidden.
template <class T>
struct FiniteChunk {
  bool known = false, finite = false;
  ATTEND_INLINE bool holds(const AttentionBlock<T> &x, StagedChunk<T> &chunk) {
    if (!known) finite = is_finite(chunk.values(chunk.begin), x.value_features, chunk.end - chunk.begin);
    known = true;
    return finite;
  }
};

// Whether what some row does not see of the runs is finite. `modifiers`: bias or mask may hide any key of theirs, which
// the whole chunk answers for all tiles, unless it holds what is skipped altogether; positions hide few.
template <class T>
bool hides_only_finite(const AttentionBlock<T> &x, const KeyRuns &runs, bool modifiers, StagedChunk<T> &chunk,
                       FiniteChunk<T> *of_chunk) {
  if (modifiers && of_chunk->holds(x, chunk)) return true;
  for (int i = 0; i < runs.count; ++i) {
    const KeyRun &run = runs.run[i];
    if ((run.hides || run.adds) && !is_finite(chunk.values(run.begin), x.value_features, run.end - run.begin)) {
      return false;
    };
  }
  return true;
}

// o of a slice with the hidden keys left out: feature f of row i at o[i * row + f * feature]. Rare, and so one element
// at a time.
template <class T>
void output_without_hidden(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, T *o,
                           int64_t row, int64_t feature) {
  const MatrixRef<const T> v = slice.values();
  for (int64_t i = 0; i < t.count; ++i) {
    for (int64_t f = 0; f < x.value_features; ++f) {
      T acc = T(0);
      for (int64_t k = 0; k < slice.size(); ++k) {
        if (!is_visible(x, t.row + i, slice.begin + k)) continue;
        const T weight = t.s[k * t.s_key + i * t.s_row];
        acc = fused(v.data[k * v.col_stride + f * v.row_stride], weight, acc);
      }
      T *at = o + i * row + f * feature;
      const T r = slice.first ? acc : fold_output(*at, t.old_factor()[i], acc, t.new_factor()[i]);
      *at = slice.last ? finish_output(r, t.finish()[i], T(0)) : r;
    }
  }
}

}  // namespace
}  // namespace attend
