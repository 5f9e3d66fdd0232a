// The contract between the baseline code and the kernels: one table of functions per instruction set, plain data only.
//
// Kernels own no threads, no memory, no errors and no globals; the drivers own all four. Each call here is one block of
// work, large enough that the indirect call does not matter and small enough to fit one thread's share and scratch.
// This header is compiled with and without instruction-set flags, so it holds no function that could be emitted for
// others to use.
#pragma once

#include <cstdint>

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

// The number of the arithmetic contract, which changes with any bit that a caller can see.
constexpr int32_t kContract = 2;

// The constants of the arithmetic contract and the sizes of scratch. They decide bits and workspaces, so they are the
// same on every machine and never derived from cache sizes.
template <class T>
struct Contract {
  // k of a matrix product is cut here: 512 f32 and 256 f64 are the same 2 KiB of a column of B.
  static constexpr int64_t kKc = 2048 / static_cast<int64_t>(sizeof(T));
  // Keys of attention are cut here.
  static constexpr int64_t kKeyChunk = 256;
  // Chunks are folded into spans of so many keys, and these one after the other. (The tests have a table with short
  // ones.)
#ifndef ATTEND_KEY_SPAN
#define ATTEND_KEY_SPAN 16384
#endif
  static constexpr int64_t kKeySpan = ATTEND_KEY_SPAN;
  // Elements of a softmax column are cut here; element i of a chunk belongs to virtual lane i mod 16.
  static constexpr int64_t kSoftmaxChunk = 512;
  // In columns that are not contiguous: one chain over so many elements.
  static constexpr int64_t kStridedChunk = 8;
  // A lane adds so many of its elements, and then these sums.
  static constexpr int64_t kSoftmaxPart = 8 * 16;
  static constexpr int kVirtualLanes = 16;
  // Contiguous columns longer than this, 256 KiB, are read twice and their exponentials computed twice, rather than
  // kept.
  static constexpr int64_t kSoftmaxLong = (1 << 18) / static_cast<int64_t>(sizeof(T));

  // Rows of A that a matmul block packs at most: 192 x one chunk is 384 KiB, at home in an L2 of 1 MiB. A multiple of
  // every table's panel.
  static constexpr int64_t kMc = 192;
  // B is packed in panels of columns a chunk and a cache line apart, so that they do not fall into the same sets of
  // the L1, or in panels of rows, kMatmulColumns at a time at most. Elements of either (16 columns is the widest
  // panel).
  static constexpr int64_t kMatmulHeight = (2048 + 64) / static_cast<int64_t>(sizeof(T)), kMatmulColumns = 48;
  static constexpr int64_t kMatmulPanels = kMatmulColumns * kMatmulHeight;
  // Sums that a product with one column keeps in its scratch: 32 KiB.
  static constexpr int64_t kLongColumn = 32768 / static_cast<int64_t>(sizeof(T));
  // Queries of one attention block, and how many of them share one buffer of scores at most (128 bytes of lanes).
  static constexpr int64_t kQueryBlock = 512 / static_cast<int64_t>(sizeof(T));
  static constexpr int64_t kScoreLanes = 128 / static_cast<int64_t>(sizeof(T));
};

// Columns so few that rows of A which are contiguous along k are transposed in registers each time they are read, and not
// packed.
constexpr int kFewColumns = 4;
// So many such rows at a time, from end to end: memory is read in long runs.
constexpr int kFewColumnsRows = 32;

// Drivers and kernels share some functions, which no object file exports: always inlined, and static.
#define ATTEND_SHARED static inline __attribute__((always_inline))

// Element types, by attend.h's numbers; 0, which is none of them, are the arrays of integers among the options, and
// operands that are absent.
enum class Dtype : uint32_t { i64 = 0, f32, f64, bf16, f16, i8, u8, boolean, i32, f8e4m3 };

ATTEND_SHARED constexpr int64_t size_of(Dtype dtype) {
  constexpr unsigned char kBytes[] = {8, 4, 8, 2, 2, 1, 1, 1, 4, 1};  // in the order of the numbers
  return kBytes[static_cast<uint32_t>(dtype)];
}

template <class T>
ATTEND_SHARED constexpr Dtype dtype_of() {
  static_assert(sizeof(T) == sizeof(float) || sizeof(T) == sizeof(double), "the types of arithmetic");
  return sizeof(T) == sizeof(double) ? Dtype::f64 : Dtype::f32;
}
// Whether elements of an operand that is there must be widened to those of the arithmetic, T.
template <class T>
ATTEND_SHARED constexpr bool is_narrow(Dtype dtype) {
  return dtype != dtype_of<T>() && dtype != Dtype::i64;
}
// Whether a scale can go with the type.
ATTEND_SHARED constexpr bool takes_scale(Dtype dtype) {
  return dtype == Dtype::i8 || dtype == Dtype::u8 || dtype == Dtype::f8e4m3;
}

// The scale that takes magnitudes up to `most` to all that i8 or f8e4m3 holds.
ATTEND_SHARED float scale_to(Dtype type, float most) {
  return most == 0 ? 1 : most / (type == Dtype::i8 ? 127.0f : 448.0f);
}

// A matrix in place: element (r, c) lies at data + r * row_stride + c * col_stride.
template <class T>
struct MatrixRef {
  T *data;
  int64_t row_stride, col_stride;
};

// The same, of elements as they are stored: of the type of the arithmetic or, where that is f32, of a narrower one.
struct StoredMatrix {
  void *data;                      // inputs are only read
  int64_t row_stride, col_stride;  // in elements
  Dtype type;
};
ATTEND_SHARED void *element_of(const StoredMatrix &m, int64_t row, int64_t column) {
  return static_cast<char *>(m.data) + (row * m.row_stride + column * m.col_stride) * size_of(m.type);
}

// C = fma(alpha, A B, C0) for one chunk of k, C0 = C or, if it `begins`, fma(beta, C, bias). k = 0 gives C0.
// k <= kKc; m <= kMc if pack_a, which must be set unless a.row_stride is 1.
template <class T>
struct MatmulBlock {
  int64_t m, n, k;
  StoredMatrix a, b;  // A and B are widened when they are packed, or, of few columns, in registers; i8 too
  MatrixRef<T> c;
  MatrixRef<const T> bias;  // or null data
  T alpha, beta;
  bool begins;
  bool pack_a, pack_b;  // copy the operand into its panel first
  bool one_column;      // n = 1, a.row_stride = 1, no packing, and kLongColumn elements at b_panel
  bool far;             // A, B and C come from beyond the L2: fetch ahead
  T *a_panel;           // scratch: m, rounded up to a panel, times k
  T *b_panel;           // scratch: kMatmulPanels; its upper part is where B of few columns is widened
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
  // Addresses of the first feature of head 0; null: nothing is rotated, or no scale.
  struct Token {
    const void *x, *cos, *sin;
    void *y;
    float *scale;
  };
  const Token *tokens;
  int64_t count, heads, features, pairs;
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
// `dots`: of a b, both bf16, in f32; A is packed.
struct IntegerBlock {
  // k of a chunk at most; columns of B in a panel, int16_t for each of them, and columns that are packed at a time; rows and
  // columns of a block at most.
  static constexpr int64_t kDepth = 1024, kTile = 6, kHeight = kDepth + 32, kGroup = 48, kRows = 96, kColumns = 384;
  static constexpr int64_t kThinRows = 4096;  // of a block whose A is not packed and has contiguous columns
  int64_t m, n, k;                            // none of them 0
  StoredMatrix a, b;                          // i8 or u8
  NumbersRef<const int32_t> a_zero, b_zero;
  bool pack_a;    // must be set unless n <= kFewColumns and A's rows or columns are contiguous
  bool begins;    // the first chunk: no sums yet
  int32_t *sums;  // or f32: m up to a multiple of 16, n up to an even number: columns so many apart
  int64_t ld;
  int16_t *a_panel,
      *b_panel;  // scratch: m, up to a multiple of 16, times k, of 2; n, at most kGroup, of kTile, times kHeight
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

// What the rows of an attention block have one line of each: element e of query i of head h lies at data +
// e * element_stride + i * item_stride + h * head_stride. An element is a feature, or of masks, biases and scores a key.
template <class T>
struct RowsRef {
  T *data;  // or null
  int64_t element_stride, item_stride, head_stride;
};

// The same, of elements as they are stored.
struct StoredRows {
  const void *data;                                  // or null
  int64_t element_stride, item_stride, head_stride;  // in elements
  Dtype type;
};

// What AttentionBlock::scores receives: ATTEND_SCORES_..., by value.
enum class ScoresStage : int { scaled, softcapped, masked, probabilities };

// Where an attention block keeps what, in elements from its scratch: the scores of a query tile and a chunk at 0, then
// these. Counted out in drivers/attention_plan.cpp.
struct AttentionLayout {
  int64_t rows, keys;  // room for so many rows of the block, and keys of a chunk; multiples of 16
  int64_t state;       // kStateLines of `rows` elements
  int64_t queries, output, segments;
  int64_t results;         // for `out` before it is rounded to a narrower type
  int64_t values, copied;  // values, and last keys, of a chunk that are widened or copied
  int64_t end;             // of what is required: keys that are copied for speed alone lie behind it
  static constexpr int64_t kStateLines = 10;
};

struct KeyRange {
  int64_t begin, end;
};

// Where the keys of a sequence lie in pools, whose columns are those of one page: key j in column (first + j) % size of
// page entries[(first + j) / size * stride].
struct PageTable {
  const int32_t *entries;  // or null: no pools
  int64_t stride, size;
  int64_t first, end;                          // columns of the sequence that exist
  int64_t of_k, of_v, of_k_scale, of_v_scale;  // from page to page, in elements
};

// Attention of up to kQueryBlock rows over all keys they see. The rows are the queries of `heads` heads that share keys
// and values, `items` of each: row r is query r % items of head r / items. Query i sees the keys [key_begin +
// key_begin_step i, key_end + key_end_step i), clipped to [part_begin, keys), that neither mask nor bias hides.
template <class T>
struct AttentionBlock {
  int64_t items, heads, keys, features, value_features;
  StoredRows q;
  StoredMatrix k, v;  // (feature, key); of pools the first page
  PageTable pages;
  // Of K's features or of its keys, one number by strides of 0; or null data. V's is of its keys: that of its features
  // comes after the block.
  MatrixRef<const float> k_scale, v_scale;
  RowsRef<T> out;
  T scale;
  int64_t key_begin, key_begin_step, key_end, key_end_step;
  int64_t position;  // of query 0, for ALiBi
  T softcap;         // 0 = none
  const T *slopes;   // of ALiBi, one a head, or null
  int64_t slope_stride;
  const T *sinks;  // one logit more in every sum, one a head, or null
  int64_t sink_stride;
  StoredRows bias;
  RowsRef<const uint8_t> mask;  // 0 = hidden
  RowsRef<T> scores;
  int64_t scores_keys, scores_before;  // elements of a line, and how many of them lie before key 0
  ScoresStage scores_stage;
  int64_t query_tile;  // rows of a tile at most: kScoreLanes, or half of it where the L1 is small
  int64_t few_rows;    // tiles of so many rows at most have lanes = keys; at most half a vector
  bool by_features;    // lanes of the output are features, which are contiguous in V
  // Keys, and values, are widened or copied, chunk by chunk, so many elements apart; 0 = read in place.
  int64_t copied_stride, values_stride;
  bool far;  // few rows, and more contiguous keys and values than the caches hold: fetch ahead
  T *m, *l;  // results per row, in whole vectors: maximum score, sum of exp(score - maximum), sink included
  // With `part` only the keys [part_begin, keys), which lie in one chunk, and neither sink nor division by the sum: what
  // attention_fold takes, which gives the bits of a whole call.
  bool part;
  int64_t part_begin;
  // A call over some of a sequence's keys: m, l and o of each row's open span, then of the spans before, in value_features
  // + 2 elements each. With `resumes` the block begins with them, with `pauses` it ends so, `out` being the second o;
  // chunks and spans count from key_offset keys before key 0.
  RowsRef<T> state;
  bool resumes, pauses;
  int64_t key_offset;
  AttentionLayout layout;
  T *scratch;  // 64-byte aligned

  // What follows from the above; see set_derived.
  int64_t rows, tile_rows;  // tile_rows: of every query tile but the last
  bool rises;               // rows differ in the keys they see by position
  KeyRange seen;            // by any row, by position
  bool spans;               // these keys lie in more than one span, or other calls have more
  bool looked_at;           // there is a mask or a bias
  // A tile's last slice is known only when all are behind: spans are folded first, or what a mask leaves is not known
  // before. Otherwise the last slice's output is finished in registers.
  bool defers_finish;
  bool in_place;  // o is summed in `out`: its features are contiguous, its rows even and its keys one span
  int64_t ld;     // of o
};

// The keys that query i of the block sees by position.
template <class T>
ATTEND_SHARED int64_t key_end(const AttentionBlock<T> &x, int64_t item) {
  const int64_t end = x.key_end + x.key_end_step * item;
  return end < 0 ? 0 : end < x.keys ? end : x.keys;
}
template <class T>
ATTEND_SHARED int64_t key_begin(const AttentionBlock<T> &x, int64_t item) {
  int64_t begin = x.key_begin + x.key_begin_step * item;
  if (begin > x.keys) begin = x.keys;
  return begin > x.part_begin ? begin : x.part_begin;
}

// Whether all rows lie equally far apart, and how far.
template <class T, class Of>
ATTEND_SHARED bool is_even(const AttentionBlock<T> &x, const RowsRef<Of> &of, int64_t *stride) {
  *stride = x.items == 1 ? of.head_stride : of.item_stride;
  return x.heads == 1 || x.items == 1 || of.head_stride == x.items * of.item_stride;
}

// `kernels`: the table's rows of T.
template <class T, class Kernels>
ATTEND_SHARED void set_derived(const Kernels &kernels, AttentionBlock<T> *x) {
  x->rows = x->heads * x->items;
  x->tile_rows = kernels.attention_rows < x->query_tile ? kernels.attention_rows : x->query_tile;
  x->rises = (x->key_begin_step | x->key_end_step) != 0;
  x->seen = {key_begin(*x, 0), key_end(*x, x->items - 1)};
  x->spans = x->resumes || x->pauses ||
             (x->seen.begin < x->seen.end && (x->seen.begin + x->key_offset) / kernels.key_span !=
                                                 (x->seen.end - 1 + x->key_offset) / kernels.key_span);
  x->looked_at = x->mask.data != nullptr || x->bias.data != nullptr;
  x->defers_finish = x->spans || x->looked_at;
  int64_t ld = 0;
  x->in_place = is_even(*x, x->out, &ld) && x->by_features && x->out.element_stride == 1 && !x->spans;
  x->ld = x->in_place ? ld : x->value_features;
}

// Folds the parts of neighbouring chunks, in order, into the open span of each row, and spans into `out`, m and l of `x`,
// which is as for the whole call. A part, and the open span, has value_features for each row, then layout.rows maxima,
// then as many sums. The first call for a block begins, the last one ends.
template <class T>
struct FoldBlock {
  const AttentionBlock<T> *x;
  bool begins, ends;
  int64_t chunk, chunks;  // the first chunk, and how many
  const T *const *parts;
  T *open;
};

}  // namespace attend

#include "kernels/backward_blocks.hpp"

namespace attend {

// The rows of one type of arithmetic. A row may be null: then that of the next instruction set in the list that has it is
// used (dispatch/registry.cpp), whose bits are the same where bits are promised.
template <class T>
struct KernelsOf {
  // Of the row attention: lanes of a vector, rows of a query tile at most, and the keys of a span.
  int64_t attention_lanes, attention_rows, key_span;
#define ATTEND_KERNEL(name, argument) void (*name)(const argument<T> &);
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
