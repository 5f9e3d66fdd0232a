// What a lane of 32 bits holds where one step adds several products to its sum: a quad, which is four integers of 8 bits,
// or two numbers of 16, neighbours along k. E: such an element, uint8_t or uint16_t, whatever it means.
#pragma once

#include "kernels/transpose_avx512.hpp"

namespace attend {
namespace {

constexpr int kQuadLanes = 16;
template <class E>
constexpr int kInQuad = 4 / static_cast<int>(sizeof(E));
// Columns of B, packed, are so many bytes apart: an odd number of lines, so that they lie in different sets of the L1.
template <class E>
constexpr int64_t kQuadHeight = IntegerBlock::kDepth *static_cast<int64_t>(sizeof(E)) + 64;
static_assert(IntegerBlock::kDepth % 64 == 0, "whole lines");

using Bytes = __m512i;

// What moves bytes by 128 when it is added, the signed ones' numbers to the unsigned ones' or back.
ATTEND_INLINE Bytes move_of(bool moves) { return _mm512_set1_epi8(moves ? -128 : 0); }

// The first `count` of 64 bytes, moved; the others are 0 and not touched.
ATTEND_INLINE Bytes bytes_along(const uint8_t *p, int64_t count, Bytes move) {
  const __mmask64 mask = count >= 64 ? ~__mmask64{0} : (__mmask64{1} << count) - 1;
  return _mm512_maskz_add_epi8(mask, _mm512_maskz_loadu_epi8(mask, p), move);
}
ATTEND_INLINE Bytes quad_at(const void *p) {
  int32_t quad = 0;
  __builtin_memcpy(&quad, p, sizeof quad);
  return _mm512_set1_epi32(quad);
}

// One quad of up to kQuadLanes lanes, of which `valid` elements are there: element e of lane l at l * lane_step + e * k_step.
template <class E>
ATTEND_INLINE Bytes quad_across(const E *p, int64_t lane_step, int64_t k_step, int64_t lanes, int64_t valid,
                                bool moves) {
  Bytes v = _mm512_setzero_si512();
  if (lane_step == 1) {
    const auto mask = static_cast<__mmask16>(lanes >= kQuadLanes ? 0xffff : (1 << lanes) - 1);
    ATTEND_UNROLL
    for (int e = 0; e < kInQuad<E>; ++e) {
      if (e >= valid) continue;
      Bytes one;
      if constexpr (sizeof(E) == 1) {
        one = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p + e * k_step));
      } else {
        one = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p + e * k_step));
      }
      v = _mm512_or_si512(v, _mm512_slli_epi32(one, static_cast<unsigned>(8 * sizeof(E)) * static_cast<unsigned>(e)));
    }
  } else {
    E quads[kQuadLanes][kInQuad<E>] = {};
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
template <class E, class F>
ATTEND_INLINE void each_quad(const E *from, int64_t lane_step, int64_t k_step, int64_t lanes, int64_t depth, bool moves,
                             const F &put) {
  constexpr int64_t kSize = sizeof(E), kLine = 64 / kSize;
  if (k_step == 1) {
    for (int64_t k = 0; k < depth; k += kLine) {
      __m512 r[kQuadLanes];
      ATTEND_UNROLL
      for (int l = 0; l < kQuadLanes; ++l) {
        const E *const line = from + smaller<int64_t>(l, lanes - 1) * lane_step + k;
        const auto *const bytes = reinterpret_cast<const uint8_t *>(line);
        r[l] = _mm512_castsi512_ps(bytes_along(bytes, (depth - k) * kSize, move_of(moves)));
      }
      transpose(r);
      ATTEND_UNROLL
      for (int q = 0; q < kQuadLanes; ++q) {
        if (k + kInQuad<E> * q < depth) put(k / kInQuad<E> + q, _mm512_castps_si512(r[q]));
      }
    }
    return;
  }
  for (int64_t k = 0; k < depth; k += kInQuad<E>) {
    const int64_t valid = smaller<int64_t>(kInQuad<E>, depth - k);
    put(k / kInQuad<E>, quad_across(from + k * k_step, lane_step, k_step, lanes, valid, moves));
  }
}

// One column of B, with 0 up to a whole line.
template <class E>
void pack_column(const E *from, int64_t step, int64_t depth, bool moves, uint8_t *to) {
  constexpr int64_t kSize = sizeof(E), kLine = 64 / kSize;
  for (int64_t k = 0; k < depth; k += kLine) {
    const int64_t count = smaller<int64_t>(kLine, depth - k);
    const E *line = from + k * step;
    E some[kLine];
    if (step != 1) {
      for (int64_t i = 0; i < count; ++i) some[i] = line[i * step];
      line = some;
    }
    _mm512_storeu_si512(to + k * kSize,
                        bytes_along(reinterpret_cast<const uint8_t *>(line), count * kSize, move_of(moves)));
  }
}

// Up to kQuadLanes of them, side by side in B.
template <class E>
ATTEND_INLINE void pack_across(const E *from, int64_t k_step, int64_t columns, int64_t depth, uint8_t *to) {
  constexpr int64_t kSize = sizeof(E);
  for (int64_t k = 0; k < depth; k += 64 / kSize) {
    __m512 r[kQuadLanes];
    ATTEND_UNROLL
    for (int q = 0; q < kQuadLanes; ++q) {
      const int64_t at = k + kInQuad<E> * q, valid = smaller<int64_t>(kInQuad<E>, depth - at);
      r[q] = _mm512_castsi512_ps(valid > 0 ? quad_across(from + at * k_step, 1, k_step, columns, valid, false)
                                           : _mm512_setzero_si512());
    }
    transpose(r);
    ATTEND_UNROLL
    for (int l = 0; l < kQuadLanes; ++l) {
      if (l < columns) _mm512_storeu_ps(to + l * kQuadHeight<E> + k * kSize, r[l]);
    }
  }
}

// Columns of B as tiles read them: so many bytes apart.
struct QuadColumns {
  const uint8_t *first;
  int64_t step;
};

}  // namespace
}  // namespace attend
