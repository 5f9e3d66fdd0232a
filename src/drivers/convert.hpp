// Conversion between element types above its kernel: threads, and scales that are computed.
#pragma once

#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"

namespace attend {

struct Convert {
  Tensor x, y, scale;  // the scale broadcasts to x
  bool computes_scale = false;
};

void convert(const KernelTable &kernels, const Convert &problem, const Execution &execution);

}  // namespace attend
