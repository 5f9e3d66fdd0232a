// What this machine can do at best, measured in this process: the 100 % of the tables.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_MACHINE_PEAK_HPP
#define ATTEND_BENCH_MACHINE_PEAK_HPP

#include <cstddef>
#include <string>

namespace attend::bench {

// GFLOP/s of one core on independent multiply-adds in registers; one multiply-add counts as two.
struct FmaPeak {
  double f32, f64;
  const char *instructions;  // what it was measured with: "avx512f", "avx2+fma", "mul+add"
};

// The best of many short runs, since a run can only be disturbed, never be too fast. About 0.2 s.
FmaPeak measure_fma_peak();

// GB/s of one core on buffers far larger than a cache. A copy counts the bytes read and the bytes written.
struct MemoryBandwidth {
  double copy, read;
};

// About 0.4 s and 256 MiB for as long. Zeros if there is not so much memory.
MemoryBandwidth measure_memory_bandwidth();

// Sums memory, aligned to 64 bytes and a multiple of them, in a plain loop: what reading it once costs.
double read_all(const void *memory, std::size_t bytes);

// As the system calls it, or "unknown CPU".
std::string cpu_model();

}  // namespace attend::bench

#endif  // ATTEND_BENCH_MACHINE_PEAK_HPP
