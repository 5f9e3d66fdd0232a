// attend_mpi_attention: pieces of keys as they come around the ring, each folded into the state of the queries that see
// something of it, in blocks that end soon enough for the messages to be seen to in between.
#include <algorithm>

#include "mpi/computation.hpp"
#include "mpi/passing.hpp"

namespace attend::mpi {
namespace {

class Prefill : public Computation {
 public:
  static constexpr auto kFunction = Function::attention;

  explicit Prefill(Call *call)
      : Computation(call),
        arrays_({call->k, call->v,
                 call->k_scales == Scales::of_keys ? four_extents(*call->attention.k_scale) : attend_tensor(),
                 call->v_scales == Scales::of_keys ? four_extents(*call->attention.v_scale) : attend_tensor()}),
        pieces_(Pieces::of(call->keys.total)) {
    const double row = 2.0 * static_cast<double>((call_.q.shape[0] + call_.v.shape[0]) * call_.q.shape[2] *
                                                 call_.batch * pieces_.keys);
    block_ = uses_worker() ? call_.q.shape[1] + 1 : columns_of_block(call_, row, 64);
    // Ranges of one sequence, whose calls would be many and short, are packed sequences of one call.
    Block block;
    for (Blocks blocks(call_.queries, block_); packs() && blocks.next(&block);) ++sequences_;
  }

  void carve(Carver *carver, uint64_t of_attention) {
    state_memory_ = carver->take<char>(call_.state_rows() * call_.q.shape[1] * call_.out.shape[2] * call_.batch *
                                       call_.acc_bytes());
    slots_ = carver->take<char>(Ring::kSlots * pieces_.keys * arrays_.layout.bytes_of_key());
    roots_ = carver->take<int32_t>(pieces_.count());
    offsets_ = carver->take<int64_t>(sequences_);
    starts_ = carver->take<int64_t>(sequences_ + 1);
    Computation::carve(carver, of_attention);
  }

  // What attention needs for any block and any piece; asks it, and so finds what is wrong with options for all keys.
  Fault size_attention(uint64_t *bytes) {
    Fault fault;
    const int64_t last = pieces_.count() == 0 ? 0 : pieces_.size(pieces_.count() - 1);
    *bytes = 0;
    const auto size = [&](const Run &run) {
      for (const int64_t keys : {pieces_.keys, last, int64_t{0}}) {
        if (fault || (keys > call_.keys.total && keys != last)) continue;
        uint64_t need = 0;
        fault = compute(run, 0, keys, nullptr, ATTEND_PARTIAL, &need);
        *bytes = std::max(*bytes, need);
      }
    };
    Run run = {Blocks(call_.queries, block_)};
    Block block;
    for (Blocks blocks = run.blocks, here = blocks; blocks.next(&block); here = blocks) {
      size({here, 1, block.column, block.count});
      ++run.count, run.columns += block.count;
    }
    if (packs() && run.count > 1) size(run);
    return fault;
  }

  // state_ is there from carve on.
  attend_tensor state() const {
    const int64_t rows = call_.state_rows(), queries = call_.q.shape[1], heads = call_.out.shape[2];
    return {state_memory_,
            call_.acc_type(),
            4,
            {rows, queries, heads, call_.batch},
            {1, rows, rows * queries, rows * queries * heads}};
  }

  Fault check() { return check_as_computed(call_, state(), one_key()); }

  void run(const Keys &keys) {
    find_roots(keys, pieces_, call_.team.ranks(), roots_);
    Ring ring(&call_.team, keys, pieces_, arrays_.layout, roots_, arrays_.own, slots_);
    ring.progress();
    const Sight sight(call_);
    with_worker(call_, [&](Worker *worker) {
      pass(
          &call_, &ring, pieces_, slots_, Blocks(call_.queries, block_), packs() ? block_ : 0, worker, {true, true},
          [&](const Block &block, int64_t *first, int64_t *last) { return sight.keys_of(block, first, last); },
          [&](const Run &run, int64_t p, int64_t count, const char *piece, uint32_t flags) {
            return compute(run, p, count, piece, flags, nullptr);
          });
    });
  }

 private:
  // (Without a thread for messages a call is kept short.)
  bool packs() const { return call_.batch == 1 && uses_worker(); }
  bool uses_worker() const { return (call_.options.flags & ATTEND_MPI_COMPUTE_THREAD) != 0; }

  // One piece; with `need` only how much workspace that takes.
  Fault compute(const Run &run, int64_t p, int64_t keys, const char *piece, uint32_t flags, uint64_t *need) const {
    Fault fault;
    attend_attention_options o = call_.attention;
    const int64_t begin = pieces_.begin(p);
    o.flags |= flags;
    o.key_offset = begin;
    const attend_tensor state = columns_of(this->state(), run.column, run.columns);
    o.state = &state;
    const attend_tensor q = columns_of(call_.q, run.column, run.columns),
                        out = columns_of(call_.out, run.column, run.columns);
    attend_tensor k = arrays_.in(piece, 0, call_.k, keys), v = arrays_.in(piece, 1, call_.v, keys), lse, mask, bias,
                  k_scale = {}, v_scale = {};
    if (o.lse != nullptr) o.lse = &(lse = columns_of(*o.lse, run.column, run.columns));
    const auto part_of = [&](const attend_tensor *whole, attend_tensor *part) {
      if (whole == nullptr) return whole;
      *part = four_extents(*whole);
      if (part->shape[1] != 1) *part = columns_of(*part, run.column, run.columns);
      if (part->shape[0] != 1) *part = rows_of(*part, begin, keys);
      return static_cast<const attend_tensor *>(part);
    };
    o.mask = part_of(o.mask, &mask), o.bias = part_of(o.bias, &bias);
    if (arrays_.number[2] >= 0) o.k_scale = &(k_scale = arrays_.in(piece, 2, *o.k_scale, keys));
    if (arrays_.number[3] >= 0) o.v_scale = &(v_scale = arrays_.in(piece, 3, *o.v_scale, keys));
    const int64_t none = 0;
    if (run.count > 1) {
      o.sequences = run.count;
      o.query_starts = need != nullptr ? &none : starts_;  // (not looked at)
      for (attend_tensor *t : {&k, &v, &k_scale, &v_scale}) t->shape[3] = run.count, t->stride[3] = 0;
    }
    if (need == nullptr) place(run, &o);
    call_attention(q, k, v, out, o, need, &fault);
    return fault;
  }

  // Where its queries stand.
  void place(const Run &run, attend_attention_options *o) const {
    if (run.count == 1) return move_queries(run.only().position, offsets_, o);
    const int64_t offset = o->query_offsets != nullptr ? o->query_offsets[0] : o->query_offset;
    Block block;
    Blocks blocks = run.blocks;
    for (int64_t i = 0; i < run.count && blocks.next(&block); ++i) {
      starts_[i] = block.column - run.column;
      offsets_[i] = plus(offset, block.position);
    }
    starts_[run.count] = run.columns;
    o->query_offset = 0;
    o->query_offsets = offsets_;
  }

  const Arrays arrays_;
  const Pieces pieces_;
  int64_t block_ = 64;
  char *state_memory_ = nullptr, *slots_ = nullptr;
  int32_t *roots_ = nullptr;
  int64_t *offsets_ = nullptr, *starts_ = nullptr;
};

}  // namespace
}  // namespace attend::mpi

using namespace attend;
using namespace attend::mpi;

attend_status attend_mpi_attention(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                   const attend_tensor *v, const attend_tensor *out, const attend_mpi_options *options,
                                   const attend_attention_options *attention_options) {
  return run<Prefill>(Purpose::compute, {communicator, q, k, v, out, options, attention_options}, nullptr);
}

attend_status attend_mpi_attention_workspace(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                             const attend_tensor *v, const attend_tensor *out,
                                             const attend_mpi_options *options,
                                             const attend_attention_options *attention_options, uint64_t *bytes) {
  return run<Prefill>(Purpose::size, {communicator, q, k, v, out, options, attention_options}, bytes);
}
