/* attend_mpi: attention over a sequence that is spread over the ranks of MPI, in the bits of one machine.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A library of its own, libattend_mpi, above attend.h, whose promises hold here too but for what this page says. It is
 * compiled for one MPI (any MPI 3), with which the program must be linked too.
 *
 * Words.     A rank holds a shard of the queries, a shard of the keys, both or neither. A position is the number of a token
 *            in the whole sequence. A shard is one range of positions or several: see attend_mpi_options.
 *
 * Results.   Those of one attend_attention call over all queries and all keys, bit for bit, for any number of ranks, any
 *            shards and any number of threads; on ranks of different CPUs as far as each has fused multiply-add. No sum
 *            is left to MPI: each query's keys are folded on one rank, in order.
 * Who calls. Every rank of the communicator, each function alike, the ..._workspace functions too: each talks to the other
 *            ranks. A rank without queries and without keys calls with empty tensors.
 * Threads.   MPI must have been started with MPI_THREAD_FUNNELED or more. The thread that calls is the one that called
 *            MPI_Init_thread (with MPI_THREAD_SERIALIZED: any, and no two at once). It alone calls MPI; attention itself
 *            runs on options.threads.
 * Errors.    Every rank returns the same status. Its sentence is that of the lowest rank with a fault, which it names.
 *            Types, shapes and options that all ranks must have in common are compared before anything is computed: where
 *            they differ that is ATTEND_RANKS_DIFFER, and nothing was written on any rank. Not to be answered like that:
 *            a communicator that is none or joins two groups, MPI not running, and a thread level that is too low, which
 *            each rank says for itself.
 * Loss.      When a rank is lost, or MPI fails, no status can be agreed on: the rank that notices says so on standard error
 *            ("attend: rank 2 of 4: ..") and ends the job by MPI_Abort. What MPI itself does not notice (most do not: a rank
 *            that hangs, or that has returned without calling) is noticed after options.timeout seconds.
 * Memory.    Nothing of ours is allocated when a workspace is given, but once for each communicator: a duplicate of it, kept
 *            as an attribute until it is freed, so that no message meets one of the program's. What MPI allocates is MPI's.
 */
#ifndef ATTEND_ATTEND_MPI_H
#define ATTEND_ATTEND_MPI_H

#include "attend/attend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A communicator is passed as MPI_Comm_c2f(communicator), its handle in Fortran: 32 bits with every MPI, where MPI_Comm is
 * an integer with one and a pointer with another. So this header needs no mpi.h, and Fortran and mpi4py (comm.py2f()) have
 * the number at hand. */

#define ATTEND_MPI_ALL_RANKS 1u /* attend_mpi_decode: out and lse are written on every rank, not on the root alone */

/* attend_mpi_attention and its gradients: attention runs on a thread of its own (and options.threads in all) for the length of
 * the call, and the thread that calls sees to the messages all the time, instead of between two blocks of work. That takes
 * one processor more; give it where a rank has many, and there are so many ranks that a key has far to go. It counts for
 * this rank alone. The thread is the only thing that is allocated beside a workspace; without one to be had the call does
 * without. */
#define ATTEND_MPI_COMPUTE_THREAD 2u

/* The shards. Without ranges (both null, both counts 0) they lie in the order of the ranks, each as long as its tensor: the
 * columns of rank 1 follow those of rank 0.
 *
 * Ranges are pairs: a first position and a number of columns. {0, 64, 448, 64} says that columns 0..63 stand at positions
 * 0..63, columns 64..127 at 448..511. They ascend, and their numbers add up to the columns. Key ranges of all ranks cover
 * 0..N-1 once; whether any rank gives some is for all to decide alike. Query ranges may be any, also ones that another rank
 * has too. An empty range is allowed.
 *
 * Causal attention: a query at the end sees all keys, one at the beginning few, and the slowest rank is the one all wait
 * for. Deal queries out in 2 S stripes a rank, there and back again (ranks 0 1 2 3 3 2 1 0 0 1 ..): with 16 stripes each
 * does the same work to about 1 in 1000 of it; two stripes leave a third of it to wait in each step, since in step i only
 * keys of step i travel. Keys need no balance, and one range a rank is the least to send; but they may be dealt out like
 * the queries, at the price of sending them twice. */
typedef struct attend_mpi_options {
  uint32_t size;           /* sizeof(attend_mpi_options); this and the next eight as in attend_matmul_options, */
  uint32_t flags;          /* and for the whole call: attention_options has only flags of its own. ATTEND_MPI_.. */
  int32_t threads;         /* of this rank; each may have its own */
  uint32_t reserved;       /* 0 */
  void *workspace;         /* of this rank; null = allocate */
  uint64_t workspace_size; /* bytes */
  char *message;           /* of this rank; every rank's receives the sentence */
  uint64_t message_size;   /* bytes */
  const attend_executor *executor; /* of this rank */
  const int64_t *query_ranges;     /* not of decode: 2 * query_range_count numbers; null = in order of ranks */
  int64_t query_range_count;
  const int64_t *key_ranges; /* 2 * key_range_count numbers; null = in order of ranks */
  int64_t key_range_count;
  double timeout;     /* seconds without any message before the job is ended; 0 = wait for ever */
  int32_t root;       /* attend_mpi_decode: the rank whose q counts, and that gets out and lse */
  uint32_t reserved2; /* 0 */
} attend_mpi_options;
#define ATTEND_MPI_OPTIONS_INIT ATTEND_INIT(attend_mpi_options)

/* Attention of all queries over all keys, each rank the queries that it has: prefill, and training's forward pass.
 *
 * q (D, nq, H, B)    k (D, nk, Hkv, B)    v (Dv, nk, Hkv, B)    out (Dv, nq, H, B)
 * nq and nk are this rank's, any, 0 included; all else is the same on every rank, types too. As in attend_attention: strides,
 * grouped heads, broadcast batches, narrow types, I8 and F8E4M3 with scales.
 *
 * attention_options, as in attend_attention where a single call over all would have them:
 *   flags                 ATTEND_CAUSAL_TOP_LEFT, ATTEND_WINDOW, by positions
 *   scale, softcap, windows, query_offset(s), alibi_slopes, sinks     the same on every rank
 *   kv_lengths            the same on every rank: keys from that position on do not exist
 *   mask, bias            (N, nq, H, B), broadcast: this rank's queries, the keys of all
 *   lse                   (1, nq, H, B), as out
 *   k_scale, v_scale      with 1 row: this rank's keys, they travel; with more rows: a scale of features, the same everywhere
 * ATTEND_CAUSAL_BOTTOM_RIGHT is ATTEND_INVALID_VALUE: give positions. Not meaningful, and ATTEND_UNSUPPORTED: scores,
 * packed sequences, pages, kv_first, key_offset, state, ATTEND_PARTIAL, ATTEND_CONTINUE. threads, workspace, message and
 * executor must be 0 here, since `options` has them. Numbers that all must have in common are compared, arrays and scales
 * of features by a sum of their bits.
 *
 * How. Keys and values go around the ring of ranks, as they are stored, those of Hkv heads alone, in pieces of 256 to 2048
 * keys in ascending order of positions; every rank folds each piece into the state of its queries (attend_attention's
 * ATTEND_PARTIAL) while the next ones arrive. The thread that calls sees to the messages between two blocks of work of a
 * millisecond or so. Nothing waits but for keys, and ranks whose queries see nothing of a piece only hand it on.
 *
 * Bytes. A key has the bytes of D and of Dv elements in each of its heads and batches, and 4 for each scale with 1 row in
 * each of the scale's. A piece (an eighth of all keys, but 256 to 2048, a multiple of 256) begins on the rank that has all of
 * its keys. One with keys of several ranks, the p-th of n pieces, is gathered first, on rank p * ranks / n. Rank r sends
 * every piece but those that begin on rank r + 1, and what it has of those that are gathered elsewhere: from rank to
 * rank nothing else, whatever the number of ranks. Beside that there are six collective calls, of at most 1 KiB a rank
 * and of 32 bytes a key range of all ranks.
 *
 * Memory. The workspace of a rank holds 2 (Dv + 2) numbers (f32, or f64) a query and head; eight pieces (of
 * 2048 keys at most each); what attend_attention needs for a piece; 32 bytes a key range of all ranks.
 *
 * Rounding, NaN, hidden keys, queries that see none: as in attend_attention. */
ATTEND_API attend_status attend_mpi_attention(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                              const attend_tensor *v, const attend_tensor *out,
                                              const attend_mpi_options *options,
                                              const attend_attention_options *attention_options);
/* What this rank's workspace must have. As attend_matmul_workspace, and every rank calls it, with the ranges. */
ATTEND_API attend_status attend_mpi_attention_workspace(int32_t communicator, const attend_tensor *q,
                                                        const attend_tensor *k, const attend_tensor *v,
                                                        const attend_tensor *out, const attend_mpi_options *options,
                                                        const attend_attention_options *attention_options,
                                                        uint64_t *bytes);

/* The gradients of attend_mpi_attention: d_q, d_k, d_v as attend_attention_backward gives them on one machine, bit for bit.
 *
 * q, k, v, out, options, attention_options: those of the attend_mpi_attention call, out and attention_options.lse with what
 * that wrote; lse is required. d_out (Dv, nq, H, B) as out; d_q, d_k, d_v of the shapes of q, k and v, each null if it is not
 * wanted, which all ranks decide alike. backward_options, null for none: ATTEND_ACCUMULATE, which may be one rank's alone, and
 * d_lse. All that pieces are made of (ATTEND_PARTIAL, states, total_keys, delta), and d_bias and d_sinks, are ATTEND_UNSUPPORTED,
 * and so are mask and bias, which do not travel. threads, workspace, message and executor must be 0 in both, since `options`
 * has them. Types: as in attend_attention_backward.
 *
 * Query ranges of all ranks cover 0..M-1 once here, as key ranges do: sums over queries are in blocks of 64 of them. An lse
 * that is finite and beyond +-1024 is ATTEND_UNSUPPORTED, since one machine finds its query's weights in a way that needs all
 * keys at once: hide keys by -inf, lengths or windows, not by -1e9.
 *
 * How. Twice around the ring. For d_q queries stay and keys go around, as in attend_mpi_attention. For d_k and d_v keys stay,
 * and q, d_out, lse and delta go around, in pieces of 256 to 2048 queries in ascending order, all of the first of the heads
 * that share a key head, then all of the second; so every sum is one rank's, in the order of one machine's. Scores and dP are
 * computed in both: seven products instead of five, where a single pass would hand sums in f32 from rank to rank, each waiting
 * for the one before. Without d_q, or without d_k and d_v, the pass that gives them is left out. Causal: the keys at the
 * beginning are seen by all queries, so deal keys out like the queries here.
 *
 * Bytes. For d_q those of attend_mpi_attention, of D and of Dv elements a key. For d_k and d_v, by the same formula with queries
 * for keys: a query has, in each of its heads and batches, the bytes of D elements of q and Dv of d_out, and two numbers (f32,
 * or f64). Eight collective calls, of at most 1 KiB a rank and of 32 bytes a range of all ranks.
 *
 * Memory. The workspace of a rank holds a number a query and head; 2 D numbers a query and head, or D + Dv a key and key head if
 * those are more; eight pieces of keys, or of queries; what attend_attention_backward needs for a piece; 32 bytes a range of all
 * ranks. */
ATTEND_API attend_status attend_mpi_attention_backward(int32_t communicator, const attend_tensor *q,
                                                       const attend_tensor *k, const attend_tensor *v,
                                                       const attend_tensor *out, const attend_tensor *d_out,
                                                       const attend_tensor *d_q, const attend_tensor *d_k,
                                                       const attend_tensor *d_v, const attend_mpi_options *options,
                                                       const attend_attention_backward_options *backward_options,
                                                       const attend_attention_options *attention_options);
/* As attend_mpi_attention_workspace. */
ATTEND_API attend_status attend_mpi_attention_backward_workspace(
    int32_t communicator, const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
    const attend_tensor *out, const attend_tensor *d_out, const attend_tensor *d_q, const attend_tensor *d_k,
    const attend_tensor *d_v, const attend_mpi_options *options,
    const attend_attention_backward_options *backward_options, const attend_attention_options *attention_options,
    uint64_t *bytes);

/* Attention of a few queries of the root over the keys of all ranks, which stay where they are: decoding with a cache that
 * is spread over machines.
 *
 * q (D, Nq, H, B)    k (D, nk, Hkv, B)    v (Dv, nk, Hkv, B)    out (Dv, Nq, H, B)
 * nk is this rank's; shapes and types of q, out and lse are the same on every rank. q's data is read on the root alone, those
 * of out and lse are written there, or with ATTEND_MPI_ALL_RANKS on every rank; elsewhere they may be null.
 *
 * A key range begins at a multiple of 16384, else ATTEND_INVALID_SHAPE: folding spans of 16384 keys is what the bits are
 * made of. (Without ranges: so many keys on every rank but the last that has any.) As a cache grows, spans may be dealt out
 * one after the other to the ranks. k is the cache's capacity; kv_lengths says how many keys there are.
 *
 * attention_options: as in attend_mpi_attention, positions too, but mask and bias, which are ATTEND_UNSUPPORTED. All Nq
 * queries stand beside each other from query_offset on; query_ranges must be null. (A new token that sees the whole cache
 * needs no causal mask.)
 *
 * Bytes. The root broadcasts q, B H Nq D elements. For each span that has keys and is another rank's it receives one message
 * of B H Nq (Dv + 2) numbers (2^31 or more: ATTEND_OVERFLOW); with ATTEND_MPI_ALL_RANKS it broadcasts out, and lse, in
 * turn.
 *
 * Memory. The workspace holds B H Nq 2 (Dv + 2) numbers and as many halves as this rank has spans (the root: as there are
 * spans), q and out once, and what attend_attention needs for a span. */
ATTEND_API attend_status attend_mpi_decode(int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                                           const attend_tensor *v, const attend_tensor *out,
                                           const attend_mpi_options *options,
                                           const attend_attention_options *attention_options);
/* As attend_mpi_attention_workspace. */
ATTEND_API attend_status attend_mpi_decode_workspace(int32_t communicator, const attend_tensor *q,
                                                     const attend_tensor *k, const attend_tensor *v,
                                                     const attend_tensor *out, const attend_mpi_options *options,
                                                     const attend_attention_options *attention_options,
                                                     uint64_t *bytes);

#ifdef __cplusplus
}
#endif

#endif /* ATTEND_ATTEND_MPI_H */
