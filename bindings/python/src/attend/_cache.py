"""A cache of keys and values in pages, made of kv_append, rotary and attention."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import attend

from ._arguments import Array, Integers, integers

_Ints = npt.NDArray[np.int64]


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    if isinstance(dtype, str) and dtype in ("bfloat16", "float8_e4m3fn"):
        dtype = getattr(importlib.import_module("ml_dtypes"), dtype)
    return np.dtype(dtype)


def _pool(shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """An empty array on a boundary of the system's pages, so that those of the cache cross as few as they can: bf16 in pages of
    16 keys of 128 features is read 1.1 to 1.25 times as fast as from where NumPy puts it."""
    boundary = 4096
    room = np.empty(math.prod(shape) * dtype.itemsize + boundary, np.uint8)
    first = -room.ctypes.data % boundary
    return room[first : first + room.size - boundary].view(dtype).reshape(shape)


class KVCache:
    """Keys and values of many sequences, in pages of one pool.

    heads           of keys and values
    features        of a key; value_features: of a value, as many by default
    dtype           float32, float64, float16, bfloat16; or int8 and float8_e4m3fn, with a scale for each item and head
    page_size       items of a page
    pages           of the pool at first; when there are no more it doubles, which copies it
    rotary          None, or (cos, sin), tables as in :func:`rotary`, with rotary_dims and interleaved as there: keys are
                    rotated when they are appended, queries when they attend, by their places in the sequence

    Sequences are numbers, which :meth:`add` and :meth:`fork` give. Where a method takes several, None means all there are,
    in the order in which they came; no number may be there twice. What is wrong raises an exception and changes nothing.
    Any number of threads may :meth:`attend` at once, but none while another changes the cache. Attention has the bits that
    it has over keys in one array, converted likewise.
    """

    def __init__(self, heads: int, features: int, value_features: int | None = None, *, dtype: npt.DTypeLike = np.float32,
                 page_size: int = 16, pages: int = 64, rotary: tuple[Array, Array] | None = None, rotary_dims: int = 0,
                 interleaved: bool = False) -> None:
        if heads < 1 or features < 1 or page_size < 1 or pages < 1:
            raise ValueError("heads, features, page_size and pages must be 1 or more")
        self.dtype = _dtype(dtype)
        self.page_size = page_size
        of_values = features if value_features is None else value_features
        if of_values < 0:
            raise ValueError("value_features must be 0 or more")
        self.k = _pool((pages, heads, page_size, features), self.dtype)
        self.v = _pool((pages, heads, page_size, of_values), self.dtype)
        has_scales = self.dtype.name in ("int8", "float8_e4m3fn")
        self.k_scale = np.empty((pages, heads, page_size, 1), np.float32) if has_scales else None
        self.v_scale = np.empty((pages, heads, page_size, 1), np.float32) if has_scales else None
        self._rotary = rotary
        self._pairs: dict[str, Any] = {"rotary_dims": rotary_dims, "interleaved": interleaved} if rotary is not None else {}
        self._sharers = np.zeros(pages, np.int64)  # of each page: 0 = it is free
        self._free_pages = list(range(pages))[::-1]
        self._row: dict[int, int] = {}  # of a sequence, in what follows
        self._next = 0
        self._table = np.zeros((1, 1), np.int32)
        self._lengths = np.zeros(1, np.int64)
        self._free_rows = [0]

    def __len__(self) -> int:
        """How many sequences there are."""
        return len(self._row)

    @property
    def used_pages(self) -> int:
        """How many pages of the pool have keys."""
        return len(self._sharers) - len(self._free_pages)

    def lengths(self, sequences: Sequence[int] | None = None) -> _Ints:
        """How many items each sequence has."""
        return self._lengths[self._rows(sequences)]

    def add(self) -> int:
        """A new sequence, which is empty."""
        row = self._new_row()
        self._lengths[row] = 0
        return self._named(row)

    def free(self, sequences: int | Sequence[int]) -> None:
        """Forgets a sequence or several, and gives their pages back that no other shares."""
        sequences = [sequences] if isinstance(sequences, (int, np.integer)) else sequences
        for row in self._rows(sequences):
            self._release(self._table[row, : self._pages_for(self._lengths[row])])
            self._free_rows.append(int(row))
        for sequence in sequences:
            del self._row[sequence]

    def fork(self, sequence: int, length: int | None = None) -> int:
        """A new sequence that begins with the first `length` items of another, all by default.

        Pages that are full are shared; the rest, less than a page, is copied.
        """
        [old] = self._rows([sequence])
        has = int(self._lengths[old])
        length = has if length is None else length
        if not 0 <= length <= has:
            raise ValueError(f"length: is {length}, but must be 0 to {has}")
        shared, rest = divmod(length, self.page_size)
        copied = self._new_pages(1 if rest else 0)
        row = self._new_row()
        pages = self._table[old, : self._pages_for(length)]
        for pool in self._pools():
            pool[copied] = pool[pages[shared:]]
        self._table[row, :shared] = pages[:shared]
        self._table[row, shared : shared + len(copied)] = copied
        self._sharers[pages[:shared]] += 1
        self._lengths[row] = length
        return self._named(row)

    def append(self, k: Array, v: Array, sequences: Sequence[int] | None = None, *, starts: Integers | None = None,
               threads: int = 0) -> None:
        """New keys ``[B, heads, new, features]`` and values at the ends of B sequences; of one, the first axis may be absent.

        With starts they are packed, ``[heads, total, features]``, and sequence i gets the items starts[i] to
        starts[i + 1] - 1.
        """
        rows = self._rows(sequences)
        counts = self._counts("k", k, rows, "starts", starts)
        before = self._lengths[rows]
        first, end = self._pages_for(before), self._pages_for(before + counts)
        self._widen(int(end.max(initial=0)))
        new = self._new_pages(int((end - first).sum()))
        at = 0
        for row, a, b in zip(rows, first, end):
            self._table[row, a:b] = new[at : at + b - a]
            at += b - a
        cos, sin = (None, None) if self._rotary is None else self._rotary
        scales = self.k_scale is not None
        try:
            attend.kv_append(k, v, self.k, self.v, offsets=before, starts=starts, pages=self._pages_of(rows, end),
                             k_scale=self.k_scale, v_scale=self.v_scale, compute_k_scale=scales, compute_v_scale=scales,
                             cos=cos, sin=sin, threads=threads, **self._pairs)
        except BaseException:
            self._release(new)
            raise
        self._lengths[rows] += counts

    def attend(self, q: Array, sequences: Sequence[int] | None = None, *, query_starts: Integers | None = None,
               causal: attend.Causal | None = "bottom-right", **options: Any) -> Any:
        """:func:`attention` of q ``[B, H, Nq, features]`` over B sequences, of one also ``[H, Nq, features]``, or packed with
        query_starts, ``[H, total, features]``.

        The queries are those of the last items: append their keys and values first. causal=None lets each see all keys.
        options are those of attention but for those that say where keys are.
        """
        rows = self._rows(sequences)
        counts = self._counts("q", q, rows, "query_starts", query_starts)
        lengths = self._lengths[rows]
        if self._rotary is not None:
            q = attend.rotary(q, *self._rotary, offsets=lengths - counts, starts=query_starts,
                              threads=options.get("threads", 0), **self._pairs)
        pages = self._pages_of(rows, self._pages_for(lengths))
        if query_starts is None and np.ndim(q) < 4:  # type: ignore[arg-type]
            [pages] = pages
        return attend.attention(q, self.k, self.v, query_starts=query_starts, pages=pages, kv_lengths=lengths, causal=causal,
                                k_scale=self.k_scale, v_scale=self.v_scale, **options)

    # ------------------------------------------------------------------------------------- sequences, pages, tables --

    def _rows(self, sequences: Sequence[int] | None) -> npt.NDArray[np.intp]:
        named = self._row if sequences is None else sequences
        rows = np.array([self._row.get(sequence, -1) for sequence in named], np.intp)
        if (rows < 0).any():
            raise ValueError(f"sequences: there is no {list(named)[rows.argmin()]!r:.80}")
        if len({*rows}) != len(rows):
            raise ValueError("sequences: one is there twice")
        return rows

    def _counts(self, name: str, array: Array, rows: npt.NDArray[np.intp], of_starts: str, starts: Integers | None) -> _Ints:
        """Items of each sequence: none where starts are wrong, of which the library says more."""
        shape = np.shape(array)  # type: ignore[arg-type]
        if starts is None:
            batch = shape[0] if len(shape) == 4 else 1
            if batch != len(rows):
                raise ValueError(f"{name}: has a batch of {batch} for {len(rows)} sequences")
            return np.full(len(rows), shape[-2] if len(shape) > 1 else 1, np.int64)
        numbers = integers(of_starts, starts)
        if len(numbers) != len(rows) + 1:
            raise ValueError(f"{of_starts}: {len(numbers)} numbers for {len(rows)} sequences; one more is needed")
        counts = numbers[1:].astype(np.int64) - numbers[:-1].astype(np.int64)
        sound = len(shape) > 1 and numbers[0] == 0 and numbers[-1] == shape[-2] and (counts >= 0).all()
        return counts if sound else np.zeros_like(counts)

    def _pages_for(self, length: Any) -> Any:
        return -(-length // self.page_size)

    def _pages_of(self, rows: npt.NDArray[np.intp], counts: _Ints) -> npt.NDArray[np.int32]:
        return self._table[rows, : max(1, int(counts.max(initial=0)))]

    def _pools(self) -> list[npt.NDArray[Any]]:
        return [pool for pool in (self.k, self.v, self.k_scale, self.v_scale) if pool is not None]

    def _new_pages(self, count: int) -> npt.NDArray[np.int32]:
        has = len(self._sharers)
        if count > len(self._free_pages):
            now = max(2 * has, self.used_pages + count)
            grown = [_pool((now, *pool.shape[1:]), pool.dtype) for pool in self._pools()]
            for pool, old in zip(grown, self._pools()):
                pool[:has] = old
            self.k, self.v = grown[:2]
            if self.k_scale is not None:
                self.k_scale, self.v_scale = grown[2:]
            self._sharers = np.concatenate([self._sharers, np.zeros(now - has, np.int64)])
            self._free_pages = [*range(now - 1, has - 1, -1), *self._free_pages]
        taken = np.array([self._free_pages.pop() for _ in range(count)], np.int32)
        self._sharers[taken] = 1
        return taken

    def _release(self, pages: npt.NDArray[np.int32]) -> None:
        self._sharers[pages] -= 1
        self._free_pages += pages[self._sharers[pages] == 0].tolist()

    def _new_row(self) -> int:
        if not self._free_rows:
            rows = len(self._lengths)
            self._table = np.concatenate([self._table, np.zeros_like(self._table)])
            self._lengths = np.concatenate([self._lengths, np.zeros_like(self._lengths)])
            self._free_rows = list(range(2 * rows - 1, rows - 1, -1))
        return self._free_rows.pop()

    def _named(self, row: int) -> int:
        self._row[self._next] = row
        self._next += 1
        return self._next - 1

    def _widen(self, pages: int) -> None:
        """The table, to so many pages of a sequence."""
        more = pages - self._table.shape[1]
        if more > 0:
            more = max(more, self._table.shape[1])
            self._table = np.concatenate([self._table, np.zeros((len(self._table), more), np.int32)], axis=1)
