"""Runs the benchmark programs, shows progress, and writes one JSON file, one CSV file and one HTML page.

The rows of one shape are run together, their repetitions in random order, so that a slow moment of a shared machine
falls on all of them alike. The JSON file has Google Benchmark's own format.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import comparison
import cpu
import page
import peer_environment
import quiet
import rows as table
import verdict

PROGRAMS = ("matmul", "softmax", "attention", "attention_options", "backward", "types", "ragged", "serving")
# What the short run leaves out: f64, the slower instruction sets, shapes that tell nothing new.
SHORT_SHAPES = (
    r"matmul/f32/(8|16|32|64|128|256|512|1024|768x768x512|4096x4096x\d+|4x1024x1024|1024x16x1024|512/\w+)/"
    r"|softmax/f32/.*"
    r"|self_attention/f32/.*"
    r"|attention/f32/N:(16|64|256|1024|4096)/D:64/heads:8/"
    r"|attention/f32/N:1024/D:128/heads:8/"
    r"|decode/f32/keys:16384/"
    r"|options/f32/N:1024/"
    r"|length/f32/"
    r"|backward/f32/N:(512|1024|4096)/D:(64|128)/heads:1/"
    r"|types/\w+/(attention/D:64|decode/D:128|linear/2048x2048|linear/4096x4096/items:1|integers/1024x\d+x\d+|softmax)/.*"
    r"|ragged/\w+/(decode/H:32/Hkv:8|sentences:20|tokens:|prefix:4096/sequences:32/H:32/Hkv:8|latent)/?.*"
    r"|serving/\w+/(append|rotary)/tokens:512/H:8/.*"
)
# What a process measures of the machine before its rows can be disturbed, but never be too good.
MACHINE = ("FMA peak of one core, f32", "FMA peak of one core, f64", "memcpy on one core", "read on one core")


def list_rows(program, variables):
    listing = subprocess.run([program, "--benchmark_list_tests"], capture_output=True, text=True, check=True, env=variables)
    return [line for line in listing.stdout.splitlines() if "/" in line]


def group_of(row):
    """matmul/f32/512/avx512/threads:1/real_time -> matmul/f32/512; the options of a size stand beside each other, and so do
    the types of a task and the ways to serve a batch."""
    parts = table.parse(row)
    if parts is None:
        return row
    what, dtype, shape, _, _ = parts
    if what in ("types", "ragged", "serving"):
        return f"{what}/" + (shape if what == "types" else table.task_of(shape))
    return f"{what}/{dtype}/" + (shape.rpartition("/")[0] if what == "options" else shape)


def chosen(rows, full, pattern):
    """The rows to run, grouped, in the order of the programs."""
    # The best instruction set is the first of the library's rows, and only that one is in the short run.
    who = [row.split("/")[-3] for row in rows if row.count("/") > 3]
    slower = [s for s in table.INSTRUCTION_SETS if s in who][1:]
    groups = {}
    for row in rows:
        if not re.search(pattern, row):
            continue
        if not full and (not re.match(SHORT_SHAPES, row) or any(f"/{s}/" in row for s in slower)):
            continue
        groups.setdefault(group_of(row), []).append(row)
    return groups


def run_group(program, rows, arguments, variables):
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
            env=variables,
        )
        if done.returncode != 0:
            sys.exit(f"{program} ended with {done.returncode}:\n{done.stderr}")
        return json.load(out)


def wait(arguments):
    """For a quiet machine, as long as --wait lets the whole run wait: whether it is one."""
    left = arguments.wait_until - time.monotonic()
    return left > 0 and quiet.wait(left)


def measure_quietly(program, rows, arguments, variables):
    """The group's results, and what else the machine did meanwhile. Rows on several threads that other work shared the
    CPUs with have no figures; --wait measures such a group again when it is quiet."""
    for attempt in range(3):
        many = quiet.on_many(rows)
        before = quiet.sample(0.2) if many and not arguments.wait else (0, 0)
        run = [row for row in rows if row not in many] if quiet.is_busy(before) else rows
        watch = quiet.Watch()
        result = run_group(program, run, arguments, variables) if run else {"context": {}, "benchmarks": []}
        others = max(before, watch.others(), key=sum)
        if not quiet.is_busy(others):
            return result, others
        if attempt == 2 or not wait(arguments):
            break
    result["benchmarks"] = quiet.without_many(result["benchmarks"], rows)
    return result, others


def measure(arguments, variables):
    work = []
    for name in PROGRAMS:
        program = arguments.programs / f"attend_bench_{name}"
        groups = chosen(list_rows(program, variables), arguments.full, arguments.filter)
        work += [(program, shape, rows) for shape, rows in groups.items()]
    if not work:
        sys.exit("no row matches")
    total = sum(len(rows) for _, _, rows in work)
    merged = {"context": {}, "benchmarks": [], "others": [], "peaks": []}
    begin, done = time.monotonic(), 0
    for program, shape, rows in work:
        result, others = measure_quietly(program, rows, arguments, variables)
        for key, text in result["context"].items():
            old = merged["context"].setdefault(key, text)
            if key in MACHINE and float(text.split()[0]) > float(old.split()[0]):
                merged["context"][key] = text
        if MACHINE[0] in result["context"]:
            merged["peaks"].append(float(result["context"][MACHINE[0]].split()[0]))
        merged["benchmarks"] += result["benchmarks"]
        merged["others"].append(others)
        done += len(rows)
        elapsed = time.monotonic() - begin
        left = elapsed / done * (total - done)
        print(f"{done:4}/{total} rows, about {left:.0f} s left   {shape}", flush=True)
    return merged


def measure_python_peers(arguments, variables):
    """PyTorch, ONNX Runtime and ggml beside attend in a process of the environment's Python; None without it."""
    python, ggml = peer_environment.python(arguments.peers_folder)
    if python is None:
        return None
    pattern = arguments.filter if arguments.full else f"^(?=.*(?:{arguments.filter}))(?:{SHORT_SHAPES})"
    library = arguments.programs.parent / "lib" / "libattend.so"
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [python, pathlib.Path(__file__).with_name("python_peers.py"), out.name, f"--attend={library}",
                   f"--filter={pattern}", f"--min-time={arguments.min_time}", f"--repetitions={arguments.repetitions}"]
        done = subprocess.run([*command, *([f"--ggml={ggml}"] if ggml else [])], env=variables)
        if done.returncode != 0:
            print(f"PyTorch, ONNX Runtime and ggml are left out: python_peers.py ended with {done.returncode}")
            return None
        return json.load(out)


def measure_types_beside_pytorch(arguments, variables):
    """[work, type, ms of ours, of PyTorch's, ratio] of types_beside_pytorch.py; None without PyTorch."""
    python, _ = peer_environment.python(arguments.peers_folder)
    if python is None or not re.search(arguments.filter, "types_beside_pytorch"):
        return None
    print("narrow types beside PyTorch, about 30 s", flush=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [python, pathlib.Path(__file__).with_name("types_beside_pytorch.py"),
                   arguments.programs.parent / "lib" / "libattend.so", "--json", out.name]
        done = subprocess.run(command, env=variables, stdout=subprocess.DEVNULL)
        return json.load(out) if done.returncode == 0 else None


def measure_threads(arguments):
    """What two threads are worth beside others: attend_bench_threads' rows."""
    print(f"two threads beside others, about {16 * arguments.threads_time:.0f} s", flush=True)
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [arguments.programs / "attend_bench_threads", str(arguments.threads_time), out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.load(out)


def measure_ranks(arguments):
    """Attention across MPI ranks of this machine: attend_bench_mpi's lines for 1 to 4 ranks; None where it was not built."""
    program = arguments.programs / "attend_bench_mpi"
    if not program.exists() or not shutil.which("mpirun"):
        return None
    print("attention across MPI ranks, about 20 s", flush=True)
    # Open MPI refuses root, and more ranks than CPUs, unless it is told to; 4 and 5 are told differently.
    variables = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                 "OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1",
                 "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    with tempfile.TemporaryDirectory() as folder:
        lines = pathlib.Path(folder) / "lines"
        for ranks in (1, 2, 4):
            command = ["mpirun", "-n", str(ranks), program, "--tokens", str(arguments.mpi_tokens), "--cache", "131072", "--json", lines]
            done = subprocess.run(command, env=variables, capture_output=True, text=True)
            if done.returncode != 0:
                print(f"MPI is left out: {done.stderr.strip()[-400:]}")
                return None
        return [json.loads(line) for line in lines.read_text().splitlines()]


def measure_alone(arguments, results, key, filtered, function):
    """What wants the whole machine: into results[key], or why it was not measured."""
    if not re.search(arguments.filter, filtered):
        return
    if quiet.is_busy(quiet.sample(1)):
        results[f"{key}_not_measured"] = quiet.NOT_MEASURED
    elif (measured := function(arguments)) is not None:
        results[key] = measured


def revision():
    if not shutil.which("git"):
        return "unknown"
    asked = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True,
                           cwd=pathlib.Path(__file__).parent)
    return asked.stdout.strip() or "unknown"


def measure_all(arguments):
    variables = dict(os.environ)
    if arguments.peers is not None:
        names = [name for name in arguments.peers.split(",") if name]
        peer_environment.install(arguments.peers_folder, names, arguments.yes)
        variables.update(peer_environment.environment(arguments.peers_folder))
    measured = revision()  # now: who works on the sources meanwhile does not change what was built
    wait(arguments)
    begin = {"load": os.getloadavg()[0], "runnable": quiet.runnable()}
    results = measure(arguments, variables)
    results["context"]["attend's revision"] = measured
    results["context"]["CPU"] = cpu.with_generation(results["context"].get("CPU", "unknown CPU"))
    if arguments.peers is not None and (extra := measure_python_peers(arguments, variables)):
        for key in ("benchmarks", "others"):
            results[key] += extra[key]
        results["context"].update(extra["context"])
    if arguments.peers is not None and (beside := measure_types_beside_pytorch(arguments, variables)):
        results["types_beside_pytorch"] = beside
    measure_alone(arguments, results, "threads", "threads_beside_others", measure_threads)
    measure_alone(arguments, results, "mpi", "mpi_ranks", measure_ranks)
    for other in arguments.merge:
        extra = json.loads(other.read_text())
        results["benchmarks"] += extra["benchmarks"]
        results["context"].update(extra["context"])
    results["machine"] = quiet.summary(results.pop("others"), results.pop("peaks"), begin)
    return results


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--programs", type=pathlib.Path, required=True, help="directory of attend_bench_*")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory of report.json, .csv and .html")
    parser.add_argument("--full", action="store_true", help="every row: f64, every instruction set, every shape")
    parser.add_argument("--filter", default="", help="regular expression of the rows to run")
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds a repetition at least")
    parser.add_argument("--threads-time", type=float, default=2, help="seconds a row of threads_beside_others")
    parser.add_argument("--mpi-tokens", type=int, default=4096, help="of mpi_ranks")
    parser.add_argument("--repetitions", type=int, help="5, or 9 to compare: fewer cannot be significant")
    parser.add_argument("--merge", type=pathlib.Path, action="append", default=[], help="further rows")
    parser.add_argument("--compare", type=pathlib.Path, metavar="OLD.json", help="say what changed since then")
    parser.add_argument("--peers", nargs="?", const="", metavar="NAME,NAME",
                        help="bring the newest versions of other libraries and measure them too")
    parser.add_argument("--peers-folder", type=pathlib.Path, default="build/peers", help="where they are")
    parser.add_argument("--yes", action="store_true", help="bring them without asking")
    parser.add_argument("--wait", nargs="?", type=float, const=3600, default=0, metavar="SECONDS",
                        help="for a quiet machine, an hour in all at most by default")
    parser.add_argument("--page-only", action="store_true", help="the page again from the report.json that is there")
    arguments, arguments.program_flags = parser.parse_known_args()
    arguments.wait_until = time.monotonic() + arguments.wait
    arguments.repetitions = arguments.repetitions or (9 if arguments.compare else 5)
    return arguments


def main():
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "report.json"
    # Read now: it may be the very file that is written below.
    old = json.loads(arguments.compare.read_text()) if arguments.compare else None
    results = json.loads(path.read_text()) if arguments.page_only else measure_all(arguments)
    if old:
        results["compared"] = comparison.changes(old, results)
    path.write_text(json.dumps(results, indent=1))
    (arguments.out / "report.csv").write_text(table.as_csv(results))
    (arguments.out / "report.html").write_text(page.render(results))
    (arguments.out / "speedup.svg").write_text(page.picture(results))
    for sentence in page.warnings(results) + verdict.sentences(results):
        print(sentence)
    if old:
        comparison.show(results["compared"])
    print(*(arguments.out / f"report.{kind}" for kind in ("json", "csv", "html")), sep="\n")


if __name__ == "__main__":
    main()
