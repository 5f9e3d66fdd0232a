'use strict';
// attend from JavaScript: views of typed arrays, NumPy's conventions for shapes. See index.d.ts for what there is.

const native = require(process.env.ATTEND_NODE_ADDON || './build/attend.node');

const FUNCTION = { matmul: 0, softmax: 1, attention: 2, merge: 3, selfAttention: 4 };
const CODES = [null, 'NULL_POINTER', 'INVALID_STRUCT_SIZE', 'INVALID_RANK', 'INVALID_DTYPE', 'INVALID_SHAPE',
  'INVALID_STRIDE', 'INVALID_VALUE', 'OVERFLOW', 'OVERLAP', 'UNSUPPORTED', 'WORKSPACE_TOO_SMALL', 'OUT_OF_MEMORY',
  'UNKNOWN_ISA'];
const CAUSAL = { 'top-left': 1, 'bottom-right': 2 };
const STAGES = { scaled: 0, softcapped: 1, masked: 2, probabilities: 3 };

class AttendError extends Error {
  constructor(code, argument, message) {
    super(argument ? `${argument}: ${message}` : message);
    this.name = 'AttendError';
    this.code = `ATTEND_${code}`;
    this.argument = argument;
  }
}

function check(status) {
  if (status !== 0) throw new AttendError(CODES[status & 0xff] ?? 'ERROR', native.argument(status), native.message(status));
}

// A typed array as an array of the given shape; strides and offset count elements.
function view(data, shape = [data.length], strides, offset = 0) {
  return { data, shape: [...shape], strides: strides ? [...strides] : dense(shape), offset };
}

function dense(shape) {
  const strides = new Array(shape.length);
  for (let i = shape.length - 1, step = 1; i >= 0; step *= shape[i--]) strides[i] = step;
  return strides;
}

// The first and the last index of its array that a view reaches.
function reach({ shape, strides, offset }) {
  let first = offset, last = offset;
  shape.forEach((n, i) => {
    const along = (n - 1) * strides[i];
    if (along > 0) last += along; else first += along;
  });
  return [first, last];
}

// A checked copy of what the caller gave: a view, {data, shape}, or a typed array of one dimension.
function operand(given, argument, types) {
  if (given == null) return null;
  const v = ArrayBuffer.isView(given) ? view(given) : view(given.data ?? [], given.shape ?? [], given.strides, given.offset);
  const fail = (code, message) => { throw new AttendError(code, argument, message); };
  if (!types.some((type) => v.data instanceof type)) fail('INVALID_DTYPE', `expected ${types.map((t) => t.name).join(' or ')}`);
  if (v.shape.length < 1 || v.shape.length > 4) fail('INVALID_RANK', 'an array needs 1 to 4 dimensions');
  if (v.strides.length !== v.shape.length) fail('INVALID_STRIDE', 'an array needs a stride for every dimension');
  if (!v.shape.every((n) => Number.isSafeInteger(n) && n >= 0)) fail('INVALID_SHAPE', 'extents are integers from 0 up');
  if (![...v.strides, v.offset].every(Number.isSafeInteger)) fail('INVALID_STRIDE', 'strides and offset are integers');
  if (v.shape.includes(0)) return { ...v, offset: 0 };
  const [first, last] = reach(v);
  if (!(first >= 0 && last < v.data.length)) fail('INVALID_SHAPE', 'the view reaches outside its typed array');
  return v;
}

const FLOATS = [Float32Array, Float64Array];

// NumPy's axes to attend's: reversed, the last axis being the rows.
const reversed = (v) => v && { ...v, shape: [...v.shape].reverse(), strides: [...v.strides].reverse() };
// Weights stand to the left of a product: [heads, out, in] is (out, in, heads), [out, in] is (out, in).
const weight = (v) => v && { ...v, shape: [...v.shape.slice(-2), ...v.shape.slice(0, -2).reverse()],
  strides: [...v.strides.slice(-2), ...v.strides.slice(0, -2).reverse()] };
// An axis of one in front of the others: (1, N, H, B) of [B, H, N].
const row = (v) => v && { ...v, shape: [1, ...[...v.shape].reverse()], strides: [0, ...[...v.strides].reverse()] };
// A bias of projections, [heads, n] or [n], is (n, 1, heads).
const column = (v) => v && { ...v, shape: [v.shape.at(-1), 1, ...v.shape.slice(0, -1).reverse()],
  strides: [v.strides.at(-1), 0, ...v.strides.slice(0, -1).reverse()] };

function pack(name, operands, scalars, lists = [null, null, null]) {
  const numbers = new Float64Array(operands.length * 11);
  operands.forEach((v, i) => {
    if (!v) return;
    numbers[11 * i] = v.shape.length;
    numbers.set(v.shape.slice(0, 4), 11 * i + 1);
    numbers.set(v.strides.slice(0, 4), 11 * i + 5);
    numbers[11 * i + 9] = v.offset;
    numbers[11 * i + 10] = v.shape.includes(0) ? 0 : reach(v)[1] + 1;
  });
  return [FUNCTION[name], operands.map((v) => v && v.data), numbers, Float64Array.from(scalars), lists];
}

function result(given, argument, like, shape) {
  if (given != null) return operand(given, argument, FLOATS);
  return view(new like.constructor(shape.reduce((a, b) => a * b, 1)), shape);
}

const number = (x, otherwise, argument) => {
  if (x == null) return otherwise;
  if (typeof x !== 'number') throw new AttendError('INVALID_VALUE', argument, 'expected a number');
  return x;
};

// What C receives as an integer: anything else would be cut off or wrap.
const integer = (x, otherwise, argument, bits = 63) => {
  const n = number(x, otherwise, argument);
  if (Number.isInteger(n) && Math.abs(n) < 2 ** bits) return n;
  throw new AttendError('INVALID_VALUE', argument, `expected an integer of ${bits} bits`);
};

function expect(v, argument, rank = 1) {
  if (!v) throw new AttendError('NULL_POINTER', argument, 'is required');
  if (v.shape.length < rank) throw new AttendError('INVALID_RANK', argument, `needs ${rank} dimensions`);
  return v;
}

const prepare = {
  matmul(a, b, options = {}) {
    a = expect(operand(a, 'a', FLOATS), 'a', 2);
    b = expect(operand(b, 'b', FLOATS), 'b', 2);
    const lead = a.shape.length >= b.shape.length ? a.shape.slice(0, -2) : b.shape.slice(0, -2);
    const out = result(options.out, 'out', a.data, [...lead.map((n, i) => {
      const other = (a.shape.length >= b.shape.length ? b : a).shape.slice(0, -2);
      const j = i - (lead.length - other.length);
      return j >= 0 ? Math.max(n, other[j]) : n;
    }), a.shape.at(-2), b.shape.at(-1)]);
    // (A B)^T = B^T A^T
    const operands = [reversed(b), reversed(a), reversed(out), reversed(operand(options.bias, 'bias', FLOATS))];
    return [out, pack('matmul', operands, [0, integer(options.threads, 0, 'threads', 31), number(options.alpha, 1, 'alpha'),
      number(options.beta, 0, 'beta')])];
  },

  softmax(x, options = {}) {
    x = expect(operand(x, 'x', FLOATS), 'x');
    const rank = x.shape.length, given = number(options.axis, -1, 'axis'), axis = given < 0 ? given + rank : given;
    if (!(Number.isInteger(axis) && axis >= 0 && axis < rank)) throw new AttendError('INVALID_VALUE', 'axis', 'there is no such axis');
    const out = result(options.out, 'out', x.data, x.shape);
    // The axis becomes the rows, the others follow in reverse.
    const order = [axis, ...[...x.shape.keys()].reverse().filter((i) => i !== axis)];
    const turn = (v) => {
      if (!v) return v;
      const missing = rank - v.shape.length;
      if (missing < 0) throw new AttendError('INVALID_SHAPE', '', 'mask and bias have at most the dimensions of x');
      const shape = [...new Array(missing).fill(1), ...v.shape], strides = [...new Array(missing).fill(0), ...v.strides];
      return { ...v, shape: order.map((i) => shape[i]), strides: order.map((i) => strides[i]) };
    };
    const lse = operand(options.lse, 'lse', FLOATS);
    const operands = [turn(x), turn(out), turn(operand(options.mask, 'mask', [Uint8Array])),
      turn(operand(options.bias, 'bias', FLOATS)), row(lse)];
    return [out, pack('softmax', operands, [options.log ? 1 : 0, integer(options.threads, 0, 'threads', 31),
      number(options.scale, 1, 'scale')])];
  },

  attention(q, k, v, options = {}) {
    [q, k, v] = [['q', q], ['k', k], ['v', v]].map(([name, x]) => expect(operand(x, name, FLOATS), name, 2));
    const out = result(options.out, 'out', q.data, [...q.shape.slice(0, -1), v.shape.at(-1)]);
    const [operands, scalars, lists] = attentionOptions(options, out.shape.length === 4 ? out.shape[0] : 1);
    return [out, pack('attention', [...[q, k, v, out].map(reversed), ...operands], scalars, lists)];
  },

  merge(outA, lseA, outB, lseB, options = {}) {
    const outs = [['out_a', outA], ['out_b', outB]].map(([n, x]) => expect(operand(x, n, FLOATS), n, 2));
    const lses = [['lse_a', lseA], ['lse_b', lseB]].map(([n, x]) => expect(operand(x, n, FLOATS), n));
    const operands = [reversed(outs[0]), row(lses[0]), reversed(outs[1]), row(lses[1])];
    return [outs[0], pack('merge', operands, [0, integer(options.threads, 0, 'threads', 31)])];
  },

  selfAttention(x, weights, options = {}) {
    x = expect(operand(x, 'x', FLOATS), 'x', 2);
    const w = (name) => operand(weights[name], `weights.${name}`, FLOATS);
    const [wq, wk, wv, wo] = ['wq', 'wk', 'wv', 'wo'].map((name) => (name === 'wo' ? w(name) : expect(w(name), `weights.${name}`, 2)));
    // [batch, N, D] is (D, N, 1, batch).
    const input = reversed(x);
    if (x.shape.length === 3) { input.shape.splice(2, 0, 1); input.strides.splice(2, 0, 0); }
    const items = x.shape.at(-2), batch = x.shape.slice(0, -2);
    const heads = wq.shape.length > 2 ? [wq.shape[0]] : [];
    const out = result(options.out, 'out', x.data, wo ? [...batch, items, wo.shape.at(-2)] : [...batch, ...heads, items, wv.shape.at(-2)]);
    const output = reversed(out);
    if (output.shape.length === 3 && batch.length === 1) { output.shape.splice(2, 0, 1); output.strides.splice(2, 0, 0); }
    const [operands, scalars, lists] = attentionOptions(options, batch[0] ?? 1);
    return [out, pack('selfAttention', [input, output, weight(wq), weight(wk), weight(wv), column(w('bq')), column(w('bk')),
      column(w('bv')), weight(wo), reversed(w('bo')), ...operands], scalars, lists)];
  },
};

function attentionOptions(options, batch) {
  const one = (name, types = FLOATS) => operand(options[name], name, types);
  let flags = 0;
  if (options.causal != null) {
    flags = CAUSAL[options.causal];
    if (!flags) throw new AttendError('INVALID_VALUE', 'causal', "'top-left' or 'bottom-right'");
  }
  const stage = STAGES[options.scoresStage ?? 'scaled'];
  if (stage === undefined) throw new AttendError('INVALID_VALUE', 'scoresStage', Object.keys(STAGES).join(', '));
  if (options.window) flags |= 4;
  const [left, right] = options.window ?? [0, 0];
  const lists = ['queryOffsets', 'kvLengths', 'kvFirst'].map((name) => {
    if (options[name] == null) return null;
    if (options[name].length < batch) throw new AttendError('INVALID_SHAPE', name, 'one number for each batch is needed');
    return BigInt64Array.from(options[name], (given) => {
      const n = BigInt(given);
      if (BigInt.asIntN(64, n) !== n) throw new AttendError('INVALID_VALUE', name, 'expected integers of 64 bits');
      return n;
    });
  });
  const operands = [reversed(one('mask', [Uint8Array])), ...['bias', 'alibiSlopes', 'sinks'].map((n) => reversed(one(n))),
    row(one('lse')), reversed(one('scores'))];
  const scalars = [flags, integer(options.threads, 0, 'threads', 31), number(options.scale, 0, 'scale'),
    number(options.softcap, 0, 'softcap'), integer(options.queryOffset, 0, 'queryOffset'),
    integer(left, 0, 'window'), integer(right, 0, 'window'), stage];
  return [operands, scalars, lists];
}

const sync = {}, promises = {};
for (const [name, ready] of Object.entries(prepare)) {
  sync[name] = (...given) => {
    const [out, call] = ready(...given);
    check(native.run(...call));
    return out;
  };
  promises[name] = async (...given) => {
    const [out, call] = ready(...given);
    check(await native.runLater(...call));
    return out;
  };
}

module.exports = {
  AttendError, view, ...sync, promises,
  isa: native.isa,
  setIsa: (name) => check(native.setIsa(name ?? '')),
  version: native.version,
  threads: native.threads,
  setThreads: (n) => check(native.setThreads(integer(n, 0, 'threads', 31))),
};
