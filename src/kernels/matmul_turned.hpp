// Few columns beside an A whose rows are contiguous along k: how many pass at a time.
#pragma once

#include "kernels/matmul_tiles.hpp"

namespace attend {
namespace {

// kKeptColumns and more of a vector of rows: eight first, and what was transposed for them is kept, in the L1, for the others.
// (On Emerald Rapids, 16 columns 1.1 to 1.27 times the speed of transposing twice, 15 1.5, 12 1.02 to 1.1; nine 1.0, ten, whose two
// chains wait as long, 0.95.)
template <class T>
void columns_of_kept(const MatmulBlock<T> &x, const MatrixRef<const T> &b) {
  constexpr int W = kLanes<T>, kFirst = 8;
  T buffer[W * kFirst];
  MatmulBlock<T> some = x;
  some.n = kFirst;
  bool done = false;
  if constexpr (kOwnLines<T>) {
    if (rows_share_sets<T>(x)) {
      few_columns<T, kFirst, 1, true, T, true>(some, b, 0, x.a_panel);
      done = true;
    }
  }
  if (!done) few_columns<T, kFirst, 1, false, T, true>(some, b, 0, x.a_panel);
  const Panels<T> p = {finish_of(x), x.a_panel,    W,     W, 0, b.data + kFirst * b.col_stride,
                       b.row_stride, b.col_stride, buffer};
  with_constant<kTurnedColumns - kFirst>(
      x.n - kFirst, [&](auto nr) __attribute__((always_inline)) {
        matmul_tile<T, 1, decltype(nr)::value, false>(x, p, x.a_panel, 0, W, kFirst, nullptr);
      });
}

// More of them, numbers in T: for a vector of rows of A, which stay near, eight after the others.
template <class T, class S>
void more_columns(const MatmulBlock<T> &x, const MatrixRef<const T> &b) {
  constexpr int W = kLanes<T>, kMost = 8;
  MatmulBlock<T> some = x;
  for (int64_t i = 0; i < x.m; i += W) {
    some.m = smaller<int64_t>(W, x.m - i);
    some.a.data = element_of(x.a, i, 0);
    if constexpr (kIsSame<T, S>) {
      if (x.n >= kKeptColumns && some.m == W) {
        some.n = x.n;
        some.far = x.far;
        some.c.data = x.c.data + i * x.c.row_stride;
        if (x.bias.data != nullptr) some.bias.data = x.bias.data + i * x.bias.row_stride;
        columns_of_kept(some, b);
        continue;
      }
    }
    for (int64_t j = 0; j < x.n; j += some.n) {
      some.far = x.far && j == 0;
      some.c.data = x.c.data + i * x.c.row_stride + j * x.c.col_stride;
      if (x.bias.data != nullptr) some.bias.data = x.bias.data + i * x.bias.row_stride + j * x.bias.col_stride;
      with_power<kMost>(x.n - j, [&](auto nr) {
        some.n = decltype(nr)::value;
        few_columns<T, decltype(nr)::value, S>(some, {b.data + j * b.col_stride, b.row_stride, b.col_stride});
      });
    }
  }
}

template <class T>
__attribute__((noinline)) void few_columns(const MatmulBlock<T> &x) {
  const MatrixRef<const T> b = numbers_of_b(x);
  with_factor<T>(x.a.type, [&](auto stored) {
    using S = decltype(stored);
    if constexpr (kLanes<T> * sizeof(T) == 64) {
      if (x.n > kFewColumns) return more_columns<T, S>(x, b);
    }
    if constexpr (kIsSame<T, S>) {
      with_constant<kFewColumns>(x.n, [&](auto nr) { few_columns<T, decltype(nr)::value, S>(x, b); });
    } else {  // half the shapes: three columns as four, of which numbers_of_b made one up
      with_power_above<kFewColumns>(x.n, [&](auto nr) { few_columns<T, decltype(nr)::value, S>(x, b); });
    }
  });
}

}  // namespace
}  // namespace attend
