// Gradients of attention above their kernels: tasks, scratch, the order of sums over heads, spans and batches.
#pragma once

#include "drivers/attention.hpp"

namespace attend {

struct AttentionBackward {
  Attention forward;  // with what it gave in `out` and, if it is known, `lse`; no scores, pages, scales, or state
  Tensor d_out, d_lse;
  Tensor d_q, d_k, d_v, d_bias, d_sinks;  // those that are wanted, of the operands' shapes
  bool accumulates = false;               // adds to what these hold
  Tensor delta;                           // out d_out less d_lse, of lse's shape: written, or
  bool reads_delta = false;               // known, and forward.out says shapes alone
  // Keys or queries in pieces: whether the call goes on from the sums in these, and whether it leaves them there. Gradients
  // without one are this call's alone. d_q's are those of the open span, then of the spans before.
  bool resumes = false, pauses = false;
  Tensor d_q_state, d_k_state, d_v_state;
  const int64_t *total_keys = nullptr;  // one a sequence: in all pieces

  bool wants_weights() const { return d_q || d_k || d_v || d_bias || d_sinks; }  // else delta alone
  bool in_pieces() const { return resumes || pauses; }
  bool keys_in_pieces() const { return in_pieces() && d_q_state; }
};

Need attention_backward_need(const AttentionBackward &problem);
Acquired attention_backward(const KernelTable &kernels, const AttentionBackward &problem, const Execution &execution);

}  // namespace attend
