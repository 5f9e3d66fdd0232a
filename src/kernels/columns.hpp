// The columns of a product that a tile broadcasts, in place.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// b(k, j) for the NR columns j, k by k. Four columns share a pointer: p, p + s, p + 2 s and p + 3 s are addressing
// modes with two strides in registers. Left to itself g++ keeps an offset per column, spills half of them, and loses 3
// % of the peak.
template <class T, int NR, class Stride>
struct Columns {
  static constexpr int kGroups = (NR + 3) / 4;
  const char *group[kGroups];
  int64_t stride, stride3, step;

  ATTEND_INLINE Columns(const T *b, int64_t b_k, int64_t b_col)
      : stride(b_col * static_cast<int64_t>(sizeof(T))),
        stride3(3 * stride),
        step(b_k * static_cast<int64_t>(sizeof(T))) {
    ATTEND_UNROLL
    for (int g = 0; g < kGroups; ++g) {
      group[g] = reinterpret_cast<const char *>(b) + 4 * g * stride;
      __asm__("" : "+r"(group[g]));
    }
  }
  ATTEND_INLINE const T *at(int j) const {
    return reinterpret_cast<const T *>(group[j / 4] + (j % 4 == 3 ? stride3 : j % 4 * stride));
  }
  ATTEND_INLINE void next() {
    ATTEND_UNROLL
    for (int g = 0; g < kGroups; ++g) group[g] += step;
  }
};

// Columns side by side need one pointer and no stride.
struct Adjacent {};
template <class T, int NR>
struct Columns<T, NR, Adjacent> {
  const T *first;
  int64_t step;
  ATTEND_INLINE Columns(const T *b, int64_t b_k, Adjacent) : first(b), step(b_k) {}
  ATTEND_INLINE const T *at(int j) const { return first + j; }
  ATTEND_INLINE void next() { first += step; }
};

}  // namespace
}  // namespace attend
