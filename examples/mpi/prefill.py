"""attend_mpi from Python, by ctypes and mpi4py: causal attention over the tokens of all ranks, in bits of one process.

    pip install mpi4py numpy
    mpirun -n 4 python prefill.py [libattend_mpi.so]
"""

import ctypes
import sys

import mpi4py
import numpy as np

mpi4py.rc.thread_level = "funneled"
from mpi4py import MPI  # noqa: E402


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_uint32), ("rank", ctypes.c_uint32),
                ("shape", ctypes.c_int64 * 4), ("stride", ctypes.c_int64 * 4)]

    def __init__(self, array):  # [heads, tokens, features] of f32: reversed
        four = ctypes.c_int64 * 4
        strides = [bytes_apart // 4 for bytes_apart in array.strides[::-1]]
        super().__init__(array.ctypes.data, 1, array.ndim, four(*array.shape[::-1]), four(*strides))


HEAD = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("threads", ctypes.c_int32), ("reserved", ctypes.c_uint32),
        ("workspace", ctypes.c_void_p), ("workspace_size", ctypes.c_uint64), ("message", ctypes.c_char_p),
        ("message_size", ctypes.c_uint64), ("executor", ctypes.c_void_p)]


class MpiOptions(ctypes.Structure):
    _fields_ = [*HEAD, ("query_ranges", ctypes.POINTER(ctypes.c_int64)), ("query_range_count", ctypes.c_int64),
                ("key_ranges", ctypes.POINTER(ctypes.c_int64)), ("key_range_count", ctypes.c_int64),
                ("timeout", ctypes.c_double), ("root", ctypes.c_int32), ("reserved2", ctypes.c_uint32)]


class AttentionOptions(ctypes.Structure):
    _fields_ = [*HEAD, ("rest", ctypes.c_uint64 * 23)]  # all off


CAUSAL_TOP_LEFT = 1


def attention(library, comm, q, k, v, ranges):
    """q, k and v are of the tokens at these ranges of positions (first, number): one list for queries and keys."""
    out = np.empty((*q.shape[:2], v.shape[2]), np.float32)
    numbers = (ctypes.c_int64 * (2 * len(ranges)))(*[n for r in ranges for n in r])
    text = ctypes.create_string_buffer(400)
    options = MpiOptions(size=ctypes.sizeof(MpiOptions), message=ctypes.cast(text, ctypes.c_char_p), message_size=len(text),
                         query_ranges=numbers, query_range_count=len(ranges),
                         key_ranges=numbers, key_range_count=len(ranges))
    causal = AttentionOptions(size=ctypes.sizeof(AttentionOptions), flags=CAUSAL_TOP_LEFT)
    tensors = [ctypes.byref(Tensor(x)) for x in (q, k, v, out)]
    if library.attend_mpi_attention(comm.py2f(), *tensors, ctypes.byref(options), ctypes.byref(causal)):
        raise ValueError(text.value.decode())
    return out


def main():
    library = ctypes.CDLL(sys.argv[1] if len(sys.argv) > 1 else "libattend_mpi.so.0")
    comm = MPI.COMM_WORLD
    rank, ranks = comm.rank, comm.size
    heads, features, stripe = 4, 32, 48
    # Eight stripes a rank, there and back again.
    ranges = [((s * ranks + (rank if s % 2 == 0 else ranks - 1 - rank)) * stripe, stripe) for s in range(8)]
    tokens = 8 * stripe * ranks
    everything = np.random.default_rng(1).standard_normal((3, heads, tokens, features), np.float32)
    mine = np.concatenate([np.arange(first, first + count) for first, count in ranges])
    q, k, v = (np.ascontiguousarray(x[:, mine]) for x in everything)
    out = attention(library, comm, q, k, v, ranges)

    # The formula, for some queries of this rank.
    some = np.arange(0, len(mine), 29)
    scores = np.einsum("hqf,hkf->hqk", everything[0][:, mine[some]], everything[1]) / np.sqrt(features)
    scores = np.where(np.arange(tokens) <= mine[some][:, None], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    expected = weights / weights.sum(-1, keepdims=True) @ everything[2]
    worst = comm.allreduce(float(np.abs(out[:, some] - expected).max()), MPI.MAX)
    if rank == 0:
        print(f"{tokens} tokens over {ranks} ranks: off by at most {worst:.1e}")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main())
