"""Packed sequences and paged caches: each sequence has the bits that it has alone. Rotary and kv_append: the formulas."""

import attend
import numpy as np
import pytest

H, HKV, D, DV, SIZE = 4, 2, 16, 8, 4
QUERIES, KEYS = [3, 0, 1, 9], [5, 7, 0, 30]
QUERY_STARTS, KEY_STARTS = np.cumsum([0, *QUERIES]), np.cumsum([0, *KEYS])
random = np.random.default_rng()


def packed(heads, lengths, features, dtype):
    """[heads, total, features], the view of an array [total, heads, features]."""
    return random.normal(size=(sum(lengths), heads, features)).astype(dtype).swapaxes(0, 1)


def parts(array, starts):
    return [array[..., a:b, :] for a, b in zip(starts, starts[1:])]


def pools(k, v, size=SIZE):
    """(k pool, v pool, table, lengths) of packed keys and values, K and V one array; pages that nobody needs are none."""
    most = max(-(-n // size) for n in KEYS)
    order = random.permutation(len(KEYS) * most + 1)
    both = np.full((len(order), HKV, size, D + DV), np.nan, k.dtype)
    table = random.choice(np.array([-1, -(2**31), 2**31 - 1], np.int32), (len(KEYS), most))
    for b, (keys, values) in enumerate(zip(parts(k, KEY_STARTS), parts(v, KEY_STARTS))):
        for j in range(KEYS[b]):
            table[b, j // size] = page = order[b * most + j // size]
            both[page, :, j % size, :D], both[page, :, j % size, D:] = keys[:, j], values[:, j]
    return both[..., :D], both[..., D:], table, np.array(KEYS)


@pytest.fixture
def operands(dtype):
    return packed(H, QUERIES, D, dtype), packed(HKV, KEYS, D, dtype), packed(HKV, KEYS, DV, dtype)


def alone(q, k, v, **options):
    each = zip(parts(q, QUERY_STARTS), parts(k, KEY_STARTS), parts(v, KEY_STARTS))
    return [attend.attention(*operands, **options) for operands in each]


@pytest.mark.parametrize("causal", [None, "top-left", "bottom-right"])
def test_packed_queries_and_keys(operands, causal):
    out, lse = attend.attention(*operands, query_starts=QUERY_STARTS, key_starts=list(KEY_STARTS), causal=causal,
                                window=(7, None), return_lse=True)
    assert out.shape == (H, sum(QUERIES), DV) and lse.shape == (H, sum(QUERIES))
    wanted = alone(*operands, causal=causal, window=(7, None), return_lse=True)
    np.testing.assert_array_equal(out, np.concatenate([o for o, _ in wanted], axis=1))
    np.testing.assert_array_equal(lse, np.concatenate([s for _, s in wanted], axis=1))


def test_into_an_array_of_items_first(operands):
    wanted = attend.attention(*operands, query_starts=QUERY_STARTS, key_starts=KEY_STARTS)
    out = np.empty((sum(QUERIES), H, DV), wanted.dtype)
    attend.attention(*operands, query_starts=QUERY_STARTS, key_starts=KEY_STARTS, out=out.swapaxes(0, 1))
    np.testing.assert_array_equal(out.swapaxes(0, 1), wanted)


def test_packed_keys_alone(operands):
    _, k, v = operands
    q = random.normal(size=(len(KEYS), H, 1, D)).astype(k.dtype)
    out, lse = attend.attention(q, k, v, key_starts=KEY_STARTS, return_lse=True)
    assert out.shape == (len(KEYS), H, 1, DV) and lse.shape == (len(KEYS), H, 1)
    for b, (keys, values) in enumerate(zip(parts(k, KEY_STARTS), parts(v, KEY_STARTS))):
        np.testing.assert_array_equal(out[b], attend.attention(q[b], keys, values))
    assert attend.attention(q[0], k, v, key_starts=KEY_STARTS).shape == out.shape  # one query for all


def test_masks_count_keys_of_each_sequence(operands):
    mask = random.random((H, sum(QUERIES), max(KEYS))) < 0.7
    out = attend.attention(*operands, query_starts=QUERY_STARTS, key_starts=KEY_STARTS, mask=mask)
    for b, (a, e) in enumerate(zip(QUERY_STARTS, QUERY_STARTS[1:])):
        each = (parts(x, s)[b] for x, s in zip(operands, (QUERY_STARTS, KEY_STARTS, KEY_STARTS)))
        np.testing.assert_array_equal(out[:, a:e], attend.attention(*each, mask=mask[:, a:e, : KEYS[b]]))


@pytest.mark.parametrize("size", [1, 4, 16])
def test_pages(operands, size):
    q, k, v = operands
    k_pool, v_pool, table, lengths = pools(k, v, size)
    out = attend.attention(q, k_pool, v_pool, query_starts=QUERY_STARTS, pages=table, kv_lengths=lengths,
                           causal="bottom-right")
    np.testing.assert_array_equal(out, np.concatenate(alone(*operands, causal="bottom-right"), axis=1))
    # A token for each sequence; the batch is that of the table.
    tokens = random.normal(size=(len(KEYS), H, 1, D)).astype(k.dtype)
    out = attend.attention(tokens, k_pool, v_pool, pages=table, kv_lengths=lengths)
    for b, (keys, values) in enumerate(zip(parts(k, KEY_STARTS), parts(v, KEY_STARTS))):
        np.testing.assert_array_equal(out[b], attend.attention(tokens[b], keys, values))
    one = attend.attention(tokens[3], k_pool, v_pool, pages=table[3], kv_lengths=[30], return_scores="scaled")
    assert one[0].shape == (H, 1, DV) and one[1].shape == (H, 1, table.shape[1] * size)
    np.testing.assert_array_equal(one[0], out[3])


def test_packed_self_attention(dtype):
    x = random.normal(size=(sum(QUERIES), D)).astype(dtype)
    weights = [random.normal(size=(H, 8, D)).astype(dtype) for _ in range(3)]
    w_o = random.normal(size=(H, D, 8)).astype(dtype)
    out, lse = attend.self_attention(x, *weights, w_o=w_o, query_starts=QUERY_STARTS, causal="top-left", return_lse=True)
    assert out.shape == x.shape and lse.shape == (H, len(x))
    for a, b in zip(QUERY_STARTS, QUERY_STARTS[1:]):
        np.testing.assert_array_equal(out[a:b], attend.self_attention(x[a:b], *weights, w_o=w_o, causal="top-left"))


def in_pieces(q, k, v, ends, of_keys=(), state=None, **options):
    """attention() call by call over keys that end at `ends`; of_keys names options whose last axis is the keys'."""
    begin = 0
    for number, end in enumerate(ends, 1):
        piece = {name: options[name][..., begin:end] for name in of_keys}
        last = number == len(ends)
        got = attend.attention(q, k[..., begin:end, :], v[..., begin:end, :], state=state, pauses=not last, key_offset=begin,
                               return_lse=last, **(options | piece))
        assert state is None or last or got is state
        begin, state = end, got
    return got


@pytest.mark.parametrize("ends", [[256, 600], [512, 768, 1024, 1100], [768, 768]])
def test_keys_in_pieces(ends, dtype):
    n = ends[-1]
    q, k, v = (random.normal(size=(2, h, count, d)).astype(dtype) for h, count, d in ((H, 9, D), (HKV, n, D), (HKV, n, DV)))
    options = {"bias": random.normal(size=(H, 9, n)).astype(dtype), "mask": random.random((2, 1, 9, n)) < 0.8}
    for each in ({}, {"causal": "top-left", "query_offset": n - 9, "window": (700, None), "softcap": 3.0,
                      "sinks": np.ones(H, dtype), "alibi_slopes": np.full(H, 0.01, dtype), **options}):
        wanted = attend.attention(q, k, v, return_lse=True, **each)
        got = in_pieces(q, k, v, ends, of_keys=each.keys() & options.keys(), **each)
        for a, b in zip(got, wanted):
            np.testing.assert_array_equal(a, b)


def test_the_state_of_a_piece():
    q, k, v = packed(H, QUERIES, D, np.float16), *(packed(HKV, [512], d, np.float16) for d in (D, DV))
    state = attend.attention(q, k[:, :256], v[:, :256], pauses=True)
    assert state.shape == (H, sum(QUERIES), 2 * (DV + 2)) and state.dtype == np.float32
    # It may go on in several ways; each only reads it.
    kept = state.copy()
    for rest in (slice(256, 512), slice(300, 400), slice(0, 0)):
        keys, values = (np.concatenate([x[:, :256], x[:, rest]], axis=1) for x in (k, v))
        out, scores = attend.attention(q, k[:, rest], v[:, rest], state=state, key_offset=256, return_scores="scaled")
        np.testing.assert_array_equal(out, attend.attention(q, keys, values))
        assert scores.shape == (H, sum(QUERIES), len(range(*rest.indices(512))))
    np.testing.assert_array_equal(state, kept)
    scores = attend.attention(q, k[:, :256], v[:, :256], pauses=True, return_scores="scaled")[1]
    np.testing.assert_array_equal(scores, attend.attention(q, k[:, :256], v[:, :256], return_scores="scaled")[1])


def test_a_shared_prefix_is_one_piece_for_all_sequences(operands):
    q, k, v = operands
    prefix_k, prefix_v = (packed(HKV, [256], d, k.dtype) for d in (D, DV))
    state = attend.attention(q, prefix_k, prefix_v, pauses=True)
    k_pool, v_pool, table, lengths = pools(k, v)
    own = {"key_starts": KEY_STARTS}, {"pages": table, "kv_lengths": lengths}
    for (keys, values), options in zip(((k, v), (k_pool, v_pool)), own):
        out = attend.attention(q, keys, values, query_starts=QUERY_STARTS, state=state, key_offset=256, **options)
        for b, (queries, *each) in enumerate(zip(*map(parts, operands, (QUERY_STARTS, KEY_STARTS, KEY_STARTS)))):
            whole = (np.concatenate(both, axis=1) for both in zip((prefix_k, prefix_v), each))
            np.testing.assert_array_equal(parts(out, QUERY_STARTS)[b], attend.attention(queries, *whole))


# ------------------------------------------------------------------------------------------------ rotary and append --

POSITIONS, PAIRS = 50, D // 2
ANGLES = np.outer(np.arange(POSITIONS), 10000.0 ** (-np.arange(PAIRS) / PAIRS))
COS, SIN = np.cos(ANGLES).astype(np.float32), np.sin(ANGLES).astype(np.float32)


def turned(x, positions, interleaved=False, sign=1):
    """The formula, for all features, in float64."""
    x, cos, sin = x.astype(np.float64), np.cos(ANGLES)[positions], sign * np.sin(ANGLES)[positions]
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :PAIRS], x[..., PAIRS:])
    a, b = first * cos - second * sin, second * cos + first * sin
    return np.stack([a, b], axis=-1).reshape(x.shape) if interleaved else np.concatenate([a, b], axis=-1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    x = random.standard_normal((2, H, 9, D), np.float32)
    got = attend.rotary(x, COS, SIN, interleaved=interleaved)
    np.testing.assert_allclose(got, turned(x, np.arange(9), interleaved), atol=1e-6)
    back = attend.rotary(got, COS, SIN, interleaved=interleaved, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-6)
    offsets = attend.rotary(x, COS, SIN, interleaved=interleaved, offsets=[0, 20])
    np.testing.assert_array_equal(offsets[0], got[0])
    np.testing.assert_allclose(offsets[1], turned(x[1], np.arange(20, 29), interleaved), atol=1e-6)
    positions = np.stack([np.arange(9), np.arange(20, 29)])
    np.testing.assert_array_equal(attend.rotary(x, COS, SIN, interleaved=interleaved, positions=positions), offsets)
    for_all = attend.rotary(x, COS, SIN, interleaved=interleaved, positions=np.arange(9))
    np.testing.assert_array_equal(for_all, got)
    assert attend.rotary(x, COS, SIN, interleaved=interleaved, out=x) is x
    np.testing.assert_array_equal(x, got)


def test_rotary_of_a_part_of_the_features_and_packed():
    x = packed(H, QUERIES, D, np.float32)
    cos, sin = np.ascontiguousarray(COS[:, :3]), np.ascontiguousarray(SIN[:, :3])
    got = attend.rotary(x, cos, sin, rotary_dims=6, starts=QUERY_STARTS, offsets=[1, 2, 3, 4])
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])
    for b, part in enumerate(parts(x, QUERY_STARTS)):
        wanted = attend.rotary(part, cos, sin, rotary_dims=6, positions=np.arange(b + 1, b + 1 + QUERIES[b]))
        np.testing.assert_array_equal(parts(got, QUERY_STARTS)[b], wanted)


def test_append_to_one_array_for_each_batch():
    k, v = random.standard_normal((2, HKV, 3, D), np.float32), random.standard_normal((2, HKV, 3, DV), np.float32)
    k_cache, v_cache = np.zeros((2, HKV, 10, D), np.float16), np.zeros((2, HKV, 10, DV), np.float32)
    assert attend.kv_append(k, v, k_cache, v_cache, offsets=[0, 7], cos=COS, sin=SIN) is None
    turned_k = attend.rotary(k, COS, SIN, offsets=[0, 7], out=np.empty(k.shape, np.float16))
    np.testing.assert_array_equal(k_cache[0, :, :3], turned_k[0])
    np.testing.assert_array_equal(k_cache[1, :, 7:], turned_k[1])
    np.testing.assert_array_equal(v_cache[0, :, :3], v[0])
    assert not k_cache[0, :, 3:].any() and not v_cache[1, :, :7].any()


def test_append_to_slots():
    k = random.standard_normal((1, HKV, 4, D), np.float32)
    pool = np.zeros((3, HKV, SIZE, D), np.float32)
    attend.kv_append(k, None, pool, None, slots=[[5, -1, 0, 11]])
    np.testing.assert_array_equal(pool[1, :, 1], k[0, :, 0])
    np.testing.assert_array_equal(pool[0, :, 0], k[0, :, 2])
    np.testing.assert_array_equal(pool[2, :, 3], k[0, :, 3])
    assert np.count_nonzero(pool.any(axis=-1)) == 3 * HKV


def test_append_computes_scales_as_convert():
    k, v = (random.standard_normal((1, HKV, 3, n), np.float32) for n in (D, DV))
    k_cache, v_cache = np.zeros((1, HKV, 5, D), np.int8), np.zeros((1, HKV, 5, DV), np.int8)
    k_scale, v_scale = np.zeros((2, 1, HKV, 5, 1), np.float32)
    attend.kv_append(k, v, k_cache, v_cache, offsets=[2], k_scale=k_scale, v_scale=v_scale, compute_k_scale=True,
                     compute_v_scale=True)
    for x, cache, scale in ((k, k_cache, k_scale), (v, v_cache, v_scale)):
        wanted, wanted_scale = attend.convert(x, np.int8, scale_axis=-1)
        np.testing.assert_array_equal(cache[:, :, 2:], wanted)
        np.testing.assert_array_equal(scale[:, :, 2:], wanted_scale)
        assert not cache[:, :, :2].any() and not scale[:, :, :2].any()


# --------------------------------------------------------------------------------------------------- what is refused --

Q, K = np.ones((1, 6, 4), np.float32), np.ones((1, 7, 4), np.float32)
PIECE, STATE = np.ones((1, 256, 4), np.float32), np.zeros((1, 6, 12), np.float32)
POOL, TABLE = np.ones((3, 1, 4, 4), np.float32), np.zeros((1, 2), np.int32)
HALF = np.ones((9, 2), np.float32)


@pytest.mark.parametrize(("words", "call"), [
    ("query_starts: ends with 5, but must end with 6, the number of packed items.",
     lambda: attend.attention(Q, K, K, query_starts=[0, 5], key_starts=[0, 7])),
    ("query_starts: begins with 1, but must begin with 0.",
     lambda: attend.attention(Q, K, K, query_starts=[1, 6], key_starts=[0, 7])),
    ("key_starts: falls from 8 to 7 at sequence 1, but must never decrease.",
     lambda: attend.attention(Q, K, K, query_starts=[0, 5, 6], key_starts=[0, 8, 7])),
    ("kv_lengths: is 5 for batch 0, but must be 0 to 4.",
     lambda: attend.attention(Q, K, K, query_starts=[0, 5, 6], key_starts=[0, 4, 7], kv_lengths=[5, 1])),
    ("q: has 2 batches, not 1, but its sequences are packed: q [2, 1, 6, 4], k [1, 7, 4], v [1, 7, 4].",
     lambda: attend.attention(np.ones((2, 1, 6, 4), np.float32), K, K, query_starts=[0, 6], key_starts=[0, 7])),
    ("return_scores: is given, but sequences are packed.",
     lambda: attend.attention(Q, K, K, query_starts=[0, 6], key_starts=[0, 7], return_scores="scaled")),
    ("kv_lengths: is null, but required where keys lie in pages.", lambda: attend.attention(Q, POOL, POOL, pages=TABLE)),
    ("key_starts: is given, but keys in pages are not packed.",
     lambda: attend.attention(Q, POOL, POOL, pages=TABLE, kv_lengths=[3], key_starts=[0, 7])),
    ("pages: has 3 for page 1 of batch 0, but the pool has 3 pages, counted from 0.",
     lambda: attend.attention(Q, POOL, POOL, pages=np.array([[2, 3]], np.int32), kv_lengths=[5])),
    ("pages: is float32; int32 is needed.",
     lambda: attend.attention(Q, POOL, POOL, pages=memoryview(TABLE.astype("f4")), kv_lengths=[5])),
    ("key_offset: is 7, but must be a multiple of 256, 0 or more.", lambda: attend.attention(Q, K, K, key_offset=7)),
    ("causal: has ATTEND_CAUSAL_BOTTOM_RIGHT, but where the keys end is not known to one of several calls.",
     lambda: attend.attention(Q, PIECE, PIECE, pauses=True, causal="bottom-right")),
    ("kv_first: is given, but one of several calls counts keys from key_offset.",
     lambda: attend.attention(Q, K, K, state=STATE, kv_first=[1])),
    ("return_scores: is given for probabilities, which one of several calls over the keys does not know.",
     lambda: attend.attention(Q, K, K, state=STATE, return_scores="probabilities")),
    ("state: has 9 columns, not 12: q [1, 6, 4], k [1, 7, 4], v [1, 7, 4], state [1, 6, 9].",
     lambda: attend.attention(Q, K, K, state=STATE[..., :9])),
    ("state: is float64; float32 is needed beside the other operands.",
     lambda: attend.attention(Q, PIECE, PIECE, state=STATE.astype("f8"), pauses=True)),
    ("query_starts: ends with 5, but must end with 6, the number of packed items.",
     lambda: attend.self_attention(Q[0], *[np.eye(4, dtype="f4")] * 3, query_starts=[0, 5])),
    ("rotary_dims: is 3 for 4 features, but must be even and at most as many, 0 for all of them.",
     lambda: attend.rotary(Q, HALF, HALF, rotary_dims=3)),
    ("cos: has 2 columns, not 1, one for each pair of rotated features: x [1, 6, 4], cos [9, 2], sin [9, 2].",
     lambda: attend.rotary(Q, HALF, HALF, rotary_dims=2)),
    ("positions: is 9 for item 5, but cos has 9 positions, counted from 0.",
     lambda: attend.rotary(Q, HALF, HALF, positions=[0, 1, 2, 3, 4, 9])),
    ("offsets: is given beside positions, which say all of them.",
     lambda: attend.rotary(Q, HALF, HALF, positions=[0] * 6, offsets=[0])),
    ("out: overlaps x's memory, but needs its own.",
     lambda: (lambda x: attend.rotary(x[:, :6], HALF, HALF, out=x[:, 1:]))(K.copy())),
    ("k_cache: has 3 features, not k's 4: k [1, 7, 4], k_cache [1, 9, 3].",
     lambda: attend.kv_append(K, None, np.ones((1, 9, 3), np.float32), None)),
    ("offsets: is 3 for batch 0 of 7 new keys, but a sequence has room for 9.",
     lambda: attend.kv_append(K, None, np.ones((1, 9, 4), np.float32), None, offsets=[3])),
    ("positions: is 9 for item 5, but cos has 9 positions, counted from 0.",
     lambda: attend.kv_append(Q, None, np.ones((1, 9, 4), np.float32), None, positions=[0, 1, 2, 3, 4, 9], cos=HALF, sin=HALF)),
    ("sin: is null, but cos is given.", lambda: attend.kv_append(Q, None, np.ones((1, 9, 4), np.float32), None, cos=HALF)),
    ("slots: has slot 2 twice, for two keys.",
     lambda: attend.kv_append(Q, None, POOL.copy(), None, slots=[0, 1, 2, 3, 2, 5])),
    ("compute_k_scale: wants a scale computed, but k_cache's type is float32, not int8 or float8_e4m3.",
     lambda: attend.kv_append(K, K, *np.ones((2, 1, 9, 4), np.float32), compute_k_scale=True, compute_v_scale=True)),
    ("compute_v_scale: wants a scale computed, but v_cache's type is float32, not int8 or float8_e4m3.",
     lambda: attend.kv_append(K, K, np.ones((1, 9, 4), np.int8), np.ones((1, 9, 4), np.float32), compute_k_scale=True,
                              k_scale=np.ones((1, 9, 1), np.float32), compute_v_scale=True)),
    ("k_scale: is null, but required where the cache's type is int8.",
     lambda: attend.kv_append(K, None, np.ones((1, 9, 4), np.int8), None)),
])
def test_what_attend_rejects(words, call):
    with pytest.raises(attend.AttendError) as caught:
        call()
    assert str(caught.value) == words
    assert caught.value.argument == words.split(":")[0]


@pytest.mark.parametrize(("error", "words", "call"), [
    (ValueError, "query_starts: 1 numbers; starts of sequences and the end of the last are at least 2",
     lambda: attend.attention(Q, K, K, query_starts=[0])),
    (ValueError, "key_starts: 2 numbers for 2 sequences; one more is needed",
     lambda: attend.attention(Q, K, K, query_starts=[0, 5, 6], key_starts=[0, 7])),
    (ValueError, "kv_lengths: 1 numbers for a batch of 2",
     lambda: attend.attention(Q, K, K, query_starts=[0, 5, 6], key_starts=[0, 1, 7], kv_lengths=[1])),
    (TypeError, "query_starts: integers are needed, where each sequence begins and the last ends, not 6",
     lambda: attend.attention(Q, K, K, query_starts=6)),
    (TypeError, "pages: elements must be int32, not int64",
     lambda: attend.attention(Q, POOL, POOL, pages=TABLE.astype("i8"), kv_lengths=[5])),
    (ValueError, "out: only the last piece has it; with pauses the state is returned",
     lambda: attend.attention(Q, PIECE, PIECE, pauses=True, out=Q.copy())),
    (ValueError, "return_lse: only the last piece has it; with pauses the state is returned",
     lambda: attend.attention(Q, PIECE, PIECE, pauses=True, return_lse=True)),
    (ValueError, "state: is read-only",
     lambda: attend.attention(Q, PIECE, PIECE, pauses=True, state=np.broadcast_to(STATE, STATE.shape))),
    (TypeError, r"cu_seqlens_q: attention\(\) has no such argument; query_starts=",
     lambda: attend.attention(Q, K, K, cu_seqlens_q=[0, 6])),
    (TypeError, r"block_table: attention\(\) has no such argument; pages=",
     lambda: attend.attention(Q, POOL, POOL, block_table=TABLE)),
    (TypeError, r"key_starts: self_attention\(\) has no such argument", lambda: attend.self_attention(Q, Q, Q, Q, key_starts=[0])),
    (ValueError, "positions: 5 numbers for 6 items", lambda: attend.rotary(Q, HALF, HALF, positions=[0] * 5)),
    (ValueError, "offsets: 2 numbers for a batch of 1", lambda: attend.rotary(Q, HALF, HALF, offsets=[0, 1])),
    (TypeError, "cos: an array is needed, not None", lambda: attend.rotary(Q, None, HALF)),
    (TypeError, "slots: integers are needed, one per item, not 'a'", lambda: attend.kv_append(Q, None, POOL, None, slots="a")),
    (ValueError, "interleaved: is given without cos and sin",
     lambda: attend.kv_append(Q, None, POOL, None, slots=[0] * 6, interleaved=True)),
    (ValueError, "compute_v_scale: is given without v", lambda: attend.kv_append(Q, None, POOL, None, compute_v_scale=True)),
    (ValueError, "k_cache: is read-only",
     lambda: attend.kv_append(Q, None, np.broadcast_to(POOL, POOL.shape), None, slots=[0] * 6)),
    (TypeError, r"slot_mapping: kv_append\(\) has no such argument; slots=",
     lambda: attend.kv_append(Q, None, POOL, None, slot_mapping=[0])),
])
def test_what_is_no_argument(error, words, call):
    with pytest.raises(error, match=f"^{words}"):
        call()
