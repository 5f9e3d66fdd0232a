"""KVCache: what its sequences give is what attention over their keys and values in one array gives, bit for bit."""

import attend
import numpy as np
import pytest

H, HKV, D, DV, POSITIONS = 4, 2, 16, 8, 200
random = np.random.default_rng()
ANGLES = np.outer(np.arange(POSITIONS), 100.0 ** (-np.arange(D // 2) / (D // 2)))
TABLES = np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)


def draw(*shape):
    return random.standard_normal(shape, np.float32)


def dtype_of(name):
    return np.dtype(name if name in ("float32", "float16", "int8") else getattr(pytest.importorskip("ml_dtypes"), name))


class Plain:
    """The keys and values of one sequence, [heads, items, features] of float32, and attention over them."""

    def __init__(self, dtype, rotary):
        self.dtype, self.rotary = dtype, rotary
        self.k, self.v = np.empty((HKV, 0, D), np.float32), np.empty((HKV, 0, DV), np.float32)

    def append(self, k, v):
        self.k, self.v = np.concatenate([self.k, k], axis=1), np.concatenate([self.v, v], axis=1)

    def stored(self, x):
        if self.dtype.name in ("int8", "float8_e4m3fn"):
            return attend.convert(x, self.dtype, scale_axis=-1)
        return attend.convert(x, self.dtype), None

    def attend(self, q, **options):
        k, offset = self.k, self.k.shape[1] - q.shape[1]
        if self.rotary:
            k, q = attend.rotary(k, *TABLES), attend.rotary(q, *TABLES, positions=np.arange(offset, offset + q.shape[1]))
        (k, k_scale), (v, v_scale) = self.stored(k), self.stored(self.v)
        return attend.attention(q, k, v, k_scale=k_scale, v_scale=v_scale, causal="bottom-right", **options)


@pytest.mark.parametrize("rotary", [False, True], ids=["as it is", "rotary"])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int8", "float8_e4m3fn"])
@pytest.mark.parametrize("page_size", [1, 5, 16])
def test_against_attention_over_one_array(name, page_size, rotary):
    dtype = dtype_of(name)
    cache = attend.KVCache(HKV, D, DV, dtype=name, page_size=page_size, pages=2, rotary=TABLES if rotary else None)
    plain = {cache.add(): Plain(dtype, rotary) for _ in range(3)}
    names = [*plain]
    # Prompts, packed; then tokens for some, a chunk for one, until pools and tables have grown.
    for lengths in [(20, 0, 7), (1, 1, 1), (1, 3, 1), (0, 40, 1)]:
        starts, total = np.cumsum([0, *lengths]), sum(lengths)
        q, k, v = draw(H, total, D), draw(HKV, total, D), draw(HKV, total, DV)
        cache.append(k, v, names, starts=starts)
        out, lse = cache.attend(q, names, query_starts=starts, return_lse=True, softcap=20.0)
        for sequence, a, b in zip(names, starts, starts[1:]):
            plain[sequence].append(k[:, a:b], v[:, a:b])
            wanted, wanted_lse = plain[sequence].attend(q[:, a:b], return_lse=True, softcap=20.0)
            np.testing.assert_array_equal(out[:, a:b], wanted)
            np.testing.assert_array_equal(lse[:, a:b], wanted_lse)
    assert [*cache.lengths()] == [22, 44, 10] and cache.k.dtype == dtype
    q = draw(2, H, 1, D)
    out = cache.attend(q, names[1:])
    for i in range(2):
        np.testing.assert_array_equal(out[i], plain[names[1 + i]].attend(q[i]))
    q = draw(H, 4, D)
    np.testing.assert_array_equal(cache.attend(q, [names[0]]), plain[names[0]].attend(q))


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_fork_shares_full_pages_and_copies_the_open_one(name):
    cache = attend.KVCache(HKV, D, DV, dtype=name, page_size=4, pages=4)
    first = cache.add()
    plain = {first: Plain(dtype_of(name), False)}
    k, v = draw(HKV, 11, D), draw(HKV, 11, DV)
    cache.append(k, v, [first])
    plain[first].append(k, v)
    assert cache.used_pages == 3
    for length, pages in [(11, 4), (8, 4), (5, 5), (0, 5)]:  # an open page has a copy, full ones have none
        new = cache.fork(first, length)
        plain[new] = Plain(dtype_of(name), False)
        plain[new].append(k[:, :length], v[:, :length])
        assert cache.used_pages == pages and [*cache.lengths([new])] == [length]
    q, k, v = draw(5, H, 2, D), draw(5, HKV, 2, D), draw(5, HKV, 2, DV)
    cache.append(k, v)
    for i, (sequence, keys) in enumerate(plain.items()):
        keys.append(k[i], v[i])
        np.testing.assert_array_equal(cache.attend(q[i], [sequence]), keys.attend(q[i]))
    # Whatever goes, the others stay.
    for sequence in [*plain]:
        np.testing.assert_array_equal(cache.attend(q), np.stack([keys.attend(x) for keys, x in zip(plain.values(), q)]))
        cache.free(sequence)
        del plain[sequence]
        q = q[1:]
    assert cache.used_pages == 0 and len(cache) == 0
    assert cache.fork(cache.add()) > new


def test_pages_that_are_freed_are_used_again():
    cache = attend.KVCache(HKV, D, page_size=4, pages=8)
    for _ in range(50):
        sequences = [cache.add() for _ in range(random.integers(1, 5))]
        x = draw(len(sequences), HKV, 7, D)
        cache.append(x, x)
        np.testing.assert_array_equal(cache.attend(x, causal=None), attend.attention(x, x, x))
        cache.free(sequences)
    assert len(cache.k) == 8


@pytest.mark.parametrize("name", ["float32", "bfloat16", "int8"])
def test_pools_begin_where_the_system_s_pages_do(name):
    cache = attend.KVCache(HKV, D, DV, dtype=dtype_of(name), page_size=4, pages=3)
    sequence = cache.add()
    for _ in range(3):  # grows
        x = draw(HKV, 9, D)
        cache.append(x, x[..., :DV], [sequence])
        for pool, features in ((cache.k, D), (cache.v, DV)):
            assert pool.ctypes.data % 4096 == 0 and pool.flags.c_contiguous and pool.flags.writeable
            assert pool.shape == (len(pool), HKV, 4, features) and pool.dtype == cache.dtype


def test_what_is_wrong_changes_nothing():
    cache = attend.KVCache(HKV, D, page_size=4, pages=2)
    a, b = cache.add(), cache.add()
    x = draw(2, HKV, 3, D)
    cache.append(x, x)
    before = [*cache.lengths()], cache.used_pages
    for error, words, call in [
        (attend.AttendError, "k: has 5 features, not k_cache's 16|k_cache: has 16 features, not k's 5",
         lambda: cache.append(x[..., :5], x)),
        (attend.AttendError, "v: has 2 keys, not k's 3", lambda: cache.append(x, x[:, :, :2])),
        (ValueError, "k: has a batch of 2 for 1 sequences", lambda: cache.append(x, x, [a])),
        (ValueError, "q: has a batch of 1 for 2 sequences", lambda: cache.attend(x[0])),
        (ValueError, "starts: 2 numbers for 2 sequences; one more is needed", lambda: cache.append(x[0], x[0], starts=[0, 3])),
        (attend.AttendError, "starts: ends with 2, but must end with 3", lambda: cache.append(x[0], x[0], starts=[0, 1, 2])),
        (attend.AttendError, "starts: falls from 9 to 3", lambda: cache.append(x[0], x[0], starts=[0, 9, 3])),
        (attend.AttendError, "query_starts: ends with 2", lambda: cache.attend(x[0], query_starts=[0, 1, 2])),
        (ValueError, "sequences: there is no 7", lambda: cache.append(x, x, [a, 7])),
        (ValueError, "sequences: one is there twice", lambda: cache.append(x, x, [a, a])),
        (ValueError, "length: is 4, but must be 0 to 3", lambda: cache.fork(b, 4)),
        (TypeError, "multiple values for keyword argument 'pages'", lambda: cache.attend(x, pages=None)),
        (ValueError, "heads, features, page_size and pages must be 1 or more", lambda: attend.KVCache(0, 4)),
        (ValueError, "value_features must be 0 or more", lambda: attend.KVCache(2, 4, -1)),
    ]:
        with pytest.raises(error, match=words):
            call()
        assert ([*cache.lengths()], cache.used_pages) == before
    cache.append(x, x)
    np.testing.assert_array_equal(cache.attend(x[:, :, :1]), attend.attention(x[:, :, :1], *[np.tile(x, (1, 1, 2, 1))] * 2))
