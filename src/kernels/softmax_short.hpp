// Softmax of short contiguous columns, several at a time.
//
// Up to kPacked elements: a vector holds as many columns as fit, each in a group of lanes that is a power of two wide,
// and maxima and sums are taken inside the groups. Up to kShort: kLanes columns are transposed in registers, so that a
// lane is a column. Both add in the order of softmax_contiguous.hpp: elements 16 apart first, then the tree.
#pragma once

#include "kernels/softmax.hpp"

namespace attend {
namespace {

// Elements up to which columns are short, and up to which they are packed.
template <class T>
constexpr int64_t kShort = kLanes<T> == 16 ? 64 : 32;
constexpr int64_t kPacked = 8;

// Columns of K vectors, transposed.
template <class T, bool kPlain, int K>
ATTEND_INLINE void short_group(const SoftmaxBlock<T> &x, int64_t first, int64_t count) {
  constexpr int W = kLanes<T>, kVirtual = Contract<T>::kVirtualLanes;
  constexpr int kRows = K * W;
  const int64_t rows = x.rows;
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  vec<T> s[K][W];
  vec<T> tops = least;
  ATTEND_UNROLL
  for (int k = 0; k < K; ++k) {
    const int64_t part = smaller<int64_t>(W, rows - k * W);
    if (kPlain) {
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) s[k][c] = c < count ? scores<T, true, true>(x, k * W, first + c, part) : least;
    } else {
      // Not unrolled: masks and biases take two hundred instructions a vector.
      T lines[W * W];
#pragma GCC unroll 1
      for (int c = 0; c < W; ++c) {
        store(lines + c * W, c < count ? scores<T, false, true>(x, k * W, first + c, part) : least);
      }
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) s[k][c] = load(lines + c * W);
    }
    transpose(s[k]);
    ATTEND_UNROLL
    for (int i = 0; i < W; ++i) tops = maximum(s[k][i], tops);
  }
  const vec<T> shift = shift_of(tops);
  // What the results are made of replaces the scores, since two arrays would be a frame of 9 KiB: exponentials, or, in
  // code of its own, a logarithm's scores.
  const auto finish = [&](auto of_log) __attribute__((always_inline)) {
    constexpr bool kLog = decltype(of_log)::value != 0;
    vec<T> sums[kVirtual];
    for (int l = kRows; l < kVirtual; ++l) sums[l] = zero;
    ATTEND_UNROLL
    for (int k = 0; k < K; ++k) {
      ATTEND_UNROLL
      for (int i = 0; i < W; ++i) {
        const int row = k * W + i, lane = row % kVirtual;
        const vec<T> score = s[k][i] - shift, e = row < rows ? exp_nonpositive(score) : zero;
        sums[lane] = row < kVirtual ? e : sums[lane] + e;
        s[k][i] = kLog ? score : e;
      }
    }
    ATTEND_UNROLL
    for (int half = kVirtual / 2; half > 0; half /= 2) {
      ATTEND_UNROLL
      for (int l = 0; l < half; ++l) sums[l] = sums[l] + sums[l + half];
    }
    const ColumnResults<T> results = results_of(x, tops, CompensatedSum<vec<T>>{sums[0], zero}, first, count);
    ATTEND_UNROLL
    for (int k = 0; k < K; ++k) {
      ATTEND_UNROLL
      for (int i = 0; i < W; ++i) s[k][i] = kLog ? s[k][i] - results.log_sum : s[k][i] * results.factor;
      transpose(s[k]);
      const int64_t part = smaller<int64_t>(W, rows - k * W);
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) {
        if (c < count) store_lanes(x.y.data + (first + c) * x.y.col_stride + k * W, 1, part, s[k][c]);
      }
    }
  };
  x.log ? finish(Int<1>()) : finish(Int<0>());
}

// Not inlined: the frames of all K would lie in that of every softmax.
template <class T, bool kPlain, int K>
__attribute__((noinline)) void short_groups(const SoftmaxBlock<T> &x) {
  for (int64_t c = 0; c < x.columns; c += kLanes<T>) {
    short_group<T, kPlain, K>(x, c, smaller<int64_t>(kLanes<T>, x.columns - c));
  }
}

#if defined(ATTEND_PERMUTATIONS)

// Columns that lie one behind the other, in groups of G lanes. Several vectors are in work at a time, since each is
// one long chain of operations.
template <class T, int G>
void packed_columns(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>, kColumns = W / G, kSteps = G == 2 ? 1 : G == 4 ? 2 : 3, kTogether = 4;
  const int64_t rows = x.rows, width = kColumns * rows, elements = x.columns * rows;
  // Element i of group g is lane g G + i in the groups and lane g rows + i in memory.
  int64_t in[W], out[W] = {}, swapped[W];
  T padding[W];
  for (int64_t l = 0; l < W; ++l) {
    const bool is_element = l % G < rows;
    in[l] = is_element ? l / G * rows + l % G : l;
    padding[l] = is_element ? T(0) : T(1);
    if (is_element) out[in[l]] = l;
  }
  const Permutation<T> to_groups(in), to_memory(out);
  const vec<T> is_padding = load(padding), zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  const auto swap = [&](int distance) {
    for (int64_t l = 0; l < W; ++l) swapped[l] = l ^ distance;
    return Permutation<T>(swapped);
  };
  const Permutation<T> swaps[3] = {swap(1), swap(G > 2 ? 2 : 1), swap(G > 4 ? 4 : 1)};
  const vec<T> scale = broadcast(x.scale);
  const auto one = [&](int64_t at, int64_t count) __attribute__((always_inline)) {
    vec<T> s = load(x.x.data + at, Tail<T>(count)) * scale;
    s = select(is_padding == zero, permute(s, to_groups), least);
    vec<T> top = s;
    ATTEND_UNROLL
    for (int step = kSteps - 1; step >= 0; --step) top = maximum(permute(top, swaps[step]), top);
    const vec<T> e = exp_nonpositive(s - shift_of(top));
    vec<T> sum = e;
    ATTEND_UNROLL
    for (int step = kSteps - 1; step >= 0; --step) sum = sum + permute(sum, swaps[step]);
    const vec<T> factor = inverse_or_zero(sum);
    return permute(e * factor, to_memory);
  };
  int64_t at = 0;
  for (; at + kTogether * width <= elements; at += kTogether * width) {
    vec<T> r[kTogether];
    ATTEND_UNROLL
    for (int i = 0; i < kTogether; ++i) r[i] = one(at + i * width, width);
    ATTEND_UNROLL
    for (int i = 0; i < kTogether; ++i) store(x.y.data + at + i * width, r[i], Tail<T>(width));
  }
  for (; at < elements; at += width) {
    const int64_t count = smaller(width, elements - at);
    store(x.y.data + at, one(at, count), Tail<T>(count));
  }
}

#endif

template <class T, bool kPlain>
void short_columns(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
#if defined(ATTEND_PERMUTATIONS)
  const bool adjacent = (x.x.col_stride == x.rows && x.y.col_stride == x.rows) || x.columns == 1;
  if (x.rows > 1 && x.rows <= smaller<int64_t>(kPacked, W) && adjacent && !x.log && x.lse.data == nullptr &&
      x.bias.data == nullptr && x.mask.data == nullptr) {
    if (x.rows <= 2) return packed_columns<T, 2>(x);
    if (x.rows <= 4) return packed_columns<T, 4>(x);
    if constexpr (W >= 8) return packed_columns<T, 8>(x);
  }
#endif
  with_constant<kShort<T> / (W < 4 ? 4 : W)>((x.rows + W - 1) / W,
                                             [&](auto k) { short_groups<T, kPlain, decltype(k)::value>(x); });
}

}  // namespace
}  // namespace attend
