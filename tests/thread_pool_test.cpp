// The pool alone: its threads are made here, or are not there at all, or come too late. And what its tasks take over from
// their caller.
#include "drivers/thread_pool.hpp"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "drivers/parallel.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// Threads that serve while this lives.
class Servants {
 public:
  explicit Servants(int count) {
    for (int i = 0; i < count; ++i) threads_.emplace_back([this] { serve(stop_); });
  }
  ~Servants() {
    stop_ = true;
    wake_all();
    for (std::thread &t : threads_) t.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// A job that counts who came, and is gone when its caller returns.
struct Counted {
  static constexpr uint32_t kAlive = 0x600dcafe;
  std::atomic<uint32_t> alive{kAlive};
  std::atomic<int> begun[kMostShares] = {}, inside{0};
  std::atomic<bool> wrong{false};

  ~Counted() { alive = 0; }
  static void run(void *argument, int32_t share) {
    Counted &c = *static_cast<Counted *>(argument);
    if (c.alive != kAlive || c.begun[share].fetch_add(1) != 0) c.wrong = true;
    ++c.inside;
    for (int i = 0; i < 50 * (share % 3); ++i) c.alive.load();
    --c.inside;
  }
  // After the caller's return.
  bool is_right() const { return !wrong && begun[0] == 1 && inside == 0; }
};

}  // namespace

TEST_CASE("without another thread the caller runs its own share and returns") {
  for (const int shares : {1, 2, 5, kMostShares, kMostShares + 7}) {
    Counted job;
    run_shares(shares, Counted::run, &job);
    CHECK(job.is_right());
    for (int i = 1; i < kMostShares; ++i) CHECK(job.begun[i] == 0);
  }
}

TEST_CASE("threads that come late find nothing, those that have begun are waited for") {
  struct Late {
    std::atomic<bool> begun{false}, may_end{false}, ended{false};
    static void run(void *argument, int32_t share) {
      Late &l = *static_cast<Late *>(argument);
      if (share == 0) {
        while (!l.begun) std::this_thread::yield();  // a thread is in share 1
        l.may_end = true;
      } else {
        l.begun = true;
        while (!l.may_end) std::this_thread::yield();
        // Longer than the caller spins.
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        l.ended = true;
      }
    }
  };
  const Servants servants(1);
  for (int round = 0; round < 5; ++round) {
    auto job = std::make_unique<Late>();
    run_shares(2, Late::run, job.get());
    CHECK(job->ended);
  }
}

TEST_CASE("many callers and threads: every share at most once, and none after its call") {
  const Servants servants(3);
  std::atomic<int> wrong{0}, helped{0};
  std::vector<std::thread> callers;
  for (unsigned i = 0; i < 6; ++i) {
    callers.emplace_back([i, &wrong, &helped] {
      Random random(1400 + i);
      for (int round = 0; round < 4000 || helped == 0; ++round) {  // on a busy machine nobody may have come by then
        auto job = std::make_unique<Counted>();
        run_shares(static_cast<int>(random.in(2, 6)), Counted::run, job.get());
        if (!job->is_right()) ++wrong;
        for (int share = 1; share < kMostShares; ++share) helped += job->begun[share];
        if (random.one_in(50)) std::this_thread::sleep_for(std::chrono::microseconds(300));  // let them fall asleep
      }
    });
  }
  for (std::thread &t : callers) t.join();
  CHECK(wrong == 0);
  CHECK(helped > 0);
}

TEST_CASE("more callers at once than the board has places") {
  constexpr int kCallers = 80;
  struct Gate {
    std::atomic<int> *inside;
    static void run(void *argument, int32_t) {
      std::atomic<int> &inside = *static_cast<Gate *>(argument)->inside;
      ++inside;
      while (inside < kCallers) std::this_thread::yield();
    }
  };
  std::atomic<int> inside{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&inside] {
      Gate gate = {&inside};
      run_shares(2, Gate::run, &gate);
    });
  }
  for (std::thread &t : callers) t.join();
  CHECK(inside == kCallers);
}

// Bits of a product whose terms are denormal, and are rounded.
std::vector<float> product(int32_t threads) {
  const int64_t m = 256, n = 64, k = 9;
  std::vector<float> a(m * k), b(k * n), c(m * n);
  for (size_t i = 0; i < a.size(); ++i) a[i] = (1 + static_cast<float>(i % 7) / 3) * 1e-20f;
  for (size_t i = 0; i < b.size(); ++i) b[i] = (1 + static_cast<float>(i % 5) / 7) * 1e-19f;
  const attend_tensor ta = {a.data(), ATTEND_F32, 2, {m, k}, {1, m}}, tb = {b.data(), ATTEND_F32, 2, {k, n}, {1, k}},
                      tc = {c.data(), ATTEND_F32, 2, {m, n}, {1, m}};
  auto options = options_with<attend_matmul_options>(threads);
  attend_matmul(1, &ta, &tb, 0, &tc, &options);
  return c;
}

TEST_CASE("tasks compute as their caller does: rounding, flushed denormals") {
  const std::vector<float> nearest = product(2);  // the pool is there now
  for (const int rounding : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO, FE_TONEAREST}) {
    REQUIRE(fesetround(rounding) == 0);
    const std::vector<float> one = product(1);
    bool same = true;
    for (int round = 0; round < 200; ++round) same &= same_bits(product(2 + round % 3), one);
    const bool differs = !same_bits(one, nearest);
    fesetround(FE_TONEAREST);
    CHECK(same);
    CHECK(differs == (rounding != FE_TONEAREST));
  }
#if defined(__x86_64__)
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(saved | 0x8040u);  // FTZ, DAZ
  const std::vector<float> flushed = product(1);
  bool same = true;
  for (int round = 0; round < 200; ++round) same &= same_bits(product(2 + round % 3), flushed);
  _mm_setcsr(saved);
  CHECK(same);
  CHECK(!same_bits(flushed, nearest));
  CHECK(same_bits(product(2), nearest));
#endif
}

#if defined(ATTEND_TEST_OPENMP)
// How vectors are rounded. (fegetround() is about the x87 unit, which the library does not use.)
int vector_rounding() {
#if defined(__x86_64__)
  return static_cast<int>(_MM_GET_ROUNDING_MODE());
#else
  return fegetround();
#endif
}

TEST_CASE("every thread of a call has its caller's floating-point environment, and its own again afterwards") {
  struct Seen {
    std::mutex mutex;
    std::set<std::thread::id> threads;
    int of_caller, wrong = 0;
    // Tasks wait, but not for ever, until a second thread has one.
    static void task(void *context, int64_t, int) {
      Seen &seen = *static_cast<Seen *>(context);
      const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
      bool alone = true;
      while (alone && std::chrono::steady_clock::now() < end) {
        std::this_thread::yield();
        const std::lock_guard<std::mutex> lock(seen.mutex);
        seen.threads.insert(std::this_thread::get_id());
        alone = seen.threads.size() < 2;
      }
      const std::lock_guard<std::mutex> lock(seen.mutex);
      seen.wrong += vector_rounding() != seen.of_caller;
    }
  };
  for (const int rounding : {FE_UPWARD, FE_TONEAREST, FE_DOWNWARD}) {
    Seen seen;
    REQUIRE(fesetround(rounding) == 0);
    seen.of_caller = vector_rounding();
    run_parallel({}, 2, 8, Seen::task, &seen);
    const int after = vector_rounding();
    fesetround(FE_TONEAREST);
    CHECK(after == seen.of_caller);
    CHECK((seen.of_caller == vector_rounding()) == (rounding == FE_TONEAREST));
    CHECK(seen.wrong == 0);
    CHECK(seen.threads.size() == 2);
  }
}
#endif

TEST_CASE("the first call from a pinned thread does not pin the others") {
  cpu_set_t all, one;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  CPU_ZERO(&one);
  for (size_t cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  }
  const int before = attend_threads();
  int pinned = 0;
  std::thread([&] {
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    pinned = attend_threads();
    product(0);
  }).join();
  CHECK(pinned == before);
}
