// S = scale K^T Q of some keys and the rows of a tile: lanes are rows, K is read in place, nothing is packed.
#pragma once

#include "kernels/attention/stage.hpp"

namespace attend {
namespace {

// Columns of the tile whose lanes are MV vectors of rows.
template <class T, int MV>
constexpr int score_columns = MV == 1 ? Tiles<T>::kNarrowColumns : Tiles<T>::kScoreColumns;

// Bias and mask, which modify_scores wants next, come from memory where they are large: their lines are asked for while
// the products of `keys` keys are computed, each about once.
template <class T>
__attribute__((noinline)) void ask_for_lines(const AttentionBlock<T> &x, const QueryTile<T> &t,
                                             const RowsRef<const void> &of, int64_t size, int64_t key, int64_t keys) {
  const RowsRef<const char> rows = {static_cast<const char *>(of.data) + key * of.element_stride * size,
                                    of.element_stride * size, of.item_stride * size, of.head_stride * size};
  int64_t stride = 0;
  const bool even = is_even(x, rows, &stride);
  if (even && stride == size) {  // rows side by side: a line or two of each key
    const char *at = row_at(x, rows, t.row);
    for (int64_t j = 0; j < keys; ++j, at += rows.element_stride) {
      __builtin_prefetch(at, 0, 2);
      __builtin_prefetch(at + t.count * size - 1, 0, 2);
    }
    return;
  }
  if (of.element_stride != 1 || distinct_rows(t, rows) == 1 || key % (64 / size) >= keys) return;
  const char *row = row_at(x, rows, t.row);
  for (int64_t i = 0; i < t.count; ++i, row += stride) {
    __builtin_prefetch(even ? row : row_at(x, rows, t.row + i), 0, 2);
  }
}
template <class T>
ATTEND_INLINE void ask_for_modifiers(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t keys) {
  if (x.bias.data != nullptr) {
    ask_for_lines(x, t, {x.bias.data, x.bias.element_stride, x.bias.item_stride, x.bias.head_stride},
                  size_of(x.bias.type), key, keys);
  }
  if (x.mask.data != nullptr) {
    ask_for_lines(x, t, {x.mask.data, x.mask.element_stride, x.mask.item_stride, x.mask.head_stride}, 1, key, keys);
  }
}

// Scores of `keys` keys into t.s, [key][lane]; their maxima into t.slice_m(). k and v: K and V from the first key on. `adds`:
// bias and mask are looked at next; `hides`: what the mask is known to hide (hidden_of) is -inf.
template <class T, int MV>
void score_tiles(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t keys, MatrixRef<const T> k,
                 MatrixRef<const T> v, bool adds, bool hides) {
  constexpr int NR = score_columns<T, MV>, W = kLanes<T>, QL = MV * W;
  vec<T> top[MV];
  for (int i = 0; i < MV; ++i) top[i] = broadcast(kMinusInfinity<T>);
  const int64_t k_item = k.col_stride, width = keys <= NR ? keys : balanced(keys, NR);
  for (int64_t j = 0; j < keys; j += width) {
    with_constant<NR>(
        smaller(width, keys - j), [&](auto nr) __attribute__((always_inline)) {
          Tile<T, MV, decltype(nr)::value> tile;
          tile.zero();
          const T *at = k.data + j * k_item;
          if (x.far && MV == 1 && decltype(nr)::value == NR) {
            // A line of the keys two tiles on, and one of this tile's values, for each feature.
            const char *const keys_ahead = reinterpret_cast<const char *>(at + 2 * NR * k_item);
            const intptr_t apart =
                reinterpret_cast<intptr_t>(v.data + j * v.col_stride) - reinterpret_cast<intptr_t>(keys_ahead);
            const Prefetches ahead = {keys_ahead, apart, NR * static_cast<int64_t>(sizeof(T))};
            tile.accumulate(x.features, t.queries, QL, at, k.row_stride, k_item, ahead);
          } else {
            tile.template accumulate<false>(x.features, t.queries, QL, at, k.row_stride, k_item, W);
          }
          if (adds) ask_for_modifiers(x, t, key + j, decltype(nr)::value);
          T *s = t.s + j * QL;
          const auto put = [&](int i, int jj, vec<T> score) __attribute__((always_inline)) {
            store(s + jj * QL + i * W, score);
            top[i] = maximum(score, top[i]);
          };
          if (!hides) return tile.each(put);
          tile.each([&](int i, int jj, vec<T> score) __attribute__((always_inline)) {
            const int64_t of = key + j + jj;
            put(i, jj, HiddenKeys<T>::hide(hidden_of(x, of, t.row) + i * W, of % kSegment, score));
          });
        });
  }
  for (int i = 0; i < MV; ++i) store(t.slice_m() + i * W, top[i]);
}

template <class T>
ATTEND_INLINE void scores_of(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t keys,
                             MatrixRef<const T> k, MatrixRef<const T> v, bool adds, bool hides) {
  with_constant<Tiles<T>::kScoreVectors>(
      t.vectors, [&](auto mv) __attribute__((always_inline)) {
        score_tiles<T, decltype(mv)::value>(x, t, key, keys, k, v, adds, hides);
      });
}

}  // namespace
}  // namespace attend
