// Softmax of short contiguous columns, several at a time.
//
// Up to kPacked elements: a vector holds as many columns as fit, each in a group of lanes that is a power of two wide,
// and maxima and sums are taken inside the groups (one column a vector is slower than what follows). Up to kShort: kLanes
// columns are transposed in registers, so that a lane is a column. Both add in the order of softmax_contiguous.hpp:
// elements 16 apart first, then the tree.
#pragma once

#include "kernels/softmax.hpp"

namespace attend {
namespace {

// Elements up to which columns are short, and up to which they are packed: at least two in a vector.
template <class T>
constexpr int64_t kShort = kLanes<T> == 16 ? 64 : 32;
template <class T>
constexpr int64_t kPacked = kLanes<T> / 2;

// kLanes columns at most, transposed: [row][column] in s. The loops over rows are not unrolled: unrolled for each number of
// vectors, which keeps the shortest columns in registers, they were a quarter of the library.
template <class T, bool kPlain>
__attribute__((noinline)) void short_group(const SoftmaxBlock<T> &x, int64_t first, int64_t count) {
  constexpr int W = kLanes<T>, kVirtual = Contract<T>::kVirtualLanes;
  const int64_t rows = x.rows;
  const vec<T> zero = broadcast(T(0)), least = broadcast(kMinusInfinity<T>);
  T s[kShort<T> * W], sums[kVirtual * W];
  vec<T> tops = least;
  for (int64_t row = 0; row < rows; row += W) {
    const int64_t part = smaller<int64_t>(W, rows - row);
    T *const square = s + row * W;
    vec<T> r[W];
    if (kPlain && count == W && part == W) {
      const T *from = own_element<const T>(x.x, row, first);
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) r[c] = load(from + c * x.x.col_stride);
    } else {
      for (int c = 0; c < W; ++c) {
        store(square + c * W, c < count ? scores<T, kPlain, true>(x, row, first + c, part, false) : least);
      }
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) r[c] = load(square + c * W);
    }
    transpose(r);
    ATTEND_UNROLL
    for (int i = 0; i < W; ++i) {
      tops = maximum(r[i], tops);
      store(square + i * W, r[i]);
    }
  }
  const vec<T> shift = shift_of(tops);
  for (int64_t lane = rows; lane < kVirtual; ++lane) store(sums + lane * W, zero);
  const bool log = x.log;
  // A store across two lines that are not in the L1 holds up those behind it: a wide core gains by asking for them. (Columns of
  // 64, 256 to 16384 of them, on Emerald Rapids 1.1 to 1.6 times the speed; of whole lines 0.94 to 1.09.)
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const bool asks = x.asks && (reinterpret_cast<uintptr_t>(x.y.data) % 64 != 0 || x.y.col_stride % kLine != 0);
  for (int64_t row = 0; asks && row < rows; row += W) {
    for (int64_t c = 0; c < count; ++c) __builtin_prefetch(own_element<T>(x.y, row, first + c), 1);
  }
  int64_t done = 0;
  const auto several = [&](auto n) __attribute__((always_inline)) {
    constexpr int N = decltype(n)::value;
    for (; done + N <= rows; done += N) {
      vec<T> score[N], e[N];
      ATTEND_UNROLL
      for (int i = 0; i < N; ++i) e[i] = score[i] = load(s + (done + i) * W) - shift;
      exp_nonpositive(e);
      ATTEND_UNROLL
      for (int i = 0; i < N; ++i) {
        T *const lane = sums + (done + i) % kVirtual * W;
        store(lane, done < kVirtual ? e[i] : load(lane) + e[i]);
        store(s + (done + i) * W, log ? score[i] : e[i]);
      }
    }
  };
  several(Int<4>());
  several(Int<1>());
  for (int64_t row = rows; row % W != 0; ++row) store(s + row * W, zero);  // -inf times a factor of 0 would be invalid
  for (int half = kVirtual / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) store(sums + l * W, load(sums + l * W) + load(sums + (l + half) * W));
  }
  const ColumnResults<T> results = results_of(x, tops, CompensatedSum<vec<T>>{load(sums), zero}, first, count);
  for (int64_t row = 0; row < rows; row += W) {
    const int64_t part = smaller<int64_t>(W, rows - row);
    T *const to = own_element<T>(x.y, row, first);
    vec<T> r[W];
    ATTEND_UNROLL
    for (int i = 0; i < W; ++i) {
      r[i] = load(s + (row + i) * W);
      r[i] = log ? r[i] - results.log_sum : r[i] * results.factor;
    }
    transpose(r);
    if (count == W && part == W) {
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) store(to + c * x.y.col_stride, r[c]);
    } else {
      ATTEND_UNROLL
      for (int c = 0; c < W; ++c) {
        if (c < count) store_lanes(to + c * x.y.col_stride, 1, part, r[c]);
      }
    }
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
  const T *const from = static_cast<const T *>(x.x.data);
  T *const to = static_cast<T *>(x.y.data);
  const auto columns = [&](auto n, int64_t at, int64_t count) __attribute__((always_inline)) {
    constexpr int N = decltype(n)::value;
    const Tail<T> tail(count);
    vec<T> e[N], sum[N];
    ATTEND_UNROLL
    for (int i = 0; i < N; ++i) {
      const vec<T> s = select(is_padding == zero, permute(load(from + at + i * width, tail) * scale, to_groups), least);
      vec<T> top = s;
      ATTEND_UNROLL
      for (int step = kSteps - 1; step >= 0; --step) top = maximum(permute(top, swaps[step]), top);
      e[i] = s - shift_of(top);
    }
    exp_nonpositive(e);
    ATTEND_UNROLL
    for (int i = 0; i < N; ++i) sum[i] = e[i];
    ATTEND_UNROLL
    for (int step = kSteps - 1; step >= 0; --step) {
      ATTEND_UNROLL
      for (int i = 0; i < N; ++i) sum[i] = sum[i] + permute(sum[i], swaps[step]);
    }
    ATTEND_UNROLL
    for (int i = 0; i < N; ++i) store(to + at + i * width, permute(e[i] * inverse_or_zero(sum[i]), to_memory), tail);
  };
  int64_t at = 0;
  for (; at + kTogether * width <= elements; at += kTogether * width) columns(Int<kTogether>(), at, width);
  for (; at < elements; at += width) columns(Int<1>(), at, smaller(width, elements - at));
}

#endif

template <class T, bool kPlain>
void short_columns(const SoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
#if defined(ATTEND_PERMUTATIONS)
  const bool adjacent = (x.x.col_stride == x.rows && x.y.col_stride == x.rows) || x.columns == 1;
  if (x.rows > 1 && x.rows <= kPacked<T> && adjacent && !x.log && x.lse.data == nullptr && x.bias.data == nullptr &&
      x.mask.data == nullptr) {
    if (x.rows <= 2) return packed_columns<T, 2>(x);
    if constexpr (W >= 8) {
      if (x.rows <= 4) return packed_columns<T, 4>(x);
    }
    if constexpr (W >= 16) return packed_columns<T, 8>(x);
  }
#endif
  for (int64_t c = 0; c < x.columns; c += W) short_group<T, kPlain>(x, c, smaller<int64_t>(W, x.columns - c));
}

}  // namespace
}  // namespace attend
