// Whether two operands share memory.
#pragma once

#include "drivers/tensor.hpp"

namespace attend {

// Whether two tensors that are not empty share a byte. True is a proof: views that share none, interleaved as they may
// be, are never taken for overlapping. False is one too
//   - if both are matrices with contiguous rows or columns,
//   - if the strides of both are as those of outputs must be (see attend_tensor), and they are equal, whatever the
//     extents, or one of the two has no gaps,
//   - if of all strides, sorted by size, each divides the next,
// and otherwise if at most 64 ways had to be tried.
bool share_a_byte(const Tensor &a, const Tensor &b);

}  // namespace attend
