// Gradients of attention above their kernels: tasks, scratch, the order of sums over heads, spans and batches.
#pragma once

#include "drivers/attention.hpp"

namespace attend {

struct AttentionBackward {
  Attention forward;  // with what it gave in `out` and, if it is known, `lse`; no scores, pages, scales, or state
  Tensor d_out, d_lse;
  Tensor d_q, d_k, d_v, d_bias, d_sinks;  // those that are wanted, of the operands' shapes
  bool accumulates = false;               // adds to what these hold
};

Need attention_backward_need(const AttentionBackward &problem);
Acquired attention_backward(const KernelTable &kernels, const AttentionBackward &problem, const Execution &execution);

}  // namespace attend
