import numpy as np
import pytest
import reference

import attend


def close(ours, expected, dtype):
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=reference.TOLERANCE[dtype])


def test_matmul(draw, dtype):
    a, b = draw(2, 3, 5, 7), draw(3, 7, 4)
    close(attend.matmul(a, b), a.astype(float) @ b.astype(float), dtype)
    bias, out = draw(4), draw(5, 4)
    expected = 2.5 * (a[0, 0].astype(float) @ b[0].astype(float)) - 0.5 * out.astype(float) + bias
    assert attend.matmul(a[0, 0], b[0], out=out, bias=bias, alpha=2.5, beta=-0.5) is out
    close(out, expected, dtype)


def test_matmul_of_views(draw, dtype):
    big = draw(40, 60)
    a, b = big[30:4:-2, 3:24:3], big.T[10:17, ::4]
    assert not a.flags.contiguous and not b.flags.contiguous
    out = np.zeros((2 * a.shape[0], b.shape[1]), dtype)
    attend.matmul(a, b, out=out[::2])
    close(out[::2], a.astype(float) @ b.astype(float), dtype)
    assert not out[1::2].any()


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_softmax_along_every_axis(draw, dtype, axis):
    x = draw(5, 6, 7)
    expected, expected_lse = reference.softmax(3 * x.astype(float), axis)
    y, lse = attend.softmax(x, axis=axis, scale=3, return_lse=True)
    close(y, expected, dtype)
    close(lse, expected_lse, dtype)
    close(attend.softmax(x, axis=axis, scale=3, log=True), np.log(expected), dtype)
    assert attend.softmax(x, axis=axis, scale=3, out=x) is x
    close(x, expected, dtype)


def test_softmax_of_views_masks_and_biases(draw, dtype):
    x = draw(4, 30, 9)[::-2, 3::4, 1:]
    mask = draw(x.shape[1], 1) > -0.5
    bias = draw(x.shape[0], 1, 8)
    bias[0, 0, 2] = -np.inf
    for axis in range(3):
        scores = np.where(mask, x.astype(float) + bias, -np.inf)
        close(attend.softmax(x, axis=axis, mask=mask, bias=bias), reference.softmax(scores, axis)[0], dtype)
    nothing = attend.softmax(x, mask=np.zeros(8, bool), return_lse=True)
    assert not nothing[0].any() and np.isneginf(nothing[1]).all()


@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_softmax_backward_along_every_axis(draw, dtype, axis):
    x, d_y, d_bias = draw(5, 6, 7), draw(5, 6, 7), draw(5, 6, 7)
    y, lse = attend.softmax(x, axis=axis, scale=3, return_lse=True)
    d_lse = np.ascontiguousarray(d_bias.sum(axis=axis))
    p, d = y.astype(float), d_y.astype(float)
    expected = 3 * p * (d - (p * d).sum(axis, keepdims=True) + np.expand_dims(d_lse.astype(float), axis))
    d_x = attend.softmax_backward(y, d_y, axis=axis, scale=3, d_lse=d_lse)
    close(d_x, expected, dtype)
    with_log = 3 * (d - p * d.sum(axis, keepdims=True))
    close(attend.softmax_backward(np.log(y), d_y, axis=axis, scale=3, log=True), with_log, dtype)
    out = d_bias.copy()
    assert attend.softmax_backward(y, d_y, axis=axis, scale=3, d_lse=d_lse, out=out, accumulate=True) is out
    close(out, expected + d_bias, dtype)
    assert attend.softmax_backward(y, d_y, axis=axis, scale=3, d_lse=d_lse, out=d_y) is d_y
    assert np.array_equal(d_y, d_x)


def test_softmax_backward_says_what_is_wrong():
    y = np.full((2, 4), 0.25, np.float32)
    with pytest.raises(TypeError, match="accumulate: needs an out"):
        attend.softmax_backward(y, y, accumulate=True)
    with pytest.raises(ValueError, match="axis: 2, but y has 2 axes"):
        attend.softmax_backward(y, y, axis=2)
    with pytest.raises(ValueError, match="d_y: "):
        attend.softmax_backward(y, y[:, :3])
    with pytest.raises(ValueError, match="out: overlaps d_y's memory"):
        z = np.zeros(9, np.float32)
        attend.softmax_backward(y, z[:8].reshape(2, 4), out=z[1:].reshape(2, 4))


def test_softmax_does_not_overflow(dtype):
    y = attend.softmax(np.array([1000, 0, -np.inf], dtype))
    assert y.tolist() == [1, 0, 0]
