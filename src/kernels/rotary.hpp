// Rotary embedding (Su et al., arXiv 2104.09864) and the way of new keys and values into a cache: y = x a token and head at
// a time, features in pairs rotated, then converted.
//
// Bound by memory, or nearly. Floating-point types go from register to register; what is scaled, or whose features lie apart,
// is widened, rotated and narrowed in the L1, each step a loop of its own. Tables that are not used as they are given are
// prepared once for all heads of a few tokens, and lines are written in the order in which they lie in y: heads, or runs of
// tokens where heads are apart, while those of the next head are asked for (a cache's new columns are cold: 1.1 as fast, and
// 0.9 where they are not). 512 tokens of 8 / 32 heads of 128 bf16 into caches of 64 / 256 MiB, Zen 4, of memcpy: 0.76 to
// 0.96 / 0.87 to 1.08 with heads side by side, 0.48 to 0.58 / 0.49 to 0.65 with heads apart.
#pragma once

#include <cstddef>

#include "kernels/convert.hpp"

namespace attend {
namespace {

// Elements of a line, and of the tables of some tokens, that lie on the stack: 3 KiB each. Longer lines go piece by piece.
template <class T>
constexpr int64_t kRotaryLine = 3072 / static_cast<int64_t>(sizeof(T));

// Exact, also of a zero.
template <class T>
ATTEND_INLINE vec<T> negated(vec<T> v) {
  return v * broadcast(T(-1));
}

// To feature `first` on of a token and head, scaled by what lies there.
template <class T>
ATTEND_INLINE void store_line(const RotaryBlock<T> &b, const T *from, int64_t first, int64_t count, void *y,
                              const float *scale) {
  if constexpr (!kIsSame<T, float>) {
    store_line(from, count, static_cast<T *>(y) + first * b.y.row, b.y.row, b.y.type);
  } else {
    // With a scale they pass through a buffer, which is short.
    const int64_t most = scale == nullptr ? count : kConverted;
    for (int64_t i = 0; i < count; i += most) {
      char *const to = static_cast<char *>(y) + (first + i) * b.y.row * size_of(b.y.type);
      convert_by_f32({from + i, to, scale == nullptr ? nullptr : scale + (first + i) * b.scale.row, 1, b.y.row,
                      b.scale.row, smaller(most, count - i), Dtype::f32, b.y.type});
    }
  }
}

// The largest magnitude; NaN does not count.
template <class T>
ATTEND_INLINE T largest_of(const T *values, int64_t count, T before) {
  constexpr int W = kLanes<T>;
  vec<T> most = broadcast(before);
  for (int64_t i = 0; i < count; i += W) {
    const vec<T> v = load_some<T>(values + i, smaller<int64_t>(W, count - i));
    most = maximum(maximum(v, negated(v)), most);
  }
  T lanes[W];
  store(lanes, most);
  T largest = lanes[0];
  for (const T lane : lanes) largest = larger(largest, lane);
  return largest;
}

// Elements of the prepared tables of `pairs` pairs: cosines, then as many sines.
template <class T>
ATTEND_INLINE int64_t table_size(const RotaryBlock<T> &b, int64_t pairs) {
  return (b.interleaved ? 4 : 2) * pairs;
}

// Where cosines and sines of the pairs lie: as they are given, or prepared.
template <class T>
struct RotaryTables {
  const T *cos, *sin;
};
// Whether they can be used as they are given.
template <class T>
ATTEND_INLINE bool are_ready(const RotaryBlock<T> &b) {
  const auto ready = [](const TokenStrides &at) { return at.row == 1 && at.type == dtype_of<T>(); };
  return !b.interleaved && !b.inverse && ready(b.cos) && ready(b.sin);
}

// The tables of some pairs of one token and head in T. Interleaved, an entry for each feature: every number twice, the sine
// of the pair's first feature negated.
template <class T>
ATTEND_INLINE void prepare(const RotaryBlock<T> &b, const typename RotaryBlock<T>::Token &token, int64_t head,
                           int64_t first, int64_t pairs, T *table) {
  T *const cos = table, *const sin = table + table_size(b, pairs) / 2;
  const auto load = [&](const void *from, const TokenStrides &at, T *to) {
    const int64_t before = (first * at.row + head * at.head) * size_of(at.type);
    load_line(static_cast<const char *>(from) + before, at.row, at.type, pairs, to);
  };
  load(token.cos, b.cos, cos);
  load(token.sin, b.sin, sin);
  if (b.inverse) {
    for (int64_t i = 0; i < pairs; ++i) sin[i] = -sin[i];
  }
  if (!b.interleaved) return;
  for (int64_t i = pairs - 1; i >= 0; --i) {
    cos[2 * i] = cos[2 * i + 1] = cos[i];
    const T s = sin[i];
    sin[2 * i] = -s;
    sin[2 * i + 1] = s;
  }
}

// Pairs whose first features lie from values[0] on, and whose second ones from values[pairs] on; or, interleaved, each
// beside the other.
template <class T>
ATTEND_INLINE void rotate(bool interleaved, int64_t pairs, const RotaryTables<T> &tables, T *values) {
  constexpr int W = kLanes<T>;
  const T *const cos = tables.cos, *const sin = tables.sin;
  if (!interleaved) {
    for (int64_t i = 0; i < pairs; i += W) {
      const int64_t count = smaller<int64_t>(W, pairs - i);
      const vec<T> c = load_some<T>(cos + i, count), s = load_some<T>(sin + i, count);
      const vec<T> x1 = load_some<T>(values + i, count), x2 = load_some<T>(values + pairs + i, count);
      store_some(values + i, fma(x1, c, negated(x2 * s)), count);
      store_some(values + pairs + i, fma(x2, c, x1 * s), count);
    }
    return;
  }
  if constexpr (W == 1) {
    for (int64_t i = 0; i < 2 * pairs; i += 2) {
      const T x1 = values[i], x2 = values[i + 1];
      values[i] = fused(x1, cos[i], x2 * sin[i]);
      values[i + 1] = fused(x2, cos[i + 1], x1 * sin[i + 1]);
    }
  } else {
    for (int64_t i = 0; i < 2 * pairs; i += W) {
      const int64_t count = smaller<int64_t>(W, 2 * pairs - i);
      const vec<T> c = load_some<T>(cos + i, count), s = load_some<T>(sin + i, count);
      const vec<T> x = load_some<T>(values + i, count);
      store_some(values + i, fma(x, c, swap_pairs(x) * s), count);
    }
  }
}

// One token and head.
template <class T>
struct RotaryLine {
  const void *x;
  void *y;
  float *scale;
};
template <class T>
ATTEND_INLINE RotaryLine<T> line_of(const RotaryBlock<T> &b, const typename RotaryBlock<T>::Token &token,
                                    int64_t head) {
  return {static_cast<const char *>(token.x) + head * b.x.head * size_of(b.x.type),
          static_cast<char *>(token.y) + head * b.y.head * size_of(b.y.type),
          token.scale == nullptr ? nullptr : token.scale + head * b.scale.head};
}

// Features side by side, from one floating-point type to another: from register to register.
template <class T, class X, class Y>
ATTEND_INLINE void rotate_in_registers(const RotaryBlock<T> &b, const X *x, Y *y, const RotaryTables<T> &tables) {
  constexpr int W = kLanes<T>;
  const T *const cos = tables.cos, *const sin = tables.sin;
  if (!b.interleaved) {
    const auto step = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
      const vec<T> c = load_some<T>(cos + i, count), s = load_some<T>(sin + i, count);
      const vec<T> x1 = load_some<T>(x + i, count), x2 = load_some<T>(x + b.pairs + i, count);
      store_some(y + i, fma(x1, c, negated(x2 * s)), count);
      store_some(y + b.pairs + i, fma(x2, c, x1 * s), count);
    };
    int64_t i = 0;
    for (; i + W <= b.pairs; i += W) step(i, W);
    if (i < b.pairs) step(i, b.pairs - i);
  } else if constexpr (W > 1) {
    const auto step = [&](int64_t i, int64_t count) __attribute__((always_inline)) {
      const vec<T> v = load_some<T>(x + i, count), s = load_some<T>(sin + i, count);
      store_some(y + i, fma(v, load_some<T>(cos + i, count), swap_pairs(v) * s), count);
    };
    int64_t i = 0;
    for (; i + W <= 2 * b.pairs; i += W) step(i, W);
    if (i < 2 * b.pairs) step(i, 2 * b.pairs - i);
  }
  for (int64_t i = 2 * b.pairs; i < b.features; i += W) {
    const int64_t count = smaller<int64_t>(W, b.features - i);
    store_some(y + i, load_some<T>(x + i, count), count);
  }
}

// Of at most kRotaryLine features.
template <class T>
__attribute__((noinline)) void rotate_line(const RotaryBlock<T> &b, const RotaryLine<T> &line,
                                           const RotaryTables<T> &tables) {
  T values[kRotaryLine<T>];
  load_line(line.x, b.x.row, b.x.type, b.features, values);
  if (b.pairs != 0) rotate(b.interleaved, b.pairs, tables, values);
  if constexpr (kIsSame<T, float>) {
    if (b.computes_scale) *line.scale = scale_to(b.y.type, largest_of(values, b.features, 0.0f));
  }
  store_line(b, values, 0, b.features, line.y, line.scale);
}

// f(first feature, how many, values) for the pieces of a line of any length, each ready to be stored: the features of both
// halves of a pair are read before either is given away.
template <class T, class F>
ATTEND_INLINE void each_piece(const RotaryBlock<T> &b, const typename RotaryBlock<T>::Token &token, int64_t head,
                              const RotaryLine<T> &line, const F &f) {
  constexpr int64_t kSome = kRotaryLine<T> / 4;
  T table[4 * kSome], values[kRotaryLine<T>];
  const auto load = [&](int64_t first, int64_t count, T *to) {
    load_line(static_cast<const char *>(line.x) + first * b.x.row * size_of(b.x.type), b.x.row, b.x.type, count, to);
  };
  for (int64_t i = 0; i < b.pairs; i += kSome) {
    const int64_t count = smaller(kSome, b.pairs - i);
    prepare(b, token, head, i, count, table);
    if (b.interleaved) {
      load(2 * i, 2 * count, values);
    } else {
      load(i, count, values);
      load(b.pairs + i, count, values + count);
    }
    rotate(b.interleaved, count, RotaryTables<T>{table, table + table_size(b, count) / 2}, values);
    if (b.interleaved) {
      f(2 * i, 2 * count, values);
    } else {
      f(i, count, values);
      f(b.pairs + i, count, values + count);
    }
  }
  for (int64_t i = 2 * b.pairs; i < b.features; i += kRotaryLine<T>) {
    const int64_t count = smaller(kRotaryLine<T>, b.features - i);
    load(i, count, values);
    f(i, count, values);
  }
}

template <class T>
__attribute__((noinline)) void rotate_long_line(const RotaryBlock<T> &b, const typename RotaryBlock<T>::Token &token,
                                                int64_t head) {
  const RotaryLine<T> line = line_of(b, token, head);
  bool is_known = !b.computes_scale;  // the scale
  T most = 0;
  for (;;) {  // once, or twice: of what is inlined here there is one copy
    each_piece(b, token, head, line, [&](int64_t first, int64_t count, const T *values) {
      if (is_known) {
        store_line(b, values, first, count, line.y, line.scale);
      } else {
        most = largest_of(values, count, most);
      }
    });
    if (is_known) return;
    *line.scale = scale_to(b.y.type, static_cast<float>(most));
    is_known = true;
  }
}

// Heads begin .. end-1 of some tokens, in the order in which y lies in memory; their tables, which heads may share.
template <class T>
ATTEND_INLINE void rotate_lines(const RotaryBlock<T> &b, const typename RotaryBlock<T>::Token *tokens, int64_t count,
                                int64_t begin, int64_t end, const RotaryTables<T> *tables, bool ready) {
  const int64_t cos_step = ready ? b.cos.head : 0, sin_step = ready ? b.sin.head : 0;
  const int64_t heads = end - begin, apart = b.y.head < 0 ? -b.y.head : b.y.head;
  const bool by_tokens = heads == 1 || apart > 2 * b.features;
  const auto each = [&](const auto &f) __attribute__((always_inline)) {
    const int64_t inside = by_tokens ? count : heads, outside = by_tokens ? heads : count;
    for (int64_t o = 0; o < outside; ++o) {
      for (int64_t i = 0; i < inside; ++i) {
        const int64_t t = by_tokens ? i : o, head = by_tokens ? o : i;
        if (by_tokens && b.y.row == 1 && o + 1 < outside) {
          const char *const later = static_cast<const char *>(line_of(b, tokens[t], begin + head + 1).y);
          const auto before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(later) % 64);  // in its line
          const int64_t bytes = b.features * size_of(b.y.type);
          for (int64_t at = -before; at < bytes; at += 64) __builtin_prefetch(later + at);
        }
        f(line_of(b, tokens[t], begin + head),
          RotaryTables<T>{tables[t].cos + head * cos_step, tables[t].sin + head * sin_step});
      }
    }
  };
  const bool side_by_side = b.x.row == 1 && b.y.row == 1;
  if (side_by_side && b.pairs == 0 && b.x.type == b.y.type) {
    const auto bytes = static_cast<size_t>(b.features * size_of(b.x.type));
    each([&](const RotaryLine<T> &line, const RotaryTables<T> &) { __builtin_memmove(line.y, line.x, bytes); });
  } else if (side_by_side && !takes_scale(b.y.type) && kLanes<T> > 1) {
    with_float<T>(b.x.type, [&](auto from) {
      with_float<T>(b.y.type, [&](auto to) {
        each([&](const RotaryLine<T> &line, const RotaryTables<T> &of_line) {
          rotate_in_registers(b, static_cast<const decltype(from) *>(line.x), static_cast<decltype(to) *>(line.y),
                              of_line);
        });
      });
    });
  } else {
    each([&](const RotaryLine<T> &line, const RotaryTables<T> &of_line) { rotate_line(b, line, of_line); });
  }
}

template <class T>
void rotary(const RotaryBlock<T> &b) {
  constexpr int64_t kTogether = 8;  // tokens; 32 of many heads share the sets of the L1
  const int64_t size = table_size(b, b.pairs);
  if (b.features > kRotaryLine<T> || size > kRotaryLine<T>) {
    for (int64_t t = 0; t < b.count; ++t) {
      for (int64_t head = 0; head < b.heads; ++head) rotate_long_line(b, b.tokens[t], head);
    }
    return;
  }
  const bool ready = b.pairs == 0 || are_ready(b), of_all_heads = ready || (b.cos.head == 0 && b.sin.head == 0);
  T room[kRotaryLine<T>];
  RotaryTables<T> tables[RotaryBlock<T>::kMost];
  const int64_t heads = of_all_heads ? b.heads : 1;  // that rotate_lines has at a time
  const int64_t most = b.pairs == 0 ? b.count : ready ? kTogether : kRotaryLine<T> / size;
  for (int64_t first = 0; first < b.count; first += most) {
    const typename RotaryBlock<T>::Token *const tokens = b.tokens + first;
    const int64_t count = smaller(most, b.count - first);
    for (int64_t head = 0; head < b.heads; head += heads) {
      for (int64_t t = 0; t < count; ++t) {
        if (ready) {
          tables[t] = {static_cast<const T *>(tokens[t].cos), static_cast<const T *>(tokens[t].sin)};
        } else {
          T *const table = room + t * size;
          prepare(b, tokens[t], head, 0, b.pairs, table);
          tables[t] = {table, table + size / 2};
        }
      }
      rotate_lines(b, tokens, count, head, head + heads, tables, ready);
    }
  }
}

}  // namespace
}  // namespace attend
