// Fused attention above its kernel: blocks of rows, threads, scratch, lse.
#pragma once

#include "drivers/attention_plan.hpp"
#include "drivers/element.hpp"

namespace attend {

struct Attention {
  double scale = 1;
  // Key j is visible to query i iff j <= i + offset (if causal), i + offset - left <= j (if left >= 0), j <= i +
  // offset + right (if right >= 0), firsts[batch] <= j < lengths[batch], and neither mask nor bias hides it.
  bool causal = false, bottom_right = false;  // bottom_right: offset = keys - queries, of each batch
  int64_t offset = 0, left = -1, right = -1;
  const int64_t *offsets = nullptr, *firsts = nullptr, *lengths = nullptr;  // per batch, or null
  // Packed sequences, so many: the columns of q and out, and of k and v, where they begin, and the number of all; or null.
  int64_t sequences = 0;
  const int64_t *query_starts = nullptr, *key_starts = nullptr;
  // Keys of a sequence in pieces: the position of the first one here, a multiple of chunks; whether it goes on from `state`
  // and ends there.
  int64_t key_offset = 0;
  bool resumes = false, pauses = false;
  Tensor state;
  Tensor pages;  // (most pages of a sequence, batch), i32: k and v are pools then, a page a batch
  double softcap = 0;
  Tensor k_scale, v_scale;  // (features or 1, keys or 1, heads of k, batch), f32
  Tensor q, k, v, out, mask, bias, slopes, sinks, lse, scores;
  ScoresStage scores_stage = ScoresStage::scaled;
};

// FMAs of the call.
double attention_work(const Attention &problem);
Need attention_need(const Attention &problem);
Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution);

}  // namespace attend
