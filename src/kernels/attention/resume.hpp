// The state of rows between two calls over a sequence's keys: m, l and o of the open span, then those of the spans before.
// What one call would have held in between, and so its bits.
#pragma once

#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// One row's, in memory: m, l, then o.
template <class T>
struct StateRow {
  T *m;
  int64_t element;  // from one to the next
  T *l() const { return m + element; }
  T *o() const { return m + 2 * element; }
};
template <class T>
ATTEND_INLINE StateRow<T> open_state(const AttentionBlock<T> &x, int64_t row) {
  return {row_at(x, x.state, row), x.state.element_stride};
}
template <class T>
ATTEND_INLINE StateRow<T> state_of_spans(const AttentionBlock<T> &x, int64_t row) {
  return {row_at(x, x.state, row) + (x.value_features + 2) * x.state.element_stride, x.state.element_stride};
}

template <class T>
void copy_elements(const T *from, int64_t from_stride, T *to, int64_t to_stride, int64_t count) {
  for (int64_t f = 0; f < count; ++f) to[f * to_stride] = from[f * from_stride];
}

// Where a tile has o of its open span: in the scratch.
template <class T>
ATTEND_INLINE T *open_output(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t i, int64_t *element) {
  *element = x.by_features ? 1 : t.lanes;
  return t.output + (x.by_features ? i * x.value_features : i);
}

// (Not inlined: rare.)
template <class T>
__attribute__((noinline)) void resume_tile(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  for (int64_t i = 0; i < t.lanes; ++i) {
    if (i >= t.count) {
      t.m()[i] = t.span_m()[i] = kMinusInfinity<T>;
      t.l()[i] = t.span_l()[i] = T(0);
      continue;
    }
    const StateRow<T> open = open_state(x, t.row + i), spans = state_of_spans(x, t.row + i);
    t.m()[i] = *open.m, t.l()[i] = *open.l();
    t.span_m()[i] = *spans.m, t.span_l()[i] = *spans.l();
    int64_t element = 0;
    T *const o = open_output(x, t, i, &element);
    copy_elements<T>(open.o(), open.element, o, element, x.value_features);
    copy_elements<T>(spans.o(), spans.element, row_at(x, x.out, t.row + i), x.out.element_stride, x.value_features);
  }
}

// `saw_something`: its open span is not empty.
template <class T>
__attribute__((noinline)) void pause_tile(const AttentionBlock<T> &x, const QueryTile<T> &t, bool saw_something) {
  for (int64_t i = 0; i < t.count; ++i) {
    const StateRow<T> open = open_state(x, t.row + i), spans = state_of_spans(x, t.row + i);
    *spans.m = t.span_m()[i], *spans.l() = t.span_l()[i];  // its o is `out`
    *open.m = saw_something ? t.m()[i] : kMinusInfinity<T>;
    *open.l() = saw_something ? t.l()[i] : T(0);
    int64_t element = 0;
    const T *const o = open_output(x, t, i, &element);
    for (int64_t f = 0; f < x.value_features; ++f) open.o()[f * open.element] = saw_something ? o[f * element] : T(0);
  }
}

}  // namespace
}  // namespace attend
