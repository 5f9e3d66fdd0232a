#include "drivers/attention_backward.hpp"

#include <algorithm>

#include "drivers/attention_backward_keys.hpp"

namespace attend {
namespace {

// One part.
template <class T>
void run_part(const BackwardCall<T> &call, const BackwardUnit &u, int64_t part, const T *lines, T *d_q, int thread) {
  const int64_t size = keys_of_part(call.p, u.keys()), d = call.forward().q.rows();
  if (d_q != nullptr) load_sums<T>(call, nullptr, d, u.heads * u.queries, d_q);
  run_keys(call, u, {part * size, std::min(u.keys(), (part + 1) * size)}, lines, d_q, thread);
}

// Adds the sums of d_q of `count` spans to `sum`, in order, which begins with the first of them if it `begins`; and writes
// d_q if these are the last ones.
template <class T>
void fold_spans(const BackwardCall<T> &call, const BackwardUnit &u, T *sum, T *const *parts, int64_t count, bool begins,
                bool last, int threads) {
  constexpr int64_t kPiece = 256;
  const Attention &f = call.forward();
  const Sequence &s = u.sequence;
  const int64_t d = f.q.rows(), pieces = (u.queries + kPiece - 1) / kPiece;
  parallel_for(call.scratch.executor(), threads, u.heads * pieces, [&](int64_t task, int) {
    const int64_t h = task / pieces, query = task % pieces * kPiece, columns = std::min(kPiece, u.queries - query);
    const int64_t at = (h * u.queries + query) * d;
    for (int64_t i = 0; i < count; ++i) {
      if (parts[i] == sum) continue;
      call.kernels.attention_gradient(
          {d, columns, parts[i] + at, T(1), {sum + at, 1, d, dtype_of<T>()}, !begins || i > 0});
    }
    if (!last) return;
    call.kernels.attention_gradient({d, columns, sum + at, static_cast<T>(f.scale),
                                     call.p.d_q.matrix(0, u.column(query), call.head(u, h), s.q_batch),
                                     call.adds(call.shared.q, u)});
  });
}

// The keys that this call has of a unit, on one thread, where others have the rest: d_q goes on in the span that is open,
// which is closed when a key of the next one comes, as spans lie among the keys of all.
template <class T>
void run_piece(const BackwardCall<T> &call, const BackwardUnit &u, int thread) {
  const Sequence &s = u.sequence;
  const int64_t d = call.forward().q.rows(), size = backward_span(call.p.total_keys[s.batch]),
                all = u.heads * u.queries, before = call.forward().key_offset;
  T *const scratch = call.of_thread(thread), *const closed = scratch + call.room.sums,
           *const open = closed + call.room.sums_size;
  const auto left = [&](int64_t row, int64_t head) {
    return call.p.d_q_state.matrix(row, u.column(0), call.head(u, head), s.q_batch);
  };
  for (int64_t h = 0; h < u.heads; ++h) {
    const StoredMatrix of_open = left(0, h), of_closed = left(d, h);
    load_sums(call, call.p.resumes ? &of_open : nullptr, d, u.queries, open + h * u.queries * d);
    load_sums(call, call.p.resumes ? &of_closed : nullptr, d, u.queries, closed + h * u.queries * d);
  }
  for (int64_t key = 0; key < u.keys();) {
    if ((before + key) % size == 0) {
      call.kernels.attention_gradient({d, all, open, T(1), {closed, 1, d, dtype_of<T>()}, true});
      load_sums<T>(call, nullptr, d, all, open);
    }
    const int64_t end = std::min(u.keys(), (before + key) / size * size + size - before);
    run_keys(call, u, {key, end}, scratch, open, thread);
    key = end;
  }
  if (!call.p.pauses) return fold_spans(call, u, closed, &open, 1, false, true, 1);
  for (int64_t h = 0; h < u.heads; ++h) {
    store_sums(call, open + h * u.queries * d, d, u.queries, left(0, h));
    store_sums(call, closed + h * u.queries * d, d, u.queries, left(d, h));
  }
}

// One unit on one thread.
template <class T>
void run_unit(const BackwardCall<T> &call, const BackwardUnit &u, int thread) {
  prepare(call, u, 1, thread);
  if (!call.p.wants_weights()) return;  // delta alone
  if (call.p.keys_in_pieces()) return run_piece(call, u, thread);
  T *const scratch = call.of_thread(thread), *const sum = scratch + call.room.sums,
           *const next = sum + call.room.sums_size;
  for (int64_t i = 0, parts = count_parts(call.p, u.keys()); i < parts; ++i) {
    if (!call.p.d_q) {
      run_part<T>(call, u, i, scratch, nullptr, thread);
      continue;
    }
    T *const part = i == 0 ? sum : next;
    run_part(call, u, i, scratch, part, thread);
    fold_spans(call, u, sum, &part, 1, i == 0, i + 1 == parts, 1);
  }
}

// One unit on all threads; with d_q as many spans at a time as there is room for.
template <class T>
void run_parts(const BackwardCall<T> &call, const BackwardUnit &u) {
  const int threads = call.scratch.threads();
  const int64_t spans = count_parts(call.p, u.keys());
  prepare(call, u, threads, 0);
  if (!call.p.d_q) {
    parallel_for(call.scratch.executor(), threads, spans,
                 [&](int64_t i, int thread) { run_part<T>(call, u, i, call.of_thread(0), nullptr, thread); });
    return;
  }
  for (int64_t span = 0; span < spans;) {
    const int64_t count = std::min<int64_t>(2 * threads, spans - span);
    T *parts[kMostSpans];
    for (int64_t i = 0; i < count; ++i) parts[i] = call.sums(i);
    parallel_for(call.scratch.executor(), threads, count,
                 [&](int64_t i, int thread) { run_part(call, u, span + i, call.of_thread(0), parts[i], thread); });
    fold_spans(call, u, call.sum, parts, count, span == 0, span + count == spans, threads);
    span += count;
  }
}

// Keys that do not exist for a sequence have gradients of 0.
template <class T>
void clear_hidden_keys(const BackwardCall<T> &call, const BackwardUnit &u) {
  const Attention &f = call.forward();
  const Sequence &s = u.sequence;
  const int64_t columns = f.key_starts != nullptr ? f.key_starts[s.batch + 1] - s.key : f.k.columns();
  const struct {
    const Tensor &to, &state;
    bool shared;
  } gradients[] = {{call.p.d_k, call.p.d_k_state, call.shared.k}, {call.p.d_v, call.p.d_v_state, call.shared.v}};
  for (const auto &g : gradients) {
    if (call.p.pauses && g.state) continue;
    write_columns<T>(call, u, g.to, g.shared, -s.first, s.first, nullptr, 1);
    write_columns<T>(call, u, g.to, g.shared, u.keys(), columns - s.end, nullptr, 1);
  }
}

// Of d_q alone, for sequences and key heads from the `first` on: all queries at once.
template <class T>
void run_queries(const BackwardCall<T> &call, int64_t first, int64_t count) {
  const Attention &f = call.forward();
  const int64_t kv_heads = f.k.heads(), group = call.group();
  int64_t step = unit_shape(call.p).queries, most = 0;
  for (int64_t i = first; i < first + count; i += kv_heads) most = std::max(most, sequence_of(f, i / kv_heads).queries);
  // Fewer at a time where threads would have nothing to do.
  while (step > kBackwardQueries && count * group * ((most + step - 1) / step) < 2 * call.scratch.threads()) {
    step = round_up(step / 2, kBackwardQueries);
  }
  const int64_t pieces = step == 0 ? 0 : (most + step - 1) / step;
  parallel_for(call.scratch.executor(), call.scratch.threads(), count * group * pieces, [&](int64_t task, int thread) {
    const int64_t i = first + task / (group * pieces), query = task % pieces * step;
    const Sequence s = sequence_of(f, i / kv_heads);
    if (query >= s.queries) return;
    run_unit(call, {s, i % kv_heads, task / pieces % group, 1, query, std::min(step, s.queries - query)}, thread);
  });
}

// Without d_q, of a piece: chunks of all units at once. Each has what its queries share to itself, which is found in no time
// where nothing large is to be found again.
template <class T, class Unit>
void run_chunks(const BackwardCall<T> &call, const Unit &unit, int64_t first, int64_t count) {
  const int64_t parts = count_parts(call.p, most_keys(call.forward()));
  parallel_for(call.scratch.executor(), call.scratch.threads(), count * parts, [&](int64_t task, int thread) {
    const BackwardUnit u = unit(first + task / parts);
    if (task % parts >= count_parts(call.p, u.keys())) return;
    prepare(call, u, 1, thread);
    run_part<T>(call, u, task % parts, call.of_thread(thread), nullptr, thread);
  });
}

// Units that nothing orders: whole ones while there are enough for all threads. Those that are left follow each other, their
// keys shared out, where that takes less time than one of them on each thread.
template <class T>
void run_units(const BackwardCall<T> &call, int64_t first, int64_t count) {
  if (unit_shape(call.p).queries_alone) return run_queries(call, first, count);
  const int threads = call.scratch.threads();
  const auto unit = [&](int64_t i) {
    const int64_t heads = call.forward().k.heads();
    const Sequence s = sequence_of(call.forward(), i / heads);
    return BackwardUnit{s, i % heads, 0, call.group(), 0, s.queries};
  };
  const int64_t parts = count_parts(call.p, most_keys(call.forward())), left = count % threads;
  const bool splits =
      threads > 1 && !call.shared.spans && !call.p.keys_in_pieces() && left * ((parts + threads - 1) / threads) < parts;
  const int64_t whole = splits ? count - left : count;
  if (!call.p.d_q && call.p.in_pieces() && (!call.p.delta || call.p.reads_delta) && count < 4 * threads) {
    run_chunks(call, unit, first, count);
  } else {
    parallel_for(call.scratch.executor(), threads, whole,
                 [&](int64_t i, int thread) { run_unit(call, unit(first + i), thread); });
    for (int64_t i = whole; i < count; ++i) run_parts(call, unit(first + i));
  }
  if (!call.p.d_k && !call.p.d_v) return;
  for (int64_t i = 0; i < count; ++i) clear_hidden_keys(call, unit(first + i));
}

// d_sinks: of all sequences in order.
template <class T>
void write_sinks(const AttentionBackward &p, const T *sinks) {
  if (!p.d_sinks) return;
  const int64_t heads = p.forward.out.heads();
  for (int64_t h = 0; h < heads; ++h) {
    T sum = 0;
    for (int64_t b = 0; b < count_sequences(p.forward); ++b) sum += sinks[b * heads + h];
    T *const to = p.d_sinks.at<T>(h, 0, 0, 0);
    *to = p.accumulates ? *to + sum : sum;
  }
}

template <class T>
void clear(const KernelsOf<T> &kernels, const Tensor &to) {
  for (int64_t b = 0; b < to.batch(); ++b) {
    for (int64_t h = 0; h < to.heads(); ++h) {
      kernels.attention_gradient({to.rows(), to.columns(), nullptr, T(1), to.matrix(0, 0, h, b), false});
    }
  }
}

// Nothing to compute: what is there of gradients is 0.
template <class T>
void clear_all(const KernelsOf<T> &kernels, const AttentionBackward &p) {
  const Tensor none = {};
  for (const auto &[to, state] : {std::pair{&p.d_q, &p.d_q_state},
                                  {&p.d_k, &p.d_k_state},
                                  {&p.d_v, &p.d_v_state},
                                  {&p.d_bias, &none},
                                  {&p.d_sinks, &none}}) {
    if (*to && to->count > 0 && !p.accumulates && !(p.pauses && *state)) clear(kernels, *to);
  }
}

// The shared part of the scratch: lse if it is not given, then the sinks of each sequence and the
// sum of d_q of one unit, then what finding lse needs.
struct SharedRoom {
  int64_t sinks = 0, sum = 0, forward = 0, end = 0;
  Need need;
};

// lse alone: attention without values.
Attention without_values(const AttentionBackward &p, void *lse) {
  Attention f = p.forward;
  f.v.shape[0] = f.out.shape[0] = 0;
  f.v.count = f.out.count = 0;
  f.lse = f.out;
  f.lse.given = true;
  f.lse.data = lse;
  f.lse.dtype = acc_of(f.out.dtype);
  f.lse.shape[0] = 1;
  const auto &shape = f.lse.shape;
  f.lse.stride = {1, 1, shape[1], shape[1] * shape[2]};
  f.lse.count = shape[1] * shape[2] * shape[3];
  return f;
}

__attribute__((noinline)) SharedRoom shared_room(const AttentionBackward &p) {
  const int64_t element = size_of(acc_of(p.forward.out.dtype)), heads = p.forward.out.heads();
  SharedRoom r;
  if (!p.forward.lse && p.wants_weights()) {
    const Attention f = without_values(p, nullptr);
    r.need = attention_need(f);
    r.sinks = aligned(f.lse.count * element);
  }
  r.sum = r.sinks + (p.d_sinks ? aligned(count_sequences(p.forward) * heads * element) : 0);
  const UnitShape unit = unit_shape(p);
  const bool sums = p.d_q && !unit.queries_alone;
  r.forward = r.sum + (sums ? aligned(unit.heads * unit.queries * p.forward.q.rows() * element) : 0);
  r.end = r.forward + r.need.shared;
  return r;
}

// (Not inlined, like shared_room, to keep frames below 8 KiB.)
__attribute__((noinline)) Acquired find_lse(const KernelTable &table, const AttentionBackward &p,
                                            const SharedRoom &room, const Scratch &scratch, Tensor *lse) {
  const Attention forward = without_values(p, scratch.shared());
  const auto bytes = static_cast<uint64_t>(room.need.shared + scratch.per_thread() * scratch.threads());
  *lse = forward.lse;
  return attention(table, forward, {scratch.threads(), scratch.shared() + room.forward, bytes, scratch.executor()});
}

template <class T>
Acquired run(const KernelTable &table, const AttentionBackward &p, const Execution &execution) {
  const Attention &f = p.forward;
  const Need need = attention_backward_need(p);
  // Scores and dP, and a product for each gradient, where the call itself has two.
  const int products = 2 + (p.d_q ? 1 : 0) + (p.d_k ? 1 : 0) + (p.d_v ? 1 : 0);
  const Scratch scratch(execution, need,
                        attention_threads(products * attention_work(f) / 2, execution.usable_threads()));
  if (scratch.result() != Acquired::ok) return scratch.result();
  if (f.k.heads() == 0 || count_sequences(f) == 0) {
    clear_all(kernels_of<T>(table), p);
    return Acquired::ok;
  }
  const SharedRoom room = shared_room(p);
  Tensor lse = f.lse;
  if (!f.lse && p.wants_weights()) {
    if (const Acquired r = find_lse(table, p, room, scratch, &lse); r != Acquired::ok) return r;
  }
  T *const sinks = reinterpret_cast<T *>(scratch.shared() + room.sinks);
  if (p.d_sinks) std::fill_n(sinks, count_sequences(f) * f.out.heads(), T(0));  // also of sequences without queries
  const BackwardCall<T> call = {p,
                                lse,
                                backward_room<T>(p),
                                shared_gradients(p),
                                scratch,
                                kernels_of<T>(table),
                                table.convert,
                                sinks,
                                reinterpret_cast<T *>(scratch.shared() + room.sum)};
  if (p.d_bias && !p.accumulates) clear(call.kernels, p.d_bias);
  // What is shared is added to in the order of sequences and heads.
  const int64_t kv_heads = f.k.heads(), units = count_sequences(f) * kv_heads;
  const int64_t step = call.shared.heads ? 1 : call.shared.sequences() ? kv_heads : units;
  for (int64_t first = 0; first < units; first += step) run_units(call, first, step);
  write_sinks(p, call.sinks);
  return Acquired::ok;
}

}  // namespace

Need attention_backward_need(const AttentionBackward &p) {
  const Attention &f = p.forward;
  return with_acc(f.out.dtype, [&](auto t) {
    using T = decltype(t);
    Need need;
    const SharedRoom room = shared_room(p);
    need.shared = room.end;
    need.per_thread =
        std::max(aligned(backward_room<T>(p).end * static_cast<int64_t>(sizeof(T))), room.need.per_thread);
    const UnitShape unit = unit_shape(p);
    const int64_t pieces = unit.queries == 0 ? 0 : (f.out.columns() + unit.queries - 1) / unit.queries;
    need.tasks =
        count_sequences(f) * (unit.queries_alone ? f.out.heads() * pieces : f.k.heads() * count_parts(p, most_keys(f)));
    if (!p.forward.lse && p.wants_weights()) need.tasks = std::max(need.tasks, room.need.tasks);
    return need;
  });
}

Acquired attention_backward(const KernelTable &kernels, const AttentionBackward &problem, const Execution &execution) {
  return with_acc(problem.forward.out.dtype, [&](auto t) { return run<decltype(t)>(kernels, problem, execution); });
}

}  // namespace attend
