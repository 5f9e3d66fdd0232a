"""The lines of torch.md do what it says, offline: MiniLM's own weights and a small Llama lie under the names that it has."""

import os
import subprocess
import sys

import transformers as hf
from test_docs import ROOT, blocks

# Run after the lines of the page, in their process.
CHECKS = """
import torch
counts = attend.transformers.counts()
assert (counts.attention, counts.decode, counts.masks) == (6 + 2 * 20, 2 * 19, 0), counts
eager = {"model_kwargs": {"attn_implementation": "eager"}}
theirs = pipeline("feature-extraction", embed.model.name_or_path, **eager)
assert theirs.model.config._attn_implementation == "eager"
torch.testing.assert_close(embed("Rain.", return_tensors=True), theirs("Rain.", return_tensors=True), atol=1e-5, rtol=1e-5)
theirs = pipeline("text-generation", write.model.name_or_path, **eager)
greedy = {"max_new_tokens": 20, "do_sample": False}
assert theirs("Attention is", **greedy) == write("Attention is", **greedy)
assert attend.transformers.counts().attention == 2 * counts.attention
"""


def test_five_lines(tmp_path, minilm):
    [(_, code)] = blocks(ROOT / "bindings/python/torch.md", "python")
    assert len([line for line in code.splitlines() if line]) <= 6  # five and what is printed
    for name in ("sentence-transformers", "meta-llama"):
        (tmp_path / name).mkdir()
    (tmp_path / "sentence-transformers/all-MiniLM-L6-v2").symlink_to(minilm)
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm)
    llama = hf.LlamaForCausalLM(hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, eos_token_id=None))
    for part in (llama, tokenizer):
        part.save_pretrained(tmp_path / "meta-llama/Llama-3.2-1B")
    run = subprocess.run([sys.executable, "-c", code + CHECKS], cwd=tmp_path, env={**os.environ, "HF_HUB_OFFLINE": "1"},
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("torch.Size([1, 4, 384]) Attention is")
