#include "drivers/attention.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

AttentionShape shape_of(const Attention &p) {
  // One feature is contiguous whatever its stride.
  return {size_of(acc_of(p.out.dtype)),
          p.out.columns(),
          p.k.columns(),
          p.q.rows(),
          p.v.rows(),
          p.out.heads(),
          p.k.heads(),
          p.out.batch(),
          p.k.stride[0],
          p.k.stride[1],
          p.v.rows() == 1 ? 1 : p.v.stride[0],
          p.mask.given || p.bias.given,
          p.scores.given,
          p.k.is_narrow(),
          p.v.is_narrow(),
          p.out.is_narrow()};
}

// Where sums of a few positions cannot overflow.
int64_t near(int64_t position) {
  constexpr int64_t kFar = int64_t{1} << 60;
  return std::clamp(position, -kFar, kFar);
}

// The sum of two of any size, which may be near although they are not.
int64_t near_sum(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) sum = b < 0 ? INT64_MIN : INT64_MAX;
  return near(sum);
}

// The keys of a batch: columns [first, end) of k. Blocks count them from 0, so that neither what is before them nor what
// is behind them can matter to chunks and spans.
struct Keys {
  int64_t first, end;
};
Keys keys_of(const Attention &p, int64_t batch) {
  return {p.firsts != nullptr ? p.firsts[batch] : 0, p.lengths != nullptr ? p.lengths[batch] : p.k.columns()};
}

// Which keys the block that begins with query `query` sees by position.
template <class T>
void set_visible(const Attention &p, const Keys &keys, int64_t query, int64_t batch, AttentionBlock<T> *x) {
  const int64_t offset = p.bottom_right         ? keys.end - p.out.columns()
                         : p.offsets != nullptr ? p.offsets[batch]
                                                : p.offset;
  const int64_t position = query - keys.first;  // of the block's first query, but for the offset
  x->position = near(offset) + position;
  x->keys = keys.end - keys.first;
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

// One line for each row, from query `query` of head `head` and element `element` on.
template <class T>
RowsRef<T> rows_of(const Tensor &t, int64_t element, int64_t query, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.at<T>(element, query, head, batch), t.stride[0], t.stride[1], t.stride[2]};
}

MatrixRef<const float> scale_of(const Tensor &t, int64_t key, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.at<const float>(0, key, head, batch), t.stride[0], t.stride[1]};
}

StoredRows stored_rows_of(const Tensor &t, int64_t element, int64_t query, int64_t head, int64_t batch) {
  if (!t) return {};
  return {t.matrix(element, query, head, batch).data, t.stride[0], t.stride[1], t.stride[2], t.dtype};
}

// What all blocks of a call share.
template <class T>
struct Call {
  const Attention &p;
  const AttentionPlan &plan;
  const Scratch &scratch;
  const KernelsOf<T> &kernels;
  void (*convert)(const ConvertBlock &);

  // A value for each head of a block: in place, or widened into `room`.
  const T *of_heads(const Tensor &t, int64_t head, T *room, int64_t *stride) const {
    if (!t) return nullptr;
    *stride = t.stride[0];
    if (!t.is_narrow()) return t.at<T>(head, 0, 0, 0);
    *stride = 1;
    convert({plan.heads, 1, t.matrix(head, 0, 0, 0), {room, 1, 0, dtype_of<T>()}, {}});
    return room;
  }
  T *scratch_of(int thread) const { return reinterpret_cast<T *>(scratch.of_thread(thread) + plan.parts_bytes); }
};

template <class T>
AttentionBlock<T> block_of(const Call<T> &call, int64_t query, int64_t head, int64_t batch, T *scratch,
                           T (&of_heads)[2 * Contract<T>::kQueryBlock]) {
  const Attention &p = call.p;
  const AttentionPlan &plan = call.plan;
  const int64_t kv_head = head / (p.out.heads() / p.k.heads());
  const Keys keys = keys_of(p, batch);
  AttentionBlock<T> x = {};
  x.items = std::min(plan.block, p.out.columns() - query);
  x.heads = plan.heads;
  set_visible(p, keys, query, batch, &x);
  x.features = p.q.rows();
  x.value_features = p.v.rows();
  x.scratch = scratch;
  x.layout = plan.layout;
  x.q = stored_rows_of(p.q, 0, query, head, batch);
  x.k = p.k.matrix(0, keys.first, kv_head, batch);
  x.v = p.v.matrix(0, keys.first, kv_head, batch);
  x.k_scale = scale_of(p.k_scale, keys.first, kv_head, batch);
  // A number for each feature of V multiplies what is finished.
  if (p.v_scale && p.v_scale.stride[0] == 0) x.v_scale = scale_of(p.v_scale, keys.first, kv_head, batch);
  x.out = rows_of<T>(p.out, 0, query, head, batch);
  if (p.v.rows() == 1) x.v.row_stride = x.out.element_stride = 1;
  if (p.out.is_narrow()) x.out = {scratch + plan.layout.results, 1, p.v.rows(), x.items * p.v.rows()};
  x.scale = static_cast<T>(p.scale);
  x.softcap = static_cast<T>(p.softcap);
  x.slopes = call.of_heads(p.slopes, head, of_heads, &x.slope_stride);
  x.sinks = call.of_heads(p.sinks, head, of_heads + plan.heads, &x.sink_stride);
  x.bias = stored_rows_of(p.bias, keys.first, query, head, batch);
  x.mask = rows_of<const uint8_t>(p.mask, keys.first, query, head, batch);
  x.scores = rows_of<T>(p.scores, 0, query, head, batch);
  x.scores_before = keys.first;
  x.scores_keys = p.k.columns();
  x.scores_stage = p.scores_stage;
  x.query_tile = plan.query_tile;
  x.few_rows = plan.few_rows;
  x.by_features = plan.by_features;
  x.copied_stride = plan.copied_stride;
  x.values_stride = plan.values_stride;
  x.far = plan.far;
  set_derived(call.kernels, &x);
  return x;
}

template <class T>
void store_lse(const Attention &p, const AttentionBlock<T> &x, int64_t query, int64_t head, int64_t batch) {
  if (!p.lse) return;
  for (int64_t row = 0; row < x.items * x.heads; ++row) {
    // (The logarithm of 0 would raise a division by zero.)
    const double m = static_cast<double>(x.m[row]), l = static_cast<double>(x.l[row]);
    *p.lse.at<T>(0, query + row % x.items, head + row / x.items, batch) =
        static_cast<T>(l == 0 ? -HUGE_VAL : m + std::log(l));
  }
}

// What is left to do with the results of a block: numbers of V's features; and those in the scratch are rounded to the
// type of `out`.
template <class T>
void finish_results(const Call<T> &call, const AttentionBlock<T> &x, int64_t query, int64_t head, int64_t batch) {
  const int64_t dv = x.value_features;
  if (call.p.v_scale && call.p.v_scale.stride[0] != 0) {
    const MatrixRef<const float> scale =
        scale_of(call.p.v_scale, 0, head / (call.p.out.heads() / call.p.k.heads()), batch);
    for (int64_t row = 0; row < x.rows; ++row) {
      T *const of_row = x.out.data + row % x.items * x.out.item_stride + row / x.items * x.out.head_stride;
      for (int64_t f = 0; f < dv; ++f)
        of_row[f * x.out.element_stride] *= static_cast<T>(scale.data[f * scale.row_stride]);
    }
  }
  if (!call.p.out.is_narrow()) return;
  for (int64_t h = 0; h < x.heads; ++h) {
    call.convert({dv,
                  x.items,
                  {x.out.data + h * x.out.head_stride, 1, dv, dtype_of<T>()},
                  call.p.out.matrix(0, query, head + h, batch),
                  {}});
  }
}

template <class T>
__attribute__((noinline)) void run_block(const Call<T> &call, int64_t query, int64_t head, int64_t batch, int thread) {
  T m[Contract<T>::kQueryBlock], l[Contract<T>::kQueryBlock], of_heads[2 * Contract<T>::kQueryBlock];
  AttentionBlock<T> x = block_of(call, query, head, batch, call.scratch_of(thread), of_heads);
  x.m = m;
  x.l = l;
  call.kernels.attention(x);
  store_lse(call.p, x, query, head, batch);
  finish_results(call, x, query, head, batch);
}

// One block, the chunks of its keys in parallel, as many as there is room for; then their fold in order. (Not inlined,
// like run_block, to keep frames below 8 KiB.)
template <class T>
__attribute__((noinline)) void run_split_kv(const Call<T> &call, int64_t head, int64_t batch) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk, kMostChunks = 256;
  T m[Contract<T>::kQueryBlock], l[Contract<T>::kQueryBlock], of_heads[2 * Contract<T>::kQueryBlock];
  AttentionBlock<T> x = block_of(call, 0, head, batch, call.scratch_of(0), of_heads);
  x.m = m;
  x.l = l;
  const int64_t begin = x.seen.begin / kChunk, end = (x.seen.end + kChunk - 1) / kChunk, rows = x.rows;
  const int64_t kept = call.plan.parts, threads = call.plan.threads;
  const T *parts[kMostChunks];
  const auto part = [&](int64_t i) {
    return reinterpret_cast<T *>(call.scratch.of_thread(static_cast<int>(i / kept)) + i % kept * call.plan.part_bytes);
  };
  T *const open = part(kept - 1) + call.plan.part_bytes / static_cast<int64_t>(sizeof(T));
  const int64_t room = std::min(kMostChunks, threads * kept);
  int64_t chunk = begin;
  do {
    const int64_t count = std::clamp<int64_t>(end - chunk, 0, room);
    parallel_for(call.scratch.executor(), static_cast<int>(threads), count, [&](int64_t i, int thread) {
      AttentionBlock<T> y = x;
      y.part = true;
      y.part_begin = (chunk + i) * kChunk;
      y.keys = std::min(x.keys, y.part_begin + kChunk);
      y.sinks = nullptr;
      y.out = {part(i), 1, x.value_features, x.items * x.value_features};
      y.m = part(i) + rows * x.value_features;
      y.l = y.m + x.layout.rows;
      y.scratch = call.scratch_of(thread);
      set_derived(call.kernels, &y);
      call.kernels.attention(y);
    });
    for (int64_t i = 0; i < count; ++i) parts[i] = part(i);
    call.kernels.attention_fold({&x, chunk == begin, chunk + count >= end, chunk, count, parts, open});
    chunk += count;
  } while (chunk < end);
  store_lse(call.p, x, 0, head, batch);
  finish_results(call, x, 0, head, batch);
}

template <class T>
Acquired run(const KernelTable &table, const Attention &p, const Execution &execution) {
  const KernelsOf<T> &kernels = kernels_of<T>(table);
  const AttentionShape shape = shape_of(p);
  const Need need = attention_need(shape);
  if (need.tasks == 0) return Acquired::ok;
  const Scratch scratch(execution, need, attention_threads(shape, execution.usable_threads()));
  if (scratch.result() != Acquired::ok) return scratch.result();
  if (p.k.heads() == 0) return Acquired::ok;

  const AttentionPlan plan =
      plan_attention(shape, {scratch.threads(), scratch.is_faster(), kernels.attention_lanes, caches()});
  const Call<T> call = {p, plan, scratch, kernels, table.convert};
  const int64_t heads = p.out.heads() / plan.heads;
  if (plan.split_kv) {
    for (int64_t slice = 0; slice < plan.tasks; ++slice) {
      run_split_kv(call, slice % heads * plan.heads, slice / heads);
    }
    return Acquired::ok;
  }
  // Blocks of one head follow each other, sharing its keys and values; under a causal mask the longest come first.
  parallel_for(scratch.executor(), scratch.threads(), plan.tasks, [&](int64_t task, int thread) {
    const int64_t block = plan.blocks - 1 - task % plan.blocks, slice = task / plan.blocks;
    run_block(call, block * plan.block, slice % heads * plan.heads, slice / heads, thread);
  });
  return Acquired::ok;
}

}  // namespace

Need attention_need(const Attention &problem) { return attention_need(shape_of(problem)); }

Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution) {
  return with_acc(problem.out.dtype, [&](auto t) { return run<decltype(t)>(kernels, problem, execution); });
}

}  // namespace attend
