import ctypes
import importlib.metadata

import numpy as np
import pytest

import attend
from attend import _attend

X = np.ones((6, 4))
SMALL, EIGHT = np.ones((2, 64), np.float32), np.ones((2, 64), np.int8)
NULL_POINTER, INVALID_DTYPE, INVALID_SHAPE, INVALID_STRIDE, INVALID_VALUE, OVERFLOW, OVERLAP, UNKNOWN_ISA = (
    1, 4, 5, 6, 7, 8, 9, 13)


@pytest.mark.parametrize(("argument", "reason", "call"), [
    ("k", INVALID_SHAPE, lambda: attend.attention(X, X[:, :3], X)),
    ("v", INVALID_DTYPE, lambda: attend.attention(X, X, X.astype(np.float32))),
    ("out", INVALID_STRIDE, lambda: attend.attention(X, X, X, out=np.lib.stride_tricks.as_strided(
        np.zeros(4), (6, 4), (0, 8), writeable=True))),
    ("out", OVERLAP, lambda: attend.attention(X, X, X, out=X)),
    ("q", INVALID_DTYPE, lambda: attend.attention(*[X.astype(np.int8)] * 3)),
    ("scale", INVALID_VALUE, lambda: attend.attention(X, X, X, scale=np.inf)),
    ("softcap", INVALID_VALUE, lambda: attend.attention(X, X, X, softcap=-1)),
    ("mask", INVALID_SHAPE, lambda: attend.attention(X, X, X, mask=np.ones((6, 5), bool))),
    ("mask", INVALID_DTYPE, lambda: attend.attention(X, X, X, mask=X @ X.T)),
    ("bias", INVALID_SHAPE, lambda: attend.attention(X, X, X, bias=np.ones((5, 6)))),
    ("window", INVALID_VALUE, lambda: attend.attention(X, X, X, window=(-2, 0))),
    ("out", OVERLAP, lambda: attend.softmax(X[:, :3], out=X[:, 1:])),
    ("out", OVERLAP, lambda: attend.matmul(np.eye(6), X[:, :3], out=X[:, 1:])),
    ("kv_lengths", INVALID_VALUE, lambda: attend.attention(X, X, X, kv_lengths=[7])),
    ("kv_first", INVALID_VALUE, lambda: attend.attention(X, X, X, kv_first=[-1])),
    ("kv_first", INVALID_VALUE, lambda: attend.self_attention(X, *[np.eye(4)] * 3, kv_first=[4], kv_lengths=[3])),
    ("query_offset", INVALID_VALUE, lambda: attend.attention(X, X, X, causal="bottom-right", query_offset=1)),
    ("query_offset", INVALID_VALUE, lambda: attend.attention(X, X, X, causal="bottom-right", query_offset=[1])),
    ("threads", INVALID_VALUE, lambda: attend.attention(X, X, X, threads=-1)),
    ("alibi_slopes", INVALID_SHAPE, lambda: attend.attention(X, X, X, alibi_slopes=np.ones(2))),
    ("a", INVALID_DTYPE, lambda: attend.matmul(X.astype(np.float32), X.T)),
    ("a", INVALID_SHAPE, lambda: attend.matmul(X, X)),
    ("out", INVALID_SHAPE, lambda: attend.matmul(X, X.T, out=np.ones((6, 5)))),
    ("out", INVALID_SHAPE, lambda: attend.softmax(X, out=np.ones((6, 5)))),
    ("mask", INVALID_SHAPE, lambda: attend.softmax(X, mask=np.ones(3, bool))),
    ("w_k", INVALID_SHAPE, lambda: attend.self_attention(X, X, X[:, :3], X)),
    ("b_o", INVALID_VALUE, lambda: attend.self_attention(X, X, X, X, b_o=np.ones(4))),
    ("lse_b", INVALID_SHAPE, lambda: attend.merge(X.copy(), np.ones(6), X, np.ones(5))),
    ("out_a", NULL_POINTER, lambda: attend.merge(None, np.ones(6), X, np.ones(6))),
    ("k_scale", NULL_POINTER, lambda: attend.attention(SMALL, EIGHT, SMALL)),
    ("v_scale", NULL_POINTER, lambda: attend.attention(SMALL, SMALL, EIGHT)),
    ("k_scale", INVALID_VALUE, lambda: attend.attention(SMALL, SMALL, SMALL, k_scale=SMALL[:, :1])),
    ("k_scale", INVALID_SHAPE, lambda: attend.attention(SMALL, EIGHT, SMALL, k_scale=SMALL[:1, :3])),
    ("v_scale", INVALID_SHAPE, lambda: attend.attention(SMALL, SMALL, EIGHT, v_scale=SMALL)),
    ("k_scale", INVALID_DTYPE, lambda: attend.attention(SMALL, EIGHT, SMALL, k_scale=np.float64(1))),
    ("threads", INVALID_VALUE, lambda: attend.set_threads(-1)),
    ("name", UNKNOWN_ISA, lambda: attend.set_isa("mmx")),
])
def test_what_attend_rejects(argument, reason, call):
    before = X.copy()
    with pytest.raises(attend.AttendError) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert (caught.value.argument, caught.value.reason) == (argument, reason)
    assert str(caught.value).startswith(f"{argument}: ") and len(str(caught.value)) > len(argument) + 10
    assert str(caught.value).endswith(".")
    assert (X == before).all()


def test_tensors_as_they_are_without_an_exchange():
    """Nothing here gave _attend one, as attend.torch does where PyTorch has it."""
    for function, count in ((_attend.attention_of_tensors, 28), (_attend.attention_backward_of_tensors, 32)):
        with pytest.raises(TypeError, match="^q: is not described memory"):
            function(*[X] * 3, *[None] * (count - 3))


W, HEADS = np.ones((4, 4)), np.ones((7, 6, 4))


@pytest.mark.parametrize(("message", "call"), [
    ("k: has 3 features, not q's 4: q [6, 4], k [6, 3], v [6, 4].", lambda: attend.attention(X, X[:, :3], X)),
    ("v: has 5 keys, not k's 6: q [6, 4], k [6, 4], v [5, 4].", lambda: attend.attention(X, X, X[:5])),
    ("k: has 3 heads; q's 7 heads are no multiple of them: q [7, 6, 4], k [3, 6, 4], v [3, 6, 4].",
     lambda: attend.attention(HEADS, HEADS[:3], HEADS[:3])),
    ("out: has 3 features, not v's 4: q [6, 4], k [6, 4], v [6, 4], out [6, 3].",
     lambda: attend.attention(X, X, X, out=np.ones((6, 3)))),
    ("mask: has 5 keys, not 1 or k's 6: q [6, 4], k [6, 4], v [6, 4], mask [6, 5].",
     lambda: attend.attention(X, X, X, mask=np.ones((6, 5), bool))),
    ("mask: is float64; bool is needed.", lambda: attend.attention(X, X, X, mask=X @ X.T)),
    ("q: is int8; float32, float64, bfloat16 or float16 is needed.", lambda: attend.attention(*[X.astype(np.int8)] * 3)),
    ("v: is float32; float64 is needed beside the other operands.", lambda: attend.attention(X, X, X.astype("f4"))),
    ("out: overlaps k's memory, but needs its own.", lambda: (lambda k: attend.attention(X, k, X, out=k))(X.copy())),
    ("out: its 6 rows have stride 0, but need one of at least 1 to share no memory.",
     lambda: attend.attention(X, X, X, out=np.lib.stride_tricks.as_strided(np.zeros(8), (6, 4), (0, 16)))),
    ("kv_lengths: is 7 for batch 0, but must be 0 to 6.", lambda: attend.attention(X, X, X, kv_lengths=[7])),
    ("window: left and right are -2 and 0, but must be -1 or more.", lambda: attend.attention(X, X, X, window=(-2, 0))),
    ("query_offset: is given, but must not be where causal is bottom-right.",
     lambda: attend.attention(X, X, X, causal="bottom-right", query_offset=[1])),
    ("scale: is inf, but must be finite.", lambda: attend.attention(X, X, X, scale=np.inf)),
    ("scale: is 1e+40, which is beyond float32's largest number.", lambda: attend.softmax(X.astype("f4"), scale=1e40)),
    ("threads: is -1, but must be 0 or more.", lambda: attend.softmax(X, threads=-1)),
    ("threads: is -1, but must be 0 or more.", lambda: attend.set_threads(-1)),
    ("a: has 4 columns, not b's 6 rows: a [6, 4], b [6, 4].", lambda: attend.matmul(X, X)),
    ("a: has 2 along axis -3, not 1 or b's 3: a [2, 6, 4], b [3, 4, 6].",
     lambda: attend.matmul(HEADS[:2], HEADS[:3].swapaxes(1, 2))),
    ("out: has 5 columns, not b's 6: a [6, 4], b [4, 6], out [6, 5].", lambda: attend.matmul(X, X.T, out=np.ones((6, 5)))),
    ("mask: has 3 along axis -1, not 1 or x's 4: x [6, 4], mask [3].", lambda: attend.softmax(X, mask=np.ones(3, bool))),
    ("mask: has 3 along axis -1, not 1 or x's 4: x [6, 4], mask [3].",
     lambda: attend.softmax(X, axis=0, mask=np.ones(3, bool))),
    ("w_k: has 3 rows, not w_q's 4: x [6, 4], w_q [4, 4], w_k [3, 4], w_v [4, 4].",
     lambda: attend.self_attention(X, W, W[:3], W)),
    ("b_q: has 7 rows, not w_q's 4: x [6, 4], w_q [7, 4, 4], w_k [7, 4, 4], w_v [7, 4, 4], b_q [7, 4]. "
     "A bias of several heads is [H, Dh, 1].",
     lambda: attend.self_attention(X, *[HEADS[:, :4]] * 3, np.ones((7, 4)))),
    ("b_o: is given, but not w_o's matrix.", lambda: attend.self_attention(X, W, W, W, b_o=np.ones(4))),
    ("k_scale: is null, but required where k's type is int8.", lambda: attend.attention(SMALL, EIGHT, SMALL)),
    ("mask: has 3 along axis -2, not 1 or x's 4: x [2, 6, 4, 5], mask [2, 6, 3, 5].",
     lambda: attend.softmax(np.ones((2, 6, 4, 5)), axis=1, mask=np.ones((2, 6, 3, 5), bool))),
    ("mask: has 3 along axis -3, not 1 or x's 6: x [2, 6, 4, 5], mask [2, 3, 4, 5].",
     lambda: attend.softmax(np.ones((2, 6, 4, 5)), axis=1, mask=np.ones((2, 3, 4, 5), bool))),
    ("mask: has 3 along axis -4, not 1 or x's 2: x [2, 6, 4, 5], mask [3, 6, 4, 5].",
     lambda: attend.softmax(np.ones((2, 6, 4, 5)), axis=1, mask=np.ones((3, 6, 4, 5), bool))),
    ("lse_b: has 5 queries, not out_a's 6: out_a [6, 4], lse_a [6], out_b [6, 4], lse_b [5].",
     lambda: attend.merge(X.copy(), np.ones(6), X, np.ones(5))),
])
def test_messages(message, call):
    with pytest.raises(attend.AttendError) as caught:
        call()
    assert str(caught.value) == message


def test_the_name_of_the_instruction_set():
    with pytest.raises(attend.AttendError) as caught:
        attend.set_isa("mmx")
    assert str(caught.value) == f"name: is 'mmx', not one of {' '.join(attend.isa_names())}."


@pytest.mark.parametrize(("name", "said"), [("rows", "rows"), ("a" + "é" * 40, "a" + "é" * 40), ("é" * 70, "é" * 60)])
def test_the_name_is_told_as_it_was_given(name, said):
    with pytest.raises(attend.AttendError) as caught:
        attend.set_isa(name)
    assert str(caught.value).startswith(f"name: is '{said}', not one of ")


@pytest.mark.parametrize(("words", "call"), [
    (r"attn_mask: attention\(\) has no such argument; mask= \(bool, True is visible\), or bias=",
     lambda: attend.attention(X, X, X, attn_mask=None)),
    ('is_causal: .*; causal="top-left" is PyTorch', lambda: attend.attention(X, X, X, is_causal=True)),
    ("enable_gqa: .*; leave it out", lambda: attend.attention(X, X, X, enable_gqa=True)),
    ("dropout_p: .*; leave it out", lambda: attend.attention(X, X, X, dropout_p=0.0)),
    ("softmax_scale: .*; scale=", lambda: attend.self_attention(X, X, X, X, softmax_scale=1.0)),
    (r"dim: softmax\(\) has no such argument; .* has axis=", lambda: attend.softmax(X, dim=-1)),
    (r"axes: matmul\(\) has no such argument; .* numpy.moveaxis", lambda: attend.matmul(X, X.T, axes=[(-2, -1)] * 3)),
    ("kv_length: .*; did you mean kv_lengths=?", lambda: attend.attention(X, X, X, kv_length=[6])),
    ("xyzzy: .*; there are a, b, out, bias, alpha, beta, a_scale, b_scale, a_zero, b_zero, native_dot, threads$",
     lambda: attend.matmul(X, X.T, xyzzy=1)),
])
def test_arguments_of_other_libraries(words, call):
    with pytest.raises(TypeError, match=f"^{words}"):
        call()


MISALIGNED = np.zeros(6 * 4 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(6, 4)


class Negated:
    """A tensor whose sign is still to be changed, as PyTorch's x.conj().imag, of which DLPack says nothing."""

    def __init__(self, negated):
        self.negated = negated

    def is_neg(self):
        return self.negated

    def __dlpack__(self):
        return X.__dlpack__()


def test_tensors_that_are_negated_lazily():
    assert (attend.attention(Negated(False), X, X) == attend.attention(X, X, X)).all()
    for name, i in zip("qkv", range(3)):
        with pytest.raises(ValueError, match=rf"^{name}: is negated lazily: pass its .resolve_neg\(\)"):
            attend.attention(*[Negated(True) if i == j else X for j in range(3)])


def test_tensors_of_pytorch():
    torch = pytest.importorskip("torch")
    x = torch.ones(6, 4, dtype=torch.complex128) * (2 + 3j)
    with pytest.raises(ValueError, match="q: is negated lazily"):
        attend.attention(x.conj().imag, X, X)
    want = attend.softmax(-3 * X, scale=0.5)
    assert (attend.softmax(x.conj().imag.resolve_neg(), scale=0.5) == want).all()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(("error", "words", "call"), [
    (TypeError, "q: an array is needed", lambda: attend.attention(None, X, X)),
    (TypeError, "k: an array is needed", lambda: attend.attention(X, [[1.0]], X)),
    (TypeError, "v: elements must be", lambda: attend.attention(X, X, X.astype(int))),
    (TypeError, "q: elements must be", lambda: attend.attention(X.astype(">f8"), X, X)),
    (ValueError, "q: has 5 axes", lambda: attend.attention(X[None, None, None], X, X)),
    (ValueError, "q: its memory is not aligned", lambda: attend.attention(MISALIGNED, X, X)),
    (ValueError, "stride of axis 0", lambda: attend.softmax(np.zeros(3, "f8,i1")["f0"])),
    (ValueError, "out: is read-only", lambda: attend.softmax(X, out=read_only(X))),
    (ValueError, "a: has 1 axes, but needs 2 or more", lambda: attend.matmul(X[0], X.T)),
    (ValueError, "b: has 0 axes, but needs 2 or more", lambda: attend.matmul(X, np.float64(1))),
    (TypeError, r"k: an array is needed \(numpy.asarray\(..\) makes one\), not list",
     lambda: attend.attention(X, X.tolist(), X)),
    (TypeError, r"q: elements must be float32, float16, bfloat16 or float64 .* \(keys and values also float8_e4m3fn and int8; "
     r"factors int8 and uint8; masks bool\), not datetime64\[s\]", lambda: attend.attention(X.astype("M8[s]"), X, X)),
    (TypeError, "v: elements must be .*, not int64", lambda: attend.attention(X, X, X.astype("i8"))),
    (TypeError, "softcap: a number is needed, not None", lambda: attend.attention(X, X, X, softcap=None)),
    (TypeError, "scale: a number is needed, not 'a'", lambda: attend.attention(X, X, X, scale="a")),
    (TypeError, "scale: a number is needed, not None", lambda: attend.softmax(X, scale=None)),
    (TypeError, "scale: a number is needed, not array", lambda: attend.softmax(X, scale=np.ones((2, 2)))),
    (TypeError, "alpha: a number is needed, not 'b'", lambda: attend.matmul(X, X.T, alpha="b")),
    (TypeError, "beta: a number is needed, not 'b'", lambda: attend.matmul(X, X.T, beta="b")),
    (OverflowError, "alpha: 1000* is too large", lambda: attend.matmul(X, X.T, alpha=10**400)),
    (TypeError, "axis: an integer is needed, not None", lambda: attend.softmax(X, axis=None)),
    (TypeError, r"axis: an integer is needed, not \(0, 1\)", lambda: attend.softmax(X, axis=(0, 1))),
    (TypeError, "threads: an integer is needed, not None", lambda: attend.softmax(X, threads=None)),
    (TypeError, "threads: an integer is needed, not '2'", lambda: attend.set_threads("2")),
    (TypeError, "workers: an integer is needed, not None", lambda: attend.set_executor(None, None)),
    (TypeError, "name: a string or None is needed, not 2", lambda: attend.set_isa(2)),
    (TypeError, r"window: a pair \(left, right\) is needed, not 128", lambda: attend.attention(X, X, X, window=128)),
    (TypeError, r"window: a pair \(left, right\) is needed, not \(1,\)", lambda: attend.attention(X, X, X, window=(1,))),
    (TypeError, "window: an integer is needed, not 'a'", lambda: attend.attention(X, X, X, window=("a", 0))),
    (TypeError, "query_offset: integers are needed, one per batch, not None",
     lambda: attend.attention(X, X, X, query_offset=None)),
    (ValueError, "beta: needs an out", lambda: attend.matmul(X, X.T, beta=1)),
    (ValueError, "axis: 2", lambda: attend.softmax(X, axis=2)),
    (ValueError, "mask: has more axes", lambda: attend.softmax(X, mask=np.ones((1, 6, 4), bool))),
    (ValueError, "scale: must not be 0", lambda: attend.softmax(X, scale=0)),
    (ValueError, "scale: must not be 0", lambda: attend.attention(X, X, X, scale=0)),
    (ValueError, "causal: must be one of", lambda: attend.attention(X, X, X, causal=True)),
    (ValueError, "return_scores: must be one of", lambda: attend.attention(X, X, X, return_scores="all")),
    (ValueError, "kv_lengths: 2 numbers for a batch of 1", lambda: attend.attention(X, X, X, kv_lengths=[1, 2])),
    (ValueError, "kv_first: 0 numbers for a batch of 1", lambda: attend.attention(X, X, X, kv_first=[])),
    (TypeError, "kv_lengths: integers are needed", lambda: attend.attention(X, X, X, kv_lengths=[1.5])),
    (OverflowError, "threads: -?[0-9]+ is too large", lambda: attend.attention(X, X, X, threads=2**31)),
])
def test_what_the_binding_rejects(error, words, call):
    with pytest.raises(error, match=words):
        call()


def huge(*shape):
    return np.broadcast_to(np.float32(1), shape)


MANY = huge(1 << 40, 64)


@pytest.mark.parametrize(("argument", "reason", "call"), [
    ("a", INVALID_SHAPE, lambda: attend.matmul(huge(1 << 21, 3), huge(4, 1 << 21))),
    ("a", INVALID_SHAPE, lambda: attend.matmul(huge(1 << 30, 3), huge(4, 1 << 30))),
    ("bias", INVALID_SHAPE, lambda: attend.matmul(huge(1 << 30, 3), huge(3, 1 << 20), bias=SMALL)),
    ("mask", INVALID_SHAPE, lambda: attend.softmax(MANY, mask=np.ones(3, bool))),
    ("k", INVALID_SHAPE, lambda: attend.attention(SMALL, huge(1 << 40, 1, 2, 32), SMALL)),
    ("k", INVALID_SHAPE, lambda: attend.attention(MANY, SMALL[:, :32], SMALL)),
    ("k", INVALID_SHAPE, lambda: attend.attention(huge(1 << 31, 64), SMALL[:, :32], huge(2, 1 << 30))),
    ("v", INVALID_SHAPE, lambda: attend.attention(SMALL, MANY, SMALL, return_scores="masked")),
    ("bias", INVALID_SHAPE, lambda: attend.attention(MANY, SMALL, SMALL, bias=SMALL)),
    ("sinks", INVALID_SHAPE, lambda: attend.attention(MANY, SMALL, SMALL, sinks=SMALL[0], return_lse=True)),
    ("w_k", INVALID_SHAPE, lambda: attend.self_attention(MANY, SMALL, SMALL[:, :3], SMALL)),
    ("w_k", INVALID_SHAPE, lambda: attend.self_attention(huge(1 << 40, 64), SMALL, SMALL[:, :3], huge(1 << 30, 64))),
    ("threads", INVALID_VALUE, lambda: attend.self_attention(MANY, SMALL, SMALL, SMALL, threads=-1)),
    ("scale", INVALID_VALUE, lambda: attend.attention(MANY, SMALL, SMALL, scale=1e39)),
    ("softcap", INVALID_VALUE, lambda: attend.attention(MANY, SMALL, SMALL, softcap=1e-46)),
    ("scale", INVALID_VALUE, lambda: attend.softmax(MANY, scale=1e-46)),
    ("out", OVERFLOW, lambda: attend.matmul(huge(1 << 30, 3), huge(3, 1 << 30))),
    ("return_scores", OVERFLOW, lambda: attend.attention(
        huge(1 << 30, 2), *[np.broadcast_to(np.int8(1), (1 << 30, 2))] * 2, k_scale=huge(), v_scale=huge(),
        return_scores="scaled")),
    ("return_scores", OVERFLOW, lambda: attend.attention(*[huge(1 << 30, 2)] * 3, return_scores="scaled")),
])
def test_nothing_is_allocated_before_the_shapes_are_right(argument, reason, call):
    with pytest.raises(attend.AttendError) as caught:
        call()
    assert (caught.value.argument, caught.value.reason) == (argument, reason)


@pytest.mark.parametrize(("error", "words", "call"), [
    (ValueError, "kv_lengths: 1099511627776 numbers for a batch of 1",
     lambda: attend.attention(X, X, X, kv_lengths=np.broadcast_to(np.int32(1), 1 << 40))),
    (ValueError, "query_offset: 1099511627776 numbers for a batch of 1",
     lambda: attend.attention(X, X, X, query_offset=np.broadcast_to(np.uint64(1), 1 << 40))),
    *[(OverflowError, f"{name}: numbers", lambda name=name, value=value: attend.attention(X, X, X, **{name: value}))
      for name in ("query_offset", "kv_lengths", "kv_first")
      for value in (np.array([2**63], np.uint64), np.array([2**64 - 1], ">u8"), [2**63], [2**64], (-2**63 - 1,))],
    (OverflowError, f"query_offset: {2**70} is too large", lambda: attend.attention(X, X, X, query_offset=2**70)),
    (OverflowError, "query_offset: .* is too large", lambda: attend.attention(X, X, X, query_offset=np.uint64(2**63))),
    (OverflowError, "window: .* is too large", lambda: attend.attention(X, X, X, window=(0, np.uint64(2**63)))),
    (OverflowError, "window: .* is too large", lambda: attend.attention(X, X, X, window=(-2**63 - 1, 0))),
    (OverflowError, "axis: .* is too large", lambda: attend.softmax(X, axis=2**63)),
    (OverflowError, "threads: -?[0-9]+ is too large", lambda: attend.matmul(X, X.T, threads=-2**31 - 1)),
    (OverflowError, "threads: -?[0-9]+ is too large", lambda: attend.set_threads(2**32)),
])
def test_integers_that_are_no_int64(error, words, call):
    with pytest.raises(error, match=words):
        call()


def test_integers_of_every_type():
    x = np.stack([X, X])[:, None]
    want = attend.attention(x, x, x, causal="top-left", query_offset=[1, 2], kv_lengths=[3, 5], kv_first=[2, 1])
    for dtype in ("i1", "u1", "i2", ">u2", "i4", "u4", ">i8", "u8"):
        numbers = np.array([5, 3, 2, 1], dtype)
        assert (want == attend.attention(x, x, x, causal="top-left", query_offset=numbers[:1:-1],
                                         kv_lengths=numbers[1::-1], kv_first=numbers[2:])).all()
    assert attend.attention(x[:0], x[:0], x[:0], kv_lengths=[], query_offset=()).shape == (0, 1, 6, 4)


M = np.ma.masked_less(X, 2)


@pytest.mark.parametrize(("argument", "call"), [
    ("a", lambda: attend.matmul(M, X.T)),
    ("b", lambda: attend.matmul(X, M.T)),
    ("out", lambda: attend.matmul(X, X.T, out=np.ma.ones((6, 6)))),
    ("bias", lambda: attend.matmul(X, X.T, bias=np.ma.ones(6))),
    ("x", lambda: attend.softmax(M)),
    ("out", lambda: attend.softmax(X, out=np.ma.ones((6, 4)))),
    ("mask", lambda: attend.softmax(X, mask=M > 0)),
    ("bias", lambda: attend.softmax(X, bias=M)),
    *[(name, lambda i=i: attend.attention(*[M if i == j else X for j in range(3)])) for i, name in enumerate("qkv")],
    *[(name, lambda name=name: attend.attention(X, X, X, **{name: M}))
      for name in ("out", "mask", "bias", "alibi_slopes", "sinks", "k_scale", "v_scale")],
    *[(name, lambda name=name: attend.attention(X, X, X, **{name: np.ma.array([1])}))
      for name in ("query_offset", "kv_lengths", "kv_first")],
    *[(name, lambda i=i: attend.self_attention(*[M if i == j else X for j in range(7)]))
      for i, name in enumerate(("x", "w_q", "w_k", "w_v", "b_q", "b_k", "b_v"))],
    *[(name, lambda name=name: attend.self_attention(X, X, X, X, **{"w_o": X, name: M}))
      for name in ("w_o", "b_o", "out", "mask", "bias", "alibi_slopes", "sinks")],
    *[(name, lambda i=i: attend.merge(*[M if i == j else X if j % 2 == 0 else X[:, 0] for j in range(4)]))
      for i, name in enumerate(("out_a", "lse_a", "out_b", "lse_b"))],
])
def test_masked_arrays_are_refused(argument, call):
    with pytest.raises(TypeError, match=rf"^{argument}: the mask of a masked array would be ignored: pass its \.filled"):
        call()


def test_other_subclasses_of_ndarray(tmp_path):
    mapped = np.memmap(tmp_path / "x", X.dtype, "w+", shape=X.shape)
    mapped[:] = X
    assert (attend.softmax(mapped) == attend.softmax(X)).all()
    assert (attend.softmax(M.data, mask=~np.ma.getmaskarray(M)) == 0).all()


def test_errors_of_the_producer():
    class Elsewhere:
        def __dlpack__(self):
            raise BufferError("on another device")

    with pytest.raises(BufferError, match="on another device") as caught:
        attend.attention(X, Elsewhere(), X)
    assert caught.value.__notes__ == ["argument: k"]


class Pretended:
    """A DLPack capsule of X with one field of its DLTensor changed."""

    def __init__(self, offset, kind, value):
        self.change = offset, kind, value

    def __dlpack__(self):
        capsule = X.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        offset, kind, value = self.change
        kind.from_address(pointer(capsule, b"dltensor") + offset).value = value
        return capsule


@pytest.mark.parametrize(("error", "words", "change"), [
    (ValueError, "q: is not in the memory of the CPU", (8, ctypes.c_int32, 2)),
    (ValueError, "q: has 5 axes", (16, ctypes.c_int32, 5)),
    (TypeError, "q: elements must be", (20, ctypes.c_uint8, 5)),
    (attend.AttendError, "k: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside",
     (20, ctypes.c_uint32, 4 | 16 << 8 | 1 << 16)),
])
def test_other_tensors(error, words, change):
    with pytest.raises(error, match=words):
        attend.attention(Pretended(*change), X, X)


@pytest.mark.parametrize(("header", "library", "fits"), [
    (100, 100, True), (100, 101, True), (101, 100, False), (100, 200, False), (200, 100, False), (100, 10100, False),
    (10000, 10200, True), (10200, 10000, False), (10000, 20000, False),
])
def test_version_check(header, library, fits):
    if fits:
        attend._require_compatible(header, library)
    else:
        with pytest.raises(ImportError, match=attend._dotted(library)):
            attend._require_compatible(header, library)


def test_settings():
    assert attend.version() >= tuple(map(int, attend.__version__.split(".")))
    assert importlib.metadata.version("attend-cpu") == attend.__version__
    assert attend.isa() == attend.isa_names()[0]
    try:
        attend.set_isa(attend.isa_names()[-1])
        assert attend.isa() == attend.isa_names()[-1]
        attend.set_threads(3)
        assert attend.threads() == 3
    finally:
        attend.set_isa(None)
        attend.set_threads(0)
