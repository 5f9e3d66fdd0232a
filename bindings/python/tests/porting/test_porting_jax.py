import os

import numpy as np
import pytest
from packages import NK, attend, attention_of_items, hidden_nan, hidden_row, items_first, need, operands, same, visible

os.environ.setdefault("JAX_PLATFORMS", "cpu")
[jax] = need("jax")
theirs = jax.nn.dot_product_attention

q, k, v = (np.ascontiguousarray(items_first(x)) for x in operands())  # [B, N, H, D]
ours = attention_of_items


def test_layout_and_scale():
    same("jax [B, N, H, D]", theirs(q, k, v), ours(q, k, v))
    same("jax scale", theirs(q, k, v, scale=0.3), ours(q, k, v, scale=0.3))
    gq, gk, gv = map(items_first, operands(hkv=2))
    same("jax grouped heads", theirs(gq, gk, gv), ours(gq, gk, gv))
    arrays = [jax.numpy.asarray(x).swapaxes(1, 2) for x in (q, k, v)]
    same("jax arrays handed to attend", theirs(q, k, v), items_first(attend.attention(*arrays)))


def test_causal_and_windows():
    same("jax is_causal", theirs(q, k, v, is_causal=True), ours(q, k, v, causal="top-left"))
    same("jax local_window_size=(1, 0)", theirs(q, k, v, local_window_size=(1, 0)), ours(q, k, v, window=(1, 0)))
    same("jax local_window_size=1", theirs(q, k, v, local_window_size=1), ours(q, k, v, window=(1, 1)))


def test_lengths():
    lengths = np.array([5, 3], np.int32)
    same("jax key_value_seq_lengths", theirs(q, k, v, key_value_seq_lengths=lengths), ours(q, k, v, kv_lengths=lengths))
    same("jax key_value_seq_lengths, is_causal", theirs(q, k, v, key_value_seq_lengths=lengths, is_causal=True),
         ours(q, k, v, kv_lengths=lengths, causal="top-left"))
    out = theirs(q, k, v, query_seq_lengths=np.array([3, 1], np.int32))
    hidden_row("jax query_seq_lengths, row beyond", np.abs(out[1, 2, 0]), v[1, :, 0], "0")
    none = np.array([5, 0], np.int32)
    hidden_row("jax key_value_seq_lengths of 0", theirs(q, k, v, key_value_seq_lengths=none)[1, 0, 0], v[1, :, 0], "mean")


def test_masks_and_hidden_rows():
    mask = visible()
    rows = np.broadcast_to(mask.any(-1), (2, 4, 3))  # those that see a key
    out = theirs(q, k, v, mask=mask)
    same("jax mask", items_first(out)[rows], items_first(ours(q, k, v, mask=mask))[rows])
    hidden_row("jax mask, hidden row", out[0, 1, 0], v[0, :, 0], "mean")
    bias = np.random.default_rng(3).standard_normal((1, 4, 3, NK), dtype=np.float32)
    same("jax bias", theirs(q, k, v, bias=bias), ours(q, k, v, bias=bias))
    bias = np.where(mask, 0, -np.inf).astype(np.float32)
    hidden_row("jax bias of -inf, hidden row", theirs(q, k, v, bias=bias)[0, 1, 0], v[0, :, 0], "NaN")
    with pytest.raises(TypeError, match="incompatible shapes"):
        theirs(q, k, v, mask=np.ones((2, NK), bool))


def test_hidden_nan():
    hidden_nan("jax, NaN of a hidden value in the result",
               lambda q, k, v, mask: items_first(theirs(*map(items_first, (q, k, v)), mask=mask)), True)


def test_lse():
    mask = visible()
    lse = theirs(q, k, v, mask=mask, scale=0.3, return_residual=True)[1]  # [B, N, H]
    of_attend = attend.attention(*map(items_first, (q, k, v)), mask=mask, scale=0.3, return_lse=True)[1]
    rows = np.isfinite(of_attend)
    same("jax return_residual", np.swapaxes(lse, 1, 2)[rows], of_attend[rows])
    print(f"\njax return_residual, hidden row: {lse[0, 1, 0]:.3g}", end="")
    assert -np.inf < lse[0, 1, 0] < -2e38 and of_attend[0, 0, 1] == -np.inf
