#include "drivers/cache.hpp"

#include <unistd.h>

namespace attend {
namespace {

#if defined(_SC_LEVEL1_DCACHE_SIZE)
int64_t level1() { return sysconf(_SC_LEVEL1_DCACHE_SIZE); }
int64_t level2() { return sysconf(_SC_LEVEL2_CACHE_SIZE); }
#else
int64_t level1() { return 0; }
int64_t level2() { return 0; }
#endif

// The system asks the CPU each time, which takes microseconds, in a virtual machine tens of them.
int64_t found_once(std::atomic<int64_t> *known, int64_t (*find)(), int64_t otherwise) {
  int64_t bytes = known->load(std::memory_order_relaxed);
  if (bytes == 0) {
    bytes = find();
    if (bytes <= 0) bytes = otherwise;
    known->store(bytes, std::memory_order_relaxed);
  }
  return bytes;
}

}  // namespace

std::atomic<int64_t> g_l1{0}, g_l2{0};

Caches caches() { return {found_once(&g_l1, level1, 32 << 10), found_once(&g_l2, level2, 1 << 20)}; }

}  // namespace attend
