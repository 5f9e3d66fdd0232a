// Products of bf16 by AVX512_BF16: a step, vdpbf16ps, adds the two products of a lane's pairs to its sum, one after the other.
// Each addition is rounded, to nearest even whatever the mode; operands and sums below 2^-126 are 0. So the sums are those
// of a chain over k that takes the second of two before the first: an f32 product's error bound, other bits.
#pragma once

#include "kernels/quad_panels.hpp"

namespace attend {
namespace {

struct PairProducts {
  using Element = uint16_t;
  static ATTEND_INLINE Bytes add(Bytes sums, Bytes of_a, Bytes of_b) {
    return _mm512_castps_si512(_mm512_dpbf16_ps(_mm512_castsi512_ps(sums), reinterpret_cast<__m512bh>(of_a),
                                                reinterpret_cast<__m512bh>(of_b)));
  }
  // A sum that fell below 2^-126 from the negative side is -0. It must not stay so where C is the sum itself, since it
  // does not where the sum is added to C0, and which of the two it is depends on the threads.
  static ATTEND_INLINE Bytes total(Bytes sums) {
    return _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(sums), _mm512_setzero_ps()));
  }
};

void dots(const IntegerBlock &x) {
  pack_rows<uint16_t>(x, false);
  const int32_t begin[IntegerBlock::kGroup] = {};  // 0.0
  for (int64_t group = 0; group < x.n; group += IntegerBlock::kGroup) {
    const int64_t size = smaller<int64_t>(x.n - group, IntegerBlock::kGroup);
    const QuadColumns b = columns_of<uint16_t>(x, group, group + size);
    multiply_group<PairProducts>(x, b, group, size, {begin, static_cast<__mmask16>(x.begins ? 0 : 0xffff)});
  }
}

}  // namespace
}  // namespace attend
