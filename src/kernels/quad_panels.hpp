// Products whose step adds several products to each lane, with more than a few columns: A is packed into panels of quads, B's
// columns are read in place where they are contiguous. Op says what an element is and how a step adds:
//     Element, Sums, add(sums, quads of A, quads of B), total(sums): what is stored of them
// What an accumulator begins with is of 32 bits, be it an integer or 0.0. Sums is the type that the step's instruction works
// on: as Bytes, with a cast to and fro at each step, g++ 12 gives an accumulator two registers, spills 18 of 24 in the loop
// and loses a third of the speed.
#pragma once

#include "kernels/columns.hpp"
#include "kernels/quads.hpp"

namespace attend {
namespace {

// 24 accumulators, three vectors of A, and a broadcast quad of B: 28 of 32 registers, 11 loads for 24 steps.
constexpr int kQuadVectors = 3, kQuadColumns = 8;
static_assert(IntegerBlock::kGroup % kQuadColumns == 0, "whole tiles");
static_assert(kQuadHeight<uint16_t> <= IntegerBlock::kHeight * 2, "columns of B have room for pairs");

// Vectors of the next panel of rows, of which `left` are left. (Four are two and two: one vector alone waits for loads.)
ATTEND_INLINE int64_t panel_vectors(int64_t left) { return left == 4 ? 2 : smaller<int64_t>(left, kQuadVectors); }
template <class E>
ATTEND_INLINE int64_t quads_of(int64_t depth) {
  return (depth + kInQuad<E> - 1) / kInQuad<E>;
}
ATTEND_INLINE int64_t vectors_of(int64_t rows) { return (rows + kQuadLanes - 1) / kQuadLanes; }

// f(panel, its first vector of rows, how many) for A's panels.
template <class E, class F>
ATTEND_INLINE void each_panel(const IntegerBlock &x, const F &f) {
  auto *panel = reinterpret_cast<uint8_t *>(x.a_panel);
  const int64_t all = vectors_of(x.m);
  for (int64_t i = 0; i < all;) {
    const int64_t vectors = panel_vectors(all - i);
    f(panel, i, vectors);
    panel += vectors * 4 * kQuadLanes * quads_of<E>(x.k);
    i += vectors;
  }
}

template <class E>
void pack_rows(const IntegerBlock &x, bool moves) {
  each_panel<E>(x, [&](uint8_t *panel, int64_t first, int64_t vectors) {
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t row = (first + v) * kQuadLanes, step = vectors * 4 * kQuadLanes;
      uint8_t *const to = panel + v * 4 * kQuadLanes;
      each_quad(
          static_cast<const E *>(x.a.data) + row * x.a.row_stride, x.a.row_stride, x.a.col_stride, x.m - row, x.k,
          moves, [&](int64_t quad, Bytes bytes) __attribute__((always_inline)) {
            _mm512_storeu_si512(to + quad * step, bytes);
          });
    }
  });
}

// The columns [begin, end) of B: in place where their elements are neighbours and make whole quads.
template <class E>
QuadColumns columns_of(const IntegerBlock &x, int64_t begin, int64_t end) {
  constexpr int64_t kSize = sizeof(E);
  const auto *const from = static_cast<const E *>(x.b.data) + begin * x.b.col_stride;
  const bool even = (end - begin) % 2 == 0;  // tiles are
  if (x.b.row_stride == 1 && x.k % kInQuad<E> == 0 && even)
    return {reinterpret_cast<const uint8_t *>(from), x.b.col_stride * kSize};
  auto *const to = reinterpret_cast<uint8_t *>(x.b_panel);
  if (x.b.row_stride != 1 && x.b.col_stride == 1) {
    for (int64_t j = 0; j < end - begin; j += kQuadLanes)
      pack_across(from + j, x.b.row_stride, end - begin - j, x.k, to + j * kQuadHeight<E>);
  } else {
    for (int64_t j = 0; j < end - begin; ++j)
      pack_column(from + j * x.b.col_stride, x.b.row_stride, x.k, false, to + j * kQuadHeight<E>);
  }
  return {to, kQuadHeight<E>};
}

// Sums of column j begin with begin[j] and, in the lanes of `old`, what is there.
struct Begin {
  const int32_t *of_column;
  __mmask16 old;
};
template <class Op, int MV, int NR>
ATTEND_INLINE void quad_tile(const IntegerBlock &x, const Begin &begin, const uint8_t *panel, const QuadColumns &b,
                             int32_t *to) {
  typename Op::Sums acc[MV][NR];
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) {
      acc[v][j] = reinterpret_cast<typename Op::Sums>(_mm512_add_epi32(
          _mm512_set1_epi32(begin.of_column[j]), _mm512_maskz_loadu_epi32(begin.old, to + j * x.ld + v * kQuadLanes)));
    }
  }
  Columns<uint8_t, NR, int64_t> columns(b.first, 4, b.step);
  const auto step = [&]() __attribute__((always_inline)) {
    Bytes a[MV];
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) a[v] = _mm512_loadu_si512(panel + 4 * kQuadLanes * v);
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      const Bytes quad = quad_at(columns.at(j));
      ATTEND_UNROLL
      for (int v = 0; v < MV; ++v) acc[v][j] = Op::add(acc[v][j], a[v], quad);
    }
    panel += 4 * kQuadLanes * MV;
    columns.next();
  };
  const int64_t quads = quads_of<typename Op::Element>(x.k);
  for (int64_t k = 0; k < quads / 2; ++k) {
    step();
    step();
  }
  if (quads % 2 != 0) step();
  ATTEND_UNROLL
  for (int j = 0; j < NR; ++j) {
    ATTEND_UNROLL
    for (int v = 0; v < MV; ++v) _mm512_storeu_si512(to + j * x.ld + v * kQuadLanes, Op::total(acc[v][j]));
  }
}

// All rows against NR columns.
template <class Op, int NR>
void quad_columns(const IntegerBlock &x, const Begin &begin, const QuadColumns &b, int64_t j) {
  each_panel<typename Op::Element>(x, [&](const uint8_t *panel, int64_t first, int64_t vectors) {
    int32_t *const to = x.sums + j * x.ld + first * kQuadLanes;
    with_constant<kQuadVectors>(
        vectors, [&](auto mv) __attribute__((always_inline)) {
          quad_tile<Op, decltype(mv)::value, NR>(x, begin, panel, b, to);
        });
  });
}

// A group of columns, from `first` on, against all rows.
template <class Op>
void multiply_group(const IntegerBlock &x, const QuadColumns &b, int64_t first, int64_t size, const Begin &begin) {
  for (int64_t j = 0; j < size; j += kQuadColumns) {
    // One column too many is cheaper than its code: B's panels and the sums have room.
    with_constant<kQuadColumns / 2>(smaller<int64_t>(kQuadColumns, size - j + 1) / 2, [&](auto pairs_of) {
      quad_columns<Op, 2 * decltype(pairs_of)::value>(x, {begin.of_column + j, begin.old},
                                                      {b.first + j * b.step, b.step}, first + j);
    });
  }
}

}  // namespace
}  // namespace attend
