// A call of attention_backward over chunks of keys: their own gradients, and what they add to those of queries.
#pragma once

#include <algorithm>
#include <cstring>

#include "drivers/attention_backward_queries.hpp"

namespace attend {

// The backward block of one head and any chunk.
template <class T>
BackwardBlock<T> block_of(const BackwardCall<T> &call, const BackwardUnit &u, int64_t in_unit, T *scratch, T *slope) {
  const Sequence &s = u.sequence;
  const int64_t head = call.head(u, in_unit);
  BackwardBlock<T> b = {};
  b.x = inputs_of_head(call, u, in_unit, 0, u.queries, scratch, slope);
  b.x.layout = call.room.chunk;
  b.x.values_stride = call.room.values_stride;
  set_derived(call.kernels, &b.x);
  b.d_out = stored_rows_of(call.p.d_out, 0, u.column(0), head, s.q_batch);
  b.d_bias = rows_of<T>(call.p.d_bias, s.first, u.column(0), head, s.q_batch);
  b.d_k = call.p.d_k ? scratch + call.room.d_k : nullptr;
  b.d_v = call.p.d_v ? scratch + call.room.d_v : nullptr;
  b.layout = call.room.layout;
  b.scratch = scratch;
  return b;
}

// Writes a gradient of keys or values, if it is wanted: `count` columns from key `key` of the unit's on; null sums = 0.
template <class T>
void write_columns(const BackwardCall<T> &call, const BackwardUnit &u, const Tensor &to, bool is_shared, int64_t key,
                   int64_t count, const T *sums, double scale) {
  if (!to || count == 0) return;
  const Sequence &s = u.sequence;
  call.kernels.attention_gradient({to.rows(), count, sums, static_cast<T>(scale),
                                   to.matrix(0, s.key + s.first + key, u.kv_head, s.k_batch), call.adds(is_shared, u)});
}

// Sums of `count` columns, of keys or of queries, from where a call before left them, or 0; and back.
template <class T>
void load_sums(const BackwardCall<T> &call, const StoredMatrix *from, int64_t features, int64_t count, T *sums) {
  if (from == nullptr) {
    std::memset(sums, 0, static_cast<size_t>(count * features) * sizeof(T));
  } else {
    call.convert({features, count, *from, {sums, 1, features, dtype_of<T>()}, {}});
  }
}
template <class T>
void store_sums(const BackwardCall<T> &call, const T *sums, int64_t features, int64_t count, const StoredMatrix &to) {
  call.kernels.attention_gradient({features, count, sums, T(1), to, false});
}

// The gradient of keys or values of a chunk while it is at hand, and what is left of it behind other calls.
template <class T>
struct KeySums {
  const Tensor &gradient, &state;
  bool is_shared;
  T *sums;
  T scale;

  StoredMatrix left(const BackwardUnit &u, int64_t key) const {
    const Sequence &s = u.sequence;
    return state.matrix(0, s.key + s.first + key, u.kv_head, s.k_batch);
  }
  void begin(const BackwardCall<T> &call, const BackwardUnit &u, int64_t key, int64_t count) const {
    if (!gradient) return;
    const bool goes_on = call.p.resumes && state;
    const StoredMatrix from = goes_on ? left(u, key) : StoredMatrix();
    load_sums(call, goes_on ? &from : nullptr, gradient.rows(), count, sums);
  }
  void end(const BackwardCall<T> &call, const BackwardUnit &u, int64_t key, int64_t count) const {
    if (gradient && call.p.pauses && state) return store_sums(call, sums, gradient.rows(), count, left(u, key));
    write_columns<T>(call, u, gradient, is_shared, key, count, sums, scale);
  }
};

// The unit's keys `keys`: d_k and d_v of each chunk, and what these add to d_q in `d_q`, or null. `lines`: where shift, factor
// and delta are.
template <class T>
void run_keys(const BackwardCall<T> &call, const BackwardUnit &u, KeyRange keys, const T *lines, T *d_q, int thread) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  T *const scratch = call.of_thread(thread);
  const KeySums<T> sums[] = {
      {call.p.d_k, call.p.d_k_state, call.shared.k, scratch + call.room.d_k, static_cast<T>(call.forward().scale)},
      {call.p.d_v, call.p.d_v_state, call.shared.v, scratch + call.room.d_v, T(1)}};
  for (int64_t key = keys.begin; key < keys.end; key += kChunk) {
    const int64_t end = std::min(keys.end, key + kChunk);
    for (const KeySums<T> &of : sums) of.begin(call, u, key, end - key);
    for (int64_t h = 0; h < u.heads; ++h) {
      T slope = 0;
      BackwardBlock<T> b = block_of(call, u, h, scratch, &slope);
      const T *const of_head = lines + h * call.room.lines;
      b.shift = of_head + call.room.shift;
      b.factor = of_head + call.room.factor;
      b.delta = of_head + call.room.delta;
      b.begin = key;
      b.end = end;
      b.d_q = d_q == nullptr ? nullptr : d_q + h * u.queries * call.forward().q.rows();
      call.kernels.attention_backward(b);
    }
    for (const KeySums<T> &of : sums) of.end(call, u, key, end - key);
  }
}

}  // namespace attend
