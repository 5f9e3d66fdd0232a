// The union of two partial results of attention.
#pragma once

#include "drivers/element.hpp"
#include "drivers/scratch.hpp"

namespace attend {

struct AttentionMerge {
  Tensor out_a, lse_a, out_b, lse_b;
};

void attention_merge(const KernelTable &kernels, const AttentionMerge &problem, const Execution &execution);

}  // namespace attend
