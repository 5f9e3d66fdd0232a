#include "drivers/thread_limits.hpp"

#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace attend {
namespace {

constexpr int kPath = 1024;

// The first line of root + middle + leaf into `line`; false if it cannot be read.
bool read_line(const char *root, const char *middle, const char *leaf, char (&line)[kPath]) {
  char path[kPath];
  const int length = std::snprintf(path, sizeof path, "%s%s%s", root, middle, leaf);
  if (length < 0 || length >= kPath) return false;
  std::FILE *file = std::fopen(path, "re");
  if (file == nullptr) return false;
  const bool read = std::fgets(line, kPath, file) != nullptr;
  std::fclose(file);
  return read;
}

int round_up(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return 0;
  const long long cpus = (quota + period - 1) / period;
  return cpus < 1 << 20 ? static_cast<int>(cpus) : 0;
}

int smallest(int a, int b) { return a == 0 || (b != 0 && b < a) ? b : a; }

// The quota set in one directory below the mount point.
int quota_of(const char *root, const char *mount, const char *group, bool version2) {
  char directory[kPath], line[kPath];
  const int length = std::snprintf(directory, sizeof directory, "%s%s", mount, group);
  if (length < 0 || length >= kPath) return 0;
  long long quota = 0, period = 0;
  if (version2) {
    if (!read_line(root, directory, "/cpu.max", line)) return 0;
    return std::sscanf(line, "%lld %lld", &quota, &period) == 2 ? round_up(quota, period)
                                                                : 0;  // "max 100000": no limit
  }
  if (!read_line(root, directory, "/cpu.cfs_quota_us", line) || std::sscanf(line, "%lld", &quota) != 1) return 0;
  if (!read_line(root, directory, "/cpu.cfs_period_us", line) || std::sscanf(line, "%lld", &period) != 1) return 0;
  return round_up(quota, period);
}

// The limit of a group is the least of its own and its ancestors'. In a container the path may not exist below the
// mount point; the mount point itself ("") is then the group.
int quota_of_group(const char *root, const char *mount, char *group, bool version2) {
  int least = quota_of(root, mount, "", version2);
  while (group[0] != '\0') {
    least = smallest(least, quota_of(root, mount, group, version2));
    *std::strrchr(group, '/') = '\0';
  }
  return least;
}

}  // namespace

int quota_cpus(const char *root) {
  char path[kPath];
  const int length = std::snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  if (length < 0 || length >= kPath) return 0;
  int least = smallest(quota_of(root, "/sys/fs/cgroup", "", true), quota_of(root, "/sys/fs/cgroup/cpu", "", false));
  std::FILE *file = std::fopen(path, "re");
  if (file == nullptr) return least;
  // Lines "0::/group" (version 2) and "4:cpu,cpuacct:/group" (version 1).
  char line[kPath];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    line[std::strcspn(line, "\n")] = '\0';
    char *controllers = std::strchr(line, ':');
    if (controllers == nullptr) continue;
    char *group = std::strchr(++controllers, ':');
    if (group == nullptr) continue;
    *group++ = '\0';
    if (group[0] != '/') continue;
    if (controllers[0] == '\0') {
      least = smallest(least, quota_of_group(root, "/sys/fs/cgroup", group, true));
    } else if (std::strstr(controllers, "cpu") != nullptr && std::strstr(controllers, "cpuset") == nullptr) {
      least = smallest(least, quota_of_group(root, "/sys/fs/cgroup/cpu", group, false));
    }
  }
  std::fclose(file);
  return least;
}

int default_threads(int runtime) {
  const int threads = smallest(runtime, quota_cpus(""));
  return threads < 1 ? 1 : threads;
}

void use_affinity_of_process() {
#if defined(__linux__)
  cpu_set_t process, own;
  if (sched_getaffinity(getpid(), sizeof process, &process) != 0 || sched_getaffinity(0, sizeof own, &own) != 0) return;
  CPU_OR(&process, &process, &own);
  sched_setaffinity(0, sizeof process, &process);
#endif
}

bool is_forked(const char *root) {
  // Behind the command in parentheses, which may hold anything: state, five numbers, and the kernel's PF_... flags.
  constexpr unsigned long kForkNoExec = 0x40;
  char line[kPath];
  unsigned long flags = 0;
  if (!read_line(root, "/proc/self", "/stat", line)) return false;
  const char *command = std::strrchr(line, ')');
  return command != nullptr && std::sscanf(command, ") %*c %*d %*d %*d %*d %*d %lu", &flags) == 1 &&
         (flags & kForkNoExec) != 0;
}

}  // namespace attend
