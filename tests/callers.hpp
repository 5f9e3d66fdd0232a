// Results of whole calls for the tests of threads and processes, and the caller's own parallel regions.
#pragma once

#include <dlfcn.h>

#include "operands.hpp"

namespace callers {

using operands::Bytes;
using operands::Layout;

// Large enough for several threads.
const Layout kLarge = {ATTEND_F32, 40, false};

// The outputs' bytes after one call; empty if it failed.
inline Bytes result_of(int function, const Layout &layout, int32_t threads) {
  const auto call = operands::make(function, layout);
  *call->heads[0].threads = threads;
  return call->run() == ATTEND_OK ? call->memory(true) : Bytes();
}

// Of one call of each function; none if one failed.
inline std::vector<Bytes> all_results(int32_t threads) {
  std::vector<Bytes> results;
  for (int f = 0; f < operands::kFunctions; ++f) {
    results.push_back(result_of(f, kLarge, threads));
    if (results.back().empty()) return {};
  }
  return results;
}

inline const std::vector<Bytes> &serial_results() {
  static const std::vector<Bytes> results = all_results(1);
  return results;
}

// The OpenMP runtime that the library brought along, if it was built with it; the tests are compiled without.
inline bool has_openmp() { return dlsym(RTLD_DEFAULT, "omp_in_parallel") != nullptr; }

// Runs body(context) in a parallel region of four threads, as the compiler would for `#pragma omp parallel`.
inline bool in_parallel_region(void (*body)(void *), void *context) {
  using Region = void(void (*)(void *), void *, unsigned, unsigned);
  Region *const region = reinterpret_cast<Region *>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  if (region != nullptr) region(body, context, 4, 0);
  return region != nullptr;
}

}  // namespace callers
