"""llama.cpp's ggml_flash_attn_ext, in its shared library: q in f32, K and V in f32 or, as llama.cpp keeps them, in f16.

Causal attention takes a mask of f16, as llama.cpp makes one; tiles of it that are -inf throughout are skipped.
"""

import ctypes
import pathlib

import numpy

from .problem import Peer, fallback

POINTER, INT, SIZE, FLOAT, INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_float, ctypes.c_int64
TYPES = {numpy.dtype(numpy.float32): 0, numpy.dtype(numpy.float16): 1}  # enum ggml_type
TENSORS_AND_GRAPH = 1 << 20  # bytes for their descriptions


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", SIZE), ("mem_buffer", POINTER), ("no_alloc", ctypes.c_bool)]


SIGNATURES = {
    "ggml_version": (ctypes.c_char_p,),
    "ggml_init": (POINTER, InitParams),
    "ggml_free": (None, POINTER),
    "ggml_new_tensor_3d": (POINTER, POINTER, INT, INT64, INT64, INT64),
    "ggml_flash_attn_ext": (POINTER, POINTER, POINTER, POINTER, POINTER, POINTER, FLOAT, FLOAT, FLOAT),
    "ggml_new_graph": (POINTER, POINTER),
    "ggml_build_forward_expand": (None, POINTER, POINTER),
    "ggml_threadpool_params_init": (None, POINTER, INT),
    "ggml_threadpool_new": (POINTER, POINTER),
    "ggml_threadpool_free": (None, POINTER),
    "ggml_backend_cpu_init": (POINTER,),
    "ggml_backend_cpu_set_n_threads": (None, POINTER, INT),
    "ggml_backend_cpu_set_threadpool": (None, POINTER, POINTER),
    "ggml_backend_free": (None, POINTER),
    "ggml_backend_alloc_ctx_tensors": (POINTER, POINTER, POINTER),
    "ggml_backend_buffer_free": (None, POINTER),
    "ggml_backend_tensor_set": (None, POINTER, POINTER, SIZE, SIZE),
    "ggml_backend_tensor_get": (None, POINTER, POINTER, SIZE, SIZE),
    "ggml_backend_graph_compute": (INT, POINTER, POINTER),
}


class FlashAttention:
    """A graph of one node on the CPU's backend, with a pool of threads that stay."""

    def __init__(self, ggml, problem, threads, kv_type):
        self.ggml, shape = ggml, problem.shape
        parameters = ctypes.create_string_buffer(4096)  # a struct ggml_threadpool_params, which is smaller
        ggml.ggml_threadpool_params_init(parameters, threads)
        self.pool = ggml.ggml_threadpool_new(parameters)
        self.backend = ggml.ggml_backend_cpu_init()
        ggml.ggml_backend_cpu_set_n_threads(self.backend, threads)
        ggml.ggml_backend_cpu_set_threadpool(self.backend, self.pool)
        self.context = ggml.ggml_init(InitParams(TENSORS_AND_GRAPH, None, True))
        arrays = [problem.q, problem.k.astype(kv_type), problem.v.astype(kv_type)]
        if shape.causal:
            hidden = ~numpy.tri(shape.queries, dtype=bool)
            arrays.append(numpy.where(hidden, -numpy.inf, 0).astype(numpy.float16)[None])
        tensors = [ggml.ggml_new_tensor_3d(self.context, TYPES[x.dtype], *x.shape[::-1]) for x in arrays]
        mask = tensors[3] if shape.causal else None
        scale = 1 / numpy.sqrt(shape.features)
        self.out = ggml.ggml_flash_attn_ext(self.context, *tensors[:3], mask, scale, 0, 0)
        self.graph = ggml.ggml_new_graph(self.context)
        ggml.ggml_build_forward_expand(self.graph, self.out)
        self.buffer = ggml.ggml_backend_alloc_ctx_tensors(self.context, self.backend)
        for tensor, x in zip(tensors, arrays):
            ggml.ggml_backend_tensor_set(tensor, x.ctypes.data, 0, x.nbytes)
        self.shape = (shape.queries, shape.heads, shape.features)

    def __call__(self):
        return self.ggml.ggml_backend_graph_compute(self.backend, self.graph)

    def result(self, status):
        out = numpy.full(self.shape, numpy.nan, numpy.float32)
        if status == 0:
            self.ggml.ggml_backend_tensor_get(self.out, out.ctypes.data, 0, out.nbytes)
        return out.transpose(1, 0, 2)

    def __del__(self):
        self.ggml.ggml_backend_buffer_free(self.buffer)
        self.ggml.ggml_free(self.context)
        self.ggml.ggml_backend_free(self.backend)
        self.ggml.ggml_threadpool_free(self.pool)


def kernels_of(path):
    """What its CPU code was compiled for, "" where it does not say: ggml has one version of it, chosen when it is built."""
    for beside in (path, *pathlib.Path(path).parent.glob("libggml-cpu*.so")):
        library = ctypes.CDLL(str(beside))
        if hasattr(library, "ggml_cpu_has_avx2"):
            return "AVX-512" if library.ggml_cpu_has_avx512() else "AVX2" if library.ggml_cpu_has_avx2() else "no AVX2"
    return ""


def load(path):
    """Peers of a libggml.so, with the libraries that it needs beside it."""
    ggml = ctypes.CDLL(path)
    for name, (result, *arguments) in SIGNATURES.items():
        getattr(ggml, name).restype, getattr(ggml, name).argtypes = result, arguments

    kernels = kernels_of(path)
    left_out = "" if kernels in ("", "AVX2", "AVX-512") else fallback(kernels)

    def peer(name, kv_type, tolerance):
        def prepare(problem, threads):
            if problem.shape.backward:
                return None
            attention = FlashAttention(ggml, problem, threads, kv_type)
            return attention, attention.result

        version = ggml.ggml_version().decode()
        return Peer(name, version, prepare, numpy.dtype(kv_type).itemsize, tolerance, kernels, left_out)

    # With few queries it also adds up in f16, and 131072 keys end 9 per cent off.
    return [peer("ggml", numpy.float32, 1e-4), peer("ggml-f16", numpy.float16, 0.2)]
