"""Attention of PyTorch, ONNX Runtime and ggml, where they are installed, as rows for the report: what ./run bench --peers
runs in the environment that it made.

    python3 bench/report/python_peers.py peers.json --attend=libattend.so --ggml=libggml.so

Shapes, inputs and names are those of attend_bench_attention; every result is checked against the formula in f64 before
it is timed. A call is one from Python, which costs some microseconds: of attend's too, in turns with theirs.
"""

import argparse
import json
import math
import os
import random
import re
import statistics
import sys
import time

import quiet
from peers import attend_library, ggml, onnx_runtime, pytorch
from peers.problem import Problem, shapes


def nanoseconds(call, count):
    """Of one call: passed, and spent by all threads of the process."""
    start, cpu_start = time.perf_counter_ns(), time.process_time_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - start) / count, (time.process_time_ns() - cpu_start) / count


def measure(calls, repetitions, min_time):
    """{name: times of a call in each repetition}. In random order, so that a slow moment falls on all alike."""
    counts = {name: max(1, math.ceil(min_time * 1e9 / nanoseconds(call, 1)[0])) for name, call in calls.items()}
    turns = list(calls) * repetitions
    random.shuffle(turns)
    times = {name: [] for name in calls}
    for name in turns:
        times[name].append(nanoseconds(calls[name], counts[name]))
    return times


def name_of(shape, peer, threads):
    return f"{shape.name}/{peer.name}/threads:{threads}/real_time"


def rows_of(shape, threads, peers, arguments):
    """Google Benchmark's rows of one shape: every repetition of every peer, or what is wrong with it."""
    rows, calls = {}, {}
    for peer in peers:
        name = name_of(shape, peer, threads)
        if re.search(arguments.filter, name):
            rows[peer] = {"name": name, "run_type": "iteration", "iterations": 1, "time_unit": "ns"}
    problem = Problem(shape) if rows else None
    for peer, row in rows.items():
        prepared = peer.prepare(problem, threads)
        if prepared is None:
            continue
        call, result = prepared
        error = problem.error(result(call()))
        if error > peer.tolerance:
            yield {**row, "error_occurred": True, "error_message": f"differs from the formula by {error:.1e} of it"}
        else:
            calls[peer] = call
            row["largest error"] = error
    for peer, times in measure(calls, arguments.repetitions, arguments.min_time).items():
        for ns, cpu_ns in times:
            row = {**rows[peer], "real_time": ns, "cpu_time": cpu_ns, "GB/s": shape.bytes(peer.kv_bytes) / ns}
            yield row if shape.queries == 1 else {**row, "GFLOP/s": shape.flops / ns}


def quietly(shape, threads, peers, arguments):
    """The rows, and what else the machine did meanwhile: rows on several threads beside other work have no figures."""
    names = [name for peer in peers if re.search(arguments.filter, name := name_of(shape, peer, threads))]
    if threads > 1 and quiet.is_busy(others := quiet.sample()):
        return quiet.without_many([], names), others
    watch = quiet.Watch()
    rows = list(rows_of(shape, threads, peers, arguments))
    others = watch.others()
    return (quiet.without_many(rows, names) if quiet.is_busy(others) else rows), others


def show(rows):
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]
        if "error_message" in same[0]:
            print(name, same[0]["error_message"], flush=True)
            continue
        counter = "GFLOP/s" if "GFLOP/s" in same[0] else "GB/s"
        middle = statistics.median(row[counter] for row in same)
        print(f"{name}  {middle:.1f} {counter}  largest error {same[0]['largest error']:.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the JSON file to write")
    parser.add_argument("--filter", default="", help="regular expression of the rows to run")
    parser.add_argument("--attend", metavar="PATH", help="attend's shared library, to be called from here too")
    parser.add_argument("--ggml", metavar="PATH", help="a libggml.so to measure, with the libraries it needs beside it")
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds a repetition at least")
    parser.add_argument("--repetitions", type=int, default=3)
    processors = sorted({1, len(os.sched_getaffinity(0))})
    parser.add_argument("--threads", type=int, nargs="+", default=processors, help="one and all of them by default")
    arguments = parser.parse_args()
    loaded = pytorch.load() + onnx_runtime.load() + (ggml.load(arguments.ggml) if arguments.ggml else [])
    if not loaded:
        sys.exit("neither PyTorch 2 nor onnxruntime with onnx is installed for this Python, and no --ggml is given")
    context = {f"left out: {peer.name}": peer.left_out for peer in loaded if peer.left_out}
    peers = [peer for peer in loaded if not peer.left_out]
    context.update({f"peer: {p.name}": p.version + (f"; kernels: {p.kernels}" if p.kernels else "") for p in peers})
    if arguments.attend:
        peers = attend_library.load(arguments.attend) + peers
    results = {"context": context, "benchmarks": [], "others": []}
    wanted = [s for s in shapes() if any(re.search(arguments.filter, name_of(s, p, t)) for p in peers for t in arguments.threads)]
    for done, shape in enumerate(wanted):
        print(f"{done + 1:4}/{len(wanted)} shapes   {shape.name}", flush=True)
        for threads in arguments.threads:
            rows, others = quietly(shape, threads, peers, arguments)
            show(rows)
            results["benchmarks"] += rows
            results["others"].append(others)
    with open(arguments.out, "w") as out:
        json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
