// The one register tile on which matmul, the scores and the output of attention stand:
//
//     acc[lane vector i][column j] += panel[k][lanes of i] * b(k, j)            k = 0 .. depth - 1, in order
//
// A panel row lies at panel + k * panel_k, its lanes contiguous. b(k, j) = b[k * b_k + j * b_col] is read in place and
// broadcast, so that any transposition of b is a matter of strides and nothing is packed. Each element is one chain of
// FMAs from +0 in order of k: that, and not the shape of the tile, decides the bits.
#pragma once

#include "kernels/columns.hpp"
#include "kernels/widen.hpp"

namespace attend {
namespace {

// What a tile asks for in its loop, each k, when it has loaded the panel's vectors.
struct Nothing {
  template <class Vectors>
  ATTEND_INLINE void ask(const void *, const Vectors &) {}
};
// Two streams of lines: at first, and `second` bytes on; each moves by `step` bytes a k.
struct Prefetches {
  const char *first;
  int64_t second, step;
  template <class Vectors>
  ATTEND_INLINE void ask(const void *, const Vectors &) {
    __builtin_prefetch(first, 0, 2);
    __builtin_prefetch(first + second, 0, 2);
    first += step;
  }
};
// MV vectors of a panel of elements S further on, for the L1 (kNear 3) or the L2 (2). (What comes from memory for the L1
// waits for one of its few open misses, and what the L2 has with it: decoding took 1.2 to 1.5 times as long on a Zen 4.)
template <class T, int MV, class S, int kNear>
struct PanelAhead {
  const S *next;
  int64_t step;
  ATTEND_INLINE void ask(const S *, const vec<T> (&)[MV]) {
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) __builtin_prefetch(next + i * kLanes<T>, 0, kNear);
    next += step;
    __asm__("" : "+r"(next));  // one pointer, not one an address
  }
};

// A panel that is read in place, and copied as it passes; its lines `ahead` elements further on for the L1.
template <class T, int MV>
struct PanelCopy {
  static constexpr int W = kLanes<T>;
  T *to;
  int64_t ahead;
  ATTEND_INLINE void ask(const T *panel, const vec<T> (&a)[MV]) {
    ATTEND_UNROLL
    for (int i = 0; i < MV; ++i) {
      __builtin_prefetch(panel + ahead + i * W);
      store(to + i * W, a[i]);
    }
    __builtin_prefetch(panel + ahead + MV * W - 1);
    to += MV * W;
  }
};

// Full unrolling keeps acc in registers: g++ 12 and clang 19 do so without a spill for the shapes in Tiles.
template <class T, int MV, int NR>
struct Tile {
  vec<T> acc[MV][NR];

  ATTEND_INLINE void zero() {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) acc[i][j] = broadcast(T(0));
    }
  }

  // kPartial: the last of the MV vectors holds only so many lanes. b_col: int64_t or Adjacent. The panel may be of stored
  // elements.
  template <bool kPartial, class Stride, class S, class Ahead = Nothing>
  ATTEND_INLINE void accumulate(int64_t depth, const S *panel, int64_t panel_k, const T *b, int64_t b_k, Stride b_col,
                                int64_t last, Ahead ahead = {}) {
    Columns<T, NR, Stride> columns(b, b_k, b_col);
    const Tail<T> tail(kPartial ? last : kLanes<T>);
    // Two k a turn in whole tiles: alone with a core, and A's vectors across lines, 1.02 to 1.04 times the speed, beside another
    // thread of the core, where each instruction counts, 1.05 to 1.09 (Intel). By four, in the product, no faster; smaller
    // tiles, of short sums, 0.95.
    constexpr bool kUnrolled = !kPartial && MV * NR >= 24;
    const auto step = [&]() __attribute__((always_inline)) {
      vec<T> a[MV];
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) {
        const S *p = panel + i * kLanes<T>;
        if constexpr (kIsSame<T, S>) {
          a[i] = kPartial && i == MV - 1 ? load(p, tail) : load(p);
          // (g++ 12 makes of a load with two uses an operand of both, which reads lines twice: two columns took 1.2 to 1.6
          // times as long on an Intel.)
          if constexpr (NR == 2) a[i] = loaded_once(a[i]);
        } else {
          a[i] = kPartial && i == MV - 1 ? load_some<T>(p, last) : load_as<T>(p);
        }
      }
      ahead.ask(panel, a);
      ATTEND_UNROLL
      for (int j = 0; j < NR; ++j) {
        const vec<T> x = broadcast(*columns.at(j));
        ATTEND_UNROLL
        for (int i = 0; i < MV; ++i) acc[i][j] = fma(a[i], x, acc[i][j]);
      }
      panel += panel_k;
      columns.next();
    };
    int64_t k = 0;
    for (; kUnrolled && k + 2 <= depth; k += 2) {
      step();
      step();
    }
    for (; k < depth; ++k) step();
  }
  // The same with whole vectors, asking for lines that will be needed later.
  template <class Stride, class S, class Ahead>
  ATTEND_INLINE void accumulate(int64_t depth, const S *panel, int64_t panel_k, const T *b, int64_t b_k, Stride b_col,
                                const Ahead &ahead) {
    accumulate<false>(depth, panel, panel_k, b, b_k, b_col, kLanes<T>, ahead);
  }

  // Calls f(i, j, acc) for every vector, in columns.
  template <class F>
  ATTEND_INLINE void each(const F &f) const {
    ATTEND_UNROLL
    for (int j = 0; j < NR; ++j) {
      ATTEND_UNROLL
      for (int i = 0; i < MV; ++i) f(i, j, acc[i][j]);
    }
  }
};

}  // namespace
}  // namespace attend
