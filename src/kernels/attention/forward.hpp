// Fused attention of one block of rows: O = V softmax(S), S = scale K^T Q, one chunk of 256 keys after the other.
//
// The block is worked on in query tiles, one row per lane of kScoreVectors vectors. For each chunk and tile:
//
//     scores   s[key][row] = tile(panel = queries, transposed and scaled once;  b = K in place)       lanes = rows
//     softmax  m_c, exp, l_c: straight down the lanes, no horizontal step
//     output   o[row][feature] = fma(o, e^(m_old - m), o_c e^(m_c - m)),
//              o_c = tile(panel = V in place;  b = the weights)                                       lanes = features
//
// Only the queries are copied, and what stage.hpp copies. The scores of a chunk (256 x the tile's rows) stay in the L1
// between the three steps; a chunk of K and V stays in the L2 for all tiles of the block. Few rows have the first two
// steps of scores_few.hpp.
//
// A row's arithmetic depends on nothing but its own data and the positions of chunks and spans, which count from the
// sequence's first key.
//
// 32 rows a tile (2 x 12 scores) lose 2 % against 16 on Zen 4, where their scores fill the L1, and gain 8 % on Intel,
// where 1 x 16 starves for loads: the driver chooses by the size of the L1.
#pragma once

#include "kernels/attention/output.hpp"
#include "kernels/attention/scores_few.hpp"
#include "kernels/attention/shown_scores.hpp"

namespace attend {
namespace {

// Scores of the slice, run by run; whether modifiers may hide something.
template <class T>
bool score_runs(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const KeyRuns &runs,
                const StagedChunk<T> &chunk) {
  bool hides = false;
  vec<T> top[Tiles<T>::kScoreVectors];
  for (int n = 0; n < runs.count; ++n) {
    const KeyRun &run = runs.run[n];
    QueryTile<T> at = t;
    at.s += (run.begin - slice.begin) * t.lanes;
    scores_of(x, at, run.begin, run.end - run.begin, chunk.keys(run.begin), chunk.values(run.begin));
    if (run.hides || is_modified(x)) hides |= modify_scores(x, at, run, ScoresStage::masked);
    for (int i = 0; i < t.vectors; ++i) {
      const vec<T> of_run = load(t.slice_m + i * kLanes<T>);
      top[i] = n == 0 ? of_run : maximum(of_run, top[i]);
    }
  }
  for (int i = 0; i < t.vectors; ++i) store(t.slice_m + i * kLanes<T>, top[i]);
  return hides;
}

// One tile and one slice of its keys.
template <class T>
void attend_slice(const AttentionBlock<T> &x, QueryTile<T> t, const KeySlice<T> &slice, const StagedChunk<T> &chunk,
                  FiniteChunk<T> *of_chunk) {
  const KeyRuns runs = runs_of(x, t, slice);
  const bool positions_hide = runs.count != 1 || runs.run[0].hides, plain = !positions_hide && !is_modified(x);
  bool modifiers_hide = false;
  if (t.count <= x.few_rows && slice.size() >= kLanes<T>) {
    const bool turned = !plain || !x.by_features;
    vec<T> l;
    with_constant<kFewRows<T>>(
        t.count, [&](auto nq) __attribute__((always_inline)) {
          constexpr int NQ = decltype(nq)::value;
          few_scores<T, NQ>(x, t, slice, turned);
          if (!turned) l = few_weights<T, NQ>(x, t, slice);
        });
    if (!turned) {
      fold_slice(x, t, slice, 0, l);
      t.s_key = 1, t.s_row = x.layout.keys;
      return output_slice(x, t, slice, true);
    }
    if (!plain) modifiers_hide = modify_scores(x, t, {slice.begin, slice.end, positions_hide}, ScoresStage::masked);
  } else {
    modifiers_hide = score_runs(x, t, slice, runs, chunk);
  }
  const bool finite =
      (!positions_hide && !modifiers_hide) || hides_only_finite(x, runs, modifiers_hide, chunk, of_chunk);
  softmax_slice(x, t, slice);
  output_slice(x, t, slice, finite);
}

// All tiles of the block and the keys [begin, end) of one chunk.
template <class T>
void attend_chunk(const AttentionBlock<T> &x, int64_t begin, int64_t end) {
  constexpr int64_t kSpan = Contract<T>::kKeySpan;
  const StagedChunk<T> chunk = stage(x, begin, end);
  const bool spans = has_spans(x);
  FiniteChunk<T> of_chunk;
  for (int64_t row = 0; row < rows_of(x); row += tile_rows(x)) {
    const QueryTile<T> t = tile_of(x, row);
    const KeyRange seen = seen_by_any(x, t);
    KeySlice<T> slice;
    slice.begin = larger(begin, seen.begin);
    slice.end = smaller(end, seen.end);
    if (slice.begin >= slice.end) continue;
    slice.k = chunk.keys(slice.begin);
    slice.v = chunk.values(slice.begin);
    slice.first = slice.begin == seen.begin || (spans && slice.begin % kSpan == 0);
    slice.last = slice.end == seen.end && !spans;
    if (slice.begin != seen.begin && slice.first) close_span(x, t);
    attend_slice(x, t, slice, chunk, &of_chunk);
  }
}

template <class T>
void attention(const AttentionBlock<T> &x) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  constexpr int64_t kMost = Tiles<T>::kScoreVectors * kLanes<T>;
  static_assert(Contract<T>::kQueryBlock % kMost == 0 && kMost <= Contract<T>::kScoreLanes, "tiles fit the scratch");
  static_assert(Contract<T>::kKeySpan % kChunk == 0, "spans are whole chunks");
  const KeyRange seen = seen_by_any(x);
  const bool spans = has_spans(x);
  for (int64_t row = 0; row < rows_of(x); row += tile_rows(x)) {
    const QueryTile<T> t = tile_of(x, row);
    const KeyRange of_tile = seen_by_any(x, t);
    begin_tile(x, t);
    if (spans || of_tile.begin >= of_tile.end) clear_output(x, t);
  }
  for (int64_t c0 = seen.begin / kChunk * kChunk; c0 < seen.end; c0 += kChunk) {
    attend_chunk(x, larger(c0, seen.begin), smaller(c0 + kChunk, seen.end));
  }
  for (int64_t row = 0; row < rows_of(x); row += tile_rows(x)) {
    const QueryTile<T> t = tile_of(x, row);
    const KeyRange of_tile = seen_by_any(x, t);
    const bool sees_nothing = of_tile.begin >= of_tile.end;
    if (spans && !sees_nothing) close_span(x, t);
    for (int i = 0; (spans || sees_nothing) && i < t.vectors; ++i) {
      finish_rows(x, t, i, load(t.span_m + i * kLanes<T>), load(t.span_l + i * kLanes<T>));
    }
    if (!sees_nothing) finish_output(x, t);
    if (x.scores.data != nullptr) show_scores(x, t);
  }
}

}  // namespace
}  // namespace attend
