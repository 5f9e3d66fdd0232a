'use strict';
// attend from JavaScript: views of typed arrays, NumPy's conventions for shapes. See index.d.ts for what there is.

const native = require(process.env.ATTEND_NODE_ADDON || './build/attend.node');

const FUNCTION = { matmul: 0, softmax: 1, attention: 2, merge: 3, selfAttention: 4, convert: 5 };
const CODES = [null, 'NULL_POINTER', 'INVALID_STRUCT_SIZE', 'INVALID_RANK', 'INVALID_DTYPE', 'INVALID_SHAPE',
  'INVALID_STRIDE', 'INVALID_VALUE', 'OVERFLOW', 'OVERLAP', 'UNSUPPORTED', 'WORKSPACE_TOO_SMALL', 'OUT_OF_MEMORY',
  'UNKNOWN_ISA'];
const CAUSAL = { 'top-left': 1, 'bottom-right': 2 };
const STAGES = { scaled: 0, softcapped: 1, masked: 2, probabilities: 3 };

// Element types by the library's names, and the arrays that hold them: the first is that of new ones.
const { Float16Array } = globalThis; // of newer runtimes
const ARRAYS = { float32: [Float32Array], float64: [Float64Array], bfloat16: [Uint16Array],
  float16: [Float16Array, Uint16Array].filter(Boolean), int8: [Int8Array], uint8: [Uint8Array], bool: [Uint8Array],
  int32: [Int32Array], float8_e4m3: [Uint8Array] };
const NUMBERS = Object.keys(ARRAYS).filter((dtype) => dtype !== 'bool'), ALL = NUMBERS.join(', ');
// Without a word on it an array is of the type that it alone holds; a Uint16Array is of none.
const OWN = [['float16', Float16Array], ['float32', Float32Array], ['float64', Float64Array], ['int8', Int8Array],
  ['uint8', Uint8Array], ['int32', Int32Array]].filter(([, Type]) => Type);
const dtypeOf = (data) => OWN.find(([, Type]) => data instanceof Type)?.[0];

class AttendError extends Error {
  constructor(code, argument, message) {
    super(argument ? `${argument}: ${message}` : message);
    this.name = 'AttendError';
    this.code = `ATTEND_${code}`;
    this.argument = argument;
  }
}

const error = (status, argument, message) => new AttendError(CODES[status & 0xff] ?? 'ERROR', argument, message);

// The library's words with the names that things have here.
const RENAMED = { window_left: 'window', softmax: { y: 'out' },
  matmul: { a: 'b', b: 'a', c: 'out', a_scale: 'bScale', b_scale: 'aScale', a_zero: 'bZero', b_zero: 'aZero' },
  convert: { y: 'out', flags: 'computeScale' } };
function nameOf(name, call) {
  const field = name.replace(/^(attention_)?options\./, '');
  if (field.startsWith('weights.')) return field.replace('_', '');
  return RENAMED[call]?.[field] ?? RENAMED[field] ?? field.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
}

// What the dimensions of attend.h's tensors count here: axes are reversed.
const REVERSED = { row: 'column', rows: 'columns', column: 'row', columns: 'rows' };
const along = (...axes) => Object.fromEntries(axes.flatMap((axis, i) =>
  [['row', 'rows'], ['column', 'columns'], ['head', 'heads'], ['batch', 'batches']][i].map((w) => [w, `along axis ${axis}`])));
const MATRICES = { ...along(-1, -2, -3, -4), ...REVERSED };

// words() is asked of a failure alone.
function check(outcome, call, words = () => REVERSED) {
  if (outcome === 0) return;
  const [status, sentence] = outcome, argument = nameOf(native.argument(status), call);
  if (!sentence) throw error(status, argument, native.message(status));
  const [, given, rest] = /^(?:([\w.]+): )?(.*?)\.?$/s.exec(sentence);
  const counts = words();
  const flagged = rest.replace('has ATTEND_COMPUTE_SCALE', 'is set').replace('ATTEND_COMPUTE_SCALE', 'computeScale');
  const said = flagged.replace(/([\w.]+)'s|\w+/g, (word, owner) => {
    if (owner) return `${nameOf(owner, call)}'s`;
    return given?.startsWith('weights.') ? word : counts[word] ?? word;
  });
  throw error(status, argument, `${said}.`);
}

// The name among these that is least far from the given one.
function nearest(given, names) {
  const distance = (a, b) => {
    let row = [...Array(b.length + 1).keys()];
    for (let i = 1; i <= a.length; i++) {
      const next = [i];
      for (let j = 1; j <= b.length; j++)
        next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] !== b[j - 1]));
      row = next;
    }
    return row[b.length];
  };
  const plain = (s) => s.toLowerCase().replaceAll('_', '');
  const ranked = names.map((name) => [distance(plain(given), plain(name)), name]).sort(([m], [n]) => m - n);
  return ranked[0][0] <= given.length / 2 ? `did you mean ${ranked[0][1]}?` : `there are ${names.join(', ')}.`;
}

function expectKnown(given, names, prefix = '') {
  for (const name in given) {
    if (!names.includes(name)) throw new AttendError('INVALID_VALUE', prefix + name, `is unknown: ${nearest(name, names)}`);
  }
}

// A typed array as an array of the given shape; strides and offset count elements.
function view(data, shape = [data.length], strides, offset = 0, dtype = dtypeOf(data)) {
  return { data, shape: [...shape], strides: strides ? [...strides] : dense(shape), offset, dtype };
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

// A checked copy of what the caller gave: a view, {data, shape}, or a typed array of one dimension. Which types go
// together the library knows.
function operand(given, argument, mask = false) {
  if (given == null) return null;
  const v = ArrayBuffer.isView(given) ? view(given) : view(given.data ?? [], given.shape ?? [], given.strides, given.offset, given.dtype);
  const fail = (code, message) => { throw new AttendError(code, argument, message); };
  const name = v.data?.constructor?.name ?? typeof v.data, bits = v.data instanceof Uint16Array;
  if (mask) v.dtype = v.data instanceof Uint8Array ? 'bool' : fail('INVALID_DTYPE', `is ${name}; Uint8Array is needed.`);
  else if (v.dtype === undefined && bits) fail('INVALID_DTYPE', `is ${name}, which needs a dtype: bfloat16 or float16.`);
  else if (v.dtype === undefined) fail('INVALID_DTYPE', `is ${name}; a typed array of ${ALL} is needed.`);
  else if (!NUMBERS.includes(v.dtype)) fail('INVALID_DTYPE', `has dtype ${String(v.dtype)}, not one of ${ALL}.`);
  else if (!ARRAYS[v.dtype].some((one) => v.data instanceof one)) fail('INVALID_DTYPE', `is ${name}, which holds no ${v.dtype}.`);
  if (v.shape.length < 1 || v.shape.length > 4) fail('INVALID_RANK', `has ${v.shape.length} dimensions, not 1 to 4.`);
  if (v.strides.length !== v.shape.length) fail('INVALID_STRIDE', `has ${v.strides.length} strides for ${v.shape.length} dimensions.`);
  if (!v.shape.every((n) => Number.isSafeInteger(n) && n >= 0)) fail('INVALID_SHAPE', `has shape [${v.shape}], but extents are integers from 0 up.`);
  if (![...v.strides, v.offset].every(Number.isSafeInteger)) fail('INVALID_STRIDE', `has strides [${v.strides}] and offset ${v.offset}, but they must be integers.`);
  if (v.shape.includes(0)) return { ...v, offset: 0 };
  const [first, last] = reach(v);
  if (!(first >= 0 && last < v.data.length)) fail('INVALID_SHAPE', `the view reaches elements ${first} to ${last} of an array of ${v.data.length}.`);
  return v;
}

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

// Node-API does not know a Float16Array everywhere.
const memory = (data) => (Float16Array && data instanceof Float16Array ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data);

function pack(name, operands, scalars, lists = [null, null, null]) {
  const numbers = new Float64Array(operands.length * 12);
  operands.forEach((v, i) => {
    if (!v) return;
    numbers[12 * i] = v.shape.length;
    numbers.set(v.shape.slice(0, 4), 12 * i + 1);
    numbers.set(v.strides.slice(0, 4), 12 * i + 5);
    numbers[12 * i + 9] = v.offset;
    numbers[12 * i + 10] = v.shape.includes(0) ? 0 : reach(v)[1] + 1;
    numbers[12 * i + 11] = 1 + Object.keys(ARRAYS).indexOf(v.dtype);
  });
  return [FUNCTION[name], operands.map((v) => v && memory(v.data)), numbers, Float64Array.from(scalars), lists];
}

// Elements of a new array have the type of `like`, which may be the name of one.
function result(given, argument, like, shape) {
  if (given != null) return operand(given, argument);
  const dtype = like.dtype ?? like, Type = ARRAYS[dtype].find((one) => like.data instanceof one) ?? ARRAYS[dtype][0];
  return view(new Type(shape.reduce((a, b) => a * b, 1)), shape, undefined, 0, dtype);
}

const number = (x, otherwise, argument) => {
  if (x == null) return otherwise;
  if (typeof x !== 'number') throw new AttendError('INVALID_VALUE', argument, `is ${String(x)} (${typeof x}), but must be a number.`);
  return x;
};

// What C receives as an integer: anything else would be cut off or wrap.
const integer = (x, otherwise, argument, bits = 63) => {
  const n = number(x, otherwise, argument);
  if (Number.isInteger(n) && Math.abs(n) < 2 ** bits) return n;
  throw new AttendError('INVALID_VALUE', argument, `is ${n}, but must be an integer of ${bits} bits.`);
};

function expect(v, argument, rank = 1) {
  if (!v) throw new AttendError('NULL_POINTER', argument, 'is missing, but required.');
  if (v.shape.length < rank) throw new AttendError('INVALID_RANK', argument, `has ${v.shape.length} dimensions, but needs ${rank} or more.`);
  return v;
}

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
    return [out, pack('matmul', operands, [0, integer(options.threads, 0, 'threads', 31), number(options.alpha, 1, 'alpha'),
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
    const out = result(options.out, 'out', q, [...q.shape.slice(0, -1), v.shape.at(-1)]);
    const [operands, scalars, lists] = attentionOptions(options, out.shape.length === 4 ? out.shape[0] : 1);
    const scales = ['kScale', 'vScale'].map((name) => operand(options[name], name));
    return [out, pack('attention', [...[q, k, v, out].map(reversed), ...operands, ...scales.map(reversed)], scalars, lists)];
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
    const [operands, scalars, lists] = attentionOptions(options, batch[0] ?? 1);
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
};

function attentionOptions(options, batch) {
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
  const lists = ['queryOffsets', 'kvLengths', 'kvFirst'].map((name) => {
    if (options[name] == null) return null;
    if (options[name].length < batch) throw new AttendError('INVALID_SHAPE', name, `has ${options[name].length} numbers for ${batch} batches.`);
    return BigInt64Array.from(options[name], (given) => {
      const n = BigInt(given);
      if (BigInt.asIntN(64, n) !== n) throw new AttendError('INVALID_VALUE', name, `has ${n}, but must have integers of 64 bits.`);
      return n;
    });
  });
  const operands = [reversed(one('mask', true)), ...['bias', 'alibiSlopes', 'sinks'].map((n) => reversed(one(n))),
    row(one('lse')), reversed(one('scores'))];
  const scalars = [flags, integer(options.threads, 0, 'threads', 31), number(options.scale, 0, 'scale'),
    number(options.softcap, 0, 'softcap'), integer(options.queryOffset, 0, 'queryOffset'),
    integer(left, 0, 'window'), integer(right, 0, 'window'), stage];
  return [operands, scalars, lists];
}

const ATTENTION = ['out', 'causal', 'window', 'scale', 'softcap', 'queryOffset', 'queryOffsets', 'kvLengths', 'kvFirst', 'mask',
  'bias', 'alibiSlopes', 'sinks', 'lse', 'scores', 'scoresStage', 'threads'];
const OPTIONS = { matmul: ['out', 'alpha', 'beta', 'bias', 'aScale', 'bScale', 'aZero', 'bZero', 'threads'],
  softmax: ['axis', 'out', 'log', 'scale', 'mask', 'bias', 'lse', 'threads'],
  attention: [...ATTENTION, 'kScale', 'vScale'], merge: ['threads'], selfAttention: ATTENTION,
  convert: ['dtype', 'out', 'scale', 'computeScale', 'threads'] };
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
