// Quads of 8-bit integers, neighbours along k, a quad a lane, and the 32-bit sums of their products by AVX-512 VNNI. One
// step, vpdpbusd, adds four products of unsigned bytes and signed ones to a lane, exactly modulo 2^32.
#pragma once

#include "kernels/transpose_avx512.hpp"

namespace attend {
namespace {

constexpr int kQuadLanes = 16;
// Columns of B, packed, are so many bytes apart: an odd number of lines, so that they lie in different sets of the L1.
constexpr int64_t kQuadHeight = IntegerBlock::kDepth + 64;
static_assert(IntegerBlock::kDepth % 64 == 0, "whole lines");

using Bytes = __m512i;

// What moves bytes by 128 when it is added, the signed ones' numbers to the unsigned ones' or back.
ATTEND_INLINE Bytes move_of(bool moves) { return _mm512_set1_epi8(moves ? -128 : 0); }

ATTEND_INLINE int32_t number_at(const NumbersRef<const int32_t> &zero, int64_t i) {
  return zero.data == nullptr ? 0 : zero.data[i * zero.step];
}

// The first `count` of 64 bytes, moved; the others are 0 and not touched.
ATTEND_INLINE Bytes bytes_along(const uint8_t *p, int64_t count, Bytes move) {
  const __mmask64 mask = count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
  return _mm512_maskz_add_epi8(mask, _mm512_maskz_loadu_epi8(mask, p), move);
}
// U: whether B's are the unsigned ones.
template <bool U>
ATTEND_INLINE Bytes add_quads(Bytes sums, Bytes of_a, Bytes of_b) {
  return U ? _mm512_dpbusd_epi32(sums, of_b, of_a) : _mm512_dpbusd_epi32(sums, of_a, of_b);
}
ATTEND_INLINE Bytes ones() { return _mm512_set1_epi8(1); }
ATTEND_INLINE Bytes quad_at(const void *p) {
  int32_t quad = 0;
  __builtin_memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// One quad of up to kQuadLanes lanes, of which `valid` elements are there: element e of lane l at l * lane_step + e * k_step.
ATTEND_INLINE Bytes quad_across(const uint8_t *p, int64_t lane_step, int64_t k_step, int64_t lanes, int64_t valid,
                                bool moves) {
  Bytes v = _mm512_setzero_si512();
  if (lane_step == 1) {
    const auto mask = static_cast<__mmask16>(lanes >= kQuadLanes ? 0xffff : (1 << lanes) - 1);
    ATTEND_UNROLL
    for (int e = 0; e < 4; ++e) {
      if (e >= valid) continue;
      const Bytes one = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p + e * k_step));
      v = _mm512_or_si512(v, _mm512_slli_epi32(one, static_cast<unsigned>(8 * e)));
    }
  } else {
    uint8_t quads[kQuadLanes][4] = {};
    for (int64_t l = 0; l < smaller<int64_t>(lanes, kQuadLanes); ++l) {
      for (int64_t e = 0; e < valid; ++e) quads[l][e] = p[l * lane_step + e * k_step];
    }
    v = _mm512_loadu_si512(quads);
  }
  const auto all = moves ? 0x80808080u >> (32 - 8 * valid) : 0u;
  return _mm512_xor_si512(v, _mm512_set1_epi32(static_cast<int32_t>(all)));
}

// put(quad, its bytes in kQuadLanes lanes) for the quads of a depth, in order: lane l from `from` + l * lane_step. Lanes
// from `lanes` on have any values; of the last quad, elements behind the depth are 0.
template <class F>
ATTEND_INLINE void each_quad(const uint8_t *from, int64_t lane_step, int64_t k_step, int64_t lanes, int64_t depth,
                             bool moves, const F &put) {
  if (k_step == 1) {
    for (int64_t k = 0; k < depth; k += 64) {
      __m512 r[kQuadLanes];
      ATTEND_UNROLL
      for (int l = 0; l < kQuadLanes; ++l) {
        const uint8_t *const line = from + smaller<int64_t>(l, lanes - 1) * lane_step;
        r[l] = _mm512_castsi512_ps(bytes_along(line + k, depth - k, move_of(moves)));
      }
      transpose(r);
      ATTEND_UNROLL
      for (int q = 0; q < kQuadLanes; ++q) {
        if (k + 4 * q < depth) put(k / 4 + q, _mm512_castps_si512(r[q]));
      }
    }
    return;
  }
  for (int64_t k = 0; k < depth; k += 4)
    put(k / 4, quad_across(from + k * k_step, lane_step, k_step, lanes, smaller<int64_t>(4, depth - k), moves));
}

// One column of B, with 0 up to a whole line.
void pack_column(const uint8_t *from, int64_t step, int64_t depth, bool moves, uint8_t *to) {
  for (int64_t k = 0; k < depth; k += 64) {
    const int64_t count = smaller<int64_t>(64, depth - k);
    const uint8_t *line = from + k * step;
    uint8_t some[64];
    if (step != 1) {
      for (int64_t i = 0; i < count; ++i) some[i] = line[i * step];
      line = some;
    }
    _mm512_storeu_si512(to + k, bytes_along(line, count, move_of(moves)));
  }
}

// Up to kQuadLanes of them, side by side in B.
ATTEND_INLINE void pack_across(const uint8_t *from, int64_t k_step, int64_t columns, int64_t depth, uint8_t *to) {
  for (int64_t k = 0; k < depth; k += 64) {
    __m512 r[kQuadLanes];
    ATTEND_UNROLL
    for (int q = 0; q < kQuadLanes; ++q) {
      const int64_t at = k + 4 * q;
      r[q] = _mm512_castsi512_ps(
          at < depth ? quad_across(from + at * k_step, 1, k_step, columns, smaller<int64_t>(4, depth - at), false)
                     : _mm512_setzero_si512());
    }
    transpose(r);
    ATTEND_UNROLL
    for (int l = 0; l < kQuadLanes; ++l) {
      if (l < columns) _mm512_storeu_ps(to + l * kQuadHeight + k, r[l]);
    }
  }
}

// Columns of B as tiles read them: `step` apart.
struct QuadColumns {
  const uint8_t *first;
  int64_t step;
};

// Lane i: the sum of v[i].
ATTEND_INLINE __m128i totals(const Bytes (&v)[4]) {
  const Bytes low = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const Bytes high = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  const Bytes t = _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(t), _mm512_extracti64x4_epi64(t, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The sums of some columns of B, and of whatever follows up to a multiple of four of them.
template <bool U>
void sum_columns(const QuadColumns &b, int64_t columns, int64_t depth, int32_t *to) {
  for (int64_t j = 0; j < columns; j += 4) {
    Bytes sum[4];
    ATTEND_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint8_t *const column = b.first + smaller(j + i, columns - 1) * b.step;
      sum[i] = _mm512_setzero_si512();
      int64_t k = 0;
      for (; k + 64 <= depth; k += 64) sum[i] = add_quads<U>(sum[i], ones(), _mm512_loadu_si512(column + k));
      if (k < depth) sum[i] = add_quads<U>(sum[i], ones(), bytes_along(column + k, depth - k, _mm512_setzero_si512()));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to + j), totals(sum));
  }
}

}  // namespace
}  // namespace attend
