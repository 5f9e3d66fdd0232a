"""Google Benchmark's JSON as a list of rows: median and quartiles of each row's repetitions."""

import csv
import dataclasses
import io
import re
import statistics

INSTRUCTION_SETS = ("avx512bf16", "avx512vnni", "avx512", "avx2", "neon", "sse42", "generic")
# Ours called from Python, in turns with those that are.
FROM_PYTHON = "attend"
PYTHON_PEERS = ("pytorch", "onnxruntime", "ggml", "ggml-f16")
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
# What memory does in the place of a call.
FLOORS = ("memcpy", "read")
# Quartiles further apart than this part of the median are marked.
NOISY = 0.10


@dataclasses.dataclass
class Row:
    what: str  # matmul, softmax, attention, self_attention, decode, options, length, backward, types, serving, ragged
    dtype: str  # f32, bf16, .., with a way of computing (bf16_dot) or what becomes of it (bf16_to_i8)
    shape: str  # 512, 1024x1024/contiguous, N:256/D:64/heads:8/full
    who: str  # naive, blocked, an instruction set, a peer, memcpy, read
    threads: int
    seconds: float  # the median
    counters: dict  # at the median
    quartiles: tuple = (0.0, 0.0)  # seconds

    @property
    def is_ours(self):
        return self.who in INSTRUCTION_SETS

    @property
    def spread(self):
        return (self.quartiles[1] - self.quartiles[0]) / self.seconds

    @property
    def is_noisy(self):
        return self.spread > NOISY

    def counter(self, name):
        return self.counters.get(name)

    def parameter(self, name):
        found = re.search(rf"(?:^|/){name}:(\d+)", self.shape)
        return int(found[1]) if found else None


def quartiles(values):
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def parse(name):
    """The parts of a row's name, or None: what, dtype, shape, who, threads."""
    found = re.fullmatch(r"(\w+)/((?:f32|f64|bf16|f16|i8|f8e4m3)(?:_\w+)?)/(.+)/([^/]+)/threads:(\d+)(?:/.*)?", name)
    return found.groups() if found else None


def task_of(shape):
    """decode/H:32/Hkv:8/page:16 -> decode/H:32/Hkv:8: what the ways to do it, `variant_of` it, have in common."""
    return re.sub(r"/(page:\d+|[a-z_]+)$", "", shape)


def variant_of(shape):
    return shape[len(task_of(shape)) + 1:].replace(":", " ").replace("_", " ")


def spelled(shape):
    return shape.replace("/", ", ").replace(":", " ").replace("_", " ")


def time_of(entry):
    """Of one call, in the entry's unit: on one thread what that had of a CPU, as ./run bench --against has it, for the rest
    went to others; on several what passed."""
    passed, cpu = entry["real_time"], entry.get("cpu_time", 0)
    return cpu if 0 < cpu < passed and parse(entry["name"])[-1] == "1" else passed


def read(results):
    repetitions = {}
    for entry in results["benchmarks"]:
        if entry.get("run_type") == "aggregate" or entry.get("error_occurred"):
            continue
        parts = parse(entry["name"])
        if parts:
            repetitions.setdefault(parts, []).append(entry)
    order = {key: index for index, key in enumerate(dict.fromkeys(key[:3] for key in repetitions))}
    rows = []
    for (what, dtype, shape, who, threads), entries in repetitions.items():
        # Rates were computed from the time that passed.
        counters = {
            name: statistics.median(e[name] * (e["real_time"] / time_of(e) if name != "scratch" else 1) for e in entries)
            for name in ("GFLOP/s", "GB/s", "%peak", "Gelem/s", "scratch")
            if name in entries[0]
        }
        times = [time_of(e) * SECONDS[e["time_unit"]] for e in entries]
        median = statistics.median(times)
        rows.append(Row(what, dtype, shape, who, int(threads), median, counters, quartiles(times)))
    return sorted(rows, key=lambda row: (order[row.what, row.dtype, row.shape], rank(row)))


def rank(row):
    """The order of rows in tables and legends: the references, ours, ours unfused, the peers."""
    order = ("naive", "blocked", *INSTRUCTION_SETS, FROM_PYTHON, "unfused")
    return (order.index(row.who) if row.who in order else len(order), row.who, row.threads)


def type_rank(row):
    """The order of rows that differ in types."""
    first, _, rest = row.dtype.partition("_")
    return (row.who not in FLOORS, ("f32", "f64", "bf16", "f16", "i8", "f8e4m3").index(first), rest, row.shape)


def failures(results):
    """(name, why) of rows that have no figures: refused by a peer, wrong, or on threads of a busy machine."""
    return sorted({(e["name"], e.get("error_message", "")) for e in results["benchmarks"] if e.get("error_occurred")})


def best_set(rows):
    """The best instruction set that was measured."""
    present = {row.who for row in rows if row.is_ours}
    return next((name for name in INSTRUCTION_SETS if name in present), None)


def label(who, threads=1):
    """How a row is called in a legend."""
    name = f"attend {who}" if who in INSTRUCTION_SETS else "attend, from Python" if who == FROM_PYTHON else who
    return name if threads == 1 else f"{name}, {threads} threads"


COLUMNS = ("what", "type", "shape", "who", "threads", "seconds", "first quartile", "third quartile",
           "GFLOP/s", "% of peak", "GB/s", "scratch bytes", "not measured")


def as_csv(results):
    """Every row for a spreadsheet; those without figures with the reason."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in read(results):
        counters = [r.counter(name) for name in ("GFLOP/s", "%peak", "GB/s", "scratch")]
        writer.writerow([r.what, r.dtype, r.shape, r.who, r.threads, *(f"{x:.6g}" for x in (r.seconds, *r.quartiles)),
                         *("" if x is None else f"{x:.5g}" for x in counters), ""])
    for name, why in failures(results):
        parts = parse(name)
        if parts:
            writer.writerow([*parts, *[""] * (len(COLUMNS) - 6), why])
    return out.getvalue()
