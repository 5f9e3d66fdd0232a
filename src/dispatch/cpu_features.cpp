#include "dispatch/cpu_features.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace attend {
namespace {

constexpr bool bit(uint32_t word, int position) { return ((word >> position) & 1u) != 0; }

}  // namespace

// Bit positions: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
uint64_t interpret(const CpuId &id) {
  uint64_t features = 0;
  if (id.max_leaf < 1) return features;
  if (bit(id.leaf1_ecx, 20) && bit(id.leaf1_ecx, 23)) features |= kSse42;
  // A CPU may have AVX while the system does not save its registers: then the first context switch destroys them.
  const bool saves_ymm = bit(id.leaf1_ecx, 27) && (id.xcr0 & 0x6) == 0x6;
  const bool saves_zmm = saves_ymm && (id.xcr0 & 0xe6) == 0xe6;
  if (!saves_ymm || !bit(id.leaf1_ecx, 28)) return features;
  if (bit(id.leaf1_ecx, 12)) features |= kFma;
  if (bit(id.leaf1_ecx, 29)) features |= kF16c;
  if (id.max_leaf < 7) return features;
  if (bit(id.leaf7_ebx, 5)) features |= kAvx2;
  if (!saves_zmm) return features;
  if (bit(id.leaf7_ebx, 16)) features |= kAvx512F;
  if (bit(id.leaf7_ebx, 17)) features |= kAvx512Dq;
  if (bit(id.leaf7_ebx, 30)) features |= kAvx512Bw;
  if (bit(id.leaf7_ebx, 31)) features |= kAvx512Vl;
  if (bit(id.leaf7_ecx, 11)) features |= kAvx512Vnni;
  if (bit(id.leaf7_1_eax, 5)) features |= kAvx512Bf16;
  return features;
}

#if defined(__x86_64__)

uint64_t cpu_features() {
  CpuId id = {};
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  id.max_leaf = static_cast<uint32_t>(__get_cpuid_max(0, nullptr));
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0) id.leaf1_ecx = ecx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0) {
    id.leaf7_ebx = ebx;
    id.leaf7_ecx = ecx;
    if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) id.leaf7_1_eax = eax;
  }
  if (bit(id.leaf1_ecx, 27)) {
    // xgetbv by hand: the intrinsic wants -mxsave, and this file is baseline.
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    id.xcr0 = (static_cast<uint64_t>(high) << 32) | low;
  }
  return interpret(id);
}

#elif defined(__aarch64__)

uint64_t cpu_features() { return kFma; }

#else

uint64_t cpu_features() { return 0; }

#endif

}  // namespace attend
