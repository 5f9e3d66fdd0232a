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
#include "kernels/attention/resume.hpp"
#include "kernels/attention/scores_few.hpp"
#include "kernels/attention/shown_scores.hpp"

namespace attend {
namespace {

// Scores of a run into t.s; whether modifiers may hide something.
template <class T>
ATTEND_INLINE bool score_run(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeyRun &run,
                             StagedChunk<T> &chunk) {
  const MatrixRef<const T> k = chunk.keys(run.begin);
  // A mask alone hides the scores before they are stored, 3 % of the call sooner than afterwards.
  const bool scales = scales_keys(x.k_scale), masks = run.adds && !scales && only_masks(x, run);
  // (What values are asked for ahead: those that lie as they will be read.)
  scores_of(x, t, run.begin, run.end - run.begin, k, chunk.v.room == nullptr ? chunk.values(run.begin) : k,
            run.adds && !masks, masks);
  if (masks) return true;
  if (scales) scale_scores(x, t, run.begin, run.end - run.begin);
  return is_modified(x, run) && modify_scores(x, t, run, ScoresStage::masked, true);
}

// Of several runs of a slice.
template <class T>
bool score_runs(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice, const KeyRuns &runs,
                StagedChunk<T> &chunk) {
  bool hides = false;
  vec<T> top[Tiles<T>::kScoreVectors];
  for (int n = 0; n < runs.count; ++n) {
    QueryTile<T> at = t;
    at.s += (runs.run[n].begin - slice.begin) * t.lanes;
    hides |= score_run(x, at, runs.run[n], chunk);
    for (int i = 0; i < t.vectors; ++i) {
      const vec<T> of_run = load(t.slice_m() + i * kLanes<T>);
      top[i] = n == 0 ? of_run : maximum(of_run, top[i]);
    }
  }
  for (int i = 0; i < t.vectors; ++i) store(t.slice_m() + i * kLanes<T>, top[i]);
  return hides;
}

// The runs as one: its keys in one piece, what any of the runs has to do done to all.
template <class T>
void join(const KeySlice<T> &slice, KeyRuns *runs) {
  KeyRun all = {slice.begin, slice.end, false, false};
  int64_t keys = 0;
  for (int n = 0; n < runs->count; ++n) {
    keys += runs->run[n].end - runs->run[n].begin;
    all.hides |= runs->run[n].hides;
    all.adds |= runs->run[n].adds;
  }
  all.adds |= keys != slice.size();
  runs->count = 1;
  runs->run[0] = all;
}

// Few rows: scores, and unless these must be turned, weights, whose sums are the result.
template <class T>
__attribute__((noinline)) vec<T> attend_few(const AttentionBlock<T> &x, const QueryTile<T> &t, const KeySlice<T> &slice,
                                            const KeyRuns &runs, const StagedChunk<T> &chunk, bool turned) {
  vec<T> l = broadcast(T(0));
  KeyPieces pieces;
  chunk.k.pieces(runs, slice.begin, x.far ? &chunk.v : nullptr, 0, &pieces);
  with_key_or_value<T>(slice.k.type, [&](auto stored) {
    using S = decltype(stored);
    if constexpr (kIsSame<T, S>) {
      with_constant<kFewRows<T>>(t.count, [&](auto nq) {
        constexpr int NQ = decltype(nq)::value;
        few_scores<T, NQ, S>(x, t, slice, chunk.k, pieces, turned);
        if (!turned) l = few_weights<T, NQ>(x, t, slice);
      });
    } else {  // half the shapes; the lanes behind the rows are 0
      with_power_above<kFewRows<T>>(
          t.count, [&](auto nq) { few_scores<T, decltype(nq)::value, S>(x, t, slice, chunk.k, pieces, turned); });
      if (!turned) {
        with_constant<kFewRows<T>>(t.count, [&](auto nq) { l = few_weights<T, decltype(nq)::value>(x, t, slice); });
      }
    }
  });
  return l;
}

// One tile and the runs of one slice, which is no longer than these.
template <class T>
ATTEND_INLINE void attend_slice(const AttentionBlock<T> &x, QueryTile<T> t, KeySlice<T> &slice, KeyRuns *runs,
                                StagedChunk<T> &chunk, FiniteChunk<T> *of_chunk) {
  bool modifiers_hide = false, positions_hide = false, weighed = false;
  if (t.count <= x.few_rows && slice.size() >= kLanes<T>) {
    if (runs->count > 1) join(slice, runs);
    const bool modified = is_modified(x, runs->run[0]), turned = modified || !x.by_features;
    if (!chunk.k.is_piecewise()) {
      chunk.k.copy();
      slice.k = chunk.k.from(slice.begin);
    }
    const vec<T> l = attend_few(x, t, slice, *runs, chunk, turned);
    weighed = !turned;
    if (weighed) {
      fold_slice(x, t, slice, 0, l);
      t.s_key = 1, t.s_row = x.layout.keys;
    } else if (modified) {
      modifiers_hide = modify_scores(x, t, runs->run[0], ScoresStage::masked, true);
    }
  } else {
    modifiers_hide = runs->count == 1 ? score_run(x, t, runs->run[0], chunk) : score_runs(x, t, slice, *runs, chunk);
  }
  if (!weighed) {
    softmax_slice(x, t, slice, *runs);
    for (int n = 0; n < runs->count; ++n) positions_hide |= runs->run[n].hides;
  }
  if (scales_keys(x.v_scale)) scale_weights(x, t, slice);
  const bool finite =
      (!positions_hide && !modifiers_hide) || hides_only_finite(x, *runs, modifiers_hide, chunk, of_chunk);
  // Few rows read V as it is stored, if nothing must be left out.
  if (chunk.v.room != nullptr && (!finite || !reads_stored(x, t, *runs, chunk.v))) chunk.v.copy();
  slice.v = chunk.v.from(slice.begin);
  output_slice(x, t, slice, *runs, chunk, finite);
}

// A tile's open span: empty; with something; and, of a tile that has one span, whose last chunk is behind, its result.
enum class Sums : uint8_t { none, begun, finished };

// All tiles of the block and the keys [begin, end) of one chunk.
template <class T>
void attend_chunk(const AttentionBlock<T> &x, int64_t begin, int64_t end, Sums *sums) {
  StagedChunk<T> chunk = stage(x, begin, end);
  FiniteChunk<T> of_chunk;
  for (int64_t row = 0; row < x.rows; row += x.tile_rows, ++sums) {
    const QueryTile<T> t = tile_of(x, row);
    const KeyRange seen = seen_by_any(x, t);
    if (x.spans && (begin + x.key_offset) % Contract<T>::kKeySpan == 0 && *sums != Sums::none) {
      close_span(x, t);
      *sums = Sums::none;
    }
    KeySlice<T> slice;
    slice.begin = larger(begin, seen.begin);
    slice.end = smaller(end, seen.end);
    if (slice.begin >= slice.end) continue;
    slice.last = slice.end == seen.end && !x.spans;
    KeyRuns runs = runs_of(x, t, slice);
    if (runs.count == 0) continue;
    slice.begin = runs.run[0].begin;
    slice.end = runs.run[runs.count - 1].end;
    slice.k = chunk.k.from(slice.begin);
    slice.v = chunk.v.from(slice.begin);
    slice.first = *sums == Sums::none;
    *sums = slice.last ? Sums::finished : Sums::begun;
    attend_slice(x, t, slice, &runs, chunk, &of_chunk);
  }
}

// The results of a tile when all chunks are behind.
template <class T>
void finish_state(const AttentionBlock<T> &x, const QueryTile<T> &t, Sums sums) {
  constexpr int W = kLanes<T>;
  const bool finished = sums == Sums::finished, nothing = sums == Sums::none && !x.spans;
  if (sums == Sums::begun && x.spans) close_span(x, t);
  if (nothing) clear_output(x, t);
  for (int i = 0; !finished && i < t.vectors; ++i) {
    if (nothing) {
      store(t.m() + i * W, broadcast(kMinusInfinity<T>));
      store(t.l() + i * W, broadcast(T(0)));
    }
    finish_rows(x, t, i, load((x.spans ? t.span_m() : t.m()) + i * W), load((x.spans ? t.span_l() : t.l()) + i * W));
  }
  if (!nothing) write_output(x, t, finished);
}

// What is left to do then.
template <class T>
void finish_tile(const AttentionBlock<T> &x, const QueryTile<T> &t, Sums sums) {
  if (x.pauses) {
    pause_tile(x, t, sums != Sums::none);
  } else {
    finish_state(x, t, sums);
  }
  if (x.scores.data != nullptr) show_scores(x, t);
}

template <class T>
void attention(const AttentionBlock<T> &x) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  constexpr int64_t kMost = Tiles<T>::kScoreVectors * kLanes<T>;
  static_assert(Contract<T>::kQueryBlock % kMost == 0 && kMost <= Contract<T>::kScoreLanes, "tiles fit the scratch");
  static_assert(Contract<T>::kKeySpan % kChunk == 0, "spans end with chunks");
  // Rows of a tile at least, but for the last: query_tile() has half of kScoreLanes where the L1 is small.
  constexpr int64_t kLeast = kMost < Contract<T>::kScoreLanes ? kMost : kMost / 2;
  Sums sums[Contract<T>::kMostQueries / kLeast];  // of each tile; set below
  for (int64_t row = 0, tile = 0; row < x.rows; row += x.tile_rows, ++tile) {
    sums[tile] = x.resumes ? Sums::begun : Sums::none;
    begin_tile(x, tile_of(x, row));
    if (x.resumes) {
      resume_tile(x, tile_of(x, row));
    } else if (x.spans) {
      clear_output(x, tile_of(x, row));
    }
  }
  for (int64_t c0 = x.seen.begin / kChunk * kChunk, looked_to = c0; c0 < x.seen.end; c0 += kChunk) {
    if (x.looked_at && c0 >= looked_to) {
      looked_to = (c0 / kWindow + 1) * kWindow;
      for (int64_t row = 0; row < x.rows; row += x.tile_rows) look_at_window(x, tile_of(x, row), looked_to - kWindow);
    }
    attend_chunk(x, larger(c0, x.seen.begin), smaller(c0 + kChunk, x.seen.end), sums);
  }
  for (int64_t row = 0, tile = 0; row < x.rows; row += x.tile_rows, ++tile) {
    if (sums[tile] == Sums::finished && x.in_place && x.scores.data == nullptr) continue;
    finish_tile(x, tile_of(x, row), sums[tile]);
  }
}

}  // namespace
}  // namespace attend
