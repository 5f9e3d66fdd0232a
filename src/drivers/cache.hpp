// What is known of the caches of this machine. It may decide how work is cut, never what is computed.
#pragma once

#include <atomic>
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
extern std::atomic<int64_t> g_l1, g_l2;

// Whether the core is one with an L1 of 48 KiB, as Intel's from Ice Lake on and a Zen 5: it has 12 ways, so that lines stay
// where rows share its sets, and pipes of 512 bits, to which half a vector is as much work as a whole one. (Products of 1 to 64
// rows, columns and depth on Emerald Rapids: with half vectors for the last rows 0.92 of the speed, 33 x 42 x 36 0.66; a Zen 4
// does half the work for them.) Small products ask each time: found with the kernels, before which it is false.
inline bool is_wide_core() { return g_l1.load(std::memory_order_relaxed) >= 48 << 10; }

// Whether the core's own prefetchers bring long runs of memory as fast as it gives them, so that asking by instruction is only
// work. Told by the L2: cores of 2 MiB are Intel's. (4096 x 4096 f32 times a vector, rows contiguous: 27 to 28 GB/s asked for,
// 31 to 33 not asked for, of a read loop's 31; on a Zen 4, with 1 MiB, 22 asked for and 19 not.)
inline bool fetches_by_itself() { return caches().l2 >= 2 << 20; }

// Whether what falls out of the L2 is far away, as on Intel's mesh (some 70 ns; told by the L2 again, not measured elsewhere):
// attention then has wide blocks (attention_plan.cpp, with figures).
constexpr bool has_far_l3(const Caches &caches) { return caches.l2 >= 2 << 20; }

// Whether vdpbf16ps, of two products a lane, takes no longer than an FMA, as on a Zen 4, told by the L2 too. On Intel's Emerald
// Rapids it takes four times as long, half the products of FMAs: 2048 x 2048 x 512 took 1.7 times as long by it.
inline bool has_fast_pairs() { return caches().l2 < 2 << 20; }

}  // namespace attend
