// Square transposes of AVX-512 registers, for all tables that have it.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

// In-register transposes, r[i] lane j <-> r[j] lane i: pairs, quads, then 128-bit blocks. 64 shuffles for 16 x 16.
ATTEND_INLINE void transpose(__m512 (&r)[16]) {
  __m512 t[16], u[16];
  ATTEND_UNROLL
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  ATTEND_UNROLL
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    const __m512 a = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88), b = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
    const __m512 c = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88),
                 d = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
    r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

// Sixteen rows of each of G squares, `stride` bytes apart, by four registers each and the addressing modes. (Left to itself
// g++ keeps an offset a row, in vector registers where others run out.)
template <int G>
struct RowsOfSquares {
  const char *row[G][4];
  int64_t stride, stride3;
  template <class S>
  ATTEND_INLINE RowsOfSquares(const S *const (&p)[G], int64_t bytes) : stride(bytes), stride3(3 * bytes) {
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g) {
      ATTEND_UNROLL
      for (int i = 0; i < 4; ++i) {
        row[g][i] = reinterpret_cast<const char *>(p[g]) + 4 * i * stride;
        __asm__("" : "+r"(row[g][i]));
      }
    }
    __asm__("" : "+r"(stride), "+r"(stride3));
  }
  // Row i + 4 * of, i < 4.
  ATTEND_INLINE const char *at(int g, int i, int of) const { return row[g][of] + (i == 3 ? stride3 : i * stride); }
};

}  // namespace
}  // namespace attend
