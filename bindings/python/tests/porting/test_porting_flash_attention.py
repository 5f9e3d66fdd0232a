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


testing = load()
attention_ref = testing.attention_ref
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


def packed_by_theirs(x, padding):
    """[total, H, D] and cu_seqlens, as flash_attn_varlen_func takes them."""
    unpadded, _, cu_seqlens, *_ = testing.unpad_input(x, padding)
    return unpadded, cu_seqlens


def test_packed_sequences():
    queries = torch.tensor([[True] * 3, [True] * 2 + [False]])
    keys = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    (pq, cu_seqlens_q), (pk, cu_seqlens_k), (pv, _) = (
        packed_by_theirs(*pair) for pair in ((q, queries), (k, keys), (v, keys)))
    for causal in (False, True):
        wanted, _ = packed_by_theirs(theirs(q, k, v, queries, keys, causal=causal), queries)
        got = attend.attention(pq.swapaxes(0, 1), pk.swapaxes(0, 1), pv.swapaxes(0, 1), query_starts=cu_seqlens_q.numpy(),
                               key_starts=cu_seqlens_k.numpy(), causal="bottom-right" if causal else None)
        same(f"FlashAttention cu_seqlens_q, cu_seqlens_k, causal={causal}", wanted, got.swapaxes(0, 1))


def test_blocks():
    """Caches of blocks [num_blocks, page_block_size, nheads_k, headdim], as flash_attn_with_kvcache documents them."""
    size, block_table, lengths = 2, torch.tensor([[4, 0, 2], [1, 3, -1]], dtype=torch.int32), [5, 3]
    slots = [[int(block_table[b, j // size]) * size + j % size if j < lengths[b] else -1 for j in range(5)] for b in range(2)]
    k_cache, v_cache = torch.zeros(5, size, *k.shape[2:]), torch.zeros(5, size, *v.shape[2:])
    ours_of = [x.swapaxes(1, 2) for x in (k_cache, v_cache)]
    attend.kv_append(items_first(k), items_first(v), *ours_of, slots=slots)  # vLLM's slot_mapping
    assert torch.equal(k_cache[0], k[0, 2:4]) and torch.equal(v_cache[3, 0], v[1, 2])
    wanted = theirs(q, k, v, None, torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), causal=True)
    got = attend.attention(items_first(q), *ours_of, pages=block_table, kv_lengths=lengths, causal="bottom-right")
    same("FlashAttention block_table, cache_seqlens, causal", wanted, items_first(got))
