// Softmax of one contiguous column that is too long to be kept near: one pass for maxima and sums, and one that
// computes the exponentials again and divides. That is two reads and a write of memory, where keeping the exponentials
// in y would be three reads and two writes.
//
// Each chunk of 512 has a sum relative to its own maximum, in the order of softmax_contiguous.hpp; the sums are brought
// to the column's maximum, each with one exponential, and added in order, compensated. Folding them as they come would
// be simpler, but a slowly rising column would then multiply its sum by a rounded factor at every chunk.
#pragma once

#include "kernels/softmax_contiguous.hpp"

namespace attend {
namespace {

// The column as a group of its own.
template <class T>
ATTEND_INLINE ColumnGroup<T> long_column(const LongSoftmaxBlock<T> &x) {
  ColumnGroup<T> g;
  g.plain = is_plain(x.block);
  g.e = is_narrow<T>(x.block.y.type) ? x.block.scratch : static_cast<T *>(x.block.y.data);
  g.s = g.plain ? static_cast<const T *>(x.block.x.data) : g.e;
  g.e_col = g.s_col = 0;
  return g;
}

template <class T>
void long_sums(const LongSoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kSoftmaxChunk;
  const int64_t rows = x.block.rows;
  const ColumnGroup<T> g = long_column(x);
  // kLanes chunks at a time, so that their lanes are combined by one transposition.
  for (int64_t first = 0; first < rows; first += W * kChunk) {
    const int64_t count = smaller<int64_t>(W, (rows - first + kChunk - 1) / kChunk);
    const auto end_of = [&](int64_t c) { return smaller(rows, first + (c + 1) * kChunk); };
    T lanes[W * W], shift[W], of_chunks[W];
    const auto keep = [&](T *to, vec<T> v) {
      store(of_chunks, v);
      for (int64_t c = 0; c < count; ++c) to[first / kChunk + c] = of_chunks[c];
    };
    for (int64_t c = 0; c < count; ++c) lane_maxima(x.block, g, 0, first + c * kChunk, end_of(c), lanes + c * W);
    for (int64_t c = count; c < W; ++c) store(lanes + c * W, broadcast(kMinusInfinity<T>));
    const vec<T> tops = across(lanes, Max<T>());
    keep(x.maxima, tops);
    store(shift, shift_of(tops));
    for (int64_t c = 0; c < count; ++c) {
      store(lanes + c * W, lane_sums(g.s, first + c * kChunk, end_of(c), broadcast(shift[c]), static_cast<T *>(nullptr),
                                     g.s + W * kChunk, false, [](int64_t, int64_t) {}));
    }
    keep(x.chunks, across(lanes, Add<T>()));
  }
}

template <class T>
void long_fold(const LongSoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kSoftmaxChunk;
  const int64_t count = (x.block.rows + kChunk - 1) / kChunk;
  vec<T> top = broadcast(kMinusInfinity<T>);
  for (int64_t c = 0; c < count; ++c) top = maximum(broadcast(x.maxima[c]), top);
  const vec<T> shift = shift_of(top);
  CompensatedSum<vec<T>> total = {broadcast(T(0)), broadcast(T(0))};
  for (int64_t c = 0; c < count; c += W) {
    const int64_t part = smaller<int64_t>(W, count - c);
    // A chunk without a finite score has maximum -inf and weighs nothing, and so have the lanes behind the last one: of
    // a maximum of 0 the exponential might overflow.
    T terms[W];
    const vec<T> maxima = only(load_lanes<T>(x.maxima + c, 1, part), part);
    store(terms, load_lanes<T>(x.chunks + c, 1, part) * exp_nonpositive(maxima - shift));
    for (int64_t l = 0; l < part; ++l) total.add(broadcast(terms[l]));
  }
  const ColumnResults<T> r = results_of(x.block, top, total, 0, 1);
  const vec<T> of_column[3] = {r.shift, r.factor, r.log_sum};
  for (int i = 0; i < 3; ++i) {
    T lane[W];
    store(lane, of_column[i]);
    x.of_column[i] = lane[0];
  }
}

template <class T>
void long_results(const LongSoftmaxBlock<T> &x) {
  const int64_t rows = x.block.rows;
  const bool log = x.block.log, stream = x.block.stream;
  const vec<T> shift = broadcast(x.of_column[0]), factor = broadcast(x.of_column[1]),
               log_sum = broadcast(x.of_column[2]);
  const ColumnGroup<T> g = long_column(x);
  const T *const s = g.s;
  constexpr int64_t kAhead = (1 << 14) / static_cast<int64_t>(sizeof(T));
  const auto result = [&](int64_t i, int64_t count, auto &r) __attribute__((always_inline)) {
    int64_t at = i;
    for (vec<T> &v : r) {
      __builtin_prefetch(s + at + kAhead);
      v = only(load_lanes<T>(s + at, 1, count), count) - shift;
      at += kLanes<T>;
    }
    if (log) {
      for (vec<T> &v : r) v = v - log_sum;
      return;
    }
    exp_nonpositive(r);
    for (vec<T> &v : r) v = v * factor;
  };
  if (is_narrow<T>(x.block.y.type)) {
    // The scores were not kept.
    T lanes[kLanes<T>];
    lane_maxima(x.block, g, 0, 0, rows, lanes);
    return round_rows<T>(x.block.y, 0, 0, rows, result);
  }
  write_rows(static_cast<T *>(x.block.y.data), rows, 0, rows, stream, result);
  if (stream) stream_fence();
}

template <class T>
void softmax_long(const LongSoftmaxBlock<T> &x) {
  switch (x.step) {
    case LongSoftmaxBlock<T>::sums:
      return long_sums(x);
    case LongSoftmaxBlock<T>::fold:
      return long_fold(x);
    case LongSoftmaxBlock<T>::results:
      return long_results(x);
  }
}

}  // namespace
}  // namespace attend
