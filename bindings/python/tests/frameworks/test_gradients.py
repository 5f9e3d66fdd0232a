"""Gradients by attend's own backward pass: what they are worth beside PyTorch's, what is refused, what memory they take."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from attend.torch import _operators as operators
from attend.torch import scaled_dot_product_attention as sdpa

BACKWARD = torch.ops.attend.attention_backward.default


def drawn(*shapes, dtype=torch.float32):
    return [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]


def test_of_broadcast_batches_and_biases_in_narrow_types():
    for dtype in (torch.bfloat16, torch.float16):
        shapes = (3, 4, 5, 8), (1, 4, 6, 8), (1, 4, 6, 8), (4, 1, 6)
        q, k, v, bias = (x.detach().to(dtype).requires_grad_() for x in drawn(*shapes))
        got = torch.autograd.grad(sdpa(q, k, v, attn_mask=bias).float().square().sum(), (q, k, v, bias))
        wide = [x.detach().float().requires_grad_() for x in (q, k, v, bias)]
        expected = torch.autograd.grad(F.scaled_dot_product_attention(
            wide[0], *(x.expand(3, 4, 6, 8) for x in wide[1:3]), attn_mask=wide[3]).square().sum(), wide)
        for a, b in zip(got, expected, strict=True):
            assert a.dtype == dtype and a.shape == b.shape
            assert (a.float() - b).abs().max() < 0.03 * b.abs().max()


def test_of_an_lse_alone_and_of_both():
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8), dtype=torch.float64)
    scores = q @ k.transpose(-1, -2) / 8**0.5
    out, lse = sdpa(q, k, v, return_lse=True)
    of_lse = torch.autograd.grad(torch.logsumexp(scores, -1).square().sum(), (q, k), retain_graph=True)
    for a, b in zip(torch.autograd.grad(lse.square().sum(), (q, k), retain_graph=True), of_lse, strict=True):
        torch.testing.assert_close(a, b)
    both = torch.autograd.grad(lse.square().sum() + out.sum(), (q, k, v))
    expected = torch.autograd.grad(torch.logsumexp(scores, -1).square().sum() + (torch.softmax(scores, -1) @ v).sum(), (q, k, v))
    for a, b in zip(both, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_only_what_is_wanted_is_computed():
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    (d_k,) = torch.autograd.grad(sdpa(q.detach(), k, v.detach()).sum(), k)
    torch.testing.assert_close(d_k, torch.autograd.grad(sdpa(q, k, v).sum(), k)[0], atol=0, rtol=0)
    out, lse = sdpa(q, k, v, return_lse=True)
    d_out = torch.randn_like(out)
    rest = (None,) * 8 + (0, 0, None, 0.0, 0, 0)
    found = BACKWARD(d_out, None, out, lse, q, k, v, *rest, 0b10)
    assert [x.numel() for x in found] == [0, k.numel(), 0, 0, 0]
    for wanted in (0b10, 0b111):
        torch.library.opcheck(BACKWARD, tuple(x.detach() if isinstance(x, torch.Tensor) else x
                                              for x in (d_out, lse, out, lse, q, k, v, *rest, wanted)))


def test_the_same_bits_for_any_number_of_threads():
    q, k, v = drawn((1, 1, 300, 64), (1, 1, 700, 64), (1, 1, 700, 64))
    found, threads = [], torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(torch.autograd.grad(sdpa(q, k, v, is_causal=True).sin().sum(), (q, k, v)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


def test_what_is_hidden_has_no_gradient():
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    with torch.no_grad():
        k[1, :, 4:] = float("nan")
        v[1, :, 4:] = float("nan")
    for x in torch.autograd.grad(sdpa(q, k, v, lengths=[6, 4]).sum(), (q, k, v)):
        assert x.isfinite().all()
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[2] = False
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    assert not torch.autograd.grad(sdpa(q, k, v, attn_mask=mask).sum(), q)[0][:, :, 2].any()


def second_of(function):
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    (d_q,) = torch.autograd.grad(function(q, k, v).square().sum(), q, create_graph=True)
    torch.autograd.grad(d_q.square().sum(), k)


def test_second_derivatives_are_refused():
    words = "attention has no second derivatives"
    with pytest.raises(NotImplementedError, match=words):
        second_of(sdpa)
    with pytest.raises(NotImplementedError, match=words):
        second_of(lambda q, k, v: torch.ops.attend.attention(q, k, v, *(None,) * 8, 0, 0, None, 0.0, 0, 0)[0])
    q = torch.randn(3, 5, 8)

    def loss(q):
        return sdpa(q, q, q).square().sum()

    assert torch.func.grad(loss)(q).isfinite().all()
    with pytest.raises(NotImplementedError, match=words):
        torch.func.grad(lambda q: torch.func.grad(loss)(q).square().sum())(q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_as_they_are_and_described_give_the_same_bits(dtype, monkeypatch):
    """Of torch with DLPack's exchange and of one without, of views and of a gradient whose sign is still to be turned."""
    q, k, v = (x.detach().to(dtype).transpose(1, 2).requires_grad_() for x in drawn((2, 5, 4, 8), (1, 6, 2, 8), (1, 6, 2, 8)))
    sinks = torch.randn(4, dtype=dtype).requires_grad_()
    d_out = torch.randn((2, 4, 5, 8), dtype=torch.float64)
    if dtype is not torch.bfloat16:
        d_out = torch.complex(d_out.to(dtype), d_out.to(dtype)).conj().imag
        assert d_out.is_neg()
    found = []
    for exchanges in {operators.EXCHANGES, False}:
        monkeypatch.setattr(operators, "EXCHANGES", exchanges)
        out = sdpa(q, k, v, enable_gqa=True, sinks=sinks)
        found.append((out, *torch.autograd.grad(out, (q, k, v, sinks), d_out.to(dtype))))
    assert all(a.dtype == dtype and torch.equal(a, b) for a, b in zip(found[0], found[-1], strict=True))


def test_of_many_results_at_once():
    q, k, v = drawn((2, 3, 5, 8), (2, 3, 6, 8), (2, 3, 6, 8))
    out, d_out = sdpa(q, k, v), torch.randn(4, 2, 3, 5, 8)
    at_once = torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True, is_grads_batched=True)
    for i, given in enumerate(d_out):
        for a, b in zip(at_once, torch.autograd.grad(out, (q, k, v), given, retain_graph=True), strict=True):
            torch.testing.assert_close(a[i], b, atol=0, rtol=0)


MEMORY = """
import resource, sys, torch
from attend.torch import scaled_dot_product_attention as sdpa
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
torch.set_num_threads(1)
small, large = [[torch.randn(1, 1, n, 16, requires_grad=True) for _ in range(3)] for n in (64, 4096)]
bias = torch.zeros(1, 4096, requires_grad=True)
sdpa(*small).sum().backward()
before = peak()
sdpa(*large, attn_mask=bias).sum().backward()
print(peak() - before)
"""


def test_memory_of_order_n():
    """Where the matrix of scores has 64 MiB."""
    found = subprocess.run([sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True)
    assert int(found.stdout) < 24
