// Matrix products with few columns: one chain an element as everywhere, but other ways to read A, which is nearly all
// the work.
#pragma once

#include "kernels/matmul_finish.hpp"
#include "kernels/pack.hpp"

namespace attend {
namespace {

// Rows of A contiguous along k: W x W elements at a time are transposed in registers and used at once, and the NR
// chains of FMAs run beside the shuffles.
template <class T, int NR>
void few_columns(const MatmulBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kAhead = 16 * 64 / static_cast<int64_t>(sizeof(T));  // lines of each row
  T buffer[W * NR];
  for (int64_t i = 0; i < x.m; i += W) {
    const int64_t rows = smaller<int64_t>(W, x.m - i);
    const T *a = x.a.data + i * x.a.row_stride, *b = x.b.data;
    vec<T> acc[NR];
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[j] = broadcast(T(0));
    int64_t k = 0;
    for (; rows == W && k + W <= x.k; k += W, a += W, b += W * x.b.row_stride) {
      for (int l = 0; x.far && l < W; ++l) __builtin_prefetch(a + l * x.a.row_stride + kAhead, 0, 2);
      each_column(
          a, x.a.row_stride, [&](int l, vec<T> column) __attribute__((always_inline)) {
            ATTEND_UNROLL
            for (int j = 0; j < NR; ++j)
              acc[j] = fma(column, broadcast(b[l * x.b.row_stride + j * x.b.col_stride]), acc[j]);
          });
    }
    for (; k < x.k; k += W, a += W, b += W * x.b.row_stride) {
      const int64_t depth = smaller<int64_t>(W, x.k - k);
      const Tail<T> tail(depth);
      vec<T> r[W];
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) r[l] = l < rows ? load(a + l * x.a.row_stride, tail) : broadcast(T(0));
      transpose(r);
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) {
        if (l >= depth) break;
        ATTEND_UNROLL
        for (int j = 0; j < NR; ++j) acc[j] = fma(r[l], broadcast(b[l * x.b.row_stride + j * x.b.col_stride]), acc[j]);
      }
    }
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store(buffer + j * W, acc[j]);
    finish_general(x, i, rows, 0, NR, buffer, W);
  }
}

template <class T>
void few_columns(const MatmulBlock<T> &x) {
  with_constant<kFewColumns>(x.n, [&](auto nr) { few_columns<T, decltype(nr)::value>(x); });
}

// One column, A's columns contiguous: 32 KiB of rows at a time, so that memory is read in long runs (4 KiB: three
// quarters of the speed); four columns of A between a load and a store of the sums.
template <class T>
void one_column(const MatmulBlock<T> &x) {
  constexpr int W = kLanes<T>, kColumns = 4;
  constexpr int64_t kRows = Contract<T>::kLongColumn;
  T *const sums = x.b_panel;
  // Copies: a store of a vector might, for all the compiler knows, change x.
  const int64_t a_k = x.a.col_stride;
  const bool far = x.far;
  for (int64_t i = 0; i < x.m; i += kRows) {
    const int64_t rows = smaller(kRows, x.m - i);
    for (int64_t k = 0; k < x.k; k += kColumns) {
      const int columns = static_cast<int>(smaller<int64_t>(kColumns, x.k - k));
      const T *a = x.a.data + i + k * a_k, *b = x.b.data + k * x.b.row_stride;
      vec<T> factor[kColumns];
      for (int l = 0; l < kColumns; ++l) factor[l] = broadcast(l < columns ? b[l * x.b.row_stride] : T(0));
      for (int64_t r = 0; r < rows; r += W) {
        vec<T> sum = k == 0 ? broadcast(T(0)) : load(sums + r);
        if (columns == kColumns && r + W <= rows) {
          ATTEND_UNROLL
          for (int l = 0; l < kColumns; ++l) {
            if (far) __builtin_prefetch(a + r + (l + kColumns) * a_k, 0, 2);
            sum = fma(load(a + r + l * a_k), factor[l], sum);
          }
        } else {
          const Tail<T> tail(smaller<int64_t>(W, rows - r));
          for (int l = 0; l < columns; ++l) sum = fma(load(a + r + l * a_k, tail), factor[l], sum);
        }
        store(sums + r, sum);
      }
    }
    finish_general(x, i, rows, 0, 1, sums, kRows);
  }
}

}  // namespace
}  // namespace attend
