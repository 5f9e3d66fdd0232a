import numpy as np
import pytest
from packages import NQ, attend, hidden_nan, hidden_row, need, operands, same, visible

mx = need("mlx.core")[0]

Q, K, V = operands()
q, k, v = map(mx.array, (Q, K, V))
SCALE = Q.shape[-1] ** -0.5


def sdpa(*arrays, scale=SCALE, **options):
    return np.array(mx.fast.scaled_dot_product_attention(*map(mx.array, arrays), scale=scale, **options))


def test_plain_and_scale():
    same("mlx", sdpa(q, k, v), attend.attention(Q, K, V))
    same("mlx arrays handed to attend", sdpa(q, k, v), attend.attention(q, k, v))
    with pytest.raises(TypeError):
        mx.fast.scaled_dot_product_attention(q, k, v)  # scale has no default
    grouped = operands(hkv=2)
    same("mlx grouped heads", sdpa(*grouped), attend.attention(*grouped))


def test_causal():
    same('mlx mask="causal"', sdpa(q, k, v, mask="causal"), attend.attention(Q, K, V, causal="bottom-right"))
    q5, k3, v3 = K, Q, Q  # five queries, three keys: the first two see nothing
    out, ours = sdpa(q5, k3, v3, mask="causal"), attend.attention(q5, k3, v3, causal="bottom-right")
    same('mlx mask="causal", more queries than keys, rows that see', out[:, :, 2:], ours[:, :, 2:])
    hidden_row('mlx mask="causal", more queries than keys, first row', out[0, 0, 0], v3[0, 0], "mean")


def test_masks_and_hidden_rows():
    mask = visible()
    rows = np.broadcast_to(mask.any(-1), (2, 4, NQ))
    out = sdpa(q, k, v, mask=mx.array(mask))
    same("mlx bool mask", out[rows], attend.attention(Q, K, V, mask=mask)[rows])
    hidden_row("mlx bool mask, hidden row", out[0, 0, 1], V[0, 0], "mean")
    bias = np.random.default_rng(3).standard_normal((1, 4, NQ, 5), dtype=np.float32)
    same("mlx additive mask", sdpa(q, k, v, mask=mx.array(bias)), attend.attention(Q, K, V, bias=bias))
    bias = mx.array(np.where(mask, 0, -np.inf).astype(np.float32))
    hidden_row("mlx additive mask of -inf, hidden row", sdpa(q, k, v, mask=bias)[0, 0, 1], V[0, 0], "NaN")
    hidden_row("mlx without keys", sdpa(q, k[:, :, :0], v[:, :, :0])[0, 0, 1], V[0, 0], "0")


def test_sinks():
    sinks = np.array([0, 1, 2, -1], np.float32)
    same("mlx sinks", sdpa(q, k, v, sinks=mx.array(sinks)), attend.attention(Q, K, V, sinks=sinks))
    out = sdpa(q, k, v, mask=mx.array(visible()), sinks=mx.array(sinks))
    hidden_row("mlx bool mask and sinks, hidden row", out[0, 0, 1], V[0, 0], "0")


def test_hidden_nan():
    hidden_nan("mlx, NaN of a hidden value in the result", lambda q, k, v, mask: sdpa(q, k, v, mask=mx.array(mask)), True)
