// o = V P of a slice, folded into the rows' output.
//
// Where the features of V are contiguous, lanes are features: the panel is V in place, b the weights as the softmax left
// them. Otherwise lanes are rows and b is V with any strides. The chain of every element is the same, and so are its
// bits.
#pragma once

#include "kernels/attention/hidden_values.hpp"
#include "kernels/attention/scores.hpp"

namespace attend {
namespace {

template <class T>
ATTEND_INLINE T *sums_of(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  return x.in_place ? row_at(x, x.out, t.row) : t.output;
}

// Calls f(Int<w>()) with w = n, or, where weights are [key][lane], with the least w >= n of N and the even numbers below it:
// half the shapes. The row that an even w has too many is a lane behind the tile's rows, which are even in number: computed, and
// dropped.
template <int N, class Stride, class F>
ATTEND_INLINE void with_width(int64_t n, Stride, const F &f) {
  with_constant<N>(n, f);
}
template <int N, class F>
ATTEND_INLINE void with_width(int64_t n, Adjacent adjacent, const F &f) {
  if constexpr (N > 2) {
    constexpr int kNext = N % 2 == 0 ? N - 2 : N - 1;
    if (n <= kNext) return with_width<kNext>(n, adjacent, f);
  }
  f(Int<N>());
}
// NQ rows from q0 of the tile, of which `rows` exist, MV vectors of features from f (only one, partial, if kPartial). A
// chunk of V does not stay in the L1 from tile to tile: its rows are asked for ahead, a chunk if they come from memory
// and pass by only once (+6 % of the product, 25 % where rows are not aligned, Intel). (Not inlined: among the other
// shapes' variables those of the loop would not all find a register.)
template <class T, class S, int MV, int NQ, bool kPartial, class Stride>
__attribute__((noinline)) void output_tile(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                                           const KeyPieces &pieces, int64_t q0, int64_t rows, int64_t f, T *o,
                                           int64_t ld, Stride s_row) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kRowsAhead = 8;
  const int64_t last_lanes = kPartial ? x.value_features - f - (MV - 1) * W : W;
  const Tail<T> tail(last_lanes);
  const int64_t v_item = slice.v.col_stride;
  Tile<T, MV, NQ> tile;
  tile.zero();
  for (int n = 0; n < pieces.count; ++n) {
    const KeyPiece &piece = pieces.piece[n];
    const S *v = static_cast<const S *>(piece.data) + f;
    const T *weights = t.s + q0 * t.s_row + piece.key * t.s_key;
    if (kPartial) {
      tile.template accumulate<kPartial>(piece.keys, v, v_item, weights, t.s_key, s_row, last_lanes);
    } else {
      // Of far keys those of the next chunk, from end to end, the passes over the features sharing them.
      const bool far = output_asks(x, t);
      const S *next = v + kRowsAhead * v_item;
      if (piece.ahead != nullptr) next = static_cast<const S *>(piece.ahead) + f * (far ? piece.keys : 1);
      if (far) {
        const PanelAhead<T, MV, S, 2> ahead = {next, MV * W};
        tile.accumulate(piece.keys, v, v_item, weights, t.s_key, s_row, ahead);
      } else {
        const PanelAhead<T, MV, S, 3> ahead = {next, v_item};
        tile.accumulate(piece.keys, v, v_item, weights, t.s_key, s_row, ahead);
      }
    }
  }
  // Copies: a store might, for all the compiler knows, change the tile.
  const bool first = slice.first, last = slice.last;
  const T *const old_factor = t.old_factor() + q0, *const new_factor = t.new_factor() + q0,
                 *const finish = t.finish() + q0;
  o += q0 * ld + f;
  ATTEND_UNROLL
  for (int j = 0; j < NQ; ++j, o += ld) {
    if (NQ > 1 && j >= rows) break;
    vec<T> r[MV];
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) {
      r[i] = first ? tile.acc[i][j]
                   : fold_output(kPartial ? load(o + i * W, tail) : load(o + i * W), broadcast(old_factor[j]),
                                 tile.acc[i][j], broadcast(new_factor[j]));
    }
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) {
      if (last) r[i] = finish_output(r[i], broadcast(finish[j]), broadcast(T(0)));
      kPartial ? store(o + i * W, r[i], tail) : store(o + i * W, r[i]);
    }
  }
}

// All features of NQ rows: as many vectors at a time as MV, then its halves.
template <class T, int MV, int NQ, class Stride>
ATTEND_INLINE void output_rows(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                               const KeyPieces &pieces, int64_t q0, int64_t rows, T *o, int64_t ld, Stride s_row) {
  constexpr int W = kLanes<T>;
  const int64_t whole = x.value_features / W * W;
  int64_t f = 0;
  while (f < whole) {
    with_power<MV>((whole - f) / W, [&](auto mv) __attribute__((always_inline)) {
      constexpr int M = decltype(mv)::value;
      output_tile<T, T, M, NQ, false>(x, t, slice, pieces, q0, rows, f, o, ld, s_row);
      f += M * W;
    });
  }
  if (whole < x.value_features) output_tile<T, T, 1, NQ, true>(x, t, slice, pieces, q0, rows, whole, o, ld, s_row);
}

template <class T, int MV, int NQ, class Stride>
void output_tiles(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const KeyPieces &pieces,
                  Stride s_row) {
  T *o = sums_of(x, t);
  for (int64_t q = 0, groups = (t.count + NQ - 1) / NQ; q < t.count; --groups) {
    const int64_t rows = (t.count - q + groups - 1) / groups;
    with_width<NQ>(
        rows, s_row, [&](auto nq) __attribute__((always_inline)) {
          constexpr int N = decltype(nq)::value;
          const int64_t real = smaller<int64_t>(N, t.count - q);
          output_rows<T, MV, N>(x, t, slice, pieces, q, real, o, x.ld, s_row);
          q += real;
        });
  }
}

// Whether V is read where it lies, although its type or pages give it room for a copy. Narrower elements by few rows, in
// whole vectors; pages where all keys of a slice are wanted.
template <class T>
ATTEND_INLINE bool reads_stored(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeyRuns &runs,
                                const StagedPart<T> &v) {
  if (x.v.row_stride != 1 || (v.pages != nullptr && (!v.is_piecewise() || runs.count != 1))) return false;
  return !is_narrow<T>(v.at.type) || (t.count <= kFewRows<T> && x.value_features % kLanes<T> == 0);
}

// Narrower elements: few shapes, one, two and four rows at a time (the third row may be none).
template <class T>
void output_of_stored(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                      const KeyPieces &pieces) {
  constexpr int kRows = kFewRows<T> < 4 ? kFewRows<T> : 4;
  T *const o = sums_of(x, t);
  with_key_or_value<T>(slice.v.type, [&](auto stored) {
    using S = decltype(stored);
    if constexpr (!kIsSame<T, S>) {
      for (int64_t q = 0; q < t.count; q += kRows) {
        const int64_t rows = smaller<int64_t>(kRows, t.count - q);
        // (Its weights, which nobody wrote, must not raise the flags of what the scratch held.)
        for (int64_t j = 0; rows == 3 && t.s_row != 1 && j < slice.size(); j += kLanes<T>) {
          store(t.s + (q + rows) * t.s_row + j, broadcast(T(0)));
        }
        with_power_above<kRows>(rows, [&](auto nq) {
          constexpr int NQ = decltype(nq)::value, MV = NQ < 4 ? Tiles<T>::kFewVectors : Tiles<T>::kGroupVectors;
          for (int64_t f = 0; f < x.value_features;) {
            with_power<MV>((x.value_features - f) / kLanes<T>, [&](auto mv) {
              constexpr int M = decltype(mv)::value;
              output_tile<T, S, M, NQ, false>(x, t, slice, pieces, q, rows, f, o, x.ld, t.s_row);
              f += M * kLanes<T>;
            });
          }
        });
      }
    }
  });
}

template <class T>
ATTEND_INLINE void output_by_features(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                                      const KeyPieces &pieces) {
  if (is_narrow<T>(slice.v.type)) return output_of_stored(x, t, slice, pieces);
  if constexpr (Tiles<T>::kGroupVectors > Tiles<T>::kOutVectors) {
    if (t.count == 4 && t.s_row != 1) return output_tiles<T, Tiles<T>::kGroupVectors, 4>(x, t, slice, pieces, t.s_row);
  }
  if (t.count <= Tiles<T>::kFewQueries) {
    output_tiles<T, Tiles<T>::kFewVectors, Tiles<T>::kFewQueries>(x, t, slice, pieces, t.s_row);
  } else if (t.s_row == 1) {
    output_tiles<T, Tiles<T>::kOutVectors, Tiles<T>::kOutQueries>(x, t, slice, pieces, Adjacent());
  } else {
    output_tiles<T, Tiles<T>::kOutVectors, kFewRows<T>>(x, t, slice, pieces, t.s_row);
  }
}

// The turned tile: lanes = rows, b = V with any strides; o is [feature][lane] in the scratch.
template <class T, int MV>
void output_by_rows(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                    const KeyPieces &pieces) {
  constexpr int NR = score_columns<T, MV>, W = kLanes<T>;
  const MatrixRef<const T> v = slice.values();
  const int64_t width = balanced(x.value_features, NR);
  for (int64_t f = 0; f < x.value_features; f += width) {
    with_constant<NR>(
        smaller(width, x.value_features - f), [&](auto nr) __attribute__((always_inline)) {
          Tile<T, MV, decltype(nr)::value> tile;
          tile.zero();
          for (int n = 0; n < pieces.count; ++n) {
            const KeyPiece &piece = pieces.piece[n];
            const T *const at = static_cast<const T *>(piece.data) + f * v.row_stride;
            tile.template accumulate<false>(piece.keys, t.s + piece.key * t.lanes, t.lanes, at, v.col_stride,
                                            v.row_stride, W);
          }
          tile.each([&](int i, int j, vec<T> acc) __attribute__((always_inline)) {
            T *at = t.output + (f + j) * t.lanes + i * W;
            vec<T> r = slice.first
                           ? acc
                           : fold_output(load(at), load(t.old_factor() + i * W), acc, load(t.new_factor() + i * W));
            if (slice.last) r = finish_output(r, load(t.finish() + i * W), broadcast(T(0)));
            store(at, r);
          });
        });
  }
}

// `finite`: nothing that the tile does not see can spoil a sum.
template <class T>
void output_slice(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const KeyRuns &runs,
                  const StagedChunk<T> &chunk, bool finite) {
  if (x.value_features == 0) return;  // lse and scores may be wanted all the same
  if (!finite) {
    return output_without_hidden(x, t, slice, sums_of(x, t), x.by_features ? x.ld : 1, x.by_features ? 1 : t.lanes);
  }
  KeyPieces pieces;
  if (!output_asks(x, t)) {
    chunk.v.pieces(runs, slice.begin, nullptr, 0, &pieces);
  } else if (chunk.end < x.seen.end) {
    chunk.v.pieces(runs, slice.begin, &chunk.k, Contract<T>::kKeyChunk, &pieces);
  } else if (x.next.data != nullptr) {
    const StagedPart<T> next = next_keys(x, chunk.k);
    chunk.v.pieces(runs, slice.begin, &next, -chunk.begin, &pieces);
  } else {  // what is here already
    chunk.v.pieces(runs, slice.begin, &chunk.v, 0, &pieces);
  }
  if (x.by_features) return output_by_features(x, t, slice, pieces);
  with_constant<Tiles<T>::kScoreVectors>(
      t.vectors, [&](auto mv)
                     __attribute__((always_inline)) { output_by_rows<T, decltype(mv)::value>(x, t, slice, pieces); });
}

template <class T>
void clear_output(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  constexpr int W = kLanes<T>;
  const int64_t step = x.out.element_stride;
  for (int64_t i = 0; i < t.count; ++i) {
    T *const to = row_at(x, x.out, t.row + i);
    for (int64_t f = 0; f < x.value_features; f += W) {
      store_lanes(to + f * step, step, smaller<int64_t>(W, x.value_features - f), broadcast(T(0)));
    }
  }
}

// What the last slice left to do: the factors, unless it `finished`, and the way from the scratch to `out`.
template <class T>
void write_output(const AttentionBlock<T> &x, const QueryTile<T> &t, bool finished) {
  const bool in_out = x.in_place || x.spans;
  if (in_out && finished) return;
  constexpr int W = kLanes<T>;
  const int64_t row = x.by_features ? x.value_features : 1, step = x.out.element_stride,
                feature = in_out          ? step
                          : x.by_features ? 1
                                          : t.lanes;
  for (int64_t i = 0; i < t.count; ++i) {
    const vec<T> factor = broadcast(finished ? T(1) : t.finish()[i]);
    T *const to = row_at(x, x.out, t.row + i);
    const T *const o = in_out ? to : t.output + i * row;
    for (int64_t f = 0; f < x.value_features; f += W) {
      const int64_t lanes = smaller<int64_t>(W, x.value_features - f);
      const vec<T> of_row = load_lanes<T>(o + f * feature, feature, lanes);
      store_lanes(to + f * step, step, lanes, finish_output(of_row, factor, broadcast(T(0))));
    }
  }
}

}  // namespace
}  // namespace attend
