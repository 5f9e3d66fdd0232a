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

// In each 128 bits: element i of to[k] is element k of q[i].
ATTEND_INLINE void turn_fours(const __m512i (&q)[4], __m512i (&to)[4]) {
  const __m512i t0 = _mm512_unpacklo_epi32(q[0], q[1]), t1 = _mm512_unpacklo_epi32(q[2], q[3]);
  const __m512i t2 = _mm512_unpackhi_epi32(q[0], q[1]), t3 = _mm512_unpackhi_epi32(q[2], q[3]);
  to[0] = _mm512_unpacklo_epi64(t0, t1), to[1] = _mm512_unpackhi_epi64(t0, t1);
  to[2] = _mm512_unpacklo_epi64(t2, t3), to[3] = _mm512_unpackhi_epi64(t2, t3);
}

// Lane i of to[k]: 32-bit element k of sixteen bytes of row i of square g, from byte `from` on, k = 0..3.
template <int G>
ATTEND_INLINE void quads_of(const RowsOfSquares<G> &rows, int g, int from, __m512i (&to)[4]) {
  const auto sixteen = [&](int i, int of) __attribute__((always_inline)) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(rows.at(g, i, of) + from));
  };
  __m512i q[4];
  ATTEND_UNROLL
  for (int i = 0; i < 4; ++i) {
    __m512i v = _mm512_castsi128_si512(sixteen(i, 0));
    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, sixteen(i, 1));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00, sixteen(i, 2));
    q[i] = _mm512_mask_broadcast_i32x4(v, 0xf000, sixteen(i, 3));
  }
  turn_fours(q, to);
}

// Lane i of to[k]: 32-bit element k of 32 bytes of row i of square g, from byte `from` on, k = 0..7. Rows meet in pairs as they
// are loaded: 24 shuffles, where whole rows take 32 and four rows a load 16; but a load into a part of 512 bits takes the time
// of two of 256, and those of four rows take longer than the shuffles.
template <int G>
ATTEND_INLINE void octets_of(const RowsOfSquares<G> &rows, int g, int from, __m512i (&to)[8]) {
  const auto eight = [&](int i, int of) __attribute__((always_inline)) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(rows.at(g, i, of) + from));
  };
  __m512i turned[2][4];  // of rows 0..7 and 8..15
  ATTEND_UNROLL
  for (int h = 0; h < 2; ++h) {
    __m512i q[4];
    ATTEND_UNROLL
    for (int i = 0; i < 4; ++i) {
      q[i] = _mm512_mask_broadcast_i64x4(_mm512_castsi256_si512(eight(i, 2 * h)), 0xf0, eight(i, 2 * h + 1));
    }
    turn_fours(q, turned[h]);
  }
  ATTEND_UNROLL
  for (int k = 0; k < 4; ++k) {
    to[k] = _mm512_shuffle_i32x4(turned[0][k], turned[1][k], 0x88);
    to[k + 4] = _mm512_shuffle_i32x4(turned[0][k], turned[1][k], 0xdd);
  }
}

}  // namespace
}  // namespace attend
