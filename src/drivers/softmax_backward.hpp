// Gradient of softmax above its kernel: blocks of columns, threads.
#pragma once

#include "drivers/element.hpp"
#include "drivers/scratch.hpp"

namespace attend {

struct SoftmaxBackward {
  double scale = 1;
  bool log = false, accumulates = false;
  Tensor y, d_y, d_x, d_lse;
};

Need softmax_backward_need(const SoftmaxBackward &problem);
Acquired softmax_backward(const KernelTable &kernels, const SoftmaxBackward &problem, const Execution &execution);

}  // namespace attend
