"""Attention in PyTorch's own operations, for gradients: what attend has no backward pass for is computed again and
differentiated by PyTorch. It holds the matrix of scores."""

from __future__ import annotations

import torch
from torch import Tensor

CAUSAL, WINDOW = 1, 4  # flags of attend.h


def _visible(queries: int, keys: int, batch: int, flags: int, left: int, right: int, query_offset: Tensor,
             lengths: Tensor | None, first: Tensor | None) -> Tensor | None:
    """Which keys exist and are seen by their positions, [B or 1, 1, Nq, Nk]; None: all."""
    if not flags and lengths is None and first is None:
        return None
    key = torch.arange(keys).view(1, 1, 1, keys)
    position = torch.arange(queries).view(1, 1, queries, 1) + query_offset.view(-1, 1, 1, 1)
    seen = torch.ones((1, 1, queries, keys), dtype=torch.bool)
    if flags & CAUSAL:
        seen = seen & (key <= position)
    if flags & WINDOW and left >= 0:
        seen = seen & (key >= position - left)
    if flags & WINDOW and right >= 0:
        seen = seen & (key <= position + right)
    if lengths is not None:
        seen = seen & (key < lengths.view(-1, 1, 1, 1))
    if first is not None:
        seen = seen & (key >= first.view(-1, 1, 1, 1))
    return seen


def _grouped(x: Tensor, heads: int) -> Tensor:
    """[B, Hkv, N, D] with each head as often as query heads share it."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _one(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, sinks: Tensor | None, scale: float,
         softcap: float, seen: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention of [B, H, N, D] tensors in the type of the arithmetic: out and lse."""
    heads = q.shape[1]
    scores = (q @ _grouped(k, heads).transpose(-1, -2)) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        seen = mask if seen is None else seen & mask
    if seen is not None:
        scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        sink = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sink], -1)
    blind = (scores == float("-inf")).all(-1, keepdim=True)
    scores = scores.masked_fill(blind, 0.0)  # rows that see nothing: 0, not NaN, and so are their gradients
    lse = torch.logsumexp(scores, -1).masked_fill(blind.squeeze(-1), float("-inf"))
    weights = torch.softmax(scores, -1).masked_fill(blind, 0.0)
    if sinks is not None:
        weights = weights[..., :-1]
    return weights @ _grouped(v, heads), lse


def _piece(x: Tensor, starts: Tensor | None, b: int) -> Tensor:
    """[1, H, n, D] of sequence b."""
    return x[None, :, int(starts[b]):int(starts[b + 1])] if starts is not None else x[b:b + 1]


def _row(x: Tensor | None, b: int) -> Tensor | None:
    return None if x is None else x[b:b + 1]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, sinks: Tensor | None,
              lengths: Tensor | None, first: Tensor | None, query_offsets: Tensor | None, query_starts: Tensor | None,
              key_starts: Tensor | None, query_offset: int, flags: int, scale: float | None, softcap: float, left: int,
              right: int) -> tuple[Tensor, Tensor]:
    """The arguments of the operator attend::attention; out and lse."""
    arithmetic = torch.float64 if q.dtype == torch.float64 else torch.float32
    rank, own = q.ndim, q.dtype
    q, k, v = (x.to(arithmetic) for x in (q, k, v))
    bias = None if bias is None else bias.to(arithmetic)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    offsets = torch.tensor([query_offset]) if query_offsets is None else query_offsets
    if query_starts is None and key_starts is None:
        lead = 4 - rank
        q, k, v = (x[(None,) * lead] for x in (q, k, v))
        seen = _visible(q.shape[-2], k.shape[-2], q.shape[0], flags, left, right, offsets, lengths, first)
        out, lse = _one(q, k, v, mask, bias, sinks, scale, softcap, seen)
        for _ in range(lead):
            out, lse = out.squeeze(0), lse.squeeze(0)
        return out.to(own), lse
    starts = query_starts if query_starts is not None else key_starts
    assert starts is not None
    outs, lses = [], []
    for b in range(len(starts) - 1):
        qb, kb, vb = _piece(q, query_starts, b), _piece(k, key_starts, b), _piece(v, key_starts, b)
        seen = _visible(qb.shape[-2], kb.shape[-2], 1, flags, left, right, offsets if len(offsets) == 1 else offsets[b:b + 1],
                        _row(lengths, b), _row(first, b))
        out, lse = _one(qb, kb, vb, None, None, sinks, scale, softcap, seen)
        outs.append(out[0] if query_starts is not None else out)
        lses.append(lse[0] if query_starts is not None else lse)
    along = 1 if query_starts is not None else 0
    return torch.cat(outs, along).to(own), torch.cat(lses, along)
