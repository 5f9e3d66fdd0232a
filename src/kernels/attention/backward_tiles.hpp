// The five products of the backward pass, on the tile of kernels/tile.hpp. Two have lanes = queries, as the scores of the
// forward pass, and end in what becomes of each element; three have lanes = features and are added to sums in memory.
#pragma once

#include "kernels/attention/modifiers.hpp"
#include "kernels/attention/online_softmax.hpp"

namespace attend {
namespace {

// Rows of a query tile here: always whole, lanes behind the last query being 0 and without weight.
template <class T>
constexpr int64_t kBackwardRows = Tiles<T>::kScoreVectors *kLanes<T>;

// Calls f(i, Int<w>()) from `begin` to `end` with as many of N as fit, then of a third of it, then one by one: three
// shapes of the tile, where every width would be N.
template <int N, class F>
ATTEND_INLINE void in_widths(int64_t begin, int64_t end, const F &f) {
  constexpr int kThird = N / 3 > 0 ? N / 3 : 1;
  int64_t i = begin;
  for (; i + N <= end; i += N) f(i, Int<N>());
  for (; kThird > 1 && i + kThird <= end; i += kThird) f(i, Int<kThird>());
  for (; i < end; ++i) f(i, Int<1>());
}
// The same where the last width may reach beyond the end: N, two thirds or a third of it.
template <int N, class F>
ATTEND_INLINE void in_widths_beyond(int64_t begin, int64_t end, const F &f) {
  constexpr int kThird = N / 3 > 0 ? N / 3 : 1, kTwo = 2 * N / 3 > kThird ? 2 * N / 3 : kThird + 1;
  int64_t i = begin;
  for (; i + kTwo < end; i += N) f(i, Int<N>());
  if (i + kThird < end) return f(i, Int<kTwo>());
  if (i < end) f(i, Int<kThird>());
}

// What a query tile's products with K and V need, side by side in memory.
template <class T>
struct TurnedTile {
  const T *queries, *d_out;  // [feature][row]
  const T *shift, *delta;
  T *weights, *d_scores;  // [key][row]
};

// exp(score - shift); 0 of what is hidden, -inf, although a shift may be NaN.
template <class T>
ATTEND_INLINE vec<T> weight_of(vec<T> score, vec<T> shift) {
  return select(score == broadcast(kMinusInfinity<T>), broadcast(T(0)), exp_of_difference(score, shift));
}

// NR keys: scores, or if `kWeighs` the weights, for they are modified no more and no row has a factor.
template <class T, int NR, bool kWeighs>
ATTEND_INLINE void backward_scores(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t j,
                                   const MatrixRef<const T> &k) {
  constexpr int MV = Tiles<T>::kScoreVectors, W = kLanes<T>;
  Tile<T, MV, NR> tile;
  tile.zero();
  tile.template accumulate<false>(x.features, t.queries, MV * W, k.data + j * k.col_stride, k.row_stride, k.col_stride,
                                  W);
  T *const s = t.weights + j * MV * W;
  tile.each([&](int i, int jj, vec<T> score) __attribute__((always_inline)) {
    store(s + jj * MV * W + i * W, kWeighs ? weight_of(score, load(t.shift + i * W)) : score);
  });
}

// NR keys: dS = P (dP - delta), exactly 0 where P is: a value that is hidden may be NaN.
template <class T, int NR>
ATTEND_INLINE void score_gradients(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t j,
                                   const MatrixRef<const T> &v) {
  constexpr int MV = Tiles<T>::kScoreVectors, W = kLanes<T>;
  Tile<T, MV, NR> tile;
  tile.zero();
  tile.template accumulate<false>(x.value_features, t.d_out, MV * W, v.data + j * v.col_stride, v.row_stride,
                                  v.col_stride, W);
  const T *const p = t.weights + j * MV * W;
  T *const ds = t.d_scores + j * MV * W;
  const vec<T> zero = broadcast(T(0));
  tile.each([&](int i, int jj, vec<T> dp) __attribute__((always_inline)) {
    const vec<T> weight = load(p + jj * MV * W + i * W);
    store(ds + jj * MV * W + i * W, select(weight == zero, zero, weight * (dp - load(t.delta + i * W))));
  });
}

// Keys [begin, end) of the chunk, K and V from its first key on, whose scores are products and no more: the weights of a few
// keys, then dS while they are in the L1. (Not inlined, as output_tile.)
template <class T>
__attribute__((noinline)) void plain_tiles(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t begin,
                                           int64_t end, const MatrixRef<const T> &k, const MatrixRef<const T> &v) {
  in_widths<Tiles<T>::kScoreColumns>(
      begin, end, [&](int64_t j, auto nr) __attribute__((always_inline)) {
        backward_scores<T, decltype(nr)::value, true>(x, t, j, k);
        score_gradients<T, decltype(nr)::value>(x, t, j, v);
      });
}

// The weights alone, for d_v alone.
template <class T>
__attribute__((noinline)) void plain_weights(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t begin,
                                             int64_t end, const MatrixRef<const T> &k) {
  in_widths<Tiles<T>::kScoreColumns>(
      begin, end, [&](int64_t j, auto nr) __attribute__((always_inline)) {
        backward_scores<T, decltype(nr)::value, true>(x, t, j, k);
      });
}

template <class T>
__attribute__((noinline)) void raw_scores(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t begin,
                                          int64_t end, const MatrixRef<const T> &k) {
  in_widths<Tiles<T>::kScoreColumns>(
      begin, end, [&](int64_t j, auto nr) __attribute__((always_inline)) {
        backward_scores<T, decltype(nr)::value, false>(x, t, j, k);
      });
}

template <class T>
__attribute__((noinline)) void gradients_of_scores(const AttentionBlock<T> &x, const TurnedTile<T> &t, int64_t begin,
                                                   int64_t end, const MatrixRef<const T> &v) {
  in_widths<Tiles<T>::kScoreColumns>(
      begin, end, [&](int64_t j, auto nr) __attribute__((always_inline)) {
        score_gradients<T, decltype(nr)::value>(x, t, j, v);
      });
}

// A piece of a chain: `depth` rows of a panel of features, and the numbers they are multiplied by.
template <class T>
struct ChainPiece {
  int64_t depth;
  const T *panel, *b;
};
template <class T>
struct Chain {
  static constexpr int64_t kMost = kBackwardQueries / kBackwardRows<T>;
  int count;
  ChainPiece<T> piece[kMost];
  int64_t panel_k, b_k;
};

// sums[j][f ..] += the chain, MV vectors of features (the last partial if kPartial), NR columns of which `columns` are real.
template <class T, int MV, int NR, bool kPartial, class Stride>
__attribute__((noinline)) void add_chain(const Chain<T> &chain, int64_t f, int64_t j, Stride b_col, int64_t step,
                                         int64_t columns, int64_t features, T *sums) {
  constexpr int W = kLanes<T>;
  const int64_t last = kPartial ? features - f - (MV - 1) * W : W;
  Tile<T, MV, NR> tile;
  tile.zero();
  for (int n = 0; n < chain.count; ++n) {
    const ChainPiece<T> &p = chain.piece[n];
    tile.template accumulate<kPartial>(p.depth, p.panel + f, chain.panel_k, p.b + j * step, chain.b_k, b_col, last);
  }
  const Tail<T> tail(last);
  T *to = sums + j * features + f;
  ATTEND_UNROLL
  for (int jj = 0; jj < NR; ++jj, to += features) {
    if (NR > 1 && jj >= columns) break;
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) {
      if (kPartial && i == MV - 1) {
        store(to + i * W, load(to + i * W, tail) + tile.acc[i][jj], tail);
      } else {
        store(to + i * W, load(to + i * W) + tile.acc[i][jj]);
      }
    }
  }
}

// All features of the columns [begin, end), whose numbers lie `step` elements apart.
template <class T, class Stride>
void add_chains(const Chain<T> &chain, int64_t begin, int64_t end, Stride b_col, int64_t step, int64_t features,
                T *sums) {
  constexpr int W = kLanes<T>, MV = Tiles<T>::kOutVectors;
  in_widths_beyond<Tiles<T>::kOutQueries>(
      begin, end, [&](int64_t j, auto nr) __attribute__((always_inline)) {
        constexpr int NR = decltype(nr)::value;
        const int64_t columns = smaller<int64_t>(NR, end - j);
        int64_t f = 0;
        for (; f + MV * W <= features; f += MV * W) {
          add_chain<T, MV, NR, false>(chain, f, j, b_col, step, columns, features, sums);
        }
        for (; f + W <= features; f += W) {
          add_chain<T, 1, NR, false>(chain, f, j, b_col, step, columns, features, sums);
        }
        if (f < features) add_chain<T, 1, NR, true>(chain, f, j, b_col, step, columns, features, sums);
      });
}

}  // namespace
}  // namespace attend
