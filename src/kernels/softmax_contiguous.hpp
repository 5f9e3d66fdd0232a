// Softmax of contiguous columns: lanes run down the column.
//
// A group of columns, as many as fit the L1, goes through three steps together: maxima; exponentials and sums;
// division. The steps of three groups run beside each other. What is horizontal, the reduction over the lanes, is done
// for all columns of the group at once by a transposition in registers.
//
// The order of the sum is part of the contract (Contract<T>): element i of a chunk of 512 belongs to virtual lane i
// mod 16, and is added in parts of 8, lest one large element see its last bits rounded thirty times; the 16 lanes are
// added as a tree (l, l+8), (l, l+4), (l, l+2), (l, l+1); the chunks' sums are folded in order, compensated. Missing
// elements add +0.
#pragma once

#include "kernels/softmax_short.hpp"

namespace attend {
namespace {

// Lane vectors of kLanes columns, one behind the other, to one vector with a column a lane: combined as a tree.
template <class T, class F>
ATTEND_INLINE vec<T> across(const T *lanes, const F &combine) {
  constexpr int W = kLanes<T>;
  vec<T> r[W];
  ATTEND_UNROLL
  for (int c = 0; c < W; ++c) r[c] = load(lanes + c * W);
  transpose(r);
  ATTEND_UNROLL
  for (int half = W / 2; half > 0; half /= 2) {
    ATTEND_UNROLL
    for (int l = 0; l < half; ++l) r[l] = combine(r[l], r[l + half]);
  }
  return r[0];
}

template <class T>
struct Max {
  ATTEND_INLINE vec<T> operator()(vec<T> a, vec<T> b) const { return maximum(a, b); }
};
template <class T>
struct Add {
  ATTEND_INLINE vec<T> operator()(vec<T> a, vec<T> b) const { return a + b; }
};

// What is known of a group of columns between its steps.
template <class T>
struct ColumnGroup {
  int64_t first = 0, count = 0;
  T lanes[kLanes<T> * kLanes<T>];  // the maxima so far, a vector for each column
  T factor[kLanes<T>], shift[kLanes<T>], log_sum[kLanes<T>];
  T *e;  // the exponentials: in y, or in the scratch if y is not to pass through the caches
  int64_t e_col;

  void begin(const SoftmaxBlock<T> &x, int64_t column, int64_t columns, int turn) {
    first = column;
    count = columns;
    for (int c = 0; c < kLanes<T>; ++c) store(lanes + c * kLanes<T>, broadcast(kMinusInfinity<T>));
    e = x.stream ? x.scratch + turn * (x.scratch_size / 2) : x.y.data + column * x.y.col_stride;
    e_col = x.y.col_stride;  // with x.stream there is one column
  }
};

// Step one for rows [begin, end) of column c of the group: the maximum.
template <class T, bool kPlain>
ATTEND_INLINE void column_maximum(const SoftmaxBlock<T> &x, ColumnGroup<T> *g, int64_t c, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>;
  vec<T> top = load(g->lanes + c * W);
  for (int64_t i = begin; i < end; i += W) {
    top = maximum(scores<T, kPlain, true>(x, i, g->first + c, smaller<int64_t>(W, end - i)), top);
  }
  store(g->lanes + c * W, top);
}

// Step three for rows [begin, end) of column c of the group: the result.
template <class T, bool kPlain>
ATTEND_INLINE void column_result(const SoftmaxBlock<T> &x, const ColumnGroup<T> &g, int64_t c, int64_t begin,
                                 int64_t end) {
  constexpr int W = kLanes<T>;
  const vec<T> factor = broadcast(g.factor[c]), log_sum = broadcast(g.log_sum[c]), shift = broadcast(g.shift[c]);
  const T *const e = g.e + c * g.e_col;
  T *const y = x.y.data + (g.first + c) * x.y.col_stride;
  for (int64_t i = begin; i < end; i += W) {
    const int64_t part = smaller<int64_t>(W, end - i);
    const vec<T> r = x.log ? scores<T, kPlain, true>(x, i, g.first + c, part) - shift - log_sum
                           : load_lanes(e + i, 1, part) * factor;
    if (x.stream && part == W) {
      stream_store(y + i, r);
    } else {
      store_lanes(y + i, 1, part, r);
    }
  }
}

// Step two of a group, and beside it, in the same loop, step one of the next group and step three of the previous one:
// those wait for memory and stores, this one for the arithmetic.
template <class T, bool kPlain>
void contiguous_group(const SoftmaxBlock<T> &x, ColumnGroup<T> *g, const ColumnGroup<T> &previous,
                      ColumnGroup<T> *next) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  constexpr int64_t kChunk = Contract<T>::kSoftmaxChunk, kPart = Contract<T>::kSoftmaxPart,
                    kVirtual = Contract<T>::kVirtualLanes;
  static_assert(kVirtual % W == 0, "virtual lanes are whole vectors");
  // Copies: a store of a vector might, for all the compiler knows, change x.
  const int64_t rows = x.rows;
  const bool log = x.log, stream = x.stream;
  const vec<T> tops = across(g->lanes, Max<T>());
  store(g->shift, shift_of(tops));
  T lanes[W * W];

  CompensatedSum<vec<T>> total = {broadcast(T(0)), broadcast(T(0))};
  for (int64_t chunk = 0; chunk < rows; chunk += kChunk) {
    const int64_t end = smaller(rows, chunk + kChunk);
    for (int64_t c = 0; c < W; ++c) {
      // of_parts: the sums of the parts of a lane that are behind, `sums`: of the one at hand.
      vec<T> sums[kLaneVectors], of_parts[kLaneVectors];
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) sums[u] = of_parts[u] = broadcast(T(0));
      const auto end_part = [&](int64_t at) __attribute__((always_inline)) {
        if (at % kPart != kPart - kVirtual) return;
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) {
          of_parts[u] = of_parts[u] + sums[u];
          sums[u] = broadcast(T(0));
        }
      };
      const bool beside = kPlain && !log && c < g->count && c < previous.count && c < next->count;
      int64_t i = chunk;
      if (beside) {
        const vec<T> shift = broadcast(g->shift[c]), factor = broadcast(previous.factor[c]);
        T *const e_to = g->e + c * g->e_col, *const y = x.y.data + (previous.first + c) * x.y.col_stride;
        const T *const e_from = previous.e + c * previous.e_col;
        const T *const from = x.x.data + (g->first + c) * x.x.col_stride, *const ahead = x.x.data + (next->first + c) *
                                                                                                        x.x.col_stride;
        vec<T> top = load(next->lanes + c * W);
        for (; i + kVirtual <= end; i += kVirtual) {
          if (stream) __builtin_prefetch(ahead + i + x.ahead, 0, 2);
          ATTEND_UNROLL
          for (int u = 0; u < kLaneVectors; ++u) {
            const int64_t at = i + u * W;
            const vec<T> e = exp_nonpositive(load(from + at) - shift);
            sums[u] = sums[u] + e;
            top = maximum(load(ahead + at), top);
            const vec<T> r = load(e_from + at) * factor;
            stream ? stream_store(y + at, r) : store(y + at, r);
            store(e_to + at, e);
          }
          end_part(i);
        }
        store(next->lanes + c * W, top);
        column_maximum<T, kPlain>(x, next, c, i, end);
        column_result<T, kPlain>(x, previous, c, i, end);
      } else {
        if (c < next->count) column_maximum<T, kPlain>(x, next, c, chunk, end);
        if (c < previous.count) column_result<T, kPlain>(x, previous, c, chunk, end);
      }
      if (c < g->count) {
        const vec<T> shift = broadcast(g->shift[c]);
        T *const e_to = g->e + c * g->e_col;
        for (; i < end; i += kVirtual) {
          ATTEND_UNROLL
          for (int u = 0; u < kLaneVectors; ++u) {
            const int64_t at = i + u * W;
            if (at >= end) break;
            const int64_t part = smaller<int64_t>(W, end - at);
            const vec<T> e = exp_nonpositive(scores<T, kPlain, true>(x, at, g->first + c, part) - shift);
            sums[u] = sums[u] + e;
            if (!log) store_lanes(e_to + at, 1, part, e);
          }
          end_part(i);
        }
      }
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) sums[u] = of_parts[u] + sums[u];
      ATTEND_UNROLL
      for (int half = kLaneVectors / 2; half > 0; half /= 2) {
        ATTEND_UNROLL
        for (int u = 0; u < half; ++u) sums[u] = sums[u] + sums[u + half];
      }
      store(lanes + c * W, sums[0]);
    }
    total.add(across(lanes, Add<T>()));
  }
  const ColumnResults<T> results = results_of(x, tops, total, g->first, g->count);
  store(g->factor, results.factor);
  store(g->log_sum, results.log_sum);
}

template <class T, bool kPlain>
void contiguous_columns(const SoftmaxBlock<T> &x) {
  // Three groups are at work at a time, in an L1 of 32 KiB.
  constexpr int64_t kBytes = 1 << 13;
  constexpr int W = kLanes<T>;
  if (x.rows > 0 && x.rows <= kShort<T> && W >= 4) return short_columns<T, kPlain>(x);
  int64_t size = smaller<int64_t>(kLanes<T>, kBytes / (x.rows * static_cast<int64_t>(sizeof(T))));
  if (x.stream || size < 1) size = 1;
  ColumnGroup<T> groups[3];
  int turn = 0;
  groups[0].begin(x, 0, smaller(size, x.columns), 0);
  for (int64_t c = 0; c < groups[0].count; ++c) column_maximum<T, kPlain>(x, &groups[0], c, 0, x.rows);
  for (int64_t column = 0; column < x.columns; column += size, turn = (turn + 1) % 3) {
    ColumnGroup<T> &next = groups[(turn + 1) % 3];
    next.begin(x, column + size, larger<int64_t>(0, smaller(size, x.columns - column - size)),
               static_cast<int>((column / size + 1) % 2));
    contiguous_group<T, kPlain>(x, &groups[turn], groups[(turn + 2) % 3], &next);
  }
  const ColumnGroup<T> &last = groups[(turn + 2) % 3];
  for (int64_t c = 0; c < last.count; ++c) column_result<T, kPlain>(x, last, c, 0, x.rows);
  if (x.stream) stream_fence();
}

template <class T>
void softmax_contiguous(const SoftmaxBlock<T> &x) {
  is_plain(x) ? contiguous_columns<T, true>(x) : contiguous_columns<T, false>(x);
}

}  // namespace
}  // namespace attend
