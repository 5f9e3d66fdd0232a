#!/bin/sh
# Importing torch.nn.attention.bias, for causal_lower_right, imports PyTorch's whole compiler, as long again as PyTorch takes.
#
# Seen with torch 2.15.0. The module calls torch._dynamo.allow_in_graph for two functions when it is imported, and torch._dynamo is
# otherwise imported when somebody compiles. With it come torch._inductor, sympy and torch.distributed.tensor: 909 modules beyond the
# 1205 of `import torch`, 1.1 s of CPU beside 1.3 s, in every process, whether it ever compiles or not. A library that takes such masks
# cannot ask isinstance(mask, CausalBias) at its top. (attend.torch looks for the class when a mask is no plain tensor.)
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 torch==2.15.0
cd "$folder"
venv/bin/python -c 'import torch.nn.attention.bias' # compiles the modules to bytecode
venv/bin/python - <<'PY'
import sys
import time

begin = time.process_time()
import torch

before, torchs = set(sys.modules), time.process_time() - begin
assert "torch._dynamo" not in before
begin = time.process_time()
import torch.nn.attention.bias

brought, taken = set(sys.modules) - before, time.process_time() - begin
print(f"import torch: {torchs:.1f} s, {len(before)} modules; torch.nn.attention.bias beyond it: {taken:.1f} s, {len(brought)} modules")
assert {"torch._dynamo", "torch._inductor", "sympy", "torch.distributed.tensor"} <= brought
PY
