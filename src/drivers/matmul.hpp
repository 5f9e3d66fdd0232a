// The matrix product above its kernels: LOOP 5 to LOOP 3, threads, scratch.
#pragma once

#include "drivers/element.hpp"
#include "drivers/scratch.hpp"

namespace attend {

// Of operands of 8-bit integers: a's are (M, 1, H, B), b's (1, N, H, B), by strides of 0 where they have fewer.
struct Scales {
  Tensor a, b;            // f32
  Tensor a_zero, b_zero;  // i32
};

// C = alpha A B + beta C + bias; shapes fit, inputs broadcast by strides of 0.
struct Matmul {
  double alpha = 1, beta = 0;
  Tensor a, b, c, bias;
  const Scales *scales = nullptr;  // there wherever A or B is of integers
  bool native_dot = false;         // ATTEND_NATIVE_DOT
};

template <class T>
struct MatrixView {
  MatrixRef<T> at;  // strides of 0 where the extent is 1
  int64_t rows, columns;
};

Need matmul_need(const Matmul &problem);
Acquired matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution);

}  // namespace attend
