// Softmax of contiguous columns: lanes run down the column.
//
// A group of columns, as many as stay in the L1, goes through three passes: maxima; exponentials and sums; division. What
// is horizontal, the reduction over the lanes, is done for all columns of the group at once by a transposition in
// registers.
//
// The order of the sum is part of the contract (Contract<T>): element i of a chunk of 512 belongs to virtual lane i
// mod 16, and is added in parts of 8, lest one large element see its last bits rounded thirty times; the 16 lanes are
// added as a tree (l, l+8), (l, l+4), (l, l+2), (l, l+1); the chunks' sums are folded in order, compensated. Missing
// elements add +0.
#pragma once

#include "kernels/softmax_short.hpp"

namespace attend {
namespace {

// Lane vectors of kLanes columns, one behind the other, to one vector with a column a lane: combined as a tree.
template <class T, class F>
ATTEND_INLINE vec<T> across(const T *lanes, const F &combine) {
  constexpr int W = kLanes<T>;
  vec<T> r[W];
  ATTEND_UNROLL
  for (int c = 0; c < W; ++c) r[c] = load(lanes + c * W);
  transpose(r);
  ATTEND_UNROLL
  for (int half = W / 2; half > 0; half /= 2) {
    ATTEND_UNROLL
    for (int l = 0; l < half; ++l) r[l] = combine(r[l], r[l + half]);
  }
  return r[0];
}

template <class T>
struct Max {
  ATTEND_INLINE vec<T> operator()(vec<T> a, vec<T> b) const { return maximum(a, b); }
};
template <class T>
struct Add {
  ATTEND_INLINE vec<T> operator()(vec<T> a, vec<T> b) const { return a + b; }
};

// The sums of up to kLanes columns from the lanes of their chunks, in order: those of kLanes chunks, of whichever columns,
// are added up together. (Of whole lines: vectors across two of them are slow to come back from a store, 4 % of the whole.)
template <class T>
struct ChunkSums {
  static constexpr int W = kLanes<T>;
  alignas(64) T sums[W], errors[W], lanes[W * W];
  int64_t column_of[W], filled = 0;

  ATTEND_INLINE ChunkSums() {
    store(sums, broadcast(T(0)));
    store(errors, broadcast(T(0)));
  }
  ATTEND_INLINE void add(int64_t column, vec<T> of_chunk) {
    store(lanes + filled * W, of_chunk);
    column_of[filled] = column;
    if (++filled == W) fold();
  }
  __attribute__((noinline)) void fold() {
    T terms[W];
    for (int64_t i = filled; i < W; ++i) store(lanes + i * W, broadcast(T(0)));
    store(terms, across(lanes, Add<T>()));
    for (int64_t i = 0; i < filled; ++i) {
      const int64_t c = column_of[i];
      CompensatedSum<T> total = {sums[c], errors[c]};
      total.add(terms[i]);
      sums[c] = total.sum;
      errors[c] = total.error;
    }
    filled = 0;
  }
  // Of each column; nothing is added afterwards.
  ATTEND_INLINE CompensatedSum<vec<T>> all() {
    if (filled > 0) fold();
    return {load(sums), load(errors)};
  }
};

// A group of columns between its passes.
template <class T>
struct ColumnGroup {
  int64_t first = 0, count = 0;
  bool plain;
  const T *s;  // the scores: in x, or, if there is more to them, where the exponentials will be
  T *e;        // the exponentials: in y, or in the scratch if y is not to pass through the caches, or is narrower
  int64_t s_col, e_col;
  T shift[kLanes<T>], factor[kLanes<T>], log_sum[kLanes<T>];
};

// The first pass for rows [begin, end) of column c: the maxima of its lanes. Scores that are not plain are kept in e.
template <class T, bool kPlain>
ATTEND_INLINE vec<T> lane_maxima_of(const SoftmaxBlock<T> &x, const ColumnGroup<T> &g, int64_t c, int64_t begin,
                                    int64_t end) {
  constexpr int W = kLanes<T>, kChains = 4;
  T *const kept = g.e + c * g.e_col;
  vec<T> top[kChains];
  ATTEND_UNROLL
  for (int u = 0; u < kChains; ++u) top[u] = broadcast(kMinusInfinity<T>);
  const bool narrow = !kPlain && has_narrow_scores(x);
  const auto see = [&](int u, int64_t i, int64_t count) __attribute__((always_inline)) {
    const vec<T> s = scores<T, kPlain, true>(x, i, g.first + c, count, narrow);
    if (!kPlain) store_lanes(kept + i, 1, count, s);
    top[u] = maximum(s, top[u]);
  };
  int64_t i = begin;
  for (; i + kChains * W <= end; i += kChains * W) {
    ATTEND_UNROLL
    for (int u = 0; u < kChains; ++u) see(u, i + u * W, W);
  }
  for (; i < end; i += W) see(0, i, smaller<int64_t>(W, end - i));
  return maximum(maximum(top[0], top[1]), maximum(top[2], top[3]));
}

// The same of x of a narrower type, if there is nothing but a scale to its scores.
template <class T>
vec<T> lane_maxima_of_narrow(const SoftmaxBlock<T> &x, const ColumnGroup<T> &g, int64_t c, int64_t begin, int64_t end) {
  constexpr int W = kLanes<T>, kChains = 4;
  const vec<T> scale = broadcast(x.scale), least = broadcast(kMinusInfinity<T>);
  T *const kept = g.e + c * g.e_col;
  vec<T> top[kChains] = {least, least, least, least};
  with_float<T>(x.x.type, [&](auto stored) {
    const auto *from = static_cast<const decltype(stored) *>(element_of(x.x, 0, g.first + c));
    int64_t i = begin;
    for (; i + kChains * W <= end; i += kChains * W) {
      ATTEND_UNROLL
      for (int u = 0; u < kChains; ++u) {
        const vec<T> s = load_as<T>(from + i + u * W) * scale;
        store(kept + i + u * W, s);
        top[u] = maximum(s, top[u]);
      }
    }
    for (; i < end; i += W) {
      const int64_t count = smaller<int64_t>(W, end - i);
      const vec<T> s = only(load_some<T>(from + i, count) * scale, count);
      store_some(kept + i, s, count);
      top[0] = maximum(s, top[0]);
    }
  });
  return maximum(maximum(top[0], top[1]), maximum(top[2], top[3]));
}

template <class T>
__attribute__((noinline)) void lane_maxima(const SoftmaxBlock<T> &x, const ColumnGroup<T> &g, int64_t c, int64_t begin,
                                           int64_t end, T *lanes) {
  if (is_narrow<T>(x.x.type) && x.bias.data == nullptr && x.mask.data == nullptr) {
    return store(lanes, lane_maxima_of_narrow(x, g, c, begin, end));
  }
  store(lanes, g.plain ? lane_maxima_of<T, true>(x, g, c, begin, end) : lane_maxima_of<T, false>(x, g, c, begin, end));
}

// The upper half of the tree: the virtual lanes to those of one vector.
template <class T, int N>
ATTEND_INLINE vec<T> tree_of_vectors(vec<T> (&sums)[N]) {
  ATTEND_UNROLL
  for (int half = N / 2; half > 0; half /= 2) {
    ATTEND_UNROLL
    for (int u = 0; u < half; ++u) sums[u] = sums[u] + sums[u + half];
  }
  return sums[0];
}

// The second pass of one chunk, rows [begin, end) of a column: the sums of its lanes, and the exponentials to e unless
// that is null. What comes after in memory, at `next`, is asked for: into the L1, or, if it is `far` behind, more than stays
// there, into the L2 (columns of 8192: 1.3 times as fast on a Zen 4, most likely since it has more lines outstanding; of 512, in
// the caches, 0.94); if kRoom, what later exponentials will be stored to. After each part of the chunk beside(its begin, its
// end).
template <bool kRoom = false, class T, class F>
ATTEND_INLINE vec<T> lane_sums(const T *s, int64_t begin, int64_t end, vec<T> shift, T *e, const T *next, bool far,
                               const F &beside, const T *room = nullptr) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  constexpr int kMost = kLaneVectors > 4 ? kLaneVectors : 4;  // vectors at work at a time
  constexpr int64_t kPart = Contract<T>::kSoftmaxPart, kVirtual = Contract<T>::kVirtualLanes,
                    kLine = 64 / static_cast<int64_t>(sizeof(T));
  static_assert(kVirtual % W == 0 && kMost % kLaneVectors == 0 && kPart % (kMost * W) == 0,
                "virtual lanes are whole vectors");
  vec<T> sums[kLaneVectors];
  ATTEND_UNROLL
  for (int u = 0; u < kLaneVectors; ++u) sums[u] = broadcast(T(0));
  for (int64_t part = begin; part < end; part += kPart) {
    const int64_t part_end = smaller(end, part + kPart);
    vec<T> of_part[kLaneVectors];
    ATTEND_UNROLL
    for (int u = 0; u < kLaneVectors; ++u) of_part[u] = broadcast(T(0));
    int64_t i = part;
    const auto several = [&](auto vectors) __attribute__((always_inline)) {
      constexpr int kVectors = decltype(vectors)::value;
      for (; i + kVectors * W <= part_end; i += kVectors * W) {
        for (int64_t l = 0; l < kVectors * W; l += kLine) {
          far ? __builtin_prefetch(next + i + l, 0, 2) : __builtin_prefetch(next + i + l);
          if constexpr (kRoom) __builtin_prefetch(room + i + l, 1);
        }
        vec<T> terms[kVectors];
        ATTEND_UNROLL
        for (int v = 0; v < kVectors; ++v) terms[v] = load(s + i + v * W) - shift;
        exp_nonpositive(terms);
        ATTEND_UNROLL
        for (int v = 0; v < kVectors; ++v) of_part[v % kLaneVectors] = of_part[v % kLaneVectors] + terms[v];
        if (__builtin_expect(e != nullptr, 1)) {
          ATTEND_UNROLL
          for (int v = 0; v < kVectors; ++v) store(e + i + v * W, terms[v]);
        }
      }
    };
    several(Int<kMost>());
    if constexpr (kLaneVectors < kMost) several(Int<kLaneVectors>());
    for (; i < part_end; i += kVirtual) {
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) {
        const int64_t at = i + u * W;
        if (at >= part_end) break;
        const int64_t count = smaller<int64_t>(W, part_end - at);
        const vec<T> term = exp_nonpositive(only(load_lanes<T>(s + at, 1, count), count) - shift);
        of_part[u] = of_part[u] + term;
        if (e != nullptr) store_lanes(e + at, 1, count, term);
      }
    }
    ATTEND_UNROLL
    for (int u = 0; u < kLaneVectors; ++u) sums[u] = sums[u] + of_part[u];
    beside(part, part_end);
  }
  return tree_of_vectors<T>(sums);
}

// Rows [begin, end) of a column of y of so many rows: result(i, count, r) puts what belongs at i and behind, `count`
// lanes of a vector, into the array r. Past the caches go whole lines, wherever they begin, and nothing else: the ends of
// columns share theirs.
template <class T, class F>
ATTEND_INLINE void write_rows(T *y, int64_t rows, int64_t begin, int64_t end, bool stream, const F &result) {
  constexpr int W = kLanes<T>, kVectors = 4;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const auto few = [&](int64_t from, int64_t to) __attribute__((always_inline)) {
    for (; from < to; from += W) {
      const int64_t count = smaller<int64_t>(W, to - from);
      vec<T> r[1];
      result(from, count, r);
      store_lanes(y + from, 1, count, r[0]);
    }
  };
  const auto many = [&](int64_t * i, int64_t to, auto put) __attribute__((always_inline)) {
    for (; *i + kVectors * W <= to; *i += kVectors * W) {
      vec<T> r[kVectors];
      result(*i, W, r);
      ATTEND_UNROLL
      for (int v = 0; v < kVectors; ++v) put(y + *i + v * W, r[v]);
    }
  };
  int64_t i = begin;
  if (stream) {
    // Lines are counted as they lie in memory, not as rows are.
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(y) / sizeof(T)) % kLine;
    const int64_t head = past == 0 ? 0 : smaller(rows, kLine - past);
    if (begin == 0) few(0, head);
    i = smaller(rows, begin + head);
    end = smaller(rows, end + head);
    many(
        &i, end, [](T * p, vec<T> r) __attribute__((always_inline)) { stream_store(p, r); });
  } else {
    many(
        &i, end, [](T * p, vec<T> r) __attribute__((always_inline)) { store(p, r); });
  }
  few(i, end);
}

// The same of y of a narrower type.
template <class T, class F>
void round_rows(const StoredMatrix &y, int64_t column, int64_t begin, int64_t end, const F &result) {
  constexpr int W = kLanes<T>;
  with_float<T>(y.type, [&](auto stored) {
    auto *to = static_cast<decltype(stored) *>(element_of(y, 0, column));
    int64_t i = begin;
    for (; i + 4 * W <= end; i += 4 * W) {
      vec<T> r[4];
      result(i, W, r);
      ATTEND_UNROLL
      for (int v = 0; v < 4; ++v) store_as<T>(to + i + v * W, r[v]);
    }
    for (; i < end; i += W) {
      const int64_t count = smaller<int64_t>(W, end - i);
      vec<T> r[1];
      result(i, count, r);
      store_some(to + i, r[0], count);
    }
  });
}

// The last pass for rows [begin, end) of column c.
template <class T>
ATTEND_INLINE void column_result(const SoftmaxBlock<T> &x, const ColumnGroup<T> &g, int64_t c, int64_t begin,
                                 int64_t end) {
  const bool log = x.log;
  const vec<T> factor = broadcast(g.factor[c]), log_sum = broadcast(g.log_sum[c]), shift = broadcast(g.shift[c]);
  const T *const from = log ? g.s + c * g.s_col : g.e + c * g.e_col;
  const auto result = [&](int64_t i, int64_t count, auto &r) __attribute__((always_inline)) {
    int64_t at = i;
    for (vec<T> &v : r) {
      v = load_lanes<T>(from + at, 1, count);
      v = log ? v - shift - log_sum : v * factor;
      at += kLanes<T>;
    }
  };
  if (is_narrow<T>(x.y.type)) return round_rows<T>(x.y, g.first + c, begin, end, result);
  write_rows(own_element<T>(x.y, 0, g.first + c), x.rows, begin, end, x.stream, result);
}

// x and y of a group and the next x, with room beside them, in an L1 of 32 KiB.
constexpr int64_t kGroupBytes = 1 << 13;

// The first two passes of a group, and beside the second, part by part, the last pass of the previous group, if there is
// one: its stores wait for memory, the exponentials for the arithmetic.
template <class T>
void contiguous_group(const SoftmaxBlock<T> &x, ColumnGroup<T> *g, const ColumnGroup<T> &previous) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kSoftmaxChunk;
  const int64_t rows = x.rows;
  const bool far = rows * static_cast<int64_t>(sizeof(T)) > kGroupBytes;
  // Elements of y ahead of the exponentials. (1024 x 1024 on Emerald Rapids 1.06 to 1.15 times the speed, 1.0 beside another
  // thread of the core; 384 to 640 elements do as well. Of less, in the L2, 0.93 to 1.05.)
  constexpr int64_t kRoomAhead = 2048 / static_cast<int64_t>(sizeof(T));
  const bool asks_here = x.asks && x.far && !is_narrow<T>(x.y.type);
  const int64_t columns_ahead = rows > 0 ? (kRoomAhead + rows - 1) / rows : 1;
  T lanes[W * W];
  for (int64_t c = 0; c < g->count; ++c) lane_maxima(x, *g, c, 0, rows, lanes + c * W);
  for (int64_t c = g->count; c < W; ++c) store(lanes + c * W, broadcast(kMinusInfinity<T>));
  const vec<T> tops = across(lanes, Max<T>());
  store(g->shift, shift_of(tops));
  ChunkSums<T> sums;
  for (int64_t c = 0; c < g->count; ++c) {
    const T *const next = own_element<const T>(x.x, 0, g->first + g->count + c);
    // The line that this column shares with the one before will be written in the caches: a store that waited for it
    // would hold up all behind it.
    if (x.stream) __builtin_prefetch(own_element<T>(x.y, 0, g->first + c), 1);
    const auto beside = [&](int64_t begin, int64_t end) __attribute__((always_inline)) {
      if (c < previous.count) column_result(x, previous, c, begin, end);
    };
    T *const e = x.log ? nullptr : g->e + c * g->e_col;
    const bool asks = asks_here && g->first + c + columns_ahead < x.columns;
    const T *const room =
        asks ? g->e + c * g->e_col + (columns_ahead > 1 ? columns_ahead * g->e_col : kRoomAhead) : nullptr;
    for (int64_t chunk = 0; chunk < rows; chunk += kChunk) {
      const T *const s = g->s + c * g->s_col;
      const int64_t end = smaller(rows, chunk + kChunk);
      const vec<T> shift = broadcast(g->shift[c]);
      sums.add(c, room != nullptr ? lane_sums<true>(s, chunk, end, shift, e, next, far, beside, room)
                                  : lane_sums(s, chunk, end, shift, e, next, far, beside));
    }
  }
  const CompensatedSum<vec<T>> totals = sums.all();
  for (int64_t c = g->count; c < previous.count; ++c) column_result(x, previous, c, 0, rows);
  const ColumnResults<T> results = results_of(x, tops, totals, g->first, g->count);
  store(g->factor, results.factor);
  store(g->log_sum, results.log_sum);
}

template <class T>
void softmax_contiguous(const SoftmaxBlock<T> &x) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  constexpr int W = kLanes<T>;
  const bool plain = is_plain(x);
  const bool narrow = has_narrow_scores(x) || is_narrow<T>(x.y.type);
  const bool in_scratch = x.stream || is_narrow<T>(x.y.type);
  if (x.rows > 0 && x.rows <= kShort<T> && W >= 4 && !narrow) {
    return plain ? short_columns<T, true>(x) : short_columns<T, false>(x);
  }
  const int64_t height = (x.rows + kLine - 1) / kLine * kLine;  // of a column in the scratch
  int64_t size = x.rows == 0 ? W : kGroupBytes / (x.rows * static_cast<int64_t>(sizeof(T)));
  if (in_scratch && x.rows > 0) size = smaller(size, x.scratch_size / (2 * height));
  size = larger<int64_t>(1, smaller<int64_t>(W, size));
  ColumnGroup<T> groups[2];
  int turn = 0;
  const auto finish = [&](ColumnGroup<T> *g) {
    for (int64_t c = 0; c < g->count; ++c) column_result(x, *g, c, 0, x.rows);
    g->count = 0;
  };
  for (int64_t column = 0; column < x.columns; column += size, turn ^= 1) {
    ColumnGroup<T> &g = groups[turn], &previous = groups[turn ^ 1];
    g.first = column;
    g.count = smaller(size, x.columns - column);
    g.e = in_scratch ? x.scratch + turn * (x.scratch_size / 2) : own_element<T>(x.y, 0, column);
    g.e_col = in_scratch ? height : x.y.col_stride;
    g.plain = plain;
    g.s = plain ? own_element<const T>(x.x, 0, column) : g.e;
    g.s_col = plain ? x.x.col_stride : g.e_col;
    contiguous_group(x, &g, previous);
    previous.count = 0;
    if (!x.stream) finish(&g);
  }
  finish(&groups[turn ^ 1]);
  if (x.stream) stream_fence();
}

}  // namespace
}  // namespace attend
