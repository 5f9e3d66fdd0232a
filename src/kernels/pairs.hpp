// Pairs of 16-bit integers, neighbours along k, a pair a lane, and the 32-bit sums of their products.
//
// Integers of 8 bits are multiplied as pairs of 16: the one step that adds two products exactly where there is no VNNI
// (pmaddwd). The step for bytes (pmaddubsw) saturates at 2^15, which two products of 8 bits exceed. Sums wrap, so that
// neither order nor instruction set shows.
//
// A backend that knows better than a lane at a time defines ATTEND_PAIRS and what is here.
#pragma once

#include "kernels/simd.hpp"

namespace attend {
namespace {

#ifndef ATTEND_PAIRS
constexpr int kPairs = 8;
constexpr int kIntegerVectors = 1;  // of rows of a tile
struct PairVec {
  int16_t half[2 * kPairs];
};
struct SumVec {
  uint32_t lane[kPairs];
};

ATTEND_INLINE PairVec load_pairs(const int16_t *p) {
  PairVec r;
  __builtin_memcpy(&r, p, sizeof r);
  return r;
}
ATTEND_INLINE void store_pairs(int16_t *p, PairVec v) { __builtin_memcpy(p, &v, sizeof v); }
// The pair at p in all lanes.
ATTEND_INLINE PairVec broadcast_pair(const void *p) {
  int16_t pair[2];
  __builtin_memcpy(pair, p, sizeof pair);
  PairVec r;
  for (int i = 0; i < 2 * kPairs; ++i) r.half[i] = pair[i % 2];
  return r;
}
// 2 kPairs elements side by side.
template <class S>
ATTEND_INLINE PairVec pairs_along(const S *p) {
  PairVec r;
  for (int i = 0; i < 2 * kPairs; ++i) r.half[i] = p[i];
  return r;
}
// Lane l: (even[l], odd[l]).
template <class S>
ATTEND_INLINE PairVec pairs_across(const S *even, const S *odd) {
  PairVec r;
  for (int i = 0; i < kPairs; ++i) {
    r.half[2 * i] = even[i];
    r.half[2 * i + 1] = odd[i];
  }
  return r;
}
ATTEND_INLINE PairVec minus(PairVec a, PairVec b) {
  for (int i = 0; i < 2 * kPairs; ++i) a.half[i] = static_cast<int16_t>(a.half[i] - b.half[i]);
  return a;
}
// r[i] lane j <-> r[j] lane i.
ATTEND_INLINE void transpose(PairVec (&r)[kPairs]) {
  for (int i = 0; i < kPairs; ++i) {
    for (int j = 0; j < i; ++j) {
      for (int h = 0; h < 2; ++h) {
        const int16_t x = r[i].half[2 * j + h];
        r[i].half[2 * j + h] = r[j].half[2 * i + h];
        r[j].half[2 * i + h] = x;
      }
    }
  }
}

ATTEND_INLINE SumVec load_sums(const int32_t *p) {
  SumVec r;
  __builtin_memcpy(&r, p, sizeof r);
  return r;
}
ATTEND_INLINE void store_sums(int32_t *p, SumVec v) { __builtin_memcpy(p, &v, sizeof v); }
ATTEND_INLINE SumVec no_sums() { return {}; }
ATTEND_INLINE SumVec add_products(PairVec a, PairVec b, SumVec c) {
  for (int i = 0; i < kPairs; ++i) {
    c.lane[i] += static_cast<uint32_t>(a.half[2 * i] * b.half[2 * i]);
    c.lane[i] += static_cast<uint32_t>(a.half[2 * i + 1] * b.half[2 * i + 1]);
  }
  return c;
}
ATTEND_INLINE int32_t total_of(SumVec v) {
  uint32_t total = 0;
  for (const uint32_t lane : v.lane) total += lane;
  return static_cast<int32_t>(total);
}
#endif

}  // namespace
}  // namespace attend
