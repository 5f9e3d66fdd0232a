// attend_demo: what the library is worth at a real size. One table of multi-head attention: the formulas as they stand,
// careful scalar C++, every instruction set of this CPU, threads.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <attend/attend.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "machine_peak.hpp"
#include "problems.hpp"

namespace {

using namespace attend::bench;

constexpr int64_t kFeatures = 64, kItems = 4096, kHeads = 8;

// A path that is slower than this computes fewer heads, then fewer items, and says so in its row.
constexpr double kLongestCall = 5;
// Fast paths are repeated for so long; the best time counts.
constexpr double kRepeatFor = 1;
// What takes longer than this is announced.
constexpr double kAnnounceFrom = 2;

constexpr int64_t kSampledQueries = 64;
// Far above the rounding of any path (1e-6), far below any mistake.
constexpr double kTolerance = 1e-4;

// ----------------------------------------------------------------------------------------------------- progress --

// Standard error: one line that is written over on a terminal, otherwise a line for each long step and nothing else.
class Progress {
 public:
  explicit Progress(std::size_t steps) : steps_(steps), terminal_(isatty(STDERR_FILENO) == 1) {}

  void next(const std::string &what) {
    ++step_;
    what_ = what;
    if (terminal_) show();
  }

  void expect(double seconds) {
    if (seconds < kAnnounceFrom) return;
    char estimate[32];
    std::snprintf(estimate, sizeof(estimate), ", about %.0f s", seconds);
    what_ += estimate;
    show();
  }

  // Before anything goes to standard output, which may be the same terminal.
  void clear() const {
    if (terminal_) std::fprintf(stderr, "\r%*s\r", kWidth, "");
  }

 private:
  static constexpr int kWidth = 79;

  void show() const {
    char line[kWidth + 1];
    std::snprintf(line, sizeof(line), "measuring %zu of %zu: %s", step_, steps_, what_.c_str());
    if (terminal_) {
      std::fprintf(stderr, "\r%-*s", kWidth, line);
    } else {
      std::fprintf(stderr, "%s\n", line);
    }
  }

  std::size_t step_ = 0, steps_;
  bool terminal_;
  std::string what_;
};

// -------------------------------------------------------------------------------------------------------- error --

struct Deviation {
  double error;           // the largest |out - exact|
  double largest_output;  // the largest |exact|
};

// The inputs in f64, and exact results for a sample of queries: all of them would take the naive path a minute.
class Oracle {
 public:
  explicit Oracle(const AttentionProblem<float> &problem)
      : q_(kFeatures, kItems, kHeads), k_(kFeatures, kItems, kHeads), v_(kFeatures, kItems, kHeads) {
    q_.fill_from(problem.q);
    k_.fill_from(problem.k);
    v_.fill_from(problem.v);
  }

  // The sample takes the heads in turn and runs from the first query to the last.
  Deviation compare(const Operand<float> &out, bool causal, int64_t items, int64_t heads) const {
    Deviation worst = {0, 0};
    for (int64_t s = 0; s < kSampledQueries; ++s) {
      const int64_t query = s * (items - 1) / (kSampledQueries - 1), head = s % heads;
      attend::reference::Buffer<double> exact(kFeatures);
      attend::reference::AttentionSpec<double> spec;
      if (causal) spec.causal = attend::reference::Causal::top_left;
      spec.query_offset = query;  // this one query stands at its place among the keys
      attend::reference::naive::attention<double>(columns(q_, query, 1, head), columns(k_, 0, items, head),
                                                  columns(v_, 0, items, head), exact.view, spec);
      for (int64_t d = 0; d < kFeatures; ++d) {
        const double error = std::abs(static_cast<double>(out.view().at(d, query, head)) - exact.view.at(d, 0));
        if (!(error <= worst.error)) worst.error = error;  // NaN must win
        worst.largest_output = std::max(worst.largest_output, std::abs(exact.view.at(d, 0)));
      }
    }
    return worst;
  }

 private:
  static attend::reference::View<double> columns(const Operand<double> &operand, int64_t first, int64_t count,
                                                 int64_t head) {
    attend::reference::View<double> view = operand.view();
    view.data = view.address(0, first, head, 0);
    view.shape = {kFeatures, count, 1, 1};
    return view;
  }

  Operand<double> q_, k_, v_;
};

// -------------------------------------------------------------------------------------------------------- table --

struct Measurement {
  attend_status status;
  int64_t items, heads;
  double seconds, gflops;
  Deviation deviation;
};

double time_once(const AttentionProblem<float> &problem, const Row &row, bool causal, int64_t items, int64_t heads,
                 attend_status *status) {
  const auto start = std::chrono::steady_clock::now();
  const attend_status result = problem.run(row, causal, items, heads);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (result != ATTEND_OK) *status = result;
  return elapsed.count();
}

Measurement measure(const AttentionProblem<float> &problem, const Oracle &oracle, const Row &row, bool causal,
                    Progress &progress) {
  Measurement m = {ATTEND_OK, kItems, kHeads, 0, 0, {0, 0}};
  if (row.path == Path::library) m.status = attend_set_isa(row.name);

  // A small part first: it wakes the threads, and tells how long the whole will take.
  constexpr int64_t kProbeItems = 512;
  double probe = time_once(problem, row, causal, kProbeItems, 1, &m.status);
  probe = std::min(probe, time_once(problem, row, causal, kProbeItems, 1, &m.status));
  const double seconds_per_flop = probe / problem.flops(causal, kProbeItems, 1);
  const auto expected = [&] { return seconds_per_flop * problem.flops(causal, m.items, m.heads); };
  while (expected() > kLongestCall && m.heads > 1) m.heads /= 2;
  while (expected() > kLongestCall && m.items > kProbeItems) m.items /= 2;
  progress.expect(expected());

  m.seconds = 1e30;
  for (double total = 0; total < kRepeatFor && m.status == ATTEND_OK;) {
    const double seconds = time_once(problem, row, causal, m.items, m.heads, &m.status);
    m.seconds = std::min(m.seconds, seconds);
    total += seconds;
  }
  m.gflops = problem.flops(causal, m.items, m.heads) / m.seconds * 1e-9;
  m.deviation = oracle.compare(problem.out, causal, m.items, m.heads);
  return m;
}

void print_machine(const FmaPeak &peak) {
  const uint32_t version = attend_version();
  std::printf("attend %u.%u.%u on %s, %d thread%s, %s; FMA peak of one core: %.1f GFLOP/s (f32, %s)\n\n",
              version / 10000, version / 100 % 100, version % 100, cpu_model().c_str(), attend_threads(),
              attend_threads() == 1 ? "" : "s", attend_isa(), peak.f32, peak.instructions);
}

void print_head() {
  std::printf("Multi-head attention, f32: %d heads, D = %d, N = %d items\n\n", static_cast<int>(kHeads),
              static_cast<int>(kFeatures), static_cast<int>(kItems));
  std::printf("%-16s %7s %6s %6s %10s %9s %7s %9s %9s\n", "path", "threads", "N", "heads", "time", "GFLOP/s", "% peak",
              "speed-up", "error");
}

void print_row(const Row &row, bool causal, const Measurement &m, double peak, double naive_gflops) {
  const std::string name = std::string(row.name) + (causal ? ", causal" : "");
  const bool whole = m.items == kItems && m.heads == kHeads;
  std::printf("%-16s %7d %6d %6d %7.1f ms %9.2f %7.1f %8.1fx %9.1e%s\n", name.c_str(), row.threads,
              static_cast<int>(m.items), static_cast<int>(m.heads), m.seconds * 1e3, m.gflops,
              100 * m.gflops / (peak * row.threads), m.gflops / naive_gflops, m.deviation.error,
              whole ? "" : "  (a part)");
  std::fflush(stdout);
}

}  // namespace

int main() {
  const char *best_isa = attend_isa();  // before any row chooses its own
  const FmaPeak peak = measure_fma_peak();
  print_machine(peak);
  print_head();
  std::fflush(stdout);

  // The slower instruction sets with one thread only: what threads bring, the best one shows.
  struct Step {
    Row row;
    bool causal;
  };
  std::vector<Step> steps = {{{"naive", Path::naive, 1}, false}, {{"blocked", Path::blocked, 1}, false}};
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i) steps.push_back({{isa, Path::library, 1}, false});
  std::reverse(steps.begin() + 2, steps.end());  // from slow to fast
  if (attend_threads() > 1) steps.push_back({{best_isa, Path::library, attend_threads()}, false});
  steps.push_back({{best_isa, Path::library, 1}, true});
  if (attend_threads() > 1) steps.push_back({{best_isa, Path::library, attend_threads()}, true});

  const AttentionProblem<float> problem(kFeatures, kItems, kHeads);
  const Oracle oracle(problem);
  Progress progress(steps.size());
  double naive_gflops = 0, largest_output = 0;
  for (const Step &step : steps) {
    const std::string threads = std::to_string(step.row.threads) + (step.row.threads == 1 ? " thread" : " threads");
    progress.next(std::string(step.row.name) + (step.causal ? ", causal, " : ", ") + threads);
    const Measurement m = measure(problem, oracle, step.row, step.causal, progress);
    progress.clear();
    if (m.status != ATTEND_OK) {
      std::fprintf(stderr, "attend_demo: %s: %s (%s)\n", step.row.name, attend_status_string(m.status),
                   attend_status_argument(m.status));
      return 1;
    }
    if (naive_gflops == 0) naive_gflops = m.gflops;
    if (!step.causal) largest_output = std::max(largest_output, m.deviation.largest_output);
    print_row(step.row, step.causal, m, peak.f32, naive_gflops);
    if (!(m.deviation.error < kTolerance)) {
      std::fprintf(stderr, "attend_demo: %s: the result is wrong\n", step.row.name);
      return 1;
    }
  }

  std::printf(
      "\n"
      "GFLOP/s   4 D flops for every query and every key that it sees\n"
      "%% peak    of the FMA peak of one core times the threads\n"
      "speed-up  over naive, flop for flop\n"
      "error     largest difference from naive in f64, in %d queries spread over heads and positions;\n"
      "          outputs reach %.2g there, in the causal rows those of the first item: its V\n"
      "(a part)  fewer heads or items, so that no row takes longer than about %.0f s\n",
      static_cast<int>(kSampledQueries), largest_output, kLongestCall);
  return 0;
}
