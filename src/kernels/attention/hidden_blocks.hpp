// What mask and bias hide, looked at once for each query tile and kSegment keys, so that blocks which no row sees are
// skipped and blocks which all rows see as they are take the plain path: hidden blocks then cost what reading their mask
// costs, whatever hides them.
//
// A window of keys at a time is looked at, for all tiles, row by row: memory is then read in long runs, which the
// hardware fetches ahead. (Segment by segment, a line or two of each row, took 3.4 times as long as reading a mask
// does.) Segments of 64 keys leave twice as much to look at key by key beside a window's borders.
#pragma once

#include "kernels/attention/visibility.hpp"

namespace attend {
namespace {

// What a tile's rows see of a segment.
enum class Seen : uint8_t { some, none, all };

constexpr int64_t kSegment = AttentionLayout::kSegment, kSegments = AttentionLayout::kSegments,
                  kWindow = kSegments * kSegment;

// The tile's segments of the window at hand.
template <class T>
ATTEND_INLINE Seen *segments_of(const AttentionBlock<T> &x, const QueryTile<T> &t) {
  return reinterpret_cast<Seen *>(x.scratch + x.layout.segments) + t.row / x.tile_rows * kSegments;
}

// Where a mask's keys are contiguous, what is looked at is kept, so that the mask is read once: bit k of a row's word is whether
// it hides key k of the segment, the words of all rows side by side. Those of the window at hand, of the segment of `key`, from
// `row` on; of lanes without a row 0.
template <class T>
ATTEND_INLINE bool keeps_hidden(const AttentionBlock<T> &x) {
  return x.mask.data != nullptr && x.mask.element_stride == 1;
}
template <class T>
ATTEND_INLINE uint32_t *hidden_of(const AttentionBlock<T> &x, int64_t key, int64_t row) {
  return reinterpret_cast<uint32_t *>(x.scratch + x.layout.hidden) + key % kWindow / kSegment * x.layout.rows + row;
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

// `count` whole segments of a mask whose keys are contiguous.
template <class T>
void look_at_bytes(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t count, Found *found) {
  static_assert(kSegment == 32, "as many as zero_bytes looks at");
  const int64_t rows = distinct_rows(t, x.mask);
  const auto look = [&](int64_t first, auto n) __attribute__((always_inline)) {
    constexpr int kRows = decltype(n)::value;
    const uint8_t *m[kRows];
    for (int r = 0; r < kRows; ++r) m[r] = row_at(x, x.mask, t.row + first + r) + key;
    uint32_t *words = hidden_of(x, key, t.row + first);
    for (int64_t s = 0; s < count; ++s, words += x.layout.rows) {
      uint32_t any = 0, all = 0xffffffffu;
      ATTEND_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const uint32_t zero = zero_bytes(m[r] + s * kSegment);
        words[r] = zero;
        any |= zero;
        all &= zero;
      }
      found[s].hidden |= any != 0;
      found[s].visible |= all != 0xffffffffu;
    }
  };
  // Eight rows at a time, so that what is found of a segment stays in registers. (Row by row masks of 1024 x 1024 and more, D =
  // 64, cost 2 to 6 % of the call more.)
  int64_t i = 0;
  for (; i + 8 <= rows; i += 8) look(i, Int<8>());
  for (; i < rows; ++i) look(i, Int<1>());
  if (rows == t.lanes) return;
  for (int64_t s = 0; s < count; ++s) {
    uint32_t *const words = hidden_of(x, key + s * kSegment, t.row);
    for (int64_t r = rows; r < t.lanes; ++r) words[r] = r < t.count ? words[0] : 0;
  }
}

// The words of the segment that holds the keys [key, end), not all of it.
template <class T>
void keep_some(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t end) {
  uint32_t *const words = hidden_of(x, key, t.row);
  for (int64_t r = 0; r < t.lanes; ++r) {
    words[r] = 0;
    if (r >= t.count) continue;
    const uint8_t *const m = row_at(x, x.mask, t.row + r);
    for (int64_t k = key; k < end; ++k) words[r] |= static_cast<uint32_t>(m[k] == 0) << k % kSegment;
  }
}

// The same of a bias; one that hides nothing, as most do, is soon known.
template <class T, class S>
void look_at_vectors(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t key, int64_t count, Found *found) {
  constexpr int W = kLanes<T>;
  const vec<T> zero = broadcast(T(0)), one = broadcast(T(1)), least = broadcast(kMinusInfinity<T>);
  bool settled = false;
  const RowsRef<const S> bias = rows_as<S>(x.bias);
  for (int64_t i = 0, rows = distinct_rows(t, bias); i < rows && !settled; ++i) {
    const S *b = row_at(x, bias, t.row + i) + key;
    settled = true;
    for (int64_t s = 0; s < count; ++s, b += kSegment) {
      vec<T> top = least, most_negative = zero, adds = zero;
      ATTEND_UNROLL
      for (int64_t k = 0; k < kSegment; k += W) {
        const vec<T> r = load_as<T>(b + k);
        top = maximum(r, top);
        most_negative = maximum(zero - r, most_negative);
        adds = select(select(r == least, zero, r) == zero, adds, one);  // of NaN too
      }
      found[s].adds |= any(zero < adds);
      found[s].visible |= found[s].adds || any(least < top);
      found[s].hidden |= any(most_negative == zero - least);
      settled &= found[s].adds;
    }
  }
}

// Any strides, one entry at a time, until nothing more can be found; of keys that repeat one.
template <class T, class Of, class Look>
void look_at_each(const AttentionBlock<T> &x, const QueryTile<T> &t, const RowsRef<Of> &of, int64_t key, int64_t keys,
                  const Look &look, Found *found) {
  const int64_t rows = distinct_rows(t, of), distinct = of.element_stride == 0 ? 1 : keys;
  for (int64_t k = key; k < key + distinct && !found->is_settled(); ++k) {
    for (int64_t i = 0; i < rows; ++i) look(row_at(x, of, t.row + i)[k * of.element_stride], found);
  }
}

// The segments that hold the keys [begin, end) of the window, of which `found` is the first. `whole` looks at whole
// segments where keys are contiguous, `look` at one entry.
template <class T, class Of, class Whole, class Look>
void look_at_keys(const AttentionBlock<T> &x, const QueryTile<T> &t, const RowsRef<Of> &of, int64_t begin, int64_t end,
                  const Whole &whole, const Look &look, Found *found) {
  for (int64_t key = begin; key < end; ++found) {
    int64_t keys = smaller((key / kSegment + 1) * kSegment, end) - key;
    if (of.element_stride == 1 && keys == kSegment) {
      const int64_t count = (end - key) / kSegment;
      whole(x, t, key, count, found);
      found += count - 1;
      keys = count * kSegment;
    } else {
      look_at_each(x, t, of, key, keys, look, found);
    }
    key += keys;
  }
}

// Looks at the window that begins with key `window`, as far as the tile sees it by position.
template <class T>
__attribute__((noinline)) void look_at_window(const AttentionBlock<T> &x, const QueryTile<T> &t, int64_t window) {
  const KeyRange seen = seen_by_any(x, t);
  const int64_t begin = larger(seen.begin, window), end = smaller(seen.end, window + kWindow);
  if (begin >= end) return;
  Found of_mask[kSegments] = {}, of_bias[kSegments] = {};
  const int64_t first = begin % kWindow / kSegment, last = (end - 1) % kWindow / kSegment;
  if (x.mask.data != nullptr) {
    const auto look = [](uint8_t v, Found *found) { (v != 0 ? found->visible : found->hidden) = true; };
    look_at_keys(x, t, x.mask, begin, end, look_at_bytes<T>, look, of_mask + first);
    if (keeps_hidden(x)) {
      const int64_t whole = smaller((begin / kSegment + 1) * kSegment, end), rest = end / kSegment * kSegment;
      if (whole - begin < kSegment) keep_some(x, t, begin, whole);
      if (rest >= whole && rest < end) keep_some(x, t, rest, end);
    }
  }
  if (x.bias.data != nullptr) {
    with_float<T>(x.bias.type, [&](auto stored) {
      using S = decltype(stored);
      const auto look = [](S entry, Found *found) {
        constexpr T kHides = kMinusInfinity<T>;
        const T v = widened(entry);
        found->hidden |= v == kHides;
        found->visible |= v != kHides;
        found->adds |= v != T(0) && v != kHides;
      };
      look_at_keys(x, t, rows_as<S>(x.bias), begin, end, look_at_vectors<T, S>, look, of_bias + first);
    });
  }
  Seen *const segments = segments_of(x, t);
  for (int64_t s = first; s <= last; ++s) {
    const Seen m = x.mask.data != nullptr ? of_mask[s].seen() : Seen::all;
    const Seen b = x.bias.data != nullptr ? of_bias[s].seen() : Seen::all;
    segments[s] = m == Seen::none || b == Seen::none ? Seen::none
                  : m == Seen::all && b == Seen::all ? Seen::all
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
  KeyRun run[10];  // at most a chunk's segments and the two borders of what all see
};

// The keys of a slice that any row of the tile sees. By position only the keys around the diagonal and before a window
// are hidden to some rows: these are runs of their own.
template <class T>
ATTEND_INLINE KeyRuns runs_of(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice) {
  static_assert(Contract<T>::kKeyChunk / kSegment + 2 <= 10 && kWindow % Contract<T>::kKeyChunk == 0, "runs fit");
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
