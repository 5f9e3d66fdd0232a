// The contract between the baseline code and the kernels: one table of functions per instruction set, plain data only.
//
// Kernels own no threads, no memory, no errors and no globals; the drivers own all four. Each call here is one block of
// work, large enough that the indirect call does not matter and small enough to fit one thread's share and scratch.
// This header is compiled with and without instruction-set flags, so it holds no function that could be emitted twice.
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
};

// The constants of the arithmetic contract and the sizes of scratch. They decide bits and workspaces, so they are the
// same on every machine and never derived from cache sizes.
template <class T>
struct Contract {
  // k of a matrix product is cut here: 512 f32 and 256 f64 are the same 2 KiB of a column of B.
  static constexpr int64_t kMatmulChunk = 2048 / static_cast<int64_t>(sizeof(T));
  // Keys of attention are cut here.
  static constexpr int64_t kKeyChunk = 256;
  // Elements of a softmax column are cut here; element i of a chunk belongs to virtual lane i mod 16.
  static constexpr int64_t kSoftmaxChunk = 512;
  // A lane adds so many of its elements, and then these sums.
  static constexpr int64_t kSoftmaxPart = 8 * 16;
  static constexpr int kVirtualLanes = 16;
  // Contiguous columns longer than this, 256 KiB, are read twice and their exponentials computed twice, rather than
  // kept.
  static constexpr int64_t kSoftmaxLong = (1 << 18) / static_cast<int64_t>(sizeof(T));

  // Rows of A that a matmul block packs at most: 192 x one chunk is 384 KiB, at home in an L2 of 1 MiB. A multiple of
  // every table's panel.
  static constexpr int64_t kMatmulRows = 192;
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

// C = fma(alpha, A B, C0) for one chunk of k, C0 = C or, with `first`, fma(beta, C, bias). k = 0 gives C0.
// k <= kMatmulChunk; m <= kMatmulRows if pack_a, which must be set unless a_row is 1. Strides in elements.
template <class T>
struct MatmulBlock {
  int64_t m, n, k;
  const T *a;
  int64_t a_row, a_k;
  const T *b;
  int64_t b_k, b_col;
  T *c;
  int64_t c_row, c_col;
  const T *bias;  // or null
  int64_t bias_row, bias_col;
  T alpha, beta;
  bool first;
  bool pack_a, pack_b;  // copy the operand into its panel first
  bool one_column;      // n = 1, a_row = 1, no packing, and kLongColumn elements at b_panel
  bool far;             // A, B and C come from beyond the L2: fetch ahead
  T *a_panel;           // scratch: m, rounded up to a panel, times k
  T *b_panel;           // scratch: kMatmulPanels
};

// Softmax of `columns` columns of `rows` elements; natural_log is lent by the baseline code.
template <class T>
struct SoftmaxBlock {
  int64_t rows, columns;
  const T *x;
  int64_t x_row, x_col;
  T *y;
  int64_t y_row, y_col;
  const T *bias;  // or null
  int64_t bias_row, bias_col;
  const uint8_t *mask;  // or null; 0 = masked
  int64_t mask_row, mask_col;
  T *lse;  // or null
  int64_t lse_col;
  T scale;
  bool log;
  bool stream;    // y is aligned to vectors and too large for the caches: write past them
  int64_t ahead;  // with stream, how many elements ahead x is asked for
  // Contiguous columns have a scratch only with stream: two columns, each in whole lines. In other layouts it holds as
  // many vectors of a row, for all rows, as it has room for.
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

// Attention of up to kQueryBlock queries of one head over all keys they see: query i of the block sees the keys
// [hidden + hidden_step i, visible + visible_step i), clipped to [0, keys], that neither mask nor bias hides.
template <class T>
struct AttentionBlock {
  int64_t queries, keys, features, value_features;
  const T *q;
  int64_t q_feature, q_item;
  const T *k;
  int64_t k_feature, k_item;
  const T *v;
  int64_t v_feature, v_item;
  T *out;
  int64_t out_feature, out_item;
  T scale_log2;  // scale * log2(e)
  int64_t hidden, hidden_step, visible, visible_step;
  T softcap;         // times log2(e); 0 = none
  T slope;           // of ALiBi, times log2(e); 0 = none
  int64_t position;  // of query 0, for ALiBi
  const T *bias;     // or null
  int64_t bias_key, bias_item;
  const uint8_t *mask;  // or null; 0 = hidden
  int64_t mask_key, mask_item;
  const T *sink;        // or null: one logit more in every sum
  int64_t group_lanes;  // queries of a group at most: kScoreLanes, or half of it where the L1 is small
  int64_t copied_item;  // contiguous keys are copied, chunk by chunk, so many elements apart; 0 = read in place
  bool far;             // few queries, and more contiguous keys and values than the caches hold: fetch ahead
  T *maximum, *sum;     // results per query: maximum score in base 2, sum of exp2(score - maximum)
  T *scores;            // or null
  int64_t scores_keys, scores_key, scores_item;
  int scores_stage;
  // With `part` only the keys [from_key, keys), which lie in one chunk, and neither sink nor division by the sum: what
  // attention_fold takes, which gives the bits of a whole call.
  bool part;
  int64_t from_key;
  // The scratch, 64-byte aligned: the scores of a chunk, scratch_keys times the lesser of kScoreLanes and
  // scratch_queries; for each of scratch_queries the running state (six, padded to eight), the scaled features and the
  // output; the copy of a chunk's keys. scratch_queries and scratch_keys are multiples of 16, at most kQueryBlock and
  // kKeyChunk.
  int64_t scratch_queries, scratch_keys;
  T *scratch;
};

// Folds the parts of neighbouring chunks, in order, into `out` and the running maximum and sum of each query, which
// `begins` sets up. `x` as for the whole call. Part c has `queries` rows of value_features, then their maxima, then
// their sums.
template <class T>
struct FoldBlock {
  const AttentionBlock<T> *x;
  bool begins;
  int64_t first_chunk, chunks;
  const T *const *parts;
};

struct KernelTable {
  const char *name;
  uint64_t required;  // CpuFeature bits, from the macros the compiler defined for this table's file
#define ATTEND_KERNEL(name, argument) void (*name)(const argument &);
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
};

}  // namespace attend
