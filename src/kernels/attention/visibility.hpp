// Which keys does this query see: the one place that knows.
//
// By position (causal, window, length) query i of the block sees the keys [key_begin(i), key_end(i)) (kernels/table.hpp,
// since the drivers ask too), both rising with i by one a query or not at all; a mask of 0 and a bias of -inf hide
// further ones. Everything else asks here: what a tile
// sees at all, what all of its rows see, the lanes that see one key, and whether one row sees one key.
#pragma once

#include "kernels/attention/query_tile.hpp"

namespace attend {
namespace {

// The keys that any row of the tile sees, and those that all do.
template <class T>
ATTEND_INLINE KeyRange seen_by_any(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  if (!x.rises) return x.seen;
  int64_t least, largest;
  items_of(x, t, &least, &largest);
  return {key_begin(x, least), key_end(x, largest)};
}
template <class T>
ATTEND_INLINE KeyRange seen_by_all(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  if (!x.rises) return x.seen;
  int64_t least, largest;
  items_of(x, t, &least, &largest);
  return {key_begin(x, largest), key_end(x, least)};
}

// A slice: the keys of one chunk that a tile sees.
template <class T>
struct KeySlice {
  int64_t begin, end;
  StoredMatrix k, v;  // from key `begin` on: of the arithmetic's type, but where stage.hpp says otherwise
  bool first;         // that the tile works on in its open span
  bool last;          // its output is finished in registers: there is one span, and nothing behind this chunk
  int64_t size() const { return end - begin; }
  ATTEND_INLINE MatrixRef<const T> values() const {
    return {static_cast<const T *>(v.data), v.row_stride, v.col_stride};
  }
};

// Scores s of vector i of the tile and one key, -inf in the lanes that do not see it by position.
template <class T>
ATTEND_INLINE vec<T> hide(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int i, vec<T> s) {
  constexpr int64_t kFar = 1000;  // beyond any item, exact in every type
  const auto item_of = [&](int64_t key_of_item_0, int64_t step) {
    if (step == 0) return key < key_of_item_0 ? -kFar : kFar;
    return larger(-kFar, smaller(kFar, key - key_of_item_0));
  };
  const vec<T> item = load(t.item() + i * kLanes<T>), least = broadcast(kMinusInfinity<T>);
  // Seen by items beyond the one for which `key` is the end, and not beyond the one for which it is the first.
  s = select(broadcast(static_cast<T>(item_of(x.key_end, x.key_end_step))) < item, s, least);
  if (x.key_begin_step != 0 || x.key_begin > 0) {
    s = select(broadcast(static_cast<T>(item_of(x.key_begin, x.key_begin_step))) < item, least, s);
  }
  return s;
}

// One entry of the bias.
template <class T>
T bias_of(const AttentionBlock<T> &x, int64_t row, int64_t key) {
  T entry = T(0);
  with_float<T>(x.bias.type, [&](auto stored) {
    const auto of = rows_as<decltype(stored)>(x.bias);
    entry = widened(row_at(x, of, row)[key * of.element_stride]);
  });
  return entry;
}

// Whether a row sees a key, masks and biases included: not to be told from a score of -inf, which a visible key may have
// too.
template <class T>
bool is_visible(const AttentionBlock<T> &x, int64_t row, int64_t key) {
  const int64_t item = row % x.items;
  return key >= key_begin(x, item) && key < key_end(x, item) &&
         (x.mask.data == nullptr || row_at(x, x.mask, row)[key * x.mask.element_stride] != 0) &&
         (x.bias.data == nullptr || bias_of(x, row, key) != kMinusInfinity<T>);
}

}  // namespace
}  // namespace attend
