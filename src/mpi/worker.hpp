// A thread that computes while the one that calls sees to the messages, for the length of a call.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <atomic>

namespace attend::mpi {

class Worker {
 public:
  // False from is_there: the system has no thread to give, and the caller computes itself.
  Worker() {
    pthread_mutex_init(&mutex_, nullptr);
    pthread_cond_init(&changed_, nullptr);
    is_there_ = pthread_create(&thread_, nullptr, loop, this) == 0;
  }
  ~Worker() {
    if (is_there_) {
      post(kEnd, nullptr);
      pthread_join(thread_, nullptr);
    }
    pthread_cond_destroy(&changed_);
    pthread_mutex_destroy(&mutex_);
  }
  Worker(const Worker &) = delete;
  Worker &operator=(const Worker &) = delete;
  bool is_there() const { return is_there_; }

  // Runs work() on the thread and meanwhile calls(), again and again, here.
  template <class Work, class Meanwhile>
  void run(const Work &work, const Meanwhile &meanwhile) {
    post([](const void *argument) { (*static_cast<const Work *>(argument))(); }, &work);
    while (!is_idle_.load(std::memory_order_acquire)) {
      meanwhile();
      sched_yield();
    }
  }

 private:
  using Job = void (*)(const void *);
  static void end(const void *) {}
  static constexpr Job kEnd = end;

  void post(Job job, const void *argument) {
    pthread_mutex_lock(&mutex_);
    job_ = job, argument_ = argument;
    is_idle_.store(false, std::memory_order_relaxed);
    pthread_cond_signal(&changed_);
    pthread_mutex_unlock(&mutex_);
  }
  static void *loop(void *self) {
    Worker *const w = static_cast<Worker *>(self);
    for (;;) {
      pthread_mutex_lock(&w->mutex_);
      while (w->job_ == nullptr) pthread_cond_wait(&w->changed_, &w->mutex_);
      const Job job = w->job_;
      w->job_ = nullptr;
      pthread_mutex_unlock(&w->mutex_);
      if (job == kEnd) return nullptr;
      job(w->argument_);
      w->is_idle_.store(true, std::memory_order_release);
    }
  }

  pthread_t thread_;
  pthread_mutex_t mutex_;
  pthread_cond_t changed_;
  bool is_there_ = false;
  Job job_ = nullptr;
  const void *argument_ = nullptr;
  std::atomic<bool> is_idle_{true};
};

}  // namespace attend::mpi
