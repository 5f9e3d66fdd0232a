"""How busy the machine is with other work, from /proc, and waiting until it is not.

Other work is what the CPUs did less what this process and its children did. Where there is no /proc nothing is known, and
nothing is said.
"""

import os
import re
import resource
import time

# Of a CPU: more than this spent on other work, or taken by the hypervisor, and a row on all CPUs measures that.
BUSY = 0.15
# A run in which more than this part of the groups of rows had company is not for quoting. Of fewer the report tells, rows on
# several threads beside it have no figures, and those on one are timed by their CPU time.
COMPANY = 0.05
# The FMA peaks of the run's processes may differ by this before the clock is said to have changed.
CLOCK = 0.10
TICK = os.sysconf("SC_CLK_TCK")


def read_cpus():
    """Seconds that all CPUs together spent on work and that were stolen from them; None where the system does not say."""
    try:
        with open("/proc/stat") as stat:
            user, nice, system, _, _, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / TICK, steal / TICK


def own_seconds():
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in spent)


class Watch:
    """What else the CPUs did since it was made."""

    def __init__(self):
        self.start, self.cpus, self.own = time.monotonic(), read_cpus(), own_seconds()

    def others(self):
        """CPUs busy with other work, and CPUs' worth of time stolen, on average; zeros where nothing is known."""
        now, elapsed = read_cpus(), time.monotonic() - self.start
        if now is None or self.cpus is None or elapsed <= 0:
            return 0.0, 0.0
        work = now[0] - self.cpus[0] - (own_seconds() - self.own)
        # /proc/stat counts in ticks: of a short time, two of them are nothing.
        return max(0.0, work - 2 / TICK) / elapsed, max(0.0, now[1] - self.cpus[1] - 2 / TICK) / elapsed


def is_busy(others):
    return sum(others) > BUSY


def sample(seconds=0.3):
    watch = Watch()
    time.sleep(seconds)
    return watch.others()


def runnable():
    """Threads that want a CPU just now, without this one."""
    try:
        with open("/proc/loadavg") as loadavg:
            return int(loadavg.read().split()[3].partition("/")[0]) - 1
    except (OSError, ValueError, IndexError):
        return 0


NOT_MEASURED = "not measured: machine busy"


def on_many(names):
    """Those of rows on several threads."""
    return [name for name in names if not re.search(r"/threads:1(/|$)", name)]


def without_many(entries, names):
    """Google Benchmark's entries, those of rows on several threads among `names` replaced: they would measure the others."""
    many = on_many(names)
    return [entry for entry in entries if entry["name"] not in many] + [
        {"name": name, "run_type": "iteration", "error_occurred": True, "error_message": NOT_MEASURED} for name in many]


def describe(others):
    return f"{others[0]:.1f} CPUs busy with other work, {others[1]:.1f} taken by the hypervisor"


def wait(limit):
    """Returns once five seconds in a row were quiet: True, or False after `limit` seconds."""
    begin, quiet_since, told = time.monotonic(), time.monotonic(), 0.0
    while time.monotonic() - quiet_since < 5:
        others = sample(1)
        now = time.monotonic()
        if is_busy(others):
            quiet_since = now
            if now - told > 10:
                print(f"waiting for a quiet machine, {now - begin:.0f} s of {limit:.0f}: {describe(others)}")
                told = now
            if now - begin > limit:
                return False
    return True


def summary(groups, peaks, begin):
    """What the report says of the machine: {busy: whether much of the run was disturbed, sentences: [...]}. `groups` are the
    others() of each group of rows, `peaks` the FMA peaks that each process measured, `begin` the load and the runnable
    threads before."""
    sentences = []
    busy = [others for others in groups if is_busy(others)]
    if busy:
        worst = max(busy, key=sum)
        sentences.append(f"Other work ran beside {len(busy)} of {len(groups)} groups of rows: up to {describe(worst)}. "
                         f"Before the first row the load was {begin['load']:.1f}, and {begin['runnable']} threads wanted a CPU.")
    drift = 1 - min(peaks) / max(peaks) if peaks else 0
    if drift > CLOCK:
        sentences.append(f"The clock changed: the FMA peak of one core lay between {min(peaks):.0f} and "
                         f"{max(peaks):.0f} GFLOP/s from process to process.")
    return {"busy": len(busy) > COMPANY * len(groups), "sentences": sentences}
