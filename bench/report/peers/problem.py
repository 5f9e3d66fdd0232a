"""What the peers compute: the shapes of attend_bench_attention under its names, their inputs, the formula in f64."""

import dataclasses
import typing

import numpy


class Peer(typing.NamedTuple):
    """`prepare(problem, threads)` gives `call`, which computes, and `result`, which makes [heads, queries, D] of what
    `call` returned; or None, where the peer has no such attention."""

    name: str
    version: str
    prepare: typing.Callable
    kv_bytes: int = 4  # of an element of K and V
    tolerance: float = 1e-4  # of Problem.error()
    kernels: str = ""  # what it says that it runs on this CPU
    left_out: str = ""  # why no row of it is made


@dataclasses.dataclass(frozen=True)
class Shape:
    queries: int
    keys: int
    features: int
    heads: int
    kv_heads: int
    causal: bool = False
    backward: bool = False  # d_q, d_k and d_v, of which d_q is looked at

    @property
    def name(self):
        if self.backward:
            return dataclasses.replace(self, backward=False).name.replace("attention/", "backward/")
        if self.queries == 1:
            return f"decode/f32/keys:{self.keys}/D:{self.features}/heads:{self.heads}/kv:{self.kv_heads}"
        mask = "causal" if self.causal else "full"
        return f"attention/f32/N:{self.keys}/D:{self.features}/heads:{self.heads}/{mask}"

    @property
    def flops(self):
        """Scores and output take 2 D flops each for every pair of a query and a key that it sees."""
        pairs = self.queries * (self.queries + 1) / 2 if self.causal else self.queries * self.keys
        return (10.0 if self.backward else 4.0) * pairs * self.features * self.heads

    def bytes(self, kv_bytes):
        """What must be read or written at least once."""
        return 2 * self.features * (4 * self.queries * self.heads + kv_bytes * self.keys * self.kv_heads)


def fallback(kernels):
    """Why a peer without AVX2 kernels is left out, or "" where the CPU has none either."""
    try:
        with open("/proc/cpuinfo") as cpuinfo:
            has_avx2 = " avx2 " in cpuinfo.read()
    except OSError:
        has_avx2 = False
    return f"it runs its fallback kernels here ({kernels} on a CPU with AVX2)" if has_avx2 else ""


def shapes():
    for features in (64, 128):
        for items in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
            for heads in (1, 8):
                for causal in (False, True):
                    yield Shape(items, items, features, heads, heads, causal)
    for keys, heads, kv_heads in (
        *((keys, *heads) for keys in (1024, 16384) for heads in ((8, 8), (32, 4))),
        *((keys, *heads) for keys in (16384, 131072) for heads in ((1, 1), (8, 1))),
    ):
        yield Shape(1, keys, 128, heads, kv_heads)
    for features in (64, 128):
        for items in (512, 1024, 4096):
            for causal in (False, True):
                yield Shape(items, items, features, 1, 1, causal, True)


def aligned(shape, dtype=numpy.float32):
    """An array that begins with a cache line, as the inputs of ours do."""
    count = int(numpy.prod(shape)) * numpy.dtype(dtype).itemsize
    memory = numpy.zeros(count + 64, numpy.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count].view(dtype).reshape(shape)


class Problem:
    """Standard normal q [heads, queries, D], k and v [kv_heads, keys, D]."""

    def __init__(self, shape):
        self.shape = shape
        self.q = aligned((shape.heads, shape.queries, shape.features))
        self.k, self.v = (aligned((shape.kv_heads, shape.keys, shape.features)) for _ in range(2))
        random = numpy.random.default_rng(1)
        self.d_out = aligned(self.q.shape)
        for operand in (self.q, self.k, self.v, *([self.d_out] if shape.backward else [])):
            random.standard_normal(out=operand, dtype=numpy.float32)
        # Enough rows to notice an error of any tile, few enough to be computed in f64 quickly.
        self.checked = numpy.unique(numpy.linspace(0, shape.queries - 1, 64).astype(int))
        self.want = self.formula(self.checked)

    def formula(self, rows):
        shape = self.shape
        out = numpy.empty((shape.heads, len(rows), shape.features))
        for head in range(shape.heads):
            group = head * shape.kv_heads // shape.heads
            scores = self.q[head, rows].astype(float) @ self.k[group].T / numpy.sqrt(shape.features)
            if shape.causal:
                scores[numpy.arange(shape.keys) > rows[:, None]] = -numpy.inf
            weights = numpy.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            if shape.backward:
                d_weights = self.d_out[head, rows].astype(float) @ self.v[group].T
                d_scores = weights * (d_weights - (weights * d_weights).sum(-1, keepdims=True))
                out[head] = d_scores @ self.k[group] / numpy.sqrt(shape.features)
            else:
                out[head] = weights @ self.v[group]
        return out

    def error(self, result):
        """The largest difference from the formula, in units of its largest result: that of a long cache is small."""
        if result.shape != self.q.shape:
            return numpy.inf
        difference = numpy.abs(result[:, self.checked] - self.want).max() / numpy.abs(self.want).max()
        return numpy.inf if numpy.isnan(difference) else difference
