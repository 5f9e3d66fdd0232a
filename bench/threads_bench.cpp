// attend_bench_threads [seconds [rows.json]]: what two threads are worth beside others. Calls of three sizes on one thread
// and on two, in turns of a quarter of a second, so that what the neighbours do falls on both; of two threads the median,
// mean and 99th percentile over those of one. See docs/benchmarks.md, "Threads beside others".
//
// SPDX-License-Identifier: BSD-3-Clause
#include <attend/attend.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
double now() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

double g_seconds = 4;
std::FILE *g_json = nullptr;

// A call on `threads` threads, its operands its own: several callers have one each.
struct Call {
  std::string name;
  std::vector<float> memory;
  std::function<attend_status(int32_t threads)> run;
};

attend_tensor carve(std::vector<float> *memory, size_t *used, std::vector<int64_t> shape) {
  attend_tensor t = {memory->data() + *used, ATTEND_F32, static_cast<uint32_t>(shape.size()), {}, {}};
  int64_t size = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    t.shape[i] = shape[i];
    t.stride[i] = size;
    size *= shape[i];
  }
  *used += static_cast<size_t>(size);
  return t;
}

void fill(std::vector<float> *memory, size_t size) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  memory->resize(size);
  for (float &x : *memory) x = normal(random);
}

void make_attention(Call *call) {
  const int64_t d = 32, n = 128, heads = 12;
  call->name = "attention, 12 heads x 128 x 32";
  fill(&call->memory, static_cast<size_t>(4 * d * n * heads));
  size_t used = 0;
  attend_tensor t[4];
  for (attend_tensor &x : t) x = carve(&call->memory, &used, {d, n, heads});
  call->run = [q = t[0], k = t[1], v = t[2], out = t[3]](int32_t threads) {
    attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
    options.threads = threads;
    return attend_attention(&q, &k, &v, &out, &options);
  };
}

void make_softmax(Call *call) {
  const int64_t n = 1024;
  call->name = "softmax, 1024 x 1024";
  fill(&call->memory, static_cast<size_t>(2 * n * n));
  size_t used = 0;
  const attend_tensor x = carve(&call->memory, &used, {n, n}), y = carve(&call->memory, &used, {n, n});
  call->run = [x, y](int32_t threads) {
    attend_softmax_options options = ATTEND_SOFTMAX_OPTIONS_INIT;
    options.threads = threads;
    return attend_softmax(&x, &y, &options);
  };
}

void make_product(Call *call) {
  const int64_t n = 512;
  call->name = "product, 512 x 512 x 512";
  fill(&call->memory, static_cast<size_t>(3 * n * n));
  size_t used = 0;
  attend_tensor t[3];
  for (attend_tensor &x : t) x = carve(&call->memory, &used, {n, n});
  call->run = [a = t[0], b = t[1], c = t[2]](int32_t threads) {
    attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
    options.threads = threads;
    return attend_matmul(1, &a, &b, 0, &c, &options);
  };
}

using Make = void (*)(Call *);
const Make kCalls[] = {make_attention, make_softmax, make_product};

struct Times {
  double median, mean, p99;
};
Times times_of(std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t n = seconds.size();
  return {seconds[n / 2], std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(n),
          seconds[n * 99 / 100]};
}

void must(attend_status status) {
  if (status == ATTEND_OK) return;
  std::fprintf(stderr, "%s\n", attend_status_string(status));
  std::exit(2);
}

// Calls for `g_seconds` on one and on two threads by turns; `between` before each call, not timed.
void compare(const char *neighbours, Make make, const std::function<void()> &between) {
  Call call;
  make(&call);
  std::vector<double> seconds[2];
  must(call.run(2));
  const double end = now() + g_seconds, turn_takes = std::min(0.25, g_seconds / 4);
  for (int turn = 0; turn < 2 || now() < end; ++turn) {
    const int32_t threads = turn % 2 + 1;
    for (const double until = now() + turn_takes; now() < until;) {
      if (between) between();
      const double begin = now();
      must(call.run(threads));
      seconds[threads - 1].push_back(now() - begin);
    }
  }
  const Times one = times_of(seconds[0]), two = times_of(seconds[1]);
  std::printf("%-34s %-32s %8zu  %8.3f %8.3f %8.3f  %8.3f %8.3f %8.3f  %5.2f %5.2f %5.2f\n", neighbours,
              call.name.c_str(), seconds[0].size() + seconds[1].size(), one.median * 1e3, one.mean * 1e3, one.p99 * 1e3,
              two.median * 1e3, two.mean * 1e3, two.p99 * 1e3, two.median / one.median, two.mean / one.mean,
              two.p99 / one.p99);
  std::fflush(stdout);
  if (g_json == nullptr) return;
  std::fprintf(g_json, "%s{\"beside\": \"%s\", \"call\": \"%s\", \"calls\": %zu, ", std::ftell(g_json) > 1 ? ",\n" : "",
               neighbours, call.name.c_str(), seconds[0].size() + seconds[1].size());
  std::fprintf(g_json, "\"one\": [%.9g, %.9g, %.9g], \"two\": [%.9g, %.9g, %.9g]}", one.median, one.mean, one.p99,
               two.median, two.mean, two.p99);
}

// Processes that want a whole core each.
class Busy {
 public:
  explicit Busy(int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        for (volatile unsigned spin = 0;; ++spin) {
        }
      }
      if (child > 0) children_.push_back(child);
    }
  }
  ~Busy() {
    for (const pid_t child : children_) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, 0);
    }
  }
  Busy(const Busy &) = delete;
  Busy &operator=(const Busy &) = delete;

 private:
  std::vector<pid_t> children_;
};

#if defined(_OPENMP)
// A framework's own parallel region: its threads then spin for a while, waiting for the next.
void spinning_team() {
#pragma omp parallel num_threads(2)
  for (const double until = now() + 20e-6; now() < until;) {
  }
}
#endif

// Calls a second of `callers` at once.
double throughput(int callers, int32_t threads, double seconds) {
  std::atomic<int64_t> calls{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> all;
  for (int i = 0; i < callers; ++i) {
    all.emplace_back([&] {
      Call call;
      make_attention(&call);
      while (!stop) {
        must(call.run(threads));
        ++calls;
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread &t : all) t.join();
  return static_cast<double>(calls) / seconds;
}

// CPU time of this process in 0.2 seconds of sleep that begin 1 ms after a call.
double idle_cpu() {
  Call call;
  make_softmax(&call);
  must(call.run(2));
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::clock_t begin = std::clock();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

// What the caller computes after each call, 1 ms of it, may be slower where the call's threads go on to spin.
double own_work(int32_t threads) {
  Call call;
  make_attention(&call);
  std::vector<double> seconds;
  for (const double end = now() + g_seconds / 2; now() < end;) {
    must(call.run(threads));
    const double begin = now();
    volatile double x = 1;
    for (int i = 0; i < 300000; ++i) x = x * 1.0000001;
    seconds.push_back(now() - begin);
  }
  return times_of(seconds).mean;
}

}  // namespace

int main(int argc, char **argv) {
  if (argc > 1) g_seconds = std::atof(argv[1]);
  if (argc > 2) {
    g_json = std::fopen(argv[2], "w");
    if (g_json == nullptr) {
      std::perror(argv[2]);
      return 2;
    }
    std::fputs("[", g_json);
  }
  std::printf("attend %s, %ld CPUs; ms: median, mean, 99th percentile\n", attend_isa(), sysconf(_SC_NPROCESSORS_ONLN));
  std::printf("%-34s %-32s %8s  %26s  %26s  %17s\n", "beside", "call", "calls", "one thread", "two threads",
              "two / one");
  for (const Make make : kCalls) compare("nothing", make, nullptr);
  for (const int busy : {1, 2}) {
    const Busy processes(busy);
    const std::string name = std::to_string(busy) + " busy process" + (busy > 1 ? "es" : "");
    for (const Make make : kCalls) compare(name.c_str(), make, nullptr);
  }
#if defined(_OPENMP)
  for (const Make make : kCalls) compare("OpenMP's threads, spinning", make, spinning_team);
#endif
  if (g_json != nullptr) {
    std::fputs("]\n", g_json);
    std::fclose(g_json);
  }
  double one = 0, two = 0;
  for (int round = 0; round < 4; ++round) {
    one += throughput(4, 1, g_seconds / 4) / 4;
    two += throughput(4, 2, g_seconds / 4) / 4;
  }
  std::printf("4 callers at once, attention: %.0f calls a second of one thread, %.0f of two: %.2f\n", one, two,
              two / one);
  {
    const Busy processes(2);
    const double alone = own_work(1), after = own_work(2);
    std::printf("caller's own work after a call, 2 busy processes: %.3f ms after one thread, %.3f after two: %.2f\n",
                alone * 1e3, after * 1e3, after / alone);
  }
  std::printf("CPU in 200 ms of sleep, 1 ms after a call: %.3f ms\n", idle_cpu() * 1e3);
  return 0;
}
