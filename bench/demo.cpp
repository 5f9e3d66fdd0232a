// attend_demo: what the library is worth at a real size. One table of multi-head attention: the formulas as they stand,
// careful scalar C++, the library on one thread and on all, its other instruction sets.
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
#include "other_work.hpp"
#include "problems.hpp"

namespace {

using namespace attend::bench;

constexpr int64_t kFeatures = 64, kItems = 2048, kHeads = 8;

// Every row is time per head, so that a slow path may compute fewer heads: as many as fit into this, one at least.
constexpr double kLongestCall = 2;
// Calls are repeated for so long, three times at least unless one takes longer than that; the median counts.
constexpr double kRepeatFor = 1;
// Quartiles further apart than this part of the median are marked, as in the report.
constexpr double kNoisy = 0.10;
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
  attend_status status = ATTEND_OK;
  int64_t heads = kHeads;
  double seconds = 0, spread = 0;  // the median, and how far apart the quartiles lie as a part of it
  Deviation deviation = {0, 0};

  // Milliseconds of one head as they are printed: what stands on the screen divides to the factors beside it.
  double milliseconds() const {
    const double exact = 1e3 * seconds / static_cast<double>(heads);
    const double digit = std::pow(10, std::floor(std::log10(exact)) - 3);
    return std::round(exact / digit) * digit;
  }
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
  Measurement m;
  if (row.path == Path::library) m.status = attend_set_isa(row.name);

  // A small part first: it wakes the threads, and tells how long the whole will take.
  constexpr int64_t kProbeItems = 512;
  double probe = time_once(problem, row, causal, kProbeItems, 1, &m.status);
  probe = std::min(probe, time_once(problem, row, causal, kProbeItems, 1, &m.status));
  const double of_a_head = probe * problem.flops(causal, kItems, 1) / problem.flops(causal, kProbeItems, 1);
  while (of_a_head * static_cast<double>(m.heads) > kLongestCall && m.heads > 1) m.heads /= 2;
  progress.expect(of_a_head * static_cast<double>(m.heads));

  std::vector<double> times;
  for (double total = 0; (total < kRepeatFor || times.size() < 3) && total < 4 * kRepeatFor && m.status == ATTEND_OK;) {
    times.push_back(time_once(problem, row, causal, kItems, m.heads, &m.status));
    total += times.back();
  }
  if (m.status != ATTEND_OK) return m;
  std::sort(times.begin(), times.end());
  m.seconds = times[times.size() / 2];
  m.spread = (times[times.size() * 3 / 4] - times[times.size() / 4]) / m.seconds;
  m.deviation = oracle.compare(problem.out, causal, kItems, m.heads);
  return m;
}

void print_machine(const FmaPeak &peak) {
  const uint32_t version = attend_version();
  std::printf("attend %u.%u.%u on %s, %d thread%s, %s; FMA peak of one core: %.1f GFLOP/s (f32, %s)\n\n",
              version / 10000, version / 100 % 100, version % 100, cpu_model().c_str(), attend_threads(),
              attend_threads() == 1 ? "" : "s", attend_isa(), peak.f32, peak.instructions);
}

void print_head() {
  std::printf("Multi-head attention, f32: D = %d, N = %d items; time of one head\n\n", static_cast<int>(kFeatures),
              static_cast<int>(kItems));
  std::printf("%-16s %7s %5s %11s %8s %8s %9s %6s %8s\n", "path", "threads", "heads", "ms a head", "x naive", "x block",
              "GFLOP/s", "% peak", "error");
}

std::string name_of(const Row &row, bool causal) { return std::string(row.name) + (causal ? ", causal" : ""); }

void print_row(const Row &row, bool causal, const Measurement &m, double gflops, double peak, double naive,
               double blocked) {
  const double milliseconds = m.milliseconds();
  // Four digits, as milliseconds() has.
  const int places = std::max(0, 3 - static_cast<int>(std::floor(std::log10(milliseconds))));
  std::printf("%-16s %7d %5d %10.*f%c", name_of(row, causal).c_str(), row.threads, static_cast<int>(m.heads), places,
              milliseconds, m.spread > kNoisy ? '~' : ' ');
  std::printf(" %8.1f", naive / milliseconds);
  if (blocked > 0) {
    std::printf(" %8.1f", blocked / milliseconds);
  } else {
    std::printf(" %8s", "");
  }
  std::printf(" %9.1f %6.1f %8.1e\n", gflops, 100 * gflops / (peak * row.threads), m.deviation.error);
  std::fflush(stdout);
}

struct Step {
  Row row;
  bool causal;
};

std::vector<Step> all_steps(const char *best_isa) {
  std::vector<Step> steps = {{{"naive", Path::naive, 1}, false}, {{"blocked", Path::blocked, 1}, false}};
  for (const bool causal : {false, true}) {
    steps.push_back({{best_isa, Path::library, 1}, causal});
    if (attend_threads() > 1) steps.push_back({{best_isa, Path::library, attend_threads()}, causal});
  }
  // The slower instruction sets with one thread only: what threads bring, the best one shows.
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i) {
    if (std::string(isa) != best_isa) steps.push_back({{isa, Path::library, 1}, false});
  }
  return steps;
}

void print_legend(double largest_output, double busiest) {
  std::printf(
      "\n"
      "ms a head  median of repeated calls over the heads that they computed%s\n"
      "x naive    times as fast as the formulas in plain loops; x block: as careful scalar C++; causal\n"
      "           rows, which have half the work to do, beside the same\n"
      "GFLOP/s    4 D flops for every query and every key that it sees; %% peak: of the FMA peak of one core times "
      "the threads\n"
      "error      largest difference from naive in f64, in %d queries spread over heads and positions; outputs reach "
      "%.2g\n",
      "; ~ = their quartiles lie more than 10 % apart", static_cast<int>(kSampledQueries), largest_output);
  if (busiest > OtherWork::kBusy) {
    std::printf("\nThis machine was busy: up to %.1f CPUs did other work. On a quiet one the figures are better.\n",
                busiest);
  }
}

}  // namespace

int main() {
  const char *best_isa = attend_isa();  // before any row chooses its own
  const FmaPeak peak = measure_fma_peak();
  print_machine(peak);
  double busiest = OtherWork::sample();
  if (busiest > OtherWork::kBusy) std::printf("Other work runs on this machine: %.1f CPUs' worth.\n\n", busiest);
  print_head();
  std::fflush(stdout);

  const std::vector<Step> steps = all_steps(best_isa);
  const AttentionProblem<float> problem(kFeatures, kItems, kHeads);
  const Oracle oracle(problem);
  Progress progress(steps.size());
  double naive = 0, blocked = 0, largest_output = 0;
  for (const Step &step : steps) {
    const std::string threads = std::to_string(step.row.threads) + (step.row.threads == 1 ? " thread" : " threads");
    progress.next(name_of(step.row, step.causal) + ", " + threads);
    const double before = step.row.threads > 1 ? OtherWork::sample() : 0;
    const OtherWork meanwhile;
    const bool is_busy = before > OtherWork::kBusy;
    const Measurement m = is_busy ? Measurement() : measure(problem, oracle, step.row, step.causal, progress);
    progress.clear();
    const double others = std::max(before, meanwhile.cpus());
    busiest = std::max(busiest, others);
    if (m.status != ATTEND_OK) {
      std::fprintf(stderr, "attend_demo: %s: %s (%s)\n", step.row.name, attend_status_string(m.status),
                   attend_status_argument(m.status));
      return 1;
    }
    if (!(m.deviation.error < kTolerance)) {
      std::fprintf(stderr, "attend_demo: %s: the result is wrong\n", step.row.name);
      return 1;
    }
    if (step.row.threads > 1 && others > OtherWork::kBusy) {
      std::printf("%-16s %7d  not measured: machine busy\n", name_of(step.row, step.causal).c_str(), step.row.threads);
      std::fflush(stdout);
      continue;
    }
    if (step.row.path == Path::naive) naive = m.milliseconds();
    if (!step.causal) largest_output = std::max(largest_output, m.deviation.largest_output);
    const double gflops = problem.flops(step.causal, kItems, 1) / m.milliseconds() * 1e-6;
    print_row(step.row, step.causal, m, gflops, peak.f32, naive, blocked);
    if (step.row.path == Path::blocked) blocked = m.milliseconds();
  }
  print_legend(largest_output, busiest);
  return 0;
}
