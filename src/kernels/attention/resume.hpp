// The state of rows between two calls over a sequence's keys: m, l and o of the open span, then those of the spans before.
// What one call would have held in between, and so its bits.
#pragma once

#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// One row's m, l and o, wherever they are in memory.
template <class T>
struct RowState {
  T *o;
  int64_t stride;
  T *m, *l;
};

template <class T>
void clear_row(const RowState<T> &r, int64_t value_features) {
  *r.m = kMinusInfinity<T>;
  *r.l = T(0);
  for (int64_t f = 0; f < value_features; f += kLanes<T>) {
    store_lanes(r.o + f * r.stride, r.stride, smaller<int64_t>(kLanes<T>, value_features - f), broadcast(T(0)));
  }
}
template <class T>
void copy_row(const RowState<T> &from, const RowState<T> &to, int64_t value_features) {
  *to.m = *from.m, *to.l = *from.l;
  for (int64_t f = 0; f < value_features; f += kLanes<T>) {
    const int64_t lanes = smaller<int64_t>(kLanes<T>, value_features - f);
    store_lanes(to.o + f * to.stride, to.stride, lanes, load_lanes<T>(from.o + f * from.stride, from.stride, lanes));
  }
}

// Those between two calls: of the open span, and of the spans before.
template <class T>
ATTEND_INLINE RowState<T> open_state(const AttentionBlock<T> &x, int64_t row) {
  T *const m = row_at(x, x.state, row);
  const int64_t element = x.state.element_stride;
  return {m + 2 * element, element, m, m + element};
}
template <class T>
ATTEND_INLINE RowState<T> spans_state(const AttentionBlock<T> &x, int64_t row) {
  const RowState<T> open = open_state(x, row);
  const int64_t further = (x.value_features + 2) * open.stride;
  return {open.o + further, open.stride, open.m + further, open.l + further};
}

// Those of row i of a tile at work.
template <class T>
ATTEND_INLINE RowState<T> open_row(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t i) {
  T *const o = t.output + (x.by_features ? i * x.value_features : i);
  return {o, x.by_features ? 1 : t.lanes, t.m() + i, t.l() + i};
}
template <class T>
ATTEND_INLINE RowState<T> spans_row(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t i) {
  return {row_at(x, x.out, t.row + i), x.out.element_stride, t.span_m() + i, t.span_l() + i};
}

// (Not inlined: rare.)
template <class T>
__attribute__((noinline)) void resume_tile(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  for (int64_t i = 0; i < t.count; ++i) {
    copy_row(open_state(x, t.row + i), open_row(x, t, i), x.value_features);
    copy_row(spans_state(x, t.row + i), spans_row(x, t, i), x.value_features);
  }
  for (int64_t i = t.count; i < t.lanes; ++i) {
    t.m()[i] = t.span_m()[i] = kMinusInfinity<T>;
    t.l()[i] = t.span_l()[i] = T(0);
  }
}

// `saw_something`: its open span is not empty.
template <class T>
__attribute__((noinline)) void pause_tile(const AttentionBlock<T> &x, const QueryTile<T> &t, bool saw_something) {
  for (int64_t i = 0; i < t.count; ++i) {
    const RowState<T> open = open_state(x, t.row + i);
    saw_something ? copy_row(open_row(x, t, i), open, x.value_features) : clear_row(open, x.value_features);
    copy_row(spans_row(x, t, i), spans_state(x, t.row + i), x.value_features);
  }
}

}  // namespace
}  // namespace attend
