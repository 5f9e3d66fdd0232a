"""MultiheadAttention, the converter and packed encoders against PyTorch's own modules."""

import attend.torch
import pytest
import torch
from attend.torch import MultiheadAttention
from torch import nn


def both(**options):
    theirs = nn.MultiheadAttention(24, 4, **options).eval()
    return theirs, MultiheadAttention.from_torch(theirs)


def assert_close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 10, "vdim": 12}])
def test_forward(options, batch_first):
    theirs, ours = both(batch_first=batch_first, **options)
    query, key, value = torch.randn(3, 5, 24), torch.randn(3, 7, options.get("kdim", 24)), torch.randn(3, 7, options.get("vdim", 24))
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[0, 4:] = padding[2, :2] = True
    given = [x if batch_first else x.transpose(0, 1) for x in (query, key, value)]
    for masks in [{}, {"key_padding_mask": padding}, {"attn_mask": torch.rand(5, 7) < 0.2},
                  {"attn_mask": torch.randn(12, 5, 7), "key_padding_mask": torch.zeros(3, 7).masked_fill(padding, -torch.inf)},
                  {"attn_mask": torch.rand(12, 5, 7) < 0.2}]:
        assert_close(ours(*given, need_weights=False, **masks)[0], theirs(*given, need_weights=False, **masks)[0])
    assert_close(ours(query[0], key[0], value[0], need_weights=False)[0], theirs(query[0], key[0], value[0], need_weights=False)[0])
    if not options.get("kdim"):
        causal = nn.Transformer.generate_square_subsequent_mask(5)
        x = given[0]
        assert_close(ours(x, x, x, need_weights=False, attn_mask=causal, is_causal=True)[0],
                     theirs(x, x, x, need_weights=False, attn_mask=causal, is_causal=True)[0])


def test_parameters_are_shared_and_gradients_flow():
    theirs, ours = both(batch_first=True)
    assert ours.in_proj_weight is theirs.in_proj_weight
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 6, 24)
    gradients = []
    for module in (theirs, ours):
        theirs.zero_grad()
        module(x, x, x, need_weights=False)[0].square().sum().backward()
        gradients.append(theirs.in_proj_weight.grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)


def test_what_is_refused():
    for options in ({"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="add_"):
            both(**options)
    _, ours = both(dropout=0.1)
    x = torch.randn(5, 24)
    with pytest.raises(ValueError, match="need_weights"):
        ours(x, x, x)
    with pytest.raises(ValueError, match="dropout"):
        ours.train()(x, x, x, need_weights=False)
    with pytest.raises(TypeError, match="from_torch"):
        MultiheadAttention.from_torch(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="from_torch"):
        attend.torch.convert(nn.MultiheadAttention(24, 4))


def encoder(**options):
    layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(24)).eval()


@pytest.mark.parametrize("options", [{}, {"norm_first": True, "activation": "gelu"}])
def test_convert_and_pack(options, monkeypatch):
    model, x = encoder(**options), torch.randn(3, 9, 24)
    padding = torch.zeros(3, 9, dtype=torch.bool)
    padding[0, 4:] = padding[1, :2] = True
    with torch.no_grad():
        expected = model(x, src_key_padding_mask=padding)
        causal = nn.Transformer.generate_square_subsequent_mask(9)
        expected_causal = model(x, mask=causal, is_causal=True)
    with pytest.raises(ValueError, match="convert"):
        attend.torch.encode_packed(model, x, padding)
    assert attend.torch.convert(model) == 2 and attend.torch.convert(model) == 0

    def fail(*args, **kwargs):
        raise AssertionError("another attention")

    for name in ("_transformer_encoder_layer_fwd", "_native_multi_head_attention"):
        monkeypatch.setattr(torch, name, fail)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fail)
    with torch.no_grad():
        got = model(x, src_key_padding_mask=padding)
        assert_close(got[~padding], expected[~padding])
        assert_close(model(x, mask=causal, is_causal=True), expected_causal)
        packed = attend.torch.encode_packed(model, x, padding)
        assert_close(packed[~padding], expected[~padding])
        assert not packed[padding].any()
        packed_causal = attend.torch.encode_packed(model, x, torch.zeros_like(padding), is_causal=True)
        assert_close(packed_causal, expected_causal)


def test_decoder_layer():
    model = nn.TransformerDecoderLayer(24, 4, 32, batch_first=True).eval()
    x, memory = torch.randn(2, 5, 24), torch.randn(2, 7, 24)
    expected = model(x, memory)
    assert attend.torch.convert(model) == 2
    assert_close(model(x, memory), expected)
