"""The operators in PyTorch's machinery: opcheck, gradients, compile, export, vmap."""

import functools

import attend.torch
import pytest
import torch
import torch.nn.functional as F
from attend.torch import scaled_dot_product_attention as sdpa

ATTENTION = torch.ops.attend.attention.default


def options(**given):
    names = ["mask", "bias", "sinks", "lengths", "first", "query_offsets", "query_starts", "key_starts", "query_offset", "flags",
             "scale", "softcap", "left", "right"]
    zero = {"query_offset": 0, "flags": 0, "softcap": 0.0, "left": 0, "right": 0}
    return [given.get(name, zero.get(name)) for name in names]


CASES = {
    "plain": ((2, 3, 5, 8), (2, 3, 6, 8), {}),
    "grouped, causal": ((2, 4, 5, 8), (2, 2, 6, 8), {"flags": 1, "query_offset": 1}),
    "batch of one": ((1, 4, 5, 8), (3, 2, 6, 8), {"scale": 0.5}),
    "three axes": ((3, 5, 8), (3, 6, 8), {"flags": 4, "left": 2, "right": 1}),
    "two axes": ((5, 8), (6, 8), {}),
    "mask": ((2, 3, 5, 8), (2, 3, 6, 8), {"mask": lambda: torch.rand(2, 1, 5, 6) < 0.6}),
    "bias": ((2, 3, 5, 8), (2, 3, 6, 8), {"bias": lambda: torch.randn(3, 5, 6).requires_grad_(), "softcap": 2.0}),
    "sinks": ((2, 3, 5, 8), (2, 3, 6, 8), {"sinks": lambda: torch.randn(3).requires_grad_(), "flags": 1}),
    "padding": ((2, 3, 5, 8), (2, 3, 6, 8), {"lengths": lambda: torch.tensor([6, 3]), "first": lambda: torch.tensor([2, 0])}),
    "offsets": ((2, 3, 5, 8), (2, 3, 6, 8), {"query_offsets": lambda: torch.tensor([1, 0]), "flags": 1}),
    "packed": ((4, 9, 8), (2, 9, 8), {"query_starts": lambda: torch.tensor([0, 4, 9]), "flags": 1,
                                      "key_starts": lambda: torch.tensor([0, 4, 9])}),
    "packed keys": ((2, 4, 3, 8), (2, 9, 8), {"key_starts": lambda: torch.tensor([0, 4, 9])}),
}


@pytest.mark.parametrize("name", CASES)
def test_opcheck(name):
    queries, keys, given = CASES[name]
    q, k, v = (torch.randn(shape, requires_grad=True) for shape in (queries, keys, (*keys[:-1], 4)))
    given = {key: value() if callable(value) else value for key, value in given.items()}
    torch.library.opcheck(ATTENTION, (q, k, v, *options(**given)))


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    queries, keys, given = CASES[name]
    q, k, v = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in (queries, keys, (*keys[:-1], 4)))
    given = {key: value() if callable(value) else value for key, value in given.items()}
    given = {key: value.detach().double().requires_grad_() if isinstance(value, torch.Tensor) and value.requires_grad else value
             for key, value in given.items()}

    def call(*args):
        out, lse = ATTENTION(*args)
        return out, lse.masked_fill(lse.isinf(), 0.0)

    assert torch.autograd.gradcheck(call, (q, k, v, *options(**given)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_pytorch(dtype):
    q, k, v = (torch.randn(2, 4, 9, 16).to(dtype).requires_grad_() for _ in range(3))
    g = torch.randn(2, 4, 9, 16).to(dtype)
    got = torch.autograd.grad(sdpa(q, k, v, is_causal=True), (q, k, v), g)
    expected = torch.autograd.grad(F.scaled_dot_product_attention(q, k, v, is_causal=True), (q, k, v), g)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, atol=1e-5 if dtype == torch.float32 else 3e-2, rtol=1e-4 if dtype == torch.float32 else 3e-2)


@pytest.mark.parametrize("shape", [(5,), (4, 6), (2, 3, 4, 5), (2, 1, 3, 4, 5)])
def test_softmax(shape):
    x = torch.randn(shape)
    for dim in range(-len(shape), len(shape)):
        torch.testing.assert_close(attend.torch.softmax(x, dim), torch.softmax(x, dim))
        torch.testing.assert_close(attend.torch.log_softmax(x, dim), torch.log_softmax(x, dim))
    assert attend.torch.softmax(x.bfloat16()).dtype == torch.bfloat16
    assert attend.torch.softmax(x, dtype=torch.float64).dtype == torch.float64
    for log in (False, True):
        torch.library.opcheck(torch.ops.attend.softmax.default, (x.clone().requires_grad_(), 0, log))


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 1, 2, 3)])
def test_linear(lead):
    x, weight, bias = torch.randn(*lead, 8), torch.randn(5, 8), torch.randn(5)
    torch.testing.assert_close(attend.torch.linear(x, weight, bias), F.linear(x, weight, bias), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attend.torch.linear(x, weight), F.linear(x, weight), atol=1e-5, rtol=1e-5)
    mixed = attend.torch.linear(x, weight.bfloat16(), bias.bfloat16())
    torch.testing.assert_close(mixed, F.linear(x, weight.bfloat16().float(), bias.bfloat16().float()), atol=1e-5, rtol=1e-5)
    inputs = [t.double().requires_grad_() for t in (x, weight, bias)]
    assert torch.autograd.gradcheck(attend.torch.linear, inputs)
    torch.library.opcheck(torch.ops.attend.linear.default, tuple(t.detach().float().requires_grad_() for t in inputs))
    with pytest.raises(ValueError, match="weight"):
        attend.torch.linear(x, weight[:, :4])


def test_linear_by_native_dots():
    linear, native = attend.torch.linear, functools.partial(attend.torch.linear, native_dot=True)
    x, weight = torch.randint(-4, 5, (64, 96)).bfloat16(), torch.randint(-4, 5, (4, 96)).bfloat16()
    assert torch.equal(native(x, weight), linear(x, weight))
    # Of four columns on every CPU that has them, the dot products count what lies below the smallest normal number as 0.
    x, weight = torch.full((64, 96), 2.0**-70).bfloat16(), torch.full((4, 96), 2.0**-70).bfloat16()
    wanted = torch.full((64, 4), 2.0**-133).bfloat16()  # 96 * 2**-140, rounded
    assert torch.equal(linear(x, weight), wanted)
    if attend.isa() == "avx512bf16":
        wanted.zero_()
    assert torch.equal(native(x, weight), wanted)
    assert torch.equal(torch.compile(native, fullgraph=True, backend="aot_eager")(x, weight), wanted)
    assert torch.equal(torch.vmap(native, (None, 0))(x, weight[None])[0], wanted)
    x.requires_grad_()
    assert torch.equal(native(x, weight), wanted)
    assert torch.equal(*(torch.autograd.grad(f(x, weight).sum(), x)[0] for f in (native, linear)))
    torch.library.opcheck(torch.ops.attend.linear.default, (x, weight, None, True))


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = torch.nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        out = sdpa(q, k, v, is_causal=True, window=(5, 0), softcap=3.0)
        return attend.torch.softmax(attend.torch.linear(out.transpose(1, 2).flatten(2), self.qkv.weight[:16]), -1)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile(dynamic):
    block, x = Block(), torch.randn(2, 9, 16)
    compiled = torch.compile(block, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for length in (9, 11):
        x = torch.randn(2, length, 16)
        expected = torch.autograd.grad(block(x).square().sum(), block.qkv.weight)[0]
        torch.testing.assert_close(compiled(x), block(x))
        torch.testing.assert_close(torch.autograd.grad(compiled(x).square().sum(), block.qkv.weight)[0], expected)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), block(x))


def test_compile_of_what_normalises():
    q, k, v = torch.randn(2, 1, 4, 5, 8), torch.randn(2, 3, 2, 6, 8), torch.randn(2, 3, 2, 6, 8)
    mask = torch.rand(5, 6) < 0.8

    def call(q, k, v):
        return sdpa(q, k, v, attn_mask=mask, enable_gqa=True, return_lse=True)

    for a, b in zip(torch.compile(call, fullgraph=True, backend="aot_eager")(q, k, v), call(q, k, v), strict=True):
        torch.testing.assert_close(a, b)


def test_export():
    block, x = Block().eval(), torch.randn(2, 9, 16)
    exported = torch.export.export(block, (x,), dynamic_shapes=({1: torch.export.Dim("n", min=2, max=64)},))
    assert any("attend.attention" in str(node.target) for node in exported.graph.nodes)
    x = torch.randn(2, 13, 16)
    torch.testing.assert_close(exported.module()(x), block(x))


def test_vmap():
    q, k, v = torch.randn(5, 4, 7, 8), torch.randn(4, 7, 8), torch.randn(4, 7, 5, 8)
    got = torch.vmap(lambda q, k, v: sdpa(q, k, v, is_causal=True), in_dims=(0, None, 2))(q, k, v)
    torch.testing.assert_close(got, sdpa(q, k.expand(5, 4, 7, 8), v.movedim(2, 0), is_causal=True))
    mask = torch.rand(5, 7, 7) < 0.7
    masked = torch.vmap(lambda q, m: sdpa(q, k, k, attn_mask=m))(q, mask)
    torch.testing.assert_close(masked, sdpa(q, k.expand_as(q), k.expand_as(q), attn_mask=mask[:, None]))
    four = torch.vmap(lambda q: sdpa(q, q, q, lengths=[3, 7]))(torch.stack([q[:2], q[2:4]]))
    torch.testing.assert_close(four[1], sdpa(q[2:4], q[2:4], q[2:4], lengths=[3, 7]))
    gradients = torch.vmap(torch.func.grad(lambda q: sdpa(q, k, k).square().sum()))(q)
    torch.testing.assert_close(gradients[2], torch.func.grad(lambda q: sdpa(q, k, k).square().sum())(q[2]))
    torch.testing.assert_close(torch.vmap(attend.torch.softmax)(q), torch.softmax(q, -1))
    torch.testing.assert_close(torch.vmap(lambda x: attend.torch.linear(x, k[0]))(q), F.linear(q, k[0]), atol=1e-5, rtol=1e-5)


def test_meta():
    q = torch.empty(2, 3, 4, 8, device="meta")
    out, lse = sdpa(q, q, q, return_lse=True)
    assert out.device.type == "meta" and out.shape == q.shape and lse.shape == (2, 3, 4)
