// Self-attention: projections into the workspace, attention, output projection.
#pragma once

#include "drivers/attention.hpp"
#include "drivers/matmul.hpp"

namespace attend {

struct SelfAttention {
  Tensor x;
  Tensor w_q, w_k, w_v, b_q, b_k, b_v, w_o, b_o;
  Tensor out;
  Attention attention;  // scale, mask, lse, scores; its q, k, v and out are filled in here
};

// Both fill in the operands of problem.attention.
Need self_attention_need(SelfAttention &problem);
Acquired self_attention(const KernelTable &kernels, SelfAttention &problem, const Execution &execution);

}  // namespace attend
