// What the benchmark programs share of Google Benchmark: facts about the machine, timing, names.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_GOOGLE_BENCHMARK_HPP
#define ATTEND_BENCH_GOOGLE_BENCHMARK_HPP

#include <attend/attend.h>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "eigen.hpp"
#include "machine_peak.hpp"
#include "onednn.hpp"
#include "problems.hpp"

namespace attend::bench {

template <class T>
constexpr const char *kTypeName = std::is_same_v<T, float> ? "f32" : "f64";

template <class T>
double peak_of(const FmaPeak &peak) {
  return std::is_same_v<T, float> ? peak.f32 : peak.f64;
}

// Keeps the problem that was asked for last. Google Benchmark calls a function several times until it has found its
// number of iterations, and all rows of a shape come one after the other: their inputs are made once, and no two
// shapes are in memory together.
template <class Problem, class... Arguments>
const Problem &problem_for(const Arguments &...arguments) {
  static std::tuple<Arguments...> last;
  static std::unique_ptr<Problem> problem;
  const std::tuple<Arguments...> wanted(arguments...);
  if (!problem || last != wanted) {
    problem.reset();
    problem = std::make_unique<Problem>(arguments...);
    last = wanted;
  }
  return *problem;
}

// Runs the benchmark's loop around `call` and returns the seconds of one call, or 0 after a failure. The counters are
// computed from it: those that Google Benchmark divides by the time itself are all printed as something "/s".
template <class Call>
double time_calls(benchmark::State &state, const Row &row, Call &&call) {
  attend_status status = row.path == Path::library ? attend_set_isa(row.name) : ATTEND_OK;
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    const attend_status result = call();
    benchmark::ClobberMemory();
    if (result != ATTEND_OK) status = result;
  }
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (status != ATTEND_OK) {
    state.SkipWithError(attend_status_string(status));
    return 0;
  }
  return elapsed.count() / static_cast<double>(state.iterations());
}

// `peak` is that of one core.
inline void count_flops(benchmark::State &state, const Row &row, double flops, double seconds, double peak) {
  if (seconds <= 0) return;
  const double gflops = flops / seconds * 1e-9;
  state.counters["GFLOP/s"] = gflops;
  state.counters["%peak"] = 100 * gflops / (peak * row.threads);
}

// Bytes that must be read or written at least once: with the flops a point of the roofline.
inline void count_bytes(benchmark::State &state, double bytes, double seconds) {
  if (seconds > 0) state.counters["GB/s"] = bytes / seconds * 1e-9;
}

// The largest difference between ours and a peer's result: rows of peers are checked before they are timed.
template <class T>
bool agrees(benchmark::State &state, const std::vector<T> &ours, const T *theirs, double tolerance) {
  double error = 0;
  for (size_t i = 0; i < ours.size(); ++i) error = std::max(error, std::fabs(static_cast<double>(ours[i] - theirs[i])));
  if (error <= tolerance) return true;
  state.SkipWithError("its result differs from ours");
  return false;
}

// "matmul/f32/512" and the row make "matmul/f32/512/avx512/threads:1".
template <class Function>
void register_row(const std::string &name, const Row &row, Function &&function) {
  const std::string who = row.name == nullptr ? attend_isa_name(0) : row.name;
  const std::string full_name = name + "/" + who + "/threads:" + std::to_string(row.threads);
  benchmark::RegisterBenchmark(full_name.c_str(), std::forward<Function>(function))->UseRealTime();
}

inline std::string with_unit(double value, const char *unit) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.1f %s", value, unit);
  return text;
}

// What the report says of another library; nothing of one that is not there.
inline void describe_peer(const std::string &name, const std::string &version, const std::string &kernels,
                          const std::string &left_out) {
  if (!left_out.empty()) return benchmark::AddCustomContext("left out: " + name, left_out);
  if (version.empty()) return;
  benchmark::AddCustomContext("peer: " + name, version + (kernels.empty() ? "" : "; kernels: " + kernels));
}

inline FmaPeak describe_machine() {
  const FmaPeak peak = measure_fma_peak();
  const MemoryBandwidth memory = measure_memory_bandwidth();
  std::string instruction_sets;
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i)
    instruction_sets += (i == 0 ? "" : " ") + std::string(isa);
  benchmark::AddCustomContext("CPU", cpu_model());
  benchmark::AddCustomContext("attend's threads", std::to_string(attend_threads()));
  benchmark::AddCustomContext("attend's instruction sets", instruction_sets);
  const uint32_t version = attend_version();
  benchmark::AddCustomContext("attend", std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
                                            "." + std::to_string(version % 100));
  describe_peer("onednn, softmax and attention", onednn::version(), onednn::kernels(), onednn::left_out());
  describe_peer("eigen", eigen::version(), "compiled for this CPU", "");
  benchmark::AddCustomContext("FMA peak of one core, f32", with_unit(peak.f32, "GFLOP/s with ") + peak.instructions);
  benchmark::AddCustomContext("FMA peak of one core, f64", with_unit(peak.f64, "GFLOP/s with ") + peak.instructions);
  benchmark::AddCustomContext("memcpy on one core", with_unit(memory.copy, "GB/s, read plus written"));
  benchmark::AddCustomContext("read on one core", with_unit(memory.read, "GB/s"));
  return peak;
}

// The body of main(). `register_all(peak)` registers what there is.
template <class Register>
int run_benchmarks(int argc, char **argv, Register &&register_all) {
  // Defaults that the command line overrides, being read after them: there are many rows, and a tenth of a second is
  // thousands of calls for most of them.
  std::string defaults[] = {"--benchmark_min_time=0.1", "--benchmark_counters_tabular=true"};
  std::vector<char *> arguments = {argv[0]};
  for (std::string &argument : defaults) arguments.push_back(argument.data());
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 1;
  register_all(describe_machine());
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace attend::bench

#endif  // ATTEND_BENCH_GOOGLE_BENCHMARK_HPP
