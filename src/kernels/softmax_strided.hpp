// Softmax of columns in any other layout: lanes are columns, everything runs down the lanes.
//
// A strip of V vectors of columns goes through three sweeps over the rows: maxima; exponentials and sums; division.
// The first one copies the scores into a dense scratch, so that x is read and y is written once: rows that lie a power
// of two apart share so few sets of the caches that they would not be there any more for the next sweep. Where rows are
// contiguous the sweeps of three strips run as one. Columns too long for the scratch are read three times instead.
//
// The order of the sum is part of the contract: one chain over the elements of a chunk of 8, the chunks' sums folded
// in order, compensated.
#pragma once

#include "kernels/softmax.hpp"

namespace attend {
namespace {

// Lines of y are asked for so many rows ahead. (256 x 256, 512 x 512 and 1024 x 1024 on an Intel 1.17, 1.25 and 1.1 times the
// speed, with rows that share no sets 1.5; two to six do as well. The hardware follows up to some 32 rows by itself: 16 x 16384
// 0.9. Not measured on a Zen 5.)
constexpr int64_t kResults = 3;
template <class T>
ATTEND_INLINE bool asks_for_results(const SoftmaxBlock<T> &x) {
  return x.asks && x.rows > 32;
}

// A strip's rows of a narrower type, `width` elements of the scratch each: in one pass, which asks for the type once.
template <class T>
__attribute__((noinline)) void widen_strip(const StoredMatrix &m, int64_t column, int64_t rows, int64_t columns,
                                           int64_t width, T *scratch) {
  constexpr int W = kLanes<T>;
  with_float<T>(m.type, [&](auto stored) {
    const auto *from = static_cast<const decltype(stored) *>(m.data) + column;
    for (int64_t i = 0; i < rows; ++i, from += m.row_stride, scratch += width) {
      __builtin_prefetch(from + 8 * m.row_stride);
      int64_t l = 0;
      for (; l + W <= columns; l += W) store(scratch + l, load_as<T>(from + l));
      if (l < columns) store(scratch + l, load_some<T>(from + l, columns - l));
    }
  });
}
template <class T>
__attribute__((noinline)) void narrow_strip(const StoredMatrix &m, int64_t column, int64_t rows, int64_t columns,
                                            int64_t width, const T *scratch) {
  constexpr int W = kLanes<T>;
  with_float<T>(m.type, [&](auto stored) {
    auto *to = static_cast<decltype(stored) *>(m.data) + column;
    for (int64_t i = 0; i < rows; ++i, to += m.row_stride, scratch += width) {
      int64_t l = 0;
      for (; l + W <= columns; l += W) store_as<T>(to + l, load(scratch + l));
      if (l < columns) store_some(to + l, load(scratch + l), columns - l);
    }
  });
}

template <class T, bool kPlain, int V>
void strided_strip(const SoftmaxBlock<T> &x, int64_t column, int64_t columns, T *scratch) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kStridedChunk, kAhead = 8;
  // Copies: a store of a vector might, for all the compiler knows, change x.
  const int64_t rows = x.rows, y_row = x.y.row_stride, y_col = x.y.col_stride, x_row = x.x.row_stride;
  const bool log = x.log, stream = x.stream, dense = x.x.col_stride == 1 && !is_narrow<T>(x.x.type);
  const T *const x_data = static_cast<const T *>(x.x.data);
  int64_t count[V];
  vec<T> top[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    count[v] = larger<int64_t>(0, smaller<int64_t>(W, columns - v * W));
    top[v] = broadcast(kMinusInfinity<T>);
  }
  const bool narrow = !kPlain && has_narrow_scores(x), rounds = !kPlain && is_narrow<T>(x.y.type);
  const bool widens = narrow && scratch != nullptr && is_narrow<T>(x.x.type) && x.x.col_stride == 1;
  const bool narrows = rounds && scratch != nullptr && y_col == 1;
  if (widens) widen_strip(x.x, column, rows, smaller<int64_t>(columns, V * W), V * W, scratch);
  const auto score = [&](int64_t i, int v, const T *widened = nullptr) __attribute__((always_inline)) {
    return count[v] == 0 ? broadcast(T(0)) : scores<T, kPlain, false>(x, i, column + v * W, count[v], narrow, widened);
  };
  for (int64_t i = 0; i < rows; ++i) {
    if (dense) __builtin_prefetch(x_data + (i + kAhead) * x_row + column);
    if (dense && V * W * sizeof(T) > 64) __builtin_prefetch(x_data + (i + kAhead) * x_row + column + V * W - 1);
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) {
      const int64_t at = (i * V + v) * W;
      const vec<T> s = score(i, v, widens ? scratch + at : nullptr);
      top[v] = maximum(s, top[v]);
      if (scratch != nullptr) store(scratch + at, s);
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
      T *const at = scratch + i * V * W;
      vec<T> e[V];
      ATTEND_UNROLL
      for (int v = 0; v < V; ++v) e[v] = (scratch != nullptr ? load(at + v * W) : score(i, v)) - shift[v];
      exp_nonpositive(e);
      ATTEND_UNROLL
      for (int v = 0; v < V; ++v) {
        sum[v] = sum[v] + e[v];
        if (scratch != nullptr && !log) store(at + v * W, e[v]);
      }
    }
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) total[v].add(sum[v]);
  }
  ColumnResults<T> results[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) results[v] = results_of(x, top[v], total[v], column + v * W, count[v]);
  T *const y = own_element<T>(x.y, 0, column);
  const bool asks = asks_for_results(x) && !rounds && y_col == 1;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t l = 0; asks && l < V * W; l += 64 / static_cast<int64_t>(sizeof(T))) {
      __builtin_prefetch(y + (i + kResults) * y_row + l, 1, 3);
    }
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
      if (narrows) {
        store(scratch + (i * V + v) * W, r);
        continue;
      }
      if (rounds) {
        store_narrow_lanes(element_of(x.y, i, column + v * W), x.y.type, y_col, count[v], r);
        continue;
      }
      T *const to = y + i * y_row + v * W * y_col;
      if (stream && count[v] == W) {
        stream_store(to, r);
      } else {
        store_lanes(to, y_col, count[v], r);
      }
    }
  }
  if (narrows) narrow_strip(x.y, column, rows, smaller<int64_t>(columns, V * W), V * W, scratch);
}

// What is known of a strip between its sweeps.
template <class T, int V>
struct Strip {
  int64_t column = 0;
  vec<T> top[V];
  ColumnResults<T> results[V];
};

// One sweep over the rows for three neighbouring strips of V whole vectors of plain, contiguous rows: the exponentials
// and sums of `strip` (in `scores`), the results of `previous` (in `other`), and in its place the maxima and the copy
// of `next`. What waits for memory and address translation, a page of x and one of y for every row, does so behind the
// arithmetic; rows are asked for into the L2, since those a power of two apart share a set of the L1 (8192 x 8192: 8 rows
// ahead, into the L1, took 1.2 times as long).
template <class T, int V, bool kPrevious, bool kNext>
void piped_sweep(const SoftmaxBlock<T> &x, Strip<T, V> *strip, const Strip<T, V> &previous, Strip<T, V> *next,
                 T *scores, T *other) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kStridedChunk, kAhead = 32, kLine = 64 / static_cast<int64_t>(sizeof(T));
  const int64_t rows = x.rows, x_row = x.x.row_stride, y_row = x.y.row_stride;
  const bool log = x.log, stream = x.stream, asks = asks_for_results(x);
  vec<T> top[V], shift[V];
  CompensatedSum<vec<T>> total[V];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    top[v] = broadcast(kMinusInfinity<T>);
    shift[v] = shift_of(strip->top[v]);
    total[v] = {broadcast(T(0)), broadcast(T(0))};
  }
  const T *from = kNext ? static_cast<const T *>(x.x.data) + next->column : nullptr;
  T *to = kPrevious ? static_cast<T *>(x.y.data) + previous.column : nullptr;
  for (int64_t chunk = 0; chunk < rows; chunk += kChunk) {
    vec<T> sum[V];
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) sum[v] = broadcast(T(0));
    const int64_t end = smaller(rows, chunk + kChunk);
    for (int64_t i = chunk; i < end; ++i, scores += V * W, other += V * W) {
      for (int64_t l = 0; kNext && l < V * W; l += kLine) __builtin_prefetch(from + kAhead * x_row + l, 0, 2);
      for (int64_t l = 0; kPrevious && asks && l < V * W; l += kLine)
        __builtin_prefetch(to + kResults * y_row + l, 1, 3);
      ATTEND_UNROLL
      for (int v = 0; v < V; ++v) {
        const vec<T> e = exp_nonpositive(load(scores + v * W) - shift[v]);
        sum[v] = sum[v] + e;
        if (!log) store(scores + v * W, e);
        if (kPrevious) {
          const ColumnResults<T> &of = previous.results[v];
          const vec<T> p = load(other + v * W);
          const vec<T> r = log ? p - of.shift - of.log_sum : p * of.factor;
          stream ? stream_store(to + v * W, r) : store(to + v * W, r);
        }
        if (kNext) {
          const vec<T> s = load(from + v * W);
          top[v] = maximum(s, top[v]);
          store(other + v * W, s);
        }
      }
      if (kNext) from += x_row;
      if (kPrevious) to += y_row;
    }
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) total[v].add(sum[v]);
  }
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) {
    strip->results[v] = results_of(x, strip->top[v], total[v], strip->column + v * W, W);
    next->top[v] = top[v];
  }
}

// The columns from `begin` on in whole strips of V vectors; where they end.
template <class T, int V>
int64_t piped_strips(const SoftmaxBlock<T> &x, int64_t begin) {
  constexpr int W = kLanes<T>;
  const int64_t rows = x.rows, size = rows * V * W, end = begin + (x.columns - begin) / (V * W) * (V * W);
  if (begin == end) return end;
  Strip<T, V> strips[3];
  ATTEND_UNROLL
  for (int v = 0; v < V; ++v) strips[0].top[v] = broadcast(kMinusInfinity<T>);
  for (int64_t i = 0; i < rows; ++i) {
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v) {
      const vec<T> s = load(static_cast<const T *>(x.x.data) + i * x.x.row_stride + begin + v * W);
      strips[0].top[v] = maximum(s, strips[0].top[v]);
      store(x.scratch + (i * V + v) * W, s);
    }
  }
  int turn = 0;
  T *scores = x.scratch, *other = x.scratch + size;
  for (int64_t c = begin; c < end; c += V * W, turn = (turn + 1) % 3) {
    Strip<T, V> &strip = strips[turn], &next = strips[(turn + 1) % 3];
    const Strip<T, V> &previous = strips[(turn + 2) % 3];
    strip.column = c;
    next.column = c + V * W;
    const bool has_previous = c > begin, has_next = next.column < end;
    if (has_previous && has_next) {
      piped_sweep<T, V, true, true>(x, &strip, previous, &next, scores, other);
    } else if (has_previous) {
      piped_sweep<T, V, true, false>(x, &strip, previous, &next, scores, other);
    } else if (has_next) {
      piped_sweep<T, V, false, true>(x, &strip, previous, &next, scores, other);
    } else {
      piped_sweep<T, V, false, false>(x, &strip, previous, &next, scores, other);
    }
    T *const used = scores;
    scores = other;
    other = used;
  }
  const Strip<T, V> &last = strips[(turn + 2) % 3];
  const T *p = other;
  for (int64_t i = 0; i < rows; ++i) {
    ATTEND_UNROLL
    for (int v = 0; v < V; ++v, p += W) {
      T *const to = static_cast<T *>(x.y.data) + i * x.y.row_stride + last.column + v * W;
      const ColumnResults<T> &of = last.results[v];
      const vec<T> r = x.log ? load(p) - of.shift - of.log_sum : load(p) * of.factor;
      x.stream ? stream_store(to, r) : store(to, r);
    }
  }
  return end;
}

// Vectors of a strip that is not piped: masks and biases take too many registers, and too much code, for four.
template <class T, bool kPlain>
constexpr int kStripVectors = kPlain || Tiles<T>::kStripVectors < 2 ? Tiles<T>::kStripVectors : 2;

template <class T, bool kPlain>
void strided_columns(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>, kMost = Tiles<T>::kStripVectors;
  // Vectors whose columns fit the scratch.
  const int64_t fit = x.rows == 0 ? 8 : x.scratch_size / (x.rows * W);
  // One vector at a time through the scratch is slower than reading four of them three times.
  constexpr int kVectors = kStripVectors<T, kPlain>;
  T *const scratch = fit < smaller<int64_t>(kVectors, 2) ? nullptr : x.scratch;
  const int64_t vectors = smaller<int64_t>(kVectors, fit >= 4 || fit < 2 ? 4 : 2);
  const auto strips = [&](const SoftmaxBlock<T> &of, int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c += vectors * W) {
      const int64_t columns = smaller<int64_t>(vectors * W, end - c);
      with_power_above<kVectors>((columns + W - 1) / W, [&](auto v) __attribute__((always_inline)) {
        strided_strip<T, kPlain, decltype(v)::value>(of, c, columns, scratch);
      });
    }
  };
  int64_t c = 0;
  if (x.stream) {
    // Up to where the lines of y begin, in all rows at once.
    constexpr int64_t kLine = 64;
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.y.data) % kLine);
    if (past != 0) {
      SoftmaxBlock<T> head = x;
      head.stream = false;
      c = smaller(x.columns, (kLine - past) / static_cast<int64_t>(sizeof(T)));
      strips(head, 0, c);
    }
  }
  if (kPlain && x.x.col_stride == 1 && x.y.col_stride == 1 && fit >= 2) {
    // Wide strips, whose pages are visited least, but several of them, for only those in the middle have neighbours.
    int64_t wide = smaller<int64_t>(kMost, fit / 2);
    while (wide > 1 && x.columns < 4 * wide * W) wide /= 2;
    if constexpr (kMost >= 4) {
      if (wide >= 4) c = piped_strips<T, 4>(x, c);
    }
    if constexpr (kMost >= 2) {
      if (wide >= 2) c = piped_strips<T, 2>(x, c);
    }
    c = piped_strips<T, 1>(x, c);
  }
  strips(x, c, x.columns);
  if (x.stream) stream_fence();
}

template <class T>
void softmax_strided(const SoftmaxBlock<T> &x) {
  is_plain(x) ? strided_columns<T, true>(x) : strided_columns<T, false>(x);
}

}  // namespace
}  // namespace attend
