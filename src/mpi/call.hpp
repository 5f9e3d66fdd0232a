// A call as it comes in: looked at on each rank, then compared between them, before anything is computed or written.
#pragma once

#include "mpi/shards.hpp"
#include "mpi/team.hpp"

namespace attend::mpi {

// Keys of a span, of which attend's state tells the open one from those before. (The tests have spans of 512 too.)
constexpr int64_t kKeySpan = Contract<float>::kKeySpan;

enum class Purpose { compute, size };
enum class Function { attention, decode, backward };

// How k_scale or v_scale describes its keys.
enum class Scales { none, of_keys, of_features };

// The arguments as they come in; of attend_mpi_attention_backward all.
struct Given {
  int32_t communicator;
  const attend_tensor *q, *k, *v, *out;
  const attend_mpi_options *options;
  const attend_attention_options *attention;
  const attend_tensor *d_out = nullptr, *d_q = nullptr, *d_k = nullptr, *d_v = nullptr;
  const attend_attention_backward_options *backward = nullptr;
};

// The queries, or the keys, of all ranks.
struct Columns {
  int64_t own;            // of this rank
  const int64_t *ranges;  // where they stand, range_count pairs; or null
  int64_t range_count;
  int64_t total, entries;  // of all ranks: columns, entries in the table
  int64_t first;           // where this rank's begin if they lie in the order of ranks
  bool ordered;            // they do, without ranges
};

struct Call {
  Function function;
  Purpose purpose;
  Team team;
  attend_mpi_options options;
  attend_attention_options attention;          // of what is computed: its head comes from `options`,
  attend_attention_backward_options backward;  // or this one's
  attend_tensor q, k, v, out, d_out;           // with four extents; so are
  attend_tensor d_q, d_k, d_v;                 // those that are wanted; others have a rank of 0
  Scales k_scales, v_scales;
  int64_t batch;  // of out
  Columns queries, keys;

  // Reads the arguments and compares them with those of the other ranks; what is wrong is a fault on all of them (but for
  // what Team::join finds).
  Fault read(const Given &given);

  bool is_root() const { return team.rank() == options.root; }
  bool wants_results() const {
    return function != Function::decode || is_root() || (options.flags & ATTEND_MPI_ALL_RANKS) != 0;
  }
  bool computes() const { return purpose == Purpose::compute; }
  int64_t acc_bytes() const { return q.dtype == ATTEND_F64 ? 8 : 4; }
  uint32_t acc_type() const { return q.dtype == ATTEND_F64 ? ATTEND_F64 : ATTEND_F32; }
  int64_t state_rows() const { return 2 * (v.shape[0] + 2); }

  // The table of all ranks' ranges of these, which `argument` gives, ascending: everyone's, the same fault on each rank.
  // `counts` is room for twice as many integers as there are ranks.
  Fault gather(const Columns &of, Argument argument, KeyRange *ranges, int32_t *counts, Keys *of_all);

 private:
  bool read_options(const attend_mpi_options *given, Fault *fault);
  bool read_attention(const attend_attention_options *given, Fault *fault);
  bool read_backward(const attend_attention_backward_options *given, Fault *fault);
  // As attention itself checks types, shapes and options.
  void check(const Given &given, Fault *fault) const;
  bool read_ranges(Fault *fault);
  bool compare(Fault *fault);
};

// The sum, or the nearest number.
inline int64_t plus(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

// Of a tensor that attend has looked at.
inline int64_t bytes_of_element(const attend_tensor &t) { return size_of(Dtype{t.dtype}); }

// A tensor with four extents, strides 0 where they do not count.
attend_tensor four_extents(const attend_tensor &t);

// Columns [begin, begin + count); rows likewise.
attend_tensor columns_of(attend_tensor t, int64_t begin, int64_t count);
attend_tensor rows_of(attend_tensor t, int64_t begin, int64_t count);
// Every `step`-th head from `first` on.
attend_tensor heads_of(attend_tensor t, int64_t first, int64_t step);

// Memory in order, each at a cache line.
class Carver {
 public:
  explicit Carver(void *memory) : memory_(static_cast<char *>(memory)) {}
  template <class T>
  T *take(int64_t count) {
    const uint64_t at = used_;
    used_ += (static_cast<uint64_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine;
    return memory_ == nullptr ? nullptr : reinterpret_cast<T *>(memory_ + at);
  }
  uint64_t used() const { return used_; }
  static constexpr uint64_t kLine = 64;

 private:
  char *memory_;
  uint64_t used_ = 0;
};

// The workspace of a call: the caller's, or memory for its length.
class Workspace {
 public:
  // `need` with what aligns it. A fault is this rank's alone.
  Fault get(const Call &call, uint64_t need);
  void *memory() const { return aligned_; }
  Workspace() = default;
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;
  ~Workspace();

 private:
  void *own_ = nullptr, *aligned_ = nullptr;
};

// Columns of which one stands for all, at this place; a column of 1 stays alone unless `columns` is 1 too.
attend_tensor stand_in(attend_tensor t, int64_t columns, void *one);

// Of everything that attention itself looks at when it computes, without computing: by calls whose workspace is too
// small, or that write into `state` alone. `total` keys of which one stands for all.
Fault check_as_computed(const Call &call, const attend_tensor &state, void *one_key);

}  // namespace attend::mpi
