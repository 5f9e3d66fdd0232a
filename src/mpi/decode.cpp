// attend_mpi_decode: the queries go to all ranks, the state of each span of keys comes back, and the root folds them in
// order, as one process does.
//
// The fold is attend_attention's own: a state whose open span is the one that came, and a key behind it that no query sees,
// close that span into those before it (ATTEND_PARTIAL | ATTEND_CONTINUE at the next span's first position).
#include <algorithm>
#include <cinttypes>
#include <climits>
#include <cmath>

#include "mpi/computation.hpp"

namespace attend::mpi {
namespace {

constexpr int kTag = 1;

void copy(const attend_tensor &from, const attend_tensor &to) {
  const int64_t size = bytes_of_element(to);
  for (int64_t b = 0; b < to.shape[3]; ++b)
    for (int64_t h = 0; h < to.shape[2]; ++h)
      for (int64_t j = 0; j < to.shape[1]; ++j)
        for (int64_t i = 0; i < to.shape[0]; ++i) {
          const int64_t at[] = {i, j, h, b};
          int64_t there = 0, here = 0;
          for (int d = 0; d < 4; ++d) here += at[d] * from.stride[d], there += at[d] * to.stride[d];
          std::memcpy(static_cast<char *>(to.data) + there * size, static_cast<const char *>(from.data) + here * size,
                      static_cast<size_t>(size));
        }
}
int64_t bytes_of(const attend_tensor &t) {
  return t.shape[0] * t.shape[1] * t.shape[2] * t.shape[3] * bytes_of_element(t);
}

// The same elements one behind the other.
attend_tensor packed(attend_tensor t, void *memory) {
  t = four_extents(t);
  t.data = memory;
  int64_t stride = 1;
  for (int d = 0; d < 4; ++d) t.stride[d] = stride, stride *= std::max<int64_t>(1, t.shape[d]);
  return t;
}

class Decode : public Computation {
 public:
  static constexpr auto kFunction = Function::decode;

  explicit Decode(Call *call) : Computation(call), lse_() {
    if (call_.attention.lse != nullptr) lse_ = four_extents(*call_.attention.lse);
  }

  void carve(Carver *carver, uint64_t of_attention) {
    const int64_t half = bytes_of_part();
    work_ = carver->take<char>(2 * half);
    parts_ = carver->take<char>(half * (call_.is_root() ? spans_in(call_.keys.total) : 0));
    sent_ = carver->take<char>(half * (call_.is_root() ? 0 : own_spans()));
    requests_ = carver->take<MPI_Request>(call_.is_root() ? spans_in(call_.keys.total) : own_spans());
    q_ = carver->take<char>(bytes_of(call_.q));
    out_ = carver->take<char>(bytes_of(call_.out));
    lse_memory_ = carver->take<char>(call_.attention.lse != nullptr ? bytes_of(lse_) : 0);
    Computation::carve(carver, of_attention);
  }

  Fault size_attention(uint64_t *bytes) {
    Fault fault;
    *bytes = 0;
    const auto ask = [&](int64_t keys) {
      uint64_t need = 0;
      compute_keys(0, keys, 0, ATTEND_PARTIAL, &need, &fault);
      *bytes = std::max(*bytes, need);
    };
    each_own_range([&](int64_t, int64_t count) {
      for (const int64_t keys : {std::min(kKeySpan, count), count % kKeySpan}) {
        if (!fault) ask(keys);
      }
    });
    uint64_t need = 0;
    if (!fault) close(0, &need, &fault);
    *bytes = std::max(*bytes, need);
    if (!fault) ask(0);
    const int64_t numbers = bytes_of_part() / call_.acc_bytes();
    if (!fault && call_.team.ranks() > 1 && numbers > INT_MAX) {
      fault.set(ATTEND_OVERFLOW, Argument::q, "needs messages of %" PRId64 " numbers, but MPI's have %d at most",
                numbers, INT_MAX);
    }
    return fault;
  }

  // Attention wants all operands on every rank.
  void complete() {
    if (!call_.is_root()) call_.q = packed(call_.q, q_);
    if (call_.wants_results()) return;
    call_.out = packed(call_.out, out_);
    if (call_.attention.lse == nullptr) return;
    lse_ = packed(lse_, lse_memory_);
    call_.attention.lse = &lse_;
  }

  // State rows lie far apart, so that the half of the open span is one run of memory: what is sent.
  attend_tensor state() const {
    const int64_t queries = call_.q.shape[1], heads = call_.out.shape[2];
    return {work_,
            call_.acc_type(),
            4,
            {call_.state_rows(), queries, heads, call_.batch},
            {queries * heads * call_.batch, 1, queries, queries * heads}};
  }

  Fault check() { return check_as_computed(call_, state(), one_key()); }

  void run(const Keys &keys) {
    Team &team = call_.team;
    if (call_.is_root() && team.ranks() > 1) copy(call_.q, packed(call_.q, q_));
    if (team.ranks() > 1) team.broadcast(q_, bytes_of(call_.q), call_.options.root);
    const int64_t half = bytes_of_part();
    int64_t end = keys.total;
    if (call_.attention.kv_lengths != nullptr) {
      end = 0;
      for (int64_t b = 0; b < call_.batch; ++b) end = std::max(end, call_.attention.kv_lengths[b]);
    }
    const int64_t spans = half == 0 ? 0 : spans_in(end);
    // The root receives while it computes.
    int64_t messages = 0;
    each_span(keys, spans, [&](const KeyRange &range, int64_t span, int64_t) {
      if (call_.is_root() && range.owner != team.rank())
        receive(team, parts_ + span * half, half, range.owner, messages++);
    });
    Fault fault;
    int64_t own = 0;
    each_span(keys, spans, [&](const KeyRange &range, int64_t span, int64_t count) {
      if (range.owner != team.rank()) return;
      const int64_t begin = span * kKeySpan;
      compute_keys(range.column + begin - range.first, count, begin, ATTEND_PARTIAL, nullptr, &fault);
      if (fault) team.give_up("attend_attention failed: %s", fault.text);
      char *const part = call_.is_root() ? parts_ + span * half : sent_ + own++ * half;
      std::memcpy(part, work_, static_cast<size_t>(half));
      if (!call_.is_root()) send(team, part, half, messages++);
    });
    team.wait(static_cast<int>(messages), requests_);
    if (call_.is_root()) fold(spans, end, &fault);
    if (fault) team.give_up("attend_attention failed: %s", fault.text);
    if ((call_.options.flags & ATTEND_MPI_ALL_RANKS) != 0) share();
  }

 private:
  static int64_t spans_in(int64_t keys) { return (keys + kKeySpan - 1) / kKeySpan; }
  int64_t bytes_of_part() const {
    return (call_.v.shape[0] + 2) * call_.q.shape[1] * call_.out.shape[2] * call_.batch * call_.acc_bytes();
  }
  template <class F>
  void each_own_range(const F &f) const {
    if (call_.keys.ordered) return f(call_.keys.first, call_.keys.own);
    for (int64_t i = 0; i < call_.options.key_range_count; ++i) {
      f(call_.options.key_ranges[2 * i], call_.options.key_ranges[2 * i + 1]);
    }
  }
  int64_t own_spans() const {
    int64_t sum = 0;
    each_own_range([&](int64_t, int64_t count) { sum += spans_in(count); });
    return sum;
  }
  // f(range, number of the span, its keys)
  template <class F>
  static void each_span(const Keys &keys, int64_t spans, const F &f) {
    for (int64_t r = 0; r < keys.range_count; ++r) {
      const KeyRange &range = keys.ranges[r];
      for (int64_t span = range.first / kKeySpan; span < spans && span * kKeySpan < range.first + range.count; ++span) {
        f(range, span, std::min(kKeySpan, range.first + range.count - span * kKeySpan));
      }
    }
  }
  void receive(const Team &team, char *part, int64_t bytes, int from, int64_t number) const {
    MPI_Irecv(part, static_cast<int>(bytes / call_.acc_bytes()), type(), from, kTag, team.comm(), &requests_[number]);
  }
  void send(const Team &team, char *part, int64_t bytes, int64_t number) const {
    MPI_Isend(part, static_cast<int>(bytes / call_.acc_bytes()), type(), call_.options.root, kTag, team.comm(),
              &requests_[number]);
  }
  MPI_Datatype type() const { return call_.acc_type() == ATTEND_F64 ? MPI_DOUBLE : MPI_FLOAT; }

  // Some of this rank's keys, which stand from position `begin` on, and their scales.
  void compute_keys(int64_t column, int64_t count, int64_t begin, uint32_t flags, uint64_t *need, Fault *fault) const {
    attend_attention_options o = call_.attention;
    attend_tensor k_scale, v_scale;
    const auto part_of = [&](const attend_tensor *whole, Scales scales, attend_tensor *part) {
      if (scales != Scales::of_keys || four_extents(*whole).shape[1] == 1) return whole;
      *part = columns_of(*whole, column, count);
      return static_cast<const attend_tensor *>(part);
    };
    o.k_scale = part_of(o.k_scale, call_.k_scales, &k_scale);
    o.v_scale = part_of(o.v_scale, call_.v_scales, &v_scale);
    compute(columns_of(call_.k, column, count), columns_of(call_.v, column, count), begin, flags, o, need, fault);
  }

  void compute(const attend_tensor &k, const attend_tensor &v, int64_t begin, uint32_t flags,
               attend_attention_options o, uint64_t *need, Fault *fault) const {
    o.flags |= flags;
    o.key_offset = begin;
    const attend_tensor state = this->state();
    o.state = &state;
    call_attention(call_.q, k, v, call_.out, o, need, fault);
  }

  // Closes the open span of the state, before a key at `position` that nobody sees.
  void close(int64_t position, uint64_t *need, Fault *fault) {
    unsigned char hides = 0;
    const attend_tensor mask = {&hides, ATTEND_BOOL, 1, {1}, {}};
    const auto zero = [&](const attend_tensor &like) {
      attend_tensor t = {one_key_, call_.acc_type(), 4, {like.shape[0], 1, like.shape[2], 1}, {}};
      return t;
    };
    attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
    o.threads = call_.attention.threads, o.executor = call_.attention.executor;
    o.mask = &mask;
    compute(zero(call_.k), zero(call_.v), position, ATTEND_PARTIAL | ATTEND_CONTINUE, o, need, fault);
  }

  void fold(int64_t spans, int64_t end, Fault *fault) {
    const int64_t half = bytes_of_part(), numbers = half / call_.acc_bytes(),
                  rows = call_.q.shape[1] * call_.out.shape[2] * call_.batch;
    const auto clear = [&](auto *first) {
      std::fill(first, first + numbers, 0);
      std::fill(first, first + rows, -HUGE_VAL);
    };
    for (int i = 0; i < 2; ++i) {
      void *const at = work_ + i * half;
      call_.acc_bytes() == 8 ? clear(static_cast<double *>(at)) : clear(static_cast<float *>(at));
    }
    for (int64_t span = 0; span < spans; ++span) {
      if (span > 0) close(span * kKeySpan, nullptr, fault);
      std::memcpy(work_, parts_ + span * half, static_cast<size_t>(half));
    }
    constexpr int64_t kChunk = Contract<float>::kKeyChunk;
    if (!*fault) compute_keys(0, 0, (end + kChunk - 1) / kChunk * kChunk, ATTEND_CONTINUE, nullptr, fault);
  }

  // What the root has, to all.
  void share() {
    const auto one = [this](const attend_tensor &to, char *memory) {
      if (call_.team.ranks() == 1) return;
      const attend_tensor through = packed(to, memory);
      if (call_.is_root()) copy(to, through);
      call_.team.broadcast(memory, bytes_of(to), call_.options.root);
      if (!call_.is_root()) copy(through, to);
    };
    one(call_.out, out_);
    if (call_.attention.lse != nullptr) one(lse_, lse_memory_);
  }

  attend_tensor lse_;
  char *work_ = nullptr, *parts_ = nullptr, *sent_ = nullptr, *q_ = nullptr, *out_ = nullptr, *lse_memory_ = nullptr;
  MPI_Request *requests_ = nullptr;
};

}  // namespace
}  // namespace attend::mpi

using namespace attend;
using namespace attend::mpi;

attend_status attend_mpi_decode(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                const attend_tensor *v, const attend_tensor *out, const attend_mpi_options *options,
                                const attend_attention_options *attention_options) {
  return run<Decode>(Purpose::compute, {communicator, q, k, v, out, options, attention_options}, nullptr);
}

attend_status attend_mpi_decode_workspace(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                          const attend_tensor *v, const attend_tensor *out,
                                          const attend_mpi_options *options,
                                          const attend_attention_options *attention_options, uint64_t *bytes) {
  return run<Decode>(Purpose::size, {communicator, q, k, v, out, options, attention_options}, bytes);
}
