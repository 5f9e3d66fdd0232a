#include "drivers/attention.hpp"

#include <algorithm>
#include <cmath>

#include "drivers/attention_sequence.hpp"

namespace attend {
namespace {

// Of the longest sequence that the operands have room for.
AttentionShape shape_of(const Attention &p) {
  // One feature is contiguous whatever its stride.
  return {size_of(acc_of(p.out.dtype)),
          p.out.columns(),
          most_keys(p),
          p.q.rows(),
          p.v.rows(),
          p.out.heads(),
          p.k.heads(),
          count_sequences(p),
          p.k.stride[0],
          p.k.stride[1],
          p.v.rows() == 1 ? 1 : p.v.stride[0],
          p.mask.given || p.bias.given,
          p.scores.given,
          p.k.is_narrow(),
          p.v.is_narrow(),
          p.out.is_narrow(),
          p.pages.given,
          p.v.stride[1]};
}

// Whether sequences may differ in queries or keys.
bool are_uneven(const Attention &p) {
  return count_sequences(p) > 1 &&
         (p.query_starts != nullptr || p.key_starts != nullptr || p.lengths != nullptr || p.firsts != nullptr);
}

// What one of the sequences has.
AttentionShape shape_of(const AttentionShape &longest, const Sequence &s) {
  AttentionShape shape = longest;
  shape.queries = s.queries;
  shape.keys = s.end - s.first;
  shape.batch = 1;
  return shape;
}

double work_of(const Attention &p, const AttentionShape &shape) {
  if (!are_uneven(p)) return attention_work(shape);
  double work = 0;
  for (int64_t b = 0, count = count_sequences(p); b < count; ++b) {
    work += attention_work(shape_of(shape, sequence_of(p, b)));
  }
  return work;
}

// What all blocks of a call that have one plan share.
template <class T>
struct Call {
  const Attention &p;
  const AttentionPlan &plan;
  const Scratch &scratch;
  const KernelsOf<T> &kernels;
  void (*convert)(const ConvertBlock &);

  T *scratch_of(int thread) const { return reinterpret_cast<T *>(scratch.of_thread(thread) + plan.parts_bytes); }
};

// What a block works on: queries of a head, or of as many heads as the plan says, from query `query` on.
struct BlockPlace {
  Sequence sequence;
  int64_t query, head;
  int64_t column() const { return sequence.query + query; }
};

PageTable pages_of(const Attention &p, const Sequence &s) {
  if (!p.pages) return {};
  const auto stride = [](const Tensor &t) { return t.given ? t.stride[3] : 0; };
  return {p.pages.at<const int32_t>(0, s.batch, 0, 0),
          p.pages.stride[0],
          p.k.columns(),
          s.first,
          s.end,
          stride(p.k),
          stride(p.v),
          stride(p.k_scale),
          stride(p.v_scale)};
}

template <class T>
AttentionBlock<T> block_of(const Call<T> &call, const BlockPlace &at, T *scratch,
                           T (&per_head)[2 * Contract<T>::kQueryBlock]) {
  const Attention &p = call.p;
  const AttentionPlan &plan = call.plan;
  const Sequence &s = at.sequence;
  const int64_t head = at.head, column = at.column();
  AttentionBlock<T> x = inputs_of<T>(p, s, at.query, head);
  x.items = std::min(plan.block, s.queries - at.query);
  x.heads = plan.heads;
  x.scratch = scratch;
  x.layout = plan.layout;
  x.pages = pages_of(p, s);
  x.out = rows_of<T>(p.out, 0, column, head, s.q_batch);
  if (p.v.rows() == 1) x.v.row_stride = x.out.element_stride = 1;
  if (p.out.is_narrow()) x.out = {scratch + plan.layout.results, 1, p.v.rows(), x.items * p.v.rows()};
  if (p.resumes || p.pauses) x.state = rows_of<T>(p.state, 0, column, head, s.q_batch);
  x.resumes = p.resumes;
  x.pauses = p.pauses;
  x.key_offset = p.key_offset;
  if (p.pauses) x.out = rows_of<T>(p.state, p.v.rows() + 4, column, head, s.q_batch);
  x.slopes = of_heads(p.slopes, head, plan.heads, call.convert, per_head, &x.slope_stride);
  x.sinks = of_heads(p.sinks, head, plan.heads, call.convert, per_head + plan.heads, &x.sink_stride);
  x.scores = rows_of<T>(p.scores, 0, column, head, s.q_batch);
  x.scores_before = s.first;
  x.scores_keys = most_keys(p);
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
void store_lse(const Attention &p, const AttentionBlock<T> &x, const BlockPlace &at) {
  if (!p.lse || p.pauses) return;
  for (int64_t row = 0; row < x.items * x.heads; ++row) {
    // (The logarithm of 0 would raise a division by zero.)
    const double m = static_cast<double>(x.m[row]), l = static_cast<double>(x.l[row]);
    *p.lse.at<T>(0, at.column() + row % x.items, at.head + row / x.items, at.sequence.q_batch) =
        static_cast<T>(l == 0 ? -HUGE_VAL : m + std::log(l));
  }
}

// What is left to do with the results of a block: numbers of V's features; and those in the scratch are rounded to the
// type of `out`.
template <class T>
void finish_results(const Call<T> &call, const AttentionBlock<T> &x, const BlockPlace &at) {
  if (call.p.pauses) return;
  const int64_t dv = x.value_features, heads_of_one = call.p.out.heads() / call.p.k.heads();
  if (call.p.v_scale && call.p.v_scale.stride[0] != 0) {
    const MatrixRef<const float> scale =
        scale_of(call.p.v_scale, 0, at.head / heads_of_one, call.p.pages ? 0 : at.sequence.k_batch);
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
                  call.p.out.matrix(0, at.column(), at.head + h, at.sequence.q_batch),
                  {}});
  }
}

// The keys of a block from key `key` on, which a thread asks for before it comes to them.
template <class T>
NextKeys keys_from(const Call<T> &call, const BlockPlace &at, int64_t key) {
  const Attention &p = call.p;
  const Sequence &s = at.sequence;
  if (!call.plan.far || p.left >= 0 || s.first + key >= s.end) return {};
  const int64_t head = at.head / (p.out.heads() / p.k.heads());
  NextKeys next = {p.k.matrix(0, p.pages ? 0 : s.key + s.first + key, head, p.pages ? 0 : s.k_batch).data,
                   pages_of(p, s)};
  next.pages.first += key;
  return next;
}

template <class T>
__attribute__((noinline)) void run_block(const Call<T> &call, const BlockPlace &at, const NextKeys &next, int thread) {
  T m[Contract<T>::kMostQueries], l[Contract<T>::kMostQueries], per_head[2 * Contract<T>::kQueryBlock];
  AttentionBlock<T> x = block_of(call, at, call.scratch_of(thread), per_head);
  x.next = next;
  x.m = m;
  x.l = l;
  call.kernels.attention(x);
  store_lse(call.p, x, at);
  finish_results(call, x, at);
}

// One block, the chunks of its keys in parallel, as many as there is room for; then their fold in order. (Not inlined,
// like run_block, to keep frames below 8 KiB.)
template <class T>
__attribute__((noinline)) void run_split_kv(const Call<T> &call, const BlockPlace &at) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk, kMostChunks = 256;
  T m[Contract<T>::kQueryBlock], l[Contract<T>::kQueryBlock], per_head[2 * Contract<T>::kQueryBlock];
  AttentionBlock<T> x = block_of(call, at, call.scratch_of(0), per_head);
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
      y.next = keys_from(call, at, y.part_begin + threads * kChunk);
      y.sinks = nullptr;
      y.state = {};
      y.resumes = y.pauses = false;
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
  store_lse(call.p, x, at);
  finish_results(call, x, at);
}

// One task of a plan for sequences alike: blocks of one head follow each other, sharing its keys and values; under a causal
// mask the longest come first.
template <class T>
BlockPlace place_of(const Call<T> &call, const Sequence &s, int64_t task) {
  const AttentionPlan &plan = call.plan;
  return {s, (plan.blocks - 1 - task % plan.blocks) * plan.block, task / plan.blocks * plan.heads};
}

template <class T>
void split_sequence(const Call<T> &call, const Sequence &s) {
  for (int64_t head = 0; head < call.p.out.heads(); head += call.plan.heads) run_split_kv(call, {s, 0, head});
}

// Sequences that differ in queries or keys. Tasks are numbered through all of them; those of a few neighbours are handed
// out at a time, so that many short sequences cost a plan each and no more.
template <class T>
void run_sequences(const Attention &p, const AttentionShape &shape, const AttentionMeans &means, const Scratch &scratch,
                   const KernelTable &table) {
  const KernelsOf<T> &kernels = kernels_of<T>(table);
  const int64_t count = count_sequences(p);
  const auto plan_of = [&](const Sequence &s) {
    AttentionShape one = shape;
    one.queries = s.queries;
    return plan_attention(one, means);
  };
  const double work = work_of(p, shape);
  int64_t *const first = reinterpret_cast<int64_t *>(scratch.shared());  // the first task of each, and behind the last
  first[0] = 0;
  for (int64_t b = 0; b < count; ++b) {
    const Sequence s = sequence_of(p, b);
    first[b + 1] = first[b];
    if (s.queries == 0) continue;
    const AttentionPlan plan = plan_of(s);
    if (splits_keys(plan, shape_of(shape, s), work)) {
      split_sequence<T>({p, plan, scratch, kernels, table.convert}, s);
    } else {
      first[b + 1] += plan.tasks / count;
    }
  }
  const int64_t tasks = first[count], together = std::max<int64_t>(1, tasks / (64 * means.threads));
  parallel_for(scratch.executor(), means.threads, (tasks + together - 1) / together, [&](int64_t i, int thread) {
    int64_t task = i * together, b = std::upper_bound(first, first + count + 1, task) - first - 1;
    for (const int64_t end = std::min(tasks, task + together); task < end; ++b) {
      if (first[b + 1] == first[b]) continue;
      const Sequence s = sequence_of(p, b);
      const AttentionPlan plan = plan_of(s);
      const Call<T> call = {p, plan, scratch, kernels, table.convert};
      for (const int64_t last = std::min(end, first[b + 1]); task < last; ++task) {
        const NextKeys next = task + 1 < last ? keys_from(call, place_of(call, s, task + 1 - first[b]), 0) : NextKeys();
        run_block(call, place_of(call, s, task - first[b]), next, thread);
      }
    }
  });
}

template <class T>
Acquired run(const KernelTable &table, const Attention &p, const Execution &execution) {
  const KernelsOf<T> &kernels = kernels_of<T>(table);
  const AttentionShape shape = shape_of(p);
  const Need need = attention_need(p);
  if (need.tasks == 0) return Acquired::ok;
  const Scratch scratch(execution, need, attention_threads(work_of(p, shape), execution.usable_threads()));
  if (scratch.result() != Acquired::ok) return scratch.result();
  if (p.k.heads() == 0) return Acquired::ok;

  const AttentionMeans means = {scratch.threads(), scratch.per_thread(), kernels.attention_lanes, caches()};
  if (are_uneven(p) && (p.query_starts != nullptr || means.threads > 1)) {
    run_sequences<T>(p, shape, means, scratch, table);
    return Acquired::ok;
  }
  const AttentionPlan plan = plan_attention(shape, means);
  const Call<T> call = {p, plan, scratch, kernels, table.convert};
  if (plan.split_kv) {
    for (int64_t b = 0; b < shape.batch; ++b) split_sequence(call, sequence_of(p, b));
    return Acquired::ok;
  }
  const int64_t each = plan.tasks / shape.batch;
  const auto place = [&](int64_t task) { return place_of(call, sequence_of(p, task / each), task % each); };
  parallel_for(scratch.executor(), scratch.threads(), plan.tasks, [&](int64_t task, int thread) {
    const int64_t then = task + scratch.threads();
    run_block(call, place(task), then < plan.tasks ? keys_from(call, place(then), 0) : NextKeys(), thread);
  });
  return Acquired::ok;
}

}  // namespace

double attention_work(const Attention &p) { return work_of(p, shape_of(p)); }

Need attention_need(const Attention &p) {
  Need need = attention_need(shape_of(p), p.query_starts != nullptr);
  if (need.tasks != 0 && are_uneven(p)) {
    need.shared = aligned((count_sequences(p) + 1) * static_cast<int64_t>(sizeof(int64_t)));
  }
  return need;
}

Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution) {
  return with_acc(problem.out.dtype, [&](auto t) { return run<decltype(t)>(kernels, problem, execution); });
}

}  // namespace attend
