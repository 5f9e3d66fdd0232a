// Threads of the program's own: whatever an executor makes of its freedom, the bits are those of one thread.
#include <dirent.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "callers.hpp"
#include "support.hpp"

using namespace attend::test;
using namespace callers;
using namespace operands;

namespace {

std::atomic<int> g_runs{0}, g_most_tasks{0};

void note(int32_t tasks) {
  ++g_runs;
  if (tasks > g_most_tasks) g_most_tasks = tasks;
}

void in_order(void *, int32_t tasks, attend_task task, void *argument) {
  note(tasks);
  for (int32_t i = 0; i < tasks; ++i) task(argument, i);
}
void in_reverse(void *, int32_t tasks, attend_task task, void *argument) {
  note(tasks);
  for (int32_t i = tasks; i-- > 0;) task(argument, i);
}
void odd_ones_alone(void *, int32_t tasks, attend_task task, void *argument) {
  note(tasks);
  for (int32_t i = 1; i < tasks; i += 2) task(argument, i);
}
void none(void *, int32_t tasks, attend_task, void *) { note(tasks); }
void on_other_threads(void *, int32_t tasks, attend_task task, void *argument) {
  note(tasks);
  std::vector<std::thread> threads;
  for (int32_t i = 0; i < tasks; ++i) threads.emplace_back([=] { task(argument, i); });
  for (std::thread &t : threads) t.join();
}

// A pool as programs have them: a queue, and threads that take from it. The calling thread waits, or, if it is one of
// them, works itself.
class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread &t : threads_) t.join();
  }
  void submit(std::function<void()> f) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      queue_.push_back(std::move(f));
    }
    changed_.notify_one();
  }
  static void run(void *context, int32_t tasks, attend_task task, void *argument) {
    note(tasks);
    Pool &pool = *static_cast<Pool *>(context);
    std::atomic<int32_t> left{tasks};
    for (int32_t i = 0; i < tasks; ++i) {
      pool.submit([&, i] {
        task(argument, i);
        --left;
      });
    }
    while (left > 0) {
      if (!pool.take_one()) std::this_thread::yield();
    }
  }

 private:
  bool take_one() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (queue_.empty()) return false;
    const std::function<void()> f = std::move(queue_.back());
    queue_.pop_back();
    lock.unlock();
    f();
    return true;
  }
  void work() {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
        if (stop_) return;
      }
      take_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::function<void()>> queue_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

attend_executor executor_of(void (*run)(void *, int32_t, attend_task, void *), int32_t workers,
                            void *context = nullptr) {
  attend_executor executor = {};
  executor.size = sizeof executor;
  executor.workers = workers;
  executor.run = run;
  executor.context = context;
  return executor;
}

// With the executor in the options of the call.
Bytes result_with(int function, const attend_executor *executor, int32_t threads) {
  const auto call = make(function, kLarge);
  *call->heads[0].threads = threads;
  std::memcpy(call->heads[0].begin + 48, &executor, sizeof executor);
  return call->run() == ATTEND_OK ? call->memory(true) : Bytes();
}

int threads_of_process() {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  if (folder == nullptr) return 0;
  while (const dirent *entry = readdir(folder)) count += entry->d_name[0] != '.' ? 1 : 0;
  closedir(folder);
  return count;
}

}  // namespace

TEST_CASE("equal bits in any order, on any threads, and for what is left out; the library starts no thread") {
  const int before = threads_of_process();  // (first in this program: no pool yet)
  Pool pool(3);
  const attend_executor executors[] = {executor_of(in_order, 0),         executor_of(in_reverse, 5),
                                       executor_of(odd_ones_alone, 4),   executor_of(none, 64),
                                       executor_of(on_other_threads, 3), executor_of(Pool::run, 4, &pool)};
  for (const attend_executor &executor : executors) {
    g_runs = 0;
    g_most_tasks = 0;
    for (int f = 0; f < kFunctions; ++f) {
      INFO("function " << f << " executor " << (&executor - executors));
#if defined(ATTEND_TEST_SANITIZED)
      const std::vector<int32_t> counts = {2, 500};
#else
      const std::vector<int32_t> counts = {0, 1, 2, 3, 7, 500};
#endif
      for (const int32_t threads : counts) {
        CHECK(result_with(f, &executor, threads) == serial_results()[static_cast<size_t>(f)]);
      }
    }
    CHECK(g_runs > 0);
    CHECK(g_most_tasks <= (executor.workers == 0 ? 64 : executor.workers));
    REQUIRE(attend_set_executor(&executor) == ATTEND_OK);
    CHECK(all_results(0) == serial_results());
    CHECK(all_results(4) == serial_results());
    REQUIRE(attend_set_executor(nullptr) == ATTEND_OK);
  }
  CHECK(threads_of_process() == before + (before == 0 ? 0 : 3));
}

TEST_CASE("threads = 1 does not call run, nor does a call too small to share") {
  const attend_executor executor = executor_of(in_order, 4);
  g_runs = 0;
  for (int f = 0; f < kFunctions; ++f) result_with(f, &executor, 1);
  REQUIRE(attend_set_executor(&executor) == ATTEND_OK);
  for (int f = 0; f < kFunctions; ++f) result_of(f, Layout(), 0);
  REQUIRE(attend_set_executor(nullptr) == ATTEND_OK);
  CHECK(g_runs == 0);
}

TEST_CASE("gradients of one head, and of what is left of short and padded sequences, are shared out") {
  const int64_t kKeys = 700, kQueries = 64, kFeatures = 32;
  const attend_executor executor = executor_of(in_order, 2);
  struct Case {
    int64_t batch, room;
  };
  for (const Case c : {Case{1, kKeys}, {3, kKeys}, {3, 4096}}) {
    const int64_t batch = c.batch, room = c.room;
    const std::vector<float> numbers(static_cast<size_t>(kFeatures * room * batch), 0.25f);
    std::vector<float> out(static_cast<size_t>(kFeatures * kQueries * batch));
    std::vector<float> d_q(out.size()), d_k(numbers.size()), d_v(numbers.size());
    const std::vector<int64_t> lengths(static_cast<size_t>(batch), kKeys);
    const auto tensor = [&](const float *data, int64_t columns) {
      return attend_tensor{const_cast<float *>(data),
                           ATTEND_F32,
                           4,
                           {kFeatures, columns, 1, batch},
                           {1, kFeatures, kFeatures * columns, kFeatures * columns}};
    };
    const attend_tensor q = tensor(numbers.data(), kQueries), k = tensor(numbers.data(), room),
                        o = tensor(out.data(), kQueries), to_q = tensor(d_q.data(), kQueries),
                        to_k = tensor(d_k.data(), room), to_v = tensor(d_v.data(), room);
    attend_attention_options forward = options_with<attend_attention_options>(0);
    forward.kv_lengths = lengths.data();
    std::vector<float> lse(static_cast<size_t>(kQueries * batch));
    const attend_tensor of_lse = {lse.data(), ATTEND_F32, 4, {1, kQueries, 1, batch}, {1, 1, kQueries, kQueries}};
    forward.lse = &of_lse;
    REQUIRE(attend_attention(&q, &k, &k, &o, &forward) == ATTEND_OK);
    attend_attention_backward_options options = options_with<attend_attention_backward_options>(2);
    options.executor = &executor;
    g_runs = g_most_tasks = 0;
    REQUIRE(attend_attention_backward(&q, &k, &k, &o, &o, &to_q, &to_k, &to_v, &options, &forward) == ATTEND_OK);
    CHECK(g_most_tasks == 2);
    // Whole sequences side by side, then the last one's spans.
    CHECK(g_runs >= (batch == 1 ? 1 : 2));
  }
}

TEST_CASE("calls from within the executor's own threads, many at once, while the setting changes") {
  Pool pool(3);
  const attend_executor of_pool = executor_of(Pool::run, 3, &pool), plain = executor_of(in_reverse, 2);
#if defined(ATTEND_TEST_SANITIZED)
  constexpr int kCalls = 9;
#else
  constexpr int kCalls = 24;
#endif
  std::atomic<int> left{kCalls}, wrong{0};
  for (int i = 0; i < kCalls; ++i) {
    pool.submit([&, i] {
      for (int f = 0; f < kFunctions; ++f) {
        const bool own = (i + f) % 2 == 0;
        const Bytes result = own ? result_with(f, &of_pool, 3) : result_of(f, kLarge, 3);
        if (result != serial_results()[static_cast<size_t>(f)]) ++wrong;
      }
      --left;
    });
  }
  for (int turn = 0; left > 0; ++turn) {
    attend_set_executor(turn % 3 == 0 ? nullptr : turn % 3 == 1 ? &of_pool : &plain);
    std::this_thread::yield();
  }
  attend_set_executor(nullptr);
  CHECK(wrong == 0);
}

TEST_CASE("a wrong executor is an error, and changes nothing") {
  const attend_executor right = executor_of(in_order, 2);
  attend_executor short_one = right, negative = right, without_run = right;
  short_one.size = 16;
  negative.workers = -1;
  without_run.run = nullptr;
  REQUIRE(attend_set_executor(&right) == ATTEND_OK);
  const struct {
    const attend_executor *executor;
    int reason;
  } wrong[] = {
      {&short_one, ATTEND_INVALID_STRUCT_SIZE}, {&negative, ATTEND_INVALID_VALUE}, {&without_run, ATTEND_NULL_POINTER}};
  for (const auto &w : wrong) {
    const attend_status status = attend_set_executor(w.executor);
    CHECK(ATTEND_REASON(status) == w.reason);
    CHECK(std::string(attend_status_argument(status)) == "executor");
    for (int f = 0; f < kFunctions; ++f) {
      const auto call = make(f);
      for (const Head &head : call->heads) {
        std::memcpy(head.begin + 48, &w.executor, sizeof w.executor);
        expect_failure(*call, w.reason, head.name + ".executor");
        std::memset(head.begin + 48, 0, sizeof w.executor);
      }
    }
  }
  g_runs = 0;
  CHECK(result_of(0, kLarge, 2) == serial_results()[0]);
  CHECK(g_runs > 0);  // the right one is still set
  REQUIRE(attend_set_executor(nullptr) == ATTEND_OK);
}
