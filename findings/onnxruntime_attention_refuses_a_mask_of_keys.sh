#!/bin/sh
# ONNX Runtime's CPU Attention refuses the padding mask that everybody writes, [1, 1, 1, keys].
#
# Seen with onnxruntime 1.32.0 and onnx 1.23.2. The operator says of attn_mask that it broadcasts to [batch, heads, queries, keys];
# onnx's ReferenceEvaluator does so, and ONNX Runtime loads the model, but its first run fails: "inconsistent q_sequence_length
# (between attn_mask and Q)". Heads and batch of 1 are accepted; only the queries must be spelled out, an N x N mask for N facts.
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY' 2>&1
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

batch, heads, queries, keys, features = 2, 2, 3, 4, 4
random = np.random.default_rng(1)
shape = lambda items: (batch, heads, items, features)
feeds = {n: random.standard_normal(shape(items), dtype=np.float32) for n, items in (("q", queries), ("k", keys), ("v", keys))}
padded = np.array([True, True, True, False])


def run(mask, reference):
    values = {**feeds, "mask": mask}
    types = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("bool"): TensorProto.BOOL}
    graph = helper.make_graph(
        [helper.make_node("Attention", list(values), ["out"])],
        "attention",
        [helper.make_tensor_value_info(name, types[value.dtype], value.shape) for name, value in values.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    if reference:
        return ReferenceEvaluator(model).run(None, values)[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, values)[0]


of_keys, spelled_out = padded.reshape(1, 1, 1, keys), np.broadcast_to(padded, (1, 1, queries, keys)).copy()
want = run(of_keys, True)
print("largest difference of [1, 1, queries, keys]:", np.abs(run(spelled_out, False) - want).max())
assert np.allclose(run(spelled_out, False), want, atol=1e-6)
try:
    run(of_keys, False)
except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
    print("[1, 1, 1, keys]:", str(error)[-75:].strip())
    assert "inconsistent q_sequence_length (between attn_mask and Q)" in str(error)
else:
    raise SystemExit("[1, 1, 1, keys] is accepted now")
PY
