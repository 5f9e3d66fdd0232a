// How gradients of attention are shared out: a function of shapes and strides, and of the number of threads. None of it
// changes a bit of the results but the spans, which depend on the number of keys alone.
#pragma once

#include "drivers/attention_backward.hpp"

namespace attend {

// Keys are cut into chunks of Contract<T>::kKeyChunk, and these into at most kMostSpans spans, a power of two of chunks each.
// Every span has its own sums for d_q, so that threads can work on spans of one head; they are added in order.
constexpr int64_t kMostSpans = 8;
int64_t backward_span(int64_t keys);  // keys of one

// What of a gradient belongs to several sequences or heads, whose tasks come one after the other then.
struct SharedGradients {
  bool q, k, v, bias;  // by sequences
  bool heads;          // of the bias, by heads
  bool spans;          // of the bias, by keys
  bool sequences() const { return q || k || v || bias; }
};
SharedGradients shared_gradients(const AttentionBackward &problem);

// What a unit of work has: the heads that share keys, and all queries of a sequence; or, where d_q alone is wanted (or delta), to
// which each query comes by itself, a few queries of one head.
struct UnitShape {
  bool queries_alone;
  int64_t heads, queries;
};
UnitShape unit_shape(const AttentionBackward &problem);

// Parts of a unit's keys that threads may share: spans, or chunks where there are no sums over them.
inline int64_t keys_of_part(const AttentionBackward &p, int64_t keys) {
  return p.d_q ? backward_span(keys) : Contract<float>::kKeyChunk;
}
inline int64_t count_parts(const AttentionBackward &p, int64_t keys) {
  const int64_t part = keys_of_part(p, keys);
  return keys == 0 ? 1 : (keys + part - 1) / part;
}

// A thread's scratch, in elements: what a task keeps while its keys pass by.
struct BackwardRoom {
  BackwardLayout layout;                 // of a block
  int64_t copied_stride, values_stride;  // of keys and values that are copied, 0 = in place
  AttentionLayout chunk;                 // where
  int64_t d_k, d_v;                      // of a chunk, if they are wanted
  AttentionLayout forward;               // of a block of queries whose maxima and sums are found again
  int64_t shift, factor, delta;          // of the unit's heads: `lines` each
  int64_t lines;
  int64_t sums, sums_size;  // of d_q, for the span at hand and for those before it
  int64_t end;
};
template <class T>
BackwardRoom backward_room(const AttentionBackward &problem);

}  // namespace attend
