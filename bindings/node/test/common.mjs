import { readFileSync } from 'node:fs';

/** Standard normals from a seed (SplitMix-like, 32 bits). */
export function normals(count, seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
  return Float64Array.from({ length: count }, () => Math.fround(Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())));
}

/** Attention of dense arrays by the formula in doubles; added(j, i, h, b) is -Infinity where a key is hidden. */
export function formula({ q, k, v, batch, heads, kv, queries, keys, d }, scale, added) {
  const out = new Float64Array(q.length);
  for (let b = 0; b < batch; b++) for (let h = 0; h < heads; h++) for (let i = 0; i < queries; i++) {
    const row = ((b * heads + h) * queries + i) * d, head = (b * kv + Math.floor(h / (heads / kv))) * keys;
    const s = Array.from({ length: keys }, (_, j) => {
      let dot = 0;
      for (let f = 0; f < d; f++) dot += q[row + f] * k[(head + j) * d + f];
      return dot * scale + added(j, i, h, b);
    });
    const most = Math.max(...s);
    if (most === -Infinity) continue;
    const weights = s.map((x) => Math.exp(x - most)), sum = weights.reduce((x, y) => x + y);
    for (let f = 0; f < d; f++) out[row + f] = weights.reduce((o, w, j) => o + w * v[(head + j) * d + f], 0) / sum;
  }
  return out;
}

/** {name: {data, shape}} of ../notebook/inputs.txt. */
export function notebook() {
  const lines = readFileSync(new URL('../../notebook/inputs.txt', import.meta.url), 'utf8').trim().split('\n');
  const matrices = {};
  for (let at = 0; at < lines.length;) {
    const [name, rows, columns] = lines[at].split(' ');
    const data = Float64Array.from(lines.slice(at + 1, at + 1 + Number(rows)).join(' ').split(' '), Number);
    matrices[name] = { data, shape: [Number(rows), Number(columns)] };
    at += 1 + Number(rows);
  }
  return matrices;
}

/** The notebook's columns are items: X^T is the [N, D] of NumPy's conventions, by strides. */
export const transposed = ({ data, shape: [rows, columns] }) => ({ data, shape: [columns, rows], strides: [1, columns] });
