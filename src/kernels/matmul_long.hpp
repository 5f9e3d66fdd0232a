// Matrix products of few columns and of one number, whose operands lie in long runs along the result's rows or along k.
#pragma once

#include "kernels/matmul_few.hpp"

namespace attend {
namespace {

// Few columns, A's columns contiguous: sums of long runs of rows for NR columns after the other, so that memory is read in
// long runs too (one column, 4 KiB of rows: three quarters of the speed); some columns of A between a load and a store of
// the sums.
template <class T, int NR, class S>
void long_columns(const MatmulBlock<T> &x, const MatrixRef<const T> &b) {
  constexpr int W = kLanes<T>, kColumns = NR == 4 && W * sizeof(T) < 64 ? 2 : 4;  // their factors stay in registers
  const int64_t run = long_run<T>(x.n);
  T *const sums = x.b_panel;
  // Copies: a store of a vector might, for all the compiler knows, change x.
  const int64_t a_k = x.a.col_stride;
  const bool far = x.far;
  for (int64_t i = 0; i < x.m; i += run) {
    const int64_t rows = smaller(run, x.m - i);
    for (int64_t k = 0; k < x.k; k += kColumns) {
      const int columns = static_cast<int>(smaller<int64_t>(kColumns, x.k - k));
      const S *a = static_cast<const S *>(x.a.data) + i + k * a_k;
      for (int64_t first = 0; first < x.n; first += NR) {
        vec<T> factor[kColumns][NR];
        for (int l = 0; l < kColumns; ++l) {
          for (int j = 0; j < NR; ++j) {
            const bool is_there = l < columns && first + j < x.n;
            factor[l][j] = broadcast(is_there ? b.data[(k + l) * b.row_stride + (first + j) * b.col_stride] : T(0));
          }
        }
        T *const to = sums + first * run;
        const bool asks = far && first == 0;
        for (int64_t r = 0; r < rows; r += W) {
          vec<T> sum[NR];
          ATTEND_UNROLL
          for (int j = 0; j < NR; ++j) sum[j] = k == 0 ? broadcast(T(0)) : load(to + j * run + r);
          const int64_t count = smaller<int64_t>(W, rows - r);
          const auto add = [&](int l, vec<T> column) __attribute__((always_inline)) {
            ATTEND_UNROLL
            for (int j = 0; j < NR; ++j) sum[j] = fma(column, factor[l][j], sum[j]);
          };
          if (columns == kColumns && count == W) {
            ATTEND_UNROLL
            for (int l = 0; l < kColumns; ++l) {
              if (asks) __builtin_prefetch(a + r + (l + kColumns) * a_k, 0, 2);
              add(l, load_as<T>(a + r + l * a_k));
            }
          } else {
            for (int l = 0; l < columns; ++l) add(l, load_some<T>(a + r + l * a_k, count));
          }
          ATTEND_UNROLL
          for (int j = 0; j < NR; ++j) store(to + j * run + r, sum[j]);
        }
      }
    }
    finish_general(x, i, rows, 0, x.n, sums, run);
  }
}

template <class T>
__attribute__((noinline)) void long_columns(const MatmulBlock<T> &x) {
  const MatrixRef<const T> b = numbers_of_b(x);
  with_factor<T>(x.a.type, [&](auto stored) {
    with_power_above<kFewColumns>(x.n, [&](auto nr) { long_columns<T, decltype(nr)::value, decltype(stored)>(x, b); });
  });
}

// One number, of rows and columns that are contiguous: lanes are chunks of k, whose chains do not wait for each other and
// meet in C one after the other, as everywhere.
template <class T>
__attribute__((noinline)) void dot(const MatmulBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kKc;
  MatmulBlock<T> to = x;
  to.k = kChunk;
  const auto turned = [](const T *p, const auto &f) __attribute__((always_inline)) {
    if constexpr (kOwnLines<T>) {
      const T *const one[1] = {p};
      lines_of(
          one, kChunk, [&](int i, const vec<T>(&column)[1]) __attribute__((always_inline)) { f(i, column[0]); });
    } else {
      each_column<T>(p, kChunk, f);
    }
  };
  for (int64_t k = 0; k < x.k;) {
    const T *const a = static_cast<const T *>(x.a.data) + k, *const b = static_cast<const T *>(x.b.data) + k;
    const int64_t chunks = smaller<int64_t>(W, (x.k - k) / kChunk);
    T sums[W] = {};
    if (chunks > 1) {
      vec<T> acc = broadcast(T(0));
      for (int64_t l = 0; l < kChunk; l += W) {
        T of_a[W * W], of_b[W * W];
        if (chunks == W) {
          turned(
              a + l, [&](int i, vec<T> column) __attribute__((always_inline)) { store(of_a + i * W, column); });
          turned(
              b + l, [&](int i, vec<T> column)
                         __attribute__((always_inline)) { acc = fma(load(of_a + i * W), column, acc); });
          continue;
        }
        pack_end(W, chunks, W, a + l, kChunk, of_a);
        pack_end(W, chunks, W, b + l, kChunk, of_b);
        ATTEND_UNROLL
        for (int i = 0; i < W; ++i) acc = fma(load(of_a + i * W), load(of_b + i * W), acc);
      }
      store(sums, acc);
    } else {
      for (int64_t l = 0; l < smaller(kChunk, x.k - k); ++l) sums[0] = fused(a[l], b[l], sums[0]);
    }
    for (int64_t c = 0; c < larger<int64_t>(1, chunks); ++c, k += kChunk) {
      to.begins = k == 0 && x.begins;
      finish_general(to, 0, 1, 0, 1, sums + c, 1);
    }
  }
}

}  // namespace
}  // namespace attend
