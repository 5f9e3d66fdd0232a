"""Google Benchmark's JSON as a list of rows: the median of each row's repetitions."""

import dataclasses
import re
import statistics

INSTRUCTION_SETS = ("avx512", "avx2", "neon", "sse42", "generic")
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclasses.dataclass
class Row:
    what: str  # matmul, softmax, attention, self_attention, decode
    dtype: str
    shape: str  # 512, 1024x1024/contiguous, N:256/D:64/heads:8/full
    who: str  # naive, blocked, an instruction set, a peer
    threads: int
    seconds: float
    counters: dict

    @property
    def is_ours(self):
        return self.who in INSTRUCTION_SETS

    def counter(self, name):
        return self.counters.get(name)

    def parameter(self, name):
        found = re.search(rf"(?:^|/){name}:(\d+)", self.shape)
        return int(found[1]) if found else None


def read(results):
    repetitions = {}
    for entry in results["benchmarks"]:
        if entry.get("run_type") == "aggregate" or entry.get("error_occurred"):
            continue
        parts = re.fullmatch(r"(\w+)/(f32|f64)/(.+)/([^/]+)/threads:(\d+)(?:/.*)?", entry["name"])
        if parts:
            repetitions.setdefault(parts.groups(), []).append(entry)
    order = {key: index for index, key in enumerate(dict.fromkeys(key[:3] for key in repetitions))}
    rows = []
    for (what, dtype, shape, who, threads), entries in repetitions.items():
        counters = {
            name: statistics.median(e[name] for e in entries)
            for name in ("GFLOP/s", "GB/s", "%peak", "Gelem/s")
            if name in entries[0]
        }
        seconds = statistics.median(e["real_time"] * SECONDS[e["time_unit"]] for e in entries)
        rows.append(Row(what, dtype, shape, who, int(threads), seconds, counters))
    return sorted(rows, key=lambda row: (order[row.what, row.dtype, row.shape], rank(row)))


def rank(row):
    """The order of rows in tables and legends: the references, ours, ours unfused, the peers."""
    order = ("naive", "blocked", *INSTRUCTION_SETS, "unfused")
    return (order.index(row.who) if row.who in order else len(order), row.who, row.threads)


def failures(results):
    return sorted({(e["name"], e.get("error_message", "")) for e in results["benchmarks"] if e.get("error_occurred")})


def best_set(rows):
    """The best instruction set that was measured."""
    present = {row.who for row in rows if row.is_ours}
    return next((name for name in INSTRUCTION_SETS if name in present), None)


def label(who, threads=1):
    """How a row is called in a legend."""
    name = f"attend {who}" if who in INSTRUCTION_SETS else who
    return name if threads == 1 else f"{name}, {threads} threads"
