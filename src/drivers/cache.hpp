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

// Whether the core's own prefetchers bring long runs of memory as fast as it gives them, so that asking by instruction is only
// work. Told by the L2: cores of 2 MiB are Intel's. (4096 x 4096 f32 times a vector, rows contiguous: 27 to 28 GB/s asked for,
// 31 to 33 not asked for, of a read loop's 31; on a Zen 4, with 1 MiB, 22 asked for and 19 not.)
inline bool fetches_by_itself() { return caches().l2 >= 2 << 20; }

// Whether vdpbf16ps, of two products a lane, takes no longer than an FMA, as on a Zen 4, told by the L2 too. On Intel's Emerald
// Rapids it takes four times as long, half the products of FMAs: 2048 x 2048 x 512 took 1.7 times as long by it.
inline bool has_fast_pairs() { return caches().l2 < 2 << 20; }

}  // namespace attend
