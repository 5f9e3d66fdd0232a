#!/bin/sh
# ggml's flash attention on CPUs adds up the values of an f16 cache in f16, if there are few queries: sums stop growing at 2048.
#
# Seen with ggml 0.25.3, as llama-cpp-python 0.3.36 ships its source (x86-64, g++ 12): ggml_flash_attn_ext with K and V in f16, q and
# k such that all keys weigh the same, all values 1. The result should be 1. With one query on one thread it is 0.8 of 2560 keys,
# 0.5 of 4096, 0.25 of 8192 and 0.031 of 65536: 2048 over the keys, since 2048 + 1 is 2048 in f16. Four threads share the
# keys and are right up to 8192 (0.125 of 65536); 64 queries, and K and V in f32, are right. So the same token differs between prompt
# and decoding, and with the number of threads. Weights that fall off lose less: it is attention spread over a long cache that does.
#
# Exit status 0: still so. Needs python3 with venv, a C++ compiler, and a package index.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip="$folder/venv/bin/pip --disable-pip-version-check"
$pip install -q numpy==2.4.6 cmake==3.31.6 ninja==1.11.1.4
$pip download -q --no-deps --no-binary llama-cpp-python -d "$folder" llama-cpp-python==0.3.36
tar -xzf "$folder"/llama_cpp_python-0.3.36.tar.gz -C "$folder"
PATH="$folder/venv/bin:$PATH"
cmake -S "$folder/llama_cpp_python-0.3.36/vendor/llama.cpp" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DBUILD_SHARED_LIBS=ON -DGGML_OPENMP=OFF -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_TESTS=OFF \
  -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF >"$folder/log" 2>&1
cmake --build "$folder/build" --target ggml ggml-cpu >>"$folder/log" 2>&1 || { tail -n 20 "$folder/log"; exit 1; }
python3 - "$(find "$folder/build" -name libggml.so | head -n 1)" <<'PY'
import ctypes
import sys

import numpy

ggml = ctypes.CDLL(sys.argv[1])
P, I, L, F = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", P), ("no_alloc", ctypes.c_bool)]


for name, result, arguments in [
    ("ggml_version", ctypes.c_char_p, []),
    ("ggml_init", P, [InitParams]),
    ("ggml_new_tensor_3d", P, [P, I, L, L, L]),
    ("ggml_flash_attn_ext", P, [P, P, P, P, P, F, F, F]),
    ("ggml_new_graph", P, [P]),
    ("ggml_build_forward_expand", None, [P, P]),
    ("ggml_backend_cpu_init", P, []),
    ("ggml_backend_cpu_set_n_threads", None, [P, I]),
    ("ggml_backend_alloc_ctx_tensors", P, [P, P]),
    ("ggml_backend_tensor_set", None, [P, P, ctypes.c_size_t, ctypes.c_size_t]),
    ("ggml_backend_tensor_get", None, [P, P, ctypes.c_size_t, ctypes.c_size_t]),
    ("ggml_backend_graph_compute", I, [P, P]),
]:
    getattr(ggml, name).restype, getattr(ggml, name).argtypes = result, arguments


def attention(queries, keys, kind, threads, features=64):
    """Of queries of 1 to keys of 0 with values of 1: each feature of the result is a mean of ones."""
    backend = ggml.ggml_backend_cpu_init()
    ggml.ggml_backend_cpu_set_n_threads(backend, threads)
    context = ggml.ggml_init(InitParams(1 << 20, None, True))
    arrays = [numpy.ones((1, queries, features), numpy.float32), numpy.zeros((1, keys, features), kind),
              numpy.ones((1, keys, features), kind)]
    types = {"float32": 0, "float16": 1}
    q, k, v = tensors = [ggml.ggml_new_tensor_3d(context, types[x.dtype.name], *x.shape[::-1]) for x in arrays]
    out = ggml.ggml_flash_attn_ext(context, q, k, v, None, features**-0.5, 0, 0)
    graph = ggml.ggml_new_graph(context)
    ggml.ggml_build_forward_expand(graph, out)
    assert ggml.ggml_backend_alloc_ctx_tensors(context, backend)
    for tensor, x in zip(tensors, arrays):
        ggml.ggml_backend_tensor_set(tensor, x.ctypes.data, 0, x.nbytes)
    assert ggml.ggml_backend_graph_compute(backend, graph) == 0
    result = numpy.empty((queries, features), numpy.float32)
    ggml.ggml_backend_tensor_get(out, result.ctypes.data, 0, result.nbytes)
    assert result.min() == result.max()
    return float(result.max())


print("ggml", ggml.ggml_version().decode())
seen = {}
for keys in (2048, 2560, 4096, 8192, 65536):
    seen[keys] = [attention(1, keys, "float16", 1), attention(1, keys, "float16", 4), attention(64, keys, "float16", 1),
                  attention(1, keys, "float32", 1)]
    print("%5d keys: f16, 1 query, 1 thread %.4f; 4 threads %.4f; 64 queries %.4f; f32 %.4f" % (keys, *seen[keys]))
told = {keys: [2048 / keys, 0.125 if keys == 65536 else 1, 1, 1] for keys in seen}
as_told = all(numpy.allclose(seen[keys], told[keys], rtol=1e-6) for keys in seen)
sys.exit(0 if as_told else "this has changed")
PY
