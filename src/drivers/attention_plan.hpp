// How a call of attention is computed: a pure function of shapes, strides, options, threads and cache sizes, made once a
// call, and the only source of the choices of path below it. None of them changes a bit of the results.
#pragma once

#include "drivers/cache.hpp"
#include "drivers/scratch.hpp"
#include "kernels/table.hpp"

namespace attend {

// What the choices depend on.
struct AttentionShape {
  int64_t element;  // bytes of one
  int64_t queries, keys, features, value_features, heads, kv_heads, batch;
  int64_t k_feature_stride, k_key_stride, v_feature_stride;  // in elements
  bool looks;                                                // at a mask or a bias
  bool shows_scores;
  bool widens_k = false, widens_v = false, rounds = false;  // K, V, out are of a narrower type than the arithmetic
  bool paged = false;                                       // K and V are gathered from pages
  int64_t v_key_stride = 0;                                 // in elements
};

// What the machine lends.
struct AttentionMeans {
  int threads;
  int64_t room;   // bytes of scratch a thread has
  int64_t lanes;  // of the kernels
  Caches caches;
};

struct AttentionPlan {
  // Blocks: `block` queries of a head, or all queries of each of `heads` > 1 heads that share keys and
  // values, which then read K and V once.
  int64_t block, heads;
  int64_t blocks;   // of a head, or of the heads that are packed
  int64_t tasks;    // blocks in all
  int64_t threads;  // that have something to do
  // Keys are shared out among the threads, chunk by chunk, each thread keeping the results over so many chunks (parts)
  // before they are folded; the blocks come one after the other. A thread's scratch begins with its parts, and room for
  // one more, the open span.
  bool split_kv;
  int64_t parts, part_bytes, parts_bytes;
  // Inside a block.
  int64_t query_tile;                    // rows
  int64_t few_rows;                      // tiles of so many rows at most have lanes = keys
  bool by_features;                      // the output's lanes are features; else rows
  int64_t copied_stride, values_stride;  // of keys and values that are copied or widened, 0 = in place
  bool far;                              // ask for keys and values in memory ahead
  AttentionLayout layout;
};

// Bytes of scratch that hold for every machine: what is needed, and what copies of keys, and blocks of more queries, take
// beside. `packed`: the queries are those of all `batch` sequences together, however they are shared out.
Need attention_need(const AttentionShape &shape, bool packed = false);

// FMAs of all sequences.
double attention_work(const AttentionShape &shape);

// Of `available` threads those that are worth starting for so many FMAs.
int attention_threads(double work, int available);

AttentionPlan plan_attention(const AttentionShape &shape, const AttentionMeans &means);

// Whether one of several sequences has its keys shared out among the threads: where a block of it is much of what a thread
// has to do. `shape` and `plan` are those of the one, `work` is that of all.
bool splits_keys(const AttentionPlan &plan, const AttentionShape &shape, double work);

// One block of all queries, as short calls have it.
int64_t attention_block_bytes(const AttentionShape &shape, int64_t rows);
AttentionLayout attention_layout(const AttentionShape &shape, int64_t rows);

// Bytes of a thread's scratch before those of its block: its parts.
int64_t attention_parts_bytes(const AttentionShape &shape);

// Rows of a query tile at most. 32 rows of f32 share the scores of a tile, 16 where those would fill the L1: measured 8
// % faster with 48 KiB (Intel), 2 % slower with 32 (Zen 4).
constexpr int64_t query_tile(int64_t element, const Caches &caches) {
  constexpr int64_t kLarge = 48 << 10;
  const int64_t lanes = element == 4 ? Contract<float>::kScoreLanes : Contract<double>::kScoreLanes;
  return caches.l1 >= kLarge ? lanes : lanes / 2;
}

// Tiles of at most half a vector's rows have lanes = keys, where a key's features are contiguous.
constexpr int64_t few_rows(int64_t k_feature_stride, int64_t lanes) {
  return k_feature_stride != 1 ? 0 : lanes > 1 ? lanes / 2 : 1;
}

}  // namespace attend
