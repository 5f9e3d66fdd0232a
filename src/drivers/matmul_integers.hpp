// The products whose steps add several products to each sum above their kernels: of 8-bit integers, and of bf16 by the row
// `dots`.
#pragma once

#include "drivers/matmul.hpp"

namespace attend {

// Where A and B both are i8 or u8. C = sum_k (a - a_zero) (b - b_zero) + bias where it is i32; otherwise alpha times that
// sum, times the scales, + beta C + bias.
Need integer_matmul_need(const Matmul &problem);
Acquired integer_matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution);

// Whether a product is one for `dots`, on CPUs that have it: elsewhere it is matmul's. Both need the memory of either.
bool takes_dots(const Matmul &problem);
Need dot_matmul_need(const Matmul &problem);
Acquired dot_matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution);

}  // namespace attend
