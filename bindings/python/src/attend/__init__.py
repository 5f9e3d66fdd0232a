"""Matrix products, stable softmax and fused attention on CPUs, for NumPy arrays and anything with DLPack.

Arrays follow NumPy's conventions: an activation is ``[..., N, D]``, items along the last but one axis, features along the
last; heads and batch come before them, ``[batch, heads, N, D]``. Inputs are NumPy arrays, objects with the buffer
protocol, or CPU tensors with ``__dlpack__`` (PyTorch, JAX, ...); their memory is used where it lies, whatever its
strides. Results are new NumPy arrays, or are written to ``out`` and ``out`` is returned. Each array of a call may be
float32, float16 or bfloat16 (NumPy's ``ml_dtypes``), computed in float32 and rounded once, keys and values of
:func:`attention` float8_e4m3fn or int8, factors of :func:`matmul` int8 or uint8 too; or all are float64. New results have
the type of the first array, lse and scores float32; masks are bool. Masked arrays of ``numpy.ma`` are refused, since
their masks would be ignored.

Every function may be called from any number of threads at once and releases the GIL while it computes. ``threads`` bounds
the threads of one call; 0 means the setting of :func:`set_threads`. What attend does not accept raises
:class:`AttendError`, a ``ValueError`` that names the argument.
"""

from __future__ import annotations

import atexit
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _attend
from ._arguments import Array as Array
from ._arguments import AttentionOptions as AttentionOptions
from ._arguments import Causal as Causal
from ._arguments import Integers, New, Window
from ._arguments import integers as _integers
from ._arguments import pages_table as _pages_table
from ._arguments import starts as _starts
from ._arguments import Scores as Scores
from ._arguments import SelfAttentionOptions as SelfAttentionOptions
from ._arguments import SupportsDlpack as SupportsDlpack
from ._attend import AttendError, isa, isa_names, set_isa, set_threads, threads
from ._hints import unexpected
from ._serving import kv_append, rotary

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Unpack

__all__ = [
    "AttendError", "KVCache", "attention", "attention_backward", "convert", "isa", "isa_names", "kv_append", "matmul", "merge",
    "rotary", "self_attention", "set_executor", "set_isa", "set_threads", "softmax", "softmax_backward", "threads", "version",
]


def _triple(number: int) -> tuple[int, int, int]:
    return number // 10000, number // 100 % 100, number % 100


def _dotted(number: int) -> str:
    return ".".join(map(str, _triple(number)))


def _require_compatible(header: int, library: int) -> None:
    """Versions are 10000 * major + 100 * minor + patch. Before 1.0.0 any minor version may change the interface."""
    interface = 10000 if header >= 10000 else 100
    if library < header or library // interface != header // interface:
        raise ImportError(f"attend: built for version {_dotted(header)} of the library, found {_dotted(library)}")


_require_compatible(_attend.HEADER_VERSION, _attend.version())
__version__ = _dotted(_attend.HEADER_VERSION)

_A = TypeVar("_A", bound="Array")
_B = TypeVar("_B", bound="Array")


_CAUSAL: dict[str | None, int] = {None: 0, "top-left": 1, "bottom-right": 2}
_WINDOW = 4
_SCORES: dict[str | None, int | None] = {None: None, "scaled": 0, "softcapped": 1, "masked": 2, "probabilities": 3}


def version() -> tuple[int, int, int]:
    """The version of the library that is running: (major, minor, patch)."""
    return _triple(_attend.version())


def set_executor(executor: Executor | None, workers: int = 0) -> None:
    """Let all calls compute on the threads of a ``ThreadPoolExecutor``; None: on OpenMP's again.

    The calling thread takes part, and waits for no other that has not begun: calls from within the pool's own workers are
    welcome, however busy it is. workers is the most threads of a call, that one included; 0: as many as it asks for. What
    cannot be submitted, as to a pool that was shut down, the calling thread does, and ``sys.unraisablehook`` hears of it.
    The executor is kept until another is set. Children made by ``fork`` do not use it.
    """
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: a concurrent.futures.Executor or None is needed, not {type(executor).__name__}")
    _attend.set_executor(executor, workers)


atexit.register(set_executor, None)  # threads that go on after it must not wait for the interpreter


# ------------------------------------------------------------------------------------------------ matmul and softmax --


@overload
def matmul(a: Array, b: Array, *, out: None = ..., bias: Array | None = ..., alpha: float = ...,
           a_scale: Array | None = ..., b_scale: Array | None = ..., a_zero: Array | None = ...,
           b_zero: Array | None = ..., native_dot: bool = ..., threads: int = ...) -> New: ...
@overload
def matmul(a: Array, b: Array, *, out: _A, bias: Array | None = ..., alpha: float = ..., beta: float = ...,
           a_scale: Array | None = ..., b_scale: Array | None = ..., a_zero: Array | None = ...,
           b_zero: Array | None = ..., native_dot: bool = ..., threads: int = ...) -> _A: ...
def matmul(a: Array, b: Array, *, out: Array | None = None, bias: Array | None = None, alpha: float = 1.0,
           beta: float = 0.0, a_scale: Array | None = None, b_scale: Array | None = None, a_zero: Array | None = None,
           b_zero: Array | None = None, native_dot: bool = False, threads: int = 0, **unknown: Any) -> Any:
    """alpha * a @ b + beta * out + bias.

    a ``[..., M, K]``, b ``[..., K, N]``, out ``[..., M, N]``. Up to two leading axes, which broadcast; bias broadcasts to
    out, so ``[N]`` is a bias per column. With beta = 0 out is never read.

    a and b may also be int8 or uint8. Their product is int32, exact, or of floats: float32 where there is a scale, or out's
    type. Or one of them is int8 beside one of floats, whose type the product has. An array of integers then counts as
    a_scale * (a - a_zero), zero points between two such: a_scale and a_zero ``[..., M, 1]``, b_scale and b_zero
    ``[..., 1, N]``, broadcast, scales float32, zero points int32.

    native_dot=True allows the CPU's dot products of bfloat16 where both factors are bfloat16: up to twice the speed where
    :func:`isa` is avx512bf16, within attend.h's error bound, not the bits of other CPUs; elsewhere without effect.
    """
    if unknown:
        raise unexpected(matmul, unknown)
    return _attend.matmul(a, b, out, bias, alpha, beta, threads, a_scale, b_scale, a_zero, b_zero, bool(native_dot))


@overload
def softmax(x: Array, *, axis: int = ..., out: None = ..., scale: float = ..., mask: Array | None = ...,
            bias: Array | None = ..., log: bool = ..., return_lse: Literal[False] = ...,
            threads: int = ...) -> New: ...
@overload
def softmax(x: Array, *, axis: int = ..., out: None = ..., scale: float = ..., mask: Array | None = ...,
            bias: Array | None = ..., log: bool = ..., return_lse: Literal[True],
            threads: int = ...) -> tuple[New, New]: ...
@overload
def softmax(x: Array, *, axis: int = ..., out: _A, scale: float = ..., mask: Array | None = ...,
            bias: Array | None = ..., log: bool = ..., return_lse: Literal[False] = ..., threads: int = ...) -> _A: ...
@overload
def softmax(x: Array, *, axis: int = ..., out: _A, scale: float = ..., mask: Array | None = ...,
            bias: Array | None = ..., log: bool = ..., return_lse: Literal[True],
            threads: int = ...) -> tuple[_A, New]: ...
def softmax(x: Array, *, axis: int = -1, out: Array | None = None, scale: float = 1.0, mask: Array | None = None,
            bias: Array | None = None, log: bool = False, return_lse: bool = False, threads: int = 0,
            **unknown: Any) -> Any:
    """Softmax of scale * x + bias along an axis; with log=True its logarithm.

    x has up to four axes; out has its shape and may be x itself. mask (bool, True takes part) and bias broadcast to x by
    NumPy's rule; a bias of -inf masks. return_lse=True gives (out, lse), lse the log of the sum of exponentials, without
    the axis: of x ``[B, M, N]`` along axis 1 it is ``[B, N]``.
    A vector with nothing in it but masked entries gives 0, not NaN, and an lse of -inf.
    """
    if unknown:
        raise unexpected(softmax, unknown)
    return _attend.softmax(x, axis, out, mask, bias, scale, bool(log), bool(return_lse), threads)


@overload
def softmax_backward(y: Array, d_y: Array, *, axis: int = ..., out: None = ..., scale: float = ..., log: bool = ...,
                     d_lse: Array | None = ..., threads: int = ...) -> New: ...
@overload
def softmax_backward(y: Array, d_y: Array, *, axis: int = ..., out: _A, scale: float = ..., log: bool = ...,
                     accumulate: bool = ..., d_lse: Array | None = ..., threads: int = ...) -> _A: ...
def softmax_backward(y: Array, d_y: Array, *, axis: int = -1, out: Array | None = None, scale: float = 1.0,
                     log: bool = False, accumulate: bool = False, d_lse: Array | None = None, threads: int = 0,
                     **unknown: Any) -> Any:
    """The gradient of softmax: that of x from y = softmax(x), with its axis, scale and log, and d_y, the gradient of y.

    out has y's shape and may be d_y or y itself; accumulate=True adds to it. d_lse is the gradient of lse, where that was
    used. Masked entries get 0, whatever d_y holds there: neither mask nor bias is needed. The gradient of the bias is that
    of x with scale = 1, summed over what the bias broadcasts.
    """
    if unknown:
        raise unexpected(softmax_backward, unknown)
    if accumulate and out is None:
        raise TypeError("accumulate: needs an out to add to")
    return _attend.softmax_backward(y, d_y, axis, out, d_lse, scale, bool(log), bool(accumulate), threads)


# ----------------------------------------------------------------------------------------------------------- attention --


def _code(name: str, value: Any, codes: dict[str | None, Any]) -> Any:
    try:
        return codes[value]
    except (KeyError, TypeError):
        raise ValueError(f"{name}: must be one of {[*codes]}, not {value!r}") from None


def _options(scale: float | None, causal: Causal | None, window: Window | None, query_offset: int | Integers,
             kv_lengths: Integers | None, kv_first: Integers | None, mask: Array | None, bias: Array | None,
             softcap: float, alibi_slopes: Array | None, sinks: Array | None, return_lse: bool,
             return_scores: Scores | None, query_starts: Integers | None, key_starts: Integers | None = None,
             pages: Array | None = None) -> tuple[Any, ...]:
    """The attention options in the order that the native functions take them."""
    flags = _code("causal", causal, _CAUSAL)
    stage = _code("return_scores", return_scores, _SCORES)
    left = right = 0
    if window is not None:
        flags |= _WINDOW
        try:
            left, right = (-1 if side is None else side for side in window)
        except (TypeError, ValueError):
            raise TypeError(f"window: a pair (left, right) is needed, not {window!r:.80}") from None
    offset, offsets = 0, None
    if isinstance(query_offset, (int, np.integer)):
        offset = int(query_offset)
    else:
        offsets = _integers("query_offset", query_offset)
    lengths = None if kv_lengths is None else _integers("kv_lengths", kv_lengths)
    firsts = None if kv_first is None else _integers("kv_first", kv_first)
    return (flags, scale, softcap, offset, offsets, lengths, firsts, left, right, mask, bias, alibi_slopes, sinks,
            bool(return_lse), stage, _starts("query_starts", query_starts), _starts("key_starts", key_starts),
            _pages_table(pages))


@overload
def attention(q: Array, k: Array, v: Array, *, out: None = ..., return_lse: Literal[False] = ...,
              return_scores: None = ..., **options: Unpack[AttentionOptions]) -> New: ...
@overload
def attention(q: Array, k: Array, v: Array, *, out: None = ..., return_lse: Literal[True], return_scores: None = ...,
              **options: Unpack[AttentionOptions]) -> tuple[New, New]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, out: None = ..., return_lse: Literal[False] = ...,
              return_scores: Scores, **options: Unpack[AttentionOptions]) -> tuple[New, New]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, out: None = ..., return_lse: Literal[True], return_scores: Scores,
              **options: Unpack[AttentionOptions]) -> tuple[New, New, New]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, out: _A, return_lse: Literal[False] = ...,
              return_scores: None = ..., **options: Unpack[AttentionOptions]) -> _A: ...
@overload
def attention(q: Array, k: Array, v: Array, *, out: Array, return_lse: bool = ..., return_scores: Scores | None = ...,
              **options: Unpack[AttentionOptions]) -> tuple[Any, ...]: ...
@overload
def attention(q: Array, k: Array, v: Array, *, pauses: bool, out: Array | None = ..., return_lse: bool = ...,
              return_scores: Scores | None = ..., **options: Unpack[AttentionOptions]) -> Any: ...
def attention(q: Array, k: Array, v: Array, *, out: Array | None = None, scale: float | None = None,
              causal: Causal | None = None, window: Window | None = None, query_offset: int | Integers = 0,
              kv_lengths: Integers | None = None, kv_first: Integers | None = None, mask: Array | None = None,
              bias: Array | None = None, softcap: float = 0.0, alibi_slopes: Array | None = None,
              sinks: Array | None = None, k_scale: Array | None = None, v_scale: Array | None = None,
              query_starts: Integers | None = None, key_starts: Integers | None = None, pages: Array | None = None,
              state: Array | None = None, pauses: bool = False, key_offset: int = 0, return_lse: bool = False,
              return_scores: Scores | None = None, threads: int = 0, **unknown: Any) -> Any:
    """softmax(scale * q @ k.T) @ v without ever holding the matrix of scores.

    q ``[B, H, Nq, D]``, k ``[B, Hkv, Nk, D]``, v ``[B, Hkv, Nk, Dv]``, out ``[B, H, Nq, Dv]``; leading axes may be absent.
    H is a multiple of Hkv: grouped-query attention comes from the shapes. The batch broadcasts. ``[B, N, H, D]`` arrays go
    as ``q.swapaxes(1, 2)``: where the extents happen to fit, nothing tells them from ``[B, H, N, D]``.

    scale          None: 1 / sqrt(D)
    causal         "top-left": query i sees the keys up to i + query_offset; "bottom-right": the last query sees the last
                   key. (Libraries disagree on what a bare "causal" means when Nq != Nk.)
    window         (left, right): only keys from i + offset - left to i + offset + right; None on a side, or -1: no bound
    query_offset   position of the first query among the keys: an int, or one per batch
    kv_lengths     how many keys of each batch exist; the rest is not read
    kv_first       where the keys of each batch begin, for padding on the left: what is before is not read. Positions
                   and the rows of mask and bias count from the first column all the same
    mask           bool ``[B, H, Nq, Nk]``, broadcast: True is visible. One of padded keys is ``[B, 1, 1, Nk]``: a
                   ``[B, Nk]`` says something of queries, and fits by accident where B = Nq
    bias           ``[B, H, Nq, Nk]``, broadcast: added to the scores; -inf hides a key
    softcap        > 0: scores become softcap * tanh(scores / softcap)
    alibi_slopes   ``[H]``: slope * distance is taken off the scores
    sinks          ``[H]``: one more score for every query of the head, of value 0
    k_scale        of keys in int8, which need one, or float8_e4m3fn: key j is k_scale * k[j]. float32, one number per key
                   ``[B, Hkv, Nk, 1]``, per feature ``[B, Hkv, 1, D]`` or less, broadcast to k; an array, not a number
    v_scale        the same of values, ``[B, Hkv, Nk, 1]`` or ``[B, Hkv, 1, Dv]``
    query_starts   sequences packed one after the other, without padding: q and out are ``[H, total, D]``, lse ``[H, total]``,
                   and sequence b has the rows query_starts[b] to query_starts[b + 1] - 1, so that there is one number more
                   than sequences; the first is 0, the last the total. A side that is not packed has the sequences as its
                   batch; what is per batch is per sequence, and causal masks, windows and ALiBi count its own keys
    key_starts     the same of k and v, ``[Hkv, total, D]``. mask and bias are ``[H, total, R]``: a column is a key of the
                   query's own sequence, R at least the keys of the longest
    pages          int32 ``[B, most pages of a sequence]``: k and v are pools ``[pages, Hkv, page size, D]``, with scales
                   likewise, and key j of batch b is ``k[pages[b, j // size], :, j % size]``. Needs kv_lengths; of the table
                   only the entries for keys that exist are read. :class:`KVCache` keeps such pools
    pauses         more keys follow in another call, which together give the bits of one. The result is the state of each
                   query's open sums, ``[B, H, Nq, 2 (Dv + 2)]``, float32 (float64). Such a piece has a multiple of 256 keys;
                   queries and options stay the same. Not with "bottom-right" and kv_first: where keys end is not known yet
    state          what the call before gave, which paused: this one goes on from it. One that pauses too overwrites and
                   returns it, the last one only reads it
    key_offset     how many keys the calls before had: moves causal masks, windows and ALiBi. mask, bias and kv_lengths
                   describe the keys of the call
    return_lse     also return the log of the sum of exp of the visible scores, ``[B, H, Nq]``, for :func:`merge`
    return_scores  also return ``[B, H, Nq, Nk]``: "scaled", "softcapped", "masked" or "probabilities"

    Returns out, or a tuple (out, lse, scores) of what was asked for. A query that sees no key gives 0 and -inf.
    """
    if unknown:
        raise unexpected(attention, unknown)
    if pauses and (out is not None or return_lse):
        raise ValueError(f"{'return_lse' if out is None else 'out'}: only the last piece has it; with pauses the state is returned")
    return _attend.attention(q, k, v, out, threads, k_scale, v_scale, state, key_offset, bool(pauses), *_options(
        scale, causal, window, query_offset, kv_lengths, kv_first, mask, bias, softcap, alibi_slopes, sinks,
        return_lse, return_scores, query_starts, key_starts, pages))


@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: None = ..., return_lse: Literal[False] = ...,
                   return_scores: None = ..., **options: Unpack[SelfAttentionOptions]) -> New: ...
@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: None = ..., return_lse: Literal[True], return_scores: None = ...,
                   **options: Unpack[SelfAttentionOptions]) -> tuple[New, New]: ...
@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: None = ..., return_lse: Literal[False] = ...,
                   return_scores: Scores, **options: Unpack[SelfAttentionOptions]) -> tuple[New, New]: ...
@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: None = ..., return_lse: Literal[True], return_scores: Scores,
                   **options: Unpack[SelfAttentionOptions]) -> tuple[New, New, New]: ...
@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: _A, return_lse: Literal[False] = ..., return_scores: None = ...,
                   **options: Unpack[SelfAttentionOptions]) -> _A: ...
@overload
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = ..., b_k: Array | None = ...,
                   b_v: Array | None = ..., *, out: Array, return_lse: bool = ..., return_scores: Scores | None = ...,
                   **options: Unpack[SelfAttentionOptions]) -> tuple[Any, ...]: ...
def self_attention(x: Array, w_q: Array, w_k: Array, w_v: Array, b_q: Array | None = None, b_k: Array | None = None,
                   b_v: Array | None = None, *, w_o: Array | None = None, b_o: Array | None = None,
                   out: Array | None = None, scale: float | None = None, causal: Causal | None = None,
                   window: Window | None = None, query_offset: int | Integers = 0,
                   kv_lengths: Integers | None = None, kv_first: Integers | None = None, mask: Array | None = None,
                   bias: Array | None = None, softcap: float = 0.0, alibi_slopes: Array | None = None,
                   sinks: Array | None = None, query_starts: Integers | None = None, return_lse: bool = False,
                   return_scores: Scores | None = None, threads: int = 0, **unknown: Any) -> Any:
    """Projections, :func:`attention`, and with w_o an output projection.

    x ``[B, N, D]`` or ``[N, D]``; the book's D x N matrix X is passed as ``X.T``, which copies nothing. Weights stand as
    they do in ``w @ column``: w_q ``[H, Dh, D]``, w_k ``[Hkv, Dh, D]``, w_v ``[Hkv, Dv, D]``, w_o ``[H, Dout, Dv]``; biases
    as columns: b_q ``[H, Dh, 1]`` and so on, b_o ``[Dout]``. With one head the axis of heads may be absent: w_q ``[Dh, D]``,
    b_q ``[Dh, 1]`` or ``[Dh]``; then neither out nor mask, bias, lse and scores have it.

    out is ``[B, H, N, Dv]``, or with w_o ``[B, N, Dout]``. query_starts packs x ``[total, D]``, its keys with it. Everything else as in :func:`attention`.
    """
    if unknown:
        raise unexpected(self_attention, unknown)
    return _attend.self_attention(x, w_q, w_k, w_v, b_q, b_k, b_v, w_o, b_o, out, threads, *_options(
        scale, causal, window, query_offset, kv_lengths, kv_first, mask, bias, softcap, alibi_slopes, sinks,
        return_lse, return_scores, query_starts))


def merge(out_a: _A, lse_a: _B, out_b: Array, lse_b: Array, *, threads: int = 0) -> tuple[_A, _B]:
    """Attention over the union of two disjoint sets of keys, from the results over each.

    out ``[..., N, Dv]`` and lse ``[..., N]`` as :func:`attention` returns them with return_lse=True. out_a and lse_a are
    overwritten with those of the union and returned; (0, -inf) is the identity. FlashAttention 2 gives +inf for a part
    without keys: replace it first, since +inf like NaN makes the union NaN.
    """
    merged: tuple[_A, _B] = _attend.merge(out_a, lse_a, out_b, lse_b, threads)
    return merged


# ---------------------------------------------------------------------------------------------------------- convert --


@overload
def convert(x: Array, dtype: npt.DTypeLike, *, out: None = ..., scale: Array | None = ...,
            scale_axis: None = ..., threads: int = ...) -> New: ...
@overload
def convert(x: Array, *, out: _A, scale: Array | None = ..., scale_axis: None = ..., threads: int = ...) -> _A: ...
@overload
def convert(x: Array, dtype: npt.DTypeLike, *, out: None = ..., scale_axis: int | tuple[int, ...],
            threads: int = ...) -> tuple[New, New]: ...
@overload
def convert(x: Array, *, out: _A, scale_axis: int | tuple[int, ...], threads: int = ...) -> tuple[_A, New]: ...
def convert(x: Array, dtype: npt.DTypeLike | None = None, *, out: Array | None = None, scale: Array | None = None,
            scale_axis: int | tuple[int, ...] | None = None, threads: int = 0, **unknown: Any) -> Any:
    """x in another element type, each number rounded once, to nearest even: float32, float64, float16, bfloat16,
    float8_e4m3fn, int8, uint8, int32.

    x has up to four axes. The result is a new array of `dtype`, or `out`, of x's shape. To integers: then the nearest there
    is, NaN gives 0; to float8_e4m3fn: at most +-448.

    scale (float32, broadcasts to x) goes with exactly one array of 8 bits: from it, scale * x, to it, x / scale. With
    scale_axis it is computed, to int8 and float8_e4m3fn, and returned beside the result: one number for all along these
    axes, of which it keeps 1: largest magnitude / 127 or 448, 1 where all are 0. Of a cache ``[B, H, N, D]`` axis -1 gives a
    scale for each token and head, ``[B, H, N, 1]``, as :func:`attention` takes it.
    """
    if unknown:
        raise unexpected(convert, unknown)
    shape = np.shape(x)  # type: ignore[arg-type]
    if out is None:
        if dtype is None:
            raise TypeError("dtype: a type is needed where there is no out")
        out = np.empty(shape, dtype)
    elif dtype is not None:
        raise TypeError("dtype: out has its own")
    if scale_axis is None:
        return _attend.convert(x, out, scale, False, threads)
    if scale is not None:
        raise TypeError("scale: it is computed along scale_axis")
    axes = scale_axis if isinstance(scale_axis, tuple) else (scale_axis,)
    for axis in axes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"scale_axis: {axis}, but x has {len(shape)} axes")
    along = {axis % len(shape) for axis in axes}
    computed = np.empty([1 if axis in along else n for axis, n in enumerate(shape)], np.float32)
    return _attend.convert(x, out, computed, True, threads)


from ._cache import KVCache  # noqa: E402  it is made of the functions above
from ._gradients import attention_backward  # noqa: E402  it takes their options
