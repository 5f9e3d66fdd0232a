// Attention, and self-attention, of one head of one short sequence without any option but the scale: too small for
// threads, done by one call of each kernel. The general way spends longer on planning than these on computing; the
// kernels, and so the bits, are the same.
#pragma once

#include "drivers/matmul.hpp"
#include "drivers/scratch.hpp"

namespace attend {

template <class T>
struct SmallAttention {
  MatrixView<const T> q, k, v;
  MatrixView<T> out;
  double scale;
};

// As the book has it: no output projection; a bias whose data is null is absent.
template <class T>
struct SmallSelfAttention {
  MatrixView<const T> x, w_q, w_k, w_v;
  MatrixRef<const T> b_q, b_k, b_v;
  MatrixView<T> out;
  double scale;
};

// False, with nothing done, if it is too large for this way or there is not the memory for it.
template <class T>
bool attention_small(const KernelTable &kernels, const SmallAttention<T> &p, const Execution &execution);
template <class T>
bool self_attention_small(const KernelTable &kernels, const SmallSelfAttention<T> &p, const Execution &execution);

}  // namespace attend
