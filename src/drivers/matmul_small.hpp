// Products so small that one call of the kernel computes them.
#pragma once

#include "drivers/matmul_plan.hpp"

namespace attend {

// What matmul_small may have beside its operands: a bias, and room for a panel.
template <class T>
struct SmallMatmulExtras {
  MatrixRef<const T> bias = {};
  T *panel = nullptr;
  int64_t panel_elements = 0;
};

// One small product done by one call of the kernel; false, with nothing done, if it is too large for that or needs more
// packing than there is room for. (A product of 4 x 4 x 4 took 46 ns on a Zen 4 where all this was a function of its own, and
// takes 30: g++ keeps the plan in registers if this is inlined, the plan not const, and no address of it is taken.)
template <class T>
inline __attribute__((always_inline)) bool matmul_small(void (*kernel)(const MatmulBlock<T> &), double alpha,
                                                        const MatrixView<const T> &a, const MatrixView<const T> &b,
                                                        double beta, const MatrixView<T> &c,
                                                        const SmallMatmulExtras<T> &extras = {}) {
  // (First, so that the compiler knows the answer to most that the plan asks.)
  if (c.rows > kMostSmall || c.columns > kMostSmall || a.columns > Contract<T>::kKc) return false;
  MatmulPlan<T> plan(c.rows, c.columns, a.columns, stored<T>(a.at), stored<T>(b.at),
                     {c.at.data, c.at.row_stride, c.at.col_stride, dtype_of<T>()}, stored<T>(extras.bias), alpha, beta,
                     {kFewColumns, is_wide_core(), false});
  if (plan.pack_b) return false;
  if (plan.pack_a && plan.a_panel() > extras.panel_elements) return false;
  MatmulBlock<T> x = block_of(alpha, beta, plan);
  x.a_panel = extras.panel;
  kernel(x);
  return true;
}

}  // namespace attend
