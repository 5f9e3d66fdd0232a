"""attend itself, by ctypes on the same arrays: called from Python as the others are, in turns with them."""

import ctypes

from .problem import Peer, aligned

F32, CAUSAL_TOP_LEFT = 1, 1
LSE = 144  # where attend_attention_options has it


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


def prepare_backward(library, problem, threads):
    """The gradients, out and lse being those of a forward call; of them d_q is shown."""
    head = Options(ctypes.sizeof(Options), 0, threads)
    forward = Options(ctypes.sizeof(Options), CAUSAL_TOP_LEFT if problem.shape.causal else 0, 0)
    arrays = [problem.q, problem.k, problem.v, aligned(problem.q.shape), problem.d_out,
              *(aligned(x.shape) for x in (problem.q, problem.k, problem.v))]
    operands = [tensor(x) for x in arrays]
    lse = aligned((*problem.q.shape[:2], 1))
    given = tensor(lse)
    ctypes.memmove(ctypes.addressof(forward) + LSE, ctypes.byref(ctypes.c_void_p(ctypes.addressof(given))), 8)
    check(library, library.attend_attention(*(ctypes.byref(x) for x in (*operands[:4], forward))))
    arguments = [ctypes.byref(x) for x in (*operands, head, forward)]

    def call(keep=(operands, lse, given)):  # alive as long as the call
        check(library, library.attend_attention_backward(*arguments))
        return arrays[5]

    return call, lambda result: result


def check(library, status):
    if status:
        raise RuntimeError(library.attend_status_string(status).decode())


def load(path):
    library = ctypes.CDLL(str(path))
    library.attend_status_string.restype = ctypes.c_char_p

    def prepare(problem, threads):
        if problem.shape.backward:
            return prepare_backward(library, problem, threads)
        options = Options(ctypes.sizeof(Options), CAUSAL_TOP_LEFT if problem.shape.causal else 0, threads)
        out = aligned(problem.q.shape)
        operands = [tensor(x) for x in (problem.q, problem.k, problem.v, out)]
        arguments = [ctypes.byref(x) for x in (*operands, options)]

        def call(keep=operands):  # alive as long as the call
            check(library, library.attend_attention(*arguments))
            return out

        return call, lambda result: result

    version = library.attend_version()
    return [Peer("attend", f"{version // 10000}.{version // 100 % 100}.{version % 100}", prepare)]
