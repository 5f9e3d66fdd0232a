// K and V of one chunk, ready for the tiles: in place, copied, or widened. Nothing else forms addresses of K and V.
//
// Keys that begin in the same sets of the L1 are copied: [N, H, D] arrays with H * D a power of two took 1.6 times as long
// without. (Copying V too gains nothing.) Elements of a narrower type are widened, once for all tiles of a block: some 3 %
// of its work. Few rows read them as they are (scores_few.hpp, output.hpp), so that nothing is staged before it is asked
// for.
#pragma once

#include "kernels/attention/hidden_blocks.hpp"

namespace attend {
namespace {

// A chunk's columns of K or V, of which the first is `begin`.
template <class T>
struct StagedPart {
  int64_t begin, columns, rows;
  StoredMatrix at;       // from `begin` on: what is stored or, once it is made, the copy
  int64_t column_bytes;  // from column to column
  T *room;               // for a copy that is not made yet, or null
  int64_t stride;        // of the copy

  __attribute__((noinline)) void copy() {
    T *const to = room;
    with_key_or_value<T>(at.type, [&](auto stored) {
      const auto *from = static_cast<const decltype(stored) *>(at.data);
      if (at.row_stride == 1) return pack_columns(columns, rows, from, at.col_stride, to, stride);
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t i = 0; i < rows; ++i) {
          to[j * stride + i] = widened(from[j * at.col_stride + i * at.row_stride]);
        }
      }
    });
    at = {to, 1, stride, dtype_of<T>()};
    column_bytes = stride * static_cast<int64_t>(sizeof(T));
    room = nullptr;
  }
  // From column `column` on: the copy, if there is one by now; else what is stored.
  ATTEND_INLINE StoredMatrix from(int64_t column) const {
    return {static_cast<char *>(at.data) + (column - begin) * column_bytes, at.row_stride, at.col_stride, at.type};
  }
  // The same, copied if need be.
  ATTEND_INLINE MatrixRef<const T> numbers(int64_t column) {
    if (room != nullptr) copy();
    return {static_cast<const T *>(at.data) + (column - begin) * at.col_stride, at.row_stride, at.col_stride};
  }
};

template <class T>
struct StagedChunk {
  int64_t begin, end;  // its keys
  StagedPart<T> k, v;

  ATTEND_INLINE MatrixRef<const T> keys(int64_t key) { return k.numbers(key); }
  ATTEND_INLINE MatrixRef<const T> values(int64_t key) { return v.numbers(key); }
};

// The keys [begin, end) of one chunk. What has the type of the arithmetic and is to be copied is copied now.
template <class T>
ATTEND_INLINE StagedChunk<T> stage(const AttentionBlock<T> &x, int64_t begin, int64_t end) {
  const auto part = [&](const StoredMatrix &m, int64_t rows, int64_t stride, int64_t room)
      __attribute__((always_inline)) {
    const int64_t bytes = is_narrow<T>(m.type) ? size_of(m.type) : static_cast<int64_t>(sizeof(T));
    const int64_t column = m.col_stride * bytes;
    char *const first = static_cast<char *>(m.data) + begin * column;
    return StagedPart<T>{begin,  end - begin,
                         rows,   {first, m.row_stride, m.col_stride, m.type},
                         column, stride == 0 ? nullptr : x.scratch + room,
                         stride};
  };
  StagedChunk<T> chunk = {begin, end, part(x.k, x.features, x.copied_stride, x.layout.copied),
                          part(x.v, x.value_features, x.values_stride, x.layout.values)};
  if (x.copied_stride != 0 && !is_narrow<T>(x.k.type)) chunk.k.copy();
  return chunk;
}

}  // namespace
}  // namespace attend
