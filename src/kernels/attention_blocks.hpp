// Attention: what the drivers hand to kernels/attention/forward.hpp and fold.hpp. Part of kernels/table.hpp.
#pragma once

#include "kernels/contract.hpp"

namespace attend {

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
  int64_t hidden;          // of the keys of a window: for each 32 keys a word for each row
  int64_t results;         // for `out` before it is rounded to a narrower type
  int64_t values, copied;  // values, and last keys, of a chunk that are widened or copied
  int64_t end;             // of what is required: keys that are copied for speed alone lie behind it
  static constexpr int64_t kStateLines = 10;
  // A mask and a bias are looked at in segments of so many keys, so many of which are a window.
  static constexpr int64_t kSegment = 32, kSegments = 128;
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

// The keys that the same thread wants next, if it is known: those of another block, of the same type and strides.
struct NextKeys {
  const void *data;  // as StoredMatrix has it; null: unknown
  PageTable pages;
};

// Attention of up to kMostQueries rows over all keys they see. The rows are the queries of `heads` heads that share keys
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
  NextKeys next;
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
  bool in_place;            // o is summed in `out`: its features are contiguous, its rows even and its keys one span
  int64_t ld;               // of o
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
