// attend_mpi_attention_backward, in two passes. First queries stay and keys go around the ring, as in attend_mpi_attention, and
// d_q is summed in the order of keys; then keys stay and queries go around, head by head of those that share keys, and d_k and
// d_v are summed in the order of heads, then of queries. So each sum is one rank's, in one machine's order, where a single
// pass would have some of them travel from rank to rank and wait for each other: at the price of scores and dP twice, seven
// products instead of five.
#include <cmath>

#include "mpi/computation.hpp"
#include "mpi/passing.hpp"

namespace attend::mpi {
namespace {

// What travels with a query.
enum { kQ, kDOut, kLse, kDelta };

class Backward : public Computation {
 public:
  static constexpr auto kFunction = Function::backward;

  explicit Backward(Call *call)
      : Computation(call),
        of_keys_({call->k, call->v}),
        of_queries_(arrays_of_head(0)),
        key_pieces_(Pieces::of(call->keys.total)),
        query_pieces_(Pieces::of(call->queries.total)),
        d_q_state_(columns(wants_queries() ? 2 * call->q.shape[0] : 0, call->queries.own, call->q.shape[2])),
        d_k_state_(columns(call->d_k.rank != 0 ? call->k.shape[0] : 0, call->keys.own, call->k.shape[2])),
        d_v_state_(columns(call->d_v.rank != 0 ? call->v.shape[0] : 0, call->keys.own, call->v.shape[2])) {
    const auto operations = [&](const Pieces &pieces, int64_t products_of_d, int64_t products_of_dv, int64_t heads) {
      return 2.0 * static_cast<double>((products_of_d * call_.q.shape[0] + products_of_dv * call_.v.shape[0]) * heads *
                                       call_.batch * pieces.keys);
    };
    const bool worker = (call_.options.flags & ATTEND_MPI_COMPUTE_THREAD) != 0;
    const int64_t heads = call_.q.shape[2], kv_heads = call_.k.shape[2];
    query_block_ = worker ? call_.queries.own + 1
                          : columns_of_block(call_, operations(key_pieces_, 2, 1, heads), 64, heads * call_.batch);
    key_block_ = worker
                     ? call_.keys.own + 1
                     : columns_of_block(call_, operations(query_pieces_, 2, 2, kv_heads), 256, kv_heads * call_.batch);
  }

  void carve(Carver *carver, uint64_t of_attention) {
    delta_memory_ = carver->take<char>(bytes_of(delta()));
    // (The passes follow each other, and so does what they keep.)
    const int64_t of_k = bytes_of(d_k_state_);
    char *const states = carver->take<char>(std::max(bytes_of(d_q_state_), of_k + bytes_of(d_v_state_)));
    d_q_state_.data = d_k_state_.data = states;
    d_v_state_.data = states == nullptr ? nullptr : states + of_k;
    slots_ = carver->take<char>(Ring::kSlots * std::max(key_pieces_.keys * of_keys_.layout.bytes_of_key(),
                                                        query_pieces_.keys * of_queries_.layout.bytes_of_key()));
    roots_ = carver->take<int32_t>(std::max(key_pieces_.count(), query_pieces_.count()));
    offsets_ = carver->take<int64_t>(call_.batch);
    totals_ = carver->take<int64_t>(call_.batch);
    query_ranges_ = carver->take<KeyRange>(call_.queries.entries);
    Computation::carve(carver, of_attention);
  }

  // What libattend needs for any block and any piece.
  Fault size_attention(uint64_t *bytes) {
    Fault fault;
    *bytes = 0;
    const auto ask = [&](const auto &call) {
      uint64_t need = 0;
      if (!fault) fault = call(&need);
      *bytes = std::max(*bytes, need);
    };
    const auto each = [&](const Columns &of, int64_t most, const Pieces &pieces, const auto &f) {
      const int64_t last = pieces.count() == 0 ? 0 : pieces.size(pieces.count() - 1);
      Block block;
      for (Blocks blocks(of, most); blocks.next(&block);) {
        for (const int64_t columns : {pieces.keys, last, int64_t{0}}) {
          if (columns <= pieces.total) ask([&](uint64_t *need) { return f(block, columns, need); });
        }
      }
    };
    ask([&](uint64_t *need) { return find_delta(need); });
    if (wants_queries()) {
      each(call_.queries, query_block_, key_pieces_, [&](const Block &block, int64_t keys, uint64_t *need) {
        return add_to_queries(block, 0, keys, nullptr, ATTEND_PARTIAL, need);
      });
    }
    if (wants_keys()) {
      each(call_.keys, key_block_, query_pieces_, [&](const Block &block, int64_t queries, uint64_t *need) {
        return add_to_keys(block, 0, 0, queries, nullptr, ATTEND_PARTIAL, need);
      });
    }
    return fault;
  }

  // As check_as_computed: by calls whose workspace is too small.
  Fault check() const {
    Fault fault;
    char text[sizeof fault.text] = "", byte = 0;
    const auto check = [&](const attend_tensor &k, const attend_tensor &v, const attend_tensor *d_k,
                           const attend_tensor *d_v, const attend_attention_options &a) {
      attend_attention_backward_options b = call_.backward;
      b.message = text, b.message_size = sizeof text;
      b.workspace = &byte, b.workspace_size = 1;
      const attend_status s =
          attend_attention_backward(&call_.q, &k, &v, &call_.out, &call_.d_out, given(call_.d_q), d_k, d_v, &b, &a);
      if (s != ATTEND_OK && ATTEND_REASON(s) != ATTEND_WORKSPACE_TOO_SMALL) fault.set(s, text, true);
    };
    // All keys at one place; then those of this rank, where they are.
    check(stand_in(call_.k, call_.keys.total, one_key()), stand_in(call_.v, call_.keys.total, one_key()), nullptr,
          nullptr, call_.attention);
    attend_attention_options a = call_.attention;
    a.kv_lengths = nullptr;
    if (!fault) check(call_.k, call_.v, given(call_.d_k), given(call_.d_v), a);
    if (!fault) find_large(&fault);
    return fault;
  }

  Fault gather(Keys *keys) {
    Fault fault = call_.gather(call_.queries, Argument::options_query_ranges, query_ranges_, counts_, &queries_);
    return fault ? fault : Computation::gather(keys);
  }

  void run(const Keys &keys) {
    for (int64_t b = 0; b < call_.batch; ++b) {
      totals_[b] = call_.attention.kv_lengths == nullptr ? keys.total : call_.attention.kv_lengths[b];
    }
    if (const Fault fault = find_delta(nullptr)) call_.team.give_up("a call of libattend failed: %s", fault.text);
    with_worker(call_, [&](Worker *worker) {
      if (wants_queries()) pass_keys(keys, worker);
      if (wants_keys()) pass_queries(worker);
    });
  }

 private:
  bool wants_queries() const { return call_.d_q.rank != 0; }
  bool wants_keys() const { return call_.d_k.rank != 0 || call_.d_v.rank != 0; }
  static const attend_tensor *given(const attend_tensor &t) { return t.rank == 0 ? nullptr : &t; }
  int64_t group() const { return call_.k.shape[2] == 0 ? 0 : call_.q.shape[2] / call_.k.shape[2]; }

  // Numbers of the arithmetic, one behind the other; without memory yet.
  attend_tensor columns(int64_t rows, int64_t count, int64_t heads) const {
    return {
        nullptr, call_.acc_type(), 4, {rows, count, heads, call_.batch}, {1, rows, rows * count, rows * count * heads}};
  }
  static int64_t bytes_of(const attend_tensor &t) {
    return t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3] * bytes_of_element(t);
  }
  attend_tensor delta() const {
    attend_tensor t = columns(1, call_.queries.own, call_.out.shape[2]);
    t.data = delta_memory_;
    return t;
  }

  // What travels of every group-th head's queries, from the `first` on.
  Arrays arrays_of_head(int64_t first) const {
    const int64_t step = std::max<int64_t>(1, group());
    return {heads_of(call_.q, first, step), heads_of(call_.d_out, first, step),
            heads_of(four_extents(*call_.attention.lse), first, step), heads_of(delta(), first, step)};
  }

  // One machine finds the weights of a query whose lse is large in another way than pieces can.
  void find_large(Fault *fault) const {
    const attend_tensor lse = four_extents(*call_.attention.lse);
    for (int64_t b = 0; b < lse.shape[3]; ++b) {
      for (int64_t h = 0; h < lse.shape[2]; ++h) {
        for (int64_t i = 0; i < lse.shape[1]; ++i) {
          const int64_t at = i * lse.stride[1] + h * lse.stride[2] + b * lse.stride[3];
          const double x = lse.dtype == ATTEND_F64 ? static_cast<const double *>(lse.data)[at]
                                                   : static_cast<const float *>(lse.data)[at];
          if (!std::isfinite(x) || std::fabs(x) <= kLargeLse || *fault) continue;
          fault->set(
              ATTEND_UNSUPPORTED, Argument::attention_options_lse,
              "is %g for a query, but over ranks %g is the most: scores are too large, or too low where all keys "
              "are as good as hidden",
              x, kLargeLse);
        }
      }
    }
  }

  // One call of libattend, or with `need` how much workspace that takes. Its head is that of the call.
  Fault compute(const attend_tensor &q, const attend_tensor &k, const attend_tensor &v, const attend_tensor *out,
                const attend_tensor &d_out, const attend_tensor *d_q, const attend_tensor *d_k,
                const attend_tensor *d_v, attend_attention_backward_options b, const attend_attention_options &a,
                uint64_t *need) const {
    Fault fault;
    char text[sizeof fault.text] = "";
    b.message = text, b.message_size = sizeof text;
    b.workspace = attention_, b.workspace_size = attention_bytes_;
    const attend_status s =
        need != nullptr ? attend_attention_backward_workspace(&q, &k, &v, out, &d_out, d_q, d_k, d_v, &b, &a, need)
                        : attend_attention_backward(&q, &k, &v, out, &d_out, d_q, d_k, d_v, &b, &a);
    if (s != ATTEND_OK) fault.set(s, text, true);
    return fault;
  }
  // The caller's, but for what pieces have of their own.
  attend_attention_options attention_options() const {
    attend_attention_options a = call_.attention;
    a.sinks = nullptr;  // lse has them
    return a;
  }
  attend_attention_backward_options backward_options(const attend_tensor *of_delta, uint32_t flags) const {
    attend_attention_backward_options b = call_.backward;
    b.d_lse = nullptr;  // delta has it
    b.delta = of_delta;
    b.flags |= flags;
    return b;
  }

  // Of all own queries, without a look at keys.
  Fault find_delta(uint64_t *need) const {
    const attend_tensor all = delta();
    attend_attention_backward_options b = call_.backward;
    b.delta = &all;
    attend_attention_options a = attention_options();
    a.kv_lengths = nullptr;
    return compute(call_.q, call_.k, call_.v, &call_.out, call_.d_out, nullptr, nullptr, nullptr, b, a, need);
  }

  void pass_keys(const Keys &keys, Worker *worker) {
    find_roots(keys, key_pieces_, call_.team.ranks(), roots_);
    Ring ring(&call_.team, keys, key_pieces_, of_keys_.layout, roots_, of_keys_.own, slots_);
    ring.progress();
    const Sight sight(call_);
    pass(
        &call_, &ring, key_pieces_, slots_, Blocks(call_.queries, query_block_), 0, worker, {true, true},
        [&](const Block &block, int64_t *first, int64_t *last) { return sight.keys_of(block, first, last); },
        [&](const Run &run, int64_t p, int64_t count, const char *piece, uint32_t flags) {
          return add_to_queries(run.only(), p, count, piece, flags, nullptr);
        });
  }
  // d_q of a block from the keys of a piece.
  Fault add_to_queries(const Block &block, int64_t p, int64_t keys, const char *piece, uint32_t flags,
                       uint64_t *need) const {
    const auto of = [&block](const attend_tensor &t) { return columns_of(t, block.column, block.count); };
    const attend_tensor lse = of(*call_.attention.lse), of_delta = of(delta()), state = of(d_q_state_),
                        d_q = of(call_.d_q);
    attend_attention_options a = attention_options();
    a.lse = &lse;
    a.key_offset = key_pieces_.begin(p);
    attend_attention_backward_options b = backward_options(&of_delta, flags);
    b.d_q_state = &state;
    b.total_keys = totals_;
    int64_t nothing = 0;
    if (need != nullptr) {
      b.total_keys = &nothing;  // (not looked at)
    } else {
      move_queries(block.position, offsets_, &a);
      a.kv_lengths = lengths_of(a.kv_lengths, a.key_offset, keys);
    }
    return compute(of(call_.q), of_keys_.in(piece, 0, call_.k, keys), of_keys_.in(piece, 1, call_.v, keys), nullptr,
                   of(call_.d_out), &d_q, nullptr, nullptr, b, a, need);
  }

  void pass_queries(Worker *worker) {
    find_roots(queries_, query_pieces_, call_.team.ranks(), roots_);
    const Sight sight(call_);
    for (int64_t h = 0; h < group(); ++h) {
      const Arrays arrays = arrays_of_head(h);
      Ring ring(&call_.team, queries_, query_pieces_, arrays.layout, roots_, arrays.own, slots_);
      ring.progress();
      pass(
          &call_, &ring, query_pieces_, slots_, Blocks(call_.keys, key_block_), 0, worker, {h == 0, h + 1 == group()},
          [&](const Block &block, int64_t *first, int64_t *last) {
            return sight.queries_of(block, queries_.total, first, last);
          },
          [&](const Run &run, int64_t p, int64_t count, const char *piece, uint32_t flags) {
            return add_to_keys(run.only(), h, p, count, piece, flags, nullptr);
          });
    }
  }
  // d_k and d_v of a block from the queries of a piece, of every group-th head from `head` on.
  Fault add_to_keys(const Block &block, int64_t head, int64_t p, int64_t queries, const char *piece, uint32_t flags,
                    uint64_t *need) const {
    const auto of = [&block](const attend_tensor &t) { return columns_of(t, block.column, block.count); };
    const int64_t step = std::max<int64_t>(1, group());
    const auto in = [&](int i, const attend_tensor &like) {
      return of_queries_.in(piece, i, heads_of(four_extents(like), 0, step), queries);
    };
    const attend_tensor lse = in(kLse, *call_.attention.lse), of_delta = in(kDelta, delta());
    const bool wants_k = call_.d_k.rank != 0, wants_v = call_.d_v.rank != 0;
    const attend_tensor d_k = wants_k ? of(call_.d_k) : attend_tensor(),
                        d_v = wants_v ? of(call_.d_v) : attend_tensor(), k_state = of(d_k_state_),
                        v_state = of(d_v_state_);
    attend_attention_options a = attention_options();
    a.lse = &lse;
    attend_tensor slopes;
    if (a.alibi_slopes != nullptr) {
      slopes = four_extents(*a.alibi_slopes);
      if (slopes.data != nullptr) slopes = rows_of(slopes, head, 1);
      slopes.rank = 1, slopes.shape[0] = call_.k.shape[2], slopes.stride[0] = a.alibi_slopes->stride[0] * step;
      a.alibi_slopes = &slopes;
    }
    attend_attention_backward_options b = backward_options(&of_delta, flags);
    if (wants_k) b.d_k_state = &k_state;
    if (wants_v) b.d_v_state = &v_state;
    if (need == nullptr) {
      move_queries(query_pieces_.begin(p) - block.position, offsets_, &a);
      a.kv_lengths = lengths_of(a.kv_lengths, block.position, block.count);
    }
    return compute(in(kQ, call_.q), of(call_.k), of(call_.v), nullptr, in(kDOut, call_.d_out), nullptr, given(d_k),
                   given(d_v), b, a, need);
  }

  char *delta_memory_ = nullptr;
  const Arrays of_keys_, of_queries_;
  const Pieces key_pieces_, query_pieces_;
  int64_t query_block_ = 64, key_block_ = 256;
  attend_tensor d_q_state_, d_k_state_, d_v_state_;
  char *slots_ = nullptr;
  int32_t *roots_ = nullptr;
  int64_t *offsets_ = nullptr, *totals_ = nullptr;
  KeyRange *query_ranges_ = nullptr;
  Keys queries_ = {};
};

}  // namespace
}  // namespace attend::mpi

using namespace attend;
using namespace attend::mpi;

attend_status attend_mpi_attention_backward(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                            const attend_tensor *v, const attend_tensor *out,
                                            const attend_tensor *d_out, const attend_tensor *d_q,
                                            const attend_tensor *d_k, const attend_tensor *d_v,
                                            const attend_mpi_options *options,
                                            const attend_attention_backward_options *backward_options,
                                            const attend_attention_options *attention_options) {
  return run<Backward>(Purpose::compute,
                       {communicator, q, k, v, out, options, attention_options, d_out, d_q, d_k, d_v, backward_options},
                       nullptr);
}

attend_status attend_mpi_attention_backward_workspace(int32_t communicator, const attend_tensor *q,
                                                      const attend_tensor *k, const attend_tensor *v,
                                                      const attend_tensor *out, const attend_tensor *d_out,
                                                      const attend_tensor *d_q, const attend_tensor *d_k,
                                                      const attend_tensor *d_v, const attend_mpi_options *options,
                                                      const attend_attention_backward_options *backward_options,
                                                      const attend_attention_options *attention_options,
                                                      uint64_t *bytes) {
  return run<Backward>(Purpose::size,
                       {communicator, q, k, v, out, options, attention_options, d_out, d_q, d_k, d_v, backward_options},
                       bytes);
}
