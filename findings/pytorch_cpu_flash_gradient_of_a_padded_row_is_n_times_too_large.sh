#!/bin/sh
# A query whose keys are all under a bias of finfo.min, as masks of padding are often made, gets n times too large a gradient
# from PyTorch's flash kernel for CPUs, n being its number of keys.
#
# Seen with torch 2.15.0 (CPU), scaled_dot_product_attention with a float attn_mask. Forward the row is what its formula says, the
# mean of the values, from the flash kernel as from the math one: a bias that is the same for all keys changes nothing. Backward the
# flash kernel makes the weights again as exp(score - lse); beside -3.4e38 (and from some -1e9 on) a float32 lse cannot hold log n, so
# every key weighs 1 instead of 1 / n: the values' gradients, summed over keys, are n + 1 for two queries where they must be 2,
# while the math kernel gives 2. The row of a padded query so enters the gradients of values, keys and queries that others
# share unless its own d_out is 0. At -1e6 the error is still a quarter of a percent of the row.
# In attend: where |lse| is above 1024 attend_attention_backward finds the row's maximum and sum again; masks, kv_first and
# kv_lengths hide keys instead, and a query that sees nothing has no gradient.
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 torch==2.15.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

torch.manual_seed(0)
for keys in (8, 64, 512):
    q, k = torch.randn(1, 1, 2, 16), torch.randn(1, 1, keys, 16)
    v = torch.randn(1, 1, keys, 16, requires_grad=True)
    bias = torch.zeros(1, 1, 2, keys)
    bias[..., 1, :] = torch.finfo(torch.float32).min
    found = {}
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(kernel):
            out = scaled_dot_product_attention(q, k, v, attn_mask=bias)
        (gradient,) = torch.autograd.grad(out.sum(), v)
        found[kernel] = out[0, 0, 1], gradient.sum(-2)[0, 0, 0].item()
    (flash_row, flash), (math_row, exact) = found.values()
    print(f"{keys} keys: gradients of the values, summed: flash {flash:.3f}, math {exact:.3f}, by the formula 2")
    assert torch.allclose(flash_row, math_row, atol=1e-6)  # forward they agree
    assert abs(exact - 2) < 1e-4 and abs(flash - (keys + 1)) < 1e-2
PY
