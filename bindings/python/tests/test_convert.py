"""Conversion: each number rounded once; scales given and computed."""

import attend
import numpy as np
import pytest


def draw(*shape):
    return np.random.default_rng().standard_normal(shape, np.float32)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 5)])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_floats(kind, shape):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else kind)
    x = draw(*shape)[...] if shape else np.array(1.3, np.float32)
    got = attend.convert(x, dtype)
    assert got.dtype == dtype and got.shape == shape
    np.testing.assert_array_equal(got.astype(np.float64), x.astype(dtype).astype(np.float64))
    np.testing.assert_array_equal(attend.convert(got, np.float32), got.astype(np.float32))


def test_float8():
    f8 = np.dtype(pytest.importorskip("ml_dtypes").float8_e4m3fn)
    x = np.float32([0.3, 17.0, 1e9, -np.inf, np.nan, 2e-3])
    got = attend.convert(x, f8).astype(np.float32)
    np.testing.assert_array_equal(got, np.float32([0.3125, 16, 448, -448, np.nan, 2**-9]))


def test_integers():
    x = np.array([0.5, 1.5, -2.5, 300, -1e10, np.nan])
    np.testing.assert_array_equal(attend.convert(x, "int8"), np.int8([0, 2, -2, 127, -128, 0]))
    np.testing.assert_array_equal(attend.convert(x, "uint8"), np.uint8([0, 2, 0, 255, 0, 0]))
    out = np.empty(6, np.int32)
    assert attend.convert(x[::-1], out=out) is out
    np.testing.assert_array_equal(out, np.int32([0, -(2**31), 300, -2, 2, 0]))


@pytest.mark.parametrize("axis", [-1, 1, 0, (0, 2), (0, 1, 2)])
def test_computed_scales(axis):
    x = draw(4, 5, 6)
    x[0, :, :] = 0
    got, scale = attend.convert(x, np.int8, scale_axis=axis)
    largest = np.abs(x).max(axis=axis, keepdims=True)
    wanted = np.where(largest == 0, np.float32(1), largest / np.float32(127))
    np.testing.assert_array_equal(scale, wanted)
    np.testing.assert_array_equal(got, np.clip(np.rint(x / wanted), -127, 127).astype(np.int8))
    again = attend.convert(got, np.float32, scale=scale)
    np.testing.assert_array_equal(again, wanted * got)
    np.testing.assert_array_equal(attend.convert(x, np.int8, scale=scale), got)


def test_a_cache_of_8_bits():
    q, k, v = draw(2, 3, 8), draw(2, 40, 8), draw(2, 40, 8)
    of_k, k_scale = attend.convert(k, np.int8, scale_axis=-1)
    of_v, v_scale = attend.convert(v, np.int8, scale_axis=-1)
    got = attend.attention(q, of_k, of_v, k_scale=k_scale, v_scale=v_scale)
    np.testing.assert_allclose(got, attend.attention(q, k, v), atol=0.05)


def test_what_is_refused():
    x = draw(2, 3)
    for arguments, error, said in [
        ({}, TypeError, "dtype: a type is needed"),
        ({"dtype": "f8", "out": x}, TypeError, "dtype: out has its own"),
        ({"dtype": "i1", "scale": x, "scale_axis": 0}, TypeError, "scale: it is computed"),
        ({"dtype": "i1", "scale_axis": 2}, ValueError, "scale_axis: 2, but x has 2 axes"),
        ({"dtype": "f8", "scale_axis": 0}, attend.AttendError, "scale_axis: .* out's type is float64"),
        ({"dtype": "bool"}, attend.AttendError, "out: is bool"),
        ({"out": np.empty((3, 2))}, attend.AttendError, r"out: has 2 columns, not x.s 3: x \[2, 3\], out \[3, 2\]"),
        ({"dtype": "i1", "axis": 0}, TypeError, r"axis: convert\(\) has no such argument"),
    ]:
        with pytest.raises(error, match=said):
            attend.convert(x, **arguments)
