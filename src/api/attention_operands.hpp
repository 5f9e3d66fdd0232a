// The operands of attention, read alike for attend_attention and attend_attention_backward.
#pragma once

#include "api/attention_options.hpp"

namespace attend {

// q, k, v, out and what goes with them among the options: all but overlaps. `batch` becomes the number of sequences. The
// argument that `out` is may be another of its shape.
attend_status read_operands(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                            const attend_tensor *out, Argument of_out, Role role_of_out,
                            const AttentionOptions &options, Operands *operands, Purpose purpose, Attention *p,
                            int64_t *batch);

}  // namespace attend
