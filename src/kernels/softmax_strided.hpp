// Softmax of columns in any other layout: lanes are columns, everything runs down the lanes.
//
// A strip of V vectors of columns goes through three sweeps over the rows: maxima; exponentials and sums; division.
// The first one copies the scores into a dense scratch, so that x is read and y is written once: rows that lie a power
// of two apart share so few sets of the caches that they would not be there any more for the next sweep. Columns too
// long for the scratch are read three times instead.
//
// The order of the sum is part of the contract: one chain over the elements of a chunk of 32, the chunks' sums folded
// in order, compensated.
#pragma once

#include "kernels/softmax.hpp"

namespace attend {
namespace {

template <class T, bool kPlain, int V>
void strided_strip(const SoftmaxBlock<T> &x, int64_t column, int64_t columns, T *scratch) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = 32, kAhead = 8;
  // Copies: a store of a vector might, for all the compiler knows, change x.
  const int64_t rows = x.rows, y_row = x.y_row, y_col = x.y_col, x_row = x.x_row;
  const bool log = x.log, stream = x.stream, dense = x.x_col == 1;
  int64_t count[V];
  vec<T> top[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    count[v] = larger<int64_t>(0, smaller<int64_t>(W, columns - v * W));
    top[v] = broadcast(kMinusInfinity<T>);
  }
  const auto score = [&](int64_t i, int v) __attribute__((always_inline)) {
    return count[v] == 0 ? broadcast(T(0)) : scores<T, kPlain, false>(x, i, column + v * W, count[v]);
  };
  for (int64_t i = 0; i < rows; ++i) {
    if (dense) __builtin_prefetch(x.x + (i + kAhead) * x_row + column);
    if (dense && V * W * sizeof(T) > 64) __builtin_prefetch(x.x + (i + kAhead) * x_row + column + V * W - 1);
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) {
      const vec<T> s = score(i, v);
      top[v] = maximum(s, top[v]);
      if (scratch != nullptr) store(scratch + (i * V + v) * W, s);
    }
  }
  vec<T> shift[V];
  CompensatedSum<vec<T>> total[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    shift[v] = shift_of(top[v]);
    total[v] = {broadcast(T(0)), broadcast(T(0))};
  }
  for (int64_t chunk = 0; chunk < rows; chunk += kChunk) {
    vec<T> sum[V];
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) sum[v] = broadcast(T(0));
    const int64_t end = smaller(rows, chunk + kChunk);
    for (int64_t i = chunk; i < end; ++i) {
      ATTEND_UNROLL
      for (int v = 0; v < V; ++v) {
        T *at = scratch + (i * V + v) * W;
        const vec<T> s = scratch != nullptr ? load(at) : score(i, v);
        const vec<T> e = exp_nonpositive(s - shift[v]);
        sum[v] = sum[v] + e;
        if (scratch != nullptr && !log) store(at, e);
      }
    }
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) total[v].add(sum[v]);
  }
  ColumnResults<T> results[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) results[v] = results_of(x, top[v], total[v], column + v * W, count[v]);
  T *const y = x.y + column * y_col;
  for (int64_t i = 0; i < rows; ++i) {
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) {
      if (count[v] == 0) break;
      vec<T> r = scratch != nullptr ? load(scratch + (i * V + v) * W) : score(i, v);
      if (log) {
        r = r - shift[v] - results[v].log_sum;
      } else {
        if (scratch == nullptr) r = exp_nonpositive(r - shift[v]);
        r = r * results[v].factor;
      }
      T *const to = y + i * y_row + v * W * y_col;
      if (stream && count[v] == W) {
        stream_store(to, r);
      } else {
        store_lanes(to, y_col, count[v], r);
      }
    }
  }
}

// Eight whole vectors of plain, contiguous rows: half a KiB of every row is read and written at a time, since each row lies in a
// page of its own and the sweeps wait for the address translation. Four vectors at a time have their exponentials.
template <class T>
void wide_strip(const SoftmaxBlock<T> &x, int64_t column, T *scratch) {
  constexpr int W = kLanes<T>, kHalf = 4;
  constexpr int64_t kChunk = 32, kAhead = 8, kLine = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t rows = x.rows, x_row = x.x_row, y_row = x.y_row;
  const bool log = x.log, stream = x.stream;
  T *const halves[2] = {scratch, scratch + rows * kHalf * W};
  vec<T> top[2 * kHalf], shift[2 * kHalf], factor[2 * kHalf], log_sum[2 * kHalf];
  ATTEND_UNROLL
  for (int v = 0; v < 2 * kHalf; ++v) top[v] = broadcast(kMinusInfinity<T>);
  const T *from = x.x + column;
  for (int64_t i = 0; i < rows; ++i, from += x_row) {
    for (int64_t l = 0; l < 2 * kHalf * W; l += kLine) __builtin_prefetch(from + kAhead * x_row + l);
    ATTEND_UNROLL
    for (int v = 0; v < 2 * kHalf; ++v) {
      const vec<T> s = load(from + v * W);
      top[v] = maximum(s, top[v]);
      store(halves[v / kHalf] + (i * kHalf + v % kHalf) * W, s);
    }
  }
  for (int half = 0; half < 2; ++half) {
    CompensatedSum<vec<T>> total[kHalf];
    vec<T> low[kHalf];
    ATTEND_UNROLL
    for (int v = 0; v < kHalf; ++v) {
      low[v] = shift_of(half == 0 ? top[v] : top[kHalf + v]);
      total[v] = {broadcast(T(0)), broadcast(T(0))};
    }
    T *at = halves[half];
    for (int64_t chunk = 0; chunk < rows; chunk += kChunk) {
      vec<T> sum[kHalf];
      ATTEND_UNROLL
      for (int v = 0; v < kHalf; ++v) sum[v] = broadcast(T(0));
      const int64_t end = smaller(rows, chunk + kChunk);
      for (int64_t i = chunk; i < end; ++i, at += kHalf * W) {
        ATTEND_UNROLL
        for (int v = 0; v < kHalf; ++v) {
          const vec<T> e = exp_nonpositive(load(at + v * W) - low[v]);
          sum[v] = sum[v] + e;
          if (!log) store(at + v * W, e);
        }
      }
      ATTEND_UNROLL
      for (int v = 0; v < kHalf; ++v) total[v].add(sum[v]);
    }
    ATTEND_UNROLL
    for (int v = 0; v < kHalf; ++v) {
      const int w = half * kHalf + v;
      const ColumnResults<T> r = results_of(x, half == 0 ? top[v] : top[kHalf + v], total[v], column + w * W, W);
      shift[w] = r.shift;
      factor[w] = r.factor;
      log_sum[w] = r.log_sum;
    }
  }
  T *to = x.y + column;
  for (int64_t i = 0; i < rows; ++i, to += y_row) {
    ATTEND_UNROLL
    for (int v = 0; v < 2 * kHalf; ++v) {
      const vec<T> s = load(halves[v / kHalf] + (i * kHalf + v % kHalf) * W);
      const vec<T> r = log ? s - shift[v] - log_sum[v] : s * factor[v];
      stream ? stream_store(to + v * W, r) : store(to + v * W, r);
    }
  }
}

template <class T, bool kPlain>
void strided_columns(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
  const int64_t fit = x.rows == 0 ? 4 : Contract<T>::kSoftmaxScratch / (x.rows * W);
  // One vector at a time through the scratch is slower than reading four of them three times.
  T *const scratch = fit < 2 ? nullptr : x.scratch;
  const int vectors = fit >= 4 || fit < 2 ? 4 : 2;
  const bool whole = kPlain && x.x_col == 1 && x.y_col == 1;
  int64_t c = 0;
  for (; whole && fit >= 8 && c + 8 * W <= x.columns; c += 8 * W) wide_strip(x, c, scratch);
  for (; c < x.columns; c += vectors * W) {
    const int64_t columns = smaller<int64_t>(vectors * W, x.columns - c);
    if (columns <= W) {
      strided_strip<T, kPlain, 1>(x, c, columns, scratch);
    } else if (columns <= 2 * W) {
      strided_strip<T, kPlain, 2>(x, c, columns, scratch);
    } else {
      strided_strip<T, kPlain, 4>(x, c, columns, scratch);
    }
  }
  if (x.stream) stream_fence();
}

template <class T>
void softmax_strided(const SoftmaxBlock<T> &x) {
  is_plain(x) ? strided_columns<T, true>(x) : strided_columns<T, false>(x);
}

}  // namespace
}  // namespace attend
