// SPDX-License-Identifier: BSD-3-Clause
#include "machine_peak.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>

#if defined(__x86_64__) || defined(__i386__)
#define ATTEND_BENCH_X86 1
#include <immintrin.h>
#endif

namespace attend::bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The fastest of the calls that fit into `budget` seconds, three at least.
template <class Call>
double best_seconds(double budget, Call &&call) {
  const Clock::time_point begin = Clock::now();
  double best = 1e30;
  for (int i = 0; i < 3 || seconds_since(begin) < budget; ++i) {
    const Clock::time_point start = Clock::now();
    call();
    best = std::min(best, seconds_since(start));
  }
  return best;
}

// ---------------------------------------------------------------------------------------------------- FMA peak --

// Independent chains: latency times throughput is 8 to 10 on the CPUs of the last decade; 12 and the two constants
// still fit into 16 registers.
constexpr int kChains = 12;

// One run takes about half a millisecond: long enough for the clock, short enough to be left alone by other processes.
constexpr int64_t kRounds = 150000;

// What the compiler knows nothing about: it can neither compute results in advance nor do without them. (clang 19 does,
// if it may.)
volatile double source = 1, sink;

// x -> 0.75 x + 0.25 goes to 1: neither overflow nor denormals.
//
// A macro, since templates cannot choose their target attribute, and intrinsics, since whether a * b + c is fused
// depends on flags that this file does not own. The attribute stands in for -m flags: only the functions below are
// compiled for the wider CPU, so the program starts on any.
#define ATTEND_BENCH_FMA_RUN(NAME, ATTRIBUTE, VECTOR, ELEMENT, FMA)                                            \
  ATTRIBUTE double NAME(ELEMENT start) {                                                                       \
    VECTOR chain[kChains];                                                                                     \
    const VECTOR factor = VECTOR{} + ELEMENT(0.75);                                                            \
    const VECTOR addend = VECTOR{} + ELEMENT(0.25);                                                            \
    _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) { chain[i] = VECTOR{} + (start + ELEMENT(i)); } \
    for (int64_t round = 0; round < kRounds; ++round) {                                                        \
      _Pragma("GCC unroll 12") for (int i = 0; i < kChains; ++i) { chain[i] = FMA(chain[i], factor, addend); } \
    }                                                                                                          \
    VECTOR sum = chain[0];                                                                                     \
    _Pragma("GCC unroll 12") for (int i = 1; i < kChains; ++i) sum += chain[i];                                \
    double total = 0; /* of every lane: none may be left out */                                                \
    for (std::size_t i = 0; i < sizeof(VECTOR) / sizeof(ELEMENT); ++i) total += static_cast<double>(sum[i]);   \
    return total;                                                                                              \
  }

// 16 bytes are the vectors of every baseline that matters (SSE2, NEON, VSX); elsewhere the compiler splits them.
#define ATTEND_BENCH_MULTIPLY_ADD(A, B, C) (A) * (B) + (C)
typedef float Float4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));
ATTEND_BENCH_FMA_RUN(run_portable_f32, , Float4, float, ATTEND_BENCH_MULTIPLY_ADD)
ATTEND_BENCH_FMA_RUN(run_portable_f64, , Double2, double, ATTEND_BENCH_MULTIPLY_ADD)

#ifdef ATTEND_BENCH_X86
#define ATTEND_BENCH_TARGET(NAME) __attribute__((target(NAME)))
ATTEND_BENCH_FMA_RUN(run_avx2_f32, ATTEND_BENCH_TARGET("avx2,fma"), __m256, float, _mm256_fmadd_ps)
ATTEND_BENCH_FMA_RUN(run_avx2_f64, ATTEND_BENCH_TARGET("avx2,fma"), __m256d, double, _mm256_fmadd_pd)
ATTEND_BENCH_FMA_RUN(run_avx512_f32, ATTEND_BENCH_TARGET("avx512f"), __m512, float, _mm512_fmadd_ps)
ATTEND_BENCH_FMA_RUN(run_avx512_f64, ATTEND_BENCH_TARGET("avx512f"), __m512d, double, _mm512_fmadd_pd)
#endif

template <class T>
double gflops_of(double (*run)(T), int vector_bytes) {
  constexpr double kBudget = 0.1;
  const double flops = 2.0 * kChains * static_cast<double>(kRounds) * vector_bytes / sizeof(T);
  const double seconds = best_seconds(kBudget, [run] { sink = run(static_cast<T>(source)); });
  return flops / seconds * 1e-9;
}

// --------------------------------------------------------------------------------------------- memory bandwidth --

constexpr std::size_t kBufferBytes = std::size_t{128} << 20;

// 16 bytes at a time, as in the portable loop above: g++ 12 takes wider vectors apart into scalars where the target has
// none. One core waits for memory long before it runs out of load instructions.
typedef uint64_t Pair __attribute__((vector_size(16)));
constexpr std::size_t kPairs = kBufferBytes / sizeof(Pair);
constexpr std::align_val_t kAlignment{64};

struct FreePairs {
  void operator()(Pair *pairs) const { ::operator delete(pairs, kAlignment); }
};
using Pairs = std::unique_ptr<Pair[], FreePairs>;

Pairs allocate_buffer() { return Pairs(static_cast<Pair *>(::operator new(kBufferBytes, kAlignment, std::nothrow))); }

}  // namespace

double read_all(const void *memory, std::size_t bytes) {
  const Pair *pairs = static_cast<const Pair *>(memory);
  Pair sum[4] = {};
  for (std::size_t i = 0; i < bytes / sizeof(Pair); i += 4) {
    sum[0] += pairs[i];
    sum[1] += pairs[i + 1];
    sum[2] += pairs[i + 2];
    sum[3] += pairs[i + 3];
  }
  sum[0] += sum[1] + sum[2] + sum[3];
  return static_cast<double>(sum[0][0] ^ sum[0][1]);
}

FmaPeak measure_fma_peak() {
#ifdef ATTEND_BENCH_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f")) {
    return {gflops_of(run_avx512_f32, 64), gflops_of(run_avx512_f64, 64), "avx512f"};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {gflops_of(run_avx2_f32, 32), gflops_of(run_avx2_f64, 32), "avx2+fma"};
  }
#endif
  return {gflops_of(run_portable_f32, 16), gflops_of(run_portable_f64, 16), "mul+add"};
}

MemoryBandwidth measure_memory_bandwidth() {
  constexpr double kBudget = 0.12;
  const Pairs from = allocate_buffer(), to = allocate_buffer();
  if (!from || !to) return {0, 0};
  // Written before it is measured: untouched pages are all the same page of zeros.
  std::memset(static_cast<void *>(from.get()), 1, kBufferBytes);
  std::memset(static_cast<void *>(to.get()), 2, kBufferBytes);
  const double copy = best_seconds(kBudget, [&] {
    std::memcpy(static_cast<void *>(to.get()), from.get(), kBufferBytes);
    sink = static_cast<double>(to[kPairs - 1][0]);
  });
  const double read = best_seconds(kBudget, [&] { sink = read_all(from.get(), kBufferBytes); });
  const double gigabytes = static_cast<double>(kBufferBytes) * 1e-9;
  return {2 * gigabytes / copy, gigabytes / read};
}

std::string cpu_model() {
  // x86 has "model name : ..."; some ARM systems have "Model : ..." for the board, others nothing.
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) != 0 && line.rfind("Model", 0) != 0) continue;
    const std::size_t value = line.find_first_not_of(" \t", line.find(':') + 1);
    if (line.find(':') != std::string::npos && value != std::string::npos) return line.substr(value);
  }
  return "unknown CPU";
}

}  // namespace attend::bench
