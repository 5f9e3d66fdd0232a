// What the system says about threads. OpenMP runtimes look at the affinity mask but not at the CPU quota of a
// container, and then run many threads on few CPUs' worth of time.
#pragma once

namespace attend {

// CPUs that the quota of this process's control group (v2 cpu.max, v1 cpu.cfs_quota_us) pays for, rounded up; 0 = no
// limit. `root` stands before every path read; tests give one of their own.
int quota_cpus(const char *root);

// min(runtime, quota), at least 1. What the calling thread is pinned to does not count: an OpenMP runtime has looked at
// the affinity of the process when it was loaded, and may itself have pinned this thread since.
int default_threads(int runtime);

// Gives the calling thread the CPUs of the process's first thread beside its own: it was started by a thread that may be
// pinned.
void use_affinity_of_process();

// Whether this process was made by fork() and has not called exec since. False where the system does not say.
bool is_forked(const char *root);

}  // namespace attend
