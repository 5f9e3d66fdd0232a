// Products of 8-bit integers: exact sums, and scales of powers of two, with which it is the float32 product's.
import assert from 'node:assert/strict';
import test from 'node:test';
import * as attend from '../index.mjs';
import { normals } from './common.mjs';

const [m, k, n] = [7, 1100, 5];
const a = { data: Int8Array.from({ length: m * k }, (_, i) => (i * 37) % 251), shape: [m, k] };
const b = { data: Uint8Array.from({ length: k * n }, (_, i) => (i * 101) % 251), shape: [k, n] };
const aZero = { data: Int32Array.of(-9, -6, -3, 0, 3, 6, 9), shape: [m, 1] }, bZero = Int32Array.of(128);
const aScale = { data: Float32Array.from({ length: m }, (_, i) => 2 ** (i - 9)), shape: [m, 1] };
const bScale = { data: Float32Array.of(1, 0.5, 0.25, 0.125, 2), shape: [1, n] };

// The result for which f(i, j) stands.
const each = (Type, f) => Type.from({ length: m * n }, (_, at) => f(Math.floor(at / n), at % n));
function sum(i, j) {
  let total = 0;
  for (let l = 0; l < k; l++) total += (a.data[i * k + l] - aZero.data[i]) * (b.data[l * n + j] - bZero[0]);
  return total;
}

test('exact sums of integers', async () => {
  const bias = Int32Array.of(0, 1000, 2000, 3000, 4000);
  const c = await attend.promises.matmul(a, b, { aZero, bZero, bias });
  assert.deepEqual([c.dtype, c.shape], ['int32', [m, n]]);
  assert.deepEqual(c.data, each(Int32Array, (i, j) => sum(i, j) + bias[j]));
});

test('scaled products of integers', () => {
  const c = attend.matmul(a, b, { aZero, bZero, aScale, bScale });
  assert.deepEqual(c.data, each(Float32Array, (i, j) => aScale.data[i] * bScale.data[j] * Math.fround(sum(i, j))));
  // Weights of integers beside floats, on either side.
  const x = { data: Float32Array.from(normals(k * n, 1)), shape: [k, n] }, turned = ({ data, shape: [r, s] }) => ({ data, shape: [s, r], strides: [1, s] });
  const wide = { data: Float32Array.from(a.data, (v, at) => aScale.data[Math.floor(at / k)] * v), shape: [m, k] };
  assert.deepEqual(attend.matmul(a, x, { aScale }).data, attend.matmul(wide, x).data);
  const right = attend.matmul(turned(x), turned(a), { bScale: turned(aScale) });
  assert.deepEqual(right.data, attend.matmul(turned(x), turned(wide)).data);
});

test('messages on integers', () => {
  const out = { data: new Int32Array(m * n), shape: [m, n] }, floats = { data: new Float32Array(k * n), shape: [k, n] };
  const says = (message, options, right = b) => assert.throws(() => attend.matmul(a, right, options), { message });
  says("aScale: is given, but out's type is int32, not a floating-point type.", { aScale, out });
  says("bScale: is given, but b's type is float32, not int8 or uint8.", { bScale }, floats);
  says("alpha: is 0.5, but must be 1 where out's type is int32.", { alpha: 0.5 });
  says('bZero: has 300, which is not in uint8, b\'s type: 0 to 255.', { bZero: Int32Array.of(300) });
});
