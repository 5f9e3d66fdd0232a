// Element types: the bits of the float32 call on widened operands, rounded once; keys and values of 8 bits; conversion.
import assert from 'node:assert/strict';
import test from 'node:test';
// Where the runtime lacks it, an array of the bits stands for it: what goes to C is its memory.
const stub = !globalThis.Float16Array;
globalThis.Float16Array ??= class Float16Array extends Uint16Array {};
const attend = await import('../index.mjs');
const { normals } = await import('./common.mjs');

const floats = (count, seed) => Float32Array.from(normals(count, seed));
const bitsOf = (data) => (data instanceof Float32Array ? new Uint32Array(data.buffer) : data);
const bare = (data) => new Uint16Array(data.buffer, data.byteOffset, data.length);

// The number of a format of `exponent` and `fraction` bits, by its definition.
function number(bits, exponent, fraction) {
  const e = (bits >> fraction) & (2 ** exponent - 1), part = (bits & (2 ** fraction - 1)) / 2 ** fraction, bias = 2 ** (exponent - 1) - 1;
  return (bits >> (exponent + fraction) ? -1 : 1) * (e === 0 ? part * 2 ** (1 - bias) : (1 + part) * 2 ** (e - bias));
}
const FORMATS = { bfloat16: [8, 7], float16: [5, 10] };

// The nearest number of a format, by looking at all of them; `table` has those from 0 up.
const tables = Object.fromEntries(Object.entries(FORMATS).map(([dtype, [e, f]]) =>
  [dtype, Float64Array.from({ length: (2 ** e - 1) * 2 ** f }, (_, bits) => number(bits, e, f))]));
function nearest(x, dtype) {
  const table = tables[dtype];
  let low = 0, high = table.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (table[middle] <= Math.abs(x)) low = middle; else high = middle;
  }
  const below = Math.abs(x) - table[low], above = table[high] - Math.abs(x);
  const bits = below < above || (below === above && low % 2 === 0) ? low : high;
  return bits | (x < 0 || Object.is(x, -0) ? 0x8000 : 0);
}

// Random numbers of a type, and the same in float32.
function narrowed(dtype, shape, seed) {
  const count = shape.reduce((a, b) => a * b), bits = Uint16Array.from(floats(count, seed), (x) => nearest(x, dtype));
  return [{ data: bits, shape, dtype }, { data: Float32Array.from(bits, (b) => number(b, ...FORMATS[dtype])), shape }];
}
function same(got, dtype, wide) {
  assert.equal(got.dtype, dtype);
  assert.deepEqual(bare(got.data), Uint16Array.from(wide.data, (x) => nearest(x, dtype)));
}

for (const [dtype, other] of [['bfloat16', 'float16'], ['float16', 'bfloat16']]) {
  test(`${dtype} beside other types`, () => {
    const [q, wideQ] = narrowed(dtype, [2, 5, 12], 1), [k, wideK] = narrowed(other, [2, 300, 12], 2);
    const v = { data: floats(2 * 300 * 12, 3), shape: [2, 300, 12] }, [bias, wideBias] = narrowed(other, [5, 300], 4);
    const lse = new Float32Array(10), wideLse = new Float32Array(10), l = (data) => ({ data, shape: [2, 5] });
    const wide = attend.attention(wideQ, wideK, v, { bias: wideBias, lse: l(wideLse) });
    same(attend.attention(q, k, v, { bias, lse: l(lse) }), dtype, wide);
    assert.deepEqual(bitsOf(lse), bitsOf(wideLse));

    const [a, wideA] = narrowed(dtype, [7, 600], 5), [b, wideB] = narrowed(other, [600, 5], 6);
    const product = attend.matmul(wideA, wideB), out = attend.view(new Float32Array(35), [7, 5]);
    same(attend.matmul(a, b), dtype, product);
    assert.equal(attend.matmul(a, b, { out }).data, out.data);
    assert.deepEqual(bitsOf(out.data), bitsOf(product.data));

    const [x, wideX] = narrowed(dtype, [6, 8], 7), [w, wideW] = narrowed(other, [8, 8], 8);
    same(attend.softmax(x, { axis: 0 }), dtype, attend.softmax(wideX, { axis: 0 }));
    same(attend.softmax(x, { out: { ...x, data: x.data.slice() } }), dtype, attend.softmax(wideX));
    same(attend.selfAttention(x, { wq: w, wk: wideW, wv: w }), dtype, attend.selfAttention(wideX, { wq: wideW, wk: wideW, wv: wideW }));
    const lseA = new Float32Array(6), [y, wideY] = narrowed(other, [6, 8], 9);
    const union = attend.merge(wideY, lseA.slice(), wideX, lseA);
    same(attend.merge(y, lseA.slice(), x, lseA), other, union);
  });
}

test('native dot products', async () => {
  const product = (f, nativeDot) => {
    const of = (shape) => ({ data: Uint16Array.from({ length: shape[0] * shape[1] }, (_, i) => nearest(f(i), 'bfloat16')), shape, dtype: 'bfloat16' });
    const call = (a) => a.matmul(of([64, 96]), of([96, 4]), { nativeDot, out: { data: new Float32Array(64 * 4), shape: [64, 4] } });
    return Promise.all([call(attend), call(attend.promises)].map(async (c) => bitsOf((await c).data)));
  };
  const small = (i) => ((i * i) % 19) - 9;
  assert.deepEqual(await product(small, true), await product(small, false));
  // Of four columns on every CPU that has them, the dot products count what lies below the smallest normal number as 0.
  const all = (x) => [x, x].map((y) => bitsOf(new Float32Array(64 * 4).fill(y))), tiny = 96 * 2 ** -140;
  assert.deepEqual(await product(() => 2 ** -70, false), all(tiny));
  assert.deepEqual(await product(() => 2 ** -70, true), all(attend.isa() === 'avx512bf16' ? 0 : tiny));
});

test('a Float16Array says its type itself', async () => {
  const [{ data: bits }, wide] = narrowed('float16', [6, 8], 1);
  const data = new Float16Array(bits.buffer), y = attend.softmax({ data, shape: [6, 8] });
  assert.ok(y.data instanceof Float16Array);
  same(y, 'float16', attend.softmax(wide));
  const made = attend.convert(wide, { dtype: 'float16' });
  assert.ok(made.data instanceof Float16Array);
  assert.deepEqual(bare(made.data), bits);
  if (!stub) assert.deepEqual([...made.data], [...wide.data]);
  const later = attend.promises.attention({ data: data.subarray(8), shape: [5, 8] }, wide, wide);
  same(await later, 'float16', attend.attention({ data: wide.data.slice(8), shape: [5, 8] }, wide, wide));
});

const bytes = (count, seed) => Int8Array.from(normals(count, seed), (x) => Math.max(-127, Math.min(127, 50 * x)));

// Scales of powers of two, with which it makes no difference when they are multiplied; below one, so that no weight is
// subnormal, whose products are rounded.
test('keys and values of 8 bits', () => {
  const n = 40, d = 8, q = { data: floats(3 * d, 1), shape: [3, d] };
  const power = (...shape) => ({ data: Float32Array.from(normals(shape[0] * shape[1], 9), (x) => 2 ** (-7 + Math.round(x / 2))), shape });
  const scales = [power(n, 1), power(1, d), power(1, 1)], shape = [n, d];
  const k = { data: bytes(n * d, 2), shape }, v = { data: bytes(n * d, 3), shape };
  const wide = (x, s) => ({ data: Float32Array.from(x.data, (b, at) => b * s.data[s.shape[0] > 1 ? Math.floor(at / d) : s.shape[1] > 1 ? at % d : 0]), shape });
  for (const kScale of scales) for (const vScale of scales) {
    const got = attend.attention(q, k, v, { kScale, vScale });
    assert.deepEqual(bitsOf(got.data), bitsOf(attend.attention(q, wide(k, kScale), wide(v, vScale)).data));
  }
  const f8 = { data: Uint8Array.from({ length: n * d }, (_, i) => (i * 37) % 127), shape, dtype: 'float8_e4m3' };
  const of = (factor) => ({ data: Float32Array.from(f8.data, (b) => factor * number(b, 4, 3)), shape });
  assert.deepEqual(bitsOf(attend.attention(q, f8, f8).data), bitsOf(attend.attention(q, of(1), of(1)).data));
  const kScale = Float32Array.of(1 / 64);
  assert.deepEqual(bitsOf(attend.attention(q, f8, f8, { kScale }).data), bitsOf(attend.attention(q, of(1 / 64), of(1)).data));
});

test('conversion', async () => {
  const x = floats(1000, 1);
  for (const dtype of ['bfloat16', 'float16']) {
    const narrow = await attend.promises.convert(x, { dtype });
    same(narrow, dtype, { data: x });
    const wide = attend.convert(narrow, { dtype: 'float64' });
    assert.deepEqual(wide.data, Float64Array.from(bare(narrow.data), (b) => number(b, ...FORMATS[dtype])));
  }
  const to = (dtype, ...numbers) => [...attend.convert(Float64Array.from(numbers), { dtype }).data];
  assert.deepEqual(to('int8', 1.5, 2.5, -300, NaN), [2, 2, -128, 0]);
  assert.deepEqual(to('uint8', -1, 255.5), [0, 255]);
  assert.deepEqual(to('int32', 1e30, -7), [2 ** 31 - 1, -7]);
  assert.deepEqual(to('float8_e4m3', 1, -1e9, 2 ** -9, 1.0625), [0x38, 0xfe, 1, 0x38]);
  const every = attend.view(Uint8Array.from({ length: 127 }, (_, i) => i), [127], [1], 0, 'float8_e4m3');
  assert.deepEqual(attend.convert(every, { dtype: 'float32' }).data, Float32Array.from(every.data, (b) => number(b, 4, 3)));

  // A scale for each of 10 items is computed; given, it brings the numbers back.
  const scale = { data: new Float32Array(10), shape: [10, 1] }, shape = [10, 100];
  const y = attend.convert({ data: x, shape }, { out: { data: new Int8Array(1000), shape }, scale, computeScale: true });
  const back = attend.convert(y, { dtype: 'float32', scale });
  scale.data.forEach((s, row) => {
    assert.equal(s, Math.fround(Math.max(...x.subarray(100 * row, 100 * row + 100).map(Math.abs)) / 127));
    for (let i = 100 * row; i < 100 * row + 100; i++) {
      assert.ok(Math.abs(y.data[i] - x[i] / s) <= 0.5 + 1e-5);
      assert.equal(back.data[i], Math.fround(s * y.data[i]));
    }
  });
});

test('messages', async () => {
  const says = async (code, message, call) => {
    const fits = { code: `ATTEND_${code}`, message };
    assert.throws(() => call(attend), fits);
    await assert.rejects(() => call(attend.promises), fits);
  };
  const x = { data: new Float32Array(12), shape: [3, 4] }, f8 = { data: new Uint8Array(12), shape: [3, 4], dtype: 'float8_e4m3' };
  const k = { data: new Int8Array(12), shape: [3, 4] }, doubles = { data: new Float64Array(12), shape: [3, 4] }, scale = Float32Array.of(1);
  await says('NULL_POINTER', "kScale: is null, but required where k's type is int8.", (a) => a.attention(x, k, x));
  await says('INVALID_DTYPE', 'v: is float64; float32, bfloat16, float16, int8 or float8_e4m3 is needed beside the other operands.', (a) => a.attention(x, f8, doubles));
  await says('INVALID_DTYPE', 'q: is Uint16Array, which needs a dtype: bfloat16 or float16.', (a) => a.attention({ data: new Uint16Array(12), shape: [3, 4] }, x, x));
  await says('INVALID_DTYPE', 'q: is Float32Array, which holds no float16.', (a) => a.attention({ ...x, dtype: 'float16' }, x, x));
  await says('INVALID_DTYPE', 'q: has dtype f16, not one of float32, float64, bfloat16, float16, int8, uint8, int32, float8_e4m3.',
    (a) => a.attention({ ...x, dtype: 'f16' }, x, x));
  await says('INVALID_DTYPE', 'mask: is Float32Array; Uint8Array is needed.', (a) => a.attention(x, x, x, { mask: new Float32Array(9) }));
  await says('INVALID_VALUE', "computeScale: is set, but out's type is float32, not int8 or float8_e4m3.",
    (a) => a.convert(x, { dtype: 'float32', scale, computeScale: true }));
  await says('NULL_POINTER', 'scale: is null, but required with computeScale.', (a) => a.convert(x, { dtype: 'int8', computeScale: true }));
  await says('INVALID_DTYPE', 'dtype: is undefined, not one of float32, float64, bfloat16, float16, int8, uint8, int32, float8_e4m3.', (a) => a.convert(x));
  await says('INVALID_DTYPE', "dtype: is int8, but out's is float32.", (a) => a.convert(x, { dtype: 'int8', out: x }));
  await says('INVALID_VALUE', 'kScale: is unknown: did you mean scale?', (a) => a.selfAttention(x, { wq: x, wk: x, wv: x }, { kScale: scale }));
});
