// Compiled by the tests, not run: what the declarations promise, and what they refuse.
import * as attend from '../index.mjs';

const x: attend.View = { data: new Float32Array(12), shape: [3, 4] };
const y: Required<attend.View> = attend.attention(x, x, x, { causal: 'top-left', window: [4, 0], mask: new Uint8Array(9) });
const later: Promise<Required<attend.View>> = attend.promises.softmax(x, { axis: 0, out: x });
const name: string = attend.isa();
const small = attend.convert(x, { dtype: 'int8', scale: new Float32Array(3), computeScale: true }) as Required<attend.View<Int8Array>>;
const narrow: attend.View = { data: new Uint16Array(12), shape: [3, 4], dtype: 'bfloat16' };
attend.attention(narrow, small, x, { kScale: new Float32Array(1) });
const sums = attend.matmul(small, small, { aZero: new Int32Array(1) }).data satisfies Int32Array | Float32Array;
attend.matmul(narrow, narrow, { nativeDot: true });
const pages: attend.View<Int32Array> = { data: new Int32Array(4), shape: [2, 2] };
attend.attention(x, small, small, { pages, kvLengths: [3, 4], queryStarts: BigInt64Array.of(0n, 1n, 3n) as unknown as number[] });
attend.attention(x, x, x, { state: attend.attention(x, x, x, { pauses: true }), keyOffset: 256 });
attend.kvAppend(x, null, small, null, { slots: [0, -1, 2], kScale: new Float32Array(3), computeKScale: true });
const turned: Required<attend.View> = attend.rotary(x, x, x, { offsets: [1], out: x });
const appended: Promise<void> = attend.promises.kvAppend(x, x, x, x, { pages, cos: x, sin: x });
// @ts-expect-error pages are int32
attend.attention(x, x, x, { pages: x });
// @ts-expect-error x is packed with its keys
attend.selfAttention(x, { wq: x, wk: x, wv: x }, { keyStarts: [0, 3] });
// @ts-expect-error and has all of them
attend.selfAttention(x, { wq: x, wk: x, wv: x }, { pauses: true });
// @ts-expect-error zero points are int32
attend.matmul(small, small, { aZero: new Float32Array(1) });
// @ts-expect-error projections are of floats
attend.selfAttention(small, { wq: x, wk: x, wv: x });
// @ts-expect-error there is no such type
attend.convert(x, { dtype: 'f32' });
// @ts-expect-error there is no such causal mask
attend.attention(x, x, x, { causal: true });
// @ts-expect-error integers are not computed in
attend.softmax(new Int32Array(3));
// @ts-expect-error an array has a shape
attend.matmul({ data: new Float32Array(4) }, x);
export { y, later, name, sums, turned, appended };
