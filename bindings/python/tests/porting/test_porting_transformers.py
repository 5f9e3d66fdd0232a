"""attend as an attention function of Hugging Face's transformers, in a small Llama and a small Mistral of random weights."""

import os

import numpy as np
import pytest
from packages import attend, need
from test_docs import ROOT, blocks

os.environ["HF_HUB_OFFLINE"] = "1"
torch, transformers = need("torch", "transformers")
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

SIZES = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64}
TOKENS = torch.randint(3, 30, (2, 10), generator=torch.Generator().manual_seed(1))
PADDED_LEFT = torch.tensor([[1] * 10, [0] * 4 + [1] * 6])
masks = []

# The page's own code, but for its last line, which loads a model.
[(_, of_page)] = blocks(ROOT / "docs" / "porting.md", "python")
names = {"attend": attend, "torch": torch}
exec(of_page.split("model =")[0], names)


def attend_forward(module, query, key, value, attention_mask, **options):
    masks.append(attention_mask)
    return names["attend_forward"](module, query, key, value, attention_mask, **options)


AttentionInterface.register("attend", attend_forward)
AttentionInterface.register("attend without masks", attend_forward)


def model(implementation, **options):
    torch.manual_seed(0)
    kind, config = (MistralForCausalLM, MistralConfig) if options else (LlamaForCausalLM, LlamaConfig)
    return kind._from_config(config(**SIZES, **options), attn_implementation=implementation).eval()


def difference(row, a, b):
    gave = float((a - b).abs().max())
    print(f"\n{row}: {gave:.1g}", end="")
    return gave


@torch.no_grad()
@pytest.mark.parametrize("other", ["eager", "sdpa"])
def test_forward(other):
    theirs, ours = model(other), model("attend")
    assert difference(f"transformers {other}, no padding", theirs(TOKENS).logits, ours(TOKENS).logits) < 1e-5
    assert masks[-1] is None
    padded = [m(TOKENS, attention_mask=PADDED_LEFT).logits for m in (theirs, ours)]
    assert masks[-1].dtype == torch.bool and tuple(masks[-1].shape) == (2, 1, 10, 10)
    assert difference(f"transformers {other}, padded, tokens", padded[0][1, 4:], padded[1][1, 4:]) < 1e-5
    of_padding = difference(f"transformers {other}, padded, padding itself", padded[0][1, :4], padded[1][1, :4])
    assert of_padding > 1e-3 if other == "eager" else of_padding < 1e-5  # eager: the mean of the values; sdpa: 0


@torch.no_grad()
@pytest.mark.parametrize("cache", [None, "static"])
def test_generate(cache):
    given = {"attention_mask": PADDED_LEFT, "min_new_tokens": 5, "max_new_tokens": 5, "do_sample": False, "pad_token_id": 0,
             "cache_implementation": cache}
    theirs, ours = (model(which).generate(TOKENS, **given) for which in ("eager", "attend"))
    print(f"\ntransformers generate, cache {cache}: {theirs[1, 10:].tolist()} {ours[1, 10:].tolist()}", end="")
    assert (theirs == ours).all()


@torch.no_grad()
def test_sliding_window():
    """sliding_window=W of Mistral: the query's own key and W - 1 before it."""
    theirs, ours = model("eager", sliding_window=3), model("attend", sliding_window=3)
    assert difference("transformers sliding_window", theirs(TOKENS).logits, ours(TOKENS).logits) < 1e-5
    i, j = np.ogrid[:10, :10]
    assert (masks[-1][0, 0].numpy() == ((j <= i) & (j > i - 3))).all()
    q = np.random.default_rng(1).standard_normal((4, 10, 8), dtype=np.float32)
    assert (attend.attention(q, q, q, mask=masks[-1][0, 0]) == attend.attention(q, q, q, window=(2, 0))).all()


@torch.no_grad()
def test_masks_do_not_arrive_unless_asked_for():
    ours = model("attend without masks")
    given = ours(TOKENS, attention_mask=PADDED_LEFT).logits
    assert masks[-1] is None
    assert difference("transformers without a mask function, padded, tokens", given[1, 4:],
                      model("eager")(TOKENS, attention_mask=PADDED_LEFT).logits[1, 4:]) > 1e-3
