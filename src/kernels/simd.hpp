// The vector vocabulary of the kernels: xsimd's batches plus what they lack, under one set of names for every
// instruction set.
//
// A file in isa/ defines ATTEND_ISA (its name) and includes its backend, simd_<isa>.hpp, before everything else. The
// backend renames the namespace xsimd after the instruction set, so that the few functions which the compiler does not
// inline carry it in their names: two instantiations of one inline function, compiled with different flags, must never
// be merged by the linker. For the same reason all kernel code lives in an anonymous namespace and calls nothing from
// namespace std.
//
// A backend provides, for T = float and double:
//   vec<T>, kLanes<T>              the register, and how many T it holds
//   fma(a, b, c), fused(a, b, c)   a * b + c of vectors and of scalars, fused where the instruction set can. (xsimd
//                                  8.1.0 multiplies and adds for AVX-512 and NEON.)
//   divide(a, b)                   rounded correctly. (xsimd 8.1.0 approximates for NEON.)
//   Tail<T>                        the first n lanes, 1 <= n <= kLanes<T>; load(p, tail) fills the rest with 0 and
//                                  touches no memory behind the n-th element, store(p, v, tail) writes only those
//   maximum(a, b)                  b where a is NaN
//   swap_pairs(v)                  lanes 2i and 2i + 1 exchanged; not of one lane
//   round(v)                       to nearest, ties to even
//   with_exponent(v)               the low bits of v as the exponent of a power of two, or of 0
//   zero_below(v, y, cut)          y < cut ? 0 : v; instead of these two, functions under masks, if ATTEND_MASKED_EXP
//                                  is defined (simd_avx512.hpp)
//   stream_store(p, v), stream_fence()  a store past the caches to aligned memory; orders these before later stores
//   any(b)                         whether any lane of a comparison is true
//   all(b)                         whether every lane is
//   zero_bytes(p)                  bit k: whether byte k of 32 is 0, if ATTEND_ZERO_BYTES is defined
//   HiddenKeys<T>                  pack.hpp, if ATTEND_HIDDEN_KEYS is defined
//   loaded_once(v)                 v, which x86's compilers then do not read again as an operand of each instruction
//   transpose(r)                   kLanes<T> vectors as a square matrix
//   widened_lanes(p), narrow_lanes(p, v)   of vectors of stored elements (kernels/widen.hpp), if ATTEND_STORED_VECTORS is
//                                  defined
//   bytes_of<F>(p)                 p[lane][F] as a number, p four bytes a lane, if ATTEND_BYTES_OF is defined
//   own_columns(p, stride, f)      each_column of types for which kOwnColumns is true
//   columns_of(p, stride, f)       the same of G squares at once, f(k, r) with r[g] of p[g], if kOwnColumnsOfSquares is
//   lines_of(p, stride, f)         the same for all k of 64 bytes of each row, which is read once, if kOwnLines is true
//   half_columns(p, stride, f)     own_columns for k < kLanes / 2 alone, of elements of more than 8 bits
//   Permutation<T>, permute(v, p)  lanes in any order, if ATTEND_PERMUTATIONS is defined
//   Tiles<T>                       shapes of the register tiles, with their register budget
#pragma once

#include "kernels/table.hpp"

#define ATTEND_INLINE inline __attribute__((always_inline))
#define ATTEND_UNROLL _Pragma("GCC unroll 32")

namespace attend {
namespace {

template <class T>
ATTEND_INLINE constexpr T smaller(T a, T b) {
  return b < a ? b : a;
}
template <class T>
ATTEND_INLINE T larger(T a, T b) {
  return a < b ? b : a;
}

template <class A, class B>
constexpr bool kIsSame = false;
template <class A>
constexpr bool kIsSame<A, A> = true;

// Whether the backend has own_columns for elements of this type: pack.hpp, each_column.
template <class S>
constexpr bool kOwnColumns = false;
// And columns_of, the same of several squares side by side.
template <class S>
constexpr bool kOwnColumnsOfSquares = false;
// And lines_of.
template <class S>
constexpr bool kOwnLines = false;

// Calls f(Int<n>()) for the run-time n in 1..Max: turns an edge's width into a compile-time tile shape.
template <int N>
struct Int {
  static constexpr int value = N;
};
template <int Max, class F>
ATTEND_INLINE void with_constant(int64_t n, const F &f) {
  if constexpr (Max > 1) {
    if (n < Max) return with_constant<Max - 1>(n, f);
  }
  f(Int<Max>());
}

// With the largest of N, N / 2, N / 4, ... that is at most n.
template <int N, class F>
ATTEND_INLINE void with_power(int64_t n, const F &f) {
  if constexpr (N > 1) {
    if (n < N) return with_power<N / 2>(n, f);
  }
  f(Int<N>());
}

// With the least n' >= n of 1, 2, 4, ..., Max.
template <int Max, class F>
ATTEND_INLINE void with_power_above(int64_t n, const F &f) {
  if constexpr (Max > 1) {
    if (n <= Max / 2) return with_power_above<Max / 2>(n, f);
  }
  f(Int<Max>());
}

// Widths of `total` cut into the fewest pieces of at most `most`, as equal as possible: 13 = 7 + 6, not 12 + 1.
ATTEND_INLINE int64_t balanced(int64_t total, int64_t most) {
  const int64_t pieces = (total + most - 1) / most;
  return (total + pieces - 1) / pieces;
}

}  // namespace
}  // namespace attend
