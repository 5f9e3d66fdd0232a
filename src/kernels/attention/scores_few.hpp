// Scores and weights for few rows, as in decoding: lanes are keys.
//
// With lanes = rows most lanes would be empty, and every key would cost D broadcasts. Here squares of kLanes keys and
// kLanes features are turned in registers as they are loaded, so that each lane holds one key's chain of multiply-adds
// over the features: the same chain, and the same bits. A square takes the shuffles of each_column and kLanes FMAs a
// row, where the other tile takes kLanes x kLanes FMAs for all rows it has room for: ahead up to kLanes / 2 of them.
#pragma once

#include "kernels/attention/modifiers.hpp"
#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// Scores of kLanes keys, a line a row, into [key][lane] like those of score_tiles. (Rare, and so not inlined.)
template <class T>
__attribute__((noinline)) void store_turned(int rows, int64_t keys, const T *lines, T *s) {
  constexpr int W = kLanes<T>;
  vec<T> r[W];
  ATTEND_UNROLL
  for (int q = 0; q < W; ++q) r[q] = q < rows ? load(lines + q * W) : broadcast(T(0));
  transpose(r);
  ATTEND_UNROLL
  for (int i = 0; i < W; ++i) {
    if (i < keys) store(s + i * W, r[i]);
  }
}

// Columns of S that are contiguous, to where they lie side by side: keys that a page's end parts. (Rare, and so not inlined.)
template <class T, class S>
__attribute__((noinline)) void gather_keys(const StagedPart<T> &k, int64_t key, int64_t keys, S *to) {
  k.each_page(key, key + keys, [&](int64_t, int64_t count, const void *data) {
    const S *from = static_cast<const S *>(data);
    for (int64_t j = 0; j < count; ++j, from += k.at.col_stride, to += k.rows) {
      for (int64_t i = 0; i < k.rows; ++i) to[i] = from[i];
    }
  });
}

// Lines are asked for from the first byte on: of what begins within one there is one more, which pages do not share with what
// follows. (Pages of 16, malloc's 16 bytes off a line: 0.83 to 0.95 as fast without; by AVX2 nothing is gained.)
ATTEND_INLINE void ask_for_last_line(const void *first, int64_t bytes) {
  if ((reinterpret_cast<uintptr_t>(first) & 63) != 0) {
    __builtin_prefetch(static_cast<const char *>(first) + bytes - 1, 0, 2);
  }
}

// G times kLanes keys from key j of the slice on, the last of them perhaps fewer: scores into t.s, maxima into `top`.
template <class T, int NQ, class S, int G>
ATTEND_INLINE void few_keys(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                            const StagedPart<T> &part, int64_t j, bool turned, const KeyPiece **pieces,
                            vec<T> (&top)[NQ]) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(S));
  const int64_t value_bytes = size_of(slice.v.type) * x.value_features;
  const S *k[G];
  const char *next[G], *later[G];  // values beside the group, and keys some 16 KiB on
  int64_t k_item = slice.k.col_stride;
  vec<T> acc[G][NQ];
  const int64_t keys = smaller<int64_t>(W, slice.size() - j);  // of each group: W if there are several
  const bool asks = kScoresAskForKeys<T> && x.far;
  const int64_t behind = asks ? W * (1 + (16 << 10) / (W * part.column_bytes + 1)) : 0;
  bool parted = false;
  // (Were any loop over g not unrolled, acc would not lie in registers.)
  ATTEND_UNROLL
  for (int g = 0; g < G; ++g) {
    const KeyPiece *&piece = *pieces;
    const int64_t key = j + g * W;
    while (key >= piece->key + piece->keys) ++piece;
    k[g] = static_cast<const S *>(piece->data) + (key - piece->key) * k_item;
    next[g] = x.far ? static_cast<const char *>(piece->ahead) + (key - piece->key) * value_bytes : nullptr;
    later[g] = asks ? key_asked(x, part, slice.begin + key + behind) : nullptr;
    if (asks) {
      ask_for_last_line(next[g], W * value_bytes);
      ask_for_last_line(later[g], W * x.features * static_cast<int64_t>(sizeof(S)));
    }
    parted |= key + keys > piece->key + piece->keys;
    ATTEND_UNROLL
    for (int q = 0; q < NQ; ++q) acc[g][q] = broadcast(T(0));
  }
  if (parted) {
    k_item = x.features;
    S *room = reinterpret_cast<S *>(x.scratch + x.layout.copied);
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g, room += W * k_item) {
      gather_keys(part, slice.begin + j + g * W, keys, room);
      k[g] = room;
    }
  }
  int64_t f = 0;
  const T *query = t.queries;  // in one vector's lanes: constant offsets leave registers for the rows of K
  for (; keys == W && f + W <= x.features; f += W) {
    if (x.far && !asks && f % kLine == 0) {
      ATTEND_UNROLL
      for (int g = 0; g < G; ++g) {
        ATTEND_UNROLL
        for (int i = 0; i < W; ++i) __builtin_prefetch(next[g] + (f / kLine * W + i) * 64, 0, 2);
      }
    }
    // As many lines of each as the square has, from end to end, one by one between its columns. (All before the first: 32
    // sequences of 17 to 4096 keys took 1.03 times as long in f32, 1.11 in bf16, 1.05 in i8.)
    const auto ask = [&](int g, int i) __attribute__((always_inline)) {
      constexpr int kLines = W * W * static_cast<int>(sizeof(S)) / 64, kColumns = kLines > 0 ? W / kLines : W;
      if (!asks || i % kColumns != 0) return;
      __builtin_prefetch(later[g] + (f / W * kLines + i / kColumns) * 64, 0, 2);
      __builtin_prefetch(next[g] + (f / W * kLines + i / kColumns) * 64, 0, 2);
    };
    if constexpr (kOwnColumnsOfSquares<S>) {
      const S *square[G];
      ATTEND_UNROLL
      for (int g = 0; g < G; ++g) square[g] = k[g] + f;
      columns_of(
          square, k_item, [&](int i, const vec<T>(&column)[G]) __attribute__((always_inline)) {
            ATTEND_UNROLL
            for (int g = 0; g < G; ++g) ask(g, i);
            ATTEND_UNROLL
            for (int q = 0; q < NQ; ++q) {
              const vec<T> y = broadcast(query[i * W + q]);
              ATTEND_UNROLL
              for (int g = 0; g < G; ++g) acc[g][q] = fma(column[g], y, acc[g][q]);
            }
          });
    } else {
      ATTEND_UNROLL
      for (int g = 0; g < G; ++g) {
        each_column<T>(
            k[g] + f, k_item, [&](int i, vec<T> column) __attribute__((always_inline)) {
              ask(g, i);
              ATTEND_UNROLL
              for (int q = 0; q < NQ; ++q) acc[g][q] = fma(column, broadcast(query[i * W + q]), acc[g][q]);
            });
      }
    }
    query += W * W;
  }
  for (; f < x.features; f += W) {  // partial squares
    const int64_t depth = smaller<int64_t>(W, x.features - f);
    T square[W * W];
    ATTEND_UNROLL
    for (int g = 0; g < G; ++g) {
      pack_end(W, keys, depth, k[g] + f, k_item, square);
      for (int64_t i = 0; i < depth; ++i) {
        ATTEND_UNROLL
        for (int q = 0; q < NQ; ++q) {
          acc[g][q] = fma(load(square + i * W), broadcast(query[i * W + q]), acc[g][q]);
        }
      }
    }
    query += depth * W;
  }
  T lines[NQ * W];
  ATTEND_UNROLL
  for (int g = 0; g < G; ++g) {
    const int64_t key = j + g * W;
    if (scales_keys(x.k_scale)) {
      const vec<T> scale = scales_of(x, x.k_scale, x.pages.of_k_scale, slice.begin + key, keys);
      ATTEND_UNROLL
      for (int q = 0; q < NQ; ++q) acc[g][q] = acc[g][q] * scale;
    }
    ATTEND_UNROLL
    for (int q = 0; q < NQ; ++q) {
      acc[g][q] = only(acc[g][q], keys);
      top[q] = maximum(acc[g][q], top[q]);
      store(turned ? lines + q * W : t.s + q * x.layout.keys + key, acc[g][q]);
    }
    if (turned) store_turned(NQ, keys, lines, t.s + key * W);
  }
}

// Scores of the slice into t.s, and their maxima into t.slice_m(): [row][key] with whole vectors of keys, the last filled
// up with -inf; or, if `turned`, [key][lane]. One row alone would wait for its chains, a multiply-add every four cycles:
// two groups of keys beside each other (6 to 15 % of a call on 8 and 16 bits, 3 to 9 % on f32 from the caches).
template <class T, int NQ, class S>
void few_scores(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const StagedPart<T> &part,
                const KeyPieces &pieces, bool turned) {
  constexpr int W = kLanes<T>, kGroups = NQ == 1 ? 2 : 1;
  const KeyPiece *piece = pieces.piece;
  vec<T> top[NQ];
  ATTEND_UNROLL
  for (int q = 0; q < NQ; ++q) top[q] = broadcast(kMinusInfinity<T>);
  int64_t j = 0;
  for (; j + kGroups * W <= slice.size(); j += kGroups * W) {
    few_keys<T, NQ, S, kGroups>(x, t, slice, part, j, turned, &piece, top);
  }
  for (; j < slice.size(); j += W) few_keys<T, NQ, S, 1>(x, t, slice, part, j, turned, &piece, top);
  T maxima[W] = {};
  ATTEND_UNROLL
  for (int q = 0; q < NQ; ++q) {
    T lanes[W];
    store(lanes, top[q]);
    for (int l = 1; l < W; ++l) lanes[0] = larger(lanes[0], lanes[l]);
    maxima[q] = lanes[0];
  }
  store(t.slice_m(), load(maxima));
}

// The weights of the slice in place of its scores, both [row][key]; the sum of each row, one chain in key order, in its
// lane.
template <class T, int NQ>
vec<T> few_weights(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice) {
  constexpr int W = kLanes<T>;
  ATTEND_UNROLL
  for (int q = 0; q < NQ; ++q) {
    const vec<T> shift = shift_of(broadcast(t.slice_m()[q]));
    T *s = t.s + q * x.layout.keys;
    for (int64_t j = 0; j < slice.size(); j += W) store(s + j, exp_of_difference(load(s + j), shift));
  }
  T sums[W] = {};
  for (int64_t j = 0; j < slice.size(); ++j) {
    ATTEND_UNROLL
    for (int q = 0; q < NQ; ++q) sums[q] = sums[q] + t.s[q * x.layout.keys + j];
  }
  return load(sums);
}

}  // namespace
}  // namespace attend
