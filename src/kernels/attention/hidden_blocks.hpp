// What mask and bias hide, looked at once for each query tile and kSegment keys, so that blocks which no row sees are
// skipped and blocks which all rows see as they are take the plain path: hidden blocks then cost what reading their mask
// costs, whatever hides them.
//
// A window of keys at a time is looked at, for all tiles, so that each row of a mask is read in long runs: 256 bytes of
// each of 32 rows at a time are too short for the hardware to fetch ahead.
#pragma once

#include "kernels/attention/visibility.hpp"

namespace attend {
namespace {

// What a tile's rows see of a segment.
enum class Seen : uint8_t { some, none, all };

constexpr int64_t kSegment = 64, kWindow = 64 * kSegment;

// The tile's segments of the window at hand.
template <class T>
ATTEND_INLINE Seen *segments_of(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  return reinterpret_cast<Seen *>(x.scratch + x.layout.segments) + t.row / x.tile_rows * (kWindow / kSegment);
}

// Whether any, and whether not every one, of the entries looked at so far is visible, and whether any adds something.
struct Found {
  bool visible = false, hidden = false, adds = false;
  ATTEND_INLINE Seen seen() const { return !visible ? Seen::none : hidden || adds ? Seen::some : Seen::all; }
  ATTEND_INLINE bool is_settled() const { return visible && (hidden || adds); }
};

// Rows that differ: one if all are the same.
template <class T, class Of>
ATTEND_INLINE int64_t distinct_rows(const QueryTile<T> &t, const RowsRef<Of> &of) {
  return (of.item_stride | of.head_stride) == 0 ? 1 : t.count;
}

// One whole segment of a mask whose keys are contiguous, eight bytes at a time: v - 0x01.. & ~v has a high bit where v
// has a byte of 0.
template <class T>
Found look_at_bytes(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key) {
  constexpr uint64_t kOnes = 0x0101010101010101u, kHigh = 0x8080808080808080u;
  constexpr int kWords = kSegment / 8;
  uint64_t set[kWords] = {}, unset[kWords] = {};
  for (int64_t i = 0, rows = distinct_rows(t, x.mask); i < rows; ++i) {
    const uint8_t *m = row_at(x, x.mask, t.row + i) + key;
    for (int w = 0; w < kWords; ++w) {
      uint64_t v;
      __builtin_memcpy(&v, m + 8 * w, sizeof v);
      set[w] |= v;
      unset[w] |= (v - kOnes) & ~v;
    }
  }
  for (int w = 1; w < kWords; ++w) {
    set[0] |= set[w];
    unset[0] |= unset[w];
  }
  Found found;
  found.visible = set[0] != 0;
  found.hidden = (unset[0] & kHigh) != 0;
  return found;
}

// The same of a bias.
template <class T>
Found look_at_vectors(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key) {
  constexpr int W = kLanes<T>;
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1)), least = broadcast(kMinusInfinity<T>);
  vec<T> visible = zero, hidden = zero, adds = zero;
  for (int64_t i = 0, rows = distinct_rows(t, x.bias); i < rows; ++i) {
    const T *b = row_at(x, x.bias, t.row + i) + key;
    ATTEND_UNROLL
    for (int64_t k = 0; k < kSegment; k += W) {
      const vec<T> v = load(b + k), added = select(v == least, zero, v);
      visible = select(v == least, visible, one);
      hidden = select(v == least, one, hidden);
      adds = select(added == zero, adds, one);
    }
  }
  const auto any = [](vec<T> flags) {
    T lanes[W], sum = T(0);
    store(lanes, flags);
    for (int l = 0; l < W; ++l) sum = sum + lanes[l];
    return sum != T(0);
  };
  Found found;
  found.visible = any(visible);
  found.hidden = any(hidden);
  found.adds = any(adds);
  return found;
}

// Any strides, one entry at a time, until nothing more can be found; of keys that repeat one.
template <class T, class Of, class Look>
Found look_at_each(const AttentionBlock<T> &x, const QueryTile<T> &t, const RowsRef<Of> &of, int64_t key, int64_t keys,
                   const Look &look) {
  Found found;
  const int64_t rows = distinct_rows(t, of), distinct = of.element_stride == 0 ? 1 : keys;
  for (int64_t k = key; k < key + distinct && !found.is_settled(); ++k) {
    for (int64_t i = 0; i < rows; ++i) look(row_at(x, of, t.row + i)[k * of.element_stride], &found);
  }
  return found;
}

template <class T>
Seen seen_of_mask(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t keys) {
  if (x.mask.data == nullptr) return Seen::all;
  if (x.mask.element_stride == 1 && keys == kSegment) return look_at_bytes(x, t, key).seen();
  const auto look = [](uint8_t v, Found *found) { (v != 0 ? found->visible : found->hidden) = true; };
  return look_at_each(x, t, x.mask, key, keys, look).seen();
}

template <class T>
Seen seen_of_bias(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t keys) {
  if (x.bias.data == nullptr) return Seen::all;
  if (x.bias.element_stride == 1 && keys == kSegment) return look_at_vectors(x, t, key).seen();
  const auto look = [](T v, Found *found) {
    (v == kMinusInfinity<T> ? found->hidden : found->visible) = true;
    found->adds |= v != T(0) && v != kMinusInfinity<T>;
  };
  return look_at_each(x, t, x.bias, key, keys, look).seen();
}

// Looks at the window that begins with key `window`, as far as the tile sees it by position.
template <class T>
void look_at_window(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t window) {
  const KeyRange seen = seen_by_any(x, t);
  Seen *const segments = segments_of(x, t);
  for (int64_t s = 0; s < kWindow / kSegment; ++s) {
    const int64_t key = larger(seen.begin, window + s * kSegment);
    const int64_t keys = smaller(seen.end, window + (s + 1) * kSegment) - key;
    if (keys <= 0) continue;
    const Seen of_mask = seen_of_mask(x, t, key, keys);
    const Seen of_bias = of_mask == Seen::none ? Seen::all : seen_of_bias(x, t, key, keys);
    segments[s] = of_mask == Seen::none || of_bias == Seen::none ? Seen::none
                  : of_mask == Seen::all && of_bias == Seen::all ? Seen::all
                                                                 : Seen::some;
  }
}

// A run: neighbouring keys of a slice that are treated alike.
struct KeyRun {
  int64_t begin, end;
  bool hides;  // some row of the tile does not see some key, by position
  bool adds;   // mask and bias must be looked at key by key
};
struct KeyRuns {
  int count;
  KeyRun run[8];  // at most a chunk's segments and the two borders of what all see
};

// The keys of a slice that any row of the tile sees. By position only the keys around the diagonal and before a window
// are hidden to some rows: these are runs of their own.
template <class T>
ATTEND_INLINE KeyRuns runs_of(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice) {
  static_assert(Contract<T>::kKeyChunk / kSegment + 2 <= 8 && kWindow % Contract<T>::kKeyChunk == 0, "runs fit");
  const KeyRange all = seen_by_all(x, t);
  KeyRuns runs;
  if (!x.looked_at && slice.begin >= all.begin && slice.end <= all.end) {  // the usual case
    runs.count = 1;
    runs.run[0] = {slice.begin, slice.end, false, false};
    return runs;
  }
  runs.count = 0;
  for (int64_t at = slice.begin; at < slice.end;) {
    const bool hides = at < all.begin || at >= all.end;
    int64_t end = at < all.begin ? smaller(slice.end, all.begin)
                  : at < all.end ? smaller(slice.end, all.end)
                                 : slice.end;
    Seen seen = Seen::all;
    if (x.looked_at) {
      end = smaller(end, (at / kSegment + 1) * kSegment);
      seen = segments_of(x, t)[at % kWindow / kSegment];
    }
    const bool adds = seen == Seen::some;
    KeyRun *last = runs.count > 0 ? &runs.run[runs.count - 1] : nullptr;
    if (seen != Seen::none && last != nullptr && last->end == at && last->hides == hides && last->adds == adds) {
      last->end = end;
    } else if (seen != Seen::none) {
      runs.run[runs.count++] = {at, end, hides, adds};
    }
    at = end;
  }
  return runs;
}

}  // namespace
}  // namespace attend
