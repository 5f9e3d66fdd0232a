"""Softmax and attention at a real size: attend, plain NumPy, and PyTorch if it is installed.

Usage: real_size.py [threads]      NumPy's matrix products use as many threads as its BLAS was told (OPENBLAS_NUM_THREADS).
"""

import sys
import time

import numpy as np

import attend

try:
    import torch
except ImportError:
    torch = None


def numpy_softmax(x):
    exp_x = np.exp(x - x.max(axis=-1, keepdims=True))
    return exp_x / exp_x.sum(axis=-1, keepdims=True)


def numpy_attention(q, k, v, mask=None):
    scores = q @ k.swapaxes(-1, -2) * np.float32(1 / np.sqrt(q.shape[-1]))
    if mask is not None:
        scores = np.where(mask, scores, np.float32(-np.inf))
    return numpy_softmax(scores) @ v


def best_time(function):
    """Seconds: the best of at least three calls and a fifth of a second."""
    best, calls, begin = float("inf"), 0, time.perf_counter()
    while calls < 3 or time.perf_counter() - begin < 0.2:
        start = time.perf_counter()
        function()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best


def compare(name, ours, *others):
    """One row: the time of attend, then for every other its time and by how much attend is faster."""
    result = ours()
    t = best_time(ours)
    row = f"{name:36} {t * 1e3:9.3f} ms"
    for other in others:
        difference = np.abs(result - np.asarray(other())).max()
        assert difference < 1e-5, f"{name}: differs by {difference}"
        u = best_time(other)
        row += f" {u * 1e3:9.3f} ms {u / t:6.1f}x"
    print(row)


def softmax_row(random, rows, columns, threads):
    x = random.normal(size=(rows, columns)).astype(np.float32)
    out = np.empty_like(x)
    others = [lambda: numpy_softmax(x)]
    if torch:
        t = torch.from_numpy(x)
        others.append(lambda: torch.softmax(t, dim=-1))
    compare(f"softmax [{rows}, {columns}]", lambda: attend.softmax(x, out=out, threads=threads), *others)


def attention_row(random, heads, n, d, causal, threads):
    q, k, v = (random.normal(size=(heads, n, d)).astype(np.float32) for _ in range(3))
    mask = np.tril(np.ones((n, n), bool)) if causal else None
    others = [lambda: numpy_attention(q, k, v, mask)]
    if torch and hasattr(torch.nn.functional, "scaled_dot_product_attention"):  # from 2.0 on
        tensors = [torch.from_numpy(array[np.newaxis]) for array in (q, k, v)]
        others.append(lambda: torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=causal)[0])
    compare(f"attention [{heads}, {n}, {d}]{', causal' if causal else ''}",
            lambda: attend.attention(q, k, v, causal="top-left" if causal else None, threads=threads), *others)


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    if torch and threads:
        torch.set_num_threads(threads)
    random = np.random.default_rng(1)
    print(f"attend {attend.__version__} ({attend.isa()}, {threads or attend.threads()} threads), NumPy {np.__version__}, "
          f"{f'PyTorch {torch.__version__}' if torch else 'PyTorch is not installed: left out'}; float32")
    print(f"{'':36} {'attend':>12} {'NumPy':>12}{'PyTorch' if torch else '':>20}")
    for rows, columns in ((1024, 64), (1024, 1024), (64, 32000)):
        softmax_row(random, rows, columns, threads)
    for heads, n, d in ((8, 128, 64), (8, 1024, 64)):
        for causal in (False, True):
            attention_row(random, heads, n, d, causal, threads)


main()
