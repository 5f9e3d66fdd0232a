// How a thread computes: rounding, flushing of denormal numbers, traps, and the exceptions it has seen (MXCSR; FPCR and
// FPSR). Tasks have their caller's, whatever the thread that runs them was left with.
#pragma once

#include <cstdint>

namespace attend {

struct FloatEnvironment {
  uint64_t control;
};

inline FloatEnvironment float_environment() {
#if defined(__SSE__)
  return {__builtin_ia32_stmxcsr()};
#elif defined(__aarch64__)
  uint64_t control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return {control};
#else
  return {0};
#endif
}

inline void set_float_environment(const FloatEnvironment &environment) {
#if defined(__SSE__)
  __builtin_ia32_ldmxcsr(static_cast<unsigned>(environment.control));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" ::"r"(environment.control));
#else
  static_cast<void>(environment);
#endif
}

}  // namespace attend
