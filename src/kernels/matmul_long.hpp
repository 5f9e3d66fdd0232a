// Matrix products of few columns and of one number, whose operands lie in long runs along the result's rows or along k.
#pragma once

#include "kernels/matmul_few.hpp"

namespace attend {
namespace {

// Sums of columns, `run` apart, += `depth` columns of A times their numbers in B, for rows that are no whole vectors or columns of
// A that are fewer than a sweep takes.
template <class T, class S>
__attribute__((noinline)) void add_rest(const S *a, int64_t a_k, int64_t depth, const MatrixRef<const T> &b,
                                        int64_t columns, bool begins, int64_t rows, T *sums, int64_t run) {
  constexpr int W = kLanes<T>;
  for (int64_t r = 0; r < rows; r += W) {
    const int64_t count = smaller<int64_t>(W, rows - r);
    for (int64_t j = 0; j < columns; ++j) {
      vec<T> sum = begins ? broadcast(T(0)) : load(sums + j * run + r);
      for (int64_t l = 0; l < depth; ++l) {
        const T number = b.data[l * b.row_stride + j * b.col_stride];
        sum = fma(load_some<T>(a + r + l * a_k, count), broadcast(number), sum);
      }
      store(sums + j * run + r, sum);
    }
  }
}

// The same of NR columns and L columns of A at once, whose numbers are in registers, for whole vectors of rows.
template <class T, int NR, int L, class S>
ATTEND_INLINE void add_columns(const S *a, int64_t a_k, const MatrixRef<const T> &b, int64_t columns, bool begins,
                               bool asks, int64_t rows, T *sums, int64_t run) {
  constexpr int W = kLanes<T>;
  vec<T> factor[L][NR];
  ATTEND_UNROLL
  for (int l = 0; l < L; ++l) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      factor[l][j] = broadcast(j < columns ? b.data[l * b.row_stride + j * b.col_stride] : T(0));
    }
  }
  for (int64_t r = 0; r < rows; r += W) {
    vec<T> sum[NR];
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) sum[j] = begins ? broadcast(T(0)) : load(sums + j * run + r);
    ATTEND_UNROLL
    for (int l = 0; l < L; ++l) {
      if (asks) __builtin_prefetch(a + r + (l + L) * a_k, 0, 2);
      const vec<T> v = load_as<T>(a + r + l * a_k);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) sum[j] = fma(v, factor[l][j], sum[j]);
    }
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store(sums + j * run + r, sum[j]);
  }
}

// Few columns, A's columns contiguous: sums of long runs of rows for NR columns after the other, so that memory is read in
// long runs too (one column, 4 KiB of rows: three quarters of the speed); some columns of A between a load and a store of
// the sums.
template <class T, int NR, class S>
void long_columns(const MatmulBlock<T> &x, const MatrixRef<const T> &b) {
  constexpr int64_t L = NR == 4 && kLanes<T> * sizeof(T) < 64 ? 2 : 4;  // whose factors stay in registers
  const int64_t run = long_run<T>(x.n), a_k = x.a.col_stride;
  T *const sums = x.b_panel;
  for (int64_t i = 0; i < x.m; i += run) {
    const int64_t rows = smaller(run, x.m - i), whole = rows / kLanes<T> * kLanes<T>;
    for (int64_t k = 0; k < x.k; k += L) {
      const int64_t depth = smaller(L, x.k - k), swept = depth == L ? whole : 0;
      const S *a = static_cast<const S *>(x.a.data) + i + k * a_k;
      const bool begins = k == 0;
      for (int64_t first = 0; first < x.n; first += NR) {
        const MatrixRef<const T> numbers = {b.data + k * b.row_stride + first * b.col_stride, b.row_stride,
                                            b.col_stride};
        const int64_t columns = smaller<int64_t>(NR, x.n - first);
        T *const to = sums + first * run;
        const bool asks = x.far && first == 0 && x.n <= kLongColumns;  // (for more it is in time by itself)
        if (swept > 0) add_columns<T, NR, L>(a, a_k, numbers, columns, begins, asks, swept, to, run);
        if (swept < rows) add_rest(a + swept, a_k, depth, numbers, columns, begins, rows - swept, to + swept, run);
      }
    }
    finish_general(x, i, rows, 0, x.n, sums, run);
  }
}

template <class T>
void long_columns(const MatmulBlock<T> &x) {
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
