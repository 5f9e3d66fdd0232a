// Before and behind the backward blocks: what all keys of a query share, and the way of sums to the caller's gradients.
#pragma once

#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// kBackwardQueries rows of any type and strides, turned: [feature][row], 0 behind the last.
template <class T>
void turn_rows(const StoredRows &of, int64_t row, int64_t rows, int64_t features, T *to) {
  with_float<T>(of.type, [&](auto stored) {
    using S = decltype(stored);
    pack_panel<T>(kBackwardQueries, rows, features, static_cast<const S *>(of.data) + row * of.item_stride,
                  of.item_stride, of.element_stride, T(1), to);
  });
}

template <class T>
void attention_delta(const DeltaBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t Q = kBackwardQueries;
  const vec<T> zero = broadcast(T(0));
  T *const out = x.scratch, *const d_out = out + Q * x.features;
  T d_sink = T(0);
  for (int64_t row = 0; row < x.rows; row += Q) {
    const int64_t rows = smaller(Q, x.rows - row);
    turn_rows(x.out, row, rows, x.features, out);
    turn_rows(x.d_out, row, rows, x.features, d_out);
    for (int64_t i = 0; i < Q; i += W) {
      vec<T> delta = zero;
      for (int64_t f = 0; f < x.features; ++f) {
        // A query that sees nothing has an out of 0, whatever its d_out is.
        const vec<T> o = load(out + f * Q + i);
        delta = fma(o, select(o == zero, zero, load(d_out + f * Q + i)), delta);
      }
      store(x.delta + row + i, delta);
    }
    for (int64_t i = 0; x.d_lse.data != nullptr && i < rows; ++i) {
      x.delta[row + i] -= x.d_lse.data[(row + i) * x.d_lse.item_stride];
    }
    if (x.sink == nullptr) continue;
    for (int64_t i = 0; i < rows; i += W) {
      T weights[W];
      store(weights, exp_of_difference(broadcast(*x.sink), load(x.shift + row + i)) * load(x.factor + row + i));
      for (int64_t l = 0; l < smaller<int64_t>(W, rows - i); ++l) {
        if (weights[l] != T(0)) d_sink = fused(T(0) - weights[l], x.delta[row + i + l], d_sink);
      }
    }
  }
  *x.d_sink = d_sink;
}

// One column; S: the type of its gradient.
template <class T, class S>
ATTEND_INLINE void write_gradient(const GradientBlock<T> &x, const T *sums, S *to) {
  constexpr int W = kLanes<T>;
  const vec<T> scale = broadcast(x.scale);
  const bool side_by_side = x.out.row_stride == 1;
  for (int64_t f = 0; f < x.features; f += W) {
    const int64_t count = smaller<int64_t>(W, x.features - f);
    const vec<T> sum = sums == nullptr ? broadcast(T(0)) : load_some<T>(sums + f, count);
    if (side_by_side) {
      S *const at = to + f;
      store_some(at, x.accumulates ? fma(sum, scale, load_some<T>(at, count)) : sum * scale, count);
      continue;
    }
    T lanes[W];
    store(lanes, sum);
    for (int64_t l = 0; l < count; ++l) {
      S *const at = to + (f + l) * x.out.row_stride;
      const T product = lanes[l] * x.scale;
      narrow(x.accumulates ? fused(lanes[l], x.scale, widened(*at)) : product, at);
    }
  }
}

template <class T>
void attention_gradient(const GradientBlock<T> &x) {
  with_float<T>(x.out.type, [&](auto stored) {
    using S = decltype(stored);
    for (int64_t j = 0; j < x.columns; ++j) {
      write_gradient(x, x.sums == nullptr ? nullptr : x.sums + j * x.features,
                     static_cast<S *>(x.out.data) + j * x.out.col_stride);
    }
  });
}

}  // namespace
}  // namespace attend
