// Threads. The only place that knows OpenMP is parallel.cpp.
#pragma once

#include <cstdint>

namespace attend {

// Threads that a call may use now: `requested`, or the library's setting if that is 0; 1 inside a caller's own
// parallel region and in a forked child.
int usable_threads(int requested);

// The library's setting (attend_threads, attend_set_threads); 0 restores the default.
int library_threads();
void set_library_threads(int threads);

// body(context, task, thread) for every task in 0..tasks-1, each exactly once, in any order, on at most `threads`
// threads numbered from 0. threads = 1 runs in the caller without touching OpenMP.
void run_parallel(int threads, int64_t tasks, void (*body)(void *context, int64_t task, int thread), void *context);

template <class F>
void parallel_for(int threads, int64_t tasks, const F &f) {
  auto body = [](void *context, int64_t task, int thread) { (*static_cast<const F *>(context))(task, thread); };
  run_parallel(threads, tasks, body, const_cast<F *>(&f));
}

}  // namespace attend
