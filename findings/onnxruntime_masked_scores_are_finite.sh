#!/bin/sh
# ONNX Runtime's Attention writes -3.4e38 where the masked scores are -inf.
#
# Seen with onnxruntime 1.32.0 (CPU) and onnx 1.23.2: qk_matmul_output_mode = 2, the scores after the mask, under a bool mask. The
# operator's reference has -inf; ONNX Runtime has the lowest finite number, so isinf() finds nothing, a sum over a row with two
# masked keys overflows, and a second softmax over a row without a visible key gives 1 / keys instead of NaN or 0. (Its own output
# for such a row is 0, as the reference's.)
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

mask = np.array([[True, True, False], [False, False, False]]).reshape(1, 1, 2, 3)
random = np.random.default_rng(1)
values = {
    "q": random.standard_normal((1, 1, 2, 4), dtype=np.float32),
    "k": random.standard_normal((1, 1, 3, 4), dtype=np.float32),
    "v": random.standard_normal((1, 1, 3, 4), dtype=np.float32),
    "mask": mask,
}
types = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("bool"): TensorProto.BOOL}
graph = helper.make_graph(
    [helper.make_node("Attention", list(values), ["out", "", "", "scores"], qk_matmul_output_mode=2)],
    "attention",
    [helper.make_tensor_value_info(name, types[value.dtype], value.shape) for name, value in values.items()],
    [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("out", "scores")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
of_runtime, of_reference = session.run(None, values), ReferenceEvaluator(model).run(None, values)
for name, (out, scores) in (("onnxruntime", of_runtime), ("reference", of_reference)):
    print(f"{name}: masked scores {np.unique(scores[~mask])}, output of the row that sees nothing {out[0, 0, 1]}")
assert np.all(np.isneginf(of_reference[1][~mask]))
assert np.all(of_runtime[1][~mask] == np.finfo(np.float32).min)
assert np.all(of_runtime[0][0, 0, 1] == 0) and np.all(of_reference[0][0, 0, 1] == 0)
PY
