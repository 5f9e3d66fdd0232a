import math

import pytest
from packages import H, NK, NQ, attend, hidden_nan, hidden_row, need, operands, same, visible

[torch] = need("torch")
sdpa = torch.nn.functional.scaled_dot_product_attention


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


Q, K, V = operands()
q, k, v = tensors(Q, K, V)


def test_plain_and_scale():
    same("sdpa", sdpa(q, k, v), attend.attention(q, k, v))
    same("sdpa scale=0.3", sdpa(q, k, v, scale=0.3), attend.attention(q, k, v, scale=0.3))


def test_causal():
    from torch.nn.attention.bias import causal_lower_right

    same("sdpa is_causal=True", sdpa(q, k, v, is_causal=True), attend.attention(q, k, v, causal="top-left"))
    same("causal_lower_right", sdpa(q, k, v, attn_mask=causal_lower_right(NQ, NK)),
         attend.attention(q, k, v, causal="bottom-right"))
    with pytest.raises(RuntimeError, match="should not be set"):
        sdpa(q, k, v, attn_mask=torch.ones(NQ, NK, dtype=torch.bool), is_causal=True)


def test_masks():
    mask = torch.from_numpy(visible())
    same("sdpa bool mask", sdpa(q, k, v, attn_mask=mask), attend.attention(q, k, v, mask=mask))
    bias = torch.randn(1, H, NQ, NK)
    same("sdpa float mask", sdpa(q, k, v, attn_mask=bias), attend.attention(q, k, v, bias=bias))
    with pytest.raises(RuntimeError, match="must match"):
        sdpa(q, k, v, attn_mask=torch.ones(2, NK, dtype=torch.bool))


def test_hidden_rows():
    mask = torch.from_numpy(visible())
    hidden_row("sdpa bool mask, hidden row", sdpa(q, k, v, attn_mask=mask)[0, 0, 1], V[0, 0], "0")
    bias = torch.where(mask, 0.0, -math.inf)
    hidden_row("sdpa float mask -inf, hidden row", sdpa(q, k, v, attn_mask=bias)[0, 0, 1], V[0, 0], "0")
    lowest = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    hidden_row("sdpa float mask finfo.min, hidden row", sdpa(q, k, v, attn_mask=lowest)[0, 0, 1], V[0, 0], "mean")
    same("sdpa float mask finfo.min", sdpa(q, k, v, attn_mask=lowest), attend.attention(q, k, v, bias=lowest))
    hidden_row("sdpa without keys", sdpa(q, k[:, :, :0], v[:, :, :0])[0, 0, 1], V[0, 0], "0")


def test_hidden_nan():
    hidden_nan("sdpa, NaN of a hidden value in the result",
               lambda q, k, v, mask: sdpa(*tensors(q, k, v), attn_mask=torch.from_numpy(mask)), True)


def test_grouped_heads():
    gq, gk, gv = tensors(*operands(hkv=2))
    same("sdpa enable_gqa", sdpa(gq, gk, gv, enable_gqa=True), attend.attention(gq, gk, gv))
    with pytest.raises(RuntimeError, match="must match"):
        sdpa(gq, gk, gv)


def test_lse_of_the_cpu_s_flash_kernel():
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    lse = attend.attention(q, k, v, return_lse=True)[1]
    same("flash for CPU, lse", flash(q, k, v)[1], lse)
    bias = torch.where(torch.from_numpy(visible()), 0.0, -math.inf)
    assert flash(q, k, v, attn_mask=bias)[1][0, 0, 1] == 0
    assert attend.attention(q, k, v, bias=bias, return_lse=True)[1][0, 0, 1] == -math.inf


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention():
    """As written, without torch.compile, which says the same on CPUs but gives no lse."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    def block_mask(rule):
        return create_block_mask(rule, None, None, NQ, NK, device="cpu")

    causal = block_mask(lambda b, h, i, j: i >= j)
    same("flex_attention i >= j", flex_attention(q, k, v, block_mask=causal), attend.attention(q, k, v, causal="top-left"))
    window = block_mask(lambda b, h, i, j: (i - j >= 0) & (i - j < 2))
    same("flex_attention i - j in 0, 1", flex_attention(q, k, v, block_mask=window), attend.attention(q, k, v, window=(1, 0)))
    capped = flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: 2 * torch.tanh(s / 2))
    same("flex_attention softcap by score_mod", capped, attend.attention(q, k, v, softcap=2))

    strictly_before = block_mask(lambda b, h, i, j: j < i)  # query 0 sees nothing
    out, aux = flex_attention(q, k, v, block_mask=strictly_before, return_aux=AuxRequest(lse=True))
    hidden_row("flex_attention, hidden row", out[0, 0, 0], V[0, 0], "0")
    assert aux.lse[0, 0, 0] == -math.inf
    ours, our_lse = attend.attention(q, k, v, causal="top-left", query_offset=-1, return_lse=True)
    same("flex_attention j < i", out, ours)
    same("flex_attention lse", aux.lse[:, :, 1:], our_lse[:, :, 1:])
    last_hidden = block_mask(lambda b, h, i, j: j < NK - 1)  # as hidden_nan's mask
    hidden_nan("flex_attention, NaN of a hidden value in the result",
               lambda q, k, v, mask: flex_attention(*tensors(q, k, v), block_mask=last_hidden), True)


def test_multihead_attention():
    """Weights as they lie in the module; the masks say True where a key is hidden."""
    E, heads, dh = 16, 4, 4
    module = torch.nn.MultiheadAttention(E, heads, batch_first=True)
    x = torch.randn(2, 5, E)
    w_q, w_k, w_v = module.in_proj_weight.detach().reshape(3, heads, dh, E)
    b_q, b_k, b_v = module.in_proj_bias.detach().reshape(3, heads, dh, 1)
    w_o = module.out_proj.weight.detach().reshape(E, heads, dh).swapaxes(0, 1)
    b_o = module.out_proj.bias.detach()

    def ours(**options):
        return attend.self_attention(x, w_q, w_k, w_v, b_q, b_k, b_v, w_o=w_o, b_o=b_o, **options)

    padded = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    same("nn.MultiheadAttention key_padding_mask", module(x, x, x, key_padding_mask=padded)[0].detach(),
         ours(kv_lengths=[5, 3]))
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    same("nn.MultiheadAttention attn_mask", module(x, x, x, attn_mask=later)[0].detach(), ours(causal="top-left"))

    nothing = torch.ones(2, 5, dtype=torch.bool)
    with_weights = module(x, x, x, key_padding_mask=nothing)[0].detach()
    without = module(x, x, x, key_padding_mask=nothing, need_weights=False)[0].detach()
    hidden_row("nn.MultiheadAttention, hidden row", with_weights[0, 0], x[0].numpy(), "NaN")
    hidden_row("nn.MultiheadAttention need_weights=False, hidden row less b_o", (without - b_o)[0, 0], x[0].numpy(), "0")
    module.eval()
    with torch.no_grad():
        inferred = module(x, x, x, key_padding_mask=nothing, need_weights=False)[0]
    hidden_row("nn.MultiheadAttention need_weights=False in inference, hidden row", inferred[0, 0], x[0].numpy(), "NaN")
    hidden_row("attend, hidden row less b_o", ours(kv_lengths=[0, 0])[0, 0] - b_o.numpy(), x[0].numpy(), "0")
