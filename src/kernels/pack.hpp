// Copies into panels, for operands that the tile cannot or should not read in place.
#pragma once

#include "kernels/widen.hpp"

namespace attend {
namespace {

// f(k, r) for each k < kLanes in order, r lane i = p[i * stride + k].
template <class T, class S, class F>
ATTEND_INLINE void each_column(const S *p, int64_t stride, const F &f) {
  if constexpr (kOwnColumns<S>) {
    own_columns(p, stride, f);
  } else {
    vec<T> r[kLanes<T>];
    ATTEND_UNROLL
    for (int i = 0; i < kLanes<T>; ++i) r[i] = load_as<T>(p + i * stride);
    transpose(r);
    ATTEND_UNROLL
    for (int k = 0; k < kLanes<T>; ++k) f(k, r[k]);
  }
}

// 0 in the lanes whose byte is not 0, -inf in the others.
template <class T>
ATTEND_INLINE vec<T> hidden_lanes(const uint8_t *visible) {
  T r[kLanes<T>];
  for (int i = 0; i < kLanes<T>; ++i) r[i] = visible[i] != 0 ? T(0) : -static_cast<T>(__builtin_inff());
  return load(r);
}
#ifdef ATTEND_HIDDEN_LANES  // where the compiler does not vectorise that
template <>
ATTEND_INLINE vec<float> hidden_lanes<float>(const uint8_t *visible) {
  return hidden_lanes_f32(visible);
}
#endif

// Eight bytes at a time. The high bit of each byte of ((v & kLow) + kLow) | v is 0 if that byte is; the product moves bit 8 i to
// 56 + i.
#ifndef ATTEND_ZERO_BYTES  // defined by backends that have a better way
ATTEND_INLINE uint32_t zero_bytes(const uint8_t *p) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu, kGather = 0x0102040810204080u;
  uint32_t bits = 0;
  for (int i = 0; i < 4; ++i) {
    uint64_t v;
    __builtin_memcpy(&v, p + 8 * i, sizeof v);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    const uint64_t zero = ~(((v & kLow) + kLow) | v | kLow) >> 7;
    bits |= static_cast<uint32_t>((zero * kGather) >> 56) << 8 * i;
  }
  return bits;
}
#endif

// Which of 32 keys each lane does not see, bit k of rows[lane] for the k-th. Asked key by key, in order, or for any one of them:
// s, -inf where hidden.
#ifndef ATTEND_HIDDEN_KEYS  // defined by backends that have a better way
template <class T>
struct HiddenKeys {
  explicit HiddenKeys(const uint32_t *of_rows) : rows(of_rows), bit(1) {}
  const uint32_t *rows;
  uint32_t bit;
  ATTEND_INLINE vec<T> hide_next(vec<T> s) {
    T of_key[kLanes<T>];
    for (int l = 0; l < kLanes<T>; ++l) of_key[l] = (rows[l] & bit) != 0 ? T(1) : T(0);
    bit <<= 1;
    return select(load(of_key) == broadcast(T(0)), s, broadcast(-static_cast<T>(__builtin_inff())));
  }
  ATTEND_INLINE static vec<T> hide(const uint32_t *of_rows, int64_t key, vec<T> s) {
    HiddenKeys keys(of_rows);
    keys.bit <<= key;
    return keys.hide_next(s);
  }
};
#endif

// kLanes x kLanes elements from[lane * a_lane + k] to panel[k * width + lane]: transposed in registers. Elements
// beyond `lanes` and `depth` are zero and not read; rows k >= depth are not written.
template <class T, class S>
ATTEND_INLINE void pack_square(int64_t width, int64_t lanes, int64_t depth, const S *from, int64_t a_lane, vec<T> scale,
                               T *panel) {
  constexpr int W = kLanes<T>;
  if (lanes == W && depth == W) {
    each_column<T>(
        from,
        a_lane, [&](int k, vec<T> column) __attribute__((always_inline)) { store(panel + k * width, column * scale); });
    return;
  }
  vec<T> r[W];
  ATTEND_UNROLL
  for (int i = 0; i < W; ++i) r[i] = i < lanes ? load_some<T>(from + i * a_lane, depth) : broadcast(T(0));
  transpose(r);
  ATTEND_UNROLL
  for (int k = 0; k < W; ++k) {
    if (k < depth) store(panel + k * width, r[k] * scale);
  }
}

// The same, not inlined.
template <class T, class S>
__attribute__((noinline)) void pack_end(int64_t width, int64_t lanes, int64_t depth, const S *from, int64_t a_lane,
                                        T *panel) {
  pack_square<T>(width, lanes, depth, from, a_lane, broadcast(T(1)), panel);
}

// panel[k][lane] = scale * a(lane, k) for lane < lanes, 0 for the rest up to the width, a multiple of the vector: kWidth, if
// that is not 0; or, if not kFills, up to the next vector.
template <class T, int kWidth = 0, bool kFills = true, class S>
void pack_panel(int64_t any_width, int64_t lanes, int64_t depth, const S *a, int64_t a_lane, int64_t a_k, T scale,
                T *panel) {
  constexpr int W = kLanes<T>;
  const int64_t width = kWidth != 0 ? kWidth : any_width;
  const vec<T> factor = broadcast(scale);
  for (int64_t lane = 0; lane < width; lane += W) {
    const int64_t count = larger<int64_t>(0, smaller<int64_t>(W, lanes - lane));
    const S *from = a + lane * a_lane;
    T *to = panel + lane;
    if (count == 0) {
      for (int64_t k = 0; kFills && k < depth; ++k) store(to + k * width, broadcast(T(0)));
    } else if (a_lane == 1) {
      for (int64_t k = 0; k < depth; ++k) store(to + k * width, load_some<T>(from + k * a_k, count) * factor);
    } else if (a_k == 1 && count * depth > 2 * W) {
      for (int64_t k = 0; k < depth; k += W) {
        pack_square<T>(width, count, smaller<int64_t>(W, depth - k), from + k, a_lane, factor, to + k * width);
      }
    } else if (a_k == -1 && count * depth > 2 * W && scale == T(1)) {  // squares from their last k to the first
      for (int64_t k = 0, d; k < depth; k += d) {
        d = smaller<int64_t>(W, depth - k);
        pack_end(-width, count, d, from - (k + d - 1), a_lane, to + (k + d - 1) * width);
      }
    } else {
      for (int64_t k = 0; k < depth; ++k) {
        if (count < W) store(to + k * width, broadcast(T(0)));
        for (int64_t l = 0; l < count; ++l) to[k * width + l] = widened(from[l * a_lane + k * a_k]) * scale;
      }
    }
  }
}

// Panels of kWidth lanes (a multiple of the vector) one behind the other, of rows that are contiguous over all lanes:
// in one sweep over k, so that memory is read along its pages and not in strips of a panel's width.
template <class T, int kWidth, class S>
void pack_panels(int64_t lanes, int64_t depth, const S *a, int64_t a_k, T *panels) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kAhead = 8, width = kWidth;  // kAhead: rows
  const int64_t panel = width * depth;
  for (int64_t k = 0; k < depth; ++k, a += a_k, panels += width) {
    for (int64_t lane = 0; lane < lanes; lane += 64 / static_cast<int64_t>(sizeof(S))) {
      __builtin_prefetch(a + kAhead * a_k + lane);
    }
    T *to = panels;
    int64_t lane = 0;
    for (; lane + width <= lanes; lane += width, to += panel) {
      for (int64_t l = 0; l < width; l += W) store(to + l, load_as<T>(a + lane + l));
    }
    if (lane == lanes) continue;
    for (int64_t l = 0; l < width; l += W) {
      const int64_t count = smaller<int64_t>(W, lanes - lane - l);
      store(to + l, count > 0 ? load_some<T>(a + lane + l, count) : broadcast(T(0)));
    }
  }
}

// panel[column][k] = b(k, column): columns of contiguous elements moved together, `height` apart.
template <class T, class S>
void pack_columns(int64_t columns, int64_t depth, const S *b, int64_t b_col, T *panel, int64_t height) {
  constexpr int W = kLanes<T>;
  constexpr int64_t kAhead = 6;  // columns
  for (int64_t j = 0; j < columns; ++j) {
    const S *from = b + j * b_col;
    T *to = panel + j * height;
    int64_t k = 0;
    for (; k + W <= depth; k += W) {
      __builtin_prefetch(from + kAhead * b_col + k);
      store(to + k, load_as<T>(from + k));
    }
    if (k < depth) store(to + k, load_some<T>(from + k, depth - k));
  }
}

// Panels of N columns, `panel` elements apart: panels[k * N + column] = b(k, column), of rows of contiguous elements, which
// are moved whole, for all panels at once: they may lie a page apart.
template <class T, int N, class S>
void pack_rows(int64_t columns, int64_t depth, const S *b, int64_t b_k, T *panels, int64_t panel) {
  constexpr int W = kLanes<T>, kVectors = (N + W - 1) / W;
  constexpr int64_t kAhead = 8, kLine = 64 / static_cast<int64_t>(sizeof(S));
#ifdef ATTEND_HALF_VECTORS
  constexpr bool kHalf = kIsSame<S, T> && 2 * N == W;
#else
  constexpr bool kHalf = false;
#endif
  // Panels whose vectors end in this row of b. What these put behind the panel's row is overwritten by its next, which the
  // last one does not have.
  const int64_t of_panel = kHalf ? N : kVectors * W, whole = columns < of_panel ? 0 : (columns - of_panel) / N + 1;
  for (int64_t k = 0; k < depth; ++k, b += b_k, panels += N) {
    for (int64_t j = 0; j < columns; j += kLine) __builtin_prefetch(b + kAhead * b_k + j);
    T *to = panels;
    const S *from = b;
    const S *const tails = kHalf || k + 1 < depth ? b + whole * N : b;
    for (; from != tails; from += N, to += panel) {
#ifdef ATTEND_HALF_VECTORS
      if constexpr (kHalf) {
        store_half(to, load_half(from));
        continue;
      }
#endif
      ATTEND_UNROLL
      for (int v = 0; v < kVectors; ++v) store(to + v * W, load_as<T>(from + v * W));
    }
    for (; from < b + columns; from += N, to += panel) {
      const int64_t count = smaller<int64_t>(N, b + columns - from);
      for (int64_t j = 0; j < count; j += W) {
        const int64_t part = smaller<int64_t>(W, count - j);
        store_some(to + j, load_some<T>(from + j, part), part);
      }
    }
  }
}

// The same of any rows.
template <class T, class S>
void pack_rows(int64_t width, int64_t columns, int64_t depth, const S *b, int64_t b_k, int64_t b_col, T *panels,
               int64_t panel) {
  for (int64_t first = 0; first < columns; first += width, panels += panel) {
    for (int64_t k = 0; k < depth; ++k) {
      const S *from = b + k * b_k + first * b_col;
      for (int64_t j = 0; j < smaller(width, columns - first); ++j) panels[k * width + j] = widened(from[j * b_col]);
    }
  }
}

}  // namespace
}  // namespace attend
