"""Arrays of 16 bits: the results of the float32 call, rounded once; lse and scores stay float32."""

import attend
import numpy as np
import pytest


@pytest.fixture(params=["float16", "bfloat16"])
def narrow(request):
    if request.param == "float16":
        return np.dtype(np.float16)
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


def draw(*shape):
    return np.random.default_rng().standard_normal(shape, np.float32)


def same(got, wanted):
    assert got.dtype != wanted.dtype
    np.testing.assert_array_equal(got.view("u2"), wanted.astype(got.dtype).view("u2"))


def test_attention(narrow):
    q, k, v = (draw(2, 4, 33, 24).astype(narrow) for _ in range(3))
    out, lse, scores = attend.attention(q, k, v, causal="top-left", return_lse=True, return_scores="scaled")
    wide = [x.astype(np.float32) for x in (q, k, v)]
    wanted, wanted_lse, wanted_scores = attend.attention(*wide, causal="top-left", return_lse=True, return_scores="scaled")
    assert out.dtype == narrow and lse.dtype == scores.dtype == np.float32
    same(out, wanted)
    np.testing.assert_array_equal(lse, wanted_lse)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_mixtures(narrow):
    a, b = draw(20, 30), draw(30, 7).astype(narrow)
    same(attend.matmul(b.T, a.T), attend.matmul(b.T.astype(np.float32), a.T))
    out = np.empty((7, 20), np.float32)
    assert attend.matmul(b.T, a.T, out=out) is out
    np.testing.assert_array_equal(out, attend.matmul(b.T.astype(np.float32), a.T))


def test_softmax_and_self_attention(narrow):
    x = draw(9, 16).astype(narrow)
    same(attend.softmax(x, axis=0), attend.softmax(x.astype(np.float32), axis=0))
    weights = [draw(16, 16).astype(narrow) for _ in range(3)]
    wanted = attend.self_attention(x.astype(np.float32), *(w.astype(np.float32) for w in weights))
    same(attend.self_attention(x, *weights), wanted)
    out = np.empty_like(x)
    assert attend.softmax(x, out=out) is out
    same(out, attend.softmax(x.astype(np.float32)))


def test_keys_of_eight_bits():
    f8 = np.dtype(pytest.importorskip("ml_dtypes").float8_e4m3fn)
    q, k, v = draw(2, 3, 8), draw(2, 40, 8).astype(f8), draw(2, 40, 8).astype(f8)
    np.testing.assert_array_equal(attend.attention(q, k, v), attend.attention(q, k.astype(np.float32), v.astype(np.float32)))
