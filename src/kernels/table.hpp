// The contract between the baseline code and the kernels: one table of functions per instruction set, plain data only.
//
// Kernels own no threads, no memory, no errors and no globals; the drivers own all four. Each call here is one block of
// work, large enough that the indirect call does not matter and small enough to fit one thread's share and scratch.
// This header is compiled with and without instruction-set flags, so it holds no function that could be emitted for
// others to use.
#pragma once

#include "kernels/attention_blocks.hpp"
#include "kernels/backward_blocks.hpp"
#include "kernels/contract.hpp"

namespace attend {

// What a CPU and its operating system must have for a table to run.
enum CpuFeature : uint64_t {
  kSse42 = 1u << 0,  // with POPCNT, which -msse4.2 lets the compiler use
  kAvx2 = 1u << 1,
  kFma = 1u << 2,
  kAvx512F = 1u << 3,
  kAvx512Bw = 1u << 4,
  kAvx512Dq = 1u << 5,
  kAvx512Vl = 1u << 6,
  kF16c = 1u << 7,
  kAvx512Vnni = 1u << 8,
  kAvx512Bf16 = 1u << 9,
};

// Columns so few that rows of A which are contiguous along k are transposed in registers each time they are read, and not
// packed.
constexpr int kFewColumns = 4;
// The same of kernels with 32 registers, eight columns after the others, while A is near.
constexpr int kTurnedColumns = 16;
// From so many of them on the transposed rows are kept for those behind the first eight.
constexpr int kKeptColumns = 11;
// Columns of tall tiles, which those have too.
constexpr int kTallColumns = 3;
// Columns of a product at most whose sums of long runs of rows are kept in the scratch, and how many rows these are: those of
// the least power of two of columns fill it.
constexpr int kLongColumns = 8;
template <class T>
ATTEND_SHARED int64_t long_run(int64_t columns) {
  return Contract<T>::kLongColumn / (columns > 2 ? columns > kFewColumns ? kLongColumns : kFewColumns : columns);
}
// So many such rows at a time, from end to end: memory is read in long runs.
constexpr int kFewColumnsRows = 32;

// C = fma(alpha, A B, C0) for one chunk of k, C0 = C or, if it `begins`, fma(beta, C, bias). k = 0 gives C0.
// k <= kKc, or any of one number, if A's row and B's column are contiguous and of type T; pack_a must be set
// unless a.row_stride is 1, or A's rows lie along k and n <= turned_columns (with B in T from kFewColumns on).
template <class T>
struct MatmulBlock {
  int64_t m, n, k;
  StoredMatrix a, b;  // A and B are widened when they are packed, or, of few columns, in registers; i8 too
  MatrixRef<T> c;
  MatrixRef<const T> bias;  // or null data
  T alpha, beta;
  bool begins;
  bool pack_a, pack_b;  // copy the operand into its panel first
  bool keeps_b;         // b_panel has room for all columns, kMatmulHeight of each
  bool b_is_packed;     // and they are there
  bool long_columns;    // n <= kLongColumns, a.row_stride = 1, no packing, and kLongColumn elements at b_panel
  bool far;             // A, B and C come from beyond the L2: fetch ahead
  bool tall;            // n <= kTallColumns, a.row_stride = 1, no packing, A of T and in the L2: matmul_tiles.hpp
  bool in_runs;  // matmul_runs.hpp: A of type T, room for the sums of m rows and n columns, in whole tiles, at a_panel
  bool from_memory;    // A is larger than all caches
  bool near;           // A stays in the L2
  bool wide_core;      // drivers/cache.hpp
  int64_t ahead;       // A in place: elements of it that come so much later are asked for (0: none)
  const void *next_a;  // the block of A that comes next, if it is to be asked for while this one is used, or null
  int64_t next_rows;
  T *a_panel;  // scratch: m, rounded up to a panel, times k; of kKeptColumns and more 64 bytes for each k
  T *b_panel;  // scratch: kMatmulPanels; its upper part is where B of few columns is widened
};

// y = x, elementwise, between any two types but boolean: widened exactly, or rounded once, to nearest even. With a scale:
// from integers and f8e4m3 y = scale x, to them y = x / scale, which integers of 8 bits bound to +-127.
struct ConvertBlock {
  int64_t rows, columns;
  StoredMatrix x, y;             // equal, or apart
  MatrixRef<const float> scale;  // or null data
};

// Where the elements of a token lie: those of neighbouring features, and of neighbouring heads, so many apart.
struct TokenStrides {
  int64_t row, head;
  Dtype type;
};

// y = x for some tokens and all of their heads, of which the first 2 * pairs features are rotated: y1 = fma(x1, cos, -(x2
// sin)), y2 = fma(x2, cos, x1 sin), products rounded; then converted as by ConvertBlock, with a scale that is read, or
// computed from the token and head and written. y may be x.
template <class T>
struct RotaryBlock {
  static constexpr int kMost = 32;
  // Addresses of the first feature of head 0; null: nothing is rotated, or no scale.
  struct Token {
    const void *x, *cos, *sin;
    void *y;
    float *scale;
  };
  const Token *tokens;
  int64_t count;  // at most kMost
  int64_t heads, features, pairs;
  TokenStrides x, y, cos, sin, scale;
  bool interleaved;  // feature 2i with 2i + 1, not i with i + pairs
  bool inverse;      // with -sin
  bool computes_scale;
};

// A number for each row or column, `step` elements apart.
template <class T>
struct NumbersRef {
  T *data;  // or null
  int64_t step;
};

// One chunk of k of a product of 8-bit integers: sums (+)= sum over k of (a - a_zero)(b - b_zero), modulo 2^32. Of the row
// `dots`: of a b, both bf16, in f32; A is packed, or its rows are contiguous, and if B's columns are too, k is any.
struct IntegerBlock {
  // k of a chunk at most; columns of B in a panel, int16_t for each of them, and columns that are packed at a time; rows and
  // columns of a block at most.
  static constexpr int64_t kDepth = 1024, kTile = 6, kHeight = kDepth + 32, kGroup = 48, kRows = 96;
  // A is packed again for so many; 512 at once, on a Zen 4 1.02 times as fast as 384 and 128, leave an L2 of 512 KiB room.
  static constexpr int64_t kColumns = 528;
  static_assert(kColumns % kGroup == 0, "whole groups");
  static constexpr int64_t kThinRows = 4096;  // of a block whose A is not packed and has contiguous columns
  int64_t m, n, k;                            // none of them 0
  StoredMatrix a, b;                          // i8 or u8
  NumbersRef<const int32_t> a_zero, b_zero;
  bool pack_a;    // must be set unless n <= kFewColumns and A's rows or columns are contiguous
  bool begins;    // the first chunk: no sums yet
  int32_t *sums;  // or f32: m up to a multiple of 16, n up to an even number: columns so many apart
  int64_t ld;
  int16_t *a_panel,
      *b_panel;  // scratch: m, up to a multiple of 16, times k, of 2; n, at most kGroup, of kTile, times kHeight, or none
                 // where k may be any
};

// C from the sums of a product with 8-bit integers, f32 or i32: C = fma(alpha, (a_scale b_scale) sum, C0), C0 =
// fma(beta, C, bias); where C is i32, sum + bias.
struct ScaleBlock {
  int64_t m, n;
  StoredMatrix sums;  // rows contiguous; null data where there is nothing to add: C = C0
  StoredMatrix c, bias;
  NumbersRef<const float> a_scale, b_scale;
  float alpha, beta;
};

// Softmax of `columns` columns of `rows` elements; natural_log is lent by the baseline code.
template <class T>
struct SoftmaxBlock {
  int64_t rows, columns;
  StoredMatrix x, y;
  StoredMatrix bias;              // or null data
  MatrixRef<const uint8_t> mask;  // or null data; 0 = masked
  MatrixRef<T> lse;               // one row, or null data
  T scale;
  bool log;
  bool stream;  // y is too large for the caches: write past them
  bool asks;    // lines of y that the L1 does not hold are asked for ahead of their stores
  bool far;     // nor does the L2
  // Contiguous columns have a scratch only with stream, or if y is of a narrower type: two halves, each at least one
  // column in whole lines; a long one's span has one half. In other layouts it holds as many vectors of a row, for all
  // rows, as it has room for.
  T *scratch;
  int64_t scratch_size;  // elements
  double (*natural_log)(double);
};

// A step of the softmax of one long contiguous column, in spans of whole chunks.
template <class T>
struct LongSoftmaxBlock {
  enum Step { sums, fold, results } step;
  SoftmaxBlock<T> block;  // sums, results: a span of the column as if it were all of one; fold: rows of all of it, lse
  T *maxima, *chunks;     // of each chunk of the span (fold: of the column): its maximum, its sum relative to that
  T *of_column;           // its shift, factor and logarithm of the sum: written by fold, read by results
};

// Gradient of softmax, of `columns` columns of `rows` elements, from its result y and the gradient of that.
template <class T>
struct SoftmaxBackwardBlock {
  int64_t rows, columns;
  StoredMatrix y, d_y, d_x;  // d_x may be y or d_y
  MatrixRef<const T> d_lse;  // one row, or null data
  T scale;
  bool log, accumulates;
  bool contiguous;  // the order of sums is that of contiguous columns
  bool stream;      // d_x is too large for the caches: write past them
  T *scratch;       // unless contiguous: three numbers a column, in whole vectors
};

// The rows of one type of arithmetic. A row may be null: then that of the next instruction set in the list that has it is
// used (dispatch/registry.cpp), whose bits are the same where bits are promised.
template <class T>
struct KernelsOf {
  // Of the row matmul: kTurnedColumns or kFewColumns.
  int64_t turned_columns;
  // Of the row attention: lanes of a vector, rows of a query tile at most, and the keys of a span.
  int64_t attention_lanes, attention_rows, key_span;
#define ATTEND_KERNEL(name, argument, unit) void (*name)(const argument<T> &);
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
};

struct KernelTable {
  const char *name;
  uint64_t required;  // CpuFeature bits, from the macros the compiler defined for this table's file
  KernelsOf<float> f32;
  KernelsOf<double> f64;
  void (*convert)(const ConvertBlock &);
  void (*integers)(const IntegerBlock &);
  void (*scale)(const ScaleBlock &);
  // The sums of products of bf16, in f32: other bits than those of `matmul`. Null in tables that have no step for it.
  void (*dots)(const IntegerBlock &);
};

}  // namespace attend
