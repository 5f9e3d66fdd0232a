/* attend: matrix multiply, column softmax and fused attention on CPUs.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * One page of promises that hold for every function below, then the types, then the functions.
 *
 * Words.     Everything is columns. X is D x N: a row is a feature, a column is an item (a token).
 *
 *                Q = b_q + W_q X     K = b_k + W_k X     V = b_v + W_v X
 *                S = K^T Q                         Nk x Nq: column q holds the scores of query q
 *                P = softmax(scale * S)            down each column on its own
 *                O = V P                           Dv x Nq
 *
 * Results.   The same bits for any number of threads, any alignment and any leading dimension, and on every instruction
 *            set with fused multiply-add (avx2, avx512, neon), whatever the element types. Only the payload and sign of
 *            a NaN are outside that promise.
 * Errors.    Every function that can fail returns an attend_status. When it is not ATTEND_OK nothing was written, but for
 *            options.message: what is wrong as an English sentence with the numbers at hand ("k: has 5 features, not
 *            q's 4."), cut to message_size and always ending in 0. Its words are no part of the interface. ATTEND_OK
 *            leaves it alone, and so does a wrong options.size. No function prints, aborts, throws, or changes the
 *            floating-point environment.
 * Memory.    Nothing is allocated when a workspace of at least the size that the matching ..._workspace function
 *            reports is given in the options. Without one, the call allocates what it needs and frees it before it
 *            returns. A workspace needs no particular alignment.
 * Threads.   Every function may be called from any number of threads at once, on the same inputs too. A call computes on
 *            the calling thread and on threads that OpenMP has started for the library, shared by all callers, at most
 *            options.threads in all; it never waits for a thread that has not begun to work on it. They sleep between
 *            calls, compute in the calling thread's floating-point environment, and start with the first call that may
 *            use them: never with threads = 1, inside a caller's own OpenMP parallel region, in a child made by fork(),
 *            or where an executor brings threads of the program's. (The OpenMP runtime itself may end the process when
 *            the system refuses it a thread.)
 * Options.   A null options pointer means all defaults. Otherwise begin with the struct's ATTEND_..._INIT, or with all
 *            bytes zero and `size` = sizeof the struct, then set the fields you want: zero always means "off" or "the
 *            default", also for fields that a later version appends. A struct of an older version is accepted; one of
 *            a newer version is accepted when the part unknown to this library is zero. Unknown flags and nonzero
 *            reserved fields are errors. A scale or softcap is rounded to the type of the arithmetic: it must be finite
 *            there, and only 0 may become 0.
 * (0.2)      marks what has its number or its place already and belongs to that version: until then it must be 0, and
 *            is answered ATTEND_UNSUPPORTED otherwise. docs/abi.md says what it will be.
 */
#ifndef ATTEND_ATTEND_H
#define ATTEND_ATTEND_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(ATTEND_STATIC)
#define ATTEND_API
#elif defined(__GNUC__)
#define ATTEND_API __attribute__((visibility("default")))
#else
#define ATTEND_API
#endif

/* The version of this header; attend_version() is that of the library: 10000 * major + 100 * minor + patch.
 * Before 1.0.0 anything may change between minor versions. */
#define ATTEND_VERSION 100 /* 0.1.0 */

/* ------------------------------------------------------------------------------------------------------- status -- */

/* Zero, or a reason (the low eight bits, one of the constants below) and the argument it concerns (the bits above):
 * compare ATTEND_REASON(status) with the constants, show attend_status_string(status) and
 * attend_status_argument(status) to people. */
typedef int32_t attend_status;

#define ATTEND_REASON(status) ((status)&0xff)

enum {
  ATTEND_OK = 0,
  ATTEND_NULL_POINTER = 1,        /* a required pointer is null */
  ATTEND_INVALID_STRUCT_SIZE = 2, /* `size` is smaller than version 0.1's struct, or larger with a nonzero tail */
  ATTEND_INVALID_RANK = 3,        /* rank is not 1..4 */
  ATTEND_INVALID_DTYPE = 4,       /* dtype is no ATTEND_ constant, or none that the call takes beside the others */
  ATTEND_INVALID_SHAPE = 5,       /* an extent is negative, or the shapes do not fit together */
  ATTEND_INVALID_STRIDE = 6,      /* two elements of an output may share memory */
  ATTEND_INVALID_VALUE = 7,       /* a number or a combination of options outside its documented range */
  ATTEND_OVERFLOW = 8,            /* the bytes that shape and strides span do not fit in 63 bits */
  ATTEND_OVERLAP = 9,             /* an output overlaps another operand: see attend_tensor */
  ATTEND_UNSUPPORTED = 10,        /* known or reserved, but not in this version */
  ATTEND_WORKSPACE_TOO_SMALL = 11,
  ATTEND_OUT_OF_MEMORY = 12,
  ATTEND_UNKNOWN_ISA = 13, /* no such instruction set in this library, or this CPU lacks it */
  ATTEND_RANKS_DIFFER = 14 /* attend_mpi.h: what all ranks must have in common */
};

/* What is wrong and what to do about it, as one English sentence; never null; static. Thread-safe. options.message says
 * more of the call at hand. */
ATTEND_API const char *attend_status_string(attend_status status);

/* The argument or field at fault as it is spelled in this header ("q", "options.workspace"), "" if there is none; never
 * null; static. Thread-safe. */
ATTEND_API const char *attend_status_argument(attend_status status);

/* ------------------------------------------------------------------------------------------------------- tensors -- */

/* Element types. How numbers are stored is not how they are computed with: every operand may be F32, BF16 or F16, whatever
 * the others are; all is widened exactly to f32, computed in f32, and rounded once, to nearest even, to the type of the
 * output. So a call has the bits of the f32 call on the widened operands, rounded. (Beyond bf16's or f16's largest number
 * that gives infinity; NaN stays NaN.) What a call may hold beside these types, or may not, is said there. A call may also
 * be all F64: then each operand is. lse, scores and scales are f32, lse and scores f64 in such a call; masks are BOOL. */
enum {
  ATTEND_F32 = 1,
  ATTEND_F64 = 2,
  ATTEND_BF16 = 3,  /* 16 bits: f32 without the lower half of its bits */
  ATTEND_F16 = 4,   /* 16 bits, IEEE 754's binary16 */
  ATTEND_I8 = 5,    /* products; keys and values; attend_convert */
  ATTEND_U8 = 6,    /* products; attend_convert */
  ATTEND_BOOL = 7,  /* one byte, zero or not: masks */
  ATTEND_I32 = 8,   /* products of I8 and U8, their zero points; attend_convert */
  ATTEND_F8E4M3 = 9 /* 8 bits, "fn": largest 448, no infinity. Keys and values; attend_convert */
};

/* A view of the caller's memory: element (row, column, head, batch) lies at
 *
 *     data + row * stride[0] + column * stride[1] + head * stride[2] + batch * stride[3]       (in elements)
 *
 * rank      1..4. Extents beyond it count as 1; their shape and stride entries are not looked at.
 * shape     extents, each >= 0. A tensor with an extent of 0 is empty and may have null data.
 * stride    in elements, any sign, 0 included. In inputs a stride of 0 repeats the same elements. In outputs different
 *           elements must lie apart: with the dimensions of extent > 1 sorted by |stride|, each |stride| must exceed
 *           the sum of |stride| * (extent - 1) of those before it (sufficient, and true of every usual layout).
 * data      aligned to its element type. The data of inputs is never written, although the pointer is not const.
 *
 * An output shares no byte with another operand. Views of one buffer that lie between each other (Q, K and V of one
 * projection) are accepted; a shared byte is an error where it is provable, otherwise the caller's duty. It always is
 * between two matrices with contiguous rows or columns, and between tensors whose strides an output may have, if these
 * are equal or one of the two has no gaps.
 *
 * Where a function says "broadcast", an extent of 1 fits any extent.
 *
 * From NumPy, PyTorch and C, whose arrays are row-major with the last axis first in memory:
 *   - an activation array [batch, head, N, D] is the tensor with shape and strides reversed: (D, N, head, batch),
 *     strides (1, D, N*D, head*N*D). Nothing is copied.
 *         float x[8][100][64];                      // 8 heads, 100 items, 64 features
 *         attend_tensor t = {x, ATTEND_F32, 3, {64, 100, 8, 1}, {1, 64, 6400, 0}};
 *   - a weight W[out][in] is *not* reversed, since it stands to the left of the column it multiplies: shape (out, in),
 *     strides (in, 1), where the reversed view would be its transpose.
 *   - A @ B of row-major A and B is attend_matmul(B, A) of their reversed views: (A B)^T = B^T A^T. */
typedef struct attend_tensor {
  void *data;
  uint32_t dtype;
  uint32_t rank;
  int64_t shape[4];  /* rows, columns, heads, batch */
  int64_t stride[4]; /* the same order */
} attend_tensor;

/* ------------------------------------------------------------------------------------------------------- options -- */

/* ATTEND_MATMUL_OPTIONS_INIT and so on: all zero but for `size`. In C an initialiser, in C++ a value:
 *     attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT; */
#ifdef __cplusplus
extern "C++" {
template <class Struct>
Struct attend_zero_with_size() {
  Struct zero = Struct();
  zero.size = static_cast<uint32_t>(sizeof(Struct));
  return zero;
}
}
#define ATTEND_INIT(Struct) attend_zero_with_size<Struct>()
#else
#define ATTEND_INIT(Struct) \
  { .size = sizeof(Struct) }
#endif
#define ATTEND_MATMUL_OPTIONS_INIT ATTEND_INIT(attend_matmul_options)
#define ATTEND_SOFTMAX_OPTIONS_INIT ATTEND_INIT(attend_softmax_options)
#define ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT ATTEND_INIT(attend_softmax_backward_options)
#define ATTEND_ATTENTION_OPTIONS_INIT ATTEND_INIT(attend_attention_options)
#define ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT ATTEND_INIT(attend_attention_backward_options)
#define ATTEND_MERGE_OPTIONS_INIT ATTEND_INIT(attend_merge_options)
#define ATTEND_SELF_ATTENTION_OPTIONS_INIT ATTEND_INIT(attend_self_attention_options)
#define ATTEND_SELF_ATTENTION_WEIGHTS_INIT ATTEND_INIT(attend_self_attention_weights)
#define ATTEND_CONVERT_OPTIONS_INIT ATTEND_INIT(attend_convert_options)
#define ATTEND_ROTARY_OPTIONS_INIT ATTEND_INIT(attend_rotary_options)
#define ATTEND_KV_APPEND_OPTIONS_INIT ATTEND_INIT(attend_kv_append_options)

/* Flags. Bits 0..15 belong to the function, bits 16..31 mean the same in all options. */
#define ATTEND_NATIVE_DOT 0x10000u /* allows the CPU's dot products of bf16: attend_matmul; elsewhere without effect */

/* The program's own threads instead of the library's. run calls task(argument, i) for i in 0..tasks-1, each at most once,
 * on any threads, the calling one included, in any order and one after the other if need be, and returns when none of
 * these calls runs or can still begin; what it has left out the calling thread does. Tasks never wait for each other and
 * end soon after the work is done, whichever of them did it. tasks <= min(threads, workers, 64); a call that has nothing
 * to share does not call run. Tasks must not be left by exceptions or longjmp: neither can come from the library. */
typedef void (*attend_task)(void *argument, int32_t i);
typedef struct attend_executor {
  uint32_t size;   /* sizeof(attend_executor) */
  int32_t workers; /* the most tasks of a run; 0 = no bound */
  void (*run)(void *context, int32_t tasks, attend_task task, void *argument);
  void *context; /* handed to run */
} attend_executor;
#define ATTEND_EXECUTOR_INIT ATTEND_INIT(attend_executor)

/* -------------------------------------------------------------------------------------------------------- matmul -- */

/* The first nine fields are those of all options. */
typedef struct attend_matmul_options {
  uint32_t size;                          /* sizeof(attend_matmul_options) */
  uint32_t flags;                         /* ATTEND_NATIVE_DOT */
  int32_t threads;                        /* at most so many; 0 = attend_threads() */
  uint32_t reserved;                      /* 0 */
  void *workspace;                        /* null = allocate */
  uint64_t workspace_size;                /* bytes */
  char *message;                          /* receives a sentence on what is wrong; null = none wanted */
  uint64_t message_size;                  /* bytes */
  const attend_executor *executor;        /* for this call; null = attend_set_executor's */
  const attend_tensor *bias;              /* added to C; broadcasts to C, so (M) or (M, 1) is a bias per row */
  const attend_tensor *a_scale, *b_scale; /* F32, of I8 and U8: (M, 1, H, B), (1, N, H, B), broadcast; null = 1 */
  const attend_tensor *a_zero, *b_zero;   /* I32, of the same shapes, each a number of a's or b's type; null = 0 */
} attend_matmul_options;

/* C = alpha A B + beta C (+ bias), for every head and batch.
 *
 * a         (M, K, H, B)        b  (K, N, H, B)        c  (M, N, H, B), read (if beta != 0) and written
 * Heads and batch of a, b and bias broadcast to those of c. Every transposition is a matter of strides. c may not
 * overlap a, b or bias: rejected where provable (see attend_tensor), otherwise the caller's duty. Sums for a c of 16 bits
 * are kept in f32 and rounded when the last is added, whatever K is.
 *
 * Exactly: k is cut at multiples of 512 (f32) or 256 (f64); chunk = one chain of fused multiply-adds from +0 over a
 * cut's k in order; C0 = fma(beta, C, bias or +0), or the bias or +0 alone when beta = 0; then C = fma(alpha, chunk,
 * C) for one chunk after the other. (Instruction sets without FMA round the product first.)
 *
 * a and b may each be I8 or U8, as quantised: element q stands for scale (q - zero). Then sum = the sum over k of
 * (a - a_zero) (b - b_zero), exact, modulo 2^32 (which K up to 33,000 never reaches; all instruction sets alike, none
 * saturates). Where c is I32, C = sum + bias, modulo 2^32, the bias I32, alpha 1, beta 0, no scales. Where it is of floating
 * point, C = fma(alpha, (a_scale b_scale) sum, fma(beta, C, bias)), each step in f32, the sum rounded to it first.
 * One of a and b may be I8, as weights are, the other of floating point: then sum is what the product of the stored numbers
 * would be in f32, and the rest the same, without zero points.
 *
 * ATTEND_NATIVE_DOT is for a and b that both are BF16, where attend_isa() is "avx512bf16": an error bound instead of the
 * above, and up to twice as many products a cycle. On cores whose dot products are slower than FMAs (Intel's, told by an L2 of
 * 2 MiB) it is for M or N of 4 or less alone. M or N may be 4 or less if a, or with M < N b, is contiguous along K, as the
 * weights of y = W x are; elsewhere such thin products keep the above. C is within (K + 3) (2^-24 S + 2^-126) of the exact
 * result, S = |alpha| sum |a b| + |beta C| + |bias|, and then rounded to c's type: elements, and sums on the way, below
 * 2^-126 count as 0; where sums of some of the products overflow, to either sign, it may be infinite or NaN. Still the same
 * bits for any number of threads, but not those of other instruction sets. In all other calls, and on all other CPUs, the
 * flag changes nothing.
 *
 * beta = 0 never reads C: NaN there is overwritten. alpha = 0 does not read A or B. K = 0 leaves C0. Inf, NaN and
 * denormals behave as IEEE 754 says. alpha and beta are rounded to the type of the arithmetic first. M, N, H or B of 0
 * is valid and does nothing. */
ATTEND_API attend_status attend_matmul(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                                       const attend_tensor *c, const attend_matmul_options *options);

/* The ..._workspace functions take the arguments of the call they size and store an upper bound in *bytes, from the
 * shapes, strides and options.threads alone (0 there counts as 64): it never depends on the CPU or on
 * attend_set_threads. Data pointers may be null; the workspace fields are not looked at, nor are the numbers in arrays
 * such as kv_lengths. Everything else is checked as by the call. A smaller workspace is accepted as long as it is enough
 * for one thread (ask with options.threads = 1): fewer threads run then. *bytes may be 0. */
ATTEND_API attend_status attend_matmul_workspace(double alpha, const attend_tensor *a, const attend_tensor *b,
                                                 double beta, const attend_tensor *c,
                                                 const attend_matmul_options *options, uint64_t *bytes);

/* ------------------------------------------------------------------------------------------------------- softmax -- */

#define ATTEND_LOG 1u /* flag: y = log(softmax(x)) */

typedef struct attend_softmax_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_LOG, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  double scale;              /* 0 = 1 */
  const attend_tensor *mask; /* BOOL, broadcasts to x: true = takes part */
  const attend_tensor *bias; /* broadcasts to x: added after the scale; -inf masks */
  const attend_tensor *lse;  /* output (1, N, H, B), f32 (of F64 f64): log sum_i exp(scale x_i) of each column */
} attend_softmax_options;

/* Softmax down each column on its own: y_i = exp(s_i - m) / sum_j exp(s_j - m), s = scale x + bias where the mask is
 * true, -inf elsewhere, m the column's maximum. y has x's type, or is F32 where x is BF16 or F16.
 *
 * x, y      (M, N, H, B), equal shapes. y may be x itself (same data, same strides); any other provable overlap is an
 *           error. A softmax along another axis is a matter of strides. Both layouts are fast: contiguous columns
 *           (stride[0] = 1) and contiguous rows (stride[1] = 1). Their results differ in the last bits.
 *
 * A masked entry (mask false or bias -inf) gives 0, and so does a score of -inf, whatever x holds there: it is never
 * read into a result. A column of nothing else gives 0 and lse = -inf (with ATTEND_LOG: -inf). A NaN or a score of
 * +inf makes its whole column and its lse NaN, and only its own. A column of one element, or with a single finite one,
 * is exactly 1 there. Weights below exp(ln(smallest normal number)) relative to the largest are exactly 0. M = 0
 * writes lse = -inf.
 *
 * Exactly: the score is rounded once (fma(scale, x, bias)), m subtracted, exp within 1.1 ulp; contiguous columns are
 * summed in chunks of 512, in 16 lanes each (element i in lane i mod 16, in parts of 8) that are added as a tree,
 * others in chunks of 8, one after the other; the chunks' sums are added in order, compensated. In contiguous columns
 * of more than 256 KiB a chunk's sum is taken with the chunk's own maximum first. Error: at most 4 ulp plus 1 ulp of
 * the column's largest result; with ATTEND_LOG 2^-23 (f64: 2^-52) times 4 + 2 |y| + |s|, and of lse times 4 + 2 |lse|,
 * which next to 0 is absolute: the logarithm of a probability within 2^-24 of 1 is 0. Source: the max-shifted form of
 * equation 12.5 in S. Prince, Understanding Deep Learning. */
ATTEND_API attend_status attend_softmax(const attend_tensor *x, const attend_tensor *y,
                                        const attend_softmax_options *options);
/* As attend_matmul_workspace. */
ATTEND_API attend_status attend_softmax_workspace(const attend_tensor *x, const attend_tensor *y,
                                                  const attend_softmax_options *options, uint64_t *bytes);

/* --------------------------------------------------------------------------------------------- softmax, backward -- */

#define ATTEND_ACCUMULATE 2u /* flag of the ..._backward functions: gradients are added to what is there */

typedef struct attend_softmax_backward_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_LOG, ATTEND_ACCUMULATE, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  double scale;               /* the forward call's; 0 = 1 */
  const attend_tensor *d_lse; /* (1, N, H, B), f32 (of F64 f64): gradient of lse; null = lse was not used */
} attend_softmax_backward_options;

/* The gradient of attend_softmax: d_x from y, which it gave, and d_y, the gradient of y. Down each column
 *
 *     d_x = scale y (d_y - sum_i y_i d_y_i + d_lse)
 *     d_x = scale (d_y - exp(y) (sum_i d_y_i - d_lse))          with ATTEND_LOG: y is the log-softmax
 *
 * y, d_y, d_x   (M, N, H, B), equal shapes, F32, BF16 or F16 each, or all F64. d_x may be d_y itself or y itself (same
 *               data, same strides, elements of one size); any other provable overlap is an error.
 *
 * An entry that was masked, y = 0, or -inf with ATTEND_LOG, gets exactly +0, and what d_y holds there is never read into a
 * result: neither mask nor bias is needed. A NaN elsewhere makes the other entries of its column NaN, and only its own.
 * With ATTEND_ACCUMULATE the gradient is added to d_x: d_x = fma(scale, .., d_x), which keeps what is there where y was
 * masked. In place too: that of x + softmax(x). The gradient of the bias is d_x / scale, that is d_x of scale = 1 (summed
 * over what it broadcasts).
 *
 * Contiguous rows of 64 columns or more, and contiguous columns of y and d_x (stride[0] = 1) of 32 elements or more, take
 * 0.8 to 1.5 times as long as attend_softmax; contiguous columns of 16 elements twice, of 4 eight times as long, since
 * each costs about the same. Where d_y repeats one number by strides of 0, as a sum's gradient does, nothing needs to be
 * spread out first. An empty y is valid and does nothing.
 *
 * Exactly: the sum is one of chains of fused multiply-adds of y and d_y (with ATTEND_LOG of 1 and d_y) in the order of
 * attend_softmax: columns that are contiguous in y and d_x in chunks of 512, in 16 lanes each, in parts of 8, each part
 * from +0; others in chunks of 8, each from +0; chunks added in order, compensated. r = d_lse - sum (d_lse +0 if null),
 * then y (d_y + r), both rounded, or fma(exp(y), r, d_y), y above 0 taken as 0; times the scale, rounded to d_x's type.
 * Error, beside what y carries: at most 2^-24 (f64: 2^-53) times 24 scale y (|d_y| + sum_i |y_i d_y_i| + |d_lse|); with
 * ATTEND_LOG 24 scale (|d_y| + exp(y) (sum_i |d_y_i| + |d_lse|)). */
ATTEND_API attend_status attend_softmax_backward(const attend_tensor *y, const attend_tensor *d_y,
                                                 const attend_tensor *d_x,
                                                 const attend_softmax_backward_options *options);
/* As attend_matmul_workspace: 0 of contiguous columns, else at most 48 KiB a thread. */
ATTEND_API attend_status attend_softmax_backward_workspace(const attend_tensor *y, const attend_tensor *d_y,
                                                           const attend_tensor *d_x,
                                                           const attend_softmax_backward_options *options,
                                                           uint64_t *bytes);

/* ----------------------------------------------------------------------------------------------------- attention -- */

/* Flags. Causal: key j is visible to query i iff j <= i + offset. There is no bare "causal", since libraries disagree
 * on it when Nk != Nq: */
#define ATTEND_CAUSAL_TOP_LEFT 1u     /* offset = query_offset, 0 by default: query 0 sees key 0 */
#define ATTEND_CAUSAL_BOTTOM_RIGHT 2u /* offset = Nk - Nq (kv_lengths[b] - Nq); query_offset must be 0 */
#define ATTEND_WINDOW 4u              /* window_left and window_right hold */
#define ATTEND_PARTIAL 8u             /* more keys follow in another call: writes `state` */
#define ATTEND_CONTINUE 16u           /* goes on from `state` */

/* What options.scores receives. Keys before kv_first or beyond a length do not exist: they show as -inf, or 0 as a
 * probability. */
enum {
  ATTEND_SCORES_SCALED = 0,       /* scale * K^T Q, of every key that exists, visible or not */
  ATTEND_SCORES_SOFTCAPPED = 1,   /* after the softcap; the same as SCALED without one */
  ATTEND_SCORES_MASKED = 2,       /* after ALiBi, bias and mask: -inf where a key is not visible */
  ATTEND_SCORES_PROBABILITIES = 3 /* P: each column sums to 1 (less with a sink), or is 0 if it sees no key */
};

typedef struct attend_attention_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* those above, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  double scale;                      /* 0 = 1 / sqrt(D); 1 = unscaled */
  double softcap;                    /* > 0: s = softcap * tanh(s / softcap); 0 = none */
  int64_t query_offset;              /* position of query 0 among the keys, for causal masks, windows and ALiBi */
  const int64_t *query_offsets;      /* one per batch, instead of query_offset, which must be 0 then */
  const int64_t *kv_lengths;         /* one per batch, 0..Nk: keys from there on do not exist and are not read */
  int64_t window_left;               /* with ATTEND_WINDOW: keys from i + offset - left on ... */
  int64_t window_right;              /* ... to i + offset + right; -1 on either side = no bound there */
  const attend_tensor *mask;         /* BOOL (Nk, Nq, H, B), broadcast: true = visible */
  const attend_tensor *bias;         /* (Nk, Nq, H, B), broadcast: added to the scores; -inf hides the key */
  const attend_tensor *alibi_slopes; /* (H): score minus slope * |i + offset - j| (Press et al., arXiv 2108.12409) */
  const attend_tensor *sinks;        /* (H): one score more for every query, whose value is 0; -inf = none */
  const attend_tensor *lse;          /* output (1, Nq, H, B): natural log of the sum of exp of the visible scores */
  const attend_tensor *scores;       /* output (Nk, Nq, H, B) */
  uint32_t scores_stage;             /* which scores: ATTEND_SCORES_... */
  uint32_t reserved2;                /* 0 */
  const attend_tensor *k_scale;      /* F32, of I8 (required) and F8E4M3: as k, with 1 row or 1 key, broadcast */
  const attend_tensor *v_scale;      /* as v, the same */
  const int64_t *kv_first;           /* one per batch, 0..length: keys before it do not exist and are not read */
  int64_t sequences;                 /* packed one after the other in q, or in k and v, or in all; 0 = none are */
  const int64_t *query_starts;       /* sequences + 1 columns of q: where they begin, and the number of all */
  const int64_t *key_starts;         /* the same of k and v */
  const attend_tensor *pages;        /* I32 (most pages of a sequence, B): k and v are pools of pages then */
  int64_t key_offset;                /* position of key 0: a multiple of 256 */
  const attend_tensor *state;        /* (2 (Dv + 2), Nq, H, B): what ATTEND_PARTIAL writes and ATTEND_CONTINUE reads */
} attend_attention_options;

/* O = V softmax(scale K^T Q), fused: memory of order Nq + Nk, whatever Nk times Nq is (unless `scores` asks for them).
 *
 * q (D, Nq, H, B)    k (D, Nk, Hkv, B)    v (Dv, Nk, Hkv, B)    out (Dv, Nq, H, B)
 * D >= 1. H must be a multiple of Hkv: query head h uses key and value head h / (H / Hkv) (multi-head Hkv = H,
 * grouped-query, multi-query Hkv = 1). The batch of q, k and v broadcasts. Any strides, so heads may be interleaved
 * ([N, H, D] arrays) or apart; one taken for the other is not noticed where the extents happen to fit. Outputs (out,
 * lse, scores) may not overlap the inputs or each other: rejected where provable.
 *
 * k and v may also be I8 with scales, or F8E4M3 with or without: key j is k_scale k_j. A scale belongs to a key and head
 * (1 row), to a feature and head (1 key), or to more, by broadcasting. The chain of a score runs over the values as they
 * are stored; a key's scale multiplies its score once, a feature's the scaled query; a key's v_scale multiplies its weight
 * once, after the sum, and a feature's the finished output. So results differ in the last bits from those of keys that
 * were multiplied first, and are the same on every instruction set with FMA.
 *
 * A mask of padded keys is (Nk, 1, 1, B), the array [B, 1, 1, Nk]; [B, Nk] says something of queries, and fits by
 * accident where B = Nq. A mask that repeats every W batches, for W windows of each image, either lies in memory once
 * for each image, or in an array [images, W, H, N, D] the heads of all windows are the heads, W * H of them in q, k
 * and v, the batch is the images, and a bias (Nk, Nq, W * H) is -inf where the mask hides. The bits are the same.
 *
 * kv_first and kv_lengths are for batches padded on the left and on the right. Neither moves a position: offsets, causal
 * masks, windows, ALiBi and the rows of mask and bias count all columns of k. The bits are those of each sequence alone,
 * with k and v from kv_first on and a query_offset that is smaller by kv_first.
 *
 * Ragged batches are packed, without padding: with query_starts q and out are (D, total, H), lse (1, total, H), and
 * sequence b has columns query_starts[b] to query_starts[b + 1] - 1; with key_starts k, v and their scales are (D, total,
 * Hkv). A side that is not packed has the sequences as its batch. What is per batch (kv_lengths, kv_first,
 * query_offsets) is per sequence, and causal masks, windows and ALiBi count its own keys. Mask and bias are (R, total,
 * H), or (R, Nq, H, sequences) where keys alone are packed: a row is a key of the query's own sequence, R at least the
 * keys of the longest. `scores` is ATTEND_UNSUPPORTED. Starts begin with 0 and never decrease. Sequences may be empty.
 *
 * Paged caches: k is a pool (D, page size, Hkv, pages of the pool), v and scales likewise, of any strides, so that keys
 * and values may share an allocation; key j of batch b lies in column j % page size of page pages[j / page size, b].
 * Nk = rows of the table times page size; kv_lengths is required. Of the table the entries for keys kv_first to length
 * - 1 are read; one outside of the pool is an error. Sequences may share pages. A scale of features is one for all pages.
 * Any page size works; 16 and more, with contiguous features, are fast. q may be packed or not.
 *
 * Keys in pieces: a prefix that many sequences share, what is read from a file, what arrives late. The first call has
 * ATTEND_PARTIAL, those in between ATTEND_PARTIAL | ATTEND_CONTINUE, the last one ATTEND_CONTINUE; with the same queries
 * and options they give the bits of one call over all keys. Pieces but the last have a multiple of 256 keys. key_offset,
 * the keys before this piece, moves causal masks, windows and ALiBi; mask, bias and kv_lengths describe the keys of the
 * call. With ATTEND_PARTIAL out and lse are checked and not written, and sinks wait; a last call may have no keys. state,
 * f32 (f64 with F64), is what is kept of each query: m, l and o of the open span, then of the spans before (see below);
 * the caller may move it, not change it. ATTEND_CAUSAL_BOTTOM_RIGHT and kv_first are errors with any of these, since the
 * whole is not known, and so are probabilities. A full span stays open until a key follows, which nobody need see.
 *
 * Each sequence has the bits that it has alone, with its keys in one piece; work is shared out among the threads by the
 * keys of each.
 *
 * All options compose, in this order: scale, softcap, ALiBi and bias, masks (causal, window, mask, lengths, bias of
 * -inf), sink, softmax. Keys that no query of a block sees cost nothing. ALiBi takes offsets beyond +-2^60 as +-2^60.
 *
 * A query that sees no key (Nk = 0, causal, masks) gives 0 and lse = -inf (without a sink). Keys and values that a
 * query does not see never affect it, NaN and Inf in them included; a finite bias, however low, hides nothing. A visible
 * NaN, or a score of +inf, makes the query's output and lse NaN. The first query of a causal sequence gives its V
 * exactly. Finite scores, biases and softcaps are right up to the type's largest number, as far as scale q is finite.
 *
 * lse counts the sink; a union of key sets with attend_attention_merge gives its sink to one of them only. A sink of
 * NaN or +inf makes what its head gives meaningless, and nothing else. Its error is that of the scores plus 4 units in
 * the last place of |lse| + |largest score|: next to 0 that is an absolute error.
 *
 * Exactly: scores s = one FMA chain over D of (scale q) k, then softcap, fma(-slope, distance, s), + bias. Keys in chunks
 * of 256, counted from kv_first, each with its true maximum m, weights exp2((s - m) log2(e)), which are 0
 * from 2^-125.5 (f64: 2^-1021.5) down, one sum chain and one FMA chain per output in key order; chunks folded in order
 * into spans of 16384 keys, these in order into the whole, and then the sink; an output of 0 is +0 (online softmax:
 * Milakov and Gimelshein, arXiv 1805.02867; chunked as in Dao et al., arXiv 2205.14135). */
ATTEND_API attend_status attend_attention(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                          const attend_tensor *out, const attend_attention_options *options);
/* At most 256 KiB for a thread where D and Dv are at most 128, and 63 bytes a call to align them; with narrower types
 * or pages 256 (D + 16 + Dv) elements more, into which a chunk of keys and values is widened or gathered, and 128 Dv for
 * narrower results. Keys whose stride is close to a multiple of 2 KiB, as of heads side by side, are copied, for speed
 * alone, where each thread has room for it: up to D + Dv KiB more are asked for. (Without a workspace a call
 * allocates up to 1 MiB a thread where that is faster: beside such keys, with narrower types and long sequences.)
 * Sequences that may differ take 8 bytes each. Never depends on the contents of starts, lengths or pages. */
ATTEND_API attend_status attend_attention_workspace(const attend_tensor *q, const attend_tensor *k,
                                                    const attend_tensor *v, const attend_tensor *out,
                                                    const attend_attention_options *options, uint64_t *bytes);

typedef struct attend_attention_backward_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_ACCUMULATE, ATTEND_PARTIAL, ATTEND_CONTINUE, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  const attend_tensor *d_lse;     /* gradient of lse, of its shape, where something was computed from it */
  const attend_tensor *d_bias;    /* output: gradient of attention_options.bias, of its shape */
  const attend_tensor *d_sinks;   /* output: gradient of attention_options.sinks, of their shape */
  const attend_tensor *delta;     /* output (1, Nq, H, B); where `out` is null an input in its place */
  const attend_tensor *d_q_state; /* (2 D, Nq, H, B), of keys in pieces: as attention's state */
  const attend_tensor *d_k_state; /* (D, Nk, Hkv, B), of queries in pieces */
  const attend_tensor *d_v_state; /* (Dv, Nk, Hkv, B), the same */
  const int64_t *total_keys;      /* with d_q_state, one per batch: the keys of all pieces */
} attend_attention_backward_options;

/* The gradients of attention: d_q, d_k, d_v are those of a number L of which d_out is the gradient with respect to out,
 *
 *     P = exp(S - lse)     dS = P (dO^T V - delta)     delta = out d_out summed over features, less d_lse
 *     d_v = dO P^T         d_q = scale K dS            d_k = scale Q dS^T
 *
 * dS times 1 - tanh(s / softcap)^2 with a softcap; d_bias = dS before that; d_sinks = - exp(sink - lse) delta, summed
 * over queries and batches. P is computed again, so that memory is of order Nq + Nk (equations 12 to 16 of Dao et al.,
 * arXiv 2205.14135).
 *
 * q, k, v, out, attention_options are those of the attend_attention call, with what that wrote in out and, if given,
 * lse, which are only read; without lse it is computed again, for some 20 % more time. Of attention_options threads,
 * workspace, message, their sizes and executor must be 0, since `options` has them, and scores, k_scale, v_scale, pages,
 * state and the flags that go with it cannot be; key_offset moves positions as there. Everything else composes as there.
 *
 * d_out  (Dv, Nq, H, B), as out      d_q, d_k, d_v: of the shapes of q, k and v, each null if it is not wanted
 * What is not wanted is not computed: of the five products d_q alone takes three, d_k and d_v alone four, d_v alone two.
 *
 * Types: F32, BF16 or F16 each, or all F64; d_lse, d_bias, d_sinks of lse's. Gradients are sums over all that an operand
 * stands for: d_k over the heads that share it, and where the batch of q, k or v is 1 and that of out is not, over the
 * batch, which only gradients of the type of the arithmetic can hold. So is d_bias over what bias repeats by extents of
 * 1. With ATTEND_ACCUMULATE they are added to what is there, rounded once with it (d_bias after each summand). No output
 * may overlap another operand.
 *
 * Keys in pieces, each with all queries: d_q goes on from call to call in d_q_state, as attention does in its state, with
 * key_offset and the same flags, here those of `options`; d_k and d_v are finished with each piece. total_keys (where there
 * are kv_lengths, which describe the keys of the call, the lengths of all) says where spans begin: see below. Queries in
 * pieces, each with the same keys: d_k and d_v go on in d_k_state and d_v_state, and d_q is finished with each. Pieces but
 * the last have a multiple of 64 queries, query_offset moves with them, and of heads that share keys one comes after the
 * other: all pieces of the first head of each group, every (H / Hkv)-th of H, then those of the second. With ATTEND_PARTIAL
 * what has a state is checked and not written. Both give the bits of one call, but for queries with |lse| > 1024, whose
 * weights are exp2((s - lse) log2(e)) here. lse is required. d_bias, d_sinks, and both kinds of pieces in one call are
 * ATTEND_UNSUPPORTED; ATTEND_CAUSAL_BOTTOM_RIGHT, and with d_q_state kv_first, are errors. Pieces of which nothing is seen may
 * be left out at either end, and keys that no call has may be another program's: d_k and d_v ask for no others than their own.
 *
 * delta, f32 (f64 with F64), is what all weights of a query have in common, and is written; or where `out` is null it is read
 * instead, and d_lse, which it contains, must be null. A call that asks for delta alone is cheap. Then other calls, or other
 * machines, need neither out nor d_lse.
 *
 * What a query does not see contributes exactly nothing, NaN and Inf in its q, k, v and d_out included; keys that no
 * query sees have gradients of 0, also those outside of kv_first and kv_lengths. A query that sees nothing contributes
 * 0. An lse that is not the call's gives gradients that mean nothing. Scale, softcap, mask and alibi_slopes have no
 * gradient here.
 *
 * Exactly: scores as in the forward call; P = exp2((s - lse) log2(e)), or where lse is finite and |lse| > 1024, too
 * large to hold log l well (padded queries under a bias of -1e9), exp2((s - m) log2(e)) (1 / l) with the forward
 * call's maximum and sum, found again; sums over queries in blocks of 64, counted from the sequence's first, each one
 * FMA chain, added in order of heads, then blocks; sums over keys in chunks of 256, counted from kv_first, each one
 * FMA chain, added in order into spans, and these in order: a span is the least power of two of chunks of which the
 * sequence has at most 8. The scale comes last. So the bits are the same for any number of threads and on every
 * instruction set with FMA; sums over batches are in their order, that of d_sinks in the order of queries, then
 * batches, those of d_bias in the order of batches, key heads, chunks, the heads of each, queries, and keys. Error: at
 * most twice that of the formulas above in the same type with P and dS kept, if lse is near 0; otherwise P has an
 * error of 2^-24 |lse| (f64: 2^-53 |lse|) beside, |lse| being 1024 at most. */
ATTEND_API attend_status attend_attention_backward(const attend_tensor *q, const attend_tensor *k,
                                                   const attend_tensor *v, const attend_tensor *out,
                                                   const attend_tensor *d_out, const attend_tensor *d_q,
                                                   const attend_tensor *d_k, const attend_tensor *d_v,
                                                   const attend_attention_backward_options *options,
                                                   const attend_attention_options *attention_options);
/* As attend_matmul_workspace. In f32 (f64) numbers: for d_q D for each query, packed ones of all sequences, and each head that
 * shares a key head, once for the call and twice for each thread; three for each of these queries and thread; and for a
 * thread some 200 Ki where D and Dv are at most 128. d_q alone needs no room for more than 256 queries of one head. Without
 * lse its numbers, and what attend_attention wants. */
ATTEND_API attend_status attend_attention_backward_workspace(const attend_tensor *q, const attend_tensor *k,
                                                             const attend_tensor *v, const attend_tensor *out,
                                                             const attend_tensor *d_out, const attend_tensor *d_q,
                                                             const attend_tensor *d_k, const attend_tensor *d_v,
                                                             const attend_attention_backward_options *options,
                                                             const attend_attention_options *attention_options,
                                                             uint64_t *bytes);

typedef struct attend_merge_options {
  uint32_t size;  /* all nine as in attend_matmul_options */
  uint32_t flags; /* ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace; /* none is needed */
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
} attend_merge_options;

/* Attention over the union of two disjoint key sets, from the results over each: out_a and lse_a become those of the
 * union. What a long sequence spread over machines needs at every step; (out 0, lse -inf) is the identity.
 * FlashAttention 2 says lse = +inf of a part without keys: replace it first, since +inf like NaN makes the union NaN.
 *
 * out_a, out_b (Dv, Nq, H, B)    lse_a, lse_b (1, Nq, H, B), equal shapes. None may overlap another.
 * m = max(lse_a, lse_b), w = exp(lse - m), out = (w_a out_a + w_b out_b) / (w_a + w_b), lse = m + log(w_a + w_b).
 * Error: at most 4 ulp of the larger of |out_a| and |out_b|, beside what lse_a and lse_b carry: an error d of lse
 * changes weights by the factor 1 + d. Bits differ from those of one call over all keys. */
ATTEND_API attend_status attend_attention_merge(const attend_tensor *out_a, const attend_tensor *lse_a,
                                                const attend_tensor *out_b, const attend_tensor *lse_b,
                                                const attend_merge_options *options);
/* Says 0: there for callers that treat all functions alike. */
ATTEND_API attend_status attend_attention_merge_workspace(const attend_tensor *out_a, const attend_tensor *lse_a,
                                                          const attend_tensor *out_b, const attend_tensor *lse_b,
                                                          const attend_merge_options *options, uint64_t *bytes);

/* ------------------------------------------------------------------------------------------------ self-attention -- */

/* Weights and biases; H, Hkv, D and Dv come from their shapes. For one head these are the book's Omega and beta as they
 * stand. Biases may be null. */
typedef struct attend_self_attention_weights {
  uint32_t size;            /* sizeof(attend_self_attention_weights) */
  uint32_t reserved;        /* 0 */
  const attend_tensor *w_q; /* (Dh, D, H) */
  const attend_tensor *w_k; /* (Dh, D, Hkv) */
  const attend_tensor *w_v; /* (Dv, D, Hkv) */
  const attend_tensor *b_q; /* (Dh, 1, H) */
  const attend_tensor *b_k; /* (Dh, 1, Hkv) */
  const attend_tensor *b_v; /* (Dv, 1, Hkv) */
  const attend_tensor *w_o; /* (Dout, Dv, H), or null: no output projection */
  const attend_tensor *b_o; /* (Dout), only with w_o */
} attend_self_attention_weights;

typedef struct attend_self_attention_options {
  uint32_t size;  /* all nine as in attend_matmul_options */
  uint32_t flags; /* ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
} attend_self_attention_options;

/* Q = b_q + W_q X, K = b_k + W_k X, V = b_v + W_v X, attention of these, and with w_o the sum over heads of W_o O +
 * b_o.
 *
 * x (D, N, 1, B)     out (Dv, N, H, B), or (Dout, N, 1, B) with w_o;     D, Dh, H and Hkv >= 1
 * attention_options holds for the attention in the middle (scale: 0 = 1 / sqrt(Dh)); its threads, workspace, message,
 * their sizes and executor must be 0, since `options` has them, and so must k_scale, v_scale, key_starts and pages;
 * query_starts packs x, and its keys with it. out may not overlap x or a weight. The workspace holds Q, K and V (and O
 * before an output projection), of order N. */
ATTEND_API attend_status attend_self_attention(const attend_tensor *x, const attend_self_attention_weights *weights,
                                               const attend_tensor *out, const attend_self_attention_options *options,
                                               const attend_attention_options *attention_options);
/* As attend_matmul_workspace. */
ATTEND_API attend_status attend_self_attention_workspace(
    const attend_tensor *x, const attend_self_attention_weights *weights, const attend_tensor *out,
    const attend_self_attention_options *options, const attend_attention_options *attention_options, uint64_t *bytes);

/* ------------------------------------------------------------------------------------------------------- convert -- */

#define ATTEND_COMPUTE_SCALE 1u /* flag: `scale` is an output */

typedef struct attend_convert_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_COMPUTE_SCALE, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace; /* none is needed */
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  const attend_tensor *scale; /* F32, broadcasts to x: (1, N) by column, as of each token, (M, 1) by row, or (1, 1) */
} attend_convert_options;

/* y = x between any two element types but BOOL, shapes (M, N, H, B) equal. y may be x itself where elements have one size;
 * any other provable overlap is an error.
 *
 * Every number is rounded once, to nearest even, from f64 too. To integers: then the nearest that there is, NaN gives 0. To
 * F8E4M3: beyond +-448, and from infinities, +-448.
 * A scale goes with exactly one of x and y of I8, U8 or F8E4M3: y = scale x from it, y = x / scale to it, by division in f32
 * (f64 if x is F64 or I32), and to I8 within +-127. With ATTEND_COMPUTE_SCALE, to I8 and F8E4M3, it is computed first and
 * written: the largest magnitude that the entry stands for, NaN left out, over 127 or 448; 1 where all are 0. */
ATTEND_API attend_status attend_convert(const attend_tensor *x, const attend_tensor *y,
                                        const attend_convert_options *options);
/* Says 0. */
ATTEND_API attend_status attend_convert_workspace(const attend_tensor *x, const attend_tensor *y,
                                                  const attend_convert_options *options, uint64_t *bytes);

/* --------------------------------------------------------------------------------------------- rotary and caches -- */

/* Flags of both, where they have them. */
#define ATTEND_ROTARY_INTERLEAVED 1u /* pairs are features 2i and 2i + 1, not i and i + rotary_dims / 2 */
#define ATTEND_ROTARY_INVERSE 2u     /* by the opposite angle; attend_rotary alone */
#define ATTEND_COMPUTE_K_SCALE 4u    /* attend_kv_append: k_scale is an output */
#define ATTEND_COMPUTE_V_SCALE 8u    /* attend_kv_append: v_scale is an output */

typedef struct attend_rotary_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_ROTARY_INTERLEAVED, ATTEND_ROTARY_INVERSE, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace; /* none is needed */
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  int64_t rotary_dims;      /* so many features, an even number, are rotated, the others copied; 0 = D */
  const int64_t *positions; /* one a token, columns before batches; null = offset + number in its sequence */
  const int64_t *offsets;   /* one a batch: position of its first column; null = 0; not beside positions */
  int64_t sequences;        /* packed one after the other in x, which has one batch then; 0 = nothing is packed */
  const int64_t *starts;    /* sequences + 1 columns where they begin: 0, never decreasing, the last N */
} attend_rotary_options;

/* Rotary embedding (Su et al., arXiv 2104.09864): each pair of features of a token turned by the angle of its position,
 *
 *     y1 = x1 cos - x2 sin        y2 = x2 cos + x1 sin        (with ATTEND_ROTARY_INVERSE by -sin)
 *
 * x, y      (D, N, H, B), F32, BF16 or F16 each, or all F64, equal shapes. y may be x itself where elements have one size;
 *           any other provable overlap is an error.
 * cos, sin  (rotary_dims / 2, positions, 1 or H, 1 or B), of one shape, F32, BF16 or F16 each: angles are the caller's,
 *           since those of f32 are off by 4e-3 at position 131071. The batch of packed sequences is their number. Of a
 *           table that holds each number twice, as transformers makes it, one half is the table: by shape where halves
 *           repeat, by a stride of 2 where neighbours do. Tables gathered for each token are ones with N positions.
 *
 * Nothing is inferred from the width of a table. A position outside it is ATTEND_INVALID_VALUE. The inverse rotation is the
 * gradient, and takes the position out of keys that are to move.
 *
 * Exactly: y1 = fma(x1, cos, -(x2 sin)), y2 = fma(x2, cos, x1 sin), products rounded, in f32 (f64), then rounded to y's
 * type. Nothing is allocated; an empty x is valid and does nothing. */
ATTEND_API attend_status attend_rotary(const attend_tensor *x, const attend_tensor *cos, const attend_tensor *sin,
                                       const attend_tensor *y, const attend_rotary_options *options);
/* Says 0. */
ATTEND_API attend_status attend_rotary_workspace(const attend_tensor *x, const attend_tensor *cos,
                                                 const attend_tensor *sin, const attend_tensor *y,
                                                 const attend_rotary_options *options, uint64_t *bytes);

typedef struct attend_kv_append_options {
  uint32_t size;  /* this and the next eight as in attend_matmul_options */
  uint32_t flags; /* ATTEND_ROTARY_INTERLEAVED, ATTEND_COMPUTE_K_SCALE, ATTEND_COMPUTE_V_SCALE, ATTEND_NATIVE_DOT */
  int32_t threads;
  uint32_t reserved;
  void *workspace;
  uint64_t workspace_size;
  char *message;
  uint64_t message_size;
  const attend_executor *executor;
  int64_t sequences;            /* packed one after the other in k and v; 0 = nothing is packed */
  const int64_t *starts;        /* sequences + 1 columns of k where they begin */
  const int64_t *offsets;       /* one a batch: the column of its cache where its first new token goes; null = 0 */
  const int64_t *slots;         /* one a token, instead of offsets and pages; -1 = it goes nowhere */
  const attend_tensor *pages;   /* I32 (most pages of a sequence, batch): the caches are pools of pages */
  const attend_tensor *k_scale; /* F32, of I8 (required) and F8E4M3: as k_cache, with 1 row or 1 column, broadcast */
  const attend_tensor *v_scale; /* as v_cache, the same */
  const attend_tensor *cos;     /* as in attend_rotary; both or none: k is not rotated */
  const attend_tensor *sin;
  int64_t rotary_dims;      /* the next two as in attend_rotary; the default is D ... */
  const int64_t *positions; /* ... and offset + number in its sequence */
} attend_kv_append_options;

/* New keys and values into their caches: k rotated, both converted to the types of the caches. What is not a new token's
 * stays as it is: other threads may read it meanwhile.
 *
 * k (D, new, Hkv, B)    v (Dv, new, Hkv, B)    F32, BF16 or F16 each; packed: (.., all new ones, Hkv)
 * k_cache (D, capacity, Hkv, batch)    v_cache (Dv, capacity, Hkv, batch)    those types, I8 or F8E4M3 each; or all F64
 *
 * batch = B, or `sequences`. v and v_cache may both be null, as where values are a part of the keys. The i-th new token of
 * a batch goes to column offsets[b] + i of its cache: offsets are the lengths before, attention's kv_lengths those after.
 *
 * With pages the caches are pools (.., page size, Hkv, pages) of any page size, and column c of a sequence is column c mod
 * page size of page pages(c / page size, b). Only entries for new tokens are read. A page that sequences share must not
 * be appended to: copy it first, the caller's duty. With slots a token goes to column s mod capacity of batch s / capacity,
 * which is page * page size + column of a pool, whose batch is any; the tokens of k rotated want positions then.
 *
 * ATTEND_COMPUTE_K_SCALE computes a scale for each new token and head, as attend_convert does for a column, and writes it
 * to k_scale, (1, capacity, Hkv, batch) or a pool of such; without it k_scale is read: per channel (D, 1, Hkv), or any
 * other. The same of V.
 *
 * No room in the cache, a page or slot outside it, two tokens of one slot, a position outside the tables: an
 * ATTEND_INVALID_VALUE before anything is written (ATTEND_INVALID_SHAPE, of ..._workspace too, where shapes alone say that
 * there is no room). The position of a token that goes nowhere is not looked at.
 *
 * Exactly: the f32 value of attend_rotary, or k itself, and v, then as attend_convert, rounded once to the cache's type. */
ATTEND_API attend_status attend_kv_append(const attend_tensor *k, const attend_tensor *v, const attend_tensor *k_cache,
                                          const attend_tensor *v_cache, const attend_kv_append_options *options);
/* With slots 8 bytes a token, to find two that are equal, and up to 126 to align them; else 0. */
ATTEND_API attend_status attend_kv_append_workspace(const attend_tensor *k, const attend_tensor *v,
                                                    const attend_tensor *k_cache, const attend_tensor *v_cache,
                                                    const attend_kv_append_options *options, uint64_t *bytes);

/* ------------------------------------------------------------------------------------------------------- library -- */

/* Version of the library that is running, in the form of ATTEND_VERSION. */
ATTEND_API uint32_t attend_version(void);

/* The number of the arithmetic contract: what "Exactly" says of each function, the order of every sum. Libraries of one
 * number that both have fused multiply-add give the same bits for the same call. Now 2. */
ATTEND_API uint32_t attend_contract(void);

/* The instruction set in use: "avx512bf16", "avx512vnni", "avx512", "avx2", "sse42"; "neon"; "generic". Chosen at the
 * first call from what the CPU and the operating system support, best first. Each includes those behind it: avx512vnni is
 * avx512 with another way to multiply integers of 8 bits, avx512bf16 that with what ATTEND_NATIVE_DOT allows. The
 * environment variable ATTEND_ISA, read then, names one not to go beyond; a name that is unknown is ignored. Static,
 * never null. */
ATTEND_API const char *attend_isa(void);

/* The i-th instruction set that this library has and this CPU runs, best first; null past the last. */
ATTEND_API const char *attend_isa_name(int32_t i);

/* Use the named one from now on, null = the best. ATTEND_UNKNOWN_ISA leaves all as it was. Meant for tests and
 * benchmarks: calls already running in other threads finish with what they began. */
ATTEND_API attend_status attend_set_isa(const char *name);

/* Threads used by a call that does not say: by default as many as OpenMP would use (its settings, the CPUs of the process),
 * or the quota of the control group if that is less. What CPUs the calling thread is pinned to does not count. A library
 * built without OpenMP always says 1. */
ATTEND_API int32_t attend_threads(void);

/* Set it for the process; 0 = back to the default; negative is ATTEND_INVALID_VALUE. */
ATTEND_API attend_status attend_set_threads(int32_t threads);

/* Let all calls that name no executor of their own use this one; null = OpenMP's threads again. The library keeps the
 * pointer: structure and context must live until it is replaced and every call that began before has returned. A wrong
 * executor is an error and changes nothing. */
ATTEND_API attend_status attend_set_executor(const attend_executor *executor);

#ifdef __cplusplus
}
#endif

#endif /* ATTEND_ATTEND_H */
