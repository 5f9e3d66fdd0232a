#include "drivers/parallel.hpp"

#include <atomic>

#include "drivers/thread_limits.hpp"

#if defined(ATTEND_OPENMP)
#include <omp.h>
#include <pthread.h>
#endif

namespace attend {
namespace {

std::atomic<int> g_setting{0};  // attend_set_threads; 0 = default
std::atomic<int> g_default{0};  // found once

#if defined(ATTEND_OPENMP)

// libgomp's pool does not survive fork(): a child of a process that has used it would wait for threads that no longer
// exist. Children therefore run serially. A flag set by pthread_atfork costs nothing per call, unlike getpid. It misses
// a fork before the first call on several threads, when the caller may have used OpenMP already: the system knows.
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

int runtime_threads() { return omp_get_max_threads(); }

#else

bool must_run_alone() { return true; }
int runtime_threads() { return 1; }

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

int usable_threads(int requested) {
  if (requested == 1) return 1;
  if (must_run_alone()) return 1;
  return requested > 0 ? requested : library_threads();
}

void run_parallel(int threads, int64_t tasks, void (*body)(void *context, int64_t task, int thread), void *context) {
#if defined(ATTEND_OPENMP)
  if (threads > 1 && tasks > 1) {
    // Handed out one by one: tasks are long and, under a causal mask, unequal.
    std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num();
      for (int64_t task = next.fetch_add(1); task < tasks; task = next.fetch_add(1)) body(context, task, thread);
    }
    return;
  }
#else
  static_cast<void>(threads);
#endif
  for (int64_t task = 0; task < tasks; ++task) body(context, task, 0);
}

}  // namespace attend
