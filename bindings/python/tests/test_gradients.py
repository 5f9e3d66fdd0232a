"""attention_backward against the formulas in float64, and against the slopes of attention."""

import ml_dtypes
import numpy as np
import pytest
import reference

import attend


def formula(q, k, v, d_out, *, d_lse=0.0, scale=None, softcap=0.0, sinks=None, **options):
    """(d_q, d_k, d_v, d_bias, d_sinks) of [B, H, N, D] operands, d_bias not summed."""
    q, k, v, d_out = (np.asarray(x, np.float64) for x in (q, k, v, d_out))
    scale = 1 / np.sqrt(q.shape[-1]) if scale is None else scale
    out, lse, p = reference.attention(q, k, v, scale=scale, softcap=softcap, sinks=sinks, **options)
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    delta = (out * d_out).sum(-1) - d_lse
    d_bias = p * (d_out @ v.swapaxes(-1, -2) - delta[..., None])
    d_s = d_bias
    if softcap:
        d_s = d_s * (1 - np.tanh(q @ k.swapaxes(-1, -2) * scale / softcap) ** 2)
    shared = (q.shape[0], q.shape[1] // group, group, k.shape[2])
    d_k, d_v = ((x.swapaxes(-1, -2) @ y).reshape(*shared, -1).sum(2) for x, y in ((d_s * scale, q), (p, d_out)))
    d_sinks = None
    if sinks is not None:
        d_sinks = -(np.exp(np.asarray(sinks, np.float64)[:, None] - lse) * delta).sum((0, 2))
    return scale * d_s @ k, d_k, d_v, d_bias, d_sinks


def close(ours, expected, dtype):
    assert ours.dtype == dtype and ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=0, atol=5 * reference.TOLERANCE[dtype])


def check(q, k, v, d_out, dtype, options, expected):
    """With lse and without, which has the same bits."""
    out, lse = attend.attention(q, k, v, return_lse=True, **options)
    gradients = attend.attention_backward(q, k, v, out, d_out, lse=lse, **options)
    for ours, theirs in zip(gradients, expected, strict=True):
        close(ours, theirs, dtype)
    for ours, again in zip(gradients, attend.attention_backward(q, k, v, out, d_out, threads=1, **options), strict=True):
        assert (ours == again).all()


def test_heads_and_views(draw, dtype):
    q, k, v, d_out = draw(2, 5, 6, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 4), draw(2, 5, 6, 4)
    q, d_out = q.swapaxes(1, 2), d_out.swapaxes(1, 2)[..., ::-1]  # two query heads to a key head
    check(q, k, v, d_out, dtype, {"scale": 0.3}, formula(q, k, v, d_out, scale=0.3)[:3])
    d_q, d_k, d_v, *_ = formula(q[:1], k[:1], v[:1], d_out[:1])
    check(q[0], k[0], v[0], d_out[0], dtype, {}, (d_q[0], d_k[0], d_v[0]))
    one = [x[:1, :1] for x in (q, k, v, d_out)]
    check(*(x[0, 0] for x in one), dtype, {}, [x[0, 0] for x in formula(*one)[:3]])


def test_everything_at_once(draw, dtype):
    q, k, v, d_out, d_lse = draw(2, 4, 6, 8), draw(2, 2, 9, 8), draw(2, 2, 9, 5), draw(2, 4, 6, 5), draw(2, 4, 6)
    bias, sinks, mask = draw(4, 1, 9), draw(4), draw(2, 1, 6, 9) > -1
    bias[1, 0, 4] = -np.inf
    mask[0, 0, 2] = False  # a query that sees nothing, but for the sink
    options = {"bias": bias, "sinks": sinks, "mask": mask, "softcap": 2.0, "causal": "top-left", "query_offset": 2}
    d_q, d_k, d_v, d_bias, d_sinks = formula(q, k, v, d_out, d_lse=d_lse, bias=bias, sinks=sinks, softcap=2.0,
                                             visible=mask & reference.causal(6, 9, 2))
    out, lse = attend.attention(q, k, v, return_lse=True, **options)
    gradients = attend.attention_backward(q, k, v, out, d_out, lse=lse, d_lse=d_lse, d_bias=True, d_sinks=True, **options)
    for ours, theirs in zip(gradients, (d_q, d_k, d_v, d_bias.sum((0, 2))[:, None], d_sinks), strict=True):
        close(ours, theirs, dtype)
    assert not gradients[0][0, :, 2].any()
    # Some of them, into arrays that hold something.
    k_before, bias_before = draw(2, 2, 9, 8), draw(4, 1, 9)
    into_k, into_bias = k_before.copy(), bias_before.copy()
    some = attend.attention_backward(q, k, v, out, d_out, lse=lse, d_lse=d_lse, d_q=False, d_k=into_k, d_v=False,
                                     d_bias=into_bias, accumulate=True, **options)
    assert some[0] is into_k and some[1] is into_bias and len(some) == 2
    close(into_k, d_k + k_before, dtype)
    close(into_bias, d_bias.sum((0, 2))[:, None] + bias_before, dtype)
    # One alone is a tuple, too.
    (d_sinks_alone,) = attend.attention_backward(q, k, v, out, d_out, lse=lse, d_lse=d_lse, d_q=False, d_k=False,
                                                 d_v=False, d_sinks=True, **options)
    assert (d_sinks_alone == gradients[4]).all()


def test_lengths_windows_and_alibi(draw, dtype):
    q, k, v, d_out = draw(2, 2, 6, 8), draw(2, 2, 9, 8), draw(2, 2, 9, 8), draw(2, 2, 6, 8)
    firsts, lengths, slopes = [1, 0], [9, 5], np.array([0.5, 0.25], dtype)
    seen = np.stack([(np.arange(9) >= f) & (np.arange(9) < n) for f, n in zip(firsts, lengths, strict=True)])[:, None, None]
    seen = seen & reference.causal(6, 9, 1) & ~reference.causal(6, 9, -4)
    expected = formula(q, k, v, d_out, visible=seen, slopes=slopes)[:3]
    k, v = (np.where(seen.any((1, 2))[:, None, :, None], x, np.nan).astype(dtype) for x in (k, v))  # it is not read
    check(q, k, v, d_out, dtype, {"kv_first": firsts, "kv_lengths": lengths, "window": (3, 1), "alibi_slopes": slopes},
          expected)


def test_packed_sequences(draw, dtype):
    starts = [0, 3, 3, 10]
    q, k, v, d_out, d_lse = draw(2, 10, 8), draw(2, 10, 8), draw(2, 10, 6), draw(2, 10, 6), draw(2, 10)
    options = {"query_starts": starts, "key_starts": starts, "causal": "bottom-right"}
    out = attend.attention(q, k, v, **options)
    packed = attend.attention_backward(q, k, v, out, d_out, d_lse=d_lse, **options)
    for a, b in ((0, 3), (3, 10)):
        alone = attend.attention_backward(*(x[:, a:b] for x in (q, k, v, out, d_out)), d_lse=d_lse[:, a:b],
                                          causal="bottom-right")
        for ours, theirs in zip(packed, alone, strict=True):
            assert (ours[:, a:b] == theirs).all()


def test_slopes(draw, dtype):
    if dtype != np.float64:
        pytest.skip("differences of float32 say little")
    q, k, v, bias, sinks, d_out = draw(2, 2, 5, 4), draw(2, 2, 6, 4), draw(2, 2, 6, 3), draw(5, 6), draw(2), draw(2, 2, 5, 3)

    def loss():
        out, lse = attend.attention(q, k, v, bias=bias, sinks=sinks, softcap=2, return_lse=True)
        return (out * d_out).sum() + (lse**2).sum() / 2

    out, lse = attend.attention(q, k, v, bias=bias, sinks=sinks, softcap=2, return_lse=True)
    gradients = attend.attention_backward(q, k, v, out, d_out, lse=lse, d_lse=lse, bias=bias, sinks=sinks, softcap=2,
                                          d_bias=True, d_sinks=True)
    for x, gradient in zip((q, k, v, bias, sinks), gradients, strict=True):
        for i in np.ndindex(x.shape):
            there, step = x[i], 1e-5
            x[i] = there + step
            above = loss()
            x[i] = there - step
            below = loss()
            x[i] = there
            assert abs((above - below) / (2 * step) - gradient[i]) < 1e-8


@pytest.mark.parametrize("narrow", [np.float16, ml_dtypes.bfloat16])
def test_narrow_operands(draw, dtype, narrow):
    q, k, v, d_out = (x.astype(narrow) for x in (draw(2, 2, 5, 8), draw(1, 2, 6, 8), draw(2, 2, 6, 8), draw(2, 2, 5, 8)))
    out = attend.attention(q, k, v)
    d_q, d_k, d_v = attend.attention_backward(q, k, v, out, d_out)
    assert (d_q.dtype, d_k.dtype, d_v.dtype) == (narrow, np.float32, narrow)  # d_k sums over the batch
    wide = [np.empty(x.shape, np.float32) for x in (q, k, v)]
    attend.attention_backward(q, k, v, out, d_out, d_q=wide[0], d_k=wide[1], d_v=wide[2])
    assert (d_q == wide[0].astype(narrow)).all() and (d_k == wide[1]).all()
    ours, expected = np.concatenate([np.ravel(x) for x in wide]), formula(q, np.repeat(k, 2, 0), v, d_out)
    theirs = np.concatenate([np.ravel(x) for x in (expected[0], expected[1].sum(0), expected[2])])
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()  # out was rounded
    with pytest.raises(attend.AttendError, match="d_k: is (float16|bfloat16), but a gradient that sums"):
        attend.attention_backward(q, k, v, out, d_out, d_k=np.empty(k.shape, narrow))


X = np.ones((6, 4))


@pytest.mark.parametrize(("words", "call"), [
    ("d_out: has 3 columns", lambda: attend.attention_backward(X, X, X, X, X[:, :3])),
    ("out: has 5 queries", lambda: attend.attention_backward(X, X, X, X[:5], X)),
    ("out: an array is needed", lambda: attend.attention_backward(X, X, X, None, X)),
    ("lse: ", lambda: attend.attention_backward(X, X, X, X, X, lse=np.ones(5))),
    ("d_lse: ", lambda: attend.attention_backward(X, X, X, X, X, d_lse=np.ones(7))),
    ("d_k: has 3 columns", lambda: attend.attention_backward(X, X, X, X, X, d_k=np.ones((6, 3)))),
    ("d_q: .*overlap", lambda: attend.attention_backward(X, X, X, X, X, d_q=X)),
    ("d_bias: is asked for, but not given bias", lambda: attend.attention_backward(X, X, X, X, X, d_bias=True)),
    ("d_sinks: ", lambda: attend.attention_backward(X, X, X, X, X, d_sinks=np.ones(1))),
    ("d_v: with accumulate", lambda: attend.attention_backward(X, X, X, X, X, d_q=False, d_k=False, accumulate=True)),
    ("kv_lengths: 2 numbers for a batch of 1", lambda: attend.attention_backward(X, X, X, X, X, kv_lengths=[1, 2])),
    ("pages: .*no such argument", lambda: attend.attention_backward(X, X, X, X, X, pages=X)),
    ("threads: ", lambda: attend.attention_backward(X, X, X, X, X, threads=-1)),
])
def test_what_is_refused(words, call):
    with pytest.raises((ValueError, TypeError), match=f"^{words}"):
        call()
