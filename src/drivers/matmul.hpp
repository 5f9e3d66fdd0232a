// The matrix product above its kernels: LOOP 5 to LOOP 3, threads, scratch.
#pragma once

#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"
#include "kernels/table.hpp"

namespace attend {

// C = alpha A B + beta C + bias; shapes fit, inputs broadcast by strides of 0.
struct Matmul {
  Dtype dtype = Dtype::f32;
  double alpha = 1, beta = 0;
  Tensor a, b, c, bias;
};

Need matmul_need(const Matmul &problem);
Acquired matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution);

}  // namespace attend
