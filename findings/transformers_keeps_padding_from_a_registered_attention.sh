#!/bin/sh
# transformers hands a registered attention function no mask at all, though the caller gave one, and says nothing.
#
# Seen with transformers 5.24.0 and torch 2.15.0. AttentionInterface.register(name, function) is all it takes to run a model with an
# attention of one's own; registered so, even the package's own sdpa_attention_forward gets attention_mask = None for a batch padded
# on the left, attends to the padding, and the logits of real tokens are wrong. Without padding everything agrees, so a first test
# passes. The mask needs a second registration under the same name, AttentionMaskInterface.register(name, sdpa_mask).
# (docs/porting.md has attend as such a function, with both.)
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 torch==2.15.0 transformers==5.24.0
HF_HUB_OFFLINE=1 HF_HOME=$folder "$folder/venv/bin/python" -W error::UserWarning - <<'PY'
import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

masks = []


def registered(module, query, key, value, attention_mask, **options):
    masks.append(attention_mask)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def logits(implementation, **given):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64)
    with torch.no_grad():
        return LlamaForCausalLM._from_config(config, attn_implementation=implementation).eval()(tokens, **given).logits


def difference(what, a, b):
    gave = (a - b).abs().max().item()
    print(f"{what}: logits of real tokens differ by {gave:.1g}")
    return gave


tokens = torch.randint(3, 30, (2, 10), generator=torch.Generator().manual_seed(1))
padded = torch.tensor([[1] * 10, [0] * 4 + [1] * 6])
AttentionInterface.register("registered", registered)

assert difference("no padding", logits("sdpa"), logits("registered")) < 1e-6
of_sdpa = logits("sdpa", attention_mask=padded)[1, 4:]
assert difference("padded", of_sdpa, logits("registered", attention_mask=padded)[1, 4:]) > 0.01
assert masks[-1] is None

AttentionMaskInterface.register("registered", sdpa_mask)
assert difference("padded, with a mask function", of_sdpa, logits("registered", attention_mask=padded)[1, 4:]) < 1e-6
assert tuple(masks[-1].shape) == (2, 1, 10, 10)
PY
