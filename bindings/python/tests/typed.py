"""Checked by mypy --strict, never run: what a user's type checker makes of attend."""

from array import array
from concurrent.futures import ThreadPoolExecutor
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import attend

Double = npt.NDArray[np.float64]
New = npt.NDArray[Any]


class Tensor:
    def __dlpack__(self, stream: int | None = None) -> object: ...


x: Double = np.zeros((2, 4, 4))
mask: npt.NDArray[np.bool_] = np.ones((4, 4), bool)
tensor = Tensor()

assert_type(attend.matmul(x, x, bias=x), New)
assert_type(attend.matmul(x, x, native_dot=True), New)
assert_type(attend.matmul(x, x, out=x, beta=1, native_dot=False), Double)
assert_type(attend.softmax(array("d", [0.0])), New)
assert_type(attend.softmax(memoryview(b""), axis=0, mask=mask, return_lse=True), tuple[New, New])
assert_type(attend.softmax(x, out=tensor), Tensor)
assert_type(attend.softmax_backward(x, x, log=True), New)
assert_type(attend.softmax_backward(x, x, out=tensor, accumulate=True), Tensor)
assert_type(attend.softmax(x, out=x, return_lse=True), tuple[Double, New])
assert_type(attend.attention(x, tensor, x, causal="top-left", window=(4, None), query_offset=[0, 1]), New)
assert_type(attend.attention(x, x, x, return_lse=True, mask=mask), tuple[New, New])
assert_type(attend.attention(x, x, x, return_scores="masked"), tuple[New, New])
assert_type(attend.attention(x, x, x, return_lse=True, return_scores="scaled", kv_lengths=np.array([1]), kv_first=[0]),
            tuple[New, New, New])
assert_type(attend.attention(x, x, x, out=tensor), Tensor)
assert_type(attend.attention(x, tensor, tensor, k_scale=x, v_scale=tensor), New)
assert_type(attend.attention(x, x, x, query_starts=[0, 4], key_starts=np.array([0, 4])), New)
assert_type(attend.attention(x, x, x, pages=tensor, kv_lengths=[4]), New)
assert_type(attend.attention(x, x, x, state=attend.attention(x, x, x, pauses=True), key_offset=256), New)
assert_type(attend.self_attention(x, x, x, x, query_starts=[0, 4]), New)
assert_type(attend.rotary(x, x, tensor, offsets=[0, 1], inverse=True), New)
assert_type(attend.rotary(x, x, x, out=tensor, positions=np.array([0])), Tensor)
attend.kv_append(x, None, tensor, None, pages=tensor, offsets=[3], cos=x, sin=x)
cache = attend.KVCache(2, 4, dtype="bfloat16", rotary=(x, tensor))
assert_type(cache.add(), int)
cache.append(x, x, [0], starts=[0, 4])
cache.attend(x, causal=None, query_starts=[0, 4])
cache.free(cache.fork(0))
assert_type(attend.self_attention(x, x, x, x, scale=1, w_o=x, b_o=x), New)
assert_type(attend.self_attention(x, x, x, x, x, x, x, return_lse=True), tuple[New, New])
assert_type(attend.merge(x, x, tensor, x), tuple[Double, Double])
assert_type(attend.convert(x, np.int8, scale=x), New)
assert_type(attend.convert(x, out=tensor), Tensor)
assert_type(attend.convert(x, "int8", scale_axis=(0, -1)), tuple[New, New])
assert_type(attend.attention_backward(x, x, x, x, tensor, lse=x, causal="top-left", d_lse=x), tuple[New, New, New])
assert_type(attend.attention_backward(x, x, x, x, x, bias=x, d_bias=True), tuple[Any, ...])
assert_type(attend.attention_backward(x, x, x, x, x, d_q=x, d_k=tensor, d_v=False, accumulate=True), tuple[Any, ...])
assert_type(attend.version(), tuple[int, int, int])
assert_type(attend.isa_names(), list[str])
attend.set_executor(ThreadPoolExecutor(2), workers=2)
attend.set_executor(None)

# Each of these is an error: mypy says so if the comment is not needed.
attend.attention(x, x, x, causal=True)  # type: ignore[call-overload]
attend.attention(x, x, x, scales=1)  # type: ignore[call-overload]
attend.self_attention(x, x, x, x, k_scale=x)  # type: ignore[call-overload]
attend.self_attention(x, x, x, x, pauses=True)  # type: ignore[call-overload]
attend.self_attention(x, x, x, x, pages=x)  # type: ignore[call-overload]
attend.attention_backward(x, x, x, x, x, pages=x)  # type: ignore[call-overload]
attend.kv_append(x, x, x, x, k_scale=1)  # type: ignore[arg-type]
attend.matmul(x, x, beta=1)  # type: ignore[call-overload]
attend.convert(x)  # type: ignore[call-overload]
attend.softmax([1.0, 2.0])  # type: ignore[call-overload]
attend.set_threads("2")  # type: ignore[arg-type]
attend.set_executor(2)  # type: ignore[arg-type]
