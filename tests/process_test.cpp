// What surrounds a call: small stacks, many callers, the floating-point environment and the rest of the process, which
// it leaves as they were.
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <clocale>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <future>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "callers.hpp"
#include "drivers/thread_limits.hpp"
#include "support.hpp"

using namespace attend::test;
using namespace callers;
using namespace operands;

namespace {

[[maybe_unused]] const Layout kDouble = {ATTEND_F64, 9, true};

// Everything of the process that a library could change behind its caller's back.
struct Surroundings {
  sigset_t signals = {};
  std::string locale = std::setlocale(LC_ALL, nullptr), environment;
  int rounding = fegetround();
  unsigned control = 0;
  cpu_set_t cpus = {};

  Surroundings() {
    pthread_sigmask(SIG_SETMASK, nullptr, &signals);
    sched_getaffinity(0, sizeof cpus, &cpus);
    for (char **entry = environ; *entry != nullptr; ++entry) environment += std::string(*entry) + '\n';
#if defined(__x86_64__)
    control = _mm_getcsr() & ~0x3fu;  // without the exceptions that happened, which any arithmetic sets
#endif
  }
  bool operator==(const Surroundings &o) const {
    bool same = locale == o.locale && environment == o.environment && rounding == o.rounding && control == o.control &&
                CPU_EQUAL(&cpus, &o.cpus);
    for (int s = 1; s < 32; ++s) same &= sigismember(&signals, s) == sigismember(&o.signals, s);
    return same;
  }
};

}  // namespace

TEST_CASE("a call changes nothing but its outputs, and prints nothing") {
  int pipes[2][2];
  const int kept[2] = {dup(1), dup(2)};
  fflush(nullptr);
  for (int i = 0; i < 2; ++i) {
    REQUIRE(pipe(pipes[i]) == 0);
    dup2(pipes[i][1], i + 1);
    close(pipes[i][1]);
  }
  const Surroundings before;
  bool computed = true;
  for (int f = 0; f < kFunctions; ++f) {
    for (const int32_t threads : {1, 2}) computed &= !result_of(f, kLarge, threads).empty();
    attend_softmax(nullptr, nullptr, nullptr);
  }
  const bool same = before == Surroundings();
  char printed[100];
  ssize_t count = 0;
  for (int i = 0; i < 2; ++i) {
    dup2(kept[i], i + 1);
    close(kept[i]);
    count += read(pipes[i][0], printed, sizeof printed);
    close(pipes[i][0]);
  }
  CHECK(computed);
  CHECK(same);
  CHECK(count == 0);
}

#if !defined(ATTEND_TEST_SANITIZED)  // whose frames are larger
TEST_CASE("threads with 64 KiB of stack") {
  struct Job {
    std::unique_ptr<Call> call;
    attend_status status;
  };
  const size_t stack = std::max<size_t>(65536, static_cast<size_t>(PTHREAD_STACK_MIN));  // 128 KiB on Arm
  for (const Layout &layout : {kLarge, kDouble}) {
    for (int f = 0; f < kFunctions; ++f) {
      Bytes expected = result_of(f, layout, 1);
      for_each_isa([&] {
        Job job = {make(f, layout), -1};
        INFO(job.call->function);
        *job.call->heads[0].threads = 1;
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        REQUIRE(pthread_attr_setstacksize(&attributes, stack) == 0);
        pthread_t thread;
        const auto body = [](void *j) -> void * {
          static_cast<Job *>(j)->status = static_cast<Job *>(j)->call->run();
          return nullptr;
        };
        REQUIRE(pthread_create(&thread, &attributes, body, &job) == 0);
        pthread_join(thread, nullptr);
        pthread_attr_destroy(&attributes);
        CHECK(job.status == ATTEND_OK);
        if (fuses(attend_isa())) CHECK(job.call->memory(true) == expected);
      });
    }
  }
}
#endif

TEST_CASE("64 callers at once, with the bits of one") {
  std::vector<Bytes> expected;
  for (int f = 0; f < kFunctions; ++f) expected.push_back(result_of(f, kLarge, 1));
  std::vector<std::future<bool>> callers;
  for (int caller = 0; caller < 64; ++caller) {
    callers.push_back(std::async(std::launch::async, [caller, &expected] {
      const int f = caller % kFunctions;
      bool same = true;
      for (int round = 0; round < 3; ++round)
        same &= result_of(f, kLarge, 1 + round) == expected[static_cast<size_t>(f)];
      return same;
    }));
  }
  for (std::future<bool> &same : callers) CHECK(same.get());
}

// attend_threads() in a process of its own, which has not asked yet, with the environment `settings` and, if `pinned`, one
// CPU from its start; 0 if it cannot be started.
static int threads_of_process(const std::vector<const char *> &settings, bool pinned) {
  cpu_set_t cpus;
  REQUIRE(sched_getaffinity(0, sizeof cpus, &cpus) == 0);
  for (size_t cpu = 0; cpu < CPU_SETSIZE && pinned; ++cpu) {
    if (CPU_COUNT(&cpus) > 1) CPU_CLR(cpu, &cpus);
  }
  fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    sched_setaffinity(0, sizeof cpus, &cpus);
    for (const char *set_outside : {"OMP_NUM_THREADS", "OMP_THREAD_LIMIT"}) unsetenv(set_outside);
    for (const char *setting : settings) putenv(const_cast<char *>(setting));
    putenv(const_cast<char *>("ATTEND_PROCESS_TEST_THREADS=1"));
    char executable[4096] = "";
    const ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    if (length > 0) execl(executable, executable, "-tc=threads as this process sees them", nullptr);
    _exit(0);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST_CASE("the default of threads is what OpenMP would start: CPUs of the process, its settings, not who is pinned") {
  cpu_set_t all;
  REQUIRE(sched_getaffinity(0, sizeof all, &all) == 0);
  const int cpus = CPU_COUNT(&all);
  const int plain = threads_of_process({}, false);
  if (plain == 0) {
    MESSAGE("not tested: without /proc, or under an emulator, this program cannot start itself");
    return;
  }
#if defined(ATTEND_TEST_OPENMP)
  const int quota = attend::quota_cpus("");
  CHECK(plain == (quota > 0 ? std::min(cpus, quota) : cpus));
#else
  CHECK(plain == 1);
#endif
  CHECK(threads_of_process({}, true) == 1);
  if (plain == 1) return;  // a quota, or a build without OpenMP
  // libgomp pins the first thread then, to whose mask the others are not bound.
  CHECK(threads_of_process({"OMP_PROC_BIND=true"}, false) == plain);
  CHECK(threads_of_process({"OMP_PROC_BIND=true", "OMP_PLACES=cores"}, false) >= (cpus + 1) / 2);
  CHECK(threads_of_process({"OMP_NUM_THREADS=1"}, false) == 1);
  CHECK(threads_of_process({"OMP_THREAD_LIMIT=1"}, false) == 1);
  CHECK(threads_of_process({"OMP_NUM_THREADS=2", "OMP_PROC_BIND=close"}, false) == 2);
}

TEST_CASE("threads as this process sees them") {
  CHECK(attend_threads() >= 1);
  // For the caller above: after a call of so many threads, in which nobody is missing.
  if (std::getenv("ATTEND_PROCESS_TEST_THREADS") != nullptr) {
    for (int round = 0; round < 20; ++round) result_of(0, kLarge, 0);
    _exit(attend_threads());
  }
}

#if defined(__x86_64__)
TEST_CASE("denormals flushed by the caller: defined results, and still flushed afterwards") {
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(saved | 0x8040u);  // FTZ, DAZ
  float a[4] = {1e-40f, 2, 0, 1}, b[4] = {1, 1e-40f, 0.5f, 2}, c[4], y[4], x[4] = {0, 1e-40f, -200, 3};
  const attend_tensor ta = {a, ATTEND_F32, 2, {2, 2}, {1, 2}}, tb = {b, ATTEND_F32, 2, {2, 2}, {1, 2}},
                      tc = {c, ATTEND_F32, 2, {2, 2}, {1, 2}}, tx = {x, ATTEND_F32, 1, {4}, {1}},
                      ty = {y, ATTEND_F32, 1, {4}, {1}};
  const bool computed =
      attend_matmul(1, &ta, &tb, 0, &tc, nullptr) == ATTEND_OK && attend_softmax(&tx, &ty, nullptr) == ATTEND_OK;
  const unsigned after = _mm_getcsr();
  _mm_setcsr(saved);
  CHECK(computed);
  CHECK((after & 0x8040u) == 0x8040u);
  CHECK(c[0] == 0);
  CHECK(c[1] == 2);
  CHECK(std::fabs(y[0] + y[1] + y[2] + y[3] - 1) < 1e-6f);
}
#endif

TEST_CASE("more than 2^31 elements") {
  // Untouched pages of a mapping are zeros and take no memory.
  const int64_t rows = 3, columns = (int64_t{1} << 31) + 5;
  const size_t bytes = static_cast<size_t>(rows * columns) * sizeof(float);
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    MESSAGE("no address space for " << bytes << " bytes");
    return;
  }
  float *x = static_cast<float *>(memory);
  for (int64_t i = 0; i < rows; ++i) x[i * columns + columns - 1] = static_cast<float>(i);
  // The last column, of a matrix with contiguous rows, and the last element, of a column of 2^31 + 5 by strides.
  float y[3], sums[3];
  const attend_tensor last = {x + columns - 1, ATTEND_F32, 2, {rows, 1}, {columns, 1}};
  const attend_tensor ty = {y, ATTEND_F32, 2, {rows, 1}, {1, rows}};
  REQUIRE(attend_softmax(&last, &ty, nullptr) == ATTEND_OK);
  CHECK(y[2] > y[1]);
  CHECK(std::fabs(y[0] + y[1] + y[2] - 1) < 1e-6f);
  // Three elements 2^31 apart times one.
  float ones[4] = {1, 1, 1, 1};
  const attend_tensor a = {x + columns - 1, ATTEND_F32, 2, {3, 1}, {columns, 1}},
                      b = {ones, ATTEND_F32, 2, {1, 1}, {1, 1}}, c = {sums, ATTEND_F32, 2, {3, 1}, {1, 3}},
                      sum = {sums, ATTEND_F32, 2, {1, 1}, {1, 1}};
  REQUIRE(attend_matmul(1, &a, &b, 0, &c, nullptr) == ATTEND_OK);
  for (int i = 0; i < 3; ++i) CHECK(sums[i] == static_cast<float>(i));
  // Keys and values 2^31 apart.
  const attend_tensor far_keys = {x + columns - 1, ATTEND_F32, 2, {1, 3}, {1, columns}};
  REQUIRE(attend_attention(&b, &far_keys, &far_keys, &sum, nullptr) == ATTEND_OK);
  CHECK(std::fabs(sums[0] - (std::exp(1.0) + 2 * std::exp(2.0)) / (1 + std::exp(1.0) + std::exp(2.0))) < 1e-6);
  // The last three of 2^31 + 5 keys: 0, 0 and 3.
  x[columns - 1] = 3;
  const attend_tensor row = {x, ATTEND_F32, 2, {1, columns}, {1, 1}};
  attend_attention_options options = {};
  options.size = sizeof options;
  options.flags = ATTEND_WINDOW;
  options.query_offset = columns - 1;
  options.window_left = 2;
  REQUIRE(attend_attention(&b, &row, &row, &sum, &options) == ATTEND_OK);
  CHECK(std::fabs(sums[0] - 3 * std::exp(3.0) / (2 + std::exp(3.0))) < 1e-6);
#if !defined(ATTEND_TEST_SANITIZED)  // too slow
  // A loop that runs so far: the row, all but the last 0, times a column that repeats one value.
  float one[1] = {2};
  const attend_tensor column = {one, ATTEND_F32, 2, {columns, 1}, {0, 1}};
  REQUIRE(attend_matmul(1, &row, &column, 0, &sum, nullptr) == ATTEND_OK);
  CHECK(sums[0] == 6);
#endif
  munmap(memory, bytes);
}
