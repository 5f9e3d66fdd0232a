"""Products of 8-bit integers: exact sums, and scales of powers of two, with which it is the float32 product's."""

import re

import attend
import numpy as np
import pytest

M, K, N = 7, 1100, 5


def draw(kind, *shape):
    limits = np.iinfo(kind)
    return np.random.default_rng().integers(limits.min, limits.max, shape, kind, endpoint=True)


def powers_of_two(*shape):
    return np.exp2(np.random.default_rng().integers(-9, 2, shape)).astype(np.float32)


A, B = draw("i1", 2, M, K), draw("u1", K, N)
A_ZERO, B_ZERO = draw("i1", 2, M, 1).astype("i4"), draw("u1", 1, N).astype("i4")
SUMS = (A.astype("i4") - A_ZERO) @ (B.astype("i4") - B_ZERO)


def test_exact_sums():
    bias = draw("i2", N).astype("i4")
    got = attend.matmul(A, B, a_zero=A_ZERO, b_zero=B_ZERO, bias=bias)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, SUMS + bias)
    out = np.empty((2, M, N), np.int32)
    assert attend.matmul(A, B, out=out) is out
    np.testing.assert_array_equal(out, A.astype("i4") @ B.astype("i4"))


def test_scales():
    a_scale, b_scale = powers_of_two(2, M, 1), powers_of_two(1, N)
    wanted = a_scale * b_scale * SUMS.astype(np.float32)
    got = attend.matmul(A, B, a_scale=a_scale, b_scale=b_scale, a_zero=A_ZERO, b_zero=B_ZERO)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)
    out = np.empty((2, M, N), np.float16)
    attend.matmul(A, B, out=out, a_scale=a_scale, b_scale=b_scale, a_zero=A_ZERO, b_zero=B_ZERO, alpha=2**-16)
    np.testing.assert_array_equal(out, (wanted * np.float32(2**-16)).astype(np.float16))


def test_weights_beside_floats():
    x, w, scale = np.random.default_rng().standard_normal((N, K), np.float32), A[0], powers_of_two(M, 1)
    np.testing.assert_array_equal(attend.matmul(w, x.T, a_scale=scale), attend.matmul(scale * w, x.T))
    narrow = x.astype(np.float16)
    got = attend.matmul(narrow, w.T, b_scale=scale.T)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, attend.matmul(narrow, (scale * w).T))


SCALE, FLOATS = np.ones(1, np.float32), np.ones((K, N), np.float32)


@pytest.mark.parametrize(("says", "argument", "call"), [
    ("a_scale: is given, but out's type is int32, not a floating-point type.", "a_scale",
     lambda: attend.matmul(A, B, out=np.empty((2, M, N), np.int32), a_scale=SCALE)),
    ("b_scale: is given, but b's type is float32, not int8 or uint8.", "b_scale",
     lambda: attend.matmul(A, FLOATS, b_scale=SCALE)),
    ("alpha: is 0.5, but must be 1 where out's type is int32.", "alpha", lambda: attend.matmul(A, B, alpha=0.5)),
    ("b_zero: has 300, which is not in uint8, b's type: 0 to 255.", "b_zero",
     lambda: attend.matmul(A, B, b_zero=np.array([[300] * N], np.int32))),
])
def test_what_is_refused(says, argument, call):
    with pytest.raises(attend.AttendError, match="^" + re.escape(says) + "$") as raised:
        call()
    assert raised.value.argument == argument
