/** attend: matrix multiply, column softmax and fused attention on CPUs. Shapes are NumPy's, [..., N, D]. */

export type Floats = Float32Array | Float64Array;

/** A typed array with shape, strides and offset, in elements; nothing is copied. Strides may be negative, in inputs 0. */
export interface View<T = Floats> {
  data: T;
  shape: number[];
  strides?: number[];
  offset?: number;
}

/** A view, or a typed array of one dimension. */
export type Operand<T = Floats> = View<T> | T;

/** A row-major view unless strides say otherwise. Whether it stays in its array is checked by the call it is given to. */
export function view<T extends Floats | Uint8Array>(data: T, shape?: readonly number[], strides?: readonly number[], offset?: number): Required<View<T>>;

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

export interface MatmulOptions extends Threads {
  out?: Operand;
  alpha?: number;
  beta?: number;
  /** Broadcast to the result. */
  bias?: Operand;
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
  /** Receives the log-sum-exp: the shape of x without the axis. */
  lse?: Operand;
}

/** All of them compose. */
export interface AttentionOptions extends Threads {
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
  /** [..., Nq, Nk], broadcast; 0 = hidden. */
  mask?: Operand<Uint8Array>;
  bias?: Operand;
  alibiSlopes?: Operand;
  sinks?: Operand;
  /** Receives [..., Nq]. */
  lse?: Operand;
  /** Receives [..., Nq, Nk]. */
  scores?: Operand;
  scoresStage?: 'scaled' | 'softcapped' | 'masked' | 'probabilities';
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

interface Functions<R> {
  /** a @ b: [..., M, K] and [..., K, N]. */
  matmul(a: View, b: View, options?: MatmulOptions): R;
  softmax(x: Operand, options?: SoftmaxOptions): R;
  /** q [batch, H, Nq, D], k [batch, Hkv, Nk, D], v [batch, Hkv, Nk, Dv]; leading axes may be left out. */
  attention(q: View, k: View, v: View, options?: AttentionOptions): R;
  /** (outA, lseA) become the attention over the union of two disjoint key sets. */
  merge(outA: View, lseA: Operand, outB: View, lseB: Operand, options?: Threads): R;
  /** x [batch, N, D] or [N, D]; the result is [batch, H, N, Dv], or with wo [batch, N, Dout]. */
  selfAttention(x: View, weights: Weights, options?: AttentionOptions): R;
}

export const matmul: Functions<Required<View>>['matmul'];
export const softmax: Functions<Required<View>>['softmax'];
export const attention: Functions<Required<View>>['attention'];
export const merge: Functions<Required<View>>['merge'];
export const selfAttention: Functions<Required<View>>['selfAttention'];

/** The same on libuv's threads: the event loop goes on. The arrays must not be written, transferred or resized meanwhile. */
export const promises: Functions<Promise<Required<View>>>;

/** The instruction set in use. */
export function isa(): string;
export function setIsa(name: string | null): void;
/** Of the library: 10000 * major + 100 * minor + patch. */
export function version(): number;
export function threads(): number;
export function setThreads(threads: number): void;
