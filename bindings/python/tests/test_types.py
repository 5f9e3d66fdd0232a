"""Arrays of 16 bits: the results of the float32 call, rounded once; lse and scores stay float32. Keys of 8 bits."""

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


def test_native_dot():
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)

    def product(a, b, **options):
        return attend.matmul(a.astype(bfloat16), b.astype(bfloat16), out=np.empty((64, 4), np.float32), **options)

    a, b = (np.random.default_rng().integers(-9, 10, shape) for shape in ((64, 96), (96, 4)))
    np.testing.assert_array_equal(product(a, b, native_dot=True), a @ b)
    np.testing.assert_array_equal(product(a, b), a @ b)
    # Of four columns on every CPU that has them, the dot products count what lies below the smallest normal number as 0.
    a, b = np.full((64, 96), 2.0**-70), np.full((96, 4), 2.0**-70)
    assert (product(a, b, native_dot=False) == 96 * 2.0**-140).all()
    assert (product(a, b, native_dot=True) == (0 if attend.isa() == "avx512bf16" else 96 * 2.0**-140)).all()


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


def test_keys_in_bfloat16_of_another_byte_order():
    bfloat16 = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    x = draw(3, 8)
    with pytest.raises(TypeError, match="k: elements must be .*byte order"):
        attend.attention(x, x.astype(bfloat16).view(bfloat16.newbyteorder()), x)


def powers_of_two(*shape):
    return np.exp2(np.random.default_rng().integers(-9, -4, shape)).astype(np.float32)


@pytest.mark.parametrize("leading", [(), (2,), (3, 2)])
def test_int8_with_scales(leading):
    """Of powers of two, so that it makes no difference when they are multiplied; below one, so that no weight is
    subnormal, whose products are rounded."""
    q = draw(*leading[:-1], 4, 5, 8) if leading else draw(5, 8)
    k, v = (np.random.default_rng().integers(-127, 128, (*leading, 40, 8), np.int8) for _ in range(2))
    per_key, per_feature, one = powers_of_two(*leading, 40, 1), powers_of_two(*leading, 1, 8), powers_of_two()
    for k_scale in (per_key, per_feature, one):
        for v_scale in (per_key, per_feature, one):
            out, lse = attend.attention(q, k, v, k_scale=k_scale, v_scale=v_scale, return_lse=True)
            wanted, wanted_lse = attend.attention(q, k_scale * k, v_scale * v, return_lse=True)
            np.testing.assert_array_equal(out, wanted)
            np.testing.assert_array_equal(lse, wanted_lse)


def test_float8_with_scales():
    f8 = np.dtype(pytest.importorskip("ml_dtypes").float8_e4m3fn)
    q, k, v = draw(2, 3, 8), draw(2, 40, 8).astype(f8), draw(2, 40, 8).astype(f8)
    k_scale, v_scale = powers_of_two(2, 40, 1), powers_of_two(2, 1, 8)
    np.testing.assert_array_equal(
        attend.attention(q, k, v, k_scale=k_scale, v_scale=v_scale),
        attend.attention(q, k_scale * k.astype(np.float32), v_scale * v.astype(np.float32)))
