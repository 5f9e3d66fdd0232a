"""How tensors reach the native functions: addresses, types, shapes and strides, and nothing that costs a call of DLPack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from .. import _attend
from .._attend import MEMORY

CODES = {torch.float32: _attend.F32, torch.float64: _attend.F64, torch.bfloat16: _attend.BF16, torch.float16: _attend.F16,
         torch.bool: _attend.BOOL, torch.int8: _attend.I8, torch.uint8: _attend.U8, torch.float8_e4m3fn: _attend.F8E4M3}

_is_compiling = torch.compiler.is_compiling
_is_grad_enabled = torch.is_grad_enabled


def _nothing() -> None:
    return None


# Functions of PyTorch that have no public name: what is missing in a version counts as "nothing is going on".
_dispatch_modes = getattr(torch._C, "_len_torch_dispatch_stack", _nothing)
_transforms = getattr(getattr(torch._C, "_functorch", None), "peek_interpreter_stack", _nothing)
_tracing = getattr(torch._C, "_get_tracing_state", _nothing)

# Whether a tensor is many at once for grad(is_grads_batched=True) or jacobian(vectorize=True), which no transform tells of.
batched: Callable[[Tensor], bool] = getattr(getattr(torch._C, "_functorch", None), "is_legacy_batchedtensor", lambda _: False)


def direct(tensors: Iterable[Tensor]) -> bool:
    """Whether a call can go past PyTorch's dispatcher: tensors with memory on the CPU, no gradients to record, and nobody
    who traces, transforms or watches the call."""
    if _is_compiling() or _dispatch_modes() or _transforms() is not None or _tracing() is not None:
        return False
    grad = _is_grad_enabled()
    for tensor in tensors:
        kind = type(tensor)
        if (kind is not Tensor and kind is not Parameter) or not tensor.is_cpu or (grad and tensor.requires_grad):
            return False
    return True


def recorded() -> bool:
    """Whether somebody has to see the operator itself: a compiler, a tracer, a mode. Others are served by the functions below
    it that have gradients, in a tenth of the time."""
    return bool(_is_compiling() or _dispatch_modes() or _tracing() is not None)


def transformed() -> bool:
    """Whether one of torch.func's transforms is at work."""
    return _transforms() is not None


def describe(name: str, tensor: Tensor) -> Any:
    """What the native functions take for an array. The tensor has to outlive the call."""
    try:
        code = CODES[tensor.dtype]
    except KeyError:
        raise TypeError(f"{name}: elements must be {', '.join(map(str, CODES))}, not {tensor.dtype}") from None
    return MEMORY, tensor.data_ptr(), code, tensor.shape, tensor.stride()


def itself(name: str, tensor: Tensor) -> Any:
    """In the place of describe: the tensor, where EXCHANGES says so."""
    return tensor


# Whether tensors reach the native attention as they are, by DLPack's exchange in C, rather than described.
_exchange = getattr(Tensor, "__dlpack_c_exchange_api__", None)
EXCHANGES = _exchange is not None and _attend.use_exchange(_exchange)


def resolved(tensor: Tensor) -> Tensor:
    """The tensor, or where its sign is still to be turned (``x.conj().imag``), one with its own memory."""
    return tensor.resolve_neg() if tensor.is_neg() else tensor


def integers(tensor: Tensor) -> Any:
    return tensor.numpy()


def as_integers(name: str, value: Any) -> Tensor | None:
    """Numbers per batch as an int64 tensor: from a tensor, an array or a sequence."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        value = torch.from_numpy(value) if isinstance(value, np.ndarray) else torch.tensor(value)
    if value.is_floating_point() or value.is_complex() or value.dtype is torch.bool or value.ndim != 1:
        raise TypeError(f"{name}: integers along one axis are needed, not {value.dtype} {list(value.shape)}")
    return value if value.dtype is torch.int64 else value.to(torch.int64)
