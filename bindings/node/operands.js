'use strict';
// What calls are made of: views of typed arrays, numbers, lists of integers, and what is said of a failure.

const native = require(process.env.ATTEND_NODE_ADDON || './build/attend.node');

const FUNCTION = { matmul: 0, softmax: 1, attention: 2, merge: 3, selfAttention: 4, convert: 5, rotary: 6, kvAppend: 7 };
const CODES = [null, 'NULL_POINTER', 'INVALID_STRUCT_SIZE', 'INVALID_RANK', 'INVALID_DTYPE', 'INVALID_SHAPE',
  'INVALID_STRIDE', 'INVALID_VALUE', 'OVERFLOW', 'OVERLAP', 'UNSUPPORTED', 'WORKSPACE_TOO_SMALL', 'OUT_OF_MEMORY',
  'UNKNOWN_ISA'];

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
  convert: { y: 'out', flags: 'computeScale' }, rotary: { y: 'out' } };
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

// Flags are options of their own here: the one that a sentence is about.
function flagOf(sentence, call) {
  if (!sentence.startsWith('options.flags: ')) return undefined;
  if (call === 'attention') return 'causal';
  if (call !== 'kvAppend') return undefined;
  return sentence.includes('INTERLEAVED') ? 'interleaved' : sentence.includes("k_cache's") ? 'computeKScale' : 'computeVScale';
}

// words() is asked of a failure alone.
function check(outcome, call, words = () => REVERSED) {
  if (outcome === 0) return;
  const [status, sentence] = outcome, argument = flagOf(sentence, call) ?? nameOf(native.argument(status), call);
  if (!sentence) throw error(status, argument, native.message(status));
  const [, given, rest] = /^(?:([\w.]+): )?(.*?)\.?$/s.exec(sentence);
  const counts = words();
  const flagged = rest.replace(/has ATTEND_(COMPUTE_SCALE|COMPUTE_V_SCALE|ROTARY_INTERLEAVED)/, 'is set')
    .replace('has ATTEND_CAUSAL_BOTTOM_RIGHT', "is 'bottom-right'").replace('ATTEND_COMPUTE_SCALE', 'computeScale').replace('options.cos', 'cos');
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

function pack(name, operands, scalars, lists = []) {
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

// A list of the caller's as C takes it, of 64-bit integers.
function integers(options, name) {
  if (options[name] == null) return null;
  return BigInt64Array.from(options[name], (given) => {
    const n = BigInt(given);
    if (BigInt.asIntN(64, n) !== n) throw new AttendError('INVALID_VALUE', name, `has ${n}, but must have integers of 64 bits.`);
    return n;
  });
}

function perBatch(options, name, batch) {
  const list = integers(options, name);
  if (list && list.length < batch) throw new AttendError('INVALID_SHAPE', name, `has ${list.length} numbers for ${batch} batches.`);
  return list;
}

// One for each item, in the order of a [batch, N].
function perItem(options, name, v) {
  const list = integers(options, name), items = v.shape.at(-2) * batchOf(v);
  if (list && list.length !== items) throw new AttendError('INVALID_SHAPE', name, `has ${list.length} numbers for ${items} items.`);
  return list;
}

// Where packed sequences begin and the last ends: [list, number of sequences], as many as `sequences` unless that is 0.
function startsOf(options, name, sequences = 0) {
  const list = integers(options, name);
  if (!list) return [null, sequences];
  const fail = (message) => { throw new AttendError('INVALID_SHAPE', name, `has ${list.length} numbers${message}`); };
  if (list.length < 2) fail(', but sequences have a beginning and an end.');
  if (sequences && list.length !== sequences + 1) fail(` for ${sequences} sequences and their end.`);
  return [list, list.length - 1];
}

const batchOf = (v) => (v.shape.length === 4 ? v.shape[0] : 1);

module.exports = { native, error, AttendError, NUMBERS, ALL, MATRICES, along, check, expectKnown, view, operand, reversed, weight, row,
  column, pack, result, number, integer, expect, perBatch, perItem, startsOf, batchOf };
