"""Masks of transformers as what they say: positions, windows and padding, and not one bit for each query and key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import masking_utils
from transformers.masking_utils import sdpa_mask


class Rule(NamedTuple):
    """Which keys a query sees by their positions."""

    causal: bool = False
    left: int | None = None
    right: int | None = None

    @property
    def window(self) -> tuple[int | None, int | None] | None:
        return None if self.left is None and self.right is None else (self.left, self.right)

    def met(self, other: Rule) -> Rule:
        return Rule(self.causal or other.causal, _least(self.left, other.left), _least(self.right, other.right))


def _least(a: int | None, b: int | None) -> int | None:
    return a if b is None else b if a is None else min(a, b)


def _cells(function: Callable[..., Any]) -> dict[str, Any]:
    return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__ or ()), strict=True))


def rule_of(function: Callable[..., Any]) -> Rule | None:
    """What a mask function of transformers says; None if it is none of those that are known here, whatever its name."""
    if function is masking_utils.causal_mask_function:
        return Rule(causal=True)
    if function is masking_utils.bidirectional_mask_function:
        return Rule()
    if getattr(function, "__module__", None) != masking_utils.__name__:
        return None
    kind = function.__qualname__
    if kind == "sliding_window_overlay.<locals>.inner_mask":
        return Rule(left=_cells(function)["sliding_window"] - 1)
    if kind == "sliding_window_bidirectional_overlay.<locals>.inner_mask":
        distance = _cells(function)["sliding_window"]
        return Rule(left=distance, right=distance)
    if kind == "and_masks.<locals>.and_mask":
        rule = Rule()
        for part in _cells(function)["mask_functions"]:
            one = rule_of(part)
            if one is None:
                return None
            rule = rule.met(one)
        return rule
    return None


def runs(padding: Tensor) -> tuple[Tensor | None, Tensor | None] | None:
    """(first, lengths) of a bool [B, Nk] whose rows are each one run of True, either None where it says nothing; None if a
    row has holes. A row without any is of length 0."""
    keys = padding.shape[1]
    bits = padding.numpy()
    if bits.all():
        return None, None
    length = torch.from_numpy(keys - bits[:, ::-1].argmax(1)).to(torch.int64)
    first = torch.from_numpy(bits.argmax(1)).to(torch.int64)
    count = torch.from_numpy(bits.sum(1)).to(torch.int64)
    length, first = length.masked_fill(count == 0, 0), first.masked_fill(count == 0, 0)
    if not torch.equal(length - first, count):
        return None
    return first if bool(first.any()) else None, length if bool((length < keys).any()) else None


def single_run(batch: int, keys: int, rule: Rule, padding: tuple[Tensor | None, Tensor | None], position: int
               ) -> tuple[Tensor | None, Tensor]:
    """(first, lengths) that say all that rule and padding say of one query at this position. Compiled decode steps take tensors
    as they come, where a position would be a constant of theirs: one graph for all steps, not three."""
    first, lengths = padding
    end = min(keys, position + 1) if rule.causal else keys
    if rule.right is not None:
        end = min(end, position + rule.right + 1)
    lengths = torch.full((batch,), end) if lengths is None else lengths.clamp(max=end)
    if rule.left is not None:
        begin = max(0, position - rule.left)
        first = torch.full((batch,), begin) if first is None else first.clamp(min=begin)
    return first, lengths


class PositionMask(Tensor):
    """A mask of [B, 1, Nq, Nk] that is not there: memory that nobody touches, which systems give when it is touched, and what
    the mask says.

    The attention function looks at the attributes. Any operation of PyTorch on it, such as a slice, is done on the mask
    itself, which is made then: nothing is lost on the way, it only takes longer.

    rule, first, lengths, query_offset  what the mask says, for attend
    single                              the same of a mask of one query as (first, lengths) alone, else None
    extents                             Nq, Nk, which compilers can read where they cannot ask for the shape
    """

    rule: Rule
    first: Tensor | None
    lengths: Tensor | None
    query_offset: int
    single: tuple[Tensor | None, Tensor] | None
    extents: tuple[int, int]
    _make: Callable[[], Tensor]

    @staticmethod
    def of(shape: tuple[int, int, int, int], rule: Rule, padding: tuple[Tensor | None, Tensor | None], query_offset: int,
           make: Callable[[], Tensor]) -> PositionMask:
        mask: PositionMask = torch.empty(shape, dtype=torch.bool).as_subclass(PositionMask)
        mask.rule, (mask.first, mask.lengths), mask.query_offset, mask._make = rule, padding, query_offset, make
        mask.extents = shape[-2:]
        mask.single = None if shape[2] != 1 else single_run(shape[0], shape[3], rule, padding, query_offset)
        return mask

    def materialised(self) -> Tensor:
        """The mask as a tensor of bool."""
        return self._make()

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _THE_SAME and len(args) == 1 and not kwargs:
            return args[0]
        if function in _ABOUT:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))

        def real(x: Any) -> Any:
            if isinstance(x, PositionMask):
                return x.materialised()
            return type(x)(map(real, x)) if type(x) in (list, tuple) else x

        return function(*map(real, args), **{name: real(x) for name, x in (kwargs or {}).items()})


_THE_SAME = {Tensor.contiguous, Tensor.detach}

# What may be asked of a mask that is not there.
_ABOUT = {Tensor.shape.__get__, Tensor.dtype.__get__, Tensor.device.__get__, Tensor.ndim.__get__,  # type: ignore[attr-defined]
          Tensor.is_cpu.__get__, Tensor.requires_grad.__get__, Tensor.layout.__get__,  # type: ignore[attr-defined]
          Tensor.dim, Tensor.size, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.is_complex}


def mask_function(batch_size: int, q_length: int, kv_length: int, q_offset: Any = 0, kv_offset: int = 0,
                  mask_function: Callable[..., Any] = masking_utils.causal_mask_function,
                  attention_mask: Tensor | None = None, **options: Any) -> Tensor:
    """The mask interface of transformers: always a mask, so that nothing has to be guessed in the layers."""

    def make() -> Tensor:
        given = {**options, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
        mask: Tensor = sdpa_mask(batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset,
                                 kv_offset=kv_offset, mask_function=mask_function, attention_mask=attention_mask, **given)
        return mask

    if torch.compiler.is_compiling():  # numbers are not known
        return make()
    rule = rule_of(mask_function)
    if rule is None:
        return make()
    padding: tuple[Tensor | None, Tensor | None] | None = (None, None)
    if attention_mask is not None:
        whole = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
        padding = runs(whole[:, kv_offset:kv_offset + kv_length].to(torch.bool))
    if padding is None:
        return make()
    return PositionMask.of((batch_size, 1, q_length, kv_length), rule, padding, int(q_offset) - kv_offset, make)
