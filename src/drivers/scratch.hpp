// Memory for one call: the caller's workspace, a few KiB of the stack, or one allocation.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "drivers/cache.hpp"
#include "drivers/parallel.hpp"

namespace attend {

constexpr int64_t kAlignment = 64;  // a cache line and an AVX-512 vector
// Threads that a workspace is sized for when the caller does not say: never the machine's, so that a size holds
// everywhere.
constexpr int kWorkspaceThreads = 64;
// More are never started; keeps the sizes far from overflow.
constexpr int kMostThreads = 4096;

constexpr int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// How a call runs: the caller's limits.
struct Execution {
  int threads = 0;  // 0 = the library's setting
  void *workspace = nullptr;
  uint64_t workspace_size = 0;
  Executor executor = {};

  int usable_threads() const { return attend::usable_threads(threads, executor); }
};

// What a call needs: `shared` bytes once and `per_thread` bytes for each thread, multiples of kAlignment.
struct Need {
  int64_t shared = 0, per_thread = 0;
  int64_t tasks = 1;  // more threads than this have nothing to do
  // With so much more for each thread the call is faster, and with this beside fastest: used where all threads have it,
  // never required; the ..._workspace functions ask for the first.
  int64_t faster = 0, fastest = 0;

  // Room for `threads` of them, and for aligning the start.
  int64_t bytes(int threads) const {
    const int64_t all = shared + per_thread * threads;
    return all == 0 ? 0 : all + kAlignment - 1;
  }
  // The same with `more` for each thread.
  Need with(int64_t more) const {
    Need all = *this;
    all.per_thread += more;
    return all;
  }
  // A thread's share of a usual L2.
  static constexpr int64_t kShare = kUsualL2 / 4;
  // What makes a call faster, where that is all of it: asked for within a share.
  void set_faster(int64_t more) { (per_thread + more <= kShare ? faster : fastest) = more; }

  // The answer of the ..._workspace functions.
  int64_t workspace(int requested) const {
    const int64_t limit = requested > kMostThreads ? kMostThreads : requested > 0 ? requested : kWorkspaceThreads;
    return with(faster).bytes(static_cast<int>(limit < tasks ? limit : tasks < 1 ? 1 : tasks));
  }
};

enum class Acquired { ok, workspace_too_small, out_of_memory };

// Finds the memory for a Need and settles the number of threads: fewer when the workspace or the system has less.
class Scratch {
 public:
  Scratch(const Execution &execution, const Need &need, int threads) : need_(need), executor_(execution.executor) {
    const int64_t more = need.faster + need.fastest;
    fastest_ = need.per_thread + more;
    if (threads > kMostThreads) threads = kMostThreads;
    if (threads > need.tasks) threads = static_cast<int>(need.tasks);
    threads_ = threads < 1 ? 1 : threads;
    if (need.shared + need.per_thread == 0) return;
    if (execution.workspace != nullptr) {
      char *start = align(static_cast<char *>(execution.workspace));
      const int64_t skipped = start - static_cast<char *>(execution.workspace);
      const int64_t size =
          execution.workspace_size < INT64_MAX ? static_cast<int64_t>(execution.workspace_size) : INT64_MAX;
      const int64_t room = size - skipped - need.shared;
      if (room < need.per_thread) {
        result_ = Acquired::workspace_too_small;
        return;
      }
      if (need.per_thread > 0 && room / need.per_thread < threads_) threads_ = static_cast<int>(room / need.per_thread);
      const int64_t each = room / threads_ / kAlignment * kAlignment;
      need_ = need.with(more < each - need.per_thread ? more : each - need.per_thread);
      start_ = start;
      return;
    }
    need_ = need.with(more);
    if (threads_ == 1 && need_.shared + need_.per_thread <= static_cast<int64_t>(sizeof stack_)) {
      start_ = stack_;
      return;
    }
    allocated_ = std::malloc(static_cast<size_t>(need_.bytes(threads_)));
    if (allocated_ == nullptr && (threads_ > 1 || more > 0)) {
      threads_ = 1;
      need_ = need;
      allocated_ = std::malloc(static_cast<size_t>(need_.bytes(1)));
    }
    if (allocated_ == nullptr) {
      result_ = Acquired::out_of_memory;
      return;
    }
    start_ = align(static_cast<char *>(allocated_));
  }
  ~Scratch() { std::free(allocated_); }
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  Acquired result() const { return result_; }
  int threads() const { return threads_; }
  const Executor &executor() const { return executor_; }
  int64_t per_thread() const { return need_.per_thread; }
  // Whether that is all that makes the call faster.
  bool is_fastest() const { return need_.per_thread >= fastest_; }
  char *shared() const { return start_; }
  char *of_thread(int thread) const { return start_ + need_.shared + thread * need_.per_thread; }

 private:
  static char *align(char *p) { return p + (kAlignment - reinterpret_cast<intptr_t>(p) % kAlignment) % kAlignment; }

  Need need_;
  int64_t fastest_ = 0;  // bytes for a thread
  Executor executor_;
  int threads_ = 1;
  Acquired result_ = Acquired::ok;
  char *start_ = nullptr;
  void *allocated_ = nullptr;
  // Small calls touch no allocator. Below 8 KiB, since callers may have stacks of 64.
  alignas(kAlignment) char stack_[6144];
};

}  // namespace attend
