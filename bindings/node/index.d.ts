/** attend: matrix multiply, column softmax and fused attention on CPUs. Shapes are NumPy's, [..., N, D]. */

/** Element types. A Uint16Array is of bits, and a view of one needs a dtype; float8_e4m3 is 8 bits of a Uint8Array ("fn": the largest is 448). */
export type Dtype = 'float32' | 'float64' | 'bfloat16' | 'float16' | 'int8' | 'uint8' | 'int32' | 'float8_e4m3';

/** Where the runtime and its declarations have it. */
type Half = typeof globalThis extends { Float16Array: { readonly prototype: infer T } } ? T : never;

/** What is computed with: in float32 each in its own of float32, bfloat16 and float16, rounded once; or all in float64. */
export type Floats = Float32Array | Float64Array | Uint16Array | Half;
/** Keys and values: Int8Array with scales, float8_e4m3 with or without. */
export type Stored = Floats | Int8Array | Uint8Array;
export type Numbers = Stored | Int32Array;

/** A typed array with shape, strides and offset, in elements; nothing is copied. Strides may be negative, in inputs 0. */
export interface View<T = Floats> {
  data: T;
  shape: number[];
  strides?: number[];
  offset?: number;
  /** What the array alone says by default: float16 of a Float16Array, uint8 of a Uint8Array. */
  dtype?: Dtype;
}

/** A view, or a typed array of one dimension. */
export type Operand<T = Floats> = View<T> | T;

/** A row-major view unless strides say otherwise. Whether it stays in its array is checked by the call it is given to. */
export function view<T extends Numbers>(data: T, shape?: readonly number[], strides?: readonly number[], offset?: number, dtype?: Dtype): Required<View<T>>;

/** Why a call was refused; nothing was written then. */
export class AttendError extends Error {
  /** 'ATTEND_INVALID_SHAPE' and so on, the names of attend.h. */
  readonly code: string;
  /** The argument or option at fault as it is called here, or ''. The message begins with it and has the numbers. */
  readonly argument: string;
}

export interface Threads {
  /** At most so many; 0 = threads(). */
  threads?: number;
}

/** Of int8 and uint8 a counts as aScale (a - aZero), b likewise: of a [..., M, 1], of b [..., 1, N], broadcast. */
export interface MatmulOptions extends Threads {
  out?: Operand<Floats | Int32Array>;
  alpha?: number;
  beta?: number;
  /** Broadcast to the result. */
  bias?: Operand<Floats | Int32Array>;
  aScale?: Operand<Float32Array>;
  bScale?: Operand<Float32Array>;
  aZero?: Operand<Int32Array>;
  bZero?: Operand<Int32Array>;
  /**
   * Allows the CPU's dot products of bfloat16 where both factors are bfloat16: up to twice the speed where isa() is avx512bf16, within
   * attend.h's error bound, not the bits of other CPUs; elsewhere without effect.
   */
  nativeDot?: boolean;
}

export interface SoftmaxOptions extends Threads {
  /** -1, the last, by default. */
  axis?: number;
  /** May be x itself. */
  out?: Operand;
  log?: boolean;
  scale?: number;
  /** 0 = takes no part; broadcast to x. */
  mask?: Operand<Uint8Array>;
  bias?: Operand;
  /** Receives the log-sum-exp, float32 (of float64 float64): the shape of x without the axis. */
  lse?: Operand;
}

/** All of them compose. */
export interface SelfAttentionOptions extends Threads {
  out?: Operand;
  causal?: 'top-left' | 'bottom-right';
  /** Keys to the left and right of each query; -1 = no bound. */
  window?: [number, number];
  /** 1 / sqrt(D) by default. */
  scale?: number;
  softcap?: number;
  queryOffset?: number;
  /** One for each batch. */
  queryOffsets?: ArrayLike<number>;
  kvLengths?: ArrayLike<number>;
  /** Where the keys of each batch begin: padding on the left. */
  kvFirst?: ArrayLike<number>;
  /**
   * Packed sequences, without padding: the rows of q [H, total, D] where they begin, and the total, so one number more than there are
   * sequences. What is one for each batch is one for each sequence then. selfAttention packs x, with its keys.
   */
  queryStarts?: ArrayLike<number>;
  /** [..., Nq, Nk], broadcast; 0 = hidden. */
  mask?: Operand<Uint8Array>;
  bias?: Operand;
  alibiSlopes?: Operand;
  sinks?: Operand;
  /** Receives [..., Nq], float32 (of float64 float64). */
  lse?: Operand;
  /** Receives [..., Nq, Nk], the same. */
  scores?: Operand;
  scoresStage?: 'scaled' | 'softcapped' | 'masked' | 'probabilities';
}

export interface AttentionOptions extends SelfAttentionOptions {
  /** The same of k and v; a side that is not packed has the sequences as its batch. */
  keyStarts?: ArrayLike<number>;
  /**
   * [batch, most pages of a sequence]: k and v are pools [pages, Hkv, page size, D], and key j of a batch is row j % size of the page that
   * column floor(j / size) names. Needs kvLengths; only entries for keys that exist are read.
   */
  pages?: Operand<Int32Array>;
  /**
   * More keys follow in another call, which together give the bits of one. The result is the state, [..., Nq, 2 (Dv + 2)] of float32 (of
   * float64 float64). Such a piece has a multiple of 256 keys.
   */
  pauses?: boolean;
  /** What the call before gave, which paused. This one goes on from it: it overwrites and returns it if it pauses too, and else only reads it. */
  state?: Operand;
  /** How many keys the calls before had, which moves causal masks, windows and ALiBi. mask, bias and kvLengths are of the keys of the call. */
  keyOffset?: number;
  /** What one step of a key of 8 bits stands for, needed with int8: [..., Nk, 1], one for each key, or [..., 1, D], for each feature. */
  kScale?: Operand<Float32Array>;
  /** The same of v. */
  vScale?: Operand<Float32Array>;
}

export interface ConvertOptions extends Threads {
  /** Of a new result, which is a Float16Array, if there are such, for float16. */
  dtype?: Dtype;
  out?: Operand<Numbers>;
  /** Of int8, uint8 or float8_e4m3: y = scale x from them, x / scale to them. [..., N, 1] by item, [1, D] by feature, or [1]. */
  scale?: Operand<Float32Array>;
  /** To int8 and float8_e4m3: scale is written first, the largest magnitude that it stands for over 127 or 448. */
  computeScale?: boolean;
}

export interface RotaryOptions extends Threads {
  /** May be x itself. */
  out?: Operand;
  /** So many features, an even number, are rotated, the others copied; all by default. */
  rotaryDims?: number;
  /** Pairs are features 2i and 2i + 1, not i and i + rotaryDims / 2. */
  interleaved?: boolean;
  /** By the opposite angle. */
  inverse?: boolean;
  /** One for each item, in the order of a [batch, N]. */
  positions?: ArrayLike<number>;
  /** One for each batch, instead: the position of its first item; 0 by default. */
  offsets?: ArrayLike<number>;
  /** Packed sequences: the rows of x [H, total, D] where they begin, and the total. */
  starts?: ArrayLike<number>;
}

export interface KvAppendOptions extends Threads {
  /** Packed sequences: the rows of k [Hkv, total, D] where they begin, and the total. */
  starts?: ArrayLike<number>;
  /** One for each batch: the row of its cache where its first new item goes, the length before; 0 by default. */
  offsets?: ArrayLike<number>;
  /** One for each item, instead: page * page size + row (without pages batch * capacity + row); -1 = it goes nowhere. */
  slots?: ArrayLike<number>;
  /** As in AttentionOptions: the caches are pools. */
  pages?: Operand<Int32Array>;
  /** Of a cache of int8, which needs one, or float8_e4m3: as in AttentionOptions. */
  kScale?: Operand<Float32Array>;
  vScale?: Operand<Float32Array>;
  /** The scale of each new item and head is written: kScale is [..., capacity, 1]. */
  computeKScale?: boolean;
  computeVScale?: boolean;
  /** Tables as in rotary, both or none: k is not rotated. */
  cos?: Operand;
  sin?: Operand;
  /** The next three as in RotaryOptions. */
  rotaryDims?: number;
  positions?: ArrayLike<number>;
  interleaved?: boolean;
}

/** Weights [heads, out, in] or [out, in], biases [heads, out] or [out]. */
export interface Weights {
  wq: Operand;
  wk: Operand;
  wv: Operand;
  bq?: Operand;
  bk?: Operand;
  bv?: Operand;
  wo?: Operand;
  bo?: Operand;
}

type Bytes = Int8Array | Uint8Array;
type Product<A, B> = A extends Bytes ? (B extends Bytes ? Int32Array | Float32Array : Floats) : Floats;

interface Functions<R> {
  /** New results are of the first operand's type, here as elsewhere. */
  softmax(x: Operand, options?: SoftmaxOptions): R;
  /** q [batch, H, Nq, D], k [batch, Hkv, Nk, D], v [batch, Hkv, Nk, Dv]; leading axes may be left out. */
  attention(q: View, k: View<Stored>, v: View<Stored>, options?: AttentionOptions): R;
  /** (outA, lseA) become the attention over the union of two disjoint key sets. */
  merge(outA: View, lseA: Operand, outB: View, lseB: Operand, options?: Threads): R;
  /** x [batch, N, D] or [N, D]; the result is [batch, H, N, Dv], or with wo [batch, N, Dout]. */
  selfAttention(x: View, weights: Weights, options?: SelfAttentionOptions): R;
  /** Each pair of features of x [batch, H, N, D] turned by the angle of its position; cos, sin [positions, rotaryDims / 2], or [batch, H, ...]. */
  rotary(x: View, cos: View, sin: View, options?: RotaryOptions): R;
}

/**
 * a @ b: [..., M, K] and [..., K, N]. Of int8 and uint8 a new result is int32, exact, or with a scale float32; of int8 beside floats it has
 * their type.
 */
export function matmul<A extends Stored, B extends Stored>(a: View<A>, b: View<B>, options?: MatmulOptions): Required<View<Product<A, B>>>;
export const softmax: Functions<Required<View>>['softmax'];
export const attention: Functions<Required<View>>['attention'];
export const merge: Functions<Required<View>>['merge'];
export const selfAttention: Functions<Required<View>>['selfAttention'];
/** x in another element type, rounded once, to nearest even; integers and float8_e4m3 take the nearest that there is. out may be x itself. */
export function convert(x: Operand<Numbers>, options: ConvertOptions): Required<View<Numbers>>;

export const rotary: Functions<Required<View>>['rotary'];
/**
 * New keys and values into their caches, k rotated if there are tables, both converted to the types of the caches: k [batch, Hkv, new, D],
 * caches [batch, Hkv, capacity, D], or pools. v and vCache may both be null. What is no new item's stays as it is.
 */
export function kvAppend(k: View, v: View | null, kCache: View<Stored>, vCache: View<Stored> | null, options?: KvAppendOptions): void;

/** The same on libuv's threads: the event loop goes on. The arrays must not be written, transferred or resized meanwhile. */
export const promises: Functions<Promise<Required<View>>> & {
  matmul<A extends Stored, B extends Stored>(a: View<A>, b: View<B>, options?: MatmulOptions): Promise<Required<View<Product<A, B>>>>;
  convert(x: Operand<Numbers>, options: ConvertOptions): Promise<Required<View<Numbers>>>;
  kvAppend(k: View, v: View | null, kCache: View<Stored>, vCache: View<Stored> | null, options?: KvAppendOptions): Promise<void>;
};

/** The instruction set in use. */
export function isa(): string;
export function setIsa(name: string | null): void;
/** Of the library: 10000 * major + 100 * minor + patch. */
export function version(): number;
export function threads(): number;
export function setThreads(threads: number): void;
