// A query tile: rows of an attention block that are worked on together, one per lane, and their place in the scratch.
//
// A row is one query of one head. A block has the queries of one head, or of several heads that share their keys and
// values (x.heads; "packed"): then all of them go through the keys at once. What belongs to a row alone, its position,
// its slope, its sink, is a value per lane, so that packing changes nothing but the number of rows.
#pragma once

#include "kernels/pack.hpp"
#include "kernels/softmax.hpp"
#include "kernels/tile.hpp"

namespace attend {
namespace {

// Rows up to which lanes = keys (scores_few.hpp).
template <class T>
constexpr int kFewRows = kLanes<T> > 1 ? kLanes<T> / 2 : 1;

// Whether the scores of few rows ask for keys too, and not the output: beside the output of one row there is little time, and
// what is asked for faster than memory gives it is dropped. (A Zen 4: 0.67 for 0.54 of a read loop in f32, and bf16 as before;
// a Zen 3, by AVX2, was faster with the output.)
template <class T>
constexpr bool kScoresAskForKeys = kLanes<T> * sizeof(T) == 64;

// Rows of a block, one for each lane of a few vectors, and their place in the scratch.
template <class T>
struct QueryTile {
  int64_t row, count;  // the first row of the block, and how many; the lanes behind them are zero and dropped
  int vectors;
  int64_t lanes;         // in them
  T *s;                  // scores, then weights, of the slice at hand
  int64_t s_key, s_row;  // their strides: [key][lane], or of few rows [row][key]
  T *lines;              // AttentionLayout::kStateLines of a value for each lane
  int64_t line;          // from one to the next
  T *queries;            // [feature][lane], scaled
  T *output;             // o while it is summed, unless that happens in `out`

  T *m() const { return lines; }  // online_softmax.hpp
  T *l() const { return lines + line; }
  T *slice_m() const { return lines + 2 * line; }
  T *old_factor() const { return lines + 3 * line; }
  T *new_factor() const { return lines + 4 * line; }
  T *finish() const { return lines + 5 * line; }
  T *span_m() const { return lines + 6 * line; }
  T *span_l() const { return lines + 7 * line; }
  T *item() const { return lines + 8 * line; }  // position among the queries
  T *slope() const { return lines + 9 * line; }
};

// The tile that begins with `row`.
template <class T>
ATTEND_INLINE QueryTile<T> tile_of(const AttentionBlock<T> &x, int64_t row) {
  QueryTile<T> t;
  t.row = row;
  t.count = smaller(x.tile_rows, x.rows - row);
  t.vectors = static_cast<int>((t.count + kLanes<T> - 1) / kLanes<T>);
  t.lanes = t.vectors * kLanes<T>;
  t.s = x.scratch;
  t.s_key = t.lanes, t.s_row = 1;
  t.lines = x.scratch + x.layout.state + row;
  t.line = x.layout.rows;
  t.queries = x.scratch + x.layout.queries + row * x.features;
  t.output = x.scratch + x.layout.output + row * x.value_features;
  return t;
}

// Element 0 of a row.
template <class T, class Of>
ATTEND_INLINE Of *row_at(const AttentionBlock<T> &x, const RowsRef<Of> &of, int64_t row) {
  if (x.heads == 1) return of.data + row * of.item_stride;
  return of.data + row / x.items * of.head_stride + row % x.items * of.item_stride;
}

// Rows of elements of the type S.
template <class S>
ATTEND_INLINE RowsRef<const S> rows_as(const StoredRows &r) {
  return {static_cast<const S *>(r.data), r.element_stride, r.item_stride, r.head_stride};
}
// Element `element` of a row, without its type.
template <class T>
ATTEND_INLINE const void *stored_row_at(const AttentionBlock<T> &x, const StoredRows &of, int64_t row,
                                        int64_t element) {
  const int64_t head = x.heads == 1 ? 0 : row / x.items, item = row - head * x.items;
  const int64_t at = item * of.item_stride + head * of.head_stride + element * of.element_stride;
  return static_cast<const char *>(of.data) + at * size_of(of.type);
}

// The least and the largest item among the tile's rows.
template <class T>
ATTEND_INLINE void items_of(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t *least, int64_t *largest) {
  *least = t.row, *largest = t.row + t.count - 1;
  if (x.heads == 1) return;
  const bool one_head = *least / x.items == *largest / x.items;
  *least = one_head ? *least % x.items : 0;
  *largest = one_head ? *largest % x.items : x.items - 1;
}

// Whether each key's score, or weight, is multiplied by a number of its own, or all by one.
ATTEND_INLINE bool scales_keys(const MatrixRef<const float> &scale) {
  return scale.data != nullptr && scale.row_stride == 0;
}
// That of one key; `of_page`: from page to page.
template <class T>
ATTEND_INLINE T scale_at(const AttentionBlock<T> &x, const MatrixRef<const float> &scale, int64_t of_page,
                         int64_t key) {
  if (x.pages.entries == nullptr) return static_cast<T>(scale.data[key * scale.col_stride]);
  const int64_t column = x.pages.first + key, page = column / x.pages.size;
  return static_cast<T>(
      scale.data[x.pages.entries[page * x.pages.stride] * of_page + column % x.pages.size * scale.col_stride]);
}
// Those of `count` keys from `key` on; 0 behind them.
template <class T>
ATTEND_INLINE vec<T> scales_of(const AttentionBlock<T> &x, const MatrixRef<const float> &scale, int64_t of_page,
                               int64_t key, int64_t count) {
  T lanes[kLanes<T>];
  for (int64_t l = 0; l < kLanes<T>; ++l) lanes[l] = l < count ? scale_at(x, scale, of_page, key + l) : T(0);
  return load(lanes);
}

// Whether keys are asked for beside the output.
template <class T>
ATTEND_INLINE bool output_asks(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  return x.far && !(kScoresAskForKeys<T> && t.count <= x.few_rows);
}

// The queries of a tile, transposed and scaled.
template <class T, class S>
ATTEND_INLINE void pack_queries(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  const RowsRef<const S> of = rows_as<S>(x.q);
  int64_t stride = 0;
  if (is_even(x, of, &stride)) {
    return pack_panel<T>(t.lanes, t.count, x.features, row_at(x, of, t.row), stride, of.element_stride, x.scale,
                         t.queries);
  }
  for (int64_t i = 0; i < t.lanes; ++i) {
    const S *q = row_at(x, of, t.row + smaller(i, t.count - 1));
    for (int64_t f = 0; f < x.features; ++f) {
      t.queries[f * t.lanes + i] = i < t.count ? widened(q[f * of.element_stride]) * x.scale : T(0);
    }
  }
}

template <class T>
__attribute__((noinline)) void pack_narrow_queries(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  with_float<T>(x.q.type, [&](auto stored) {
    if constexpr (!kIsSame<T, decltype(stored)>) pack_queries<T, decltype(stored)>(x, t);
  });
}

// Queries, transposed and scaled, and the state before any key.
template <class T>
void begin_tile(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  is_narrow<T>(x.q.type) ? pack_narrow_queries(x, t) : pack_queries<T, T>(x, t);
  for (int64_t f = 0; x.k_scale.row_stride != 0 && f < x.features; ++f) {
    const vec<T> scale = broadcast(static_cast<T>(x.k_scale.data[f * x.k_scale.row_stride]));
    T *const line = t.queries + f * t.lanes;
    for (int64_t i = 0; i < t.lanes; i += W) store(line + i, load(line + i) * scale);
  }
  for (int64_t i = 0; i < t.lanes; i += W) {
    if (x.rises || x.slopes != nullptr) {
      store(t.item() + i, load(kLaneIndex<T>) + broadcast(static_cast<T>(t.row + i)));
    }
    if (!x.spans) continue;
    store(t.span_m() + i, broadcast(kMinusInfinity<T>));
    store(t.span_l() + i, broadcast(T(0)));
  }
  if (x.heads == 1 && x.slopes == nullptr) return;
  for (int64_t i = 0; i < t.lanes; ++i) {
    const int64_t row = t.row + smaller(i, t.count - 1);
    t.item()[i] = static_cast<T>(row % x.items);
    t.slope()[i] = x.slopes == nullptr ? T(0) : x.slopes[row / x.items * x.slope_stride];
  }
}

}  // namespace
}  // namespace attend
