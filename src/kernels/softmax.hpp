// Softmax down columns: y = exp(s - m) / l with s = scale x, m the column's maximum, l the sum.
//
// Here is what softmax_contiguous.hpp (lanes run down a column) and softmax_strided.hpp (lanes are columns) share: the
// scores and what is done with a column's maximum and sum.
#pragma once

#include "kernels/exp.hpp"
#include "kernels/pack.hpp"

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

// Its value. Where the sum is NaN or infinite so is the compensation; only a finite one may be added.
template <class T>
ATTEND_INLINE vec<T> value_of(const CompensatedSum<vec<T>> &total) {
  return select(total.error == total.error, total.sum + total.error, total.sum);
}

// Lanes `stride` elements apart, the first `count` of them; the rest are 0.
template <class T, class S>
ATTEND_INLINE vec<T> load_lanes(const S *p, int64_t stride, int64_t count) {
  if (stride == 1) return load_some<T>(p, count);
  T buffer[kLanes<T>];
  for (int64_t l = 0; l < kLanes<T>; ++l) buffer[l] = l < count ? widened(p[l * stride]) : T(0);
  return load(buffer);
}
template <class T, class S>
ATTEND_INLINE void store_lanes(S *p, int64_t stride, int64_t count, vec<T> v) {
  if (stride == 1) return store_some(p, v, count);
  S buffer[kLanes<T>];
  store_as<T>(buffer, v);
  for (int64_t l = 0; l < count; ++l) p[l * stride] = buffer[l];
}

// Element (row, column) of a matrix of the type of the arithmetic. (element_of would look up an element's size.)
template <class T>
ATTEND_INLINE T *own_element(const StoredMatrix &m, int64_t row, int64_t column) {
  return static_cast<T *>(m.data) + row * m.row_stride + column * m.col_stride;
}
// The same from element (row, column) of a matrix on, along rows or along columns.
template <class T>
__attribute__((noinline)) vec<T> narrow_lanes_of(const void *from, Dtype type, int64_t stride, int64_t count) {
  vec<T> lanes = broadcast(T(0));
  with_float<T>(
      type, [&](auto stored) { lanes = load_lanes<T>(static_cast<const decltype(stored) *>(from), stride, count); });
  return lanes;
}
template <class T, bool kAlongRows>
ATTEND_INLINE vec<T> lanes_of(const StoredMatrix &m, int64_t row, int64_t column, int64_t count, bool narrow) {
  const int64_t stride = kAlongRows ? m.row_stride : m.col_stride;
  if (narrow) return narrow_lanes_of<T>(element_of(m, row, column), m.type, stride, count);
  return load_lanes<T>(own_element<const T>(m, row, column), stride, count);
}
template <class T>
__attribute__((noinline)) void store_narrow_lanes(void *to, Dtype type, int64_t stride, int64_t count, vec<T> v) {
  with_float<T>(type, [&](auto stored) { store_lanes(static_cast<decltype(stored) *>(to), stride, count, v); });
}

template <class T>
ATTEND_INLINE bool any_infinite(vec<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  bool any = false;
  for (int l = 0; l < kLanes<T>; ++l) any |= lanes[l] == -kMinusInfinity<T>;
  return any;
}

template <class T>
constexpr T kLaneIndex[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// v with -inf in the lanes from `count` on: they weigh nothing, whatever the shift.
template <class T>
ATTEND_INLINE vec<T> only(vec<T> v, int64_t count) {
  if (count == kLanes<T>) return v;
  return select(load(kLaneIndex<T>) < broadcast(static_cast<T>(count)), v, broadcast(kMinusInfinity<T>));
}

// The scores of `count` elements from (row, column) on, along rows or along columns, -inf behind them. kPlain: scale
// 1, no bias, no mask. Otherwise fma(scale, x, bias); an entry is masked by its mask or by a bias of -inf, whatever x
// is there. `narrow`: x or the bias may be of a narrower type (asked once by the caller, since the compiler cannot know that
// a store changes neither). `widened`: the elements of x, where they were widened ahead.
template <class T, bool kPlain, bool kAlongRows>
ATTEND_INLINE vec<T> scores(const SoftmaxBlock<T> &x, int64_t row, int64_t column, int64_t count, bool narrow,
                            const T *widened = nullptr) {
  vec<T> s = broadcast(T(0));
  if (kPlain) {
    const int64_t x_row = kAlongRows ? 1 : x.x.row_stride;
    const T *p = static_cast<const T *>(x.x.data) + row * x_row + column * x.x.col_stride;
    s = load_lanes<T>(p, kAlongRows ? 1 : x.x.col_stride, count);
  } else {
    s = widened != nullptr ? load(widened) : lanes_of<T, kAlongRows>(x.x, row, column, count, narrow);
    const vec<T> least = broadcast(kMinusInfinity<T>);
    if (x.bias.data == nullptr) {
      s = s * broadcast(x.scale);
    } else {
      const vec<T> bias = lanes_of<T, kAlongRows>(x.bias, row, column, count, narrow);
      s = select(bias == least, least, fma(broadcast(x.scale), s, bias));
    }
    if (x.mask.data != nullptr) {
      const int64_t stride = kAlongRows ? x.mask.row_stride : x.mask.col_stride;
      const uint8_t *mask = x.mask.data + row * x.mask.row_stride + column * x.mask.col_stride;
      uint8_t bytes[kLanes<T>];
      if (stride != 1 || count != kLanes<T>) {
        for (int64_t l = 0; l < kLanes<T>; ++l) bytes[l] = l < count ? mask[l * stride] : 1;
        mask = bytes;
      }
      s = select(hidden_lanes<T>(mask) == least, least, s);
    }
  }
  return only(s, count);
}

// 1 / v, or 0 for 0, without a division by it. (clang, which takes it that nobody looks at the flags, would divide by v and
// then select: it must not see what the divisor is.)
template <class T>
ATTEND_INLINE vec<T> inverse_or_zero(vec<T> v) {
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1));
  vec<T> divisor = select(v == zero, one, v);
#if defined(__clang__)
  asm volatile("" : "+m"(divisor));
#endif
  return select(v == zero, zero, divide(one, divisor));
}

// What the results of kLanes columns need, a column a lane.
template <class T>
struct ColumnResults {
  vec<T>
      shift;  // subtracted from the scores: the maximum, or 0 where that is -inf (exp(-inf) is 0, -inf - -inf is NaN)
  vec<T> factor;   // 1 / sum, or 0 for an empty sum
  vec<T> log_sum;  // log(sum), or 0 for an empty sum; only with x.log
};

template <class T>
ATTEND_INLINE vec<T> shift_of(vec<T> maximum) {
  return select(maximum == broadcast(kMinusInfinity<T>), broadcast(T(0)), maximum);
}

// From the maxima and sums of `count` columns, column `first` of the block in lane 0; writes their lse.
template <class T>
ATTEND_INLINE ColumnResults<T> results_of(const SoftmaxBlock<T> &x, vec<T> maximum, const CompensatedSum<vec<T>> &total,
                                          int64_t first, int64_t count) {
  const vec<T> zero = broadcast(T(0));
  ColumnResults<T> r;
  r.shift = shift_of(maximum);
  const vec<T> sum = value_of(total);
  r.factor = inverse_or_zero(sum);
  r.log_sum = zero;
  if (x.log || x.lse.data != nullptr) {
    T maxima[kLanes<T>], sums[kLanes<T>];
    store(maxima, maximum);
    store(sums, sum);
    for (int64_t l = 0; l < kLanes<T>; ++l) {
      // (The logarithm of 0 would raise a division by zero.)
      const double log_sum = l >= count        ? 0
                             : sums[l] == T(0) ? -__builtin_huge_val()
                                               : x.natural_log(static_cast<double>(sums[l]));
      if (l < count && x.lse.data != nullptr) {
        x.lse.data[(first + l) * x.lse.col_stride] = static_cast<T>(static_cast<double>(maxima[l]) + log_sum);
      }
      sums[l] = sums[l] == T(0) ? T(0) : static_cast<T>(log_sum);
    }
    r.log_sum = load(sums);
  }
  return r;
}

template <class T>
ATTEND_INLINE bool has_narrow_scores(const SoftmaxBlock<T> &x) {
  return is_narrow<T>(x.x.type) || is_narrow<T>(x.bias.type);
}
// Scores that are plain need no more than a load, and results a store.
template <class T>
ATTEND_INLINE bool is_plain(const SoftmaxBlock<T> &x) {
  return x.scale == T(1) && x.bias.data == nullptr && x.mask.data == nullptr && !is_narrow<T>(x.x.type) &&
         !is_narrow<T>(x.y.type);
}

}  // namespace
}  // namespace attend
