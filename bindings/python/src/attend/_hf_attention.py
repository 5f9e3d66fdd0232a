"""The attention function of transformers by attend, and how often it ran."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

from ._hf_masks import PositionMask, Rule
from .torch._functions import attend as _attend


class Counts:
    """What ran in attend since the last :func:`reset_counts`.

    attention  calls of the attention function, one a layer and step
    decode     those of them with one query a sequence
    masks      those of them that got a mask of one bit or number for each query and key, since it says more than positions,
               windows and padding

    Models that torch.compile runs are not counted: their graphs name ``attend.attention``.
    """

    def __init__(self, attention: int = 0, decode: int = 0, masks: int = 0) -> None:
        self.attention, self.decode, self.masks = attention, decode, masks

    def __repr__(self) -> str:
        return f"Counts(attention={self.attention}, decode={self.decode}, masks={self.masks})"


_counts = Counts()
_lock = threading.Lock()


def counts() -> Counts:
    """How many attentions ran in attend, of all models and threads, since the last :func:`reset_counts`."""
    with _lock:
        return Counts(_counts.attention, _counts.decode, _counts.masks)


def reset_counts() -> None:
    """Lets :func:`counts` begin at 0."""
    with _lock:
        _counts.__init__()  # type: ignore[misc]


def _count(decode: bool, mask: bool) -> None:
    with _lock:
        _counts.attention += 1
        _counts.decode += decode
        _counts.masks += mask


def _refuse(dropout: float, training: bool, options: dict[str, Any]) -> None:
    if dropout and training:
        raise ValueError(f"attend has no dropout: set the configuration's attention dropout ({dropout}) to 0 to train")
    if options.get("output_attentions"):
        raise ValueError('output_attentions: attend has no matrix of weights to give; use attn_implementation="eager"')
    if options.get("head_mask") is not None:
        raise ValueError('head_mask: attend has none; use attn_implementation="eager"')


def _starts(options: dict[str, Any], query: Tensor, positions: PositionMask | None) -> tuple[Tensor | None, Tensor | None]:
    """Packed sequences as FlashAttention's keywords have them."""
    starts, key_starts = options.get("cu_seq_lens_q"), options.get("cu_seq_lens_k")
    if starts is None and key_starts is None:
        return None, None
    if starts is None or key_starts is None:
        raise ValueError("cu_seq_lens_q, cu_seq_lens_k: both are needed, or neither")
    if query.shape[0] != 1 or positions is None or positions.first is not None or positions.lengths is not None:
        raise ValueError("cu_seq_lens_q: packed sequences are one batch without padding and without a mask of its own")
    return starts.long(), key_starts.long()


def attention_function(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
                       dropout: float = 0.0, scaling: float | None = None, sliding_window: int | None = None,
                       softcap: float | None = None, is_causal: bool | None = None, s_aux: Tensor | None = None,
                       position_bias: Tensor | None = None, **options: Any) -> tuple[Tensor, None]:
    """The attention interface of transformers: query ``[B, H, Nq, D]``, key and value ``[B, Hkv, Nk, D]``; a new
    ``[B, Nq, H, D]``. It is called by the models."""
    _refuse(dropout, module.training, options)
    mask = bias = first = lengths = starts = key_starts = None
    rule, offset = Rule(), 0
    positions = attention_mask if isinstance(attention_mask, PositionMask) else None
    if positions is not None:
        if positions.extents != (query.shape[2], key.shape[2]):
            raise ValueError(f"attention_mask: is for {list(positions.extents)} queries and keys, but there are "
                             f"{[query.shape[2], key.shape[2]]}")
        starts, key_starts = _starts(options, query, positions)
        if positions.single is not None and starts is None and torch.compiler.is_compiling():
            first, lengths = positions.single
        else:
            rule, first, lengths, offset = positions.rule, positions.first, positions.lengths, positions.query_offset
    elif attention_mask is not None:
        if attention_mask.ndim != 4:
            raise ValueError(f"attention_mask: [B, 1, Nq, Nk] is needed, not {list(attention_mask.shape)}; this model does "
                             "not ask for its masks by attn_implementation")
        _starts(options, query, None)
        mask, bias = (attention_mask, None) if not attention_mask.is_floating_point() else (None, attention_mask)
    else:  # the model asked for no mask: the last query sees the last key
        causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
        offset = key.shape[2] - query.shape[2]
        if causal:
            rule = Rule(causal=query.shape[2] > 1, left=None if sliding_window is None else sliding_window - 1)
        elif sliding_window is not None:
            raise ValueError("sliding_window: without a mask it says nothing of an attention that is not causal")
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    if bias is not None and bias.dtype != query.dtype:
        bias = bias.to(query.dtype)
    packed = starts is not None
    if packed:
        query, key, value = query[0], key[0], value[0]
    out, _ = _attend(query, key, value, mask, bias, s_aux, lengths, first, None, starts, key_starts, 0 if packed else offset,
                     rule.causal, scaling, softcap or 0.0, rule.window)
    if not torch.compiler.is_compiling():
        _count(query.shape[-2] == 1, mask is not None or bias is not None)
    if packed:
        out = out[None]
    return out.transpose(1, 2).contiguous(), None
