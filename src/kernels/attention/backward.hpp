// Gradients of attention from one chunk of keys: the weights are computed again from q, k and lse, so that nothing of order
// Nq times Nk is kept.
//
// Blocks of 64 queries go past the chunk. Each is worked on in query tiles, whose rows are lanes as in the forward pass, so
// that scores, softcap, biases and masks are its very code, and the scores its bits. Then, with P and dS of the block in the
// L2, [tile][key][row]:
//
//     d_v += P dO, d_k += dS Q     lanes = features, panel = the rows of dO and Q, one chain over the block's queries
//     d_q += dS^T K                lanes = features, panel = K, one chain over the chunk's keys
//
// Each chain is added to a sum in memory, in the order of blocks and chunks. A key that a query does not see has P = dS = 0
// there, which adds exactly nothing: skipping it or not is the same. A sum that nobody wants is null, and neither it nor what
// serves it alone is computed: of the five products d_q needs three, d_k and d_v together four, d_v alone two.
//
// Lanes = keys, K and V turned once for all queries, need no turned queries but a second code for all that modifies scores;
// 1 to 2 % faster in a sketch where nothing does.
#pragma once

#include "kernels/attention/backward_tiles.hpp"
#include "kernels/attention/hidden_values.hpp"

namespace attend {
namespace {

// So many rows on.
ATTEND_INLINE void advance(int64_t rows, StoredRows *r) {
  if (r->data != nullptr) r->data = static_cast<const char *>(r->data) + rows * r->item_stride * size_of(r->type);
}

// The queries from `row` on as a block of their own, whose positions count from there.
template <class T>
AttentionBlock<T> block_from(const AttentionBlock<T> &all, int64_t row) {
  AttentionBlock<T> x = all;
  advance(row, &x.q);
  advance(row, &x.bias);
  if (x.mask.data != nullptr) x.mask.data += row * x.mask.item_stride;
  x.items = x.rows = smaller(kBackwardQueries, all.items - row);
  x.key_begin += row * x.key_begin_step;
  x.key_end += row * x.key_end_step;
  x.position += row;
  x.seen = {key_begin(x, 0), key_end(x, x.items - 1)};
  return x;
}

// Whether dS is needed, and with it dP.
template <class T>
ATTEND_INLINE bool wants_d_scores(const BackwardBlock<T> &g) {
  return g.d_q != nullptr || g.d_k != nullptr || g.d_bias.data != nullptr;
}

// Lines of q or dO as a matrix (feature, row) with contiguous columns.
template <class T>
MatrixRef<const T> rows_of_block(const StoredRows &of, int64_t features, int64_t rows, T *room, int64_t stride) {
  const StoredMatrix at = {const_cast<void *>(of.data), of.element_stride, of.item_stride, of.type};
  StagedPart<T> part = {0, rows, features, at, 0, stride == 0 ? nullptr : room, stride, nullptr, 0};
  return part.numbers(0);
}

// A backward block at work.
template <class T>
struct BackwardQueries {
  AttentionBlock<T> x;
  int64_t row;              // of the sequence
  int64_t begin, end;       // the chunk's keys that some query sees
  MatrixRef<const T> k, v;  // from the chunk's first key on
  MatrixRef<const T> q_rows, d_out_rows;
  bool hides;  // some key, to some query
  // What each query tile sees; empty: nothing.
  KeyRange seen[Chain<T>::kMost];
  int64_t tiles;
};

template <class T>
ATTEND_INLINE int64_t rows_in(const BackwardQueries<T> &b, int64_t tile) {
  return smaller(kBackwardRows<T>, b.x.items - tile * kBackwardRows<T>);
}

// A tile's rows of dO and q, turned, and its place in the scratch.
template <class T>
QueryTile<T> begin_backward_tile(const BackwardBlock<T> &g, const BackwardQueries<T> &b, int64_t tile) {
  constexpr int64_t R = kBackwardRows<T>;
  const AttentionBlock<T> &x = b.x;
  QueryTile<T> t;
  t.row = tile * R;
  t.count = rows_in(b, tile);
  t.vectors = Tiles<T>::kScoreVectors;
  t.lanes = R;
  t.s_key = R, t.s_row = 1;
  t.lines = g.scratch + g.layout.lines;
  t.line = R;
  t.queries = g.scratch + g.layout.queries + t.row * x.features;
  t.s = g.scratch + g.layout.weights + tile * Contract<T>::kKeyChunk * R;
  t.output = nullptr;
  begin_tile(x, t);
  if (!wants_d_scores(g)) return t;
  const MatrixRef<const T> &d_out = b.d_out_rows;
  pack_panel<T>(R, t.count, x.value_features, d_out.data + t.row * d_out.col_stride, d_out.col_stride, int64_t{1}, T(1),
                g.scratch + g.layout.d_out + t.row * x.value_features);
  return t;
}

// The softcap's slope 1 - tanh^2 at the scores of the tile's keys, before these are modified.
template <class T>
__attribute__((noinline)) void slopes_of_cap(T cap, const T *scores, int64_t count, T *slopes) {
  const Softcap<T> capped(cap);
  const vec<T> one = broadcast(T(1)), inverse = broadcast(T(1) / cap);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const vec<T> t = capped(load(scores + i)) * inverse;
    store(slopes + i, fma(broadcast(T(0)) - t, t, one));
  }
}

// Whether some row of a tile has one.
template <class T>
ATTEND_INLINE bool has_factors(const T *factor) {
  bool has = false;
  for (int64_t i = 0; i < kBackwardRows<T>; i += kLanes<T>) has |= any(load(factor + i) < broadcast(T(1)));
  return has;
}

// P and dS of the keys of the chunk that one tile sees.
template <class T>
void backward_tile(const BackwardBlock<T> &g, BackwardQueries<T> *b, int64_t tile) {
  constexpr int64_t R = kBackwardRows<T>, kSquare = Contract<T>::kKeyChunk * R;
  const AttentionBlock<T> &x = b->x;
  const QueryTile<T> t = begin_backward_tile(g, *b, tile);
  const TurnedTile<T> turned = {t.queries,
                                g.scratch + g.layout.d_out + t.row * x.value_features,
                                g.shift + b->row + t.row,
                                g.delta + b->row + t.row,
                                t.s,
                                g.scratch + g.layout.d_scores + tile * kSquare};
  const KeyRange any = seen_by_any(x, t), all = seen_by_all(x, t);
  const KeyRun run = {larger(any.begin, b->begin), smaller(any.end, b->end),
                      larger(any.begin, b->begin) < all.begin || smaller(any.end, b->end) > all.end, x.looked_at};
  b->seen[tile] = {run.begin, larger(run.begin, run.end)};
  if (run.begin >= run.end) return;
  const int64_t from = run.begin - g.begin, to = run.end - g.begin;
  const T *const factor = g.factor + b->row + t.row;
  const bool wants = wants_d_scores(g);
  if (!is_modified(x, run) && !has_factors(factor)) {
    return wants ? plain_tiles(x, turned, from, to, b->k, b->v) : plain_weights(x, turned, from, to, b->k);
  }
  raw_scores(x, turned, from, to, b->k);
  T *const slopes = g.scratch + g.layout.cap_slopes + tile * kSquare + from * R;
  if (x.softcap != T(0) && wants) slopes_of_cap(x.softcap, t.s + from * R, (to - from) * R, slopes);
  QueryTile<T> at = t;
  at.s += from * R;
  b->hides |= run.hides;
  if (is_modified(x, run)) b->hides |= modify_scores(x, at, run, ScoresStage::masked, false);
  for (int64_t j = from; j < to; ++j) {
    for (int64_t i = 0; i < R; i += kLanes<T>) {
      T *const s = t.s + j * R + i;
      store(s, weight_of(load(s), load(turned.shift + i)) * load(factor + i));
    }
  }
  if (wants) gradients_of_scores(x, turned, from, to, b->v);
}

// Adds dS to the gradient of the bias, query by query: what queries or keys share is then a sum in their order.
template <class T>
__attribute__((noinline)) void add_bias_gradients(const BackwardBlock<T> &g, const BackwardQueries<T> &b) {
  constexpr int64_t R = kBackwardRows<T>;
  constexpr int W = kLanes<T>;
  const int64_t key_stride = g.d_bias.element_stride;
  for (int64_t tile = 0; tile < b.tiles; ++tile) {
    const KeyRange seen = b.seen[tile];
    const T *const ds = g.scratch + g.layout.d_scores + (tile * Contract<T>::kKeyChunk + seen.begin - g.begin) * R;
    const int64_t keys = seen.end - seen.begin, rows = rows_in(b, tile);
    if (key_stride == 0 && g.d_bias.item_stride == 0) {  // one number for all: squares would add in another order
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < keys; ++j) *g.d_bias.data += ds[j * R + i];
      }
      continue;
    }
    T square[W * W];
    for (int64_t i0 = 0; i0 < rows; i0 += W) {
      const int64_t lanes = smaller<int64_t>(W, rows - i0);
      for (int64_t j = 0; j < keys; j += W) {
        const int64_t count = smaller<int64_t>(W, keys - j);
        pack_panel<T>(W, count, lanes, ds + j * R + i0, R, int64_t{1}, T(1), square);  // [row][key]
        for (int64_t i = 0; i < lanes; ++i) {
          T *const to =
              g.d_bias.data + (b.row + tile * R + i0 + i) * g.d_bias.item_stride + (seen.begin + j) * key_stride;
          if (key_stride == 1) {
            store_some(to, load_some<T>(to, count) + load(square + i * W), count);
          } else {
            for (int64_t k = 0; k < count; ++k) to[k * key_stride] += square[i * W + k];
          }
        }
      }
    }
  }
}

// dS times the softcap's slope.
template <class T>
__attribute__((noinline)) void apply_cap_slopes(const BackwardBlock<T> &g, const BackwardQueries<T> &b) {
  constexpr int64_t R = kBackwardRows<T>, kSquare = Contract<T>::kKeyChunk * R;
  for (int64_t tile = 0; tile < b.tiles; ++tile) {
    T *const ds = g.scratch + g.layout.d_scores + tile * kSquare;
    const T *const slopes = g.scratch + g.layout.cap_slopes + tile * kSquare;
    for (int64_t i = (b.seen[tile].begin - g.begin) * R; i < (b.seen[tile].end - g.begin) * R; i += kLanes<T>) {
      store(ds + i, select(load(ds + i) == broadcast(T(0)), broadcast(T(0)), load(ds + i) * load(slopes + i)));
    }
  }
}

// Sums over the block's queries for each key of the chunk, of the numbers in `of`, [tile][key][row].
template <class T>
void add_to_keys(const BackwardQueries<T> &b, int64_t first, const T *of, const MatrixRef<const T> &rows,
                 int64_t features, T *sums) {
  constexpr int64_t R = kBackwardRows<T>;
  // Keys that the same tiles see: under a causal mask the first of them see fewer.
  for (int64_t from = b.begin; from < b.end;) {
    int64_t to = b.end;
    Chain<T> chain = {0, {}, rows.col_stride, 1};
    for (int64_t tile = 0; tile < b.tiles; ++tile) {
      const KeyRange &seen = b.seen[tile];
      if (from >= seen.end || seen.begin == seen.end) continue;
      if (from < seen.begin) {
        to = smaller(to, seen.begin);
        continue;
      }
      to = smaller(to, seen.end);
      chain.piece[chain.count++] = {rows_in(b, tile), rows.data + tile * R * rows.col_stride,
                                    of + tile * Contract<T>::kKeyChunk * R};
    }
    if (chain.count > 0) add_chains(chain, from - first, to - first, R, R, features, sums);
    from = to;
  }
}

template <class T>
void add_to_queries(const BackwardBlock<T> &g, const BackwardQueries<T> &b) {
  constexpr int64_t R = kBackwardRows<T>;
  for (int64_t tile = 0; tile < b.tiles; ++tile) {
    const KeyRange &seen = b.seen[tile];
    if (seen.begin == seen.end) continue;
    const int64_t from = seen.begin - g.begin;
    const T *const ds = g.scratch + g.layout.d_scores + (tile * Contract<T>::kKeyChunk + from) * R;
    const Chain<T> chain = {1, {{seen.end - seen.begin, b.k.data + from * b.k.col_stride, ds}}, b.k.col_stride, R};
    add_chains(chain, 0, rows_in(b, tile), Adjacent(), 1, b.x.features, g.d_q + (b.row + tile * R) * b.x.features);
  }
}

// to[f] += the chain of number(n) panel[n][f] over the n < count for which seen(n).
template <class T, class Seen, class Number>
ATTEND_INLINE void add_seen(int64_t count, int64_t features, const T *panel, int64_t panel_k, const Seen &seen,
                            const Number &number, T *to) {
  constexpr int W = kLanes<T>;
  for (int64_t f = 0; f < features; f += W) {
    const int64_t lanes = smaller<int64_t>(W, features - f);
    vec<T> acc = broadcast(T(0));
    for (int64_t n = 0; n < count; ++n) {
      if (seen(n)) acc = fma(load_some<T>(panel + n * panel_k + f, lanes), broadcast(number(n)), acc);
    }
    store_some(to + f, load_some<T>(to + f, lanes) + acc, lanes);
  }
}

// The same sums without the terms of what a query does not see, where 0 times K, q or dO would be NaN. Rare, and so
// without tiles.
template <class T>
__attribute__((noinline)) void add_what_is_visible(const BackwardBlock<T> &g, const BackwardQueries<T> &b) {
  constexpr int64_t R = kBackwardRows<T>, kSquare = Contract<T>::kKeyChunk * R;
  const AttentionBlock<T> &x = b.x;
  const T *const p = g.scratch + g.layout.weights, *const ds = g.scratch + g.layout.d_scores;
  const auto at = [&](int64_t row, int64_t key) { return row / R * kSquare + (key - g.begin) * R + row % R; };
  uint64_t rows_of[Contract<T>::kKeyChunk];  // that see each key
  static_assert(kBackwardQueries <= 64, "a bit each");
  for (int64_t key = b.begin; key < b.end; ++key) {
    uint64_t rows = 0;
    for (int64_t i = 0; i < x.items; ++i) rows |= static_cast<uint64_t>(is_visible(x, i, key)) << i;
    rows_of[key - b.begin] = rows;
    const auto seen = [rows](int64_t i) { return (rows >> i & 1) != 0; };
    if (g.d_v != nullptr) {
      add_seen(
          x.items, x.value_features, b.d_out_rows.data, b.d_out_rows.col_stride, seen,
          [&](int64_t i) { return p[at(i, key)]; }, g.d_v + (key - g.begin) * x.value_features);
    }
    if (g.d_k != nullptr) {
      add_seen(
          x.items, x.features, b.q_rows.data, b.q_rows.col_stride, seen, [&](int64_t i) { return ds[at(i, key)]; },
          g.d_k + (key - g.begin) * x.features);
    }
  }
  for (int64_t i = 0; i < x.items && g.d_q != nullptr; ++i) {
    add_seen(
        b.end - b.begin, x.features, b.k.data + (b.begin - g.begin) * b.k.col_stride, b.k.col_stride,
        [&](int64_t n) { return (rows_of[n] >> i & 1) != 0; }, [&](int64_t n) { return ds[at(i, b.begin + n)]; },
        g.d_q + (b.row + i) * x.features);
  }
}

template <class T>
void attention_backward(const BackwardBlock<T> &g) {
  constexpr int64_t R = kBackwardRows<T>;
  static_assert(kBackwardQueries % R == 0, "whole tiles");
  StagedChunk<T> chunk = stage(g.x, g.begin, g.end);
  BackwardQueries<T> b;
  b.k = chunk.keys(g.begin);
  b.v = chunk.values(g.begin);
  bool looked = false, finite_keys = false;  // found when it is first asked for
  for (b.row = 0; b.row < g.x.items; b.row += kBackwardQueries) {
    b.x = block_from(g.x, b.row);
    b.begin = larger(g.begin, b.x.seen.begin);
    b.end = smaller(g.end, b.x.seen.end);
    if (b.begin >= b.end) continue;
    const auto rows = [&](StoredRows of, int64_t features, int64_t room, int64_t stride) {
      return rows_of_block(of, features, b.x.items, g.scratch + room, stride);
    };
    StoredRows d_out = g.d_out;
    advance(b.row, &d_out);
    if (g.d_k != nullptr) b.q_rows = rows(b.x.q, b.x.features, g.layout.query_rows, g.layout.query_stride);
    b.d_out_rows = rows(d_out, b.x.value_features, g.layout.d_out_rows, g.layout.d_out_stride);
    b.hides = false;
    b.tiles = (b.x.items + R - 1) / R;
    for (int64_t tile = 0; tile < b.tiles; ++tile) backward_tile(g, &b, tile);
    if (g.d_bias.data != nullptr) add_bias_gradients(g, b);
    if (b.x.softcap != T(0) && wants_d_scores(g)) apply_cap_slopes(g, b);
    if (b.hides) {
      if (!looked) finite_keys = g.d_q == nullptr || is_finite(b.k, b.x.features, g.end - g.begin);
      looked = true;
      if (!finite_keys || (g.d_k != nullptr && !is_finite(b.q_rows, b.x.features, b.x.items)) ||
          (g.d_v != nullptr && !is_finite(b.d_out_rows, b.x.value_features, b.x.items))) {
        add_what_is_visible(g, b);
        continue;
      }
    }
    if (g.d_v != nullptr)
      add_to_keys(b, g.begin, g.scratch + g.layout.weights, b.d_out_rows, b.x.value_features, g.d_v);
    if (g.d_k != nullptr) add_to_keys(b, g.begin, g.scratch + g.layout.d_scores, b.q_rows, b.x.features, g.d_k);
    if (g.d_q != nullptr) add_to_queries(g, b);
  }
}

}  // namespace
}  // namespace attend
