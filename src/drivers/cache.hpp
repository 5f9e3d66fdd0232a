// What is known of the caches of this machine. It may decide how work is cut, never what is computed.
#pragma once

#include <cstdint>

namespace attend {

// Data caches of one core, in bytes.
struct Caches {
  int64_t l1, l2;
};

// Found once; where the system does not say, 32 KiB and 1 MiB.
Caches caches();

}  // namespace attend
