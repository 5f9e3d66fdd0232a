import numpy as np
import pytest
import reference

import attend


def close(ours, expected, dtype):
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected, rtol=0, atol=reference.TOLERANCE[dtype])


def check(q, k, v, dtype, expected, **options):
    out, lse, p = attend.attention(q, k, v, return_lse=True, return_scores="probabilities", **options)
    for ours, theirs in zip((out, lse, p), expected, strict=True):
        close(ours, theirs, dtype)
    return out


def test_heads_and_batch(draw, dtype):
    q, k, v = draw(2, 6, 5, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 4)  # two query heads to a key head
    check(q, k, v, dtype, reference.attention(q, k, v))
    check(q[0], k[0], v[0], dtype, reference.attention(q[0], k[0], v[0]))
    check(q[0, 0], k[0, 0], v[0, 0], dtype, reference.attention(q[0, 0], k[0, 0], v[0, 0], scale=0.3), scale=0.3)
    one = attend.attention(q, k[:1], v[:1])  # the batch of keys and values is repeated
    close(one, reference.attention(q, np.repeat(k[:1], 2, 0), np.repeat(v[:1], 2, 0))[0], dtype)


def test_views(draw, dtype):
    interleaved = draw(2, 11, 3, 4, 8)  # [batch, item, (q, k, v), head, feature], as one projection leaves it
    q, k, v = (interleaved[:, :, i].swapaxes(1, 2) for i in range(3))
    out = np.full((2, 11, 4, 8), np.nan, dtype)
    returned = attend.attention(q, k, v, out=out.swapaxes(1, 2))
    assert returned.base is out
    close(out.swapaxes(1, 2), reference.attention(q, k, v)[0], dtype)
    close(attend.attention(q[0, 0, ::-2], k[0, 0, 1::3], v[0, 0, 1::3, ::2]),
          reference.attention(q[0, 0, ::-2], k[0, 0, 1::3], v[0, 0, 1::3, ::2])[0], dtype)


def test_causal(draw, dtype):
    q, k, v = draw(3, 6, 8), draw(3, 9, 8), draw(3, 9, 5)
    for causal, offset, options in (("top-left", 0, {}), ("top-left", 2, {"query_offset": 2}), ("bottom-right", 3, {})):
        expected = reference.attention(q, k, v, visible=reference.causal(6, 9, offset))
        out = check(q, k, v, dtype, expected, causal=causal, **options)
        if offset == 0:
            assert (out[:, 0] == v[:, 0]).all()


def test_mask_and_bias(draw, dtype):
    q, k, v = draw(2, 3, 6, 8), draw(2, 3, 9, 8), draw(2, 3, 9, 5)
    mask = draw(2, 1, 6, 9) > 0
    mask[0, 0, 2] = False  # a query that sees nothing
    bias = draw(3, 1, 9)
    bias[1, 0, 4] = -np.inf
    expected = reference.attention(q, k, v, bias=bias, visible=mask)
    out = check(q, k, v, dtype, expected, mask=mask, bias=bias)
    assert not out[0, :, 2].any()
    check(q, k, v, dtype, reference.attention(q, k, v, visible=mask[0, 0].T[::-1].T[::-1]),
          mask=mask[0, 0].T[::-1].T[::-1])


def test_window_lengths_and_offsets(draw, dtype):
    q, k, v = draw(2, 2, 4, 8), draw(2, 2, 9, 8), draw(2, 2, 9, 8)
    offsets, lengths = [1, 4], [9, 6]
    visible = np.stack([
        reference.causal(4, 9, o + 1) & ~reference.causal(4, 9, o - 3) & (np.arange(9) < n)
        for o, n in zip(offsets, lengths, strict=True)
    ])[:, None]
    check(q, k, v, dtype, reference.attention(q, k, v, visible=visible), window=(2, 1), query_offset=offsets,
          kv_lengths=np.array(lengths, np.int32))
    check(q, k, v, dtype, reference.attention(q, k, v, visible=reference.causal(4, 9)), window=(None, 0))


def test_padding_on_the_left(draw, dtype):
    q, k, v = draw(3, 2, 9, 8), draw(3, 2, 9, 8), draw(3, 2, 9, 8)
    firsts, lengths = [0, 3, 5], [9, 8, 5]
    there = np.stack([(np.arange(9) >= f) & (np.arange(9) < n) for f, n in zip(firsts, lengths, strict=True)])
    k, v = (np.where(there[:, None, :, None], x, np.nan).astype(dtype) for x in (k, v))  # it is not read
    visible = there[:, None, None, :] & reference.causal(9, 9)
    expected = reference.attention(q, *(np.nan_to_num(x) for x in (k, v)), visible=visible)
    check(q, k, v, dtype, expected, causal="top-left", kv_first=np.array(firsts, np.int32), kv_lengths=lengths)
    # Each has the bits that it has alone.
    out = attend.attention(q, k, v, causal="top-left", kv_first=firsts, kv_lengths=lengths)
    alone = attend.attention(q[1, :, 3:8], k[1, :, 3:8], v[1, :, 3:8], causal="top-left")
    assert (out[1, :, 3:8] == alone).all() and not out[2].any()
    x, w = draw(3, 9, 8), draw(8, 8)
    x[1, :3] = np.nan
    out = attend.self_attention(x, w, w, w, causal="top-left", kv_first=[0, 3, 0])
    assert (out[1, 3:] == attend.self_attention(x[1, 3:], w, w, w, causal="top-left")).all()


def test_no_bound_on_a_side_of_a_window(draw, dtype):
    q, k, v = draw(4, 8), draw(9, 8), draw(9, 8)
    for side, same in (((None, 0), (-1, 0)), ((2, None), (2, -1)), ((None, None), (-1, -1))):
        assert (attend.attention(q, k, v, window=side) == attend.attention(q, k, v, window=same)).all()
    assert (attend.attention(q, k, v, window=(-1, 0)) == attend.attention(q, k, v, causal="top-left")).all()


def test_masks_that_repeat(draw, dtype):
    """The README's windows of images."""
    images, W, H, N, D = 3, 4, 2, 7, 5
    qkv = draw(images * W, N, 3, H, D)  # as one projection leaves it
    q, k, v = (qkv[:, :, i].swapaxes(1, 2) for i in range(3))
    bias, mask = draw(1, H, N, N), draw(W, 1, N, N) > -0.5
    parts = [slice(i * W, (i + 1) * W) for i in range(images)]
    want = np.concatenate([attend.attention(q[i], k[i], v[i], bias=bias, mask=mask) for i in parts])
    assert (attend.attention(q, k, v, bias=bias, mask=np.tile(mask, (images, 1, 1, 1))) == want).all()
    both = np.where(mask, bias, -np.inf).astype(q.dtype).reshape(W * H, N, N)
    q, k, v = (x.reshape(images, W * H, N, D) for x in (q, k, v))
    assert (attend.attention(q, k, v, bias=both).reshape(images * W, H, N, D) == want).all()


def test_softcap_alibi_and_sinks(draw, dtype):
    q, k, v = draw(2, 3, 6, 8), draw(2, 3, 9, 8), draw(2, 3, 9, 5)
    slopes, sinks = np.array([0.5, 0.25, 0.125], dtype), draw(3)
    check(q, k, v, dtype, reference.attention(q, k, v, softcap=1.5), softcap=1.5)
    check(q, k, v, dtype, reference.attention(q, k, v, slopes=slopes, offset=2), alibi_slopes=slopes, query_offset=2)
    check(q, k, v, dtype, reference.attention(q, k, v, sinks=sinks), sinks=sinks)


def test_stages_of_the_scores(draw, dtype):
    q, k, v = draw(4, 8), draw(6, 8), draw(6, 8)
    scores = q.astype(float) @ k.T.astype(float) / np.sqrt(8)
    visible = reference.causal(4, 6)
    for stage, expected in (("scaled", scores), ("softcapped", 2 * np.tanh(scores / 2)),
                            ("masked", np.where(visible, 2 * np.tanh(scores / 2), -np.inf))):
        close(attend.attention(q, k, v, causal="top-left", softcap=2, return_scores=stage)[1], expected, dtype)


def test_merge(draw, dtype):
    q, k, v = draw(2, 5, 8), draw(2, 12, 8), draw(2, 12, 6)
    a = attend.attention(q, k[:, :5], v[:, :5], return_lse=True)
    b = attend.attention(q, k[:, 5:], v[:, 5:], return_lse=True)
    out, lse = attend.merge(*a, *b)
    assert out is a[0] and lse is a[1]
    expected = reference.attention(q, k, v)
    close(out, expected[0], dtype)
    close(lse, expected[1], dtype)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("project", [False, True])
def test_self_attention(draw, dtype, heads, batch, project):
    h, x = (3,) if heads else (), draw(*(2,) if batch else (), 7, 5)
    w_q, w_k, w_v, w_o = draw(*h, 4, 5), draw(*h, 4, 5), draw(*h, 6, 5), draw(*h, 8, 6)
    b_q, b_k, b_v, b_o = draw(*h, 4, 1), draw(*h, 4, 1), draw(*h, 6, 1), draw(8)
    columns = x.astype(float).swapaxes(-1, -2)[..., None, :, :]  # an axis of heads
    q, k, v = ((w @ columns + b).swapaxes(-1, -2) for w, b in ((w_q, b_q), (w_k, b_k), (w_v, b_v)))
    out, lse, p = reference.attention(q, k, v, visible=reference.causal(7, 7))
    if project:
        out = (w_o @ out.swapaxes(-1, -2)).sum(axis=-3).swapaxes(-1, -2) + b_o
    elif not heads:
        out = out.squeeze(-3)
    if not heads:
        lse, p = lse.squeeze(-2), p.squeeze(-3)
    ours = attend.self_attention(x, w_q, w_k, w_v, b_q, b_k, b_v, causal="top-left", return_lse=True,
                                 return_scores="probabilities", **({"w_o": w_o, "b_o": b_o} if project else {}))
    for mine, theirs in zip(ours, (out, lse, p), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=20 * reference.TOLERANCE[dtype])


def test_empty(dtype):
    q, none = np.ones((3, 4), dtype), np.ones((0, 4), dtype)
    assert not attend.attention(q, none, none).any()
    assert attend.attention(none, q, q).shape == (0, 4)
