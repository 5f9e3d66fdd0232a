"""Narrow element types beside PyTorch's, in one process: products, attention, and the projections and attention of a Llama
layer, each in f32 and in the type.

    python bench/report/types_beside_pytorch.py build/release/lib/libattend.so [--threads 1] [--rounds 15] [--filter TEXT] [--json FILE]

from a Python that has PyTorch, as docs/benchmarks.md says. The C ABI is called by ctypes on PyTorch's memory. Calls take
turns; a row is the median of the rounds, of which each is as many calls as fill 20 ms. Results are compared before they
are timed.
"""

import argparse
import ctypes
import functools
import json
import pathlib
import statistics
import time

import torch
from peers.attend_library import Options, Tensor

F32, BF16, F16, I8, I32 = 1, 3, 4, 5, 8
DTYPES = {torch.float32: F32, torch.bfloat16: BF16, torch.float16: F16, torch.int8: I8, torch.int32: I32}
CAUSAL_BOTTOM_RIGHT, NATIVE_DOT = 2, 0x10000
PRODUCTS = ((torch.float32, 0), (torch.bfloat16, 0), (torch.bfloat16, NATIVE_DOT))
sdpa, linear = torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.linear


class MatmulOptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("threads", ctypes.c_int32),
                ("zeros", ctypes.c_char * 52), ("a_scale", ctypes.POINTER(Tensor)), ("zeros2", ctypes.c_char * 24)]


def tensor(x):
    """Dimensions reversed, as attend.h says of row-major arrays."""
    shape, stride = list(x.shape)[::-1], list(x.stride())[::-1]
    pad = [1] * (4 - x.dim())
    return Tensor(x.data_ptr(), DTYPES[x.dtype], x.dim(), (*shape, *pad), (*stride, *pad))


def weight(w):
    """[out, in] stands to the left: not reversed."""
    return tensor(w.T)


class Attend:
    def __init__(self, path, threads):
        self.library, self.threads = ctypes.CDLL(path), threads
        self.library.attend_matmul.argtypes = [ctypes.c_double, *[ctypes.c_void_p] * 2, ctypes.c_double,
                                               *[ctypes.c_void_p] * 2]

    def product(self, a, b, c, scale=None, flags=0):
        """c = a b, as the views stand; a call without arguments."""
        options = MatmulOptions(ctypes.sizeof(MatmulOptions), flags, self.threads)
        if scale is not None:
            options.a_scale = ctypes.pointer(Tensor(scale.data_ptr(), F32, 1, (scale.numel(), 1, 1, 1), (1, 1, 1, 1)))
        pointers = [ctypes.addressof(x) for x in (a, b, c, options)]
        return self.checked(lambda keep=(a, b, c, options): self.library.attend_matmul(
            1, pointers[0], pointers[1], 0, pointers[2], pointers[3]))

    def attention(self, q, k, v, out, causal):
        options = Options(ctypes.sizeof(Options), CAUSAL_BOTTOM_RIGHT if causal else 0, self.threads)
        views = [tensor(x) for x in (q, k, v, out)] + [options]
        pointers = [ctypes.byref(x) for x in views]
        return self.checked(lambda keep=views: self.library.attend_attention(*pointers))

    @staticmethod
    def checked(call):
        def checked_call():
            if call() != 0:
                raise RuntimeError("attend refused the call")
        return checked_call


def label(dtype, flags):
    return str(dtype).removeprefix("torch.") + (", NATIVE_DOT" if flags else "")


def normal(*shape, dtype=torch.float32, size=1.0):
    return (torch.randn(*shape) * size).to(dtype)


def product_rows(attend, out, inner, items):
    """Linear layers with weights of a type, activations and results of PyTorch's choice."""
    name = f"linear {out} x {inner}, {items} items"
    for dtype, flags in PRODUCTS:
        w, x = normal(out, inner, dtype=dtype), normal(items, inner, dtype=dtype)
        y = torch.empty(items, out, dtype=dtype)
        ours = attend.product(weight(w), tensor(x), tensor(y), flags=flags)
        yield name, label(dtype, flags), ours, functools.partial(linear, x, w), y
    x, y = normal(items, inner), torch.empty(items, out)
    w, scale = torch.randint(-127, 128, (out, inner), dtype=torch.int8), torch.rand(out) / 64
    bf16, of_bf16 = x.to(torch.bfloat16), scale.to(torch.bfloat16)
    # PyTorch's weights of 8 bits go with bf16.
    theirs = lambda: torch._weight_int8pack_mm(bf16, w, of_bf16)
    yield name, "i8 weights", attend.product(weight(w), tensor(x), tensor(y), scale), theirs, y


def integer_rows(attend, m, k, n):
    a, b = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (n, k)))
    c = torch.empty(n, m, dtype=torch.int32)
    yield (f"integers {m} x {k} x {n}", "i8", attend.product(weight(a), tensor(b), tensor(c)),
           lambda: torch._int_mm(b, a.T), c)


def attention_rows(attend, heads, kv_heads, queries, keys, features, causal):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        q = normal(1, heads, queries, features, dtype=dtype)
        k, v = (normal(1, kv_heads, keys, features, dtype=dtype) for _ in range(2))
        out = torch.empty_like(q)
        theirs = functools.partial(sdpa, q, k, v, is_causal=causal, enable_gqa=heads != kv_heads)
        yield (f"attention {heads} on {kv_heads} heads, {queries} x {keys} x {features}", label(dtype, 0),
               attend.attention(q, k, v, out, causal), theirs, out)


def layer_rows(attend, tokens, past, hidden=2048, heads=32, kv_heads=8, features=64):
    """Q, K, V projections, attention over `past` keys of a cache and the new ones, the output projection."""
    for dtype, flags in PRODUCTS:
        product = functools.partial(attend.product, flags=flags)
        x = normal(tokens, hidden, dtype=dtype)
        rows = [heads * features, kv_heads * features, kv_heads * features]
        w_q, w_k, w_v, w_o = (normal(n, hidden, dtype=dtype, size=hidden**-0.5) for n in (*rows, hidden))
        # The cache [heads, keys, features]; new keys are projected into its end.
        keys, values = (normal(1, kv_heads, past + tokens, features, dtype=dtype) for _ in range(2))
        q, out = (torch.empty(tokens, heads, features, dtype=dtype) for _ in range(2))
        y = torch.empty(tokens, hidden, dtype=dtype)
        steps = [product(weight(w_q), tensor(x), tensor(q.view(tokens, -1)))]
        for w, cache in ((w_k, keys), (w_v, values)):
            # A weight for each head: (features, hidden, heads), and the cache's (features, tokens, heads).
            by_head = tensor(w.view(kv_heads, features, hidden).transpose(1, 2))
            steps.append(product(by_head, tensor(x), tensor(cache[0, :, past:])))
        turn = lambda t: t.transpose(0, 1)[None]
        steps.append(attend.attention(turn(q), keys, values, turn(out), tokens > 1))
        steps.append(product(weight(w_o), tensor(out.view(tokens, -1)), tensor(y)))

        def ours(keep=(q, out, keys, values)):
            for step in steps:
                step()

        def theirs():
            of_q = linear(x, w_q).view(tokens, heads, features).transpose(0, 1)[None]
            for w, cache in ((w_k, keys), (w_v, values)):
                cache[0, :, past:] = linear(x, w).view(tokens, kv_heads, features).transpose(0, 1)
            o = sdpa(of_q, keys, values, is_causal=tokens > 1, enable_gqa=True)
            return linear(o[0].transpose(0, 1).reshape(tokens, -1), w_o)

        yield f"Llama layer, {tokens} tokens after {past}", label(dtype, flags), ours, theirs, y


def milliseconds(call, count):
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--filter", default="")
    parser.add_argument("--json", type=pathlib.Path, help="the rows for ./run bench's page too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    attend = Attend(arguments.library, arguments.threads)
    groups = [product_rows(attend, 1536, 384, 128), product_rows(attend, 2048, 2048, 512),
              product_rows(attend, 4096, 4096, 1), integer_rows(attend, 1024, 1024, 1024),
              integer_rows(attend, 1536, 384, 128), attention_rows(attend, 8, 8, 1024, 1024, 64, False),
              attention_rows(attend, 1, 1, 1, 65536, 64, False), attention_rows(attend, 4, 1, 1, 65536, 64, False),
              layer_rows(attend, 512, 0), layer_rows(attend, 1, 4095)]
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, threads {arguments.threads}\n")
    print("| work | type | attend, ms | PyTorch, ms | PyTorch / attend |\n|---|---|---|---|---|")
    rows = []
    for group in groups:
        for name, dtype, ours, theirs, result in group:
            if arguments.filter not in name:
                continue
            ours()
            want = theirs().float().reshape(-1)
            error = (result.float().reshape(-1) - want).abs().max() / want.abs().max()
            if error > (0 if result.dtype == torch.int32 else 0.02):
                print(f"| {name} | {dtype} | differs by {error:.1e} | | |")
                continue
            counts = {call: max(1, round(20 / milliseconds(call, 1))) for call in (ours, theirs)}
            times = {call: [] for call in counts}
            for _ in range(arguments.rounds):
                for call, count in counts.items():
                    times[call].append(milliseconds(call, count))
            mine, other = (statistics.median(times[call]) for call in (ours, theirs))
            rows.append([name, dtype, mine, other, other / mine])
            print(f"| {name} | {dtype} | {mine:.3f} | {other:.3f} | {other / mine:.2f} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
