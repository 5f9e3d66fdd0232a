"""attend itself, by ctypes on the same arrays: called from Python as the others are, in turns with them."""

import ctypes

from .problem import Peer, aligned

F32, CAUSAL_TOP_LEFT = 1, 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("dtype", ctypes.c_uint32), ("rank", ctypes.c_uint32),
                ("shape", ctypes.c_int64 * 4), ("stride", ctypes.c_int64 * 4)]


class Options(ctypes.Structure):
    """The head of attend_attention_options and more zeros than any version has fields: those mean the defaults."""

    _fields_ = [("size", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("threads", ctypes.c_int32),
                ("zeros", ctypes.c_char * 500)]


def tensor(x):
    """A C-contiguous array [head, N, D], reversed."""
    heads, items, features = x.shape
    return Tensor(x.ctypes.data, F32, 3, (features, items, heads, 1), (1, features, features * items, 0))


def load(path):
    library = ctypes.CDLL(str(path))
    library.attend_status_string.restype = ctypes.c_char_p

    def prepare(problem, threads):
        options = Options(ctypes.sizeof(Options), CAUSAL_TOP_LEFT if problem.shape.causal else 0, threads)
        out = aligned(problem.q.shape)
        operands = [tensor(x) for x in (problem.q, problem.k, problem.v, out)]
        arguments = [ctypes.byref(x) for x in (*operands, options)]

        def call(keep=operands):  # alive as long as the call
            status = library.attend_attention(*arguments)
            if status:
                raise RuntimeError(library.attend_status_string(status).decode())
            return out

        return call, lambda result: result

    version = library.attend_version()
    return [Peer("attend", f"{version // 10000}.{version // 100 % 100}.{version % 100}", prepare)]
