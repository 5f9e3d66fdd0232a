"""Rotary embedding, and new keys and values into caches."""

from __future__ import annotations

from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from . import _attend
from ._arguments import Array, Integers, New, integers, pages_table
from ._arguments import starts as _starts
from ._hints import unexpected

_A = TypeVar("_A", bound="Array")


def _per_item(name: str, value: Any) -> npt.NDArray[np.integer[Any]] | None:
    if value is None:
        return None
    return integers(name, np.reshape(value, -1) if np.ndim(value) == 2 else value, "one per item")


def _positions(value: Any, of: Array) -> npt.NDArray[np.integer[Any]] | None:
    """One axis for a batch of 1, or what is the same for all of a batch."""
    numbers = _per_item("positions", value)
    shape = np.shape(of)  # type: ignore[arg-type]
    if numbers is not None and len(shape) == 4 and len(numbers) == shape[2]:
        return np.tile(numbers, shape[0])
    return numbers


def _optional(name: str, value: Any) -> npt.NDArray[np.integer[Any]] | None:
    return None if value is None else integers(name, value)


@overload
def rotary(x: Array, cos: Array, sin: Array, *, out: None = ..., rotary_dims: int = ..., positions: Integers | None = ...,
           offsets: Integers | None = ..., starts: Integers | None = ..., interleaved: bool = ..., inverse: bool = ...,
           threads: int = ...) -> New: ...
@overload
def rotary(x: Array, cos: Array, sin: Array, *, out: _A, rotary_dims: int = ..., positions: Integers | None = ...,
           offsets: Integers | None = ..., starts: Integers | None = ..., interleaved: bool = ..., inverse: bool = ...,
           threads: int = ...) -> _A: ...
def rotary(x: Array, cos: Array, sin: Array, *, out: Array | None = None, rotary_dims: int = 0,
           positions: Integers | None = None, offsets: Integers | None = None, starts: Integers | None = None,
           interleaved: bool = False, inverse: bool = False, threads: int = 0, **unknown: Any) -> Any:
    """Rotary embedding: each pair of features of an item turned by the angle of its position.

    x ``[B, H, N, D]``, leading axes absent or not, cos and sin ``[positions, rotary_dims / 2]`` or ``[B, H, positions, ..]``,
    where 1 fits any B or H. A table that holds each number twice, as transformers makes it, is half of it:
    ``cos[..., : D // 2]``. Angles are the caller's: those of float32 are off by 4e-3 at position 131071.

    out          a new array of x's type by default; may be x itself
    rotary_dims  so many features, an even number, are rotated, the others copied; 0: all
    positions    one per item: ``[B, N]``, or ``[N]`` for all batches; by default 0, 1, 2 ..
    offsets      one per batch, instead of positions: that of its first item
    starts       where packed sequences begin in x ``[H, total, D]``, and its total; positions then count in each
    interleaved  pairs are features 2i and 2i + 1; by default i and i + rotary_dims / 2
    inverse      by the opposite angle: the gradient, and what takes the position out of a key
    """
    if unknown:
        raise unexpected(rotary, unknown)
    return _attend.rotary(x, cos, sin, out, rotary_dims, _positions(positions, x),
                          _optional("offsets", offsets), _starts("starts", starts), bool(interleaved), bool(inverse),
                          threads)


def kv_append(k: Array, v: Array | None, k_cache: Array, v_cache: Array | None, *, offsets: Integers | None = None,
              starts: Integers | None = None, slots: Integers | None = None, pages: Array | None = None,
              k_scale: Array | None = None, v_scale: Array | None = None, compute_k_scale: bool = False,
              compute_v_scale: bool = False, cos: Array | None = None, sin: Array | None = None, rotary_dims: int = 0,
              positions: Integers | None = None, interleaved: bool = False, threads: int = 0, **unknown: Any) -> None:
    """New keys and values into their caches: k rotated if there are tables, both converted to the types of the caches.

    k ``[B, Hkv, new, D]``, v ``[B, Hkv, new, Dv]``, caches ``[B, Hkv, capacity, D]`` and ``[.., Dv]``, of any types that
    :func:`attention` takes; v and v_cache may both be None. What is no new item's stays as it is, and may be read by others
    meanwhile. Nothing is written where something is wrong.

    offsets          one per batch: the row of its cache where its first new item goes, the length before; None: 0
    starts           where packed sequences begin in k and v ``[Hkv, total, D]``, and the total
    pages            int32 ``[B, most pages of a sequence]``: the caches are pools ``[pages, Hkv, page size, D]``, as in
                     :func:`attention`. Of the table only the entries for new items are read. A page that sequences share
                     must not be appended to
    slots            one per item, ``[B, new]`` or in one axis, instead of offsets and pages: page * page size + row (of caches without pages: batch *
                     capacity + row); -1: it goes nowhere
    k_scale          float32, of int8 (required) and float8_e4m3fn: as the cache, with 1 row or 1 column, which are read; or
                     with compute_k_scale=True one per item and head, ``[B, Hkv, capacity, 1]``, which are written
    v_scale          the same of values
    cos, sin         tables as in :func:`rotary`; rotary_dims, interleaved and positions are those there. With slots there
                     must be positions
    """
    if unknown:
        raise unexpected(kv_append, unknown)
    if interleaved and cos is None and sin is None:
        raise ValueError("interleaved: is given without cos and sin")
    if compute_v_scale and v is None:
        raise ValueError("compute_v_scale: is given without v")
    _attend.kv_append(k, v, k_cache, v_cache, threads, _optional("offsets", offsets), _starts("starts", starts),
                      _per_item("slots", slots), pages_table(pages), k_scale, v_scale, bool(compute_k_scale),
                      bool(compute_v_scale), cos, sin, rotary_dims, _positions(positions, k),
                      bool(interleaved))
