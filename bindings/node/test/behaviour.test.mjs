import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as attend from '../index.mjs';
import { normals } from './common.mjs';

const x = (...shape) => attend.view(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);

test('errors', async () => {
  const q = x(2, 3, 4), k = x(2, 5, 4);
  const refused = async (code, argument, call) => {
    const fits = (e) => {
      assert.ok(e instanceof attend.AttendError, String(e));
      assert.equal(e.code, `ATTEND_${code}`, e.message);
      assert.ok(e.argument.endsWith(argument), e.message);
      assert.ok(e.message.startsWith(`${e.argument}: `) && e.message.endsWith('.'), e.message);
      return true;
    };
    assert.throws(() => call(attend), fits);
    await assert.rejects(() => call(attend.promises), fits);
  };
  const out = { data: new Float32Array(24).fill(7), shape: [2, 3, 4] };
  await refused('INVALID_SHAPE', 'k', (a) => a.attention(q, x(2, 5, 3), k, { out }));
  await refused('INVALID_DTYPE', 'k', (a) => a.attention(q, { data: new Float64Array(40), shape: [2, 5, 4] }, k, { out }));
  await refused('INVALID_DTYPE', 'q', (a) => a.attention({ data: new Int32Array(24), shape: [2, 3, 4] }, k, k, { out }));
  await refused('INVALID_DTYPE', 'q', (a) => a.attention({ data: [1, 2], shape: [1, 2] }, k, k));
  await refused('NULL_POINTER', 'q', (a) => a.attention(null, k, k));
  await refused('INVALID_RANK', 'q', (a) => a.attention(x(1, 1, 1, 1, 1), k, k));
  await refused('INVALID_STRIDE', 'q', (a) => a.attention({ ...q, strides: [1] }, k, k));
  await refused('INVALID_SHAPE', 'q', (a) => a.attention({ ...q, shape: [2, 3, -4] }, k, k));
  await refused('INVALID_SHAPE', 'q', (a) => a.attention({ ...q, shape: [2, 3, 5] }, k, k));
  await refused('INVALID_SHAPE', 'q', (a) => a.attention({ ...q, offset: 1 }, k, k));
  await refused('INVALID_SHAPE', 'q', (a) => a.attention({ ...q, strides: [12, 4, -1] }, k, k));
  await refused('INVALID_STRIDE', 'q', (a) => a.attention({ ...q, strides: [12, 4, NaN] }, k, k));
  await refused('INVALID_STRIDE', 'out', (a) => a.attention(q, k, k, { out: { ...out, strides: [12, 0, 1] } }));
  await refused('OVERLAP', 'out', (a) => a.attention(q, k, k, { out: q }));
  await refused('INVALID_VALUE', 'softcap', (a) => a.attention(q, k, k, { out, softcap: -1 }));
  await refused('INVALID_VALUE', 'causal', (a) => a.attention(q, k, k, { out, causal: true }));
  await refused('INVALID_VALUE', 'scale', (a) => a.attention(q, k, k, { out, scale: '1' }));
  await refused('INVALID_VALUE', 'kvLengths', (a) => a.attention(q, k, k, { out, kvLengths: [6] }));
  await refused('INVALID_SHAPE', 'kvLengths', (a) => a.attention(x(2, 1, 3, 4), x(2, 1, 5, 4), x(2, 1, 5, 4), { kvLengths: [5] }));
  await refused('INVALID_VALUE', 'kvFirst', (a) => a.attention(q, k, k, { out, kvFirst: [6] }));
  await refused('INVALID_SHAPE', 'kvFirst', (a) => a.attention(x(2, 1, 3, 4), x(2, 1, 5, 4), x(2, 1, 5, 4), { kvFirst: [5] }));
  for (const scale of [1e39, 1e-46]) await refused('INVALID_VALUE', 'scale', (a) => a.attention(q, k, k, { out, scale }));
  for (const n of [2 ** 31, 2 ** 32 + 1, 1.5, NaN, -(2 ** 40)]) {
    await refused('INVALID_VALUE', 'threads', (a) => a.attention(q, k, k, { out, threads: n }));
    assert.throws(() => attend.setThreads(n), { code: 'ATTEND_INVALID_VALUE' });
  }
  for (const n of [2 ** 63, 0.5, Infinity]) {
    await refused('INVALID_VALUE', 'queryOffset', (a) => a.attention(q, k, k, { out, queryOffset: n }));
    await refused('INVALID_VALUE', 'window', (a) => a.attention(q, k, k, { out, window: [0, n] }));
  }
  for (const name of ['queryOffsets', 'kvLengths', 'kvFirst']) {
    await refused('INVALID_VALUE', name, (a) => a.attention(q, k, k, { out, [name]: [2 ** 63] }));
    await refused('INVALID_VALUE', name, (a) => a.attention(q, k, k, { out, [name]: [-(2n ** 63n) - 1n] }));
  }
  await refused('INVALID_VALUE', 'axis', (a) => a.softmax(q, { axis: 3 }));
  // An array that is taken away while the call's other arguments are read.
  const lost = { data: new Float32Array(24), shape: [2, 3, 4] };
  const takes = { out, get scale() { structuredClone(lost.data.buffer, { transfer: [lost.data.buffer] }); return 1; } };
  assert.throws(() => attend.attention(lost, k, k, takes), RangeError);
  assert.throws(() => attend.setIsa('mmx'), { code: 'ATTEND_UNKNOWN_ISA' });
  assert.throws(() => attend.setThreads(-1), { code: 'ATTEND_INVALID_VALUE' });
  assert.ok(out.data.every((v) => v === 7), 'nothing is written when a call is refused');
});

test('messages', async () => {
  const q = x(2, 3, 4), k = x(2, 5, 4);
  const says = async (message, call) => {
    assert.throws(() => call(attend), { message });
    await assert.rejects(() => call(attend.promises), { message });
  };
  await says("k: has 3 features, not q's 4.", (a) => a.attention(q, x(2, 5, 3), k));
  await says("k: has 3 heads; q's 2 heads are no multiple of them.", (a) => a.attention(q, x(3, 5, 4), x(3, 5, 4)));
  await says("out: overlaps q's memory, but needs its own.", (a) => a.attention(q, k, k, { out: q }));
  await says('kvLengths: is 6 for batch 0, but must be 0 to 5.', (a) => a.attention(q, k, k, { kvLengths: [6] }));
  await says('kvFirst: has 0 numbers for 1 batches.', (a) => a.attention(q, k, k, { kvFirst: [] }));
  await says('window: left and right are 1 and -2, but must be -1 or more.', (a) => a.attention(q, k, k, { window: [1, -2] }));
  await says('window: is 128, but must be [left, right].', (a) => a.attention(q, k, k, { window: 128 }));
  await says('softcap: is -1.5, but must be finite and 0 or more.', (a) => a.attention(q, k, k, { softcap: -1.5 }));
  await says('scale: is 1 (string), but must be a number.', (a) => a.attention(q, k, k, { scale: '1' }));
  await says("a: has 5 columns, not b's 4 rows.", (a) => a.matmul(x(3, 5), x(4, 2)));
  await says("a: has 2 along axis -3, not 1 or b's 3.", (a) => a.matmul(x(2, 3, 5), x(3, 5, 2)));
  await says("mask: has 3 along axis -2, not 1 or x's 6.",
    (a) => a.softmax(x(6, 4), { axis: 1, mask: { data: new Uint8Array(12), shape: [3, 4] } }));
  await says("mask: has 3 along axis -2, not 1 or x's 6.",
    (a) => a.softmax(x(6, 4), { axis: 0, mask: { data: new Uint8Array(12), shape: [3, 4] } }));
  await says("weights.wk: has 3 rows, not weights.wq's 4.",
    (a) => a.selfAttention(x(3, 4), { wq: x(4, 4), wk: x(3, 4), wv: x(4, 4) }));
  await says("lseB: has 2 queries, not outA's 3.", (a) => a.merge(x(3, 4), x(3), x(3, 4), x(2)));
  await says('q: is int32; float32, float64, bfloat16 or float16 is needed.', (a) => a.attention({ data: new Int32Array(4), shape: [2, 2] }, k, k));
  await says('q: the view reaches elements 0 to 29 of an array of 24.', (a) => a.attention({ ...q, shape: [2, 3, 5], strides: [15, 5, 1] }, k, k));
  await says('kv_lengths: is unknown: did you mean kvLengths?', (a) => a.attention(q, k, k, { kv_lengths: [5] }));
  await says('axes: is unknown: did you mean axis?', (a) => a.softmax(q, { axes: 0 }));
  await says('xyzzy: is unknown: there are out, alpha, beta, bias, aScale, bScale, aZero, bZero, nativeDot, threads.', (a) => a.matmul(q, k, { xyzzy: 1 }));
  await says('weights.w_q: is unknown: did you mean wq?', (a) => a.selfAttention(x(3, 4), { w_q: x(4, 4) }));
});

test('library', () => {
  assert.ok(attend.version() >= 100 && attend.isa() && attend.threads() >= 1);
});

test('promises leave the event loop free', async () => {
  const q = { data: Float32Array.from(normals(8 * 2048 * 64, 1)), shape: [8, 2048, 64] };
  let ticks = 0, done = false;
  const timer = setInterval(() => ticks++, 1);
  const call = attend.promises.attention(q, q, q, { threads: 1 }).then(() => { done = true; });
  assert.equal(done, false);
  await call;
  clearInterval(timer);
  assert.ok(ticks >= 5, `${ticks} ticks`);
});

test('arrays live as long as an asynchronous call', async () => {
  const want = attend.attention({ data: new Float32Array(64 * 64).fill(0.5), shape: [64, 64] }, x(64, 64), x(64, 64)).data;
  const calls = [];
  for (let i = 0; i < 50; i++) {
    calls.push(attend.promises.attention({ data: new Float32Array(64 * 64).fill(0.5), shape: [64, 64] }, x(64, 64), x(64, 64)));
    if (i % 10 === 0) globalThis.gc?.();
  }
  for (const { data } of await Promise.all(calls)) assert.deepEqual(data, want);
});

test('many workers, one result', async () => {
  const code = `
    import { parentPort, workerData } from 'node:worker_threads';
    const attend = await import(workerData.url);
    let same = true;
    for (let i = 0; i < 50; i++) {
      const q = { data: workerData.q, shape: [4, 33, 16] };
      same &&= attend.attention(q, q, q, { causal: 'top-left', threads: 1 + i % 2 }).data.every((v, j) => v === workerData.want[j]);
    }
    parentPort.postMessage(same);`;
  const q = Float32Array.from(normals(4 * 33 * 16, 1)), view = { data: q, shape: [4, 33, 16] };
  const want = attend.attention(view, view, view, { causal: 'top-left' }).data;
  const url = new URL('../index.mjs', import.meta.url).href;
  const run = () => new Promise((resolve, reject) => {
    const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), { workerData: { url, q, want } });
    worker.once('message', resolve).once('error', reject);
  });
  assert.deepEqual(await Promise.all([run(), run(), run(), run()]), [true, true, true, true]);
});

test('memory does not grow', { skip: globalThis.gc ? false : 'run with --expose-gc' }, async () => {
  const q = { data: Float32Array.from(normals(8 * 64 * 64, 1)), shape: [8, 64, 64] }, out = x(8, 64, 64);
  // A leak grows in every round; the engine's own memory settles.
  let before = 0, grown = Infinity;
  for (let round = 0; round < 12 && grown > 256 << 10; round++) {
    for (let i = 0; i < 1000; i++) {
      attend.attention(q, q, q, { out, threads: 1 });
      try { attend.attention(q, x(1, 1), q, { out }); } catch { /* refused, as it should be */ }
      if (i % 50 === 0) await attend.promises.attention(q, q, q, { out });
    }
    globalThis.gc();
    const now = process.memoryUsage().rss;
    if (round > 0) grown = now - before;
    before = now;
  }
  assert.ok(grown <= 256 << 10, `grew by ${grown} bytes in the last of 12 rounds`);
});

test('types', (t) => {
  let tsc;
  try {
    tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
  } catch {
    return t.skip('typescript is not installed');
  }
  execFileSync(process.execPath, [tsc, '--noEmit', '--strict', '--target', 'es2022', '--module', 'node16', 
    fileURLToPath(new URL('typed.mts', import.meta.url))], { stdio: 'inherit' });
});
