// The square transpose of 256-bit registers, for AVX2 and for half vectors of AVX-512.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// r[i] lane j <-> r[j] lane i: pairs, quads, then 128-bit blocks. 24 shuffles.
template <class V>
ATTEND_INLINE void transpose_eight(V (&r)[8]) {
  __m256 t[8], u[8];
  ATTEND_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  ATTEND_UNROLL
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace attend
