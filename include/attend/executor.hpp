// attend: a program's own threads instead of the library's, for attend.hpp.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_EXECUTOR_HPP
#define ATTEND_EXECUTOR_HPP

#include <attend/status.hpp>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

// A call's work in pieces: task(i) for i in 0..tasks-1.
class task {
 public:
  task(attend_task f, void *argument) noexcept : f_(f), argument_(argument) {}
  void operator()(std::int32_t i) const noexcept { f_(argument_, i); }

 private:
  attend_task f_;
  void *argument_;
};

// The program's own threads: run(tasks, task) calls task(i) for i in 0..tasks-1, each at most once, on any threads, and
// returns when none of these calls runs or can still begin (attend_executor in attend.h). It may be called from several
// threads at once, and must not throw: the program would end. `workers` bounds the tasks of one run; 0 = no bound.
class executor {
 public:
  template <class Run, class = std::enable_if_t<std::is_invocable_v<Run &, std::int32_t, task>>>
  explicit executor(Run &&run, std::int32_t workers = 0) : run_(std::forward<Run>(run)) {
    c_.workers = workers;
    c_.run = [](void *context, std::int32_t tasks, attend_task f, void *argument) noexcept {
      static_cast<const executor *>(context)->run_(tasks, task(f, argument));
    };
    c_.context = this;
  }
  executor(const executor &) = delete;  // the library holds pointers to it
  executor &operator=(const executor &) = delete;
  const attend_executor &c() const noexcept { return c_; }

 private:
  std::function<void(std::int32_t, task)> run_;
  attend_executor c_ = ATTEND_EXECUTOR_INIT;
};

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_EXECUTOR_HPP
