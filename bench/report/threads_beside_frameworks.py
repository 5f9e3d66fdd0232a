"""Calls on one and on two threads in a process where PyTorch, MKL and ONNX Runtime compute in between.

    python bench/report/threads_beside_frameworks.py [--rounds 1300]

from a Python that has attend and these, as docs/benchmarks.md says. A small encoder's layer, 12 heads x 128 x 32: in each
round four calls of attend on one thread, four on two, four of ONNX Runtime on two, and before each four what the row says.
Median, mean and 99th percentile of the calls of all rounds.
"""

import argparse
import ctypes
import glob
import sys
import time

import attend
import numpy as np
import onnx
import onnxruntime
import torch

HEADS, ITEMS, FEATURES, SIDE = 12, 128, 32, 512
CALLS = 4


def onnx_runtime(q, k, v):
    names = ["q", "k", "v"]
    value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, q.shape)
    node = onnx.helper.make_node("Attention", names, ["out"])
    graph = onnx.helper.make_graph([node], "attention", [value(name) for name in names], [value("out")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"q": q, "k": k, "v": v})[0]


def mkl_product():
    """A product by MKL's own OpenMP, or None where it is not installed."""
    found = glob.glob(f"{sys.prefix}/lib/libmkl_rt.so*")
    if not found:
        return None
    sgemm = ctypes.CDLL(found[0]).sgemm_
    a, b, c = (np.ones((SIDE, SIDE), dtype=np.float32) for _ in range(3))
    side, one, zero = ctypes.byref(ctypes.c_int(SIDE)), ctypes.byref(ctypes.c_float(1)), ctypes.byref(ctypes.c_float(0))
    pointer = lambda array: ctypes.c_void_p(array.ctypes.data)
    return lambda: sgemm(b"N", b"N", side, side, side, one, pointer(a), side, pointer(b), side, zero, pointer(c), side)


def measure(calls, between, rounds):
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            between()
            for _ in range(CALLS):
                start = time.perf_counter_ns()
                call()
                times[name].append(time.perf_counter_ns() - start)
    return {name: np.array([np.median(t), np.mean(t), np.quantile(t, 0.99)]) / 1000 for name, t in times.items()}


def show(numbers, form):
    return " / ".join(format(x, form) for x in numbers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1300)
    rounds = parser.parse_args().rounds

    torch.set_num_threads(2)
    random = np.random.default_rng(1)
    shape = (1, HEADS, ITEMS, FEATURES)
    q, k, v = (random.standard_normal(shape, dtype=np.float32) for _ in range(3))
    out = np.empty(shape, dtype=np.float32)
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    ort, mkl = onnx_runtime(q, k, v), mkl_product()
    calls = {
        "one": lambda: attend.attention(q, k, v, out=out, threads=1),
        "two": lambda: attend.attention(q, k, v, out=out, threads=2),
        "ort": ort,
    }
    calls["two"]()
    assert np.abs(ort() - out).max() < 1e-5

    alone = {name: calls[name] for name in ("one", "two")}
    pytorch = lambda: torch.nn.functional.scaled_dot_product_attention(*tensors)
    every = [call for call in (pytorch, mkl, ort) if call is not None]
    rows = [
        ("nothing, ONNX Runtime not called", alone, lambda: None),
        ("nothing", calls, lambda: None),
        ("PyTorch's attention", calls, pytorch),
        ("a product of MKL's", calls, mkl),
        ("ONNX Runtime's attention", calls, ort),
        ("all of them", calls, lambda: [call() for call in every]),
    ]
    print("| in between | one thread, us | two / one | two / ONNX Runtime |\n|---|---|---|---|")
    for name, of, between in rows:
        if between is None:
            continue
        time.sleep(0.5)
        t = measure(of, between, rounds)
        beside = show(t["two"] / t["ort"], ".2f") if "ort" in t else ""
        print(f"| {name} | {show(t['one'], '.0f')} | {show(t['two'] / t['one'], '.2f')} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
