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

template <class T>
ATTEND_INLINE StoredMatrix columns_from(const StoredMatrix &m, int64_t column) {
  return {element_of(m, 0, column), m.row_stride, m.col_stride, m.type};
}

// A chunk's columns of K or V, of which the first is `begin`.
template <class T>
struct StagedPart {
  int64_t begin, columns, rows;
  StoredMatrix in_place;
  T *room;         // or null: they are never copied
  int64_t stride;  // of the copy
  bool is_copied;

  ATTEND_INLINE void copy() {
    if (is_copied || room == nullptr) return;
    is_copied = true;
    with_key_or_value<T>(in_place.type, [&](auto stored) {
      const auto *from = static_cast<const decltype(stored) *>(in_place.data);
      if (in_place.row_stride == 1) return pack_columns(columns, rows, from, in_place.col_stride, room, stride);
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t i = 0; i < rows; ++i) {
          room[j * stride + i] = widened(from[j * in_place.col_stride + i * in_place.row_stride]);
        }
      }
    });
  }
  // From column `column` on: the copy, if there is one by now; else what is stored.
  ATTEND_INLINE StoredMatrix from(int64_t column) const {
    const int64_t i = column - begin;
    if (!is_copied) return columns_from<T>(in_place, i);
    constexpr Dtype kOwn = sizeof(T) == sizeof(double) ? Dtype::f64 : Dtype::f32;
    return {room + i * stride, 1, stride, kOwn};
  }
  // The same, copied if need be.
  ATTEND_INLINE MatrixRef<const T> numbers(int64_t column) {
    copy();
    const StoredMatrix m = from(column);
    return {static_cast<const T *>(m.data), m.row_stride, m.col_stride};
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
  const auto part = [&](const StoredMatrix &m, int64_t rows, int64_t stride, int64_t room) {
    T *const to = stride == 0 ? nullptr : x.scratch + room;
    return StagedPart<T>{begin, end - begin, rows, columns_from<T>(m, begin), to, stride, false};
  };
  StagedChunk<T> chunk = {begin, end, part(x.k, x.features, x.copied_stride, x.layout.copied),
                          part(x.v, x.value_features, x.values_stride, x.layout.values)};
  if (!is_narrow<T>(x.k)) chunk.k.copy();
  return chunk;
}

}  // namespace
}  // namespace attend
