// The one register tile on which matmul, the scores and the output of attention stand:
//
//     acc[lane vector i][column j] += panel[k][lanes of i] * b(k, j)            k = 0 .. depth - 1, in order
//
// A panel row lies at panel + k * panel_k, its lanes contiguous. b(k, j) = b[k * b_k + j * b_col] is read in place and
// broadcast, so that any transposition of b is a matter of strides and nothing is packed. Each element is one chain of FMAs
// from +0 in order of k: that, and not the shape of the tile, decides the bits.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// Full unrolling keeps acc in registers: g++ 12 and clang 19 do so without a spill for the shapes in Tiles.
template <class T, int MV, int NR>
struct Tile {
  vec<T> acc[MV][NR];

  ATTEND_INLINE void zero() {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) acc[i][j] = broadcast(T(0));
    }
  }

  // kPartial: the last of the MV vectors holds only the lanes of `tail`.
  template <bool kPartial>
  ATTEND_INLINE void accumulate(int64_t depth, const T *panel, int64_t panel_k, const T *b, int64_t b_k, int64_t b_col,
                                const Tail<T> &tail) {
    for (int64_t k = 0; k < depth; ++k) {
      vec<T> a[MV];
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) {
        const T *p = panel + i * kLanes<T>;
        a[i] = kPartial && i == MV - 1 ? load(p, tail) : load(p);
      }
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) {
        const vec<T> x = broadcast(b[j * b_col]);
        ATTEND_UNROLL
        for (int i = 0; i < MV; ++i) acc[i][j] = fma(a[i], x, acc[i][j]);
      }
      panel += panel_k;
      b += b_k;
    }
  }

  // Calls f(i, j, acc) for every vector, in columns.
  template <class F>
  ATTEND_INLINE void each(const F &f) const {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) f(i, j, acc[i][j]);
    }
  }
};

}  // namespace
}  // namespace attend
