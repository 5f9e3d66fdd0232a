// How the chunk of a matrix product meets C: C = fma(alpha, chunk, C0).
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// How a tile meets C: kStore C0 = 0, or a bias that all columns share where alpha is 1, kAdd C0 = C, both unrolled over the
// registers; kGeneral everything else, by way of a buffer. With kStore one of the two steps of alpha chunk + C0 is exact, so
// that it need not be fused: of a tile with k = 4 on a Zen 4, FMAs beside its stores take 124 ticks, a product and a sum 88.
enum class Finish { kStore, kAdd, kGeneral };

template <class T>
Finish finish_of(const MatmulBlock<T> &x) {
  if (x.c.row_stride != 1 || x.k == 0) return Finish::kGeneral;
  if (!x.begins || (x.beta == T(1) && x.bias.data == nullptr)) return Finish::kAdd;
  const bool plain_bias =
      x.bias.data == nullptr || (x.alpha == T(1) && x.bias.row_stride == 1 && x.bias.col_stride == 0);
  return x.beta == T(0) && plain_bias ? Finish::kStore : Finish::kGeneral;
}

// What kStore writes to whole vectors of rows from row i on.
template <class T>
ATTEND_INLINE vec<T> stored_sum(const MatmulBlock<T> &x, vec<T> chunk, int64_t i) {
  return broadcast(x.alpha) * chunk + (x.bias.data == nullptr ? broadcast(T(0)) : load(x.bias.data + i));
}

// One element of C from its chunk.
template <class T>
ATTEND_INLINE T finished(const MatmulBlock<T> &x, T chunk, const T *c, const T *bias) {
  T start = T(0);
  if (!x.begins) {
    start = *c;
  } else {
    if (x.bias.data != nullptr) start = *bias;
    if (x.beta != T(0)) start = fused(x.beta, *c, start);
  }
  return x.k == 0 ? start : fused(x.alpha, chunk, start);
}

// Rows i0.. and columns j0.. of C from a buffer of tile columns `width` apart: bias, beta, and any stride of C. (Not
// inlined: with a copy in the code of each tile the library was a twentieth larger.)
template <class T>
__attribute__((noinline)) void finish_general(const MatmulBlock<T> &x, int64_t i0, int64_t rows, int64_t j0,
                                              int64_t columns, const T *tile, int64_t width) {
  constexpr int W = kLanes<T>;
  const vec<T> alpha = broadcast(x.alpha), beta = broadcast(x.beta);
  const bool vectors = x.c.row_stride == 1 && x.k != 0 && x.begins &&
                       (x.bias.data == nullptr || x.bias.row_stride == 1 || x.bias.row_stride == 0);
  for (int64_t j = 0; j < columns; ++j) {
    T *c = x.c.data + i0 * x.c.row_stride + (j0 + j) * x.c.col_stride;
    const T *bias =
        x.bias.data == nullptr ? nullptr : x.bias.data + i0 * x.bias.row_stride + (j0 + j) * x.bias.col_stride;
    const T *chunk = tile + j * width;
    int64_t i = 0;
    for (; vectors && i + W <= rows; i += W) {
      vec<T> start = broadcast(T(0));
      if (x.bias.data != nullptr) start = x.bias.row_stride == 1 ? load(bias + i) : broadcast(*bias);
      if (x.beta != T(0)) start = fma(beta, load(c + i), start);
      store(c + i, fma(alpha, load(chunk + i), start));
    }
    if (vectors && i < rows) {
      const Tail<T> tail(rows - i);
      vec<T> start = broadcast(T(0));
      if (x.bias.data != nullptr) start = x.bias.row_stride == 1 ? load(bias + i, tail) : broadcast(*bias);
      if (x.beta != T(0)) start = fma(beta, load(c + i, tail), start);
      store(c + i, fma(alpha, load(chunk + i, tail), start), tail);
      continue;
    }
    if (x.begins && x.beta == T(0)) {
      // A loop of its own: g++ 12 computes what an `if` would keep it from, and C may hold signaling NaN.
      for (; i < rows; ++i) {
        const T start = x.bias.data != nullptr ? bias[i * x.bias.row_stride] : T(0);
        c[i * x.c.row_stride] = x.k == 0 ? start : fused(x.alpha, chunk[i], start);
      }
    }
    for (; i < rows; ++i) {
      c[i * x.c.row_stride] =
          finished(x, chunk[i], c + i * x.c.row_stride, bias == nullptr ? nullptr : bias + i * x.bias.row_stride);
    }
  }
}

}  // namespace
}  // namespace attend
