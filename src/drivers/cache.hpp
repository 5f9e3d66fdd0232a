// What is known of the caches of this machine. It may decide how work is cut, never what is computed.
#pragma once

#include <cstdint>

namespace attend {

// Data caches of one core, in bytes.
struct Caches {
  int64_t l1, l2;
};

// What the sizes of workspaces count with, since they must not depend on the machine: the L2 of one usual core, and what
// is likely to be found in a last level by whoever reads it next.
constexpr int64_t kUsualL2 = 1 << 20, kUsualL3Share = 8 << 20;

// Found once; where the system does not say, 32 KiB and 1 MiB.
Caches caches();

}  // namespace attend
