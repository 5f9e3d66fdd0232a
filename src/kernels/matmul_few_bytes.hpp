// Matrix products with few columns and an A of bytes, where the backend has no better way (lines_of).
#pragma once

#include "kernels/matmul_finish.hpp"
#include "kernels/pack.hpp"

namespace attend {
namespace {

// Lines of all rows at a time are first turned into the L1, as 32-bit elements of four bytes each, which
// then are parted in their lanes. (So lines are read whole although rows may share the sets of the L1; and a third of the
// shuffles that bytes one by one would take.)
template <int NR, int NB>
ATTEND_INLINE void few_columns_of_bytes(const MatmulBlock<float> &x, const MatrixRef<const float> &right, int64_t i) {
  constexpr int W = kLanes<float>, kRows = NB * W;
  constexpr int64_t kDepth = 128, kBytes = 4 * W;  // two lines; bytes of a vector
  constexpr int64_t kAhead = 256;  // (4096 x 4096 from memory, against f32: 2.4 times the speed, 1.6 without)
  static_assert(kDepth % kBytes == 0, "whole squares");
  const int64_t rows = smaller<int64_t>(kRows, x.m - i), a_row = x.a.row_stride;
  const int8_t *a = static_cast<const int8_t *>(x.a.data) + i * a_row;
  const float *b = right.data;
  vec<float> acc[NB][NR];
  ATTEND_UNROLL
  for (int n = 0; n < NB; ++n) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[n][j] = broadcast(0.0f);
  }
  int8_t turned[kDepth / 4][kRows][4];
  for (int64_t k = 0; k < x.k; k += kDepth, a += kDepth) {
    const int64_t depth = smaller<int64_t>(kDepth, x.k - k);
    for (int n = 0; n < NB; ++n) {
      const int8_t *const block = a + n * W * a_row;
      int64_t l = 0;
      for (; rows == kRows && l + kBytes <= depth; l += kBytes) {
        vec<float> r[W];  // bits
        ATTEND_UNROLL
        for (int row = 0; row < W; ++row) {
          r[row] = load_bits(block + row * a_row + l);
        }
        transpose(r);
        ATTEND_UNROLL
        for (int q = 0; q < W; ++q) store_bits(turned[l / 4 + q] + n * W, r[q]);
      }
      for (; l < depth; ++l) {
        for (int row = 0; row < W; ++row) {
          turned[l / 4][n * W + row][l % 4] = n * W + row < rows ? block[row * a_row + l] : int8_t{0};
        }
      }
    }
    const auto add = [&](auto f, int64_t l) __attribute__((always_inline)) {
      vec<float> column[NB];
      ATTEND_UNROLL
      for (int n = 0; n < NB; ++n) column[n] = bytes_of<decltype(f)::value>(turned[l / 4] + n * W);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) {
        const vec<float> factor = broadcast(b[j * right.col_stride]);
        ATTEND_UNROLL
        for (int n = 0; n < NB; ++n) acc[n][j] = fma(column[n], factor, acc[n][j]);
      }
      b += right.row_stride;
    };
    int64_t l = 0;
    for (; l + 4 <= depth; l += 4) {
      if (x.far) {
        __builtin_prefetch(a + l / 4 * a_row + kAhead, 0, 2);
        __builtin_prefetch(a + l / 4 * a_row + kAhead + 64, 0, 2);
      }
      add(Int<0>(), l);
      add(Int<1>(), l);
      add(Int<2>(), l);
      add(Int<3>(), l);
    }
    if (l < depth) add(Int<0>(), l);
    if (l + 1 < depth) add(Int<1>(), l);
    if (l + 2 < depth) add(Int<2>(), l);
  }
  float buffer[kRows * NR];
  ATTEND_UNROLL
  for (int n = 0; n < NB; ++n) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store(buffer + j * kRows + n * W, acc[n][j]);
  }
  finish_general(x, i, rows, 0, smaller<int64_t>(NR, x.n), buffer, kRows);
}

}  // namespace
}  // namespace attend
