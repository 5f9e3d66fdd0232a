"""Attention of PyTorch and ONNX Runtime, where they are installed, as rows for the report.

    python3 bench/report/python_peers.py peers.json && ./run bench --merge peers.json

Standard normal inputs as in attend_bench_attention, one thread; every result is checked against the formula in f64
before it is timed.
"""

import argparse
import json
import sys
import time

import numpy

HEADS, FEATURES, SIZES = 8, 64, (16, 64, 256, 1024, 4096)


def formula(q, k, v, causal):
    scores = q.astype(float) @ k.astype(float).swapaxes(-1, -2) / numpy.sqrt(FEATURES)
    if causal:
        scores[..., ~numpy.tri(q.shape[-2], dtype=bool)] = -numpy.inf
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v.astype(float)


def pytorch():
    """[heads, N, D] -> the same; None without PyTorch 2."""
    try:
        import torch
    except ImportError:
        return None
    attention = getattr(torch.nn.functional, "scaled_dot_product_attention", None)
    if attention is None:
        return None
    torch.set_num_threads(1)

    def prepare(q, k, v, causal):
        operands = [torch.from_numpy(x[None]) for x in (q, k, v)]

        def call():
            with torch.inference_mode():
                return attention(*operands, is_causal=causal)[0].numpy()

        return call

    return "pytorch", torch.__version__, prepare


def onnx_runtime():
    """The MultiHeadAttention operator; None without onnxruntime and onnx. It has no causal mask without a tensor."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return None
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT

    def prepare(q, k, v, causal):
        if causal:
            return None
        items = q.shape[1]
        shape = [1, items, HEADS * FEATURES]
        values = [helper.make_tensor_value_info(name, float32, shape) for name in ("q", "k", "v", "out")]
        node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", num_heads=HEADS)
        graph = helper.make_graph([node], "attention", values[:3], values[3:])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 8
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        interleaved = {
            name: numpy.ascontiguousarray(x.transpose(1, 0, 2)).reshape(shape) for name, x in zip("qkv", (q, k, v))
        }

        def call():
            out = session.run(None, interleaved)[0]
            return out.reshape(items, HEADS, FEATURES).transpose(1, 0, 2)

        return call

    return "onnxruntime", onnxruntime.__version__, prepare


def measure(call, seconds):
    times, begin = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each row")
    arguments = parser.parse_args()
    peers = [peer for peer in (pytorch(), onnx_runtime()) if peer]
    if not peers:
        sys.exit("neither PyTorch 2 nor onnxruntime with onnx is installed for this Python")
    results = {"context": {name: version for name, version, _ in peers}, "benchmarks": []}
    random = numpy.random.default_rng(1)
    for items in SIZES:
        q, k, v = (random.standard_normal((HEADS, items, FEATURES), dtype=numpy.float32) for _ in range(3))
        for causal in (False, True):
            want = formula(q, k, v, causal)
            pairs = items * (items + 1) / 2 if causal else items * items
            flops = 4.0 * pairs * FEATURES * HEADS
            shape = f"attention/f32/N:{items}/D:{FEATURES}/heads:{HEADS}/{'causal' if causal else 'full'}"
            for name, _, prepare in peers:
                call = prepare(q, k, v, causal)
                if call is None:
                    continue
                row = {"name": f"{shape}/{name}/threads:1/real_time", "run_type": "iteration"}
                row |= {"iterations": 1, "time_unit": "ns"}
                if numpy.abs(call() - want).max() > 1e-4:
                    row |= {"error_occurred": True, "error_message": "differs from the formula"}
                    results["benchmarks"].append(row)
                    continue
                times = measure(call, arguments.seconds)
                for seconds in times:
                    ns = seconds * 1e9
                    results["benchmarks"].append({**row, "real_time": ns, "cpu_time": ns, "GFLOP/s": flops / ns})
                print(f"{row['name']}  {flops / sorted(times)[len(times) // 2] * 1e-9:.1f} GFLOP/s", flush=True)
    with open(arguments.out, "w") as out:
        json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
