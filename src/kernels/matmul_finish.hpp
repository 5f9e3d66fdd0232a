// How the chunk of a matrix product meets C: C = fma(alpha, chunk, C0).
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// How a tile meets C: kStore C0 = 0 and alpha > 0, or C0 a bias that all columns share and alpha = 1; kAdd C0 = C; both unrolled
// over the registers; kGeneral everything else, by way of a buffer.
enum class Finish { kStore, kAdd, kGeneral };

template <class T>
Finish finish_of(const MatmulBlock<T> &x) {
  if (x.c.row_stride != 1 || x.k == 0) return Finish::kGeneral;
  if (!x.begins || (x.beta == T(1) && x.bias.data == nullptr)) return Finish::kAdd;
  const bool stores =
      x.bias.data == nullptr ? x.alpha > T(0) : x.alpha == T(1) && x.bias.row_stride == 1 && x.bias.col_stride == 0;
  return x.beta == T(0) && stores ? Finish::kStore : Finish::kGeneral;
}

// What kAdd adds to C: of the first chunk C0 = fma(1, C, +0), where -0 becomes +0; later C is a sum and stays as it is.
template <class T>
ATTEND_INLINE T added_zero(const MatmulBlock<T> &x) {
  return x.begins ? T(0) : T(-0.0);
}

// fma(alpha, chunk, start) where kStore is: one of the two steps is exact, whichever comes first, and the zero of a zero chunk
// is +0 by the sum. (Of a tile with k = 4 on a Zen 4, FMAs beside its stores take 124 ticks, a product and a sum 88.)
template <class V>
ATTEND_INLINE V stored_sum(V alpha, V chunk, V start) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
  return alpha * (chunk + start);
#else
  return fma(alpha, chunk, start);  // rounds twice
#endif
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
  const bool vectors = x.c.row_stride == 1 && x.k != 0 &&
                       (!x.begins || x.bias.data == nullptr || x.bias.row_stride == 1 || x.bias.row_stride == 0);
  for (int64_t j = 0; j < columns; ++j) {
    T *c = x.c.data + i0 * x.c.row_stride + (j0 + j) * x.c.col_stride;
    const T *bias =
        x.bias.data == nullptr ? nullptr : x.bias.data + i0 * x.bias.row_stride + (j0 + j) * x.bias.col_stride;
    const T *chunk = tile + j * width;
    int64_t i = 0;
    for (; vectors && i + W <= rows; i += W) {
      vec<T> start = broadcast(T(0));
      if (!x.begins) {
        start = load(c + i);
      } else {
        if (x.bias.data != nullptr) start = x.bias.row_stride == 1 ? load(bias + i) : broadcast(*bias);
        if (x.beta != T(0)) start = fma(beta, load(c + i), start);
      }
      store(c + i, fma(alpha, load(chunk + i), start));
    }
    if (vectors && i < rows) {
      const Tail<T> tail(rows - i);
      vec<T> start = broadcast(T(0));
      if (!x.begins) {
        start = load(c + i, tail);
      } else {
        if (x.bias.data != nullptr) start = x.bias.row_stride == 1 ? load(bias + i, tail) : broadcast(*bias);
        if (x.beta != T(0)) start = fma(beta, load(c + i, tail), start);
      }
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
