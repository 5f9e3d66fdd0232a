// Products of few columns, A's columns contiguous and in memory, on CPUs that fetch long runs by themselves: whole columns of A,
// kShort at a time, pass by all columns of B, and the sums of the block wait in the scratch meanwhile. A is read once, in place,
// in runs of thousands of elements; the rows of a panel and kShort columns stay in the L1 for all columns of B. (4096 x 4096 x 16
// on an Intel: to pack blocks of A of 192 or 384 rows, and then multiply, took twice as long.)
#pragma once

#include "kernels/matmul_finish.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

// B in panels [k][NR], zeros behind its last column.
template <class T, int NR>
void pack_some_columns(const MatmulBlock<T> &x, T *to) {
  with_factor<T>(x.b.type, [&](auto stored) {
    const auto *b = static_cast<const decltype(stored) *>(x.b.data);
    for (int64_t j0 = 0; j0 < x.n; j0 += NR, to += x.k * NR) {
      for (int64_t j = 0; j < NR; ++j) {
        const auto *column = b + (j0 + j) * x.b.col_stride;
        for (int64_t k = 0; k < x.k; ++k) to[k * NR + j] = j0 + j < x.n ? widened(column[k * x.b.row_stride]) : T(0);
      }
    }
  });
}

// Whole panels of rows: m is a multiple of them.
template <class T>
__attribute__((noinline)) void matmul_runs(const MatmulBlock<T> &x) {
  constexpr int MV = Tiles<T>::kVectors, NR = Tiles<T>::kColumns, W = kLanes<T>, MR = MV * W;
  constexpr int64_t kShort = 32;
  static_assert(48 % MR == 0 && NR <= 16, "what the driver cuts and sizes by");
  const T *const a = static_cast<const T *>(x.a.data);
  const int64_t a_k = x.a.col_stride, panels = (x.n + NR - 1) / NR;
  const T *const b = x.b_panel;
  pack_some_columns<T, NR>(x, x.b_panel);
  const auto sums_of = [&](int64_t i, int64_t p) { return x.a_panel + (i * panels + p * MR) * NR; };
  for (int64_t k = 0; k < x.k; k += kShort) {
    const int64_t depth = smaller(kShort, x.k - k);
    for (int64_t i = 0; i < x.m; i += MR) {
      for (int64_t p = 0; p < panels; ++p) {
        T *const sums = sums_of(i, p);
        Tile<T, MV, NR> tile;
        ATTEND_UNROLL
        for (int j = 0; j < NR; ++j) {
          ATTEND_UNROLL
          for (int v = 0; v < MV; ++v) tile.acc[v][j] = k == 0 ? broadcast(T(0)) : load(sums + (j * MV + v) * W);
        }
        const T *const panel = a + i + k * a_k, *const factors = b + (p * x.k + k) * NR;
        if (x.ahead != 0 && p == 0) {
          tile.accumulate(depth, panel, a_k, factors, NR, Adjacent(), PanelAhead<T, MV, T, 3>{panel + x.ahead, a_k});
        } else {
          tile.template accumulate<false>(depth, panel, a_k, factors, NR, Adjacent(), W);
        }
        tile.each([&](int v, int j, vec<T> sum)
                      __attribute__((always_inline)) { store(sums + (j * MV + v) * W, sum); });
      }
    }
  }
  for (int64_t i = 0; i < x.m; i += MR) {
    for (int64_t p = 0; p < panels; ++p) {
      finish_general(x, i, MR, p * NR, smaller<int64_t>(NR, x.n - p * NR), sums_of(i, p), MR);
    }
  }
}

}  // namespace
}  // namespace attend
