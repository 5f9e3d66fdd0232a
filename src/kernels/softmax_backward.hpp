// Gradient of softmax down columns, from its result y and the gradient d of that; the column's shift r first:
//
//     r = d_lse - sum_i y_i d_i       dx = scale (y (d + r))           log: r = d_lse - sum_i d_i, dx = scale (d + exp(y) r)
//
// An entry that was masked, y = 0 (log: -inf), adds nothing and gets 0, whatever d holds there.
//
// Two passes, sums and results, bound by memory. Contiguous columns: lanes run down a column, sums in the order of
// softmax_contiguous.hpp; y and d are read from memory once, the second pass finds them in the L2. Any other layout: lanes
// are columns that are side by side, sums in the order of softmax_strided.hpp; both passes go over whole rows. (Strips of
// columns narrow enough for the second pass to find them in a cache would be read once, but in runs too short for pages
// and prefetchers: 4096 x 4096 f32, Zen 4, 0.77 of 10^9 elements a second for 1.04, which is the rate of a copy over its
// five streams.) Nothing is copied but what must be brought to the type of the arithmetic, piece by piece.
#pragma once

#include "kernels/convert.hpp"
#include "kernels/softmax_contiguous.hpp"

namespace attend {
namespace {

// Loops of few rounds or little work, which are not worth the code of several rounds in one.
#define ATTEND_ROLLED _Pragma("GCC unroll 1")

// Elements that are brought to the type of the arithmetic at a time.
constexpr int64_t kPiece = 256;

ATTEND_INLINE int64_t step_of(const StoredMatrix &m, bool down) { return down ? m.row_stride : m.col_stride; }
// Whether elements down a column, or along a row, are of the arithmetic's type and side by side.
template <class T>
ATTEND_INLINE bool is_ready(const StoredMatrix &m, bool down) {
  return step_of(m, down) == 1 && !is_narrow<T>(m.type);
}
// `count` elements from (row, column) on as such: in place, or in the buffer.
template <class T>
__attribute__((noinline)) void bring_line(const StoredMatrix &m, int64_t row, int64_t column, bool down, int64_t count,
                                          T *buffer) {
  load_line(element_of(m, row, column), step_of(m, down), m.type, count, buffer);
}
template <class T>
ATTEND_INLINE T *ready_line(const StoredMatrix &m, bool ready, int64_t row, int64_t column, bool down, int64_t count,
                            T *buffer) {
  if (ready) return own_element<T>(m, row, column);
  bring_line(m, row, column, down, count, buffer);
  return buffer;
}

// What y says of an entry that was masked.
template <class T>
ATTEND_INLINE vec<T> masked_result(const SoftmaxBackwardBlock<T> &x) {
  return broadcast(x.log ? kMinusInfinity<T> : T(0));
}

// What the terms of a sum have in common: sum + y d, or with log sum + d.
template <class T>
struct Terms {
  vec<T> masked, zero = broadcast(T(0)), one = broadcast(T(1));
  vec_bool<T> log;
  ATTEND_INLINE explicit Terms(const SoftmaxBackwardBlock<T> &x)
      : masked(masked_result(x)), log(broadcast(x.log ? T(1) : T(0)) == broadcast(T(1))) {}
  // (No branch: the loops around it would be there twice.)
  ATTEND_INLINE vec<T> add(vec<T> sum, vec<T> y, vec<T> d) const {
    return fma(select(log, one, y), select(y == masked, zero, d), sum);
  }
};

// The sums of `columns` columns from column `first` on.
template <class T>
__attribute__((noinline)) void add_columns(const SoftmaxBackwardBlock<T> &x, int64_t first, int64_t columns,
                                           ChunkSums<T> *sums) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  constexpr int64_t kPart = Contract<T>::kSoftmaxPart, kVirtual = Contract<T>::kVirtualLanes,
                    kChunk = Contract<T>::kSoftmaxChunk;
  static_assert(kPiece % kPart == 0 && kChunk % kPiece == 0, "pieces are whole parts");
  const bool y_ready = is_ready<T>(x.y, true), d_ready = is_ready<T>(x.d_y, true);
  const int64_t rows = x.rows, most = y_ready && d_ready ? kChunk : kPiece;
  const Terms<T> terms(x);
  T buffers[2][kPiece];
  for (int64_t c = 0; c < columns; ++c) {
    vec<T> of_chunk[kLaneVectors];
    for (int64_t begin = 0, size = 0; begin < rows; begin += size) {
      size = smaller(most, rows - begin);
      const T *const y = ready_line(x.y, y_ready, begin, first + c, true, size, buffers[0]);
      const T *const d = ready_line(x.d_y, d_ready, begin, first + c, true, size, buffers[1]);
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) of_chunk[u] = begin % kChunk == 0 ? terms.zero : of_chunk[u];
      for (int64_t part = 0; part < size; part += kPart) {
        const int64_t end = smaller(size, part + kPart);
        vec<T> of_part[kLaneVectors];
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) of_part[u] = terms.zero;
        const auto add = [&](const T *of_y, const T *of_d) __attribute__((always_inline)) {
          ATTEND_UNROLL
          for (int u = 0; u < kLaneVectors; ++u) {
            of_part[u] = terms.add(of_part[u], load(of_y + u * W), load(of_d + u * W));
          }
        };
        int64_t i = part;
        for (; i + kVirtual <= end; i += kVirtual) add(y + i, d + i);
        if (i < end && kLaneVectors == 1) {
          of_part[0] = terms.add(of_part[0], load_some<T>(y + i, end - i), load_some<T>(d + i, end - i));
        } else if (i < end) {
          // With 0 behind the last ones.
          T of_y[kVirtual] = {}, of_d[kVirtual] = {};
          ATTEND_ROLLED
          for (int64_t l = 0; i + l < end; l += W) {
            const int64_t count = smaller<int64_t>(W, end - i - l);
            store(of_y + l, load_some<T>(y + i + l, count));
            store(of_d + l, load_some<T>(d + i + l, count));
          }
          add(of_y, of_d);
        }
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) of_chunk[u] = of_chunk[u] + of_part[u];
      }
      if ((begin + size) % kChunk == 0 || begin + size == rows) {
        vec<T> lanes[kLaneVectors];
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) lanes[u] = of_chunk[u];
        sums->add(c, tree_of_vectors<T>(lanes));
      }
    }
  }
}

// Adds to the sums of columns that are side by side those of rows [begin, end), a chunk, by way of `chunk`, which is 0
// before and after.
template <class T>
__attribute__((noinline)) void add_rows(const SoftmaxBackwardBlock<T> &x, int64_t column, int64_t columns,
                                        int64_t begin, int64_t end, T *chunk, T *sums, T *errors) {
  constexpr int W = kLanes<T>;
  const bool y_ready = is_ready<T>(x.y, false), d_ready = is_ready<T>(x.d_y, false);
  const Terms<T> terms(x);
  T buffers[2][kPiece];
  for (int64_t i = begin; i < end; ++i) {
    const T *const y = ready_line(x.y, y_ready, i, column, false, columns, buffers[0]);
    const T *const d = ready_line(x.d_y, d_ready, i, column, false, columns, buffers[1]);
    for (int64_t l = 0; l < columns; l += W) {
      const int64_t count = smaller<int64_t>(W, columns - l);
      store(chunk + l, terms.add(load(chunk + l), load_some<T>(y + l, count), load_some<T>(d + l, count)));
    }
  }
  for (int64_t l = 0; l < columns; l += W) {
    CompensatedSum<vec<T>> total = {load(sums + l), load(errors + l)};
    total.add(load(chunk + l));
    store(sums + l, total.sum);
    store(errors + l, total.error);
    store(chunk + l, terms.zero);
  }
}

// The second pass for `count` entries of each of some lines: of columns from row `first` on, which have one shift each, or
// of rows from column `first` on, each column with a shift of its own.
template <class T>
__attribute__((noinline)) void result_lines(const SoftmaxBackwardBlock<T> &x, int64_t line, int64_t lines,
                                            int64_t first, int64_t count, const T *shifts) {
  constexpr int W = kLanes<T>, kVectors = Tiles<T>::kStripVectors;
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  const bool log = x.log, down = x.contiguous;
  const bool y_ready = is_ready<T>(x.y, down), d_ready = is_ready<T>(x.d_y, down), rounds = !is_ready<T>(x.d_x, down);
  const vec<T> masked = masked_result(x), zero = broadcast(T(0)), scale = broadcast(x.scale);
  T buffers[3][kPiece], of_column[W], nothing[W];
  store(nothing, zero);
  for (const int64_t end = line + lines; line < end; ++line) {
    const int64_t row = down ? first : line, column = down ? line : first;
    const T *const y = ready_line(x.y, y_ready, row, column, down, count, buffers[0]);
    const T *const d = ready_line(x.d_y, d_ready, row, column, down, count, buffers[1]);
    T *const to = rounds ? buffers[2] : own_element<T>(x.d_x, row, column);
    // What is added to, and the shifts: of each element, or the same vector again.
    const T *const before = x.accumulates ? ready_line(x.d_x, !rounds, row, column, down, count, buffers[2]) : nothing;
    const int64_t before_step = x.accumulates ? 1 : 0, shift_step = down ? 0 : 1;
    const T *const shift = down ? of_column : shifts;
    if (down) store(of_column, broadcast(*shifts++));
    const auto result = [&](int64_t at, int64_t lanes, auto &r) __attribute__((always_inline)) {
      constexpr int N = static_cast<int>(sizeof r / sizeof r[0]);
      vec<T> weight[N];
      ATTEND_UNROLL
      for (int v = 0; v < N; ++v) weight[v] = r[v] = load_some<T>(y + at + v * W, lanes);
      if (log) {
        // What is rounded to a little more than 0 is 0.
        ATTEND_UNROLL
        for (int v = 0; v < N; ++v) weight[v] = select(zero < weight[v], zero, weight[v]);
        exp_nonpositive(weight);
      }
      ATTEND_UNROLL
      for (int v = 0; v < N; ++v) {
        const int64_t i = at + v * W;
        const auto is_masked = r[v] == masked;
        const vec<T> of_d = select(is_masked, zero, load_some<T>(d + i, lanes)),
                     s = load_some<T>(shift + i * shift_step, lanes);
        r[v] = select(is_masked, zero, log ? fma(weight[v], s, of_d) : weight[v] * (of_d + s));
        r[v] = fma(r[v], scale, load_some<T>(before + i * before_step, lanes));
      }
    };
    // Past the caches go whole lines alone: the ends share theirs with what comes before and behind.
    const auto past = static_cast<int64_t>(reinterpret_cast<uintptr_t>(to) / sizeof(T)) % kLine;
    int64_t i = 0, ahead = x.stream && past != 0 ? smaller(count, kLine - past) : 0;
    while (true) {
      ATTEND_ROLLED
      for (int64_t lanes = 0; i < ahead; i += lanes) {
        vec<T> r[1];
        lanes = smaller<int64_t>(W, ahead - i);
        result(i, lanes, r);
        store_some(to + i, r[0], lanes);
      }
      if (i == count) break;
      ATTEND_ROLLED
      for (; i + kVectors * W <= count; i += kVectors * W) {
        vec<T> r[kVectors];
        result(i, W, r);
        bool stream = x.stream;
        asm("" : "+r"(stream));  // one loop, not two
        ATTEND_UNROLL
        for (int v = 0; v < kVectors; ++v) stream ? stream_store(to + i + v * W, r[v]) : store(to + i + v * W, r[v]);
      }
      ahead = count;
    }
    if (rounds) store_line(to, count, element_of(x.d_x, row, column), step_of(x.d_x, down), x.d_x.type);
  }
}

// The shifts of `count` columns, which are added up, from column `first` on.
template <class T>
ATTEND_INLINE void store_shifts(const SoftmaxBackwardBlock<T> &x, const CompensatedSum<vec<T>> &total, int64_t first,
                                int64_t count, T *shifts) {
  const vec<T> d_lse = x.d_lse.data == nullptr
                           ? broadcast(T(0))
                           : load_lanes<T>(x.d_lse.data + first * x.d_lse.col_stride, x.d_lse.col_stride, count);
  store(shifts, d_lse - value_of(total));
}

template <class T>
void backward_down_columns(const SoftmaxBackwardBlock<T> &x) {
  // y and d of a group, in the L2.
  constexpr int64_t kBytes = 1 << 16;
  constexpr int W = kLanes<T>;
  const int64_t of_column = x.rows * 2 * static_cast<int64_t>(sizeof(T));
  const int64_t size = larger<int64_t>(1, smaller<int64_t>(W, kBytes / of_column));
  const bool in_place = is_ready<T>(x.y, true) && is_ready<T>(x.d_y, true) && is_ready<T>(x.d_x, true);
  const int64_t piece = in_place ? x.rows : kPiece;
  for (int64_t first = 0; first < x.columns; first += size) {
    const int64_t columns = smaller(size, x.columns - first);
    ChunkSums<T> sums;
    add_columns(x, first, columns, &sums);
    T shifts[W];
    store_shifts(x, sums.all(), first, columns, shifts);
    for (int64_t i = 0; i < x.rows; i += piece) {
      result_lines(x, first, columns, i, smaller(piece, x.rows - i), shifts);
    }
  }
}

template <class T>
void backward_along_rows(const SoftmaxBackwardBlock<T> &x) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kStridedChunk;
  const int64_t width = (x.columns + W - 1) / W * W;
  T *const sums = x.scratch, *const errors = sums + width, *const chunk = errors + width;
  const bool in_place = is_ready<T>(x.y, false) && is_ready<T>(x.d_y, false) && is_ready<T>(x.d_x, false);
  const int64_t piece = in_place ? x.columns : kPiece;
  const auto for_pieces = [&](const auto &f) {
    for (int64_t i = 0; i < x.rows; i += kChunk) {
      for (int64_t c = 0; c < x.columns; c += piece)
        f(i, smaller(kChunk, x.rows - i), c, smaller(piece, x.columns - c));
    }
  };
  for (int64_t c = 0; c < 3 * width; c += W) store(sums + c, broadcast(T(0)));
  for_pieces([&](int64_t i, int64_t rows, int64_t c, int64_t columns) {
    add_rows(x, c, columns, i, i + rows, chunk + c, sums + c, errors + c);
  });
  for (int64_t c = 0; c < x.columns; c += W) {
    const CompensatedSum<vec<T>> total = {load(sums + c), load(errors + c)};
    store_shifts(x, total, c, smaller<int64_t>(W, x.columns - c), sums + c);
  }
  for_pieces(
      [&](int64_t i, int64_t rows, int64_t c, int64_t columns) { result_lines(x, i, rows, c, columns, sums + c); });
}

template <class T>
void softmax_backward(const SoftmaxBackwardBlock<T> &x) {
  x.contiguous ? backward_down_columns(x) : backward_along_rows(x);
  if (x.stream) stream_fence();
}

}  // namespace
}  // namespace attend
