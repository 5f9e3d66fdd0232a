"""What to say of an argument that a function does not have."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

_MASK = "mask= (bool, True is visible), or bias= for numbers that are added to the scores"
_AXIS = "softmax has axis=; matmul works on the last two axes: numpy.moveaxis brings others there"
_ELSEWHERE = {  # what other libraries call it
    "attn_mask": _MASK, "attention_mask": _MASK, "attn_bias": "bias=",
    "is_causal": 'causal="top-left" is PyTorch\'s; with "bottom-right" the last query sees the last key',
    "enable_gqa": "leave it out: grouped heads come from the shapes",
    "dropout_p": "leave it out: there is no dropout", "softmax_scale": "scale=", "sm_scale": "scale=",
    "window_size": "window=(left, right)", "logits_soft_cap": "softcap=", "cu_seqlens_q": "query_starts=",
    "cu_seqlens_k": "key_starts=", "cu_seqlens": "query_starts=, and key_starts= in attention()", "seqused_k": "kv_lengths=",
    "cache_seqlens": "kv_lengths=", "seq_lens": "kv_lengths=", "block_table": "pages=", "block_tables": "pages=", "slot_mapping": "slots=",
    "max_seqlen_q": "leave it out: lengths come from the starts", "max_seqlen_k": "leave it out: lengths come from the starts",
    "key_padding_mask": "mask= of shape [B, 1, 1, Nk], True is visible, or kv_lengths=",
    "dim": _AXIS, "axes": _AXIS, "dtype": "leave it out: results have the type of the arrays, or convert them", "where": "mask=",
    "num_threads": "threads=",
}


def unexpected(function: Callable[..., Any], unknown: dict[str, Any]) -> TypeError:
    name = next(iter(unknown))
    known = [*inspect.signature(function).parameters][:-1]
    hint = _ELSEWHERE.get(name)
    if hint is None:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}=?" if close else f"there are {', '.join(known)}"
    return TypeError(f"{name}: {function.__name__}() has no such argument; {hint}")
