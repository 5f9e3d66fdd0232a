// Threads. The only place that knows OpenMP is parallel.cpp.
#pragma once

#include <cstdint>

namespace attend {

// Threads of the caller's program, which compute instead of the library's own: attend_executor of attend.h.
struct Executor {
  using Task = void (*)(void *argument, int32_t i);
  int32_t workers = 0;                                                             // 0 = any number
  void (*run)(void *context, int32_t tasks, Task task, void *argument) = nullptr;  // null = the library's own
  void *context = nullptr;
};

// Threads that a call may use now: `requested`, or the library's setting if that is 0. Of an executor as many as it has,
// 64 at most; of the library's own 1 inside a caller's own parallel region and in a forked child.
int usable_threads(int requested, const Executor &executor = {});

// The library's setting (attend_threads, attend_set_threads); 0 restores the default.
int library_threads();
void set_library_threads(int threads);

// body(context, task, thread) for every task in 0..tasks-1, each exactly once, in any order, on at most `threads`
// threads numbered from 0. threads = 1 runs in the caller without touching OpenMP or the executor. Returns as soon as all
// tasks are done: threads that have not begun one are not waited for.
void run_parallel(const Executor &executor, int threads, int64_t tasks,
                  void (*body)(void *context, int64_t task, int thread), void *context);

template <class F>
void parallel_for(const Executor &executor, int threads, int64_t tasks, const F &f) {
  auto body = [](void *context, int64_t task, int thread) { (*static_cast<const F *>(context))(task, thread); };
  run_parallel(executor, threads, tasks, body, const_cast<F *>(&f));
}

}  // namespace attend
