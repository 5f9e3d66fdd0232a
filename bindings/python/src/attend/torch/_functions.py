"""The functions of attend.torch: PyTorch's arguments looked at and brought to those of the operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from . import _operators
from ._tensors import as_integers, direct, recorded, transformed

Integers: TypeAlias = "Sequence[int] | Tensor"

CAUSAL, WINDOW = 1, 4  # flags of attend.h

_run, _operator = _operators.run_attention, torch.ops.attend.attention.default
_with_gradients, _under_transforms = _operators.Recording.apply, _operators.Attention.apply


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None,
           sinks: Tensor | None = None, lengths: Tensor | None = None, first: Tensor | None = None,
           query_offsets: Tensor | None = None, query_starts: Tensor | None = None, key_starts: Tensor | None = None,
           query_offset: int = 0, causal: bool = False, scale: float | None = None, softcap: float = 0.0,
           window: tuple[int | None, int | None] | None = None, want_lse: bool = False) -> tuple[Tensor, Tensor | None]:
    """The operator for operands as the library has them, 2 to 4 axes, heads that fit: past the dispatcher if nobody there
    has to see the call."""
    flags = CAUSAL if causal else 0
    left = right = 0
    if window is not None:
        flags |= WINDOW
        left, right = (-1 if side is None else side for side in window)
    tensors = (q, k, v)
    if mask is not None or bias is not None or sinks is not None:
        tensors += tuple(x for x in (mask, bias, sinks) if x is not None)
    if direct(tensors):
        return _run(q, k, v, mask, bias, sinks, lengths, first, query_offsets, query_starts, key_starts, query_offset, flags,
                    scale, softcap, left, right, want_lse)
    out, lse = (_operator if recorded() else _under_transforms if transformed() else _with_gradients)(
        q, k, v, mask, bias, sinks, lengths, first, query_offsets, query_starts, key_starts, query_offset, flags, scale, softcap,
        left, right)
    return out, lse if want_lse else None


def _heads_fit(query: Tensor, key: Tensor, value: Tensor, grouped: bool) -> bool:
    """Whether the library reads the heads of 3 or 4 axes as PyTorch does."""
    heads = query.shape[-3]
    if key.shape[-3] != value.shape[-3]:
        return False
    if key.shape[-3] == heads or key.shape[-3] == 1:
        return True
    if grouped and heads % key.shape[-3] == 0:
        return True
    if heads == 1:
        return False
    what = "a multiple of them is needed" if grouped else "enable_gqa=True lets query heads share them"
    raise ValueError(f"key: has {key.shape[-3]} heads, query {heads}; {what}")


def _normalised(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, grouped: bool
                ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, torch.Size | None]:
    """Operands of at most 4 axes with heads that fit, and the leading axes that the result is to have, or None."""
    rank = max(query.ndim, key.ndim, value.ndim)
    query, key, value = (x[(None,) * (rank - x.ndim)] for x in (query, key, value))
    if rank == 2:
        return query, key, value, mask, None
    if grouped and value.shape[-3] != key.shape[-3]:  # each shared by its own number of query heads
        heads = query.shape[-3]
        key, value = (x.repeat_interleave(heads // x.shape[-3], dim=-3) for x in (key, value))
    if not _heads_fit(query, key, value, grouped):
        heads = max(x.shape[-3] for x in (query, key, value))
        query, key, value = (x if x.shape[-3] == heads else x.expand(*x.shape[:-3], heads, *x.shape[-2:])
                             for x in (query, key, value))
    if rank <= 4:
        return query, key, value, mask, None
    lead = torch.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
    query, key, value = (x.expand(*lead, *x.shape[-3:]).flatten(0, -4) for x in (query, key, value))
    if mask is not None and mask.ndim > 3:
        mask = mask.expand(*lead, *mask.shape[-3:]).flatten(0, -4)
    return query, key, value, mask, lead


def _alignment(mask: Tensor, query: Tensor, key: Tensor) -> int | None:
    """The position of the first query if mask is PyTorch's causal_upper_left or causal_lower_right, else None.

    Where it is, its module is there already. Imported at the top, it would bring PyTorch's compiler into every process, a second
    or more, as long again as PyTorch itself takes.
    """
    if type(mask) is Tensor:
        return None
    from torch.nn.attention.bias import CausalBias, CausalVariant

    if not isinstance(mask, CausalBias):
        return None
    return key.shape[-2] - query.shape[-2] if mask.variant == CausalVariant.LOWER_RIGHT else 0


def scaled_dot_product_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *,
        window: tuple[int | None, int | None] | None = None, softcap: float | None = 0.0, sinks: Tensor | None = None,
        lengths: Integers | None = None, first: Integers | None = None, query_offset: int | Integers = 0,
        query_starts: Integers | None = None, key_starts: Integers | None = None, return_lse: bool = False) -> Any:
    """``torch.nn.functional.scaled_dot_product_attention`` by attend, without ever holding the matrix of scores.

    query ``[..., H, Nq, D]``, key ``[..., H, Nk, D]``, value ``[..., H, Nk, Dv]`` of any strides, 2 to 5 axes or more;
    leading axes broadcast. float32, bfloat16, float16, which may be mixed (float32 arithmetic, one rounding to query's
    type), or all float64. The result is a new tensor ``[..., H, Nq, Dv]``, which lies as query does if it has its shape: of
    ``x.view(B, N, H, D).transpose(1, 2)`` the ``.transpose(1, 2)`` of the result is contiguous.

    attn_mask     broadcasts to ``[..., H, Nq, Nk]``: bool, True is visible; or numbers that are added to the scores, -inf
                  hides. Also ``torch.nn.attention.bias.causal_upper_left`` and ``causal_lower_right``
    dropout_p     must be 0
    is_causal     query i sees the keys up to i + query_offset; not with attn_mask
    scale         None: 1 / sqrt(D)
    enable_gqa    query heads share those of key and value, H / Hkv of them each

    What attend adds:

    window        (left, right): only keys from i + query_offset - left to i + query_offset + right; None: no bound
    softcap       > 0: scores become softcap * tanh(scores / softcap), before attn_mask
    sinks         ``[H]``: one more score for every query of a head, of value 0
    lengths       int64 ``[B]``, of four axes: how many keys of each batch exist; the rest is not read
    first         int64 ``[B]``: where the keys of each batch begin, for padding on the left; positions stay what they are
    query_offset  position of the first query among the keys, an int or ``[B]``
    query_starts  int64, one more than sequences: they lie one after the other, query ``[H, total, D]``, result too, and
                  sequence b has the rows query_starts[b] to query_starts[b + 1] - 1
    key_starts    the same of key and value. Neither goes with attn_mask
    return_lse    also return the log of the sum of exp of the visible scores, ``[..., H, Nq]``, float32 (float64)

    A query that sees no key gives 0, and an lse of -inf. Errors: ValueError, of which ``attend.AttendError`` is one, and
    TypeError name the argument. Threads: ``torch.get_num_threads()`` at each call bounds them; any number of Python threads
    may call at once. There are gradients of query, key, value, a float attn_mask and sinks, by attend, without the matrix of
    scores too, with the same bits for any number of threads; those of gradients raise NotImplementedError.
    """
    if dropout_p > 0.0:
        raise ValueError("dropout_p: attend has no dropout, it must be 0")
    bias = None
    if attn_mask is not None:
        if is_causal:
            raise ValueError("attn_mask: not with is_causal=True, as in PyTorch")
        alignment = _alignment(attn_mask, query, key)
        if alignment is not None:
            is_causal, query_offset, attn_mask = True, alignment, None
        elif attn_mask.dtype is not torch.bool:
            if not attn_mask.is_floating_point() or (attn_mask.dtype is torch.float64) != (query.dtype is torch.float64):
                raise TypeError(f"attn_mask: bool or floating-point numbers that fit {query.dtype} are needed, not "
                                f"{attn_mask.dtype}")
    shape, keys, values = query.shape, key.shape, value.shape
    rank, lead, packed = len(shape), None, False
    if query_starts is not None or key_starts is not None:
        packed = True
        if attn_mask is not None:
            raise ValueError("attn_mask: not with query_starts or key_starts")
        query_starts, key_starts = as_integers("query_starts", query_starts), as_integers("key_starts", key_starts)
        _heads_fit(query, key, value, enable_gqa)
    elif not (rank == len(keys) == len(values) and (
            rank == 2 or 3 <= rank <= 4 and shape[-3] == keys[-3] == values[-3])):
        query, key, value, attn_mask, lead = _normalised(query, key, value, attn_mask, enable_gqa)
    if attn_mask is not None and attn_mask.dtype is not torch.bool:
        attn_mask, bias = None, attn_mask
    offsets = None
    if not isinstance(query_offset, (int, torch.SymInt)):
        query_offset, offsets = 0, as_integers("query_offset", query_offset)
    if lengths is not None or first is not None or offsets is not None:
        if rank != 4 and not packed:
            raise ValueError("lengths, first, query_offset: numbers per batch need [B, H, N, D] operands")
        lengths, first = as_integers("lengths", lengths), as_integers("first", first)
    out, lse = attend(query, key, value, attn_mask, bias, sinks, lengths, first, offsets, query_starts, key_starts,
                      query_offset, is_causal, scale, softcap or 0.0, window, return_lse)
    if lead is not None:
        out = out.unflatten(0, lead)
        lse = None if lse is None else lse.unflatten(0, lead)
    return (out, lse) if return_lse else out


def softmax(input: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.softmax`` by attend: a new tensor of input's shape, float32, bfloat16, float16 or float64, any strides.

    dtype: input is converted first. Slices of -inf alone give 0, where PyTorch gives NaN. Threads as
    :func:`scaled_dot_product_attention`; gradients by PyTorch from the result.
    """
    return _softmax(input, dim, dtype, False)


def log_softmax(input: Tensor, dim: int = -1, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.log_softmax`` by attend, otherwise as :func:`softmax`."""
    return _softmax(input, dim, dtype, True)


def _softmax(input: Tensor, dim: int, dtype: torch.dtype | None, log: bool) -> Tensor:
    if dtype is not None and dtype is not input.dtype:
        input = input.to(dtype)
    if direct((input,)):
        return _operators.run_softmax(input, dim, log)
    result: Tensor = torch.ops.attend.softmax.default(input, dim, log)
    return result


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, native_dot: bool = False) -> Tensor:
    """``torch.nn.functional.linear`` by attend: input ``[..., K]``, weight ``[N, K]``, bias ``[N]``; a new ``[..., N]``.

    Types may be mixed as in :func:`scaled_dot_product_attention`; the result has input's. Threads as there; gradients by
    PyTorch's own products. native_dot as of :func:`attend.matmul`.
    """
    if input.shape[-1] != weight.shape[-1]:
        raise ValueError(f"weight: is {list(weight.shape)}, but input has {input.shape[-1]} features")
    if direct((input, weight) if bias is None else (input, weight, bias)):
        return _operators.run_linear(input, weight, bias, native_dot)
    result: Tensor = torch.ops.attend.linear.default(input, weight, bias, native_dot)
    return result
