/* Between Go and attend: Go may not hand C a structure that holds Go pointers, so every operand's address is an
 * argument of its own and attend's structures are made here, on the C stack.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 */
#ifndef ATTEND_GO_SHIM_H
#define ATTEND_GO_SHIM_H

#include <attend/attend.h>

/* An attend_tensor without its address. A rank of 0 is an absent operand. */
typedef struct shim_view {
  uint32_t dtype, rank;
  int64_t shape[4], stride[4];
} shim_view;

/* What attend says of a call that fails. */
enum { shim_message_size = 512 };

attend_status shim_matmul(double alpha, double beta, uint32_t flags, int32_t threads, void *a, void *b, void *c,
                          void *bias, void *a_scale, void *b_scale, void *a_zero, void *b_zero,
                          const shim_view views[8], char message[shim_message_size]);

attend_status shim_softmax(double scale, uint32_t flags, int32_t threads, void *x, void *y, void *mask, void *bias,
                           void *lse, const shim_view views[5], char message[shim_message_size]);

typedef struct shim_attention_scalars {
  double scale, softcap;
  int64_t query_offset, window_left, window_right, sequences, key_offset;
  uint32_t flags, scores_stage;
  int32_t threads;
} shim_attention_scalars;

attend_status shim_attention(const shim_attention_scalars *scalars, void *q, void *k, void *v, void *out, void *mask,
                             void *bias, void *slopes, void *sinks, void *k_scale, void *v_scale, void *lse,
                             void *scores, void *pages, void *state, int64_t *query_offsets, int64_t *kv_lengths,
                             int64_t *kv_first, int64_t *query_starts, int64_t *key_starts, const shim_view views[14],
                             char message[shim_message_size]);

attend_status shim_merge(int32_t threads, void *out_a, void *lse_a, void *out_b, void *lse_b, const shim_view views[4],
                         char message[shim_message_size]);

/* views: x, out, w_q, w_k, w_v, b_q, b_k, b_v, w_o, b_o, then mask, bias, slopes, sinks, k_scale, v_scale, lse, scores,
 * pages, state. */
attend_status shim_self_attention(const shim_attention_scalars *scalars, void *x, void *out, void *w_q, void *w_k,
                                  void *w_v, void *b_q, void *b_k, void *b_v, void *w_o, void *b_o, void *mask,
                                  void *bias, void *slopes, void *sinks, void *k_scale, void *v_scale, void *lse,
                                  void *scores, void *pages, void *state, int64_t *query_offsets, int64_t *kv_lengths,
                                  int64_t *kv_first, int64_t *query_starts, int64_t *key_starts,
                                  const shim_view views[20], char message[shim_message_size]);

attend_status shim_convert(uint32_t flags, int32_t threads, void *x, void *y, void *scale, const shim_view views[3],
                           char message[shim_message_size]);

attend_status shim_rotary(uint32_t flags, int32_t threads, int64_t rotary_dims, int64_t sequences, void *x, void *cos,
                          void *sin, void *y, int64_t *positions, int64_t *offsets, int64_t *starts,
                          const shim_view views[4], char message[shim_message_size]);

/* views: k, v, k_cache, v_cache, pages, k_scale, v_scale, cos, sin. */
attend_status shim_kv_append(uint32_t flags, int32_t threads, int64_t rotary_dims, int64_t sequences, void *k, void *v,
                             void *k_cache, void *v_cache, void *pages, void *k_scale, void *v_scale, void *cos,
                             void *sin, int64_t *starts, int64_t *offsets, int64_t *slots, int64_t *positions,
                             const shim_view views[9], char message[shim_message_size]);

/* 0 = OpenMP's threads again. Not for two threads at once. */
attend_status shim_set_executor(int32_t workers);

/* task(argument, i). */
void shim_task(uintptr_t task, uintptr_t argument, int32_t i);

#endif
