// What else the CPUs of this machine do, from /proc: figures on several threads mean nothing beside it. The same as
// bench/report/quiet.py, for programs that run alone.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_OTHER_WORK_HPP
#define ATTEND_BENCH_OTHER_WORK_HPP

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <thread>

namespace attend::bench {

class OtherWork {
 public:
  // Of a CPU, spent on other work or taken by the hypervisor: more than this is a busy machine.
  static constexpr double kBusy = 0.15;

  OtherWork() : start_(Clock::now()), spent_(spent()), own_(own()) {}

  // CPUs' worth of it since this was made, on average; 0 where the system does not say.
  double cpus() const {
    const double elapsed = std::chrono::duration<double>(Clock::now() - start_).count(), now = spent();
    if (spent_ < 0 || now < 0 || elapsed <= 0) return 0;
    const double ticks = 2.0 / static_cast<double>(sysconf(_SC_CLK_TCK));  // two of them are nothing
    return std::max(0.0, now - spent_ - (own() - own_) - ticks) / elapsed;
  }

  static double sample() {
    const OtherWork work;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    return work.cpus();
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double spent() {
    std::ifstream stat("/proc/stat");
    std::string name;
    double user = 0, nice = 0, system = 0, idle = 0, waiting = 0, irq = 0, softirq = 0, steal = 0;
    if (!(stat >> name >> user >> nice >> system >> idle >> waiting >> irq >> softirq >> steal)) return -1;
    return (user + nice + system + irq + softirq + steal) / static_cast<double>(sysconf(_SC_CLK_TCK));
  }
  static double own() {
    rusage used = {};
    getrusage(RUSAGE_SELF, &used);
    const auto seconds = [](timeval t) {
      return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
    };
    return seconds(used.ru_utime) + seconds(used.ru_stime);
  }

  Clock::time_point start_;
  double spent_, own_;
};

}  // namespace attend::bench

#endif  // ATTEND_BENCH_OTHER_WORK_HPP
