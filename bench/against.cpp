// attend_bench_against OLD.so NEW.so [option value]...: what became slower between two builds of the library. Both are
// loaded into this process, the old one twice, and called in turns on the same operands, so that whatever the machine
// does falls on all three; the old one beside itself says how much of a difference is the machine's. See
// docs/benchmarks.md. Exit status: 0, 1 = a row missed its mark, 2 = there was nothing to measure.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>
#include <regex>
#include <utility>

#include "against_problems.hpp"
#include "against_rows.hpp"
#include "against_verdict.hpp"

namespace {

using namespace attend::bench::against;

struct Options {
  std::string old_path, new_path, filter, isa, json, old_name;
  int32_t threads = 1;
  int rounds = 30;       // a multiple of six: all orders equally often
  double time = 0.005;   // seconds that one timing takes
  double mark = 0.98;    // the least ratio
  double spread = 0.03;  // the largest
};

Options parse(int argc, char **argv) {
  Options o;
  if (argc < 3 || argc % 2 == 0) {
    throw std::runtime_error(
        "usage: attend_bench_against OLD.so NEW.so [--filter REGEX] [--isa NAME] [--threads N]\n"
        "         [--rounds N] [--time SECONDS] [--mark RATIO] [--spread LIMIT] [--json PATH] [--name OLD]");
  }
  o.old_path = o.old_name = argv[1];
  o.new_path = argv[2];
  for (int i = 3; i < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    // clang-format off
    if (name == "--filter") o.filter = value;
    else if (name == "--isa") o.isa = value;
    else if (name == "--json") o.json = value;
    else if (name == "--name") o.old_name = value;
    else if (name == "--threads") o.threads = std::stoi(value);
    else if (name == "--rounds") o.rounds = std::stoi(value);
    else if (name == "--time") o.time = std::stod(value);
    else if (name == "--mark") o.mark = std::stod(value);
    else if (name == "--spread") o.spread = std::stod(value);
    else throw std::runtime_error("unknown option " + name);
    // clang-format on
  }
  if (o.threads < 1) throw std::runtime_error("--threads: at least 1");
  if (o.rounds < 15) throw std::runtime_error("--rounds: at least 15, for their spread to mean something");
  return o;
}

// The same instruction set for all.
std::string choose_isa(const std::vector<Library> &libraries, const std::string &wanted) {
  for (const Library &library : libraries) {
    const attend_status status = wanted.empty() ? ATTEND_OK : library.set_isa(wanted.c_str());
    if (status != ATTEND_OK) throw std::runtime_error(library.who + ": " + library.reason(status));
    if (std::string(library.isa()) != libraries[0].isa()) {
      throw std::runtime_error(std::string("A uses ") + libraries[0].isa() + ", " + library.who + " " + library.isa() +
                               ": name one that both have by --isa");
    }
  }
  return libraries[0].isa();
}

class Stopwatch {
 public:
  // A call on one thread is measured by the time that this thread had, which other programs take nothing away from.
  explicit Stopwatch(int32_t threads) : clock_(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC) {}

  double time(const Problem &problem, const Library &library, int64_t calls) const {
    const double start = now();
    const attend_status status = problem.repeat(library, calls);
    const double end = now();
    if (status != ATTEND_OK) throw std::runtime_error(library.who + ": " + library.reason(status));
    return end - start;
  }

 private:
  double now() const {
    timespec t;
    clock_gettime(clock_, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }
  clockid_t clock_;
};

int64_t calls_in(double seconds, const Problem &problem, const Library &library, const Stopwatch &watch) {
  for (int64_t calls = 1;; calls *= 2) {
    const double elapsed = watch.time(problem, library, calls);
    if (2 * elapsed <= seconds) continue;
    return std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(calls) * seconds / elapsed));
  }
}

Figures measure(const Problem &problem, const std::vector<Library> &libraries, const Stopwatch &watch, int64_t calls,
                int rounds) {
  // Each comes equally often first, second and third, and after each of the others.
  constexpr size_t kOrders[6][3] = {{0, 1, 2}, {1, 2, 0}, {2, 0, 1}, {0, 2, 1}, {1, 0, 2}, {2, 1, 0}};
  std::vector<Round> timings;
  for (int round = 0; round < rounds; ++round) {
    double seconds[3];
    for (const size_t who : kOrders[round % 6]) seconds[who] = watch.time(problem, libraries[who], calls);
    timings.push_back({seconds[0], seconds[1], seconds[2]});
  }
  Figures figures = figures_of(timings);
  figures.seconds /= static_cast<double>(calls);
  return figures;
}

// Up to three times more if the spread is too large. The measurement of the least spread counts, whatever its ratio: no
// row passes for being asked often.
Figures measure_until_quiet(const Problem &problem, const std::vector<Library> &libraries, const Options &options) {
  const Stopwatch watch(options.threads);
  const int64_t calls = calls_in(options.time, problem, libraries[0], watch);
  Figures best = measure(problem, libraries, watch, calls, options.rounds);
  for (int again = 0; again < 3 && best.spread > options.spread; ++again) {
    const Figures figures = measure(problem, libraries, watch, calls, options.rounds);
    if (figures.spread < best.spread) best = figures;
  }
  return best;
}

struct Refusal {
  const Library *library;
  std::string why;
};

// Calls every library once; the first that cannot do what the row asks for.
std::optional<Refusal> find_refusal(Problem &problem, const std::vector<Library> &libraries) {
  for (const Library &library : libraries) {
    if (const char *function = problem.missing(library)) return Refusal{&library, std::string("has no ") + function};
  }
  for (const Library &library : libraries) problem.prepare(library);
  for (const Library &library : libraries) {
    const attend_status status = problem.repeat(library, 1);
    if (status != ATTEND_OK) return Refusal{&library, library.reason(status)};
  }
  return std::nullopt;
}

const char *text_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::passes:
      return "passes";
    case Verdict::within_spread:
      return "within spread";
    case Verdict::misses:
      return "MISSES";
    case Verdict::not_measured:
      return "not measured";
  }
  return "";
}

void print_list(const std::string &title, const std::vector<std::string> &lines) {
  std::printf("\n%s:%s\n", title.c_str(), lines.empty() ? " none" : "");
  for (const std::string &line : lines) std::printf("  %s\n", line.c_str());
}

struct Summary {
  std::map<Verdict, std::vector<std::string>> rows;
  std::vector<std::string> left_out;
  std::map<std::string, std::vector<double>> log_ratios;  // by group; of what was measured
};

void print_row(const std::string &name, const Figures &f, Verdict verdict) {
  std::printf("%-34s %11.3f %7.3f %7.3f %6.1f %%  %s\n", name.c_str(), 1e6 * f.seconds, f.ratio, f.control,
              100 * f.spread, text_of(verdict));
}

void print_summary(const Summary &summary, const Options &options) {
  const auto rows = [&summary](Verdict verdict) {
    const auto found = summary.rows.find(verdict);
    return found == summary.rows.end() ? std::vector<std::string>() : found->second;
  };
  std::printf("\ngeometric mean of A/now:\n");
  for (const auto &[group, logs] : summary.log_ratios) {
    double sum = 0;
    for (const double log : logs) sum += log;
    const double count = static_cast<double>(logs.size());
    std::printf("  %-32s %.3f of %.0f\n", group.c_str(), std::exp(sum / count), count);
  }
  char mark[64], spread[64];
  std::snprintf(mark, sizeof mark, "below the mark of %g", options.mark);
  std::snprintf(spread, sizeof spread, "not measured, spread over %g %%", 100 * options.spread);
  print_list(std::string(mark) + " by more than their spread", rows(Verdict::misses));
  print_list(std::string(mark) + " by no more than their spread", rows(Verdict::within_spread));
  print_list(spread, rows(Verdict::not_measured));
  if (!summary.left_out.empty()) print_list("left out", summary.left_out);
}

// For the page. Names of rows and reasons have neither quotes nor backslashes.
class Json {
 public:
  explicit Json(const std::string &path) : file_(path.empty() ? nullptr : std::fopen(path.c_str(), "w")) {
    if (!path.empty() && file_ == nullptr) throw std::runtime_error("cannot write " + path);
  }
  ~Json() {
    if (file_ == nullptr) return;
    std::fputs("]}\n", file_);
    std::fclose(file_);
  }
  Json(const Json &) = delete;
  Json &operator=(const Json &) = delete;

  void begin(const Options &o, const std::string &isa) {
    if (file_ == nullptr) return;
    std::fprintf(file_, "{\"old\": \"%s\", \"isa\": \"%s\", \"threads\": %d, \"mark\": %g, \"rows\": [",
                 o.old_name.c_str(), isa.c_str(), o.threads, o.mark);
  }
  void row(const std::string &name, const Figures &f, Verdict verdict) {
    if (file_ == nullptr) return;
    std::fprintf(file_,
                 "%s{\"name\": \"%s\", \"microseconds\": %.6g, \"ratio\": %.6g, \"control\": %.6g, \"spread\": %.6g, "
                 "\"verdict\": \"%s\"}",
                 comma(), name.c_str(), 1e6 * f.seconds, f.ratio, f.control, f.spread, text_of(verdict));
  }
  void refused(const std::string &name, const Refusal &refusal, bool is_now) {
    if (file_ == nullptr) return;
    std::fprintf(file_, "%s{\"name\": \"%s\", \"verdict\": \"%s\", \"why\": \"%s: %s\"}", comma(), name.c_str(),
                 is_now ? "MISSES" : "left out", refusal.library->who.c_str(), refusal.why.c_str());
  }

 private:
  const char *comma() { return std::exchange(is_first_, false) ? "\n" : ",\n"; }
  std::FILE *file_;
  bool is_first_ = true;
};

int run(const Options &options) {
  const std::regex filter(options.filter);
  std::vector<Library> libraries;
  libraries.emplace_back("A", options.old_path);
  libraries.emplace_back("A again", options.old_path);
  libraries.emplace_back("now", options.new_path);
  const std::string isa = choose_isa(libraries, options.isa);
  std::printf("A    %s\nnow  %s\n%s, threads: %d, %d rounds of %g ms\n\n", options.old_path.c_str(),
              options.new_path.c_str(), isa.c_str(), options.threads, options.rounds, 1e3 * options.time);
  std::printf("%-34s %11s %7s %7s %8s  verdict\n", "row", "A, us", "A/now", "A/A", "spread");

  Json json(options.json);
  json.begin(options, isa);
  Summary summary;
  for (const NamedProblem &row : all_problems(options.threads)) {
    if (!std::regex_search(row.name, filter)) continue;
    const std::unique_ptr<Problem> problem = row.make();
    if (const auto refusal = find_refusal(*problem, libraries)) {
      const std::string line = row.name + ": " + refusal->library->who + ": " + refusal->why;
      // An old library may know less. A new one may not.
      const bool is_now = refusal->library == &libraries.back();
      json.refused(row.name, *refusal, is_now);
      (is_now ? summary.rows[Verdict::misses] : summary.left_out).push_back(line);
      continue;
    }
    const Figures figures = measure_until_quiet(*problem, libraries, options);
    const Verdict verdict = verdict_of(figures, options.mark, options.spread);
    summary.rows[verdict].push_back(row.name);
    if (verdict != Verdict::not_measured) {
      summary.log_ratios[row.name.substr(0, row.name.find('/'))].push_back(std::log(figures.ratio));
    }
    print_row(row.name, figures, verdict);
    json.row(row.name, figures, verdict);
    std::fflush(stdout);
  }
  print_summary(summary, options);
  if (summary.rows.empty()) throw std::runtime_error("no row was measured");
  return summary.rows.count(Verdict::misses) != 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char **argv) {
  try {
    return run(parse(argc, argv));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
