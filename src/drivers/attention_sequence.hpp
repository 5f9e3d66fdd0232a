// One sequence of a call, a batch or a packed one: where it lies in the operands, and which keys its queries see by
// position.
#pragma once

#include <algorithm>

#include "drivers/attention.hpp"

namespace attend {

struct Sequence {
  int64_t batch;           // of what is not packed, and its number among kv_lengths, kv_first, offsets and tables
  int64_t query, queries;  // columns of q, out, lse, mask and bias
  int64_t q_batch;         // of these
  int64_t key, k_batch;    // where its key 0 lies in k, v and their scales
  // Keys that exist. Blocks count them from `first`, so that neither what is before them nor what is behind them can
  // matter to chunks and spans.
  int64_t first, end;
};

inline int64_t count_sequences(const Attention &p) { return p.sequences > 0 ? p.sequences : p.out.batch(); }

// Keys of the longest sequence that the operands have room for.
inline int64_t most_keys(const Attention &p) { return p.pages ? p.pages.rows() * p.k.columns() : p.k.columns(); }

inline Sequence sequence_of(const Attention &p, int64_t batch) {
  Sequence s = {batch, 0, p.out.columns(), batch, 0, batch, 0, most_keys(p)};
  if (p.query_starts != nullptr) {
    s.query = p.query_starts[batch];
    s.queries = p.query_starts[batch + 1] - s.query;
    s.q_batch = 0;
  }
  if (p.key_starts != nullptr) {
    s.key = p.key_starts[batch];
    s.end = p.key_starts[batch + 1] - s.key;
    s.k_batch = 0;
  }
  if (p.firsts != nullptr) s.first = p.firsts[batch];
  if (p.lengths != nullptr) s.end = p.lengths[batch];
  return s;
}

// Where sums of a few positions cannot overflow.
inline int64_t near(int64_t position) {
  constexpr int64_t kFar = int64_t{1} << 60;
  return std::clamp(position, -kFar, kFar);
}

// The sum of two of any size, which may be near although they are not.
inline int64_t near_sum(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) sum = b < 0 ? INT64_MIN : INT64_MAX;
  return near(sum);
}

// One line for each row, from query `query` of head `head` and element `element` on.
template <class T>
RowsRef<T> rows_of(const Tensor &t, int64_t element, int64_t query, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.at<T>(element, query, head, batch), t.stride[0], t.stride[1], t.stride[2]};
}

inline StoredRows stored_rows_of(const Tensor &t, int64_t element, int64_t query, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.matrix(element, query, head, batch).data, t.stride[0], t.stride[1], t.stride[2], t.dtype};
}

// Which keys the block that begins with query `query` sees by position.
template <class T>
void set_visible(const Attention &p, const Sequence &s, int64_t query, AttentionBlock<T> *x) {
  const int64_t offset = p.bottom_right ? s.end - s.queries : p.offsets != nullptr ? p.offsets[s.batch] : p.offset;
  const int64_t position = query - s.first - near(p.key_offset);  // of the block's first query, but for the offset
  x->position = near(offset) + position;
  x->keys = s.end - s.first;
  x->key_end = x->keys;
  if (p.causal || p.right >= 0) {
    x->key_end = position + 1 + (p.causal ? near(offset) : near_sum(offset, p.right));
    x->key_end_step = 1;
  }
  if (p.left >= 0) {
    x->key_begin = position + near_sum(offset, -p.left);
    x->key_begin_step = 1;
  }
}

inline MatrixRef<const float> scale_of(const Tensor &t, int64_t key, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.at<const float>(0, key, head, batch), t.stride[0], t.stride[1]};
}

// A value for each of `heads` heads: in place, or widened into `room`; null if there are none.
template <class T>
const T *of_heads(const Tensor &t, int64_t head, int64_t heads, void (*convert)(const ConvertBlock &), T *room,
                  int64_t *stride) {
  if (!t) return nullptr;
  *stride = t.stride[0];
  if (!t.is_narrow()) return t.at<T>(head, 0, 0, 0);
  *stride = 1;
  convert({heads, 1, t.matrix(head, 0, 0, 0), {room, 1, 0, dtype_of<T>()}, {}});
  return room;
}

// What a block reads that begins with query `query` of head `head`, but for pages and what is of_heads.
template <class T>
AttentionBlock<T> inputs_of(const Attention &p, const Sequence &s, int64_t query, int64_t head) {
  const int64_t kv_head = head / (p.out.heads() / p.k.heads()), column = s.query + query;
  // Pools begin with their first page, whatever it belongs to.
  const int64_t key = p.pages ? 0 : s.key + s.first, k_batch = p.pages ? 0 : s.k_batch;
  AttentionBlock<T> x = {};
  set_visible(p, s, query, &x);
  x.features = p.q.rows();
  x.value_features = p.v.rows();
  x.q = stored_rows_of(p.q, 0, column, head, s.q_batch);
  x.k = p.k.matrix(0, key, kv_head, k_batch);
  x.v = p.v.matrix(0, key, kv_head, k_batch);
  x.k_scale = scale_of(p.k_scale, key, kv_head, k_batch);
  // A number for each feature of V multiplies what is finished.
  if (p.v_scale && p.v_scale.stride[0] == 0) x.v_scale = scale_of(p.v_scale, key, kv_head, k_batch);
  x.scale = static_cast<T>(p.scale);
  x.softcap = static_cast<T>(p.softcap);
  x.bias = stored_rows_of(p.bias, s.first, column, head, s.q_batch);
  x.mask = rows_of<const uint8_t>(p.mask, s.first, column, head, s.q_batch);
  return x;
}

}  // namespace attend
