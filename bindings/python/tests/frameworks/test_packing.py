"""Encoders of transformers on packed sequences: what they give on the padded batch."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import attend.transformers
import pytest
import torch
import transformers as hf
from attend.torch import Packing
from test_transformers import CAUSAL, ENCODERS, padded, pair

attend.transformers.register()


def test_packing():
    mask = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 0]])
    packing = Packing(mask)
    assert packing.starts.tolist() == [0, 2, 2, 4] and packing.positions.tolist() == [0, 1, 0, 1]
    x = torch.randn(3, 3, 2)
    assert torch.equal(packing.unpack(packing.pack(x)), x * mask[..., None])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", [*ENCODERS, "minilm"])
@torch.no_grad()
def test_encoders(name, side):
    small = hf.BertConfig(vocab_size=97, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=12,
                          max_position_embeddings=64)
    eager, ours = pair(ENCODERS.get(name, lambda: small), hf.AutoModel)
    given = padded(side, pad=eager.config.pad_token_id)
    expected = eager(**given)
    attend.transformers.reset_counts()
    got = attend.transformers.encode_packed(ours, **given)
    assert attend.transformers.counts().attention == eager.config.num_hidden_layers
    real = given["attention_mask"].bool()
    torch.testing.assert_close(got.last_hidden_state[real], expected.last_hidden_state[real], atol=3e-5, rtol=3e-4)
    assert not got.last_hidden_state[~real].any()
    if side == "right":
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, atol=3e-5, rtol=3e-4)


def test_what_is_refused():
    given = padded("right")
    for model, reason in [
            (hf.LlamaModel(CAUSAL["llama"]()), "not an encoder"),
            (hf.BertForMaskedLM(ENCODERS["bert"]()), "model.bert"),
            (hf.BertModel(ENCODERS["bert"]()), "mix the sequences"),
            (hf.ElectraModel(hf.ElectraConfig(vocab_size=97, hidden_size=32, embedding_size=32, num_hidden_layers=1,
                                              num_attention_heads=4, intermediate_size=32)), "electra")]:
        with pytest.raises(ValueError, match=reason):
            attend.transformers.encode_packed(model, **given)
