import assert from 'node:assert/strict';
import test from 'node:test';
import * as attend from '../index.mjs';
import { formula, normals, notebook, transposed } from './common.mjs';

function near(got, want, tolerance, what) {
  assert.equal(got.length, want.length);
  got.forEach((x, i) => assert.ok(Math.abs(x - want[i]) <= tolerance * (1 + Math.abs(want[i])), `${what} ${i}: ${x} instead of ${want[i]}`));
}

for (const [Type, tolerance] of [[Float32Array, 1e-5], [Float64Array, 1e-12]]) {
  test(`attention of ${Type.name}`, async () => {
    const p = { batch: 2, heads: 4, kv: 2, queries: 5, keys: 37, d: 9 };
    const { batch, heads, kv, queries, keys, d } = p;
    p.q = normals(batch * heads * queries * d, 1);
    p.k = normals(batch * kv * keys * d, 2);
    p.v = normals(batch * kv * keys * d, 3);
    // Queries interleaved as [batch, N, heads, D], values with negative strides.
    const interleaved = new Type(p.q.length);
    p.q.forEach((x, at) => {
      const f = at % d, i = Math.floor(at / d) % queries, h = Math.floor(at / d / queries) % heads, b = Math.floor(at / d / queries / heads);
      interleaved[((b * queries + i) * heads + h) * d + f] = x;
    });
    const q = attend.view(interleaved, [batch, heads, queries, d], [queries * heads * d, d, heads * d, 1]);
    const k = attend.view(Type.from(p.k), [batch, kv, keys, d]);
    const v = attend.view(Type.from(p.v).reverse(), [batch, kv, keys, d], [-kv * keys * d, -keys * d, -d, -1], p.v.length - 1);
    const scale = 1 / Math.sqrt(d), none = () => 0, visible = (yes) => (yes ? 0 : -Infinity);
    const mask = Uint8Array.from(normals(queries * keys, 4), (x) => (x < 0.6 ? 1 : 0));
    const bias = Type.from(normals(heads * queries * keys, 5));
    const slopes = Type.of(0.5, 0.25, 0.125, 0.0625), lengths = [30, 37], firsts = [3, 20];
    const cases = {
      plain: [{}, scale, none],
      'mask, bias, scale': [{ mask: { data: mask, shape: [1, 1, queries, keys] }, bias: { data: bias, shape: [heads, queries, keys] }, scale: 0.5, threads: 1 },
        0.5, (j, i, h) => (mask[i * keys + j] ? bias[(h * queries + i) * keys + j] : -Infinity)],
      causal: [{ causal: 'bottom-right' }, scale, (j, i) => visible(j <= i + keys - queries)],
      window: [{ causal: 'top-left', queryOffset: 7, window: [4, 0] }, scale, (j, i) => visible(j <= i + 7 && j >= i + 3)],
      lengths: [{ kvLengths: lengths }, scale, (j, i, h, b) => visible(j < lengths[b])],
      'first keys': [{ kvFirst: firsts, kvLengths: lengths }, scale, (j, i, h, b) => visible(j >= firsts[b] && j < lengths[b])],
      alibi: [{ alibiSlopes: slopes, queryOffset: 32, softcap: 1e9 }, scale, (j, i, h) => -slopes[h] * Math.abs(i + 32 - j)],
    };
    for (const [name, [options, factor, added]] of Object.entries(cases)) {
      const want = formula(p, factor, added);
      near(attend.attention(q, k, v, options).data, want, tolerance, name);
      const out = { data: new Type(want.length).fill(NaN), shape: [batch, heads, queries, d] };
      await attend.promises.attention(q, k, v, { ...options, out });
      near(out.data, want, tolerance, `${name}, later`);
    }
    const lse = new Type(batch * heads * queries), scores = new Type(lse.length * keys);
    const whole = attend.attention(q, k, v, { lse: { data: lse, shape: [batch, heads, queries] },
      scores: { data: scores, shape: [batch, heads, queries, keys] }, scoresStage: 'probabilities' });
    for (let r = 0; r < lse.length; r++) assert.ok(Math.abs(scores.subarray(r * keys, (r + 1) * keys).reduce((x, y) => x + y) - 1) < 1e-5);
    const part = (from, to) => {
      const cut = (x) => ({ ...x, shape: [batch, kv, to - from, d], offset: x.offset + from * x.strides[2] });
      const l = { data: new Type(lse.length), shape: [batch, heads, queries] };
      return [attend.attention(q, cut(k), cut(v), { lse: l }), l];
    };
    const [[a, la], [b, lb]] = [part(0, 20), part(20, keys)];
    near(attend.merge(a, la, b, lb).data, whole.data, tolerance, 'merge');
    near(la.data, lse, tolerance, 'merged lse');
  });

  test(`matmul and softmax of ${Type.name}`, () => {
    const a = Type.from(normals(7 * 38, 1)), b = Type.from(normals(19 * 5, 2)), bias = Type.from(normals(5, 3));
    // Every other column of an array.
    const c = attend.matmul({ data: a, shape: [7, 19], strides: [38, 2] }, { data: b, shape: [19, 5] }, { alpha: 0.5, bias });
    for (let i = 0; i < 7; i++) for (let j = 0; j < 5; j++) {
      let want = bias[j];
      for (let l = 0; l < 19; l++) want += 0.5 * a[i * 38 + 2 * l] * b[l * 5 + j];
      assert.ok(Math.abs(c.data[i * 5 + j] - want) < 1e-4);
    }
    for (const axis of [0, 1, -1]) {
      const mask = Uint8Array.from({ length: 35 }, (_, i) => (i === 11 ? 0 : 1)), [step, other] = axis === 0 ? [5, 1] : [1, 5];
      const length = axis === 0 ? 7 : 5, lse = new Type(35 / length);
      const y = attend.softmax(c, { axis, scale: 2, mask: { data: mask, shape: [7, 5] }, lse });
      const logs = attend.softmax(c, { axis, scale: 2, mask: { data: mask, shape: [7, 5] }, log: true });
      for (let j = 0; j < 35 / length; j++) {
        const at = (i) => j * other + i * step;
        let sum = 0;
        for (let i = 0; i < length; i++) if (mask[at(i)]) sum += Math.exp(2 * c.data[at(i)]);
        assert.ok(Math.abs(lse[j] - Math.log(sum)) < 1e-5);
        for (let i = 0; i < length; i++) {
          const want = mask[at(i)] ? Math.exp(2 * c.data[at(i)]) / sum : 0;
          assert.ok(Math.abs(y.data[at(i)] - want) < 1e-6);
          if (want) assert.ok(Math.abs(logs.data[at(i)] - Math.log(want)) < 1e-4);
        }
      }
    }
    const x = attend.view(Type.of(1, 1, 1, 1));
    assert.deepEqual([...attend.softmax(x, { out: x }).data], [0.25, 0.25, 0.25, 0.25], 'in place');
  });
}

test('the notebook', () => {
  const m = notebook();
  const weights = { wq: m.omega_q, wk: m.omega_k, wv: m.omega_v, bq: m.beta_q.data, bk: m.beta_k.data, bv: m.beta_v.data };
  const unscaled = attend.selfAttention(transposed(m.x), weights, { scale: 1 });
  assert.deepEqual(unscaled.shape, [3, 4]);
  for (let i = 0; i < 4; i++) for (let j = 0; j < 3; j++) assert.ok(Math.abs(unscaled.data[j * 4 + i] - m.x_prime.data[i * 3 + j]) < 5e-9);
  // The scaled version, which the notebook computes and throws away.
  const scaled = attend.selfAttention(transposed(m.x), weights).data;
  [0.97411966, -0.23738409, -0.72333202, -0.34413007].forEach((x, i) => assert.ok(Math.abs(scaled[i] - x) < 5e-9));
});

test('self-attention of a batch with heads and an output projection', () => {
  const [batch, n, d, heads, dh] = [2, 6, 8, 2, 4];
  const x = { data: normals(batch * n * d, 1), shape: [batch, n, d] };
  const w = (seed) => ({ data: normals(heads * dh * d, seed), shape: [heads, dh, d] });
  const weights = { wq: w(2), wk: w(3), wv: w(4), wo: { data: normals(heads * d * dh, 5), shape: [heads, d, dh] }, bo: normals(d, 6) };
  const got = attend.selfAttention(x, weights, { causal: 'top-left', kvLengths: [6, 5], kvFirst: [0, 1] });
  assert.deepEqual(got.shape, [batch, n, d]);
  // Step by step: project by matmul, attend, project back.
  const project = (name) => {
    const out = new Float64Array(batch * heads * n * dh);
    for (let b = 0; b < batch; b++) for (let h = 0; h < heads; h++) {
      const { data } = attend.matmul({ data: x.data, shape: [n, d], offset: b * n * d }, { data: weights[name].data, shape: [d, dh], strides: [1, d], offset: h * dh * d });
      out.set(data, (b * heads + h) * n * dh);
    }
    return { data: out, shape: [batch, heads, n, dh] };
  };
  const o = attend.attention(project('wq'), project('wk'), project('wv'), { causal: 'top-left', kvLengths: [6, 5], kvFirst: [0, 1] });
  for (let b = 0; b < batch; b++) for (let i = 0; i < n; i++) for (let f = 0; f < d; f++) {
    let want = weights.bo[f];
    for (let h = 0; h < heads; h++) for (let e = 0; e < dh; e++) want += weights.wo.data[(h * d + f) * dh + e] * o.data[((b * heads + h) * n + i) * dh + e];
    assert.ok(Math.abs(got.data[(b * n + i) * d + f] - want) < 1e-12);
  }
});
