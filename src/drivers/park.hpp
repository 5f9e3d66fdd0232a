// Waiting for a number in memory to change, without using the CPU.
#pragma once

#include <atomic>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <pthread.h>
#endif

namespace attend {

using Word = std::atomic<uint32_t>;

#if defined(__linux__)

static_assert(sizeof(Word) == sizeof(uint32_t), "the kernel compares the number itself");

// Returns once the word may have another value than `seen`, perhaps before.
inline void park(const Word &word, uint32_t seen) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}

// After a change: wakes up to `threads` that are parked on the word.
inline void unpark(const Word &word, int threads) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
}

#else

// One place for all words.
struct Parked {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
};
inline Parked g_parked;

inline void park(const Word &word, uint32_t seen) {
  pthread_mutex_lock(&g_parked.mutex);
  if (word.load() == seen) pthread_cond_wait(&g_parked.changed, &g_parked.mutex);
  pthread_mutex_unlock(&g_parked.mutex);
}

inline void unpark(const Word &, int) {
  pthread_mutex_lock(&g_parked.mutex);
  pthread_cond_broadcast(&g_parked.changed);
  pthread_mutex_unlock(&g_parked.mutex);
}

#endif

}  // namespace attend
