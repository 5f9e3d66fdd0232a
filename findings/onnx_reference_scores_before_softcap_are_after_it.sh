#!/bin/sh
# onnx's reference of Attention gives the scores after the softcap to those who ask for the ones before it.
#
# Seen with onnx 1.23.2 and onnxruntime 1.32.0 (CPU), opset 24. qk_matmul_output_mode = 0 is the output of the first product, scaled;
# mode 1 the same after softcap. ReferenceEvaluator gives the softcapped scores for both; without a softcap, mode 0 is right. ONNX
# Runtime gives the product. A test of a runtime against the reference fails where the runtime is right.
#
# Exit status 0: still so. Needs python3 with venv and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

random = np.random.default_rng(1)
values = {name: random.standard_normal((1, 1, items, 4), dtype=np.float32) for name, items in (("q", 2), ("k", 3), ("v", 3))}
product = values["q"][0, 0] @ values["k"][0, 0].T / 2  # 1 / sqrt(4)
softcapped = np.float32(0.5) * np.tanh(product / np.float32(0.5))


def scores(mode, **softcap):
    graph = helper.make_graph(
        [helper.make_node("Attention", list(values), ["out", "", "", "scores"], qk_matmul_output_mode=mode, **softcap)],
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape) for name, value in values.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("out", "scores")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    both = [runner.run(None, values)[1][0, 0] for runner in (ReferenceEvaluator(model), session)]
    for name, given in zip(("reference", "onnxruntime"), both):
        which = [what for what, s in (("product", product), ("softcapped", softcapped)) if np.allclose(given, s, atol=1e-6)]
        print(f"mode {mode} {softcap or 'no softcap'}, {name}: {which}")
    return both


def equal(given, expected):
    return np.allclose(given, expected, atol=1e-6)


of_reference, of_runtime = scores(0, softcap=0.5)
assert equal(of_reference, softcapped) and equal(of_runtime, product)
of_reference, of_runtime = scores(1, softcap=0.5)
assert equal(of_reference, softcapped) and equal(of_runtime, softcapped)
of_reference, of_runtime = scores(0)
assert equal(of_reference, product) and equal(of_runtime, product)
PY
