#include "drivers/thread_pool.hpp"

#include <sched.h>
#include <time.h>

#include <algorithm>

#include "drivers/park.hpp"

namespace attend {
namespace {

// One job of one caller. Its ticket is (generation, shares, next share), in 32, 16 and 16 bits: who raises the next
// share by one, in a word that is otherwise what it was when `run` and `argument` were read, has begun that share of that
// job. The caller takes what is left by raising it to `shares`.
struct alignas(64) Job {
  std::atomic<bool> taken;
  std::atomic<uint64_t> ticket;
  std::atomic<void (*)(void *, int32_t)> run;
  std::atomic<void *> argument;
  Word ended;  // shares that other threads have ended
  std::atomic<bool> waited_for;
};

constexpr int kJobs = 64;  // callers beyond compute alone
Job g_jobs[kJobs];

// Goes up with every job, so that a thread that found none knows whether to look again; threads sleep on it.
Word g_posted;
std::atomic<int> g_sleepers;

uint64_t next_share(uint64_t ticket) { return ticket & 0xffff; }
uint64_t shares_of(uint64_t ticket) { return ticket >> 16 & 0xffff; }

void pause() {
#if defined(__SSE2__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t nanoseconds() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * int64_t{1000000000} + t.tv_nsec;
}

// Waits for `done` while that is cheaper than to sleep. Others that want this core go first: among them may be the thread
// that is waited for. Who finds that time has passed without him gives up.
template <class F>
bool spin_until(const F &done) {
  constexpr int64_t kSpin = 100000, kPreempted = 20000;
  const int64_t begin = nanoseconds();
  for (int64_t now = begin, last = now; now - begin < kSpin && now - last < kPreempted;) {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      pause();
    }
    last = now;
    sched_yield();
    now = nanoseconds();
  }
  return done();
}

// Runs one share of the job, if there is one left.
bool take_share(Job *job) {
  uint64_t ticket = job->ticket.load(std::memory_order_acquire);
  while (next_share(ticket) < shares_of(ticket)) {
    const auto run = job->run.load(std::memory_order_relaxed);
    void *const argument = job->argument.load(std::memory_order_relaxed);
    if (!job->ticket.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      continue;
    }
    run(argument, static_cast<int32_t>(next_share(ticket)));
    job->ended.fetch_add(1);
    // (From here on the job may be another caller's, whom a needless wake does no harm.)
    if (job->waited_for.load()) unpark(job->ended, 1);
    return true;
  }
  return false;
}

bool take_any_share() {
  for (Job &job : g_jobs) {
    if (take_share(&job)) return true;
  }
  return false;
}

Job *free_job() {
  for (Job &job : g_jobs) {
    if (!job.taken.load(std::memory_order_relaxed) && !job.taken.exchange(true, std::memory_order_acquire)) return &job;
  }
  return nullptr;
}

void post(Job *job, int shares, void (*run)(void *, int32_t), void *argument) {
  job->run.store(run, std::memory_order_relaxed);
  job->argument.store(argument, std::memory_order_relaxed);
  job->ended.store(0, std::memory_order_relaxed);
  job->waited_for.store(false, std::memory_order_relaxed);
  const uint64_t generation = (job->ticket.load(std::memory_order_relaxed) >> 32) + 1;
  job->ticket.store(generation << 32 | static_cast<uint64_t>(shares) << 16 | 1, std::memory_order_release);
  g_posted.fetch_add(1);
  if (g_sleepers.load() > 0) unpark(g_posted, shares - 1);
}

// The shares that other threads have begun. No more will begin.
uint32_t take_back(Job *job) {
  uint64_t ticket = job->ticket.load(std::memory_order_relaxed);
  while (!job->ticket.compare_exchange_weak(ticket, (ticket & ~uint64_t{0xffff}) | shares_of(ticket),
                                            std::memory_order_acq_rel, std::memory_order_relaxed)) {
  }
  return static_cast<uint32_t>(next_share(ticket)) - 1;
}

void wait_for(Job *job, uint32_t begun) {
  const auto all_ended = [&] { return job->ended.load() == begun; };
  if (spin_until(all_ended)) return;
  job->waited_for.store(true);
  for (uint32_t ended; (ended = job->ended.load()) != begun;) park(job->ended, ended);
}

}  // namespace

void run_shares(int shares, void (*run)(void *argument, int32_t share), void *argument) {
  Job *const job = shares > 1 ? free_job() : nullptr;
  if (job == nullptr) return run(argument, 0);
  post(job, std::min(shares, kMostShares), run, argument);
  run(argument, 0);
  wait_for(job, take_back(job));
  job->taken.store(false, std::memory_order_release);
}

void serve(const std::atomic<bool> &stop) {
  while (!stop.load()) {
    const uint32_t posted = g_posted.load();
    if (take_any_share()) continue;
    if (spin_until([&] { return g_posted.load(std::memory_order_relaxed) != posted; })) continue;
    g_sleepers.fetch_add(1);
    if (!stop.load()) park(g_posted, posted);
    g_sleepers.fetch_sub(1);
  }
}

void wake_all() {
  g_posted.fetch_add(1);
  unpark(g_posted, kMostShares);
}

}  // namespace attend
