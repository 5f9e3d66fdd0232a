"""FlashAttention's kernels need CUDA and are not run here: this is the reference in PyTorch that its own tests compare with, from
flash-attn-4, loaded by its path, since the package itself imports CUDA's libraries."""

import importlib.metadata
import importlib.util

import numpy as np
import pytest
from packages import attend, attention_of_items, hidden_row, items_first, need, operands, same

torch, _ = need("torch", "einops")


def load():
    try:
        files = importlib.metadata.files("flash-attn-4") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("flash-attn-4 is not installed", allow_module_level=True)
    [path] = [file.locate() for file in files if str(file) == "flash_attn/cute/testing.py"]
    spec = importlib.util.spec_from_file_location("flash_attention_testing", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


attention_ref = load().attention_ref
q, k, v = (torch.from_numpy(np.ascontiguousarray(items_first(x))) for x in operands())  # [B, N, H, D]
ours = attention_of_items


def theirs(*arrays, **options):
    return attention_ref(*arrays, upcast=True, **options)[0]


def test_layout_and_heads():
    same("FlashAttention [B, N, H, D]", theirs(q, k, v), ours(q, k, v))
    same("FlashAttention grouped heads", theirs(q, k[:, :, :2], v[:, :, :2]), ours(q, k[:, :, :2], v[:, :, :2]))


def test_causal():
    same("FlashAttention causal", theirs(q, k, v, causal=True), ours(q, k, v, causal="bottom-right"))
    more = theirs(k, q, q, causal=True)  # five queries, three keys
    same("FlashAttention causal, more queries than keys", more, ours(k, q, q, causal="bottom-right"))
    hidden_row("FlashAttention causal, more queries than keys, first row", more[0, 0, 0], q[0, :, 0], "0")


def test_windows():
    offset = k.shape[1] - q.shape[1]
    same("FlashAttention window_size=(1, 0)", theirs(q, k, v, window_size=(1, 0)),
         ours(q, k, v, window=(1, 0), query_offset=offset))
    same("FlashAttention window_size=(None, 1)", theirs(q, k, v, window_size=(None, 1)),
         ours(q, k, v, window=(None, 1), query_offset=offset))


def test_padding():
    tokens = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    same("FlashAttention key_padding_mask", theirs(q, k, v, None, tokens), ours(q, k, v, kv_lengths=[5, 3]))
    same("FlashAttention key_padding_mask, causal", theirs(q, k, v, None, tokens, causal=True),
         ours(q, k, v, kv_lengths=[5, 3], causal="bottom-right"))


def test_softcap_sinks_lse():
    same("FlashAttention softcap", theirs(q, k, v, softcap=2.0), ours(q, k, v, softcap=2))
    sinks = torch.tensor([0.0, 1, 2, -1])
    out, _, lse = attention_ref(q, k, v, learnable_sink=sinks, upcast=True, return_lse=True)
    same("FlashAttention learnable_sink", out, ours(q, k, v, sinks=sinks))
    same("FlashAttention lse with learnable_sink", lse,
         attend.attention(*map(items_first, (q, k, v)), sinks=sinks, return_lse=True)[1])
    lse = attention_ref(k, q, q, causal=True, upcast=True, return_lse=True)[2]
    print(f"\nFlashAttention's reference, lse of a hidden row: {lse[0, 0, 0]}", end="")
    assert lse[0, 0, 0] == -np.inf
