"""The formulas, in float64 NumPy."""

import numpy as np

TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def softmax(scores, axis=-1):
    """(softmax, lse); vectors of nothing but -inf give (0, -inf)."""
    scores = np.asarray(scores, dtype=np.float64)
    m = scores.max(axis=axis, keepdims=True)
    m = np.where(np.isfinite(m), m, 0)
    e = np.exp(scores - m)
    total = e.sum(axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        return e / np.where(total == 0, 1, total), (m + np.log(total)).squeeze(axis)


def attention(q, k, v, *, scale=None, softcap=0.0, bias=None, visible=None, slopes=None, sinks=None, offset=0):
    """(out, lse, probabilities) for [.., H, N, D] operands; visible is the product of all masks."""
    q, k, v = (np.asarray(array, dtype=np.float64) for array in (q, k, v))
    if q.ndim > 2:
        group = q.shape[-3] // k.shape[-3]
        k, v = np.repeat(k, group, axis=-3), np.repeat(v, group, axis=-3)
    scores = q @ k.swapaxes(-1, -2) * (1 / np.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if slopes is not None:
        i, j = np.arange(q.shape[-2])[:, None], np.arange(k.shape[-2])
        scores = scores - np.asarray(slopes, dtype=np.float64)[:, None, None] * np.abs(i + offset - j)
    if bias is not None:
        scores = scores + bias
    if visible is not None:
        scores = np.where(visible, scores, -np.inf)
    if sinks is not None:
        column = np.broadcast_to(np.asarray(sinks, dtype=np.float64)[:, None, None], (*scores.shape[:-1], 1))
        p, lse = softmax(np.concatenate([scores, column], axis=-1))
        p = p[..., :-1]
    else:
        p, lse = softmax(scores)
    return p @ v, lse, p


def causal(nq, nk, offset=0):
    return np.arange(nk) <= np.arange(nq)[:, None] + offset
