// A call of attention_backward at work, and what its units begin with: what all keys of a query share.
#pragma once

#include <algorithm>
#include <cmath>

#include "drivers/attention_backward_plan.hpp"
#include "drivers/attention_sequence.hpp"

namespace attend {

// Heads of one sequence that share keys and values, and queries: all, or some of them (see UnitShape).
struct BackwardUnit {
  Sequence sequence;
  int64_t kv_head;
  int64_t first_head, heads;  // of those that share keys
  int64_t first_query, queries;
  int64_t keys() const { return sequence.end - sequence.first; }
  int64_t column(int64_t query) const { return sequence.query + first_query + query; }  // of q and its like
};

template <class T>
struct BackwardCall {
  const AttentionBackward &p;
  const Tensor lse;
  const BackwardRoom room;
  const SharedGradients shared;
  const Scratch &scratch;
  const KernelsOf<T> &kernels;
  void (*convert)(const ConvertBlock &);
  T *sinks;  // the gradient of each sequence's sinks: heads side by side
  T *sum;    // of d_q, where all threads work on one unit

  const Attention &forward() const { return p.forward; }
  int64_t group() const { return forward().out.heads() / forward().k.heads(); }  // heads that share keys
  int64_t head(const BackwardUnit &u, int64_t in_unit) const { return u.kv_head * group() + u.first_head + in_unit; }
  T *of_thread(int thread) const { return reinterpret_cast<T *>(scratch.of_thread(thread)); }
  // Sums of d_q for a span: two for each thread.
  T *sums(int64_t i) const { return of_thread(static_cast<int>(i / 2)) + room.sums + i % 2 * room.sums_size; }
  // Whether a gradient adds to what is there, its own tensor being `shared` by sequences.
  bool adds(bool is_shared, const BackwardUnit &u) const {
    return p.accumulates || (is_shared && u.sequence.batch > 0);
  }
};

// What a block of `count` queries of one head reads.
template <class T>
AttentionBlock<T> inputs_of_head(const BackwardCall<T> &call, const BackwardUnit &u, int64_t in_unit, int64_t query,
                                 int64_t count, T *scratch, T *slope) {
  const int64_t head = call.head(u, in_unit);
  AttentionBlock<T> x = inputs_of<T>(call.forward(), u.sequence, u.first_query + query, head);
  x.items = count;
  x.heads = 1;
  x.scratch = scratch;
  x.slopes = of_heads(call.forward().slopes, head, 1, call.convert, slope, &x.slope_stride);
  x.copied_stride = call.room.copied_stride;
  return x;
}

// exp(score - lse) as exp(score - m) / l, m and l being found as by the forward call.
template <class T>
bool is_large_lse(T lse) {
  return std::isfinite(lse) && std::fabs(lse) > static_cast<T>(kLargeLse);
}

// (Not inlined, to keep frames below 8 KiB.)
template <class T>
__attribute__((noinline)) void set_large(const BackwardCall<T> &call, const BackwardUnit &u, int64_t in_unit,
                                         int64_t query, int64_t count, T *shift, T *factor, T *scratch) {
  T m[Contract<T>::kQueryBlock], l[Contract<T>::kQueryBlock], slope = 0, sink = 0;
  static_assert(kBackwardQueries <= Contract<T>::kQueryBlock, "room for all rows");
  AttentionBlock<T> x = inputs_of_head(call, u, in_unit, query, count, scratch, &slope);
  x.sinks = of_heads(call.forward().sinks, call.head(u, in_unit), 1, call.convert, &sink, &x.sink_stride);
  x.value_features = 0;
  x.query_tile = Contract<T>::kScoreLanes;
  x.layout = call.room.forward;
  x.m = m;
  x.l = l;
  set_derived(call.kernels, &x);
  call.kernels.attention(x);
  for (int64_t i = 0; i < count; ++i) {
    if (is_large_lse(shift[i])) shift[i] = m[i], factor[i] = 1 / l[i];
  }
}

// Shift and factor of queries from `query` on, which begin a backward block.
template <class T>
void set_weights(const BackwardCall<T> &call, const BackwardUnit &u, int64_t in_unit, int64_t query, int64_t count,
                 T *shift, T *factor, T *scratch) {
  const Sequence &s = u.sequence;
  for (int64_t from = 0; from < count; from += kBackwardQueries) {
    const int64_t rows = std::min(kBackwardQueries, count - from);
    std::fill_n(shift + from, kBackwardQueries, static_cast<T>(HUGE_VAL));
    std::fill_n(factor + from, kBackwardQueries, T(1));
    bool large = false;
    for (int64_t i = from; i < from + rows; ++i) {
      const T lse = *call.lse.template at<const T>(0, u.column(query + i), call.head(u, in_unit), s.q_batch);
      if (lse != static_cast<T>(-HUGE_VAL)) shift[i] = lse;
      large |= is_large_lse(lse);
    }
    // (Of a piece of the keys neither maximum nor sum can be found.)
    if (large && !call.p.in_pieces())
      set_large(call, u, in_unit, query + from, rows, shift + from, factor + from, scratch);
  }
}

// Shift, factor and delta of one head's queries from `query` on into the lines of `to`; with sinks of all queries at once.
template <class T>
void prepare_head(const BackwardCall<T> &call, const BackwardUnit &u, int64_t in_unit, int64_t query, int64_t count,
                  T *to, T *scratch) {
  const Attention &f = call.forward();
  const Sequence &s = u.sequence;
  const int64_t head = call.head(u, in_unit), column = u.column(query);
  const RowsRef<T> given = rows_of<T>(call.p.delta, 0, column, head, s.q_batch);
  T *const lines = to + in_unit * call.room.lines + query;
  T *const shift = lines + call.room.shift, *const factor = lines + call.room.factor;
  if (call.p.wants_weights()) set_weights(call, u, in_unit, query, count, shift, factor, scratch);
  T *const delta = lines + call.room.delta;
  if (call.p.reads_delta) {
    for (int64_t i = 0; i < count; ++i) delta[i] = given.data[i * given.item_stride];
    std::fill(delta + count, delta + round_up(count, kBackwardQueries), T(0));
    return;
  }
  T sink = 0, d_sink = 0;
  int64_t stride = 0;
  const T *const of_sink = of_heads(f.sinks, head, 1, call.convert, &sink, &stride);
  call.kernels.attention_delta({count, f.v.rows(), stored_rows_of(f.out, 0, column, head, s.q_batch),
                                stored_rows_of(call.p.d_out, 0, column, head, s.q_batch),
                                rows_of<const T>(call.p.d_lse, 0, column, head, s.q_batch), shift, factor, delta,
                                call.p.d_sinks ? of_sink : nullptr, &d_sink, scratch});
  for (int64_t i = 0; given.data != nullptr && i < count; ++i) given.data[i * given.item_stride] = delta[i];
  if (call.p.d_sinks) call.sinks[s.batch * f.out.heads() + head] = d_sink;
}

// Of all heads, on `threads` threads, into the scratch of thread `owner`.
template <class T>
void prepare(const BackwardCall<T> &call, const BackwardUnit &u, int threads, int owner) {
  constexpr int64_t kPiece = 16 * kBackwardQueries;
  const int64_t queries = u.queries, piece = threads == 1 || call.p.d_sinks ? std::max<int64_t>(1, queries) : kPiece;
  const int64_t pieces = (queries + piece - 1) / piece;
  parallel_for(call.scratch.executor(), threads, u.heads * pieces, [&](int64_t task, int thread) {
    const int64_t query = task % pieces * piece;
    prepare_head(call, u, task / pieces, query, std::min(piece, queries - query), call.of_thread(owner),
                 call.of_thread(threads == 1 ? owner : thread));
  });
}

}  // namespace attend
