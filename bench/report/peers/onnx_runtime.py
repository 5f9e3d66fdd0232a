"""ONNX Runtime's MultiHeadAttention, whose heads are interleaved: [1, N, heads * D]. It knows no grouped heads."""

from .problem import Peer, aligned


def model(shape):
    from onnx import TensorProto, helper

    def value(name, items):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, items, shape.heads * shape.features])

    inputs = [value("q", shape.queries), value("k", shape.keys), value("v", shape.keys)]
    options = {"num_heads": shape.heads, "unidirectional": int(shape.causal)}
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["out"], domain="com.microsoft", **options)
    graph = helper.make_graph([node], "attention", inputs, [value("out", shape.queries)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets)
    made.ir_version = 8
    return made.SerializeToString()


def interleaved(x):
    heads, items, features = x.shape
    out = aligned((items, heads, features))
    out[:] = x.transpose(1, 0, 2)
    return out


def load():
    try:
        import onnx  # noqa: F401 (model() needs it)
        import onnxruntime
    except ImportError:
        return []

    def prepare(problem, threads):
        shape = problem.shape
        if shape.heads != shape.kv_heads or shape.backward:
            return None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session = onnxruntime.InferenceSession(model(shape), options, ["CPUExecutionProvider"])
        operands = {name: interleaved(x) for name, x in zip("qkv", (problem.q, problem.k, problem.v))}
        out = aligned((shape.queries, shape.heads, shape.features))
        # Bound once, as ours is given its memory: a call copies nothing.
        binding = session.io_binding()
        for name, x in operands.items():
            binding.bind_input(name, "cpu", 0, x.dtype, (1, len(x), shape.heads * shape.features), x.ctypes.data)
        binding.bind_output("out", "cpu", 0, out.dtype, (1, len(out), shape.heads * shape.features), out.ctypes.data)

        def call(operands=operands):  # which must outlive the binding
            session.run_with_iobinding(binding)
            return out

        return call, lambda out: out.transpose(1, 0, 2)

    return [Peer("onnxruntime", onnxruntime.__version__, prepare, kernels="chosen when it runs, not told")]
