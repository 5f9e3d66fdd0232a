"""The gradients of attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import attend

from . import _attend
from ._arguments import Array, Causal, Integers, New, Window
from ._hints import unexpected

if TYPE_CHECKING:
    from typing import Unpack

    from ._arguments import BackwardOptions


@overload
def attention_backward(q: Array, k: Array, v: Array, out: Array, d_out: Array, *, d_q: Literal[True] = ...,
                       d_k: Literal[True] = ..., d_v: Literal[True] = ..., d_bias: Literal[False] = ...,
                       d_sinks: Literal[False] = ..., **options: Unpack[BackwardOptions]) -> tuple[New, New, New]: ...
@overload
def attention_backward(q: Array, k: Array, v: Array, out: Array, d_out: Array, *, d_q: Array | bool = ...,
                       d_k: Array | bool = ..., d_v: Array | bool = ..., d_bias: Array | bool = ...,
                       d_sinks: Array | bool = ..., accumulate: bool = ...,
                       **options: Unpack[BackwardOptions]) -> tuple[Any, ...]: ...
def attention_backward(q: Array, k: Array, v: Array, out: Array, d_out: Array, *, lse: Array | None = None,
                       d_lse: Array | None = None, d_q: Array | bool = True, d_k: Array | bool = True,
                       d_v: Array | bool = True, d_bias: Array | bool = False, d_sinks: Array | bool = False,
                       accumulate: bool = False, scale: float | None = None, causal: Causal | None = None,
                       window: Window | None = None, query_offset: int | Integers = 0, kv_lengths: Integers | None = None,
                       kv_first: Integers | None = None, mask: Array | None = None, bias: Array | None = None,
                       softcap: float = 0.0, alibi_slopes: Array | None = None, sinks: Array | None = None,
                       query_starts: Integers | None = None, key_starts: Integers | None = None, threads: int = 0,
                       **unknown: Any) -> Any:
    """The gradients of :func:`attention`, without ever holding the matrix of scores.

    q ``[B, H, Nq, D]``, k ``[B, Hkv, Nk, D]``, v ``[B, Hkv, Nk, Dv]`` and the options are those of the call of attention, out
    ``[B, H, Nq, Dv]`` is what it gave, d_out of the same shape the gradient of some number with respect to that. Each array is
    float32, float16 or bfloat16, computed in float32, or all are float64; none of these is written to.

    lse            ``[B, H, Nq]``, float32 (float64), as return_lse=True gives it; None: it is computed again, which takes some
                   20 % more time
    d_lse          ``[B, H, Nq]``, float32 (float64): the gradient with respect to lse, where something was computed from it
    d_q, d_k, d_v  True: a new array; False: it is not wanted; or an array to write to. Of the shapes of q, k and v: summed
                   over heads that share keys, and over the batch where that is 1 and out's is not. New ones have the type of
                   q, k and v; summed over the batch float32 (float64), which an array to write to must be then, too
    d_bias         the same of bias, of its shape, float32 (float64): summed over what it repeats
    d_sinks        the same of sinks, ``[H]``, float32 (float64)
    accumulate     True: add to what is in the arrays; none can be a new one then

    Returns a tuple of the gradients that are wanted, in this order: (d_q, d_k, d_v) by default. A query that sees nothing
    contributes 0, and what is hidden from it, NaN included, does not count.
    """
    if unknown:
        raise unexpected(attention_backward, unknown)
    gradients = (d_q, d_k, d_v, d_bias, d_sinks)
    if accumulate:
        for name, gradient in zip(("d_q", "d_k", "d_v", "d_bias", "d_sinks"), gradients, strict=True):
            if gradient is True:
                raise TypeError(f"{name}: with accumulate=True an array to add to is needed, or False")
    return _attend.attention_backward(
        q, k, v, out, d_out, lse, d_lse, *gradients, bool(accumulate), threads,
        *attend._options(scale, causal, window, query_offset, kv_lengths, kv_first, mask, bias, softcap, alibi_slopes, sinks,
                         False, None, query_starts, key_starts))
