// Gradient of softmax down columns, from its result y and the gradient d of that; the column's shift r first:
//
//     r = d_lse - sum_i y_i d_i       dx = scale (y (d + r))           log: r = d_lse - sum_i d_i, dx = scale (d + exp(y) r)
//
// An entry that was masked, y = 0 (log: -inf), adds nothing and gets 0, whatever d holds there.
//
// Two passes: sums, then results. Bound by memory: y and d are read from it once and dx is written, the second pass finds
// them in the L2. Nothing is copied but what must be brought to the type of the arithmetic, piece by piece.
//
// Contiguous columns: lanes run down a column, in the order of softmax_contiguous.hpp. Any other layout: lanes are columns
// that are side by side, in the order of softmax_strided.hpp. Terms are added by fma.
#pragma once

#include "kernels/convert.hpp"
#include "kernels/softmax_contiguous.hpp"

namespace attend {
namespace {

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
ATTEND_INLINE const T *ready_line(const StoredMatrix &m, int64_t row, int64_t column, bool down, int64_t count,
                                  T *buffer) {
  const void *const from = element_of(m, row, column);
  if (is_ready<T>(m, down)) return static_cast<const T *>(from);
  load_line(from, step_of(m, down), m.type, count, buffer);
  return buffer;
}

// What y says of an entry that was masked.
template <class T>
ATTEND_INLINE vec<T> masked_result(const SoftmaxBackwardBlock<T> &x) {
  return broadcast(x.log ? kMinusInfinity<T> : T(0));
}

// sum + y d, or with log sum + d.
template <class T>
ATTEND_INLINE vec<T> add_term(vec<T> y, vec<T> d, vec<T> masked, bool log, vec<T> sum) {
  return fma(log ? broadcast(T(1)) : y, select(y == masked, broadcast(T(0)), d), sum);
}

// The sums of the lanes of a chunk, rows [begin, end) of a column.
template <class T>
__attribute__((noinline)) vec<T> lane_terms(const SoftmaxBackwardBlock<T> &x, int64_t column, int64_t begin,
                                            int64_t end) {
  constexpr int W = kLanes<T>, kLaneVectors = Contract<T>::kVirtualLanes / W;
  constexpr int64_t kPart = Contract<T>::kSoftmaxPart, kVirtual = Contract<T>::kVirtualLanes;
  static_assert(kPiece % kPart == 0, "pieces are whole parts");
  const bool log = x.log, in_place = is_ready<T>(x.y, true) && is_ready<T>(x.d_y, true);
  const vec<T> masked = masked_result(x);
  T buffers[2][kPiece];
  vec<T> sums[kLaneVectors];
  ATTEND_UNROLL
  for (int u = 0; u < kLaneVectors; ++u) sums[u] = broadcast(T(0));
  for (int64_t piece = begin; piece < end;) {
    const int64_t rows = in_place ? end - piece : smaller(kPiece, end - piece);
    const T *const y = ready_line(x.y, piece, column, true, rows, buffers[0]);
    const T *const d = ready_line(x.d_y, piece, column, true, rows, buffers[1]);
    for (int64_t part = 0; part < rows; part += kPart) {
      const int64_t part_end = smaller(rows, part + kPart);
      vec<T> of_part[kLaneVectors];
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) of_part[u] = broadcast(T(0));
      int64_t i = part;
      for (; i + kVirtual <= part_end; i += kVirtual) {
        ATTEND_UNROLL
        for (int u = 0; u < kLaneVectors; ++u) {
          of_part[u] = add_term(load(y + i + u * W), load(d + i + u * W), masked, log, of_part[u]);
        }
      }
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) {
        const int64_t at = i + u * W;
        if (at >= part_end) break;
        const int64_t count = smaller<int64_t>(W, part_end - at);
        of_part[u] = add_term(load_some<T>(y + at, count), load_some<T>(d + at, count), masked, log, of_part[u]);
      }
      ATTEND_UNROLL
      for (int u = 0; u < kLaneVectors; ++u) sums[u] = sums[u] + of_part[u];
    }
    piece += rows;
  }
  return tree_of_vectors<T>(sums);
}

// Adds to the columns' sums those of rows [begin, end), a chunk of at most kStridedChunk of them.
template <class T>
__attribute__((noinline)) void add_rows(const SoftmaxBackwardBlock<T> &x, int64_t column, int64_t columns,
                                        int64_t begin, int64_t end, T *sums, T *errors) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kChunk = Contract<T>::kStridedChunk, kWidth = kPiece / kChunk,
                    kLine = 64 / static_cast<int64_t>(sizeof(T));
  static_assert(kWidth % W == 0, "pieces are whole vectors");
  const bool log = x.log, y_ready = is_ready<T>(x.y, false), d_ready = is_ready<T>(x.d_y, false);
  const vec<T> masked = masked_result(x), zero = broadcast(T(0));
  const int64_t rows = end - begin;
  T buffers[2][kPiece];
  for (int64_t first = 0; first < columns;) {
    const int64_t width = y_ready && d_ready ? columns - first : smaller(kWidth, columns - first);
    const T *y = own_element<const T>(x.y, begin, column + first),
            *d = own_element<const T>(x.d_y, begin, column + first);
    int64_t y_row = x.y.row_stride, d_row = x.d_y.row_stride;
    for (int64_t i = 0; !y_ready && i < rows; ++i) {
      ready_line(x.y, begin + i, column + first, false, width, buffers[0] + i * kWidth);
    }
    for (int64_t i = 0; !d_ready && i < rows; ++i) {
      ready_line(x.d_y, begin + i, column + first, false, width, buffers[1] + i * kWidth);
    }
    if (!y_ready) y = buffers[0], y_row = kWidth;
    if (!d_ready) d = buffers[1], d_row = kWidth;
    const auto add = [&](int64_t at, vec<T> sum) __attribute__((always_inline)) {
      CompensatedSum<vec<T>> total = {load(sums + at), load(errors + at)};
      total.add(sum);
      store(sums + at, total.sum);
      store(errors + at, total.error);
    };
    int64_t l = 0;
    for (; rows == kChunk && l + W <= width; l += W) {
      vec<T> sum = zero;
      ATTEND_UNROLL
      for (int64_t i = 0; i < kChunk; ++i) {
        sum = add_term(load(y + i * y_row + l), load(d + i * d_row + l), masked, log, sum);
      }
      if (l % kLine == 0) {
        for (int64_t i = 0; y_ready && i < kChunk; ++i) __builtin_prefetch(y + (kChunk + i) * y_row + l);
        for (int64_t i = 0; d_ready && i < kChunk; ++i) __builtin_prefetch(d + (kChunk + i) * d_row + l);
      }
      add(first + l, sum);
    }
    for (; l < width; l += W) {
      const int64_t count = smaller<int64_t>(W, width - l);
      vec<T> sum = zero;
      for (int64_t i = 0; i < rows; ++i) {
        sum =
            add_term(load_some<T>(y + i * y_row + l, count), load_some<T>(d + i * d_row + l, count), masked, log, sum);
      }
      add(first + l, sum);
    }
    first += width;
  }
}

// The second pass for `count` entries from (row, column) on: down a column, whose shift is *shifts, or along a row, each
// column with a shift of its own.
template <class T>
__attribute__((noinline)) void result_line(const SoftmaxBackwardBlock<T> &x, int64_t row, int64_t column, bool down,
                                           int64_t count, const T *shifts) {
  constexpr int W = kLanes<T>;
  const bool log = x.log;
  const vec<T> masked = masked_result(x), zero = broadcast(T(0)), scale = broadcast(x.scale),
               of_column = broadcast(*shifts);
  T buffers[3][kPiece];
  const T *const y = ready_line(x.y, row, column, down, count, buffers[0]);
  const T *const d = ready_line(x.d_y, row, column, down, count, buffers[1]);
  const T *const before = x.accumulates ? ready_line(x.d_x, row, column, down, count, buffers[2]) : nullptr;
  const bool rounds = !is_ready<T>(x.d_x, down);
  void *const d_x = element_of(x.d_x, row, column);
  const auto result = [&](int64_t i, int64_t lanes, auto &r) __attribute__((always_inline)) {
    int64_t at = i;
    if (log) {
      for (vec<T> &v : r) {
        v = load_some<T>(y + at, lanes);
        v = select(zero < v, zero, v);  // what is rounded to a little more than 0
        at += W;
      }
      exp_nonpositive(r);
      at = i;
    }
    for (vec<T> &v : r) {
      const vec<T> of_y = load_some<T>(y + at, lanes), shift = down ? of_column : load_some<T>(shifts + at, lanes);
      const auto is_masked = of_y == masked;
      const vec<T> of_d = select(is_masked, zero, load_some<T>(d + at, lanes));
      v = select(is_masked, zero, log ? fma(v, shift, of_d) : of_y * (of_d + shift));
      v = before == nullptr ? v * scale : fma(v, scale, load_some<T>(before + at, lanes));
      at += W;
    }
  };
  write_rows(rounds ? buffers[2] : static_cast<T *>(d_x), count, 0, count, x.stream, result);
  if (rounds) store_line(buffers[2], count, d_x, step_of(x.d_x, down), x.d_x.type);
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
  constexpr int64_t kBytes = 1 << 16, kChunk = Contract<T>::kSoftmaxChunk;
  constexpr int W = kLanes<T>;
  const int64_t of_column = x.rows * 2 * static_cast<int64_t>(sizeof(T));
  const int64_t size = larger<int64_t>(1, smaller<int64_t>(W, kBytes / of_column));
  const bool in_place = is_ready<T>(x.y, true) && is_ready<T>(x.d_y, true) && is_ready<T>(x.d_x, true);
  const int64_t piece = in_place ? x.rows : kPiece;
  for (int64_t first = 0; first < x.columns; first += size) {
    const int64_t columns = smaller(size, x.columns - first);
    ChunkSums<T> sums;
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t i = 0; i < x.rows; i += kChunk)
        sums.add(c, lane_terms(x, first + c, i, smaller(x.rows, i + kChunk)));
    }
    T shifts[W];
    store_shifts(x, sums.all(), first, columns, shifts);
    for (int64_t c = 0; c < columns; ++c) {
      for (int64_t i = 0; i < x.rows; i += piece) {
        result_line(x, i, first + c, true, smaller(piece, x.rows - i), shifts + c);
      }
    }
  }
}

template <class T>
void backward_along_rows(const SoftmaxBackwardBlock<T> &x) {
  // A strip: so many columns that y and d stay in the L2, in whole pages of a row if possible.
  constexpr int W = kLanes<T>;
  constexpr int64_t kBytes = 1 << 18, kMost = kPiece, kLeast = 32, kChunk = Contract<T>::kStridedChunk;
  const int64_t of_column = x.rows * 2 * static_cast<int64_t>(sizeof(T));
  const int64_t size = larger(kLeast, smaller(kMost, kBytes / of_column / kLeast * kLeast));
  T sums[kMost], errors[kMost];
  for (int64_t first = 0; first < x.columns; first += size) {
    const int64_t columns = smaller(size, x.columns - first);
    for (int64_t c = 0; c < size; c += W) {
      store(sums + c, broadcast(T(0)));
      store(errors + c, broadcast(T(0)));
    }
    for (int64_t i = 0; i < x.rows; i += kChunk) {
      add_rows(x, first, columns, i, smaller(x.rows, i + kChunk), sums, errors);
    }
    for (int64_t c = 0; c < columns; c += W) {
      const CompensatedSum<vec<T>> total = {load(sums + c), load(errors + c)};
      store_shifts(x, total, first + c, smaller<int64_t>(W, columns - c), sums + c);
    }
    for (int64_t i = 0; i < x.rows; ++i) result_line(x, i, first, false, columns, sums);
  }
}

template <class T>
void softmax_backward(const SoftmaxBackwardBlock<T> &x) {
  x.contiguous ? backward_down_columns(x) : backward_along_rows(x);
  if (x.stream) stream_fence();
}

}  // namespace
}  // namespace attend
