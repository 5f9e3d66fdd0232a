#!/bin/sh
# ONNX Attention, opset 24: telling it that no key is padding moves the causal mask.
#
# Seen with onnx 1.23.2's ReferenceEvaluator and onnxruntime 1.32.0 (CPU), which agree. Three queries, four keys, is_causal = 1:
# without nonpad_kv_seqlen query 0 sees key 0 alone, the diagonal begins at the top left. With nonpad_kv_seqlen = [4], all four
# keys, query 0 sees keys 0 and 1: the last query stands at the last key. With [2] query 0 sees none and its output is 0.
# An exporter that adds the input "to be safe" changes results wherever there are more keys than queries.
# In attend: ATTEND_CAUSAL_TOP_LEFT, and with the input query_offsets[b] = nonpad_kv_seqlen[b] - Nq beside kv_lengths.
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

queries, keys = 3, 4
feeds = {
    "q": np.arange(12, dtype=np.float32).reshape(1, 1, queries, 4) / 12,
    "k": np.arange(16, dtype=np.float32).reshape(1, 1, keys, 4) / 16,
    "v": np.eye(keys, dtype=np.float32).reshape(1, 1, keys, 4),  # so that the output is the weights
}


def visible(lengths):
    """Which keys each query weighs, by both."""
    inputs, values = ["q", "k", "v"], dict(feeds)
    if lengths is not None:
        inputs, values = inputs + ["", "", "", "lengths"], {**values, "lengths": np.array(lengths, dtype=np.int64)}
    types = {np.dtype("float32"): TensorProto.FLOAT, np.dtype("int64"): TensorProto.INT64}
    graph = helper.make_graph(
        [helper.make_node("Attention", inputs, ["out"], is_causal=1)],
        "attention",
        [helper.make_tensor_value_info(name, types[value.dtype], value.shape) for name, value in values.items()],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    by_both = [(runner.run(None, values)[0][0, 0] > 0).astype(int).tolist() for runner in (ReferenceEvaluator(model), session)]
    assert by_both[0] == by_both[1], by_both
    print(f"nonpad_kv_seqlen {lengths}: {by_both[0]}")
    return by_both[0]


assert visible(None) == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
assert visible([4]) == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
assert visible([2]) == [[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]
PY
