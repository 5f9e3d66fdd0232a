"""Runs the benchmark programs, shows progress, and writes one JSON file and one HTML page.

The rows of one shape are run together, their repetitions in random order, so that a slow moment of a shared machine
falls on all of them alike. The JSON file has Google Benchmark's own format.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import page
import rows as table

PROGRAMS = ("matmul", "softmax", "attention")
# What the short run leaves out: f64, the slower instruction sets, shapes that tell nothing new.
SHORT_SHAPES = re.compile(
    r"matmul/f32/(8|16|32|64|128|256|512|1024|768x768x512|4096x4096x1)/"
    r"|softmax/f32/.*"
    r"|self_attention/f32/.*"
    r"|attention/f32/N:(16|64|256|1024|4096)/D:64/heads:8/"
    r"|attention/f32/N:1024/D:128/heads:8/"
    r"|decode/f32/keys:16384/"
)


def list_rows(program):
    listing = subprocess.run([program, "--benchmark_list_tests"], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if "/" in line]


def shape_of(row):
    """matmul/f32/512/avx512/threads:1/real_time -> matmul/f32/512"""
    return re.sub(r"(/[^/]+)?/threads:.*", "", row)


def chosen(rows, full, pattern):
    """The rows to run, grouped by shape, in the order of the programs."""
    # The best instruction set is the first of the library's rows, and only that one is in the short run.
    who = [row.split("/")[-3] for row in rows if row.count("/") > 3]
    slower = [s for s in table.INSTRUCTION_SETS if s in who][1:]
    groups = {}
    for row in rows:
        if not re.search(pattern, row):
            continue
        if not full and (not SHORT_SHAPES.match(row) or any(f"/{s}/" in row for s in slower)):
            continue
        groups.setdefault(shape_of(row), []).append(row)
    return groups


def run_group(program, rows, arguments):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        done = subprocess.run(
            [
                program,
                "--benchmark_filter=^(" + "|".join(re.sub(r"([.^$*+?()|\[\]{}\\])", r"\\\1", row) for row in rows) + ")$",
                f"--benchmark_min_time={arguments.min_time}",
                f"--benchmark_repetitions={arguments.repetitions}",
                "--benchmark_enable_random_interleaving=true",
                f"--benchmark_out={out.name}",
                "--benchmark_out_format=json",
                *(f for f in arguments.program_flags if "matmul" in program.name or not f.startswith("--gemm=")),
            ],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"{program} ended with {done.returncode}:\n{done.stderr}")
        return json.load(out)


def measure(arguments):
    work = []
    for name in PROGRAMS:
        program = arguments.programs / f"attend_bench_{name}"
        groups = chosen(list_rows(program), arguments.full, arguments.filter)
        work += [(program, shape, rows) for shape, rows in groups.items()]
    if not work:
        sys.exit("no row matches")
    total = sum(len(rows) for _, _, rows in work)
    merged = {"context": {}, "benchmarks": []}
    begin, done = time.monotonic(), 0
    for program, shape, rows in work:
        result = run_group(program, rows, arguments)
        merged["context"] = {**result["context"], **merged["context"]}
        merged["benchmarks"] += result["benchmarks"]
        done += len(rows)
        elapsed = time.monotonic() - begin
        left = elapsed / done * (total - done)
        print(f"{done:4}/{total} rows, about {left:.0f} s left   {shape}", flush=True)
    return merged


def measure_threads(arguments):
    """What two threads are worth beside others: attend_bench_threads' rows."""
    print(f"two threads beside others, about {16 * arguments.threads_time:.0f} s", flush=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [arguments.programs / "attend_bench_threads", str(arguments.threads_time), out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.load(out)


def compare(old, new):
    """What changed beyond the noise, by Google Benchmark's own comparison: a Mann-Whitney test of the repetitions."""
    tool = pathlib.Path("/usr/share/benchmark/compare.py")
    if not tool.exists():
        sys.exit("Google Benchmark's compare.py is missing (Debian: libbenchmark-tools, python3-scipy)")
    with tempfile.TemporaryDirectory() as directory:
        files = [pathlib.Path(directory) / name for name in ("old.json", "new.json", "difference.json")]
        for file, results in zip(files, (old, new)):
            rows = [row for row in results["benchmarks"] if row.get("run_type") != "aggregate"]
            file.write_text(json.dumps({**results, "benchmarks": rows}))
        command = [sys.executable, tool, "--dump_to_json", files[2], "benchmarks", *files[:2]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        differences = [d for d in json.loads(files[2].read_text()) if d.get("utest")]
    changed = []
    for row in differences:
        keys = ("real_time", "real_time_other")
        before, after = (statistics.median(m[key] for m in row["measurements"]) for key in keys)
        if row["utest"]["time_pvalue"] < 0.05:
            changed.append((after / before, row["name"], row["utest"]["time_pvalue"]))
    print(f"\n{len(changed)} of {len(differences)} rows changed (p < 0.05):")
    for ratio, name, p in sorted(changed):
        print(f"{'faster' if ratio < 1 else 'slower'} {100 * (ratio - 1):+6.1f} % of the time  p = {p:.3f}  {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory of attend_bench_*")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory of report.json and report.html")
    parser.add_argument("--full", action="store_true", help="every row: f64, every instruction set, every shape")
    parser.add_argument("--filter", default="", help="regular expression of the rows to run")
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds a repetition at least")
    parser.add_argument("--threads-time", type=float, default=2, help="seconds a row of threads_beside_others")
    parser.add_argument("--repetitions", type=int, help="3, or 9 to compare: fewer cannot be significant")
    parser.add_argument(
        "--merge", type=pathlib.Path, action="append", default=[], help="further rows, such as python_peers.py's"
    )
    parser.add_argument("--compare", type=pathlib.Path, metavar="OLD.json", help="say what changed since then")
    parser.add_argument("--peers", action="store_true", help="for ./run bench, which installs them first")
    parser.add_argument("--page-only", action="store_true", help="the page again from the report.json that is there")
    arguments, arguments.program_flags = parser.parse_known_args()

    arguments.repetitions = arguments.repetitions or (9 if arguments.compare else 3)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "report.json"
    # Read now: it may be the very file that is written below.
    old = json.loads(arguments.compare.read_text()) if arguments.compare else None
    if arguments.page_only:
        results = json.loads(path.read_text())
    else:
        results = measure(arguments)
        if re.search(arguments.filter, "threads_beside_others"):
            results["threads"] = measure_threads(arguments)
        for other in arguments.merge:
            extra = json.loads(other.read_text())
            results["benchmarks"] += extra["benchmarks"]
            results["context"].update(extra["context"])
        path.write_text(json.dumps(results, indent=1))
    (arguments.out / "report.html").write_text(page.render(results))
    (arguments.out / "speedup.svg").write_text(page.picture(results))
    print(f"{path}\n{arguments.out / 'report.html'}")
    if old:
        compare(old, results)


if __name__ == "__main__":
    main()
