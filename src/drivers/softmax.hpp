// Column softmax above its kernels: which kernel, blocks of columns, threads.
#pragma once

#include "drivers/element.hpp"
#include "drivers/scratch.hpp"

namespace attend {

struct Softmax {
  double scale = 1;
  bool log = false;
  Tensor x, y, lse;
  Tensor mask, bias;  // broadcast to x by strides of 0
};

Need softmax_need(const Softmax &problem);
Acquired softmax(const KernelTable &kernels, const Softmax &problem, const Execution &execution);

}  // namespace attend
