"""Small models of random weights: the same hidden states and tokens as with transformers' own "eager", all offline."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import attend.transformers
import pytest
import torch
import transformers as hf
from attend._hf_masks import PositionMask, Rule, mask_function, rule_of, runs, single_run
from transformers import masking_utils

attend.transformers.register()

SMALL = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 96}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
CAUSAL = {
    "llama": lambda: hf.LlamaConfig(**GROUPED),
    "mistral": lambda: hf.MistralConfig(**GROUPED, sliding_window=6),
    "gemma2": lambda: hf.Gemma2Config(**GROUPED, sliding_window=6, attn_logit_softcapping=3.0, query_pre_attn_scalar=8),
    "gpt-oss": lambda: hf.GptOssConfig(**GROUPED, sliding_window=6, num_local_experts=2, num_experts_per_tok=1),
}
ENCODERS = {"bert": lambda: hf.BertConfig(**SMALL), "roberta": lambda: hf.RobertaConfig(**{**SMALL, "pad_token_id": 1})}


def pair(config, of=hf.AutoModelForCausalLM, dtype=torch.float32):
    """The same model with eager attention and with attend."""
    models = []
    for implementation in ("eager", "attend"):
        torch.manual_seed(3)
        models.append(of.from_config(config(), attn_implementation=implementation).to(dtype).eval())
        assert models[-1].config._attn_implementation == implementation
    with torch.no_grad():
        for parameter, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 1.0))
            other.copy_(parameter)
    return models


def padded(side, lengths=(13, 7, 10), pad=0):
    longest = max(lengths)
    mask = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in zip(mask, lengths, strict=True):
        row[longest - length:] = 1 if side == "left" else row[longest - length:]
        row[:length] = 1 if side == "right" else row[:length]
    ids = torch.randint(2, 90, mask.shape).masked_fill(mask == 0, pad)
    return {"input_ids": ids, "attention_mask": mask}


def count_of(call):
    attend.transformers.reset_counts()
    result = call()
    return result, attend.transformers.counts()


@pytest.mark.parametrize("side", ["none", "left", "right", "holes"])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_logits(name, side):
    eager, ours = pair(CAUSAL[name])
    given = padded("left" if side == "holes" else side, (13, 13, 13) if side == "none" else (13, 7, 10))
    if side == "none":
        given["attention_mask"][:] = 1
    if side == "holes":
        given["attention_mask"][1, 9] = 0
    expected = eager(**given).logits
    got, counted = count_of(lambda: ours(**given).logits)
    real = given["attention_mask"].bool()
    torch.testing.assert_close(got[real], expected[real], atol=3e-4, rtol=3e-4)
    assert counted.attention == 2 and counted.masks == (2 if side == "holes" else 0)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("side", ["none", "left"])
@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_tokens(name, side, cache):
    eager, ours = pair(CAUSAL[name])
    given = padded("left", (9, 9) if side == "none" else (9, 4))
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": cache, "eos_token_id": None,
               "disable_compile": True}
    expected = eager.generate(**given, **options)
    got, counted = count_of(lambda: ours.generate(**given, **options))
    assert torch.equal(got, expected)
    assert counted.attention == 2 * 6 and counted.decode == 2 * 5 and counted.masks == 0


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_prefill_in_pieces(name):
    """A cache that already holds something, as speculative decoding and chat have it."""
    _, ours = pair(CAUSAL[name])
    ids = torch.randint(2, 90, (1, 15))
    whole = ours(ids).logits
    first = ours(ids[:, :6], use_cache=True)
    second = ours(ids[:, 6:], cache=first.past_key_values).logits
    torch.testing.assert_close(torch.cat([first.logits, second], 1), whole, atol=3e-4, rtol=3e-4)


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_bf16(name):
    eager, ours = pair(CAUSAL[name])
    given = padded("left")
    expected = eager(**given).logits
    got = ours.bfloat16()(**given).logits
    assert got.dtype == torch.bfloat16
    real = given["attention_mask"].bool()
    if name != "gpt-oss":  # its router may choose other experts then
        assert (got.float() - expected)[real].norm() < 0.1 * expected[real].norm()


@pytest.mark.parametrize("side", ["none", "left", "right"])
@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_encoders(name, side):
    eager, ours = pair(ENCODERS[name], hf.AutoModel)
    given = padded("right" if side == "none" else side, pad=eager.config.pad_token_id)
    if side == "none":
        given.pop("attention_mask")
    expected = eager(**given)
    got, counted = count_of(lambda: ours(**given))
    real = given.get("attention_mask", torch.ones(3, 13)).bool()
    torch.testing.assert_close(got.last_hidden_state[real], expected.last_hidden_state[real], atol=3e-5, rtol=3e-4)
    if side != "left":
        torch.testing.assert_close(got.pooler_output, expected.pooler_output, atol=3e-5, rtol=3e-4)
    assert counted.attention == 2 and counted.masks == 0


@torch.no_grad()
def test_vision():
    """A model that asks for no masks."""
    eager, ours = pair(lambda: hf.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                                            image_size=16, patch_size=4), hf.AutoModel)
    pixels = torch.randn(2, 3, 16, 16)
    expected = eager(pixels).last_hidden_state
    got, counted = count_of(lambda: ours(pixels).last_hidden_state)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
    assert counted.attention == 2 and counted.masks == 0


@pytest.mark.parametrize("name", ["bart", "t5"])
@torch.no_grad()
def test_encoder_and_decoder(name):
    """Cross attention, and T5's relative positions, which are a bias."""
    config = {"bart": lambda: hf.BartConfig(vocab_size=97, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                                            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, dropout=0.0,
                                            max_position_embeddings=64),
              "t5": lambda: hf.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                        decoder_start_token_id=0)}[name]
    eager, ours = pair(config, hf.AutoModelForSeq2SeqLM)
    given = padded("right", pad=eager.config.pad_token_id)
    options = {"max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    expected = eager.generate(**given, **options)
    got, counted = count_of(lambda: ours.generate(**given, **options))
    assert torch.equal(got, expected)
    assert counted.attention == 2 + 2 * 2 * 5


@torch.no_grad()
def test_a_mask_of_the_users_own():
    eager, ours = pair(CAUSAL["llama"])
    ids = torch.randint(2, 90, (2, 9))
    visible = (torch.rand(2, 1, 9, 9) < 0.5) | torch.eye(9, dtype=torch.bool)
    expected = eager(ids, attention_mask=torch.zeros(2, 1, 9, 9).masked_fill(~visible, torch.finfo(torch.float32).min)).logits
    for mask in (visible, torch.zeros(2, 1, 9, 9).masked_fill(~visible, -torch.inf)):
        got, counted = count_of(lambda mask=mask: ours(ids, attention_mask=mask).logits)
        torch.testing.assert_close(got, expected, atol=3e-4, rtol=3e-4)
        assert counted.masks == 2


@torch.no_grad()
def test_packed_by_positions():
    eager, ours = pair(CAUSAL["mistral"])
    ids = torch.randint(2, 90, (1, 12))
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    got = ours(ids, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(got, eager(ids, position_ids=positions, use_cache=False).logits, atol=3e-4, rtol=3e-4)


def test_training():
    eager, ours = pair(CAUSAL["gpt-oss"])
    given = padded("right")
    gradients = []
    for model in (eager, ours):
        logits = model.train()(**given).logits[given["attention_mask"].bool()]
        logits.float().logsumexp(-1).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if "attn" in name})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=2e-3, rtol=2e-3, msg=lambda m, name=name: f"{name}: {m}")


@torch.no_grad()
def test_compiled():
    eager, ours = pair(CAUSAL["mistral"])
    given = padded("left")
    real = given["attention_mask"].bool()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given, use_cache=False).logits[real], eager(**given, use_cache=False).logits[real],
                               atol=3e-4, rtol=3e-4)
    ours.forward = torch.compile(ours.forward, backend="aot_eager")
    options = {"max_new_tokens": 4, "do_sample": False, "cache_implementation": "static", "eos_token_id": None,
               "disable_compile": True}
    assert torch.equal(ours.generate(**given, **options), eager.generate(**given, **options))


@torch.no_grad()
def test_nothing_else_computes_attention(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("another attention")

    for name, config in CAUSAL.items():
        _, ours = pair(config)
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", fail)
        module = hf.models.gpt_oss.modeling_gpt_oss if name == "gpt-oss" else getattr(
            getattr(hf.models, name), f"modeling_{name}")
        monkeypatch.setattr(module, "eager_attention_forward", fail)
        ours.generate(torch.randint(2, 90, (1, 5)), max_new_tokens=3, do_sample=False)
        monkeypatch.undo()


def test_what_is_refused():
    config = CAUSAL["llama"]()
    config.attention_dropout = 0.1
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="attend")
    ids = torch.randint(2, 90, (1, 5))
    with pytest.raises(ValueError, match="dropout"):
        model.train()(ids)
    model.eval()(ids)
    with pytest.raises(ValueError, match="eager"):
        model(ids, output_attentions=True)
    with pytest.raises(ValueError, match="queries and keys"):
        model(ids, attention_mask=mask_function(1, 5, 6))
    with pytest.raises(ValueError, match="cu_seq_lens_k"):
        model(ids, cu_seq_lens_q=torch.tensor([0, 2, 5]))


def test_masks_that_are_not_there():
    made = mask_function(2, 5, 7, q_offset=2, mask_function=masking_utils.sliding_window_causal_mask_function(3),
                         attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool())
    assert isinstance(made, PositionMask) and made.shape == (2, 1, 5, 7) and made.ndim == 4 and made.dtype == torch.bool
    assert made.rule == Rule(True, 2, None) and made.first.tolist() == [2, 0] and made.lengths is None
    i, j = torch.arange(5)[:, None] + 2, torch.arange(7)
    expected = ((j <= i) & (j > i - 3))[None, None] & (j >= torch.tensor([2, 0]).view(2, 1, 1, 1))
    for real, part in [(made.clone(), expected), (made[:, :, -1:], expected[:, :, -1:]), (~made, ~expected),
                       (torch.zeros(()).masked_fill(made, 1.0), expected.float()), (torch.cat([made, made]), torch.cat([expected] * 2))]:
        assert type(real) is torch.Tensor and torch.equal(real, part)
    assert rule_of(masking_utils.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.long))) is None
    assert rule_of(lambda b, h, q, k: k <= q) is None
    assert rule_of(masking_utils.sliding_window_bidirectional_mask_function(4)) == Rule(False, 4, 4)
    assert runs(torch.tensor([[1, 1, 0], [0, 0, 0]]).bool())[1].tolist() == [2, 0]
    assert runs(torch.tensor([[1, 0, 1]]).bool()) is None


@pytest.mark.parametrize("rule", [Rule(), Rule(causal=True), Rule(True, 2), Rule(False, 1, 1), Rule(False, None, 0)])
def test_masks_of_one_query(rule):
    """(first, lengths) alone show what the rule and the padding do."""
    keys, j = 7, torch.arange(7)
    for position in range(9):
        for first, lengths in [(None, None), ([2, 0], None), (None, [3, 7]), ([1, 5], [6, 6])]:
            given = [x if x is None else torch.tensor(x) for x in (first, lengths)]
            begin, end = single_run(2, keys, rule, given, position)
            got = (j < end[:, None]) & (j >= (0 if begin is None else begin[:, None]))
            expected = (j >= (torch.zeros(2, 1) if first is None else given[0][:, None])) & (
                j < (torch.full((2, 1), keys) if lengths is None else given[1][:, None]))
            expected &= (j <= position) if rule.causal else True
            expected &= (j >= position - rule.left) if rule.left is not None else True
            expected &= (j <= position + rule.right) if rule.right is not None else True
            assert torch.equal(got, expected)
