// Packed sequences and paged caches: each sequence has the bits that it has alone. Rotary and kvAppend.
import assert from 'node:assert/strict';
import test from 'node:test';
import * as attend from '../index.mjs';
import { normals } from './common.mjs';

const [d, heads, kv, size] = [8, 4, 2, 4];
const queryStarts = [0, 3, 3, 8], keyStarts = [0, 5, 5, 17], kvLengths = [5, 0, 12];
// What no key needs is no page.
const pages = { data: Int32Array.of(4, 1, -1, -7, -1, 9, 0, 3, 2), shape: [3, 3] };
const ranges = (starts) => starts.slice(1).map((end, b) => [starts[b], end]);

// Items a to b of an array [total, heads, d], as [heads, items, d].
const part = (data, h, a, b) => attend.view(data, [h, b - a, d], [d, h * d, 1], a * h * d);
const draw = (count, seed = count) => Float32Array.from(normals(count, seed));

for (const Type of [Float32Array, Float64Array]) {
  test(`packed sequences and pages of ${Type.name}`, async () => {
    const [q, k, v] = [[8 * heads, 1], [17 * kv, 2], [17 * kv, 3]].map(([n, seed]) => Type.from(normals(n * d, seed)));
    const [allQ, allK, allV] = [part(q, heads, 0, 8), part(k, kv, 0, 17), part(v, kv, 0, 17)];
    const want = new Type(q.length);
    ranges(queryStarts).forEach(([a, b], i) => {
      const [from, to] = ranges(keyStarts)[i];
      attend.attention(part(q, heads, a, b), part(k, kv, from, to), part(v, kv, from, to),
        { causal: 'bottom-right', out: part(want, heads, a, b) });
    });
    const packed = async (k, v, more) => {
      const options = { queryStarts, causal: 'bottom-right', ...more }, out = part(new Type(q.length), heads, 0, 8);
      assert.deepEqual(attend.attention(allQ, k, v, { ...options, out }).data, want);
      const fresh = await attend.promises.attention(allQ, k, v, options);
      assert.deepEqual(fresh.shape, [heads, 8, d]);
      for (let h = 0; h < heads; h++) for (let i = 0; i < 8; i++)
        assert.deepEqual(fresh.data.subarray((h * 8 + i) * d, (h * 8 + i + 1) * d), want.subarray((i * heads + h) * d, (i * heads + h + 1) * d));
    };
    await packed(allK, allV, { keyStarts });
    await packed(allK, allV, { keyStarts, kvLengths });

    const pool = () => ({ data: new Type(5 * kv * size * d).fill(NaN), shape: [5, kv, size, d] });
    const [kPool, vPool, later] = [pool(), pool(), pool()];
    assert.equal(attend.kvAppend(allK, allV, kPool, vPool, { starts: keyStarts, pages }), undefined);
    await attend.promises.kvAppend(allK, null, later, null, { starts: keyStarts, pages });
    assert.deepEqual(later, kPool);
    await packed(kPool, vPool, { pages, kvLengths });

    // A query for each sequence: the batch is that of the table, or of the sequences of packed keys.
    const one = attend.view(Type.from(normals(3 * heads * d, 4)), [3, heads, 1, d]);
    const paged = attend.attention(one, kPool, vPool, { pages, kvLengths });
    assert.deepEqual(attend.attention(one, allK, allV, { keyStarts }), paged);
    const same = { data: one.data, shape: [heads, 1, d] };
    const all = attend.attention(same, kPool, vPool, { pages, kvLengths });
    assert.deepEqual(all.shape, [3, heads, 1, d]);
    assert.deepEqual(all.data.subarray(0, heads * d), paged.data.subarray(0, heads * d));
  });
}

test('keys in pieces', async () => {
  const n = 600, [q, k, v] = [[8 * heads, 5], [n * kv, 6], [n * kv, 7]].map(([m, seed]) => draw(m * d, seed));
  const options = { causal: 'top-left', queryOffset: 590, window: [400, 0] };
  const run = (a, b, more, from = attend) => from.attention(part(q, heads, 0, 8), part(k, kv, a, b), part(v, kv, a, b), { ...options, ...more });
  const whole = run(0, n);
  const state = run(0, 256, { pauses: true });
  assert.deepEqual(state.shape, [heads, 8, 2 * (d + 2)]);
  const again = await run(256, 512, { pauses: true, state, keyOffset: 256 }, attend.promises);
  assert.equal(again.data, state.data);
  const kept = state.data.slice();
  assert.deepEqual(run(512, n, { state, keyOffset: 512 }), whole);
  assert.deepEqual(await run(512, n, { state, keyOffset: 512 }, attend.promises), whole);
  assert.deepEqual(state.data, kept);
});

test('packed self-attention', () => {
  const x = draw(8 * d), [wq, wk, wv] = [1, 2, 3].map((seed) => ({ data: draw(d * d, seed), shape: [d, d] }));
  const run = (a, b, more) => attend.selfAttention({ data: x, shape: [b - a, d], offset: a * d }, { wq, wk, wv }, { causal: 'top-left', ...more });
  const packed = run(0, 8, { queryStarts });
  for (const [a, b] of ranges(queryStarts)) assert.deepEqual(packed.data.subarray(a * d, b * d), run(a, b).data);
});

const angles = Array.from({ length: 20 * d / 2 }, (_, i) => Math.floor(i / (d / 2)) * 10 ** -(i % (d / 2)));
const [cos, sin] = [Math.cos, Math.sin].map((f) => ({ data: Float32Array.from(angles, f), shape: [20, d / 2] }));

test('rotary', () => {
  const x = { data: draw(6 * d), shape: [2, 1, 3, d] }, positions = [0, 1, 2, 7, 8, 9];
  for (const interleaved of [false, true]) {
    const y = attend.rotary(x, cos, sin, { interleaved, offsets: [0, 7] });
    positions.forEach((position, token) => {
      for (let i = 0; i < d / 2; i++) {
        const [a, b] = (interleaved ? [2 * i, 2 * i + 1] : [i, i + d / 2]).map((f) => token * d + f);
        const [c, s] = [cos, sin].map(({ data }) => data[position * d / 2 + i]);
        assert.ok(Math.abs(y.data[a] - (x.data[a] * c - x.data[b] * s)) < 1e-6);
        assert.ok(Math.abs(y.data[b] - (x.data[b] * c + x.data[a] * s)) < 1e-6);
      }
    });
    assert.deepEqual(attend.rotary(x, cos, sin, { interleaved, positions }), y);
    attend.rotary(y, cos, sin, { interleaved, positions, inverse: true, out: y });
    y.data.forEach((v, i) => assert.ok(Math.abs(v - x.data[i]) < 1e-6));
  }
});

test('appended with scales and rotation', () => {
  const k = { data: draw(3 * d), shape: [3, d] }, positions = [10, 0, 12];
  const cache = { data: new Int8Array(6 * d), shape: [6, d] }, kScale = { data: new Float32Array(6), shape: [6, 1] };
  attend.kvAppend(k, null, cache, null, { slots: [4, -1, 0], kScale, computeKScale: true, cos, sin, positions });
  const scale = { data: new Float32Array(3), shape: [3, 1] };
  const { data } = attend.convert(attend.rotary(k, cos, sin, { positions }), { dtype: 'int8', scale, computeScale: true });
  assert.deepEqual(cache.data.subarray(4 * d, 5 * d), data.subarray(0, d));
  assert.deepEqual(cache.data.subarray(0, d), data.subarray(2 * d));
  assert.deepEqual(kScale.data, Float32Array.of(scale.data[2], 0, 0, 0, scale.data[0], 0));
});

test('messages of serving', async () => {
  const x = { data: new Float32Array(6 * d), shape: [6, d] }, half = { data: new Float32Array(6 * d / 2), shape: [6, d / 2] };
  const cache = { data: new Float32Array(9 * d), shape: [9, d] }, kScale = { data: new Float32Array(9), shape: [9, 1] };
  const page = (n) => ({ data: Int32Array.of(n), shape: [1, 1] });
  const says = async (message, call) => {
    const fits = (e) => e instanceof attend.AttendError && e.message === message && message.startsWith(`${e.argument}: `) || assert.equal(e.message, message);
    assert.throws(() => call(attend), fits);
    await assert.rejects(() => call(attend.promises), fits);
  };
  const attention = (message, options) => says(message, (a) => a.attention(x, x, x, options));
  const rotary = (message, options) => says(message, (a) => a.rotary(x, half, half, options));
  const appends = (message, options) => says(message, (a) => a.kvAppend(x, null, cache, null, options));
  await attention('queryStarts: ends with 5, but must end with 6, the number of packed items.', { queryStarts: [0, 5] });
  await attention('queryStarts: has 1 numbers, but sequences have a beginning and an end.', { queryStarts: [0] });
  await attention('keyStarts: has 2 numbers for 2 sequences and their end.', { queryStarts: [0, 2, 6], keyStarts: [0, 6] });
  await attention('keyStarts: falls from 4 to 3 at sequence 1, but must never decrease.', { keyStarts: [0, 4, 3] });
  await attention('keyStarts: has -9223372036854775809, but must have integers of 64 bits.', { keyStarts: [-(2n ** 63n) - 1n] });
  await attention('kvLengths: has 1 numbers for 2 batches.', { queryStarts: [0, 2, 6], keyStarts: [0, 4, 6], kvLengths: [4] });
  await attention('kvLengths: is null, but required where keys lie in pages.', { pages: page(0) });
  await attention('pages: has 3 for page 0 of batch 0, but the pool has 1 pages, counted from 0.', { pages: page(3), kvLengths: [6] });
  await attention('pages: is float32; int32 is needed.', { pages: { data: new Float32Array(1), shape: [1, 1] }, kvLengths: [6] });
  const piece = { data: new Float32Array(256 * d), shape: [256, d] }, state = { data: new Float32Array(6 * 20), shape: [6, 20] };
  await attention('keyOffset: is 255, but must be a multiple of 256, 0 or more.', { keyOffset: 255 });
  await attention("causal: is 'bottom-right', but where the keys end is not known to one of several calls.", { state, causal: 'bottom-right' });
  await attention('lse: comes with the last piece alone; with pauses the state is the result.', { pauses: true, lse: new Float32Array(6) });
  await says('out: comes with the last piece alone; with pauses the state is the result.', (a) => a.attention(x, piece, piece, { pauses: true, out: x }));
  await says('keyStarts: is unknown: did you mean queryStarts?', (a) => a.selfAttention(x, { wq: x, wk: x, wv: x }, { keyStarts: [0, 6] }));
  await rotary('positions: is 6 for item 5, but cos has 6 positions, counted from 0.', { positions: [0, 1, 2, 3, 4, 6] });
  await rotary('positions: has 1 numbers for 6 items.', { positions: [0] });
  await rotary('rotaryDims: is 3 for 8 features, but must be even and at most as many, 0 for all of them.', { rotaryDims: 3 });
  await rotary('cos: has 4 columns, not 2, one for each pair of rotated features.', { rotaryDims: 4 });
  await appends('slots: has slot 2 twice, for two keys.', { slots: [0, 1, 2, 3, 2, 5] });
  await appends('slots: has 1 numbers for 6 items.', { slots: [0] });
  await appends('offsets: is 4 for batch 0 of 6 new keys, but a sequence has room for 9.', { offsets: [4] });
  await appends('positions: is 6 for item 5, but cos has 6 positions, counted from 0.', { positions: [0, 1, 2, 3, 4, 6], cos: half, sin: half });
  await appends('interleaved: is set without cos and sin.', { interleaved: true });
  await appends('sin: is null, but cos is given.', { cos: half });
  await appends("computeKScale: wants a scale computed, but kCache's type is float32, not int8 or float8_e4m3.", { kScale, computeKScale: true });
  await appends('computeVScale: is set without v.', { computeVScale: true });
  await says("vCache: overlaps kCache's memory, but needs its own.", (a) => a.kvAppend(x, x, cache, cache));
  await says('kCache: is missing, but required.', (a) => a.kvAppend(x, x));
  assert.ok(cache.data.every((v) => v === 0), 'nothing is written when a call is refused');
});
