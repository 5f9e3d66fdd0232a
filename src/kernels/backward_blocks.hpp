// Gradients of attention: what the drivers hand to kernels/attention/backward.hpp and gradients.hpp. Part of
// kernels/table.hpp.
#pragma once

#include "kernels/attention_blocks.hpp"

namespace attend {

// Queries of a backward block, counted from the sequence's first: gradients of keys and values are one chain over so many
// at a time, so they are part of the bits.
constexpr int64_t kBackwardQueries = 64;

// Where a backward block keeps what, in elements from its scratch. Counted out in drivers/attention_backward_plan.cpp.
struct BackwardLayout {
  int64_t lines;                   // AttentionLayout::kStateLines for each row of a query tile
  int64_t queries, d_out;          // of all tiles, [feature][row]
  int64_t weights, d_scores;       // P and dS, [tile][key][row]
  int64_t cap_slopes;              // of the softcap, like them
  int64_t query_rows, d_out_rows;  // rows that are copied: their columns `..._stride` elements apart, 0 = in place
  int64_t query_stride, d_out_stride;
};

// Gradients from the keys of one chunk and all queries of one head that see some of them:
//
//     d_q (+)= dS K    d_k (+)= dS^T Q    d_v (+)= P^T dO    dS = P (dO V^T - delta) times the softcap's slope
//
// without the scale of the scores, which is left to GradientBlock.
template <class T>
struct BackwardBlock {
  AttentionBlock<T>
      x;  // one head, all queries and keys of the sequence; neither outputs, state nor scratch but for the
          // layout of what stage.hpp copies
  StoredRows d_out;
  // Of each query: P = factor exp(score - shift). Up to a multiple of kBackwardQueries +inf, 1 and 0 follow.
  const T *shift, *factor, *delta;
  int64_t begin, end;  // the chunk's keys
  T *d_q, *d_k,
      *d_v;  // sums so far: of each query, and of each key of the chunk, features side by side; null = not wanted
  RowsRef<T> d_bias;  // or null data: a key an element; added to
  BackwardLayout layout;
  T *scratch;  // 64-byte aligned
};

// What all keys of a query share: delta = sum over features of out d_out, less d_lse; and the gradient of the head's sink.
template <class T>
struct DeltaBlock {
  int64_t rows, features;
  StoredRows out, d_out;
  RowsRef<const T> d_lse;   // or null data
  const T *shift, *factor;  // as in BackwardBlock
  T *delta;                 // written, and behind the last row up to a multiple of kBackwardQueries
  const T *sink;            // or null
  T *d_sink;                // written
  T *scratch;               // 2 * features * kBackwardQueries, 64-byte aligned
};

// A gradient from its sums, (features, columns) with columns side by side, or null for 0: out = scale * sum, or fma(scale,
// sum, out). out may be the sums' own place.
template <class T>
struct GradientBlock {
  int64_t features, columns;
  const T *sums;
  T scale;
  StoredMatrix out;
  bool accumulates;
};

}  // namespace attend
