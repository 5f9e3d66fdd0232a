// Copies into lane panels, for operands whose lanes are not contiguous.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// panel[k][lane] = scale * a(lane, k) for lane < lanes, 0 for the rest up to width: one panel of `width` lanes.
template <class T>
ATTEND_INLINE void pack_panel(int64_t width, int64_t lanes, int64_t depth, const T *a, int64_t a_lane, int64_t a_k,
                              T scale, T *panel) {
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const T *from = a + lane * a_lane;
    for (int64_t k = 0; k < depth; ++k) panel[k * width + lane] = from[k * a_k] * scale;
  }
  for (int64_t lane = lanes; lane < width; ++lane) {
    for (int64_t k = 0; k < depth; ++k) panel[k * width + lane] = T(0);
  }
}

}  // namespace
}  // namespace attend
