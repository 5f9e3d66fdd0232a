"""What counts as an array, and that its memory is used where it lies."""

import array
import ctypes
import mmap

import numpy as np
import pytest

import attend


class OnlyDlpack:
    """What a tensor of another library shows of itself, in the version of DLPack before 1.0."""

    def __init__(self, values):
        self.values = values

    def __dlpack__(self, stream=None):
        return self.values.__dlpack__()


class VersionedDlpack(OnlyDlpack):
    """The same from version 1.0 on."""

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        assert max_version == (1, 0)
        return self.values.__dlpack__(max_version=max_version)


@pytest.fixture(params=[OnlyDlpack, VersionedDlpack])
def tensor(request):
    if request.param is VersionedDlpack and np.lib.NumpyVersion(np.__version__) < "2.1.0":
        pytest.skip("NumPy's own DLPack has no version before 2.1")
    return request.param


def test_buffers_and_dlpack(draw, tensor):
    x, w = draw(6, 4), draw(6, 4)
    expected = attend.attention(x, w, w)
    assert (attend.attention(tensor(x), tensor(w), memoryview(w)) == expected).all()
    strided = np.zeros((6, 8), x.dtype)[:, ::-2]
    out = tensor(strided)
    assert attend.attention(x, tensor(w[::-1]), w[::-1], out=out) is out
    assert (strided == attend.attention(x, w[::-1], w[::-1])).all()
    assert not strided.base[:, ::2].any()


def test_masks_by_dlpack(draw, tensor):
    if np.lib.NumpyVersion(np.__version__) < "1.25.0":
        pytest.skip("NumPy's DLPack has no bool before 1.25")
    x, mask = draw(6, 4), np.tri(6, dtype=bool)
    assert (attend.attention(x, x, x, mask=tensor(mask)) == attend.attention(x, x, x, causal="top-left")).all()


class Float8(OnlyDlpack):
    """Bytes as a tensor of float8_e4m3fn, which NumPy's own DLPack cannot say."""

    def __dlpack__(self, stream=None):
        capsule = self.values.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        ctypes.c_uint8.from_address(pointer(capsule, b"dltensor") + 20).value = 10
        return capsule


def test_float8_by_dlpack():
    """0x38 is 1, 0x40 is 2, and the sign is the highest bit."""
    keys = np.array([[0x38, 0x40, 0xC0]], np.uint8).T
    wide = np.array([[1, 2, -2]], np.float32).T
    q = np.ones((2, 1), np.float32)
    assert (attend.attention(q, Float8(keys), Float8(keys)) == attend.attention(q, wide, wide)).all()


class WithoutBuffer(mmap.mmap):
    """What JAX's bfloat16 arrays are: the buffer is refused, DLPack is not."""

    def __dlpack__(self, **_):
        return self.values.__dlpack__()

    def view(self, dtype):
        raise AssertionError("would copy")


def test_buffers_that_are_refused(draw):
    x = draw(6, 4)
    tensor = WithoutBuffer(-1, 1)
    tensor.close()
    tensor.values = x
    assert (attend.softmax(tensor) == attend.softmax(x)).all()
    closed = mmap.mmap(-1, 1)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        attend.softmax(closed)


def test_read_only_arrays(draw):
    x = draw(6, 4)
    expected = attend.softmax(x)
    x.flags.writeable = False
    assert (attend.softmax(x) == expected).all()
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
        assert (attend.softmax(VersionedDlpack(x)) == expected).all()
        with pytest.raises(ValueError, match="out: is read-only"):
            attend.softmax(expected, out=VersionedDlpack(x))


def test_modules_of_the_standard_library():
    assert attend.softmax(array.array("d", [0, 0])).tolist() == [0.5, 0.5]
    out = (ctypes.c_float * 2 * 2)()
    assert attend.matmul(np.eye(2, dtype="f4"), np.full((2, 2), 3, "f4"), out=out) is out
    assert list(out[1]) == [3, 3]


def test_nothing_is_copied():
    """Terabytes by a stride of 0: a copy would not fit into memory."""
    k = np.broadcast_to(np.float32(1), (1 << 34, 64))
    q = np.ones((2, 64), np.float32)
    out = attend.attention(q, k, k, kv_lengths=[3])
    assert (out == 1).all()


def test_what_has_no_axes_or_one(draw, dtype):
    v = draw(4)
    assert attend.attention(v, v, v).shape == (4,)
    assert attend.softmax(draw(1)).tolist() == [1]
    two = dtype(2)  # a number broadcasts
    x = draw(3, 4)
    np.testing.assert_allclose(attend.softmax(x, bias=two), attend.softmax(x), rtol=1e-5)
    np.testing.assert_allclose(attend.matmul(x, x.T, bias=two), x @ x.T + two, rtol=1e-5, atol=1e-5)


def test_axes_of_one_element_may_have_any_stride(dtype):
    record = np.zeros(1, [("x", dtype), ("y", "i1")])["x"]
    assert attend.softmax(record).tolist() == [1]


def test_torch(draw):
    torch = pytest.importorskip("torch")
    x = draw(2, 6, 4)
    t = torch.from_numpy(x.copy())
    out = torch.empty(2, 4, 6, dtype=t.dtype).swapaxes(1, 2)
    assert attend.attention(t, t.flip(1), t.flip(1), out=out) is out
    assert (out.numpy() == attend.attention(x, x[:, ::-1].copy(), x[:, ::-1].copy())).all()
    mask = torch.ones(6, 6).tril().to(torch.bool)
    assert (attend.attention(t, t, t, mask=mask.numpy()) == attend.attention(x, x, x, causal="top-left")).all()
    out, lse = attend.attention(t, t, t, return_lse=True, kv_lengths=torch.tensor([6]))
    assert np.shares_memory(np.asarray(attend.softmax(t, out=t)), t.numpy())
