// Attention of 8 heads of 1024 items and 64 features, beside loops over Float32Array as one writes them without a library.
import * as attend from '../index.mjs';
import { normals } from '../test/common.mjs';

const heads = 8, n = 1024, d = 64;

function loops(q, k, v, out) {
  const scores = new Float32Array(n), scale = 1 / Math.sqrt(d);
  for (let h = 0; h < heads; h++) {
    const base = h * n * d;
    for (let i = 0; i < n; i++) {
      let most = -Infinity, sum = 0;
      for (let j = 0; j < n; j++) {
        let s = 0;
        for (let f = 0; f < d; f++) s += q[base + i * d + f] * k[base + j * d + f];
        scores[j] = s * scale;
        if (scores[j] > most) most = scores[j];
      }
      for (let j = 0; j < n; j++) sum += scores[j] = Math.exp(scores[j] - most);
      const row = out.subarray(base + i * d, base + (i + 1) * d).fill(0);
      for (let j = 0; j < n; j++) {
        const w = scores[j] / sum, at = base + j * d;
        for (let f = 0; f < d; f++) row[f] += w * v[at + f];
      }
    }
  }
}

function best(call) {
  return Math.min(...[1, 2, 3].map(() => {
    const start = process.hrtime.bigint();
    call();
    return Number(process.hrtime.bigint() - start) / 1e6;
  })).toFixed(2);
}

const [q, k, v] = [1, 2, 3].map((seed) => Float32Array.from(normals(heads * n * d, seed)));
const ours = new Float32Array(q.length), theirs = new Float32Array(q.length);
const of = (data) => ({ data, shape: [heads, n, d] });
const run = (threads) => best(() => attend.attention(of(q), of(k), of(v), { out: of(ours), threads }));
const [one, all, other] = [run(1), run(0), best(() => loops(q, k, v, theirs))];
if (!ours.every((x, i) => Math.abs(x - theirs[i]) < 1e-4)) throw new Error('the results differ');
console.log(`attend ${attend.isa()}: ${one} ms on one thread, ${all} ms on ${attend.threads()}; loops: ${other} ms`);
