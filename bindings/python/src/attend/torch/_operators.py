"""attend's functions as operators of PyTorch: on CPUs, on tensors without memory, with gradients, under vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _attend
from ._tensors import CODES, EXCHANGES, batched, describe, direct, integers, itself, recorded, resolved

_native_attention, _native_backward = _attend.attention_of_tensors, _attend.attention_backward_of_tensors
_threads, _empty_like = torch.get_num_threads, torch.empty_like

_OPTIONS = ("Tensor? mask, Tensor? bias, Tensor? sinks, Tensor? lengths, Tensor? first, Tensor? query_offsets, "
            "Tensor? query_starts, Tensor? key_starts, SymInt query_offset, int flags, float? scale, float softcap, "
            "SymInt window_left, SymInt window_right")

torch.library.define("attend::attention", f"(Tensor q, Tensor k, Tensor v, {_OPTIONS}) -> (Tensor, Tensor)")
torch.library.define(
    "attend::attention_backward",
    f"(Tensor d_out, Tensor? d_lse, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, {_OPTIONS}, int wanted) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)")
torch.library.define("attend::softmax", "(Tensor x, int dim, bool log) -> Tensor")
torch.library.define("attend::linear", "(Tensor x, Tensor weight, Tensor? bias, bool native_dot=False) -> Tensor")


# -------------------------------------------------------------------------------------------------------- attention --


def new_out(q: Tensor, k: Tensor, v: Tensor, key_starts: Tensor | None) -> Tensor:
    """Uninitialised, without looking whether the operands fit each other. It lies as q does where it has q's shape."""
    shape, values = q.shape, v.shape
    if shape[-1] == values[-1] and (len(shape) < 4 or shape[0] == values[0] != 1):
        return _empty_like(q)
    batch = shape[0]
    if len(shape) == 4 and key_starts is None and batch == 1:
        batch = k.shape[0] if k.shape[0] != 1 else values[0]
    if batch == shape[0] and shape[-1] == values[-1]:
        return _empty_like(q)
    return q.new_empty((batch, *shape[1:-1], values[-1]) if len(shape) > 2 else (shape[0], values[-1]))


def new_lse(out: Tensor) -> Tensor:
    return out.new_empty(out.shape[:-1], dtype=torch.float64 if out.dtype is torch.float64 else torch.float32)


def run_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
                  lengths: Tensor | None, first: Tensor | None, query_offsets: Tensor | None, query_starts: Tensor | None,
                  key_starts: Tensor | None, query_offset: int, flags: int, scale: float | None, softcap: float, left: int,
                  right: int, want_lse: bool) -> tuple[Tensor, Tensor | None]:
    """The native call on tensors that have memory."""
    if q.is_neg() or k.is_neg() or v.is_neg():
        q, k, v = resolved(q), resolved(k), resolved(v)
    out = new_out(q, k, v, key_starts)
    lse = new_lse(out) if want_lse else None
    if bias is not None:
        bias = resolved(bias)
    if sinks is not None:
        sinks = resolved(sinks)
    if EXCHANGES and q.dtype in CODES and k.dtype in CODES and v.dtype in CODES:
        query, key, value, result = q, k, v, out
    else:
        query, key, value, result = describe("query", q), describe("key", k), describe("value", v), describe("out", out)
    _native_attention(
        query, key, value, result, _threads(), None, None, None, 0, False, flags, scale, softcap, query_offset,
        query_offsets if query_offsets is None else integers(query_offsets),
        lengths if lengths is None else integers(lengths), first if first is None else integers(first), left, right,
        None if mask is None else describe("attn_mask", mask), None if bias is None else describe("attn_mask", bias), None,
        None if sinks is None else describe("sinks", sinks), False if lse is None else describe("lse", lse), None,
        query_starts if query_starts is None else integers(query_starts),
        key_starts if key_starts is None else integers(key_starts), None)
    return out, lse


_with_lse = functools.partial(run_attention, want_lse=True)
torch.library.impl("attend::attention", "CPU", _with_lse)


@torch.library.register_fake("attend::attention")
def _attention_fake(q: Tensor, k: Tensor, v: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    out = new_out(q, k, v, options[7])
    return out, new_lse(out)


_TENSOR_OPTIONS = 8  # the first of the options; the second and third, bias and sinks, have gradients too
_WITH_GRADIENTS = (0, 1, 2, 4, 5)  # of the operator's arguments


def _setup_attention(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors = 3 + _TENSOR_OPTIONS
    ctx.save_for_backward(*output, *inputs[:tensors])
    ctx.numbers = inputs[tensors:]
    ctx.set_materialize_grads(False)  # whoever asked for no lse pays nothing for its gradient


def _attention_backward(ctx: Any, d_out: Tensor | None, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    out, *others = ctx.saved_tensors
    if d_out is None:
        d_out = torch.zeros_like(out)
    need = ctx.needs_input_grad
    wanted = sum(1 << bit for bit, argument in enumerate(_WITH_GRADIENTS) if need[argument])
    args = (d_out, d_lse, out, *others, *ctx.numbers, wanted)
    if recorded() or batched(d_out) or (d_lse is not None and batched(d_lse)):
        found = _backward_operator(*args)
    else:
        found = (run_backward if direct(x for x in args[:10] if x is not None) else AttentionBackward.apply)(*args)
    gradients: list[Tensor | None] = [None] * len(need)
    for argument, gradient in zip(_WITH_GRADIENTS, found, strict=True):
        if need[argument]:
            gradients[argument] = gradient
    return tuple(gradients)


torch.library.register_autograd("attend::attention", _attention_backward, setup_context=_setup_attention)


def _wanted(wanted: int, *operands: Tensor | None) -> list[Tensor | None]:
    """Those operands of which there are to be gradients."""
    return [x if wanted >> bit & 1 else None for bit, x in enumerate(operands)]


def run_backward(d_out: Tensor, d_lse: Tensor | None, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor,
                 mask: Tensor | None, bias: Tensor | None, sinks: Tensor | None, lengths: Tensor | None, first: Tensor | None,
                 query_offsets: Tensor | None, query_starts: Tensor | None, key_starts: Tensor | None, query_offset: int,
                 flags: int, scale: float | None, softcap: float, left: int, right: int, wanted: int) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, bias and sinks, row-major as _backward_fake says; those not wanted have no elements."""
    operands = _wanted(wanted, q, k, v, bias, sinks)
    packed = (query_starts, key_starts, key_starts)
    gradients: list[Tensor | None] = []
    for i, x in enumerate(operands):
        # Sums over the batch are kept in the type of the arithmetic, and so is what lse's type is.
        sums = i > 2 or (x is not None and x.ndim == 4 and x.shape[0] != out.shape[0] and packed[i] is None)
        gradients.append(x if x is None else x.new_empty(x.shape, dtype=lse.dtype if sums else x.dtype))
    q, k, v, d_out = resolved(q), resolved(k), resolved(v), resolved(d_out)
    bias, sinks, d_lse = (x if x is None else resolved(x) for x in (bias, sinks, d_lse))
    known = q.dtype in CODES and k.dtype in CODES and v.dtype in CODES and d_out.dtype in CODES
    crossing = itself if EXCHANGES and known else describe
    _native_backward(
        crossing("query", q), crossing("key", k), crossing("value", v), crossing("out", out), crossing("d_out", d_out),
        crossing("lse", lse), None if d_lse is None else crossing("d_lse", d_lse),
        *(False if x is None else crossing("gradient", x) for x in gradients), False, _threads(), flags, scale, softcap,
        query_offset, query_offsets if query_offsets is None else integers(query_offsets),
        lengths if lengths is None else integers(lengths), first if first is None else integers(first), left, right,
        None if mask is None else describe("attn_mask", mask), None if bias is None else describe("attn_mask", bias), None,
        None if sinks is None else describe("sinks", sinks), False, None,
        query_starts if query_starts is None else integers(query_starts),
        key_starts if key_starts is None else integers(key_starts), None)
    return tuple(d_out.new_empty(0) if x is None or gradient is None else gradient.to(x.dtype)
                 for x, gradient in zip(operands, gradients, strict=True))


torch.library.impl("attend::attention_backward", "CPU", run_backward)
_backward_operator = torch.ops.attend.attention_backward.default


@torch.library.register_fake("attend::attention_backward")
def _backward_fake(d_out: Tensor, d_lse: Tensor | None, out: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor,
                   mask: Tensor | None, bias: Tensor | None, sinks: Tensor | None, *options: Any) -> tuple[Tensor, ...]:
    return tuple(d_out.new_empty(0) if x is None else x.new_empty(x.shape)
                 for x in _wanted(options[-1], q, k, v, bias, sinks))


def _no_second_derivatives(ctx: Any, *gradients: Any) -> Any:
    raise NotImplementedError("attend: attention has no second derivatives; PyTorch's own has them with its math backend, "
                              "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)")


torch.library.register_autograd("attend::attention_backward", _no_second_derivatives)


def _one_by_one(operator: Callable[..., Any]) -> Callable[..., Any]:
    """vmap by a loop, whatever is batched."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
        results = [operator(*(x if dim is None else x.select(dim, i) for x, dim in zip(args, in_dims, strict=True)))
                   for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])

    return rule


def _vmap_attention(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
    """As one batch where there is none yet and nothing else has a batch; else one by one."""
    q, k, v, mask, bias, *others = args
    if q.ndim != 3 or any(x is not None for x in others[:_TENSOR_OPTIONS - 2]):
        return _one_by_one(torch.ops.attend.attention.default)(info, in_dims, *args)
    moved = [x if x is None or dim is None else x.movedim(dim, 0) for x, dim in zip(args[:5], in_dims, strict=False)]
    q, k, v = (x if dim is not None else x[None] for x, dim in zip(moved, in_dims[:3], strict=False))
    mask, bias = (x if x is None or dim is None else x.reshape(x.shape[0], *(1,) * (4 - x.ndim), *x.shape[1:])
                  for x, dim in zip(moved[3:], in_dims[3:5], strict=False))
    if all(dim is None for dim in in_dims[:3]):
        q = q.expand(info.batch_size, *q.shape[1:])
    return torch.ops.attend.attention.default(q, k, v, mask, bias, *others), (0, 0)


torch.library.register_vmap("attend::attention", _vmap_attention)


def _forward(*args: Any) -> Any:
    if direct(x for x in args[:6] if x is not None):
        return _with_lse(*args)
    return torch.ops.attend.attention.default(*args)


class Recording(torch.autograd.Function):
    """The operator with gradients for who does not record it."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        output = _forward(*args)
        _setup_attention(ctx, args, output)
        return output

    backward = staticmethod(_attention_backward)


class Attention(torch.autograd.Function):
    """The same for torch.func's transforms, which do not take the gradients of torch.library: they want the two steps apart, for
    which PyTorch binds the arguments to a signature: 35 us a call instead of 18."""

    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup_attention)
    backward = staticmethod(_attention_backward)
    vmap = staticmethod(_vmap_attention)


class _Dispatched(torch.autograd.Function):
    """The same within the dispatcher, where the last argument is the set of its keys."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Any:
        *given, keys = args
        output = _with_lse(*given) if direct(x for x in given[:6] if x is not None) else _below_autograd(keys, given)
        _setup_attention(ctx, tuple(given), output)
        return output

    backward = staticmethod(_attention_backward)


def _below_autograd(keys: Any, args: Any) -> Any:
    with torch._C._AutoDispatchBelowAutograd():
        return torch.ops.attend.attention.default.redispatch(keys & torch._C._after_autograd_keyset, *args)


def _dispatched(keys: Any, *args: Any) -> Any:
    if direct(x for x in args[:6] if x is not None):
        return _with_lse(*args)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in args[:6]):
        return _Dispatched.apply(*args, keys)
    return _below_autograd(keys, args)


# For who calls torch.ops.attend.attention on CPUs: 28 us a call with gradients. What register_autograd makes, and other devices take,
# asks the schema for the list of its 17 arguments twice for each of them: 90 us. Where a version of PyTorch has not what this stands
# on, that has to do.
if hasattr(torch._C, "_AutoDispatchBelowAutograd") and hasattr(torch._C, "_after_autograd_keyset"):
    _fragment = torch.library.Library("attend", "FRAGMENT")
    _fragment.impl("attention", _dispatched, "AutogradCPU", with_keyset=True)

_vmap_backward = _one_by_one(_backward_operator)
torch.library.register_vmap("attend::attention_backward", _vmap_backward)


class AttentionBackward(torch.autograd.Function):
    """The same of its gradients, which have none."""

    @staticmethod
    def forward(*args: Any) -> Any:
        return run_backward(*args) if direct(x for x in args[:10] if x is not None) else _backward_operator(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass

    backward = staticmethod(_no_second_derivatives)
    vmap = staticmethod(_vmap_backward)


# ------------------------------------------------------------------------------------------------ softmax and linear --


def run_softmax(x: Tensor, dim: int, log: bool) -> Tensor:
    x = resolved(x)
    out = x.new_empty(x.shape)
    if x.ndim == 0:
        return out.fill_(0.0 if log else 1.0)
    a, y = x, out
    if x.ndim > 4:  # axes before and behind the one in question
        dim %= x.ndim
        before, n, behind = x.shape[:dim].numel(), x.shape[dim], x.shape[dim + 1:].numel()
        a, y, dim = x.reshape(before, n, behind), out.view(before, n, behind), 1
    _attend.softmax(describe("input", a), dim, describe("out", y), None, None, 1.0, log, False, _threads())
    return out


@torch.library.impl("attend::softmax", "CPU")
def _softmax(x: Tensor, dim: int, log: bool) -> Tensor:
    return run_softmax(x, dim, log)


@torch.library.register_fake("attend::softmax")
def _softmax_fake(x: Tensor, dim: int, log: bool) -> Tensor:
    return x.new_empty(x.shape)


def _setup_softmax(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.dim, ctx.log = inputs
    ctx.save_for_backward(output)


def _softmax_backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    (out,) = ctx.saved_tensors
    backward = torch.ops.aten._log_softmax_backward_data if ctx.log else torch.ops.aten._softmax_backward_data
    return backward(d_out, out, ctx.dim, out.dtype), None, None


torch.library.register_autograd("attend::softmax", _softmax_backward, setup_context=_setup_softmax)
torch.library.register_vmap("attend::softmax", _one_by_one(torch.ops.attend.softmax.default))


def run_linear(x: Tensor, weight: Tensor, bias: Tensor | None, native_dot: bool) -> Tensor:
    x, weight = resolved(x), resolved(weight)
    rows = x.reshape(-1, x.shape[-1])
    out = x.new_empty((rows.shape[0], weight.shape[0]))
    _attend.matmul(
        describe("input", rows), describe("weight", weight.t()), describe("out", out),
        None if bias is None else describe("bias", resolved(bias)), 1.0, 0.0, _threads(), None, None, None, None,
        bool(native_dot))
    return out.view(*x.shape[:-1], weight.shape[0])


@torch.library.impl("attend::linear", "CPU")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, native_dot: bool = False) -> Tensor:
    return run_linear(x, weight, bias, native_dot)


@torch.library.register_fake("attend::linear")
def _linear_fake(x: Tensor, weight: Tensor, bias: Tensor | None, native_dot: bool = False) -> Tensor:
    torch._check(x.shape[-1] == weight.shape[1], lambda: "linear: input has other features than weight")
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _setup_linear(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _linear_backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[:3]  # native_dot is left out where it is the default
    rows = d_out.reshape(-1, d_out.shape[-1])
    d_x = (rows @ weight.to(rows.dtype)).reshape(x.shape) if need_x else None
    d_weight = (rows.t() @ x.reshape(-1, x.shape[-1])).to(weight.dtype) if need_weight else None
    return d_x, d_weight, rows.sum(0).to(ctx.bias_dtype) if need_bias else None, None


torch.library.register_autograd("attend::linear", _linear_backward, setup_context=_setup_linear)
torch.library.register_vmap("attend::linear", _one_by_one(torch.ops.attend.linear.default))
