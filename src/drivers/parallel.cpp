#include "drivers/parallel.hpp"

#include <algorithm>
#include <atomic>

#include "drivers/float_environment.hpp"
#include "drivers/park.hpp"
#include "drivers/thread_limits.hpp"
#include "drivers/thread_pool.hpp"

#if defined(ATTEND_OPENMP)
#include <omp.h>
#include <pthread.h>
#include <signal.h>
#endif

namespace attend {
namespace {

std::atomic<int> g_setting{0};  // attend_set_threads; 0 = default
std::atomic<int> g_default{0};  // found once

#if defined(ATTEND_OPENMP)

// The pool's threads do not survive fork(). Children therefore run serially. A flag set by pthread_atfork costs nothing
// per call, unlike getpid. It misses a fork before the first call on several threads, when the caller may have used
// OpenMP already: the system knows.
std::atomic<bool> g_forked{false};
pthread_once_t g_watching = PTHREAD_ONCE_INIT;

void watch_forks() {
  if (is_forked("")) g_forked.store(true, std::memory_order_relaxed);
  pthread_atfork(nullptr, nullptr, [] { g_forked.store(true, std::memory_order_relaxed); });
}

// Waits for a thread that is watching already: a fork after it has returned is noticed.
bool must_run_alone() {
  pthread_once(&g_watching, watch_forks);
  return g_forked.load(std::memory_order_relaxed) || omp_in_parallel() != 0;
}

int runtime_threads() { return std::min(omp_get_max_threads(), omp_get_thread_limit()); }

// The pool: the threads of a parallel region that a thread of ours has entered and nobody waits for. So they are as many
// and where OpenMP's settings say, but not spinning between calls, nor waited for at the end of one. More are had by
// leaving the region and entering a larger one.
std::atomic<int> g_pool{0};        // threads that the region was asked for, but the one that entered it
std::atomic<bool> g_grows{false};  // the region is to be left
Word g_asked{0};                   // goes up when that may change
std::atomic_flag g_starting = ATOMIC_FLAG_INIT;

void *keep_region(void *) {
  use_affinity_of_process();
  for (;;) {
    const uint32_t asked = g_asked.load();
    g_grows.store(false);
#pragma omp parallel num_threads(g_pool.load() + 1)
    {
      if (omp_get_thread_num() != 0) {
        serve(g_grows);
      } else {
        while (g_asked.load() == asked) park(g_asked, asked);
        g_grows.store(true);
        wake_all();
      }
    }
  }
}

// Signals are for the threads of the program, but for those that an instruction raises: blocked, they would end the
// process without asking its handlers.
bool start_pool() {
  sigset_t others, before;
  sigfillset(&others);
  for (const int raised : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}) sigdelset(&others, raised);
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &others, &before);
  pthread_t thread;
  const bool started = pthread_create(&thread, &attributes, keep_region, nullptr) == 0;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return started;
}

// Sees to it that there will be `threads` beside the caller's: a call need not wait for them. Whoever finds another
// thread at it leaves it to that one.
void want_pool(int threads) {
  threads = std::min(threads, kMostShares - 1);
  if (g_pool.load(std::memory_order_relaxed) >= threads || g_starting.test_and_set(std::memory_order_acquire)) return;
  const int before = g_pool.load();
  if (before < threads) {
    g_pool.store(threads);
    if (before != 0) {
      g_asked.fetch_add(1);
      unpark(g_asked, 1);
    } else if (!start_pool()) {
      g_pool.store(0);
    }
  }
  g_starting.clear(std::memory_order_release);
}

#else

bool must_run_alone() { return true; }
int runtime_threads() { return 1; }
void want_pool(int) {}

#endif

}  // namespace

int library_threads() {
#if !defined(ATTEND_OPENMP)
  return 1;
#endif
  if (const int setting = g_setting.load(std::memory_order_relaxed)) return setting;
  int threads = g_default.load(std::memory_order_relaxed);
  if (threads == 0) {
    threads = default_threads(runtime_threads());
    g_default.store(threads, std::memory_order_relaxed);
  }
  return threads;
}

void set_library_threads(int threads) { g_setting.store(threads, std::memory_order_relaxed); }

int usable_threads(int requested, const Executor &executor) {
  if (requested == 1) return 1;
  if (executor.run != nullptr) {
    constexpr int kMostTasks = 64;
    const int setting = g_setting.load(std::memory_order_relaxed), workers = executor.workers;
    const int wanted = requested > 0 ? requested : setting > 0 ? setting : workers > 0 ? workers : library_threads();
    return std::min({wanted, workers > 0 ? workers : kMostTasks, kMostTasks});
  }
  if (must_run_alone()) return 1;
  return requested > 0 ? requested : library_threads();
}

namespace {

// The tasks of one call. They are handed out one by one, since they are long and, under a causal mask, unequal.
struct Work {
  void (*body)(void *, int64_t, int);
  void *context;
  int64_t tasks;
  FloatEnvironment environment;
  std::atomic<int64_t> next;

  // As thread number `share`, until none is left. (Not inlined: a check of the build wants to see that nothing else touches
  // the floating-point environment.)
  __attribute__((noinline)) static void run(void *argument, int32_t share) {
    Work &w = *static_cast<Work *>(argument);
    int64_t task = w.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= w.tasks) return;
    const FloatEnvironment own = float_environment();
    set_float_environment(w.environment);
    for (; task < w.tasks; task = w.next.fetch_add(1, std::memory_order_relaxed)) w.body(w.context, task, share);
    set_float_environment(own);
  }
};

}  // namespace

void run_parallel(const Executor &executor, int threads, int64_t tasks,
                  void (*body)(void *context, int64_t task, int thread), void *context) {
  if (threads <= 1 || tasks <= 1) {
    for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
    return;
  }
  const int shares = static_cast<int>(std::min<int64_t>(threads, tasks));
  Work work = {body, context, tasks, float_environment(), {0}};
  if (executor.run != nullptr) {
    executor.run(executor.context, shares, Work::run, &work);
    return Work::run(&work, 0);  // what it has left out; nobody else is at work any more
  }
  want_pool(shares - 1);
  run_shares(shares, Work::run, &work);
}

}  // namespace attend
