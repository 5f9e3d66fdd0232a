"""Attention of PyTorch, ONNX Runtime and ggml, where they are installed, as rows for the report.

    python3 bench/report/python_peers.py peers.json --ggml=libggml.so && ./run bench --merge peers.json

Shapes, inputs and names are those of attend_bench_attention; every result is checked against the formula in f64 before
it is timed. A call is one from Python, which costs some microseconds.
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

from peers import ggml, onnx_runtime, pytorch
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


def rows_of(shape, threads, peers, arguments):
    """Google Benchmark's rows of one shape: every repetition of every peer, or what is wrong with it."""
    rows, calls = {}, {}
    for peer in peers:
        name = f"{shape.name}/{peer.name}/threads:{threads}/real_time"
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
    parser.add_argument("--ggml", metavar="PATH", help="a libggml.so to measure, with the libraries it needs beside it")
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds a repetition at least")
    parser.add_argument("--repetitions", type=int, default=3)
    processors = sorted({1, len(os.sched_getaffinity(0))})
    parser.add_argument("--threads", type=int, nargs="+", default=processors, help="one and all of them by default")
    arguments = parser.parse_args()
    peers = pytorch.load() + onnx_runtime.load() + (ggml.load(arguments.ggml) if arguments.ggml else [])
    if not peers:
        sys.exit("neither PyTorch 2 nor onnxruntime with onnx is installed for this Python, and no --ggml is given")
    results = {"context": {peer.name: peer.version for peer in peers}, "benchmarks": []}
    for shape in shapes():
        for threads in arguments.threads:
            rows = list(rows_of(shape, threads, peers, arguments))
            show(rows)
            results["benchmarks"] += rows
    with open(arguments.out, "w") as out:
        json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
