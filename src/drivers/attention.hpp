// Fused attention above its kernel: query blocks of heads and batches, threads, scratch, lse.
#pragma once

#include "drivers/cache.hpp"
#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"
#include "kernels/table.hpp"

namespace attend {

struct Attention {
  Dtype dtype = Dtype::f32;
  double scale = 1;
  // Key j is visible to query i iff j <= i + offset (if causal), i + offset - left <= j (if left >= 0), j <= i +
  // offset + right (if right >= 0), j < lengths[batch], and neither mask nor bias hides it.
  bool causal = false, bottom_right = false;  // bottom_right: offset = keys - queries, of each batch
  int64_t offset = 0, left = -1, right = -1;
  const int64_t *offsets = nullptr, *lengths = nullptr;  // per batch, or null
  double softcap = 0;
  Tensor q, k, v, out, mask, bias, slopes, sinks, lse, scores;
  int scores_stage = 0;
};

constexpr double kLog2E = 1.4426950408889634;

// Queries and keys that a block's scratch has room for.
template <class T>
constexpr int64_t scratch_queries(int64_t queries) {
  return (std::min(Contract<T>::kQueryBlock, queries) + 15) / 16 * 16;
}
template <class T>
constexpr int64_t scratch_keys(int64_t keys) {
  return std::min(Contract<T>::kKeyChunk, (keys + 15) / 16 * 16);
}

// Bytes of the scratch of a block, without parts and copies.
template <class T>
constexpr int64_t attention_block_bytes(int64_t queries, int64_t keys, int64_t features, int64_t value_features) {
  const int64_t lanes = scratch_queries<T>(queries);
  return aligned(
      (lanes * (features + value_features + 8) + scratch_keys<T>(keys) * std::min(lanes, Contract<T>::kScoreLanes)) *
      static_cast<int64_t>(sizeof(T)));
}

// How the block cuts that scratch. 32 queries of f32 share the scores of a group, 16 where those would fill the L1:
// measured 8 % faster with 48 KiB (Intel), 2 % slower with 32 (Zen 4).
template <class T>
void set_scratch_sizes(int64_t queries, int64_t keys, AttentionBlock<T> *x) {
  x->group_lanes = has_large_l1() ? Contract<T>::kScoreLanes : Contract<T>::kScoreLanes / 2;
  x->scratch_queries = scratch_queries<T>(queries);
  x->scratch_keys = scratch_keys<T>(keys);
}

Need attention_need(const Attention &problem);
Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution);

}  // namespace attend
