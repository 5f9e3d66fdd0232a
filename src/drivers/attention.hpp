// Fused attention above its kernel: query blocks of heads and batches, threads, scratch, lse.
#pragma once

#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"
#include "kernels/table.hpp"

namespace attend {

struct Attention {
  Dtype dtype = Dtype::f32;
  double scale = 1;
  bool causal = false;
  int64_t offset = 0;                // key j is visible to query i iff j <= i + offset
  const int64_t *offsets = nullptr;  // per batch, instead of offset
  Tensor q, k, v, out, lse, scores;
  int scores_stage = 0;
};

Need attention_need(const Attention &problem);
Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution);

}  // namespace attend
