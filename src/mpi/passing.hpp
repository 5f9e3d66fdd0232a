// What attend_mpi_attention and attend_mpi_attention_backward have in common: columns that go around the ring, in pieces, past
// columns that stay, in blocks that end soon enough for the messages to be seen to in between.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "mpi/call.hpp"
#include "mpi/ring.hpp"
#include "mpi/worker.hpp"

namespace attend::mpi {

// Columns that stand at successive positions.
struct Block {
  int64_t column, count, position;
};

// This rank's queries or keys in blocks: the i-th range's from `column` on.
class Blocks {
 public:
  Blocks(const Columns &of, int64_t most) : of_(&of), most_(most) {}
  bool next(Block *block) {
    const int64_t count = of_->ranges == nullptr ? 1 : of_->range_count;
    for (; range_ < count; ++range_, in_range_ = 0) {
      const int64_t first = of_->ranges == nullptr ? of_->first : of_->ranges[2 * range_];
      const int64_t length = of_->ranges == nullptr ? of_->own : of_->ranges[2 * range_ + 1];
      if (in_range_ == length) continue;
      *block = {column_, std::min(most_, length - in_range_), first + in_range_};
      column_ += block->count, in_range_ += block->count;
      return true;
    }
    return false;
  }

 private:
  const Columns *of_;
  int64_t most_;
  int64_t range_ = 0, in_range_ = 0, column_ = 0;
};

// Blocks that follow each other and are told the same of a piece, whose call one is then: so many, from the next one of
// `blocks` on.
struct Run {
  Blocks blocks;
  int64_t count = 0, column = 0, columns = 0;
  Block only() const {
    Block block = {};
    Blocks(blocks).next(&block);
    return block;
  }
};

// The arrays of a column that travels, those of larger elements first, so that each is aligned in any piece.
struct Arrays {
  Layout layout = {{}, 0};
  OwnPart own[kMostParts] = {};
  int number[kMostParts];  // of each tensor among the layout's parts; -1: it is absent

  // Absent ones have a rank of 0.
  Arrays(std::initializer_list<attend_tensor> tensors) {
    std::fill(number, number + kMostParts, -1);
    for (int64_t size = 8; size > 0; size /= 2) {
      int i = 0;
      for (const attend_tensor &t : tensors) {
        int *const of = &number[i++];
        if (t.rank == 0 || bytes_of_element(t) != size) continue;
        *of = layout.parts;
        OwnPart &o = own[layout.parts];
        o = {static_cast<const char *>(t.data), t.shape[0], size, t.shape[2], t.shape[3], {}};
        for (int d = 0; d < 4; ++d) o.stride[d] = t.stride[d] * size;
        layout.part[layout.parts++] = {t.shape[0] * size, t.shape[2] * t.shape[3]};
      }
    }
  }

  // The i-th as it lies in a piece of so many columns.
  attend_tensor in(const char *piece, int i, const attend_tensor &like, int64_t columns) const {
    attend_tensor t = four_extents(like);
    t.data = piece == nullptr ? nullptr : const_cast<char *>(piece) + layout.offset(number[i], 0, columns);
    t.shape[1] = columns;
    t.stride[0] = 1, t.stride[1] = t.shape[0];
    t.stride[2] = t.stride[1] * columns, t.stride[3] = t.stride[2] * t.shape[2];
    return t;
  }
};

// Which positions some call's queries and keys see of each other.
struct Sight {
  int64_t low, high;  // of the queries' offsets
  int64_t end;        // no key is seen from there on
  const attend_attention_options &a;

  explicit Sight(const Call &call)
      : low(call.attention.query_offset), high(low), end(call.keys.total), a(call.attention) {
    if (a.query_offsets != nullptr && call.batch > 0) {
      low = *std::min_element(a.query_offsets, a.query_offsets + call.batch);
      high = *std::max_element(a.query_offsets, a.query_offsets + call.batch);
    }
    if (a.kv_lengths != nullptr && call.batch > 0) {
      end = *std::max_element(a.kv_lengths, a.kv_lengths + call.batch);
    }
  }
  bool causal() const { return (a.flags & ATTEND_CAUSAL_TOP_LEFT) != 0; }
  bool window() const { return (a.flags & ATTEND_WINDOW) != 0; }

  // The keys that a block of queries sees, [*first, *last); false: none.
  bool keys_of(const Block &queries, int64_t *first, int64_t *last) const {
    const int64_t from = plus(low, queries.position), to = plus(high, queries.position + queries.count - 1);
    *first = 0, *last = end;
    if (causal()) *last = std::min(*last, plus(to, 1));
    if (window() && a.window_left >= 0) *first = std::max(*first, plus(from, -a.window_left));
    if (window() && a.window_right >= 0) *last = std::min(*last, plus(plus(to, a.window_right), 1));
    return *first < *last;
  }
  // The queries, of `total`, that see a block of keys.
  bool queries_of(const Block &keys, int64_t total, int64_t *first, int64_t *last) const {
    const int64_t from = keys.position, to = std::min(end, keys.position + keys.count) - 1;
    *first = 0, *last = from <= to ? total : 0;
    if (causal()) *first = std::max(*first, minus(from, high));
    if (window() && a.window_right >= 0) *first = std::max(*first, minus(minus(from, high), a.window_right));
    if (window() && a.window_left >= 0) *last = std::min(*last, plus(minus(plus(to, a.window_left), low), 1));
    return *first < *last;
  }

 private:
  static int64_t minus(int64_t a, int64_t b) {
    int64_t difference = 0;
    return __builtin_sub_overflow(a, b, &difference) ? (b < 0 ? INT64_MAX : INT64_MIN) : difference;
  }
};

// Work of about half a millisecond, by 100 GFLOP/s a core: what one may wait before messages are looked after. So many
// columns, of which each has `operations`, a multiple of `unit`; and where a unit is so many tasks, some for every thread.
inline int64_t columns_of_block(const Call &call, double operations, int64_t unit, int64_t tasks = INT32_MAX) {
  constexpr double kOperations = 5e7;
  const int64_t threads = call.options.threads > 0 ? call.options.threads : attend_threads();
  const int64_t least = tasks == 0 ? 1 : (threads + tasks - 1) / tasks;
  const double units = kOperations * static_cast<double>(threads) / operations / static_cast<double>(unit);
  return unit * std::max(least, static_cast<int64_t>(std::clamp(units, 1.0, 1e6)));
}

// Whether pieces come for the first time, or again with another of the heads that share keys.
struct Round {
  bool first, last;
};

// f(the thread that computes for this call, or null).
template <class F>
void with_worker(const Call &call, const F &f) {
  if ((call.options.flags & ATTEND_MPI_COMPUTE_THREAD) == 0) return f(nullptr);
  Worker worker;
  f(worker.is_there() ? &worker : nullptr);
}

// Lets all pieces go past all blocks. seen(block, &first, &last): which columns of those that travel a block needs; false: none.
// work(run, piece, columns, memory, flags): computes, and says what was wrong, with ATTEND_CONTINUE and ATTEND_PARTIAL; once
// without columns for blocks that need none. A run of several blocks has at most `most` columns.
template <class Seen, class Work>
void pass(Call *call, Ring *ring, const Pieces &pieces, const char *no_piece, const Blocks &all, int64_t most,
          Worker *worker, Round round, const Seen &seen, const Work &work) {
  // (Without any columns one empty piece says that to all blocks.)
  for (int64_t p = 0; p < std::max<int64_t>(1, pieces.count()); ++p) {
    const bool exists = p < pieces.count();
    const char *const memory = exists ? ring->piece(p) : no_piece;
    Run run = {all};
    bool run_sees = false;
    uint32_t run_flags = 0;
    const auto finish = [&] {
      if (run.count == 0) return;
      Fault fault;
      const auto job = [&] { fault = work(run, p, run_sees ? pieces.size(p) : 0, memory, run_flags); };
      const auto messages = [ring] { ring->progress(); };
      worker != nullptr ? worker->run(job, messages) : job();
      // (Nothing is left that could be wrong, and the other ranks are at work.)
      if (fault) call->team.give_up("a call of libattend failed: %s", fault.text);
      messages();
      run.count = 0;
    };
    Block block;
    for (Blocks blocks = all, here = all; blocks.next(&block); here = blocks) {
      int64_t first = 0, last = 0;
      const bool sees = seen(block, &first, &last);
      first /= pieces.keys, last = (last - 1) / pieces.keys;
      if (sees ? p < first || p > last : p > 0 || !round.first) {
        finish();
        continue;
      }
      const uint32_t flags = !sees ? 0u
                                   : (p > first || !round.first ? uint32_t{ATTEND_CONTINUE} : 0u) |
                                         (p < last || !round.last ? uint32_t{ATTEND_PARTIAL} : 0u);
      if (sees != run_sees || flags != run_flags || run.columns + block.count > most) finish();
      if (run.count == 0) run = {here, 0, block.column, 0}, run_sees = sees, run_flags = flags;
      ++run.count, run.columns += block.count;
    }
    finish();
    if (exists) ring->release(p);
  }
  ring->finish();
}

}  // namespace attend::mpi
