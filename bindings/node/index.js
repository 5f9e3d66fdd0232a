'use strict';
// attend from JavaScript: views of typed arrays, NumPy's conventions for shapes. See index.d.ts for what there is.

const { native, error, AttendError, NUMBERS, ALL, MATRICES, along, check, expectKnown, view, operand, reversed, weight, row, column, pack,
  result, number, integer, expect, perBatch, perItem, startsOf, batchOf } = require('./operands.js');

const CAUSAL = { 'top-left': 1, 'bottom-right': 2 };
const STAGES = { scaled: 0, softcapped: 1, masked: 2, probabilities: 3 };

// Of 8-bit integers: int32, which is exact, float32 with a scale; beside a floating-point operand, its type.
function productType(a, b, [bScale, aScale]) {
  const isByte = ({ dtype }) => dtype === 'int8' || dtype === 'uint8';
  if (!isByte(a)) return a;
  if (!isByte(b)) return b;
  return aScale || bScale ? 'float32' : 'int32';
}

const prepare = {
  matmul(a, b, options = {}) {
    a = expect(operand(a, 'a'), 'a', 2);
    b = expect(operand(b, 'b'), 'b', 2);
    const lead = a.shape.length >= b.shape.length ? a.shape.slice(0, -2) : b.shape.slice(0, -2);
    const numbers = ['bScale', 'aScale', 'bZero', 'aZero'].map((name) => operand(options[name], name));
    const out = result(options.out, 'out', productType(a, b, numbers), [...lead.map((n, i) => {
      const other = (a.shape.length >= b.shape.length ? b : a).shape.slice(0, -2);
      const j = i - (lead.length - other.length);
      return j >= 0 ? Math.max(n, other[j]) : n;
    }), a.shape.at(-2), b.shape.at(-1)]);
    // (A B)^T = B^T A^T
    const operands = [reversed(b), reversed(a), reversed(out), reversed(operand(options.bias, 'bias')), ...numbers.map(reversed)];
    return [out, pack('matmul', operands, [options.nativeDot ? 0x10000 : 0, integer(options.threads, 0, 'threads', 31), number(options.alpha, 1, 'alpha'),
      number(options.beta, 0, 'beta')]), () => MATRICES];
  },

  softmax(x, options = {}) {
    x = expect(operand(x, 'x'), 'x');
    const rank = x.shape.length, given = number(options.axis, -1, 'axis'), axis = given < 0 ? given + rank : given;
    if (!(Number.isInteger(axis) && axis >= 0 && axis < rank)) throw new AttendError('INVALID_VALUE', 'axis', `is ${given}, but x has ${rank} axes.`);
    const out = result(options.out, 'out', x, x.shape);
    // The axis becomes the rows, the others follow in reverse.
    const order = [axis, ...[...x.shape.keys()].reverse().filter((i) => i !== axis)];
    const turn = (v, name) => {
      if (!v) return v;
      const missing = rank - v.shape.length;
      if (missing < 0) throw new AttendError('INVALID_SHAPE', name, `has ${v.shape.length} dimensions, but x has ${rank}.`);
      const shape = [...new Array(missing).fill(1), ...v.shape], strides = [...new Array(missing).fill(0), ...v.strides];
      return { ...v, shape: order.map((i) => shape[i]), strides: order.map((i) => strides[i]) };
    };
    const lse = operand(options.lse, 'lse');
    const operands = [turn(x, 'x'), turn(out, 'out'), turn(operand(options.mask, 'mask', true), 'mask'),
      turn(operand(options.bias, 'bias'), 'bias'), row(lse)];
    return [out, pack('softmax', operands, [options.log ? 1 : 0, integer(options.threads, 0, 'threads', 31),
      number(options.scale, 1, 'scale')]), () => along(...order.map((i) => i - rank))];
  },

  attention(q, k, v, options = {}) {
    [q, k, v] = [['q', q], ['k', k], ['v', v]].map(([name, x]) => expect(operand(x, name), name, 2));
    const pages = operand(options.pages, 'pages'), starts = packing(options);
    const axes = leading(q, pages, starts), { pauses } = options, early = pauses && ['out', 'lse'].find((name) => options[name] != null);
    if (early) throw new AttendError('INVALID_VALUE', early, 'comes with the last piece alone; with pauses the state is the result.');
    const out = result(options.out, 'out', q, [...axes, v.shape.at(-1)]); // not written, and so nobody's, where the call pauses
    const state = pauses ? result(options.state, 'state', q.dtype === 'float64' ? 'float64' : 'float32', [...axes, 2 * (v.shape.at(-1) + 2)])
      : operand(options.state, 'state');
    const [operands, [flags, ...scalars], lists] = attentionOptions(options, batchOf(out), starts);
    const more = [...['kScale', 'vScale'].map((name) => operand(options[name], name)), pages, state];
    const pieces = (pauses ? 8 : 0) + (options.state != null ? 16 : 0);
    return [pauses ? state : out, pack('attention', [...[q, k, v, out].map(reversed), ...operands, ...more.map(reversed)],
      [flags + pieces, ...scalars, integer(options.keyOffset, 0, 'keyOffset')], lists)];
  },

  merge(outA, lseA, outB, lseB, options = {}) {
    const outs = [['outA', outA], ['outB', outB]].map(([n, x]) => expect(operand(x, n), n, 2));
    const lses = [['lseA', lseA], ['lseB', lseB]].map(([n, x]) => expect(operand(x, n), n));
    const operands = [reversed(outs[0]), row(lses[0]), reversed(outs[1]), row(lses[1])];
    return [outs[0], pack('merge', operands, [0, integer(options.threads, 0, 'threads', 31)])];
  },

  selfAttention(x, weights, options = {}) {
    x = expect(operand(x, 'x'), 'x', 2);
    expectKnown(weights, WEIGHTS, 'weights.');
    const w = (name) => operand(weights[name], `weights.${name}`);
    const [wq, wk, wv, wo] = ['wq', 'wk', 'wv', 'wo'].map((name) => (name === 'wo' ? w(name) : expect(w(name), `weights.${name}`, 2)));
    // [batch, N, D] is (D, N, 1, batch).
    const input = reversed(x);
    if (x.shape.length === 3) { input.shape.splice(2, 0, 1); input.strides.splice(2, 0, 0); }
    const items = x.shape.at(-2), batch = x.shape.slice(0, -2);
    const heads = wq.shape.length > 2 ? [wq.shape[0]] : [];
    const out = result(options.out, 'out', x, wo ? [...batch, items, wo.shape.at(-2)] : [...batch, ...heads, items, wv.shape.at(-2)]);
    const output = reversed(out);
    if (output.shape.length === 3 && batch.length === 1) { output.shape.splice(2, 0, 1); output.strides.splice(2, 0, 0); }
    const [operands, scalars, lists] = attentionOptions(options, batch[0] ?? 1, packing(options));
    return [out, pack('selfAttention', [input, output, weight(wq), weight(wk), weight(wv), column(w('bq')), column(w('bk')),
      column(w('bv')), weight(wo), reversed(w('bo')), ...operands], scalars, lists)];
  },

  convert(x, options = {}) {
    x = expect(operand(x, 'x'), 'x');
    const { dtype } = options;
    if (dtype == null ? options.out == null : !NUMBERS.includes(dtype))
      throw new AttendError('INVALID_DTYPE', 'dtype', `is ${String(dtype)}, not one of ${ALL}.`);
    const out = result(options.out, 'out', dtype, x.shape);
    if (dtype != null && out.dtype !== dtype) throw new AttendError('INVALID_DTYPE', 'dtype', `is ${dtype}, but out's is ${out.dtype}.`);
    const operands = [x, out, operand(options.scale, 'scale')].map(reversed);
    return [out, pack('convert', operands, [options.computeScale ? 1 : 0, integer(options.threads, 0, 'threads', 31)]), () => MATRICES];
  },

  rotary(x, cos, sin, options = {}) {
    [x, cos, sin] = [['x', x], ['cos', cos], ['sin', sin]].map(([name, of]) => expect(operand(of, name), name, 2));
    const out = result(options.out, 'out', x, x.shape);
    const [starts, sequences] = startsOf(options, 'starts');
    const lists = [starts, perBatch(options, 'offsets', sequences || batchOf(x)), perItem(options, 'positions', x)];
    const flags = (options.interleaved ? 1 : 0) + (options.inverse ? 2 : 0);
    return [out, pack('rotary', [x, cos, sin, out].map(reversed), [flags, integer(options.threads, 0, 'threads', 31),
      integer(options.rotaryDims, 0, 'rotaryDims'), sequences], lists)];
  },

  kvAppend(k, v, kCache, vCache, options = {}) {
    [k, kCache] = [['k', k], ['kCache', kCache]].map(([name, of]) => expect(operand(of, name), name, 2));
    const [starts, sequences] = startsOf(options, 'starts');
    const lists = [starts, perBatch(options, 'offsets', sequences || batchOf(k)), perItem(options, 'positions', k),
      perItem(options, 'slots', k)];
    const flags = (options.interleaved ? 1 : 0) + (options.computeKScale ? 4 : 0) + (options.computeVScale ? 8 : 0);
    const operands = [k, operand(v, 'v'), kCache, operand(vCache, 'vCache'),
      ...['pages', 'kScale', 'vScale', 'cos', 'sin'].map((name) => operand(options[name], name))];
    return [undefined, pack('kvAppend', operands.map(reversed), [flags, integer(options.threads, 0, 'threads', 31),
      integer(options.rotaryDims, 0, 'rotaryDims'), sequences], lists)];
  },
};

// Where sequences are packed: queries' starts, keys', and how many there are.
function packing(options) {
  const [queries, count] = startsOf(options, 'queryStarts'), [keys, sequences] = startsOf(options, 'keyStarts', count);
  return [queries, keys, sequences];
}

// The axes of attention's result but for its last: the batch is that of packed keys or of the table of pages, where queries are
// not packed.
function leading(q, pages, [queries, keys, sequences]) {
  const axes = q.shape.slice(0, -1);
  if (queries || !(keys || pages?.shape.length > 1)) return axes;
  return [keys ? sequences : pages.shape.at(-2), ...(axes.length > 1 ? [] : [1]), ...axes.slice(-2)];
}

function attentionOptions(options, batch, [queries, keys, sequences]) {
  const one = (name, mask) => operand(options[name], name, mask);
  let flags = 0;
  if (options.causal != null) {
    flags = CAUSAL[options.causal];
    if (!flags) throw new AttendError('INVALID_VALUE', 'causal', `is ${String(options.causal)}, but must be 'top-left' or 'bottom-right'.`);
  }
  const stage = STAGES[options.scoresStage ?? 'scaled'];
  if (stage === undefined) throw new AttendError('INVALID_VALUE', 'scoresStage', `is ${String(options.scoresStage)}, not one of ${Object.keys(STAGES).join(', ')}.`);
  if (options.window) flags |= 4;
  if (options.window && !(Array.isArray(options.window) && options.window.length === 2))
    throw new AttendError('INVALID_VALUE', 'window', `is ${String(options.window)}, but must be [left, right].`);
  const [left, right] = options.window ?? [0, 0];
  const lists = [...['queryOffsets', 'kvLengths', 'kvFirst'].map((name) => perBatch(options, name, sequences || batch)), queries, keys];
  const operands = [reversed(one('mask', true)), ...['bias', 'alibiSlopes', 'sinks'].map((n) => reversed(one(n))),
    row(one('lse')), reversed(one('scores'))];
  const scalars = [flags, integer(options.threads, 0, 'threads', 31), number(options.scale, 0, 'scale'),
    number(options.softcap, 0, 'softcap'), integer(options.queryOffset, 0, 'queryOffset'),
    integer(left, 0, 'window'), integer(right, 0, 'window'), stage, sequences];
  return [operands, scalars, lists];
}

const ATTENTION = ['out', 'causal', 'window', 'scale', 'softcap', 'queryOffset', 'queryOffsets', 'kvLengths', 'kvFirst',
  'queryStarts', 'mask', 'bias', 'alibiSlopes', 'sinks', 'lse', 'scores', 'scoresStage', 'threads'];
const OPTIONS = { matmul: ['out', 'alpha', 'beta', 'bias', 'aScale', 'bScale', 'aZero', 'bZero', 'nativeDot', 'threads'],
  softmax: ['axis', 'out', 'log', 'scale', 'mask', 'bias', 'lse', 'threads'],
  attention: [...ATTENTION, 'kScale', 'vScale', 'keyStarts', 'pages', 'state', 'pauses', 'keyOffset'], merge: ['threads'], selfAttention: ATTENTION,
  convert: ['dtype', 'out', 'scale', 'computeScale', 'threads'],
  rotary: ['out', 'rotaryDims', 'interleaved', 'inverse', 'positions', 'offsets', 'starts', 'threads'],
  kvAppend: ['starts', 'offsets', 'slots', 'pages', 'kScale', 'vScale', 'computeKScale', 'computeVScale', 'cos', 'sin', 'rotaryDims',
    'positions', 'interleaved', 'threads'] };
const WEIGHTS = ['wq', 'wk', 'wv', 'bq', 'bk', 'bv', 'wo', 'bo'];

const sync = {}, promises = {};
for (const [name, ready] of Object.entries(prepare)) {
  const known = (...given) => {
    expectKnown(given[ready.length], OPTIONS[name]); // options, which have a default, do not count
    return ready(...given);
  };
  sync[name] = (...given) => {
    const [out, call, words] = known(...given);
    check(native.run(...call), name, words);
    return out;
  };
  promises[name] = async (...given) => {
    const [out, call, words] = known(...given);
    check(await native.runLater(...call), name, words);
    return out;
  };
}

function set(status, argument, message) {
  if (status !== 0) throw error(status, argument, message);
}

module.exports = {
  AttendError, view, ...sync, promises,
  isa: native.isa,
  setIsa: (name) => set(native.setIsa(name ?? ''), 'name', `is ${name}, not one of ${native.isaNames().join(', ')}.`),
  version: native.version,
  threads: native.threads,
  setThreads: (n) => set(native.setThreads(integer(n, 0, 'threads', 31)), 'threads', `is ${n}, but must be 0 or more.`),
};
