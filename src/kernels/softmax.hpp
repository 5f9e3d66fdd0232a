// Softmax down columns: y = exp(s - m) / l with s = scale x, m the column's maximum, l the sum.
//
// The order of the sum is part of the contract (Contract<T>): element i of a chunk of 512 belongs to virtual lane i mod 16; the
// 16 lanes are added as a tree (l, l+8), (l, l+4), (l, l+2), (l, l+1); the chunks' sums are folded in order, compensated.
#pragma once

#include "kernels/exp.hpp"

namespace attend {
namespace {

template <class T>
constexpr T kMinusInfinity = -static_cast<T>(__builtin_inff());

// A running sum with its rounding errors (Neumaier). Works on scalars and on vectors alike.
template <class V>
struct CompensatedSum {
  V sum, error;
  ATTEND_INLINE void add(V x) {
    // TwoSum (Knuth): exact for any order of magnitude.
    const V s = sum + x;
    const V part = s - sum;
    error = error + ((sum - (s - part)) + (x - part));
    sum = s;
  }
};

// One column's maximum and sum, as the results need them.
template <class T>
struct ColumnResult {
  T shift;    // subtracted from the scores: the maximum, or 0 where that is -inf (exp(-inf) is 0, -inf - -inf is NaN)
  T factor;   // 1 / sum, or 0 for an empty sum
  T log_sum;  // log(sum), only if asked for
};

template <class T>
ATTEND_INLINE ColumnResult<T> column_result(const SoftmaxBlock<T> &x, T maximum, const CompensatedSum<T> &total,
                                            int64_t column) {
  ColumnResult<T> r;
  r.shift = maximum == kMinusInfinity<T> ? T(0) : maximum;
  T sum = total.sum;
  // Where the sum is NaN or infinite so is the compensation; only a finite one may be added.
  if (total.error == total.error) sum = sum + total.error;
  r.factor = sum == T(0) ? T(0) : T(1) / sum;
  r.log_sum = T(0);
  if (x.log || x.lse != nullptr) {
    const double log_sum = x.natural_log(static_cast<double>(sum));
    r.log_sum = static_cast<T>(log_sum);
    if (x.lse != nullptr) x.lse[column * x.lse_col] = static_cast<T>(static_cast<double>(maximum) + log_sum);
  }
  return r;
}

// The vector of elements i.. of a column, lanes beyond the end filled with `fill`.
template <class T>
ATTEND_INLINE vec<T> load_filled(const T *x, int64_t i, int64_t rows, T fill) {
  if (i + kLanes<T> <= rows) return load(x + i);
  T buffer[kLanes<T>];
  for (int l = 0; l < kLanes<T>; ++l) buffer[l] = i + l < rows ? x[i + l] : fill;
  return load(buffer);
}

template <class T>
ATTEND_INLINE void store_filled(T *y, int64_t i, int64_t rows, vec<T> v) {
  if (i + kLanes<T> <= rows) return store(y + i, v);
  store(y + i, v, Tail<T>(rows - i));
}

// Contiguous columns (x_row = y_row = 1), one after the other: maximum; exp and sum; division.
template <class T>
void softmax_contiguous(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  static_assert(Contract<T>::kVirtualLanes % W == 0, "virtual lanes are whole vectors");
  const int64_t rows = x.rows;
  const vec<T> scale = broadcast(x.scale);
  for (int64_t column = 0; column < x.columns; ++column) {
    const T *from = x.x + column * x.x_col;
    T *to = x.y + column * x.y_col;

    vec<T> maxima = broadcast(kMinusInfinity<T>);
    for (int64_t i = 0; i < rows; i += W) {
      // Filled with an element of the column: -inf would become +inf under a negative scale.
      maxima = maximum(load_filled(from, i, rows, from[rows - 1]) * scale, maxima);
    }
    T lanes[Contract<T>::kVirtualLanes];
    store(lanes, maxima);
    T top = kMinusInfinity<T>;
    for (int l = 0; l < W; ++l) top = larger(top, lanes[l]);
    const T shift = top == kMinusInfinity<T> ? T(0) : top;

    CompensatedSum<T> total = {T(0), T(0)};
    for (int64_t chunk = 0; chunk < rows; chunk += Contract<T>::kSoftmaxChunk) {
      const int64_t end = smaller(rows, chunk + Contract<T>::kSoftmaxChunk);
      vec<T> sums[kLaneVectors];
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) sums[u] = broadcast(T(0));
      int64_t i = chunk;
      for (; i + Contract<T>::kVirtualLanes <= end; i += Contract<T>::kVirtualLanes) {
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) {
          const vec<T> s = load(from + i + u * W) * scale - broadcast(shift);
          const vec<T> e = exp_nonpositive(s);
          sums[u] = sums[u] + e;
          store(to + i + u * W, x.log ? s : e);
        }
      }
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) {
        const int64_t at = i + u * W;
        if (at >= end) break;
        // The filled lanes repeat an element; they are dropped before the sum.
        const vec<T> s = load_filled(from, at, end, from[end - 1]) * scale - broadcast(shift);
        vec<T> e = exp_nonpositive(s);
        if (at + W > end) {
          T part[W];
          store(part, e);
          for (int64_t l = end - at; l < W; ++l) part[l] = T(0);
          e = load(part);
        }
        sums[u] = sums[u] + e;
        store_filled(to, at, end, x.log ? s : e);
      }
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) store(lanes + u * W, sums[u]);
      for (int half = Contract<T>::kVirtualLanes / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) lanes[l] = lanes[l] + lanes[l + half];
      }
      total.add(lanes[0]);
    }

    const ColumnResult<T> result = column_result(x, top, total, column);
    // With x.log, y holds s - shift: subtract log(sum). A column of only -inf stays -inf, since log(0) is kept out.
    const vec<T> factor = broadcast(result.factor);
    const vec<T> log_sum = broadcast(result.factor == T(0) ? T(0) : result.log_sum);
    for (int64_t i = 0; i < rows; i += W) {
      const vec<T> v = load_filled(to, i, rows, T(0));
      store_filled(to, i, rows, x.log ? v - log_sum : v * factor);
    }
  }
}

// Lanes of `count` columns of one row; contiguous or not.
template <class T>
ATTEND_INLINE vec<T> load_lanes(const T *p, int64_t stride, int64_t count) {
  if (stride == 1) return count == kLanes<T> ? load(p) : load(p, Tail<T>(count));
  T buffer[kLanes<T>];
  for (int64_t l = 0; l < kLanes<T>; ++l) buffer[l] = l < count ? p[l * stride] : T(0);
  return load(buffer);
}
template <class T>
ATTEND_INLINE void store_lanes(T *p, int64_t stride, int64_t count, vec<T> v) {
  if (stride == 1) return count == kLanes<T> ? store(p, v) : store(p, v, Tail<T>(count));
  T buffer[kLanes<T>];
  store(buffer, v);
  for (int64_t l = 0; l < count; ++l) p[l * stride] = buffer[l];
}

// Any other layout: lanes are columns, everything runs down the lanes. The 16 virtual lanes of each column are 16 vectors.
template <class T>
void softmax_strided(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>, kVirtual = Contract<T>::kVirtualLanes;
  const vec<T> scale = broadcast(x.scale);
  for (int64_t column = 0; column < x.columns; column += W) {
    const int64_t count = smaller<int64_t>(W, x.columns - column);
    const T *from = x.x + column * x.x_col;
    T *to = x.y + column * x.y_col;

    vec<T> top = broadcast(kMinusInfinity<T>);
    for (int64_t i = 0; i < x.rows; ++i) top = maximum(load_lanes(from + i * x.x_row, x.x_col, count) * scale, top);
    const vec<T> shift = select(top == broadcast(kMinusInfinity<T>), broadcast(T(0)), top);

    CompensatedSum<vec<T>> total = {broadcast(T(0)), broadcast(T(0))};
    for (int64_t chunk = 0; chunk < x.rows; chunk += Contract<T>::kSoftmaxChunk) {
      const int64_t end = smaller(x.rows, chunk + Contract<T>::kSoftmaxChunk);
      vec<T> sums[kVirtual];
      for (int u = 0; u < kVirtual; ++u) sums[u] = broadcast(T(0));
      for (int64_t i = chunk; i < end; ++i) {
        const vec<T> s = load_lanes(from + i * x.x_row, x.x_col, count) * scale - shift;
        const vec<T> e = exp_nonpositive(s);
        const int64_t u = (i - chunk) % kVirtual;
        sums[u] = sums[u] + e;
        store_lanes(to + i * x.y_row, x.y_col, count, x.log ? s : e);
      }
      for (int half = kVirtual / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; ++l) sums[l] = sums[l] + sums[l + half];
      }
      total.add(sums[0]);
    }

    T tops[W], sums[W], errors[W], factors[W], log_sums[W];
    store(tops, top);
    store(sums, total.sum);
    store(errors, total.error);
    for (int l = 0; l < W; ++l) {
      factors[l] = log_sums[l] = T(0);
      if (l >= count) continue;
      const ColumnResult<T> result = column_result(x, tops[l], CompensatedSum<T>{sums[l], errors[l]}, column + l);
      factors[l] = result.factor;
      log_sums[l] = result.factor == T(0) ? T(0) : result.log_sum;
    }
    const vec<T> factor = load(factors), log_sum = load(log_sums);
    for (int64_t i = 0; i < x.rows; ++i) {
      const vec<T> v = load_lanes<T>(to + i * x.y_row, x.y_col, count);
      store_lanes(to + i * x.y_row, x.y_col, count, x.log ? v - log_sum : v * factor);
    }
  }
}

}  // namespace
}  // namespace attend
