// K and V of one chunk, ready for the tiles: in place, or copied. Nothing else forms addresses of K and V.
//
// Only keys that begin in the same sets of the L1 are copied: [N, H, D] arrays with H * D a power of two took 1.6 times
// as long without. (Copying V too gains nothing.) The copy is one chunk, made once for all tiles of a block.
#pragma once

#include "kernels/attention/hidden_blocks.hpp"

namespace attend {
namespace {

template <class T>
struct StagedChunk {
  int64_t begin, end;       // its keys
  MatrixRef<const T> k, v;  // (feature, key) from key `begin` on

  // From `key` on.
  ATTEND_INLINE MatrixRef<const T> keys(int64_t key) const {
    return {k.data + (key - begin) * k.col_stride, k.row_stride, k.col_stride};
  }
  ATTEND_INLINE MatrixRef<const T> values(int64_t key) const {
    return {v.data + (key - begin) * v.col_stride, v.row_stride, v.col_stride};
  }
};

template <class T>
ATTEND_INLINE MatrixRef<const T> columns_from(const MatrixRef<const T> &m, int64_t column) {
  return {m.data + column * m.col_stride, m.row_stride, m.col_stride};
}

// The keys [begin, end) of one chunk.
template <class T>
ATTEND_INLINE StagedChunk<T> stage(const AttentionBlock<T> &x, int64_t begin, int64_t end) {
  StagedChunk<T> chunk = {begin, end, columns_from(x.k, begin), columns_from(x.v, begin)};
  if (x.copied_stride != 0) {
    T *const copy = x.scratch + x.layout.copied;
    pack_columns(end - begin, x.features, chunk.k.data, x.k.col_stride, copy, x.copied_stride);
    chunk.k = {copy, 1, x.copied_stride};
  }
  return chunk;
}

}  // namespace
}  // namespace attend
