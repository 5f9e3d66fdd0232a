// Jobs that callers share with threads that have nothing to do.
//
// A caller posts its job, works on it itself, takes it back, and waits for those threads alone that have begun: on a busy
// machine a thread may take milliseconds to wake, or may not run at all, and then the caller has done everything. So what
// a thread that comes late can see, the board below, belongs to no call: it is static, and each job on it has a ticket,
// which a thread must win to begin.
#pragma once

#include <atomic>
#include <cstdint>

namespace attend {

// run(argument, share) on the calling thread for share 0 and, where threads come, for some of 1..shares-1, each at most
// once; returns when all that began have ended. Shares do not wait for each other. At most kMostShares.
constexpr int kMostShares = 256;
void run_shares(int shares, void (*run)(void *argument, int32_t share), void *argument);

// What a thread of the pool does: takes shares until `stop` says so, and sleeps where there are none.
void serve(const std::atomic<bool> &stop);

// After `stop`: wakes all threads that sleep in serve.
void wake_all();

}  // namespace attend
