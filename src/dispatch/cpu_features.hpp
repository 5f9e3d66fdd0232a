// What this CPU and its operating system offer.
#pragma once

#include <cstdint>

#include "kernels/table.hpp"

namespace attend {

// The raw answers of the CPU, apart from their interpretation so that tests can feed recorded ones.
struct CpuId {
  uint32_t max_leaf;
  uint32_t leaf1_ecx;
  uint32_t leaf7_ebx;
  uint32_t leaf7_ecx;
  uint32_t leaf7_1_eax;  // of subleaf 1; 0 where there is none
  uint64_t xcr0;         // 0 unless OSXSAVE
};

// CpuFeature bits that both the CPU and the operating system (XCR0: it saves those registers) offer.
uint64_t interpret(const CpuId &id);

// Those of this machine; 0 where there is nothing to detect.
uint64_t cpu_features();

}  // namespace attend
