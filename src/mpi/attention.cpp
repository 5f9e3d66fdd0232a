// attend_mpi_attention: pieces of keys as they come around the ring, each folded into the state of the queries that see
// something of it, in blocks that end soon enough for the messages to be seen to in between.
#include <algorithm>

#include "mpi/computation.hpp"
#include "mpi/ring.hpp"
#include "mpi/worker.hpp"

namespace attend::mpi {
namespace {

int64_t plus(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

// Columns of q that stand at successive positions.
struct Block {
  int64_t column, count, position;
};

// The queries of this rank in blocks: the i-th range's from `column` on.
class Blocks {
 public:
  Blocks(const Call &call, int64_t most) : call_(call), most_(most) {}
  bool next(Block *block) {
    const int64_t *const ranges = call_.options.query_ranges;
    const int64_t count = ranges == nullptr ? 1 : call_.options.query_range_count;
    for (; range_ < count; ++range_, in_range_ = 0) {
      const int64_t first = ranges == nullptr ? call_.first_query : ranges[2 * range_];
      const int64_t length = ranges == nullptr ? call_.q.shape[1] : ranges[2 * range_ + 1];
      if (in_range_ == length) continue;
      *block = {column_, std::min(most_, length - in_range_), first + in_range_};
      column_ += block->count, in_range_ += block->count;
      return true;
    }
    return false;
  }

 private:
  const Call &call_;
  const int64_t most_;
  int64_t range_ = 0, in_range_ = 0, column_ = 0;
};

// The arrays of a key, those of larger elements first, so that each is aligned in any piece.
struct Arrays {
  Layout layout = {{}, 0};
  OwnPart own[kMostParts] = {};
  int of_k = 0, of_v = 0, of_k_scale = -1, of_v_scale = -1;

  explicit Arrays(const Call &call) {
    const struct {
      attend_tensor tensor;
      int *number;
    } all[] = {
        {call.k, &of_k},
        {call.v, &of_v},
        {call.k_scales == Scales::of_keys ? four_extents(*call.attention.k_scale) : attend_tensor(), &of_k_scale},
        {call.v_scales == Scales::of_keys ? four_extents(*call.attention.v_scale) : attend_tensor(), &of_v_scale}};
    for (int64_t size = 8; size > 0; size /= 2) {
      for (const auto &a : all) {
        const attend_tensor &t = a.tensor;
        if (t.rank == 0 || bytes_of_element(t) != size) continue;
        *a.number = layout.parts;
        OwnPart &o = own[layout.parts];
        o = {static_cast<const char *>(t.data), t.shape[0], size, t.shape[2], t.shape[3], {}};
        for (int d = 0; d < 4; ++d) o.stride[d] = t.stride[d] * size;
        layout.part[layout.parts++] = {t.shape[0] * size, t.shape[2] * t.shape[3]};
      }
    }
  }

  // One of them as it lies in a piece of so many keys.
  attend_tensor in(const char *piece, int number, const attend_tensor &like, int64_t keys) const {
    attend_tensor t = four_extents(like);
    t.data = piece == nullptr ? nullptr : const_cast<char *>(piece) + layout.offset(number, 0, keys);
    t.shape[1] = keys;
    t.stride[0] = 1, t.stride[1] = t.shape[0];
    t.stride[2] = t.stride[1] * keys, t.stride[3] = t.stride[2] * t.shape[2];
    return t;
  }
};

class Prefill : public Computation {
 public:
  static constexpr auto kFunction = Function::attention;

  explicit Prefill(Call *call) : Computation(call), arrays_(*call), pieces_(Pieces::of(call->keys)) {
    // About half a millisecond, by 100 GFLOP/s a core: what one may wait before messages are looked after.
    constexpr double kOperations = 5e7;
    const int32_t threads = call_.options.threads > 0 ? call_.options.threads : attend_threads();
    const double row = 2.0 * static_cast<double>((call_.q.shape[0] + call_.v.shape[0]) * call_.q.shape[2] *
                                                 call_.batch * pieces_.keys);
    block_ = uses_worker() ? call_.q.shape[1] + 1
                           : 64 * static_cast<int64_t>(std::clamp(kOperations * threads / row / 64, 1.0, 1e6));
  }

  void carve(Carver *carver, uint64_t of_attention) {
    state_memory_ = carver->take<char>(call_.state_rows() * call_.q.shape[1] * call_.out.shape[2] * call_.batch *
                                       call_.acc_bytes());
    slots_ = carver->take<char>(Ring::kSlots * pieces_.keys * arrays_.layout.bytes_of_key());
    roots_ = carver->take<int32_t>(pieces_.count());
    offsets_ = carver->take<int64_t>(call_.batch);
    Computation::carve(carver, of_attention);
  }

  // What attention needs for any block and any piece; asks it, and so finds what is wrong with options for all keys.
  Fault size_attention(uint64_t *bytes) {
    Fault fault;
    const int64_t last = pieces_.count() == 0 ? 0 : pieces_.size(pieces_.count() - 1);
    *bytes = 0;
    Block block;
    for (Blocks blocks(call_, block_); !fault && blocks.next(&block);) {
      for (const int64_t keys : {pieces_.keys, last, int64_t{0}}) {
        if (keys > call_.keys && keys != last) continue;
        uint64_t need = 0;
        compute(block, 0, keys, nullptr, ATTEND_PARTIAL, &need, &fault);
        *bytes = std::max(*bytes, need);
      }
    }
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

  void run(const Keys &keys) {
    find_roots(keys, pieces_, call_.team.ranks(), roots_);
    Ring ring(&call_.team, keys, pieces_, arrays_.layout, roots_, arrays_.own, slots_);
    ring.progress();
    if (!uses_worker()) return run(&ring, nullptr);
    Worker worker;
    run(&ring, worker.is_there() ? &worker : nullptr);
  }

 private:
  bool uses_worker() const { return (call_.options.flags & ATTEND_MPI_COMPUTE_THREAD) != 0; }

  void run(Ring *ring, Worker *worker) {
    Block block;
    Fault fault;
    // (Without any keys one empty piece says that to all queries.)
    for (int64_t p = 0; p < std::max<int64_t>(1, pieces_.count()); ++p) {
      const bool exists = p < pieces_.count();
      const char *const piece = exists ? ring->piece(p) : slots_;
      for (Blocks blocks(call_, block_); blocks.next(&block);) {
        int64_t first = 0, last = 0;
        const bool sees = pieces_seen(block, &first, &last);
        if (!sees && p > 0) continue;
        if (sees && (p < first || p > last)) continue;
        const uint32_t flags =
            !sees ? 0u : (p > first ? uint32_t{ATTEND_CONTINUE} : 0u) | (p < last ? uint32_t{ATTEND_PARTIAL} : 0u);
        const auto work = [&] { compute(block, p, sees ? pieces_.size(p) : 0, piece, flags, nullptr, &fault); };
        const auto messages = [ring] { ring->progress(); };
        worker != nullptr ? worker->run(work, messages) : work();
        // (Nothing is left that could be wrong, and the other ranks are at work.)
        if (fault) call_.team.give_up("attend_attention failed: %s", fault.text);
        messages();
      }
      if (exists) ring->release(p);
    }
    ring->finish();
  }

  // From which piece to which a block sees keys; false: none.
  bool pieces_seen(const Block &block, int64_t *first, int64_t *last) const {
    const attend_attention_options &a = call_.attention;
    int64_t low = a.query_offset, high = low, end = call_.keys;
    if (a.query_offsets != nullptr && call_.batch > 0) {
      low = *std::min_element(a.query_offsets, a.query_offsets + call_.batch);
      high = *std::max_element(a.query_offsets, a.query_offsets + call_.batch);
    }
    if (a.kv_lengths != nullptr && call_.batch > 0) {
      end = *std::max_element(a.kv_lengths, a.kv_lengths + call_.batch);
    }
    low = plus(low, block.position), high = plus(high, block.position + block.count - 1);
    int64_t begin = 0;
    if ((a.flags & ATTEND_CAUSAL_TOP_LEFT) != 0) end = std::min(end, plus(high, 1));
    if ((a.flags & ATTEND_WINDOW) != 0) {
      if (a.window_left >= 0) begin = std::max(begin, plus(low, -a.window_left));
      if (a.window_right >= 0) end = std::min(end, plus(plus(high, a.window_right), 1));
    }
    if (begin >= end) return false;
    *first = begin / pieces_.keys, *last = (end - 1) / pieces_.keys;
    return true;
  }

  // One block and one piece; with `need` only how much workspace that takes.
  void compute(const Block &block, int64_t p, int64_t keys, const char *piece, uint32_t flags, uint64_t *need,
               Fault *fault) {
    attend_attention_options o = call_.attention;
    const int64_t begin = pieces_.begin(p);
    o.flags |= flags;
    o.key_offset = begin;
    const attend_tensor state = columns_of(this->state(), block.column, block.count);
    o.state = &state;
    const attend_tensor q = columns_of(call_.q, block.column, block.count),
                        out = columns_of(call_.out, block.column, block.count);
    attend_tensor k = arrays_.in(piece, arrays_.of_k, call_.k, keys),
                  v = arrays_.in(piece, arrays_.of_v, call_.v, keys), lse, mask, bias, k_scale, v_scale;
    if (o.lse != nullptr) o.lse = &(lse = columns_of(*o.lse, block.column, block.count));
    const auto part_of = [&](const attend_tensor *whole, attend_tensor *part) {
      if (whole == nullptr) return whole;
      *part = four_extents(*whole);
      if (part->shape[1] != 1) *part = columns_of(*part, block.column, block.count);
      if (part->shape[0] != 1) *part = rows_of(*part, begin, keys);
      return static_cast<const attend_tensor *>(part);
    };
    o.mask = part_of(o.mask, &mask), o.bias = part_of(o.bias, &bias);
    if (arrays_.of_k_scale >= 0) o.k_scale = &(k_scale = arrays_.in(piece, arrays_.of_k_scale, *o.k_scale, keys));
    if (arrays_.of_v_scale >= 0) o.v_scale = &(v_scale = arrays_.in(piece, arrays_.of_v_scale, *o.v_scale, keys));
    if (need == nullptr && o.query_offsets == nullptr) {
      o.query_offset = plus(o.query_offset, block.position);
    } else if (need == nullptr) {
      for (int64_t b = 0; b < call_.batch; ++b) offsets_[b] = plus(o.query_offsets[b], block.position);
      o.query_offsets = offsets_;
    }
    call_attention(q, k, v, out, o, need, fault);
  }

  const Arrays arrays_;
  const Pieces pieces_;
  int64_t block_ = 64;
  char *state_memory_ = nullptr, *slots_ = nullptr;
  int32_t *roots_ = nullptr;
  int64_t *offsets_ = nullptr;
};

}  // namespace
}  // namespace attend::mpi

using namespace attend;
using namespace attend::mpi;

attend_status attend_mpi_attention(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                   const attend_tensor *v, const attend_tensor *out, const attend_mpi_options *options,
                                   const attend_attention_options *attention_options) {
  return run<Prefill>(Purpose::compute, communicator, q, k, v, out, options, attention_options, nullptr);
}

attend_status attend_mpi_attention_workspace(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                             const attend_tensor *v, const attend_tensor *out,
                                             const attend_mpi_options *options,
                                             const attend_attention_options *attention_options, uint64_t *bytes) {
  return run<Prefill>(Purpose::size, communicator, q, k, v, out, options, attention_options, bytes);
}
