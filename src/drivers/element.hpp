// From element types at run time to those of the compiler.
#pragma once

#include "drivers/tensor.hpp"
#include "kernels/table.hpp"

namespace attend {

// f(T()) for the type T that arithmetic on elements of this type is done in.
template <class F>
auto with_acc(Dtype dtype, const F &f) {
  return acc_of(dtype) == Dtype::f64 ? f(double()) : f(float());
}

template <class T>
StoredMatrix stored(const MatrixRef<const T> &m) {
  return {const_cast<T *>(m.data), m.row_stride, m.col_stride, dtype_of<T>()};
}

template <class T>
const KernelsOf<T> &kernels_of(const KernelTable &table);
template <>
inline const KernelsOf<float> &kernels_of(const KernelTable &table) {
  return table.f32;
}
template <>
inline const KernelsOf<double> &kernels_of(const KernelTable &table) {
  return table.f64;
}

}  // namespace attend
