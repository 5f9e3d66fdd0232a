"""``torch.nn.MultiheadAttention`` by attend, and models whose attention modules are replaced."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ._functions import attend

# Where packed sequences begin, inside packed_sequences().
_starts: contextvars.ContextVar[Tensor | None] = contextvars.ContextVar("starts", default=None)


@contextlib.contextmanager
def packed_sequences(starts: Tensor) -> Iterator[None]:
    """Within it every :class:`MultiheadAttention` of this thread takes its unbatched operands [total, E] for sequences that lie
    one after the other: sequence b has the rows starts[b] to starts[b + 1] - 1 and sees nothing of the others."""
    token = _starts.set(starts)
    try:
        yield
    finally:
        _starts.reset(token)


def _visible(mask: Tensor | None, name: str, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
    """Of nn.MultiheadAttention, where True is hidden: attend's (mask, bias)."""
    if mask is None:
        return None, None
    if mask.dtype is torch.bool:
        return ~mask, None
    if not mask.is_floating_point():
        raise TypeError(f"{name}: bool or floating-point numbers are needed, not {mask.dtype}")
    return None, mask.to(dtype)


class MultiheadAttention(nn.Module):
    """``torch.nn.MultiheadAttention`` by attend, with its arguments, results and names of parameters.

    Made by :meth:`from_torch`. Differences: in training its dropout must be 0; ``need_weights=True`` is an error, since there
    is no matrix of weights: pass False, as nn.TransformerEncoderLayer and nn.TransformerDecoderLayer do; a query that sees no
    key gives the output projection of 0, not NaN. Inputs, threads and gradients as
    :func:`~attend.torch.scaled_dot_product_attention`.
    """

    _qkv_same_embed_dim = False  # nn.TransformerEncoderLayer has a path of its own past the module where this is True

    in_proj_weight: Tensor | None
    in_proj_bias: Tensor | None
    q_proj_weight: Tensor | None
    k_proj_weight: Tensor | None
    v_proj_weight: Tensor | None

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        if module.bias_k is not None or module.add_zero_attn:
            raise ValueError("MultiheadAttention: add_bias_kv and add_zero_attn are not known to attend")
        self.embed_dim, self.num_heads, self.head_dim = module.embed_dim, module.num_heads, module.head_dim
        self.kdim, self.vdim, self.batch_first, self.dropout = module.kdim, module.vdim, module.batch_first, module.dropout
        for name in ("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            self.register_parameter(name, getattr(module, name))
        self.out_proj = module.out_proj
        self.train(module.training)

    @classmethod
    def from_torch(cls, module: nn.MultiheadAttention) -> MultiheadAttention:
        """The same module by attend; it shares module's parameters, so that either may be trained. ValueError for
        add_bias_kv and add_zero_attn."""
        if not isinstance(module, nn.MultiheadAttention):
            raise TypeError(f"from_torch: a torch.nn.MultiheadAttention is needed, not {type(module).__name__}")
        return cls(module)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        linear, bias = nn.functional.linear, self.in_proj_bias
        if self.in_proj_weight is not None and query is key is value:
            q, k, v = linear(query, self.in_proj_weight, bias).chunk(3, -1)
            return q, k, v
        weights = (self.in_proj_weight.chunk(3) if self.in_proj_weight is not None
                   else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight))
        biases = bias.chunk(3) if bias is not None else (None, None, None)
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        return q, k, v

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
                need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, None]:
        """As ``torch.nn.MultiheadAttention.forward``; is_causal=True means the mask in attn_mask is causal, and attend is
        told so instead of reading it."""
        if need_weights:
            raise ValueError("need_weights: attend has no matrix of weights to give; pass need_weights=False")
        if self.training and self.dropout:
            raise ValueError(f"MultiheadAttention: attend has no dropout; its {self.dropout} must be 0 in training")
        batched, starts = query.ndim == 3, _starts.get()
        same, same_kv = query is key, key is value
        if batched and not self.batch_first:
            query = query.transpose(0, 1)
            key = query if same else key.transpose(0, 1)
            value = key if same_kv else value.transpose(0, 1)
        q, k, v = map(self._heads, self._projected(query, key, value))
        causal = is_causal and attn_mask is not None
        mask, bias = (None, None) if causal else _visible(attn_mask, "attn_mask", q.dtype)
        if attn_mask is not None and attn_mask.ndim == 3 and batched and not causal:
            mask, bias = (x if x is None else x.unflatten(0, (q.shape[0], -1)) for x in (mask, bias))
        if key_padding_mask is not None:
            hidden, number = _visible(key_padding_mask, "key_padding_mask", q.dtype)
            if hidden is not None:
                hidden = hidden.unflatten(-1, (1, 1, -1)) if batched else hidden
                mask = hidden if mask is None else mask & hidden
            if number is not None:
                number = number.unflatten(-1, (1, 1, -1)) if batched else number
                bias = number if bias is None else bias + number
        if starts is not None:
            if batched or mask is not None or bias is not None:
                raise ValueError("MultiheadAttention: packed sequences are [total, E] and have no masks but causal ones")
        out, _ = attend(q, k, v, mask, bias, None, None, None, None, starts, starts, 0, causal)
        out = self.out_proj(out.transpose(-3, -2).flatten(-2))
        return out if self.batch_first or not batched else out.transpose(0, 1), None


def convert(model: nn.Module) -> int:
    """Replaces every ``torch.nn.MultiheadAttention`` in model, in place, by attend's; those inside
    nn.TransformerEncoderLayer and nn.TransformerDecoderLayer too, whose fused paths are then not taken. Parameters and the
    names in ``state_dict()`` stay. Returns how many there were.

    ValueError, and nothing is replaced, if one of them has what attend has not (add_bias_kv, add_zero_attn), or if model is one
    itself: :meth:`MultiheadAttention.from_torch` is for that. Not thread safe.
    """
    if isinstance(model, nn.MultiheadAttention):
        raise ValueError("convert: model is itself a MultiheadAttention; use MultiheadAttention.from_torch(model)")
    found = [(parent, name, MultiheadAttention.from_torch(child)) for parent in model.modules()
             for name, child in parent.named_children() if isinstance(child, nn.MultiheadAttention)]
    for parent, name, ours in found:
        setattr(parent, name, ours)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            module.enable_nested_tensor = module.use_nested_tensor = False
    return len(found)
