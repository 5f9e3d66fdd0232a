"""attend.torch.scaled_dot_product_attention against PyTorch's own, and what attend adds against a formula."""

import threading

import attend
import attend.torch
import pytest
import torch
import torch.nn.functional as F
from attend.torch import scaled_dot_product_attention as sdpa
from torch.nn.attention.bias import causal_lower_right, causal_upper_left

TYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def draw(*shapes, dtype=torch.float32):
    return [torch.randn(shape).to(dtype) for shape in shapes]


def assert_close(got, expected, dtype=torch.float32):
    assert got.dtype == expected.dtype and got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def formula(q, k, v, mask=None, softcap=0.0, sinks=None, scale=None):
    """out and lse in float64 of [B, H, N, D] operands with as many heads each."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    return (weights[..., :-1] if sinks is not None else weights) @ v, torch.logsumexp(scores, -1)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (2, 1, 2, 3)])
def test_ranks_and_types(lead, dtype):
    q, k, v = draw((*lead, 7, 16), (*lead, 9, 16), (*lead, 9, 8), dtype=dtype)
    assert_close(sdpa(q, k, v), F.scaled_dot_product_attention(q, k, v), dtype)
    assert_close(sdpa(q, k, v, scale=0.3, is_causal=True), F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True),
                 dtype)


@pytest.mark.parametrize("shapes", [
    ((1, 4, 5, 8), (3, 4, 6, 8), (3, 4, 6, 8)), ((3, 4, 5, 8), (1, 4, 6, 8), (3, 4, 6, 8)),
    ((3, 4, 5, 8), (3, 1, 6, 8), (3, 1, 6, 8)), ((3, 1, 5, 8), (3, 4, 6, 8), (3, 4, 6, 8)),
    ((3, 4, 5, 8), (1, 1, 6, 8), (1, 4, 6, 8)), ((4, 5, 8), (1, 6, 8), (4, 6, 8)),
    ((2, 1, 4, 5, 8), (1, 3, 4, 6, 8), (2, 3, 1, 6, 8)), ((1, 2, 5, 8), (1, 2, 6, 8), (3, 2, 6, 8)),
])
def test_broadcasting(shapes):
    q, k, v = draw(*shapes)
    assert_close(sdpa(q, k, v), torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v)


@pytest.mark.parametrize("shape", [(5, 6), (1, 6), (3, 5, 6), (1, 3, 5, 6), (2, 1, 1, 6), (2, 1, 5, 1), (2, 3, 5, 6)])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_masks(shape, kind):
    q, k, v = draw((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    mask = torch.rand(shape) < 0.6 if kind == "bool" else torch.randn(shape).masked_fill(torch.rand(shape) < 0.3, -torch.inf)
    assert_close(sdpa(q, k, v, attn_mask=mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask).nan_to_num(0.0))
    five = [x.expand(2, *x.shape) for x in (q, k, v)]
    assert_close(sdpa(*five, attn_mask=mask), F.scaled_dot_product_attention(*five, attn_mask=mask).nan_to_num(0.0))


@pytest.mark.parametrize("queries, keys", [(4, 4), (3, 7), (7, 3), (1, 9)])
def test_causal(queries, keys):
    q, k, v = draw((2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8))
    assert_close(sdpa(q, k, v, is_causal=True), F.scaled_dot_product_attention(q, k, v, is_causal=True))
    for variant in (causal_upper_left, causal_lower_right):
        bias = variant(queries, keys)
        assert_close(sdpa(q, k, v, attn_mask=bias), formula(q, k, v, bias._materialize())[0].float())


@pytest.mark.parametrize("key_heads, value_heads", [(2, 2), (1, 1), (3, 3), (2, 3), (6, 2)])
def test_grouped_heads(key_heads, value_heads):
    q, k, v = draw((2, 6, 5, 8), (2, key_heads, 7, 8), (2, value_heads, 7, 8))
    expected = formula(q, *(x.repeat_interleave(6 // x.shape[1], 1) for x in (k, v)))[0].float()
    assert_close(sdpa(q, k, v, enable_gqa=True), expected)
    five = [x[None] for x in (q, k, v)]
    assert_close(sdpa(*five, enable_gqa=True), expected[None])


def test_strides_views_and_parameters():
    x = torch.randn(2, 5, 3 * 4 * 8)
    q, k, v = (part.view(2, 5, 4, 8).transpose(1, 2) for part in x.chunk(3, -1))
    out = sdpa(q, k, v)
    assert_close(out, F.scaled_dot_product_attention(q, k, v))
    complex_ = torch.randn(2, 4, 5, 8, dtype=torch.complex64)
    negated = complex_.conj().imag
    assert negated.is_neg()
    assert_close(sdpa(negated, negated, negated), F.scaled_dot_product_attention(*[negated.resolve_neg()] * 3))
    assert_close(attend.torch.linear(negated, torch.eye(8)), negated.resolve_neg())
    assert_close(attend.torch.softmax(negated), torch.softmax(negated, -1))
    parameter = torch.nn.Parameter(q.clone())
    with torch.no_grad():
        assert_close(sdpa(parameter, k, v), out)
    inner = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    assert sdpa(*inner).transpose(1, 2).is_contiguous()


def test_what_attend_adds():
    q, k, v = draw((2, 4, 6, 8), (2, 4, 9, 8), (2, 4, 9, 8))
    i, j = torch.arange(6)[:, None], torch.arange(9)
    sinks = torch.randn(4)
    lengths, first = torch.tensor([9, 4]), torch.tensor([2, 0])
    exist = (j < lengths.view(2, 1, 1, 1)) & (j >= first.view(2, 1, 1, 1))
    offset = torch.tensor([3, -1]).view(2, 1, 1, 1)
    for options, mask, softcap, sink in [
            ({"window": (2, 1)}, (j >= i - 2) & (j <= i + 1), 0.0, None),
            ({"window": (None, 1), "query_offset": 2}, j <= i + 3, 0.0, None),
            ({"softcap": 1.5, "sinks": sinks}, None, 1.5, sinks),
            ({"lengths": lengths, "first": [2, 0]}, exist, 0.0, None),
            ({"query_offset": offset.view(2), "is_causal": True, "sinks": sinks}, j <= i + offset, 0.0, sinks),
            ({"lengths": lengths, "first": first, "is_causal": True, "window": (3, None), "softcap": 2.0, "sinks": sinks},
             exist & (j <= i) & (j >= i - 3), 2.0, sinks)]:
        out, lse = sdpa(q, k, v, return_lse=True, **options)
        expected, expected_lse = formula(q, k, v, mask, softcap, sink)
        assert_close(out, expected.float())
        assert_close(lse, expected_lse.float())


def test_packed():
    q, k, v = draw((4, 12, 8), (2, 15, 8), (2, 15, 8))
    starts, key_starts = [0, 5, 5, 12], [0, 7, 8, 15]
    out, lse = sdpa(q, k, v, enable_gqa=True, is_causal=True, query_starts=starts, key_starts=torch.tensor(key_starts),
                    return_lse=True)
    for b in range(3):
        own = slice(starts[b], starts[b + 1])
        keys = slice(key_starts[b], key_starts[b + 1])
        alone = sdpa(q[:, own], k[:, keys], v[:, keys], enable_gqa=True, is_causal=True, return_lse=True)
        assert torch.equal(out[:, own], alone[0]) and torch.equal(lse[:, own], alone[1])


def test_what_is_refused():
    q = torch.randn(2, 4, 5, 8)
    k = torch.randn(2, 2, 5, 8)
    for error, named, call in [
            (ValueError, "dropout_p", lambda: sdpa(q, q, q, dropout_p=0.1)),
            (ValueError, "attn_mask", lambda: sdpa(q, q, q, torch.ones(5, 5, dtype=torch.bool), is_causal=True)),
            (TypeError, "attn_mask", lambda: sdpa(q, q, q, torch.ones(5, 5, dtype=torch.int32))),
            (TypeError, "attn_mask", lambda: sdpa(q, q, q, torch.ones(5, 5, dtype=torch.float64))),
            (ValueError, "key", lambda: sdpa(q, k, k)),
            (attend.AttendError, "key", lambda: sdpa(q, q[..., :4], q)),
            (attend.AttendError, "attn_mask", lambda: sdpa(q, q, q, torch.ones(4, 4, dtype=torch.bool))),
            (TypeError, "query", lambda: sdpa(q.int(), q, q)),
            (ValueError, "lengths", lambda: sdpa(q[0], q[0], q[0], lengths=[5])),
            (ValueError, "attn_mask", lambda: sdpa(q[0], q[0], q[0], torch.ones(5, 5), query_starts=[0, 5], key_starts=[0, 5])),
            (TypeError, "lengths", lambda: sdpa(q, q, q, lengths=torch.tensor([1.0, 2.0]))),
            (ValueError, "kv_lengths", lambda: sdpa(q, q, q, lengths=[1])),
    ]:
        with pytest.raises(error, match=named):
            call()


def test_nobody_reaches_memory_by_a_tuple():
    with pytest.raises(TypeError):
        attend.softmax((0, 0, 1, (4,), (1,)))


def test_threads_follow_pytorch():
    q = torch.randn(1, 8, 256, 64)
    seen = []
    import attend.torch._operators as operators

    real = operators._native_attention
    before = torch.get_num_threads()
    try:
        operators._native_attention = lambda *args: (seen.append(args[4]), real(*args))[1]
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sdpa(q, q, q)
    finally:
        operators._native_attention = real
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_many_threads_at_once():
    q, k, v = draw((1, 2, 64, 32), (1, 2, 64, 32), (1, 2, 64, 32))
    expected, results = sdpa(q, k, v), [None] * 4

    def work(i):
        results[i] = [sdpa(q, k, v) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(out, expected) for result in results for out in result)
