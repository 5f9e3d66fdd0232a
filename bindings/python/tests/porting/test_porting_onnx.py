"""Attention of opset 24 and 25 by onnx's ReferenceEvaluator and by ONNX Runtime's CPU provider."""

import numpy as np
import pytest
from packages import B, H, NK, NQ, D, attend, differ, hidden_row, items_first, need, operands, same, visible

onnx, onnxruntime = need("onnx", "onnxruntime")
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

Q, K, V = operands()
INPUTS = ("Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen")
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def reference(model):
    return ReferenceEvaluator(model)


def runtime(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


BOTH = pytest.mark.parametrize("engine", [reference, runtime])


def attention(engine, inputs=(), outputs=("Y",), opset=24, **attributes):
    """Inputs by name, beside Q, K and V. Y, or all outputs asked for."""
    values = {"Q": Q, "K": K, "V": V, **dict(inputs)}
    node = helper.make_node("Attention", [name if name in values else "" for name in INPUTS], list(outputs), **attributes)
    graph = helper.make_graph(
        [node], "attention",
        [helper.make_tensor_value_info(name, TYPES[value.dtype.name], value.shape) for name, value in values.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    result = engine(model).run(None, values)
    return result[0] if len(result) == 1 else result


def names(engine, text):
    return f"ONNX {text}, {engine.__name__}"


@BOTH
def test_plain_scale_softcap(engine):
    same(names(engine, "Attention"), attention(engine), attend.attention(Q, K, V))
    same(names(engine, "scale"), attention(engine, scale=0.3), attend.attention(Q, K, V, scale=0.3))
    bias = np.random.default_rng(3).standard_normal((1, 1, NQ, NK), dtype=np.float32)
    same(names(engine, "softcap before attn_mask"), attention(engine, {"attn_mask": bias}, softcap=2.0),
         attend.attention(Q, K, V, softcap=2, bias=bias))


@BOTH
def test_layouts(engine):
    def flat(x):
        return np.ascontiguousarray(items_first(x)).reshape(B, x.shape[2], -1)

    of_three_axes = attention(engine, {"Q": flat(Q), "K": flat(K), "V": flat(V)}, q_num_heads=H, kv_num_heads=H)
    same(names(engine, "[B, N, H * D]"), of_three_axes, flat(attend.attention(Q, K, V)))
    q, k, v = operands(hkv=2)
    same(names(engine, "grouped heads"), attention(engine, {"Q": q, "K": k, "V": v}), attend.attention(q, k, v))


@BOTH
def test_causal(engine):
    same(names(engine, "is_causal"), attention(engine, is_causal=1), attend.attention(Q, K, V, causal="top-left"))
    past = np.random.default_rng(4).standard_normal((2, B, H, 4, D), dtype=np.float32)
    after_past = attention(engine, {"past_key": past[0], "past_value": past[1]}, ("Y", "present_key", "present_value"),
                           is_causal=1)[0]
    all_k, all_v = np.concatenate([past[0], K], 2), np.concatenate([past[1], V], 2)
    same(names(engine, "is_causal with a past of 4"), after_past,
         attend.attention(Q, all_k, all_v, causal="top-left", query_offset=4))


@BOTH
def test_lengths(engine):
    lengths = np.array([5, 3])
    same(names(engine, "nonpad_kv_seqlen"), attention(engine, {"nonpad_kv_seqlen": lengths}),
         attend.attention(Q, K, V, kv_lengths=lengths))
    same(names(engine, "nonpad_kv_seqlen, is_causal"), attention(engine, {"nonpad_kv_seqlen": lengths}, is_causal=1),
         attend.attention(Q, K, V, kv_lengths=lengths, causal="bottom-right"))
    hidden_row(names(engine, "nonpad_kv_seqlen of 0"), attention(engine, {"nonpad_kv_seqlen": np.array([5, 0])})[1, 0, 0],
               V[1, 0], "0")


@BOTH
def test_windows(engine):
    same(names(engine, "left_window_size 1, right 0"),
         attention(engine, opset=25, left_window_size=1, right_window_size=0), attend.attention(Q, K, V, window=(1, 0)))
    same(names(engine, "left_window_size 1"), attention(engine, opset=25, left_window_size=1),
         attend.attention(Q, K, V, window=(1, None)))


@BOTH
def test_masks_and_hidden_rows(engine):
    mask = np.ascontiguousarray(np.broadcast_to(visible(), (B, 1, NQ, NK)))
    out = attention(engine, {"attn_mask": mask})
    same(names(engine, "bool attn_mask"), out, attend.attention(Q, K, V, mask=mask))
    hidden_row(names(engine, "bool attn_mask, hidden row"), out[0, 0, 1], V[0, 0], "0")
    bias = np.where(mask, 0, -np.inf).astype(np.float32)
    hidden_row(names(engine, "attn_mask of -inf, hidden row"), attention(engine, {"attn_mask": bias})[0, 0, 1], V[0, 0], "0")
    lowest = np.where(mask, 0, np.finfo(np.float32).min).astype(np.float32)
    hidden_row(names(engine, "attn_mask of finfo.min, hidden row"), attention(engine, {"attn_mask": lowest})[0, 0, 1],
               V[0, 0], "mean" if engine is reference else "0")
    keys = mask[:, :, :1]
    if engine is reference:
        same(names(engine, "attn_mask [B, 1, 1, keys]"), attention(engine, {"attn_mask": keys}),
             attend.attention(Q, K, V, mask=keys))
    else:
        with pytest.raises(Exception, match="inconsistent q_sequence_length"):
            attention(engine, {"attn_mask": keys})


@BOTH
def test_hidden_nan(engine):
    values, mask = V.copy(), np.ones((NQ, NK), bool)
    values[:, :, NK - 1] = np.nan
    mask[:, NK - 1] = False
    gave = np.isnan(attention(engine, {"V": values, "attn_mask": mask})).any()
    print(f"\n{names(engine, 'NaN of a hidden value in the result')}: {gave}", end="")
    assert gave and not np.isnan(attend.attention(Q, K, values, mask=mask)).any()


@BOTH
@pytest.mark.parametrize("mode, stage", [*enumerate(["scaled", "softcapped", "masked", "probabilities"])])
def test_scores(engine, mode, stage):
    bias = np.random.default_rng(3).standard_normal((1, 1, NQ, NK), dtype=np.float32)
    theirs = attention(engine, {"attn_mask": bias}, ("Y", "", "", "scores"), softcap=2.0, qk_matmul_output_mode=mode)[1]
    ours = attend.attention(Q, K, V, softcap=2, bias=bias, return_scores=stage)[1]
    row = names(engine, f"qk_matmul_output_mode {mode} with softcap")
    if engine is reference and mode == 0:  # it gives those after the softcap
        differ(row, theirs, ours)
    else:
        same(row, theirs, ours)


@BOTH
def test_hidden_scores(engine):
    mask = np.ascontiguousarray(np.broadcast_to(visible(), (B, 1, NQ, NK)))
    scores = attention(engine, {"attn_mask": mask}, ("Y", "", "", "scores"), qk_matmul_output_mode=2)[1]
    hidden = np.unique(scores[~np.broadcast_to(mask, scores.shape)])
    print(f"\n{names(engine, 'qk_matmul_output_mode 2, hidden scores')}: {hidden}", end="")
    assert hidden == (-np.inf if engine is reference else np.finfo(np.float32).min)
