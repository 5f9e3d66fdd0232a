#!/bin/sh
# PyTorch's flash kernel for CPUs says that a query which sees no key has a log-sum-exp of 0, the weight of one key.
#
# Seen with torch 2.15.0 (CPU), aten._scaled_dot_product_flash_attention_for_cpu, the kernel behind scaled_dot_product_attention
# there and the one whose log-sum-exps tell how partial results over parts of the keys are to be added. A row that attn_mask hides
# completely gives an output of 0, which is right, and an lse of 0.0, where the sum of nothing is 0 and its logarithm -inf;
# flex_attention of the same package gives -inf. Added to a part that sees keys, the empty part takes exp(0) of the weight: here the
# result is half of what it should be, silently, and the lower the other scores are, the less is left.
# In attend: lse is -inf there, and (0, -inf) is attend_attention_merge's identity.
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 torch==2.15.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import math

import torch
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
q, k = torch.zeros(1, 1, 1, 16), torch.ones(1, 1, 2, 16)  # one query, two keys, all scores 0
v = torch.tensor([3.0, 5.0]).reshape(1, 1, 2, 1).expand(1, 1, 2, 16)


def part(key, visible):
    """Output and lse over one key alone."""
    mask = torch.full((1, 1, 1, 1), 0.0 if visible else -math.inf)
    out, lse = flash(q, k[:, :, key : key + 1], v[:, :, key : key + 1], attn_mask=mask)
    return out[0, 0, 0, 0].item(), lse.item()


seen, hidden = part(0, True), part(1, False)
print("key that is seen: output and lse", seen)
print("key that is hidden: output and lse", hidden)
assert seen == (3.0, 0.0) and hidden == (0.0, 0.0)

nothing = create_block_mask(lambda b, h, i, j: j < i, None, None, 1, 2, device="cpu")
lse = flex_attention(q, k, v, block_mask=nothing, return_aux=AuxRequest(lse=True))[1].lse.item()
print("flex_attention, lse of a query that sees nothing:", lse)
assert lse == -math.inf

weights = [math.exp(lse) for _, lse in (seen, hidden)]
union = (weights[0] * seen[0] + weights[1] * hidden[0]) / sum(weights)
whole = flash(q, k, v, attn_mask=torch.tensor([0.0, -math.inf]).reshape(1, 1, 1, 2))[0][0, 0, 0, 0].item()
print(f"both parts added by their lse: {union}, one call over both keys: {whole}")
assert union == 1.5 and whole == 3.0
PY
