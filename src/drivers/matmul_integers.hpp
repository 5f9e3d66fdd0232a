// The product of 8-bit integers above its kernel.
#pragma once

#include "drivers/matmul.hpp"

namespace attend {

// Where A and B both are i8 or u8. C = sum_k (a - a_zero) (b - b_zero) + bias where it is i32; otherwise alpha times that
// sum, times the scales, + beta C + bias.
Need integer_matmul_need(const Matmul &problem);
Acquired integer_matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution);

}  // namespace attend
