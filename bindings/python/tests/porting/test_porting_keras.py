"""Keras on the backend of KERAS_BACKEND, JAX's by default; torch and numpy give the same rows, but numpy no grouped heads."""

import os

import numpy as np
import pytest
from packages import attention_of_items, hidden_nan, hidden_row, items_first, need, operands, same, visible

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
need(os.environ["KERAS_BACKEND"])
[keras] = need("keras")

q, k, v = (np.ascontiguousarray(items_first(x)) for x in operands())  # [B, N, H, D]
ours = attention_of_items


def theirs(*arrays, **options):
    return keras.ops.convert_to_numpy(keras.ops.dot_product_attention(*arrays, **options))


def test_layout_scale_causal():
    same("keras [B, N, H, D]", theirs(q, k, v), ours(q, k, v))
    same("keras scale", theirs(q, k, v, scale=0.3), ours(q, k, v, scale=0.3))
    same("keras is_causal", theirs(q, k, v, is_causal=True), ours(q, k, v, causal="top-left"))
    if keras.backend.backend() != "numpy":
        same("keras grouped heads", theirs(q, k[:, :, :2], v[:, :, :2]), ours(q, k[:, :, :2], v[:, :, :2]))
    else:
        with pytest.raises(ValueError, match="broadcast"):
            theirs(q, k[:, :, :2], v[:, :, :2])


def test_masks_and_hidden_rows():
    mask = visible()
    rows = np.broadcast_to(mask.any(-1), (2, 4, 3))
    out = theirs(q, k, v, mask=mask)
    same("keras mask", items_first(out)[rows], items_first(ours(q, k, v, mask=mask))[rows])
    hidden_row("keras mask, hidden row", out[0, 1, 0], v[0, :, 0], "mean")
    hidden_nan("keras, NaN of a hidden value in the result",
               lambda q, k, v, mask: items_first(theirs(*map(items_first, (q, k, v)), mask=mask)), True)


def test_layer():
    """MultiHeadAttention: attention_mask True is visible, use_causal_mask is top-left; a hidden row depends on the scores."""
    layer = keras.layers.MultiHeadAttention(4, 8, use_bias=False)
    random = np.random.default_rng(5)
    x, y = (random.standard_normal((2, n, 16)).astype(np.float32) for n in (3, 5))
    _, weights = layer(x, y, use_causal_mask=True, return_attention_scores=True)
    seen = (keras.ops.convert_to_numpy(weights)[0, 0] > 0).astype(int).tolist()
    print(f"\nkeras MultiHeadAttention use_causal_mask: {seen}", end="")
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]

    mask = visible()[:, 0]
    out = keras.ops.convert_to_numpy(layer(x, y, attention_mask=mask))
    with_scores = keras.ops.convert_to_numpy(layer(x, y, attention_mask=mask, return_attention_scores=True)[0])
    same("keras MultiHeadAttention with and without scores, rows that see", out[mask.any(-1)], with_scores[mask.any(-1)])
    hidden_row("keras MultiHeadAttention with scores, hidden row", with_scores[0, 1], y[0], "0")
    of_mean = keras.ops.convert_to_numpy(layer(x, y.mean(axis=1, keepdims=True)))  # projections are linear
    same("keras MultiHeadAttention without scores, hidden row: the mean", out[0, 1], of_mean[0, 1])
