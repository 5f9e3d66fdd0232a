import ctypes
import importlib.metadata

import numpy as np
import pytest

import attend

X = np.ones((6, 4))
NULL_POINTER, INVALID_DTYPE, INVALID_SHAPE, INVALID_STRIDE, INVALID_VALUE, OVERLAP, UNSUPPORTED, UNKNOWN_ISA = (
    1, 4, 5, 6, 7, 9, 10, 13)


@pytest.mark.parametrize(("argument", "reason", "call"), [
    ("k", INVALID_SHAPE, lambda: attend.attention(X, X[:, :3], X)),
    ("v", INVALID_DTYPE, lambda: attend.attention(X, X, X.astype(np.float32))),
    ("out", INVALID_STRIDE, lambda: attend.attention(X, X, X, out=np.lib.stride_tricks.as_strided(
        np.zeros(4), (6, 4), (0, 8), writeable=True))),
    ("out", OVERLAP, lambda: attend.attention(X, X, X, out=X)),
    ("q", UNSUPPORTED, lambda: attend.attention(*[X.astype(np.float16)] * 3)),
    ("scale", INVALID_VALUE, lambda: attend.attention(X, X, X, scale=np.inf)),
    ("softcap", INVALID_VALUE, lambda: attend.attention(X, X, X, softcap=-1)),
    ("mask", INVALID_SHAPE, lambda: attend.attention(X, X, X, mask=np.ones((6, 5), bool))),
    ("mask", INVALID_DTYPE, lambda: attend.attention(X, X, X, mask=X @ X.T)),
    ("bias", INVALID_SHAPE, lambda: attend.attention(X, X, X, bias=np.ones((5, 6)))),
    ("window", INVALID_VALUE, lambda: attend.attention(X, X, X, window=(-2, 0))),
    ("kv_lengths", INVALID_VALUE, lambda: attend.attention(X, X, X, kv_lengths=[7])),
    ("query_offset", INVALID_VALUE, lambda: attend.attention(X, X, X, causal="bottom-right", query_offset=1)),
    ("query_offset", INVALID_VALUE, lambda: attend.attention(X, X, X, causal="bottom-right", query_offset=[1])),
    ("threads", INVALID_VALUE, lambda: attend.attention(X, X, X, threads=-1)),
    ("alibi_slopes", INVALID_SHAPE, lambda: attend.attention(X, X, X, alibi_slopes=np.ones(2))),
    ("a", INVALID_DTYPE, lambda: attend.matmul(X.astype(np.float32), X.T)),
    ("a", INVALID_SHAPE, lambda: attend.matmul(X, X)),
    ("b", INVALID_SHAPE, lambda: attend.matmul(X, X.T, out=np.ones((6, 5)))),
    ("out", INVALID_SHAPE, lambda: attend.softmax(X, out=np.ones((6, 5)))),
    ("mask", INVALID_SHAPE, lambda: attend.softmax(X, mask=np.ones(3, bool))),
    ("w_k", INVALID_SHAPE, lambda: attend.self_attention(X, X, X[:, :3], X)),
    ("b_o", INVALID_VALUE, lambda: attend.self_attention(X, X, X, X, b_o=np.ones(4))),
    ("lse_b", INVALID_SHAPE, lambda: attend.merge(X.copy(), np.ones(6), X, np.ones(5))),
    ("out_a", NULL_POINTER, lambda: attend.merge(None, np.ones(6), X, np.ones(6))),
    ("threads", INVALID_VALUE, lambda: attend.set_threads(-1)),
    ("name", UNKNOWN_ISA, lambda: attend.set_isa("mmx")),
])
def test_what_attend_rejects(argument, reason, call):
    before = X.copy()
    with pytest.raises(attend.AttendError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert (caught.value.argument, caught.value.reason) == (argument, reason)
    assert str(caught.value).startswith(f"{argument}: ") and len(str(caught.value)) > len(argument) + 10
    assert (X == before).all()


MISALIGNED = np.zeros(6 * 4 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(6, 4)


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(("error", "words", "call"), [
    (TypeError, "q: an array is needed", lambda: attend.attention(None, X, X)),
    (TypeError, "k: an array is needed", lambda: attend.attention(X, [[1.0]], X)),
    (TypeError, "v: elements must be", lambda: attend.attention(X, X, X.astype(int))),
    (TypeError, "q: elements must be", lambda: attend.attention(X.astype(">f8"), X, X)),
    (ValueError, "q: has 5 axes", lambda: attend.attention(X[None, None, None], X, X)),
    (ValueError, "q: its memory is not aligned", lambda: attend.attention(MISALIGNED, X, X)),
    (ValueError, "stride of axis 0", lambda: attend.softmax(np.zeros(3, "f8,i1")["f0"])),
    (ValueError, "out: is read-only", lambda: attend.softmax(X, out=read_only(X))),
    (ValueError, "a and b need at least two axes", lambda: attend.matmul(X[0], X.T)),
    (ValueError, "beta: needs an out", lambda: attend.matmul(X, X.T, beta=1)),
    (ValueError, "axis: 2", lambda: attend.softmax(X, axis=2)),
    (ValueError, "mask: has more axes", lambda: attend.softmax(X, mask=np.ones((1, 6, 4), bool))),
    (ValueError, "scale: must not be 0", lambda: attend.softmax(X, scale=0)),
    (ValueError, "scale: must not be 0", lambda: attend.attention(X, X, X, scale=0)),
    (ValueError, "causal: must be one of", lambda: attend.attention(X, X, X, causal=True)),
    (ValueError, "return_scores: must be one of", lambda: attend.attention(X, X, X, return_scores="all")),
    (ValueError, "kv_lengths: 2 numbers for a batch of 1", lambda: attend.attention(X, X, X, kv_lengths=[1, 2])),
    (TypeError, "kv_lengths: integers are needed", lambda: attend.attention(X, X, X, kv_lengths=[1.5])),
    (OverflowError, "threads: too large", lambda: attend.attention(X, X, X, threads=2**31)),
])
def test_what_the_binding_rejects(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_errors_of_the_producer():
    class Elsewhere:
        def __dlpack__(self):
            raise BufferError("on another device")

    with pytest.raises(BufferError, match="on another device"):
        attend.attention(Elsewhere(), X, X)


class Pretended:
    """A DLPack capsule of X with one field of its DLTensor changed."""

    def __init__(self, offset, kind, value):
        self.change = offset, kind, value

    def __dlpack__(self):
        capsule = X.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        offset, kind, value = self.change
        kind.from_address(pointer(capsule, b"dltensor") + offset).value = value
        return capsule


@pytest.mark.parametrize(("error", "words", "change"), [
    (ValueError, "q: is not in the memory of the CPU", (8, ctypes.c_int32, 2)),
    (ValueError, "q: has 5 axes", (16, ctypes.c_int32, 5)),
    (TypeError, "q: elements must be", (20, ctypes.c_uint8, 5)),
    (attend.AttendError, "q: not supported by this version", (20, ctypes.c_uint32, 4 | 16 << 8 | 1 << 16)),
])
def test_other_tensors(error, words, change):
    with pytest.raises(error, match=words):
        attend.attention(Pretended(*change), X, X)


@pytest.mark.parametrize(("header", "library", "fits"), [
    (100, 100, True), (100, 101, True), (101, 100, False), (100, 200, False), (200, 100, False), (100, 10100, False),
    (10000, 10200, True), (10200, 10000, False), (10000, 20000, False),
])
def test_version_check(header, library, fits):
    if fits:
        attend._require_compatible(header, library)
    else:
        with pytest.raises(ImportError, match=attend._dotted(library)):
            attend._require_compatible(header, library)


def test_settings():
    assert attend.version() >= tuple(map(int, attend.__version__.split(".")))
    assert importlib.metadata.version("attend") == attend.__version__
    assert attend.isa() == attend.isa_names()[0]
    try:
        attend.set_isa(attend.isa_names()[-1])
        assert attend.isa() == attend.isa_names()[-1]
        attend.set_threads(3)
        assert attend.threads() == 3
    finally:
        attend.set_isa(None)
        attend.set_threads(0)
