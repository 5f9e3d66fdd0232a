// K and V of one chunk, ready for the tiles: in place, copied, gathered from pages, or widened. Nothing else forms addresses
// of K and V.
//
// Keys that begin in the same sets of the L1 are copied: [N, H, D] arrays with H * D a power of two took 1.6 times as long
// without. (Copying V too gains nothing, but in wide blocks: attention_plan.cpp.) Elements of a narrower type are widened, and pages gathered, once for all tiles
// of a block: some 3 % of its work. Few rows read either as they lie (scores_few.hpp, output.hpp), so that nothing is
// staged before it is asked for.
#pragma once

#include "kernels/attention/hidden_blocks.hpp"

namespace attend {
namespace {

// Columns of K or V that lie evenly apart: keys of a slice, counted from its first.
struct KeyPiece {
  const void *data;   // the first of them
  const void *ahead;  // what is asked for beside them, or null: what follows
  int64_t key, keys;
};
// Pages that are read in place have so many columns at least.
constexpr int64_t kPageInPlace = 16;
struct KeyPieces {
  static constexpr int kMost = Contract<float>::kKeyChunk / kPageInPlace + 2;
  int count;
  KeyPiece piece[kMost];
};

// A chunk's columns of K or V, of which the first is `begin`.
template <class T>
struct StagedPart {
  int64_t begin, columns, rows;
  StoredMatrix at;         // from `begin` on: what is stored or, once it is made, the copy; of pools the first page
  int64_t column_bytes;    // from column to column
  T *room;                 // for a copy that is not made yet, or null
  int64_t stride;          // of the copy
  const PageTable *pages;  // null if there are none, or no more
  int64_t page_bytes;      // from page to page

  // The page that holds a column of the sequence.
  ATTEND_INLINE const char *page_of(int64_t column) const {
    return static_cast<const char *>(at.data) + pages->entries[column / pages->size * pages->stride] * page_bytes;
  }
  // f(column, count, data) for the columns [from, to), page by page.
  template <class F>
  ATTEND_INLINE void each_page(int64_t from, int64_t to, const F &f) const {
    for (int64_t i = from; i < to;) {
      const int64_t column = pages->first + i, inside = column % pages->size;
      const int64_t count = smaller(pages->size - inside, to - i);
      f(i, count, page_of(column) + inside * column_bytes);
      i += count;
    }
  }

  __attribute__((noinline)) void copy() {
    with_key_or_value<T>(at.type, [&](auto stored) {
      using S = decltype(stored);
      const auto columns_of = [&](T *to, int64_t count, const void *data) {
        const S *const from = static_cast<const S *>(data);
        if (at.row_stride == 1) return pack_columns(count, rows, from, at.col_stride, to, stride);
        for (int64_t j = 0; j < count; ++j) {
          for (int64_t i = 0; i < rows; ++i) {
            to[j * stride + i] = widened(from[j * at.col_stride + i * at.row_stride]);
          }
        }
      };
      if (pages == nullptr) return columns_of(room, columns, at.data);
      each_page(begin, begin + columns, [&](int64_t i, int64_t count, const void *data) {
        columns_of(room + (i - begin) * stride, count, data);
      });
    });
    at = {room, 1, stride, dtype_of<T>()};
    column_bytes = stride * static_cast<int64_t>(sizeof(T));
    room = nullptr;
    pages = nullptr;
  }
  // From column `column` on: the copy, if there is one by now; else what is stored. Of pages only the type and strides.
  ATTEND_INLINE StoredMatrix from(int64_t column) const {
    return {static_cast<char *>(at.data) + (column - begin) * column_bytes, at.row_stride, at.col_stride, at.type};
  }
  // The same, copied if need be.
  ATTEND_INLINE MatrixRef<const T> numbers(int64_t column) {
    if (room != nullptr) copy();
    return {static_cast<const T *>(at.data) + (column - begin) * at.col_stride, at.row_stride, at.col_stride};
  }
  // Whether pages, if it has some, are large enough to be read in place.
  ATTEND_INLINE bool is_piecewise() const { return pages == nullptr || pages->size >= kPageInPlace; }
  // Where column `column` lies; of pages, or the last one that exists.
  ATTEND_INLINE const char *where(int64_t column) const {
    if (pages == nullptr) return static_cast<const char *>(at.data) + (column - begin) * column_bytes;
    const int64_t of_sequence = smaller(pages->first + column, pages->end - 1);
    return page_of(of_sequence) + of_sequence % pages->size * column_bytes;
  }
  // The columns of the runs, counted from column `first`, where they are now. Of pages one run alone. Beside each piece
  // what lies `ahead` columns further on in `next` is asked for; null: what follows.
  ATTEND_INLINE void pieces(const KeyRuns &runs, int64_t first, const StagedPart *next, int64_t ahead,
                            KeyPieces *to) const {
    to->count = 0;
    if (pages != nullptr) return pieces_of_pages(runs.run[0], first, next, ahead, to);
    for (int n = 0; n < runs.count; ++n) {
      const KeyRun &run = runs.run[n];
      to->piece[to->count++] = {where(run.begin), next != nullptr ? next->where(run.begin + ahead) : nullptr,
                                run.begin - first, run.end - run.begin};
    }
  }
  // What follows a small page is the next one; more rows ahead than that would push others out of the L1.
  __attribute__((noinline)) void pieces_of_pages(const KeyRun &run, int64_t first, const StagedPart *next,
                                                 int64_t ahead, KeyPieces *to) const {
    const StagedPart *const what = next != nullptr ? next : pages->size == kPageInPlace ? this : nullptr;
    each_page(run.begin, run.end, [&](int64_t i, int64_t count, const void *data) {
      const char *const asked = what == nullptr ? nullptr : what->where(i + (next != nullptr ? ahead : count));
      to->piece[to->count++] = {data, asked, i - first, count};
    });
  }
};

template <class T>
struct StagedChunk {
  int64_t begin, end;  // its keys
  StagedPart<T> k, v;

  ATTEND_INLINE MatrixRef<const T> keys(int64_t key) { return k.numbers(key); }
  ATTEND_INLINE MatrixRef<const T> values(int64_t key) { return v.numbers(key); }
};

// The keys of the next block, as those of a chunk. `k`: of this one.
template <class T>
ATTEND_INLINE StagedPart<T> next_keys(const AttentionBlock<T> &x, const StagedPart<T> &k) {
  StagedPart<T> next = k;
  next.begin = 0;
  next.at.data = const_cast<void *>(x.next.data);
  next.pages = x.next.pages.entries != nullptr ? &x.next.pages : nullptr;
  return next;
}
// Where key `key` lies; behind the last one the next block's, or what is here already.
template <class T>
__attribute__((noinline)) const char *key_behind(const AttentionBlock<T> &x, const StagedPart<T> &k, int64_t key) {
  return x.next.data != nullptr ? next_keys(x, k).where(key - x.seen.end) : k.where(k.begin);
}
template <class T>
ATTEND_INLINE const char *key_asked(const AttentionBlock<T> &x, const StagedPart<T> &k, int64_t key) {
  return key < x.seen.end ? k.where(key) : key_behind(x, k, key);
}

// The keys [begin, end) of one chunk. What has the type of the arithmetic and is to be copied for its strides is copied now.
template <class T>
ATTEND_INLINE StagedChunk<T> stage(const AttentionBlock<T> &x, int64_t begin, int64_t end) {
  const bool paged = x.pages.entries != nullptr;
  const auto part = [&](const StoredMatrix &m, int64_t rows, int64_t stride, int64_t room, int64_t page)
      __attribute__((always_inline)) {
    const int64_t bytes = is_narrow<T>(m.type) ? size_of(m.type) : static_cast<int64_t>(sizeof(T));
    const int64_t column = m.col_stride * bytes;
    char *const first = static_cast<char *>(m.data) + (paged ? 0 : begin * column);
    return StagedPart<T>{begin,       end - begin,
                         rows,        {first, m.row_stride, m.col_stride, m.type},
                         column,      stride == 0 ? nullptr : x.scratch + room,
                         stride,      paged ? &x.pages : nullptr,
                         page * bytes};
  };
  StagedChunk<T> chunk = {begin, end, part(x.k, x.features, x.copied_stride, x.layout.copied, x.pages.of_k),
                          part(x.v, x.value_features, x.values_stride, x.layout.values, x.pages.of_v)};
  if (x.copied_stride != 0 && !is_narrow<T>(x.k.type) && !paged) chunk.k.copy();
  if (x.values_stride != 0 && !is_narrow<T>(x.v.type) && !paged) chunk.v.copy();
  return chunk;
}

}  // namespace
}  // namespace attend
