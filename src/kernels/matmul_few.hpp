// Matrix products with few columns: one chain an element as everywhere, but other ways to read A, which is nearly all
// the work.
#pragma once

#include "kernels/matmul_few_bytes.hpp"
#include "kernels/pack.hpp"

namespace attend {
namespace {

// Elements before rows, which all begin alike, reach a whole vector, 0 if they do not. (A vector that is not whole lies in two
// lines, of which the second is needed again: where rows share the sets of the L1 it is not there any more.)
template <int W, class S>
ATTEND_INLINE int64_t whole_vectors_after(const S *row, int64_t stride) {
  constexpr int64_t kElement = sizeof(S), kBytes = W * kElement;
  const int64_t past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % kBytes);
  return stride * kElement % kBytes == 0 && past % kElement == 0 ? (kBytes - past) % kBytes / kElement : 0;
}
// The same of rows that run backwards from their last element.
template <int W, class S>
ATTEND_INLINE int64_t whole_vectors_before(const S *last, int64_t stride) {
  const int64_t after = whole_vectors_after<W>(last + 1, stride);
  return after == 0 ? 0 : W - after;
}

// Rows of A contiguous along k, NB blocks of W of them from i on: W x W elements at a time are transposed in registers and
// used at once, and the chains of FMAs run beside the shuffles. kKeeps: what was transposed is kept too, a vector for each k.
template <class T, int NR, int NB, bool kLines, class S, bool kKeeps = false>
ATTEND_INLINE void few_columns(const MatmulBlock<T> &x, const MatrixRef<const T> &right, int64_t i, T *kept = nullptr) {
  constexpr int W = kLanes<T>;
  static_assert(!kKeeps || NB == 1, "in order of k");
  constexpr int64_t kAhead = 16 * 64 / static_cast<int64_t>(sizeof(S));  // lines of each row
  // AVX2 on Zen 3, 4096 x 4096 from memory: 17.4 GB/s if nothing is asked for, 15.1 if it is; the read loop 13.9.
  constexpr bool kAsks = W == 16;
  const int64_t rows = smaller<int64_t>(NB * W, x.m - i), a_row = x.a.row_stride, b_row = right.row_stride,
                b_col = right.col_stride;
  const S *a = static_cast<const S *>(x.a.data) + i * a_row;
  const T *b = right.data;
  T buffer[NB * W * NR];
  vec<T> acc[NB][NR];
  ATTEND_UNROLL
  for (int n = 0; n < NB; ++n) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[n][j] = broadcast(T(0));
  }
  const auto add = [&](int n, vec<T> column, const T *factors) __attribute__((always_inline)) {
    if constexpr (kKeeps) {
      store(kept, column);
      kept += W;
    }
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[n][j] = fma(column, broadcast(factors[j * b_col]), acc[n][j]);
  };
  constexpr int64_t kWhole = kLines ? 64 / static_cast<int64_t>(sizeof(S)) : W;
  const bool is_full = rows == NB * W;
  const bool backwards = !kLines && x.a.col_stride == -1;
  const int64_t lead = kLines      ? whole_vectors_after<kWhole>(a, a_row)
                       : backwards ? whole_vectors_before<kWhole>(a, a_row)
                                   : 0;
  int64_t k = 0;
  if (!kLines && is_full && !backwards) {
    // Nearly all of the work, without the decisions below.
    for (; k + W <= x.k; k += W, a += W) {
      const T *factors = b;
      ATTEND_UNROLL
      for (int n = 0; n < NB; ++n) {
        const S *const block = a + n * W * a_row;
        factors = b;
        for (int l = 0; kAsks && x.far && l < W; ++l) __builtin_prefetch(block + l * a_row + kAhead, 0, 2);
        each_column<T>(
            block, a_row, [&](int, vec<T> column) __attribute__((always_inline)) {
              add(n, column, factors);
              factors += b_row;
              __asm__("" : "+r"(factors));  // one pointer, not W offsets in memory
            });
      }
      b = factors;
    }
    if constexpr (kOwnLines<S> && sizeof(S) > 1) {
      // The rest by half squares, the last of which begins before the rest if that is shorter.
      for (int64_t used; k < x.k && x.k >= W / 2; k += used, a += used, b += used * b_row) {
        const int64_t known = larger<int64_t>(0, W / 2 - (x.k - k));
        used = W / 2 - known;
        ATTEND_UNROLL
        for (int n = 0; n < NB; ++n) {
          half_columns(
              a + n * W * a_row - known, a_row, [&](int l, vec<T> column) __attribute__((always_inline)) {
                if (l >= known) add(n, column, b + (l - known) * b_row);
              });
        }
      }
    }
  }
  for (int64_t depth; k < x.k; k += depth, a += backwards ? -depth : depth, b += depth * b_row) {
    depth = k < lead ? smaller<int64_t>(W, lead - k) : k + kWhole <= x.k && is_full ? kWhole : W;
    depth = smaller(depth, x.k - k);
    if constexpr (kLines) {
      if (depth == kWhole && is_full) {
        const S *block[NB];
        ATTEND_UNROLL
        for (int n = 0; n < NB; ++n) block[n] = a + n * W * a_row;
        if constexpr (NB > 1 && kIsSame<T, S>) {  // half a line at a time, before the next block's take its place
          ATTEND_UNROLL
          for (int n = 0; n < NB; ++n) {
            each_column<T>(
                block[n],
                a_row, [&](int l, vec<T> column) __attribute__((always_inline)) { add(n, column, b + l * b_row); });
          }
          continue;
        }
        lines_of(
            block, a_row, [&](int l, const vec<T>(&column)[NB]) __attribute__((always_inline)) {
              ATTEND_UNROLL
              for (int n = 0; n < NB; ++n) {
                if (kAsks && x.far && l < W) __builtin_prefetch(block[n] + l * a_row + kAhead, 0, 2);
                add(n, column[n], b + l * b_row);
              }
            });
        continue;
      }
    }
    ATTEND_UNROLL
    for (int n = 0; n < NB; ++n) {
      const S *const block = a + n * W * a_row;
      const auto add_column = [&](int l, vec<T> column) __attribute__((always_inline)) {
        add(n, column, b + l * b_row);
      };
      if constexpr (kLines && sizeof(S) == 2) {
        // Before the first line and behind the last of rows 16 bytes off one, where malloc puts large arrays. (By pack_end
        // bf16 took 1.25 to 1.4 times as long.)
        if (depth == W / 2 && is_full) {
          half_columns(block, a_row, add_column);
          continue;
        }
      }
      if (kLines && depth == W && is_full) {
        each_column<T>(block, a_row, add_column);
        continue;
      }
      if constexpr (kIsSame<T, S>) {
        if (depth == W && is_full) {  // backwards: each line once, and the last column first
          vec<T> r[W];
          ATTEND_UNROLL
          for (int l = 0; l < W; ++l) {
            if (kAsks && x.far) __builtin_prefetch(block + (l * a_row - kAhead), 0, 2);
            r[l] = load(block + (l * a_row - (W - 1)));
          }
          transpose(r);
          ATTEND_UNROLL
          for (int l = 0; l < W; ++l) add_column(l, r[W - 1 - l]);
          continue;
        }
      }
      if (!kIsSame<T, S> || backwards) {
        T square[W * W];
        const int64_t lanes = larger<int64_t>(0, smaller<int64_t>(W, rows - n * W)), end = depth - 1;
        if (backwards) {
          pack_end(-W, lanes, depth, block - end, a_row, square + end * W);
        } else {
          pack_end(W, lanes, depth, block, a_row, square);
        }
        for (int64_t l = 0; l < depth; ++l) add(n, load(square + l * W), b + l * b_row);
        continue;
      }
      vec<T> r[W];
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) {
        r[l] = n * W + l < rows ? load_some<T>(block + l * a_row, depth) : broadcast(T(0));
      }
      transpose(r);
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) {
        if (l < depth) add(n, r[l], b + l * b_row);
      }
    }
  }
  if (is_full && x.n == NR && finish_of(x) == Finish::kStore) {
    const vec<T> alpha = broadcast(x.alpha);
    ATTEND_UNROLL
    for (int n = 0; n < NB; ++n) {
      const int64_t row = i + n * W;
      const vec<T> start = x.bias.data == nullptr ? broadcast(T(0)) : load(x.bias.data + row);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) store(x.c.data + row + j * x.c.col_stride, stored_sum(alpha, acc[n][j], start));
    }
    return;
  }
  ATTEND_UNROLL
  for (int n = 0; n < NB; ++n) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) store(buffer + (j * NB + n) * W, acc[n][j]);
  }
  finish_general(x, i, rows, 0, smaller<int64_t>(NR, x.n), buffer, NB * W);
}

#ifdef ATTEND_HALF_VECTORS
// The same of half a vector of rows: that many runs side by side come from memory faster than a whole vector's (4096 x 4096
// times a vector on a Zen 4: 22 GB/s for 19). From the caches they would wait for their chains.
template <int NR>
ATTEND_INLINE void few_columns_of_half(const MatmulBlock<float> &x, const MatrixRef<const float> &right, int64_t i) {
  constexpr int W = kLanes<float> / 2;
  constexpr int64_t kAhead = 16 * 64 / static_cast<int64_t>(sizeof(float));  // lines of each row
  const int64_t rows = smaller<int64_t>(W, x.m - i), a_row = x.a.row_stride, b_row = right.row_stride;
  const float *a = static_cast<const float *>(x.a.data) + i * a_row, *b = right.data;
  half<float> acc[NR];
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) acc[j] = broadcast_half(0.0f);
  const int64_t lead = whole_vectors_after<W>(a, a_row);
  const auto add = [&](half<float> column, int l) __attribute__((always_inline)) {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) acc[j] = fma_half(column, broadcast_half(b[l * b_row + j * right.col_stride]), acc[j]);
  };
  half<float> r[W];
  for (int64_t k = 0, depth; k < x.k; k += depth, a += depth, b += depth * b_row) {
    depth = smaller<int64_t>(k == 0 && lead > 0 ? lead : W, x.k - k);
    if (depth == W && rows == W) {
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) {
        if (l % 2 == 0)
          __builtin_prefetch(a + (l + k / W % 2) * a_row + kAhead, 0, 2);  // of a line's two squares each half
        r[l] = load_half(a + l * a_row);
      }
      transpose_half(r);
      ATTEND_UNROLL
      for (int l = 0; l < W; ++l) add(r[l], l);
      continue;
    }
    const Tail<float> tail(depth);
    ATTEND_UNROLL
    for (int l = 0; l < W; ++l) r[l] = l < rows ? load_half(a + l * a_row, tail) : broadcast_half(0.0f);
    transpose_half(r);
    ATTEND_UNROLL
    for (int l = 0; l < W; ++l) {
      if (l < depth) add(r[l], l);
    }
  }
  float buffer[W * NR];
  const Tail<float> all(W);
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) store_half(buffer + j * W, acc[j], all);
  finish_general(x, i, rows, 0, smaller<int64_t>(NR, x.n), buffer, W);
}
#endif

// Rows a multiple of 4 KiB apart share the sets of the L1, which hold 8 or 12 lines.
template <class S, class T>
ATTEND_INLINE bool rows_share_sets(const MatmulBlock<T> &x) {
  return x.a.col_stride == 1 && x.a.row_stride * static_cast<int64_t>(sizeof(S)) % 4096 == 0;
}

template <class T, int NR, class S>
void few_columns(const MatmulBlock<T> &x, const MatrixRef<const T> &b) {
  constexpr int W = kLanes<T>;
  const int64_t bytes = x.a.row_stride * static_cast<int64_t>(sizeof(S));
  const bool shares_sets = rows_share_sets<S>(x);
  // Where C is only written the last block begins within the one before it, if it would not be full: the same elements again,
  // the same bits.
  const bool overlaps = x.begins && x.beta == T(0);
  const auto first = [&](int64_t i, int64_t rows) __attribute__((always_inline)) {
    return overlaps && i > x.m - rows && rows <= x.m ? x.m - rows : i;
  };
  int64_t i = 0;
#ifdef ATTEND_HALF_VECTORS
  if constexpr (kIsSame<S, float> && NR <= 2) {
    for (; shares_sets && x.from_memory && i < x.m; i += W / 2) few_columns_of_half<NR>(x, b, i);
  }
#endif
  constexpr bool kTwoBlocks = NR <= 2 && !kIsSame<S, int8_t>;
  if constexpr (kOwnLines<S>) {
    constexpr bool kAlways = kIsSame<S, int8_t>;
    if constexpr (kAlways && NR == 1) {
      // A vector of bytes is there sooner than an FMA's result: two chains (on a Zen 4 from the L2 1.2 times, from memory 1.05
      // to 1.1 times the speed; of two columns 1.03, of 16-bit elements from memory 0.9).
      for (; i + 2 * W <= x.m; i += 2 * W) few_columns<T, NR, 2, true, S>(x, b, i);
    }
    if constexpr (kTwoBlocks && kIsSame<T, S>) {
      // Rows that share sets: from the L2, 512 x 512 1.2, 256 x 1024 1.12 times the speed of one block of lines on an Intel, two
      // columns 1.03; from memory, 2048 x 2048, 0.92.
      const bool two = x.wide_core && x.near && x.a.col_stride == 1 && bytes % 2048 == 0;
      for (; two && i + W < x.m && 2 * W <= x.m - first(i, 2 * W); i += 2 * W) {
        i = first(i, 2 * W);
        few_columns<T, NR, 2, true, S>(x, b, i);
      }
    }
    for (; (shares_sets || kAlways) && i < x.m; i += W) {
      i = first(i, W);
      few_columns<T, NR, 1, true, S>(x, b, i);
    }
  } else if constexpr (kIsSame<S, int8_t>) {
    constexpr int NB = smaller(kFewColumnsRows / W, 8 / NR);
    for (; i < x.m; i += NB * W) few_columns_of_bytes<NR, NB>(x, b, i);
  }
  if constexpr (kTwoBlocks) {
    // One chain alone waits for its own FMAs, but memory is slower than one; two columns are two. (From the L2 on a Zen 4, one
    // column of f32 1.1 times the speed of one block, two of bf16 1.12, of f32 0.9 and rows 2 KiB apart 0.6: see above.)
    const bool two = W < 16 || (!x.far && (NR == 1 || sizeof(S) == 2) && bytes % 2048 != 0);
    for (; !shares_sets && two && i + W < x.m && 2 * W <= x.m - first(i, 2 * W); i += 2 * W) {
      i = first(i, 2 * W);
      few_columns<T, NR, 2, false, S>(x, b, i);
    }
  }
  if constexpr (!kIsSame<S, int8_t>) {
    for (; i < x.m; i += W) {
      i = first(i, W);
#ifdef ATTEND_HALF_VECTORS
      if constexpr (kIsSame<S, float>) {
        if (x.m - i <= W / 2 && x.a.col_stride == 1) return few_columns_of_half<NR>(x, b, i);
      }
#endif
      few_columns<T, NR, 1, false, S>(x, b, i);
    }
  }
}

// B of few columns in the scratch, three columns as four.
template <class T>
__attribute__((noinline)) MatrixRef<const T> widened_b(const MatmulBlock<T> &x) {
  constexpr int64_t kHeight = Contract<T>::kMatmulHeight;
  static_assert(Contract<T>::kLongColumn + kLongColumns * kHeight <= Contract<T>::kMatmulPanels,
                "room beside the sums");
  T *const to = x.b_panel + Contract<T>::kLongColumn;
  with_factor<T>(x.b.type, [&](auto stored) {
    const auto *from = static_cast<const decltype(stored) *>(x.b.data);
    if (x.b.row_stride == 1) {
      pack_columns(x.n, x.k, from, x.b.col_stride, to, kHeight);
    } else {
      for (int64_t j = 0; j < x.n; ++j) {
        for (int64_t k = 0; k < x.k; ++k) to[j * kHeight + k] = widened(from[k * x.b.row_stride + j * x.b.col_stride]);
      }
    }
  });
  for (int64_t k = 0; x.n == 3 && k < x.k; ++k) to[3 * kHeight + k] = T(0);
  return {to, 1, kHeight};
}

// B of few columns, as numbers: in place, or, with a narrower operand, in the scratch.
template <class T>
ATTEND_INLINE MatrixRef<const T> numbers_of_b(const MatmulBlock<T> &x) {
  if (is_narrow<T>(x.b.type) || (x.n == 3 && is_narrow<T>(x.a.type))) return widened_b(x);
  return {static_cast<const T *>(x.b.data), x.b.row_stride, x.b.col_stride};
}

}  // namespace
}  // namespace attend
