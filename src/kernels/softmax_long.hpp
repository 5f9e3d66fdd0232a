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

template <class T, bool kPlain>
void long_sums(const LongSoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  constexpr int64_t kChunk = Contract<T>::kSoftmaxChunk, kVirtual = Contract<T>::kVirtualLanes,
                    kPart = Contract<T>::kSoftmaxPart;
  const int64_t rows = x.block.rows;
  const auto score = [&](int64_t at, int64_t end) __attribute__((always_inline)) {
    const vec<T> none = broadcast(kMinusInfinity<T>);
    return at < end ? scores<T, kPlain, true>(x.block, at, 0, smaller<int64_t>(W, end - at)) : none;
  };
  // kLanes chunks at a time, so that their lanes are combined by one transposition.
  for (int64_t first = 0; first < rows; first += W * kChunk) {
    const int64_t count = smaller<int64_t>(W, (rows - first + kChunk - 1) / kChunk);
    T lanes[W * W], tops[W];
    const vec<T> zero = broadcast(T(0));
    for (int64_t c = 0; c < W; ++c) {
      store(lanes + c * W, zero);
      tops[c] = kMinusInfinity<T>;
    }
    for (int64_t c = 0; c < count; ++c) {
      const int64_t begin = first + c * kChunk, end = smaller(rows, begin + kChunk);
      vec<T> top[2] = {broadcast(kMinusInfinity<T>), broadcast(kMinusInfinity<T>)};
      for (int64_t i = begin; i < end; i += 2 * W) {
        if (x.block.stream) __builtin_prefetch(x.block.x.data + i + x.block.ahead, 0, 2);
        top[0] = maximum(score(i, end), top[0]);
        top[1] = maximum(score(i + W, end), top[1]);
      }
      T across_lanes[W];
      store(across_lanes, maximum(top[0], top[1]));
      T most = across_lanes[0];
      for (int l = 1; l < W; ++l) most = larger(across_lanes[l], most);
      tops[c] = most;
      const vec<T> shift = shift_of(broadcast(most));
      vec<T> sums[kLaneVectors];
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) sums[u] = zero;
      for (int64_t part = begin; part < end; part += kPart) {
        const int64_t part_end = smaller(end, part + kPart);
        vec<T> of_part[kLaneVectors];
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) of_part[u] = zero;
        for (int64_t i = part; i < part_end; i += kVirtual) {
          ATTEND_UNROLL
          for (int u = 0; u < kLaneVectors; ++u) {
            of_part[u] = of_part[u] + exp_nonpositive(score(i + u * W, end) - shift);
          }
        }
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) sums[u] = sums[u] + of_part[u];
      }
      ATTEND_UNROLL
      for (int half = kLaneVectors / 2; half > 0; half /= 2) {
        ATTEND_UNROLL
        for (int u = 0; u < half; ++u) sums[u] = sums[u] + sums[u + half];
      }
      store(lanes + c * W, sums[0]);
    }
    T sums[W];
    store(sums, across(lanes, Add<T>()));
    for (int64_t c = 0; c < count; ++c) {
      x.maxima[first / kChunk + c] = tops[c];
      x.chunks[first / kChunk + c] = sums[c];
    }
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
    const vec<T> maxima = only(load_lanes(x.maxima + c, 1, part), part);
    store(terms, load_lanes(x.chunks + c, 1, part) * exp_nonpositive(maxima - shift));
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

template <class T, bool kPlain>
void long_results(const LongSoftmaxBlock<T> &x) {
  constexpr int W = kLanes<T>;
  const int64_t rows = x.block.rows;
  const bool log = x.block.log, stream = x.block.stream;
  const vec<T> shift = broadcast(x.of_column[0]), factor = broadcast(x.of_column[1]),
               log_sum = broadcast(x.of_column[2]);
  T *const y = x.block.y.data;
  for (int64_t i = 0; i < rows; i += W) {
    const int64_t part = smaller<int64_t>(W, rows - i);
    if (stream) __builtin_prefetch(x.block.x.data + i + x.block.ahead, 0, 2);
    const vec<T> s = scores<T, kPlain, true>(x.block, i, 0, part) - shift;
    const vec<T> r = log ? s - log_sum : exp_nonpositive(s) * factor;
    if (stream && part == W) {
      stream_store(y + i, r);
    } else {
      store_lanes(y + i, 1, part, r);
    }
  }
  if (stream) stream_fence();
}

template <class T>
void softmax_long(const LongSoftmaxBlock<T> &x) {
  const bool plain = is_plain(x.block);
  switch (x.step) {
    case LongSoftmaxBlock<T>::sums:
      plain ? long_sums<T, true>(x) : long_sums<T, false>(x);
      break;
    case LongSoftmaxBlock<T>::fold:
      long_fold(x);
      break;
    case LongSoftmaxBlock<T>::results:
      plain ? long_results<T, true>(x) : long_results<T, false>(x);
      break;
  }
}

}  // namespace
}  // namespace attend
