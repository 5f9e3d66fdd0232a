"""What functions take and give, and how arrays of integers and tables of pages are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Buffer  # a part of every type checker


class SupportsDlpack(Protocol):
    """A tensor of another library, in the memory of the CPU."""

    def __dlpack__(self) -> Any: ...


Array: TypeAlias = "npt.NDArray[Any] | Buffer | SupportsDlpack"
Causal: TypeAlias = Literal["top-left", "bottom-right"]
Scores: TypeAlias = Literal["scaled", "softcapped", "masked", "probabilities"]
New: TypeAlias = "npt.NDArray[Any]"
Integers: TypeAlias = "Sequence[int] | npt.NDArray[np.integer[Any]]"
Window: TypeAlias = "tuple[int | None, int | None]"


class CommonOptions(TypedDict, total=False):
    """What ``attention`` and ``self_attention`` take beside their operands, for type checkers."""

    scale: float | None
    causal: Causal | None
    window: Window | None
    query_offset: int | Integers
    kv_lengths: Integers | None
    kv_first: Integers | None
    query_starts: Integers | None
    mask: Array | None
    bias: Array | None
    softcap: float
    alibi_slopes: Array | None
    sinks: Array | None
    threads: int


class AttentionOptions(CommonOptions, total=False):
    """The same with what ``attention`` alone takes."""

    k_scale: Array | None
    v_scale: Array | None
    key_starts: Integers | None
    pages: Array | None
    state: Array | None
    key_offset: int


class BackwardOptions(CommonOptions, total=False):
    """The same with what ``attention_backward`` alone takes, but for the gradients."""

    lse: Array | None
    d_lse: Array | None
    key_starts: Integers | None


class SelfAttentionOptions(CommonOptions, total=False):
    """The same with what ``self_attention`` alone takes."""

    w_o: Array | None
    b_o: Array | None


def integers(name: str, value: Any, of: str = "one per batch") -> npt.NDArray[np.integer[Any]]:
    """An array of one axis. What it holds is looked at once its length is known to be right."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: the mask of a masked array would be ignored: pass its .filled(value)")
    numbers = np.asarray(value)
    if numbers.ndim == 1 and numbers.dtype.kind in "iu":
        return numbers
    if isinstance(value, (list, tuple)):
        if not value:
            return np.empty(0, np.int64)
        if any(isinstance(n, int) and not -(2**63) <= n < 2**63 for n in value):
            raise OverflowError(f"{name}: numbers from -2**63 to 2**63 - 1 are needed")
    raise TypeError(f"{name}: integers are needed, {of}, not {value!r:.80}")


def starts(name: str, value: Any) -> npt.NDArray[np.integer[Any]] | None:
    return None if value is None else integers(name, value, "where each sequence begins and the last ends")


def pages_table(value: Any) -> Any:
    """A table of pages, whose type the library would be the last to name."""
    if isinstance(value, np.ndarray) and value.dtype != np.int32:
        raise TypeError(f"pages: elements must be int32, not {value.dtype}")
    return value
