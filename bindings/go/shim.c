#include "shim.h"

#include <string.h>

#include "_cgo_export.h"

static attend_tensor *tensor(attend_tensor *t, void *data, const shim_view *view) {
  if (view->rank == 0) return NULL;
  t->data = data;
  t->dtype = view->dtype;
  t->rank = view->rank;
  memcpy(t->shape, view->shape, sizeof t->shape);
  memcpy(t->stride, view->stride, sizeof t->stride);
  return t;
}

attend_status shim_matmul(double alpha, double beta, uint32_t flags, int32_t threads, void *a, void *b, void *c,
                          void *bias, void *a_scale, void *b_scale, void *a_zero, void *b_zero,
                          const shim_view views[8], char message[shim_message_size]) {
  attend_tensor t[8];
  attend_matmul_options options = {.size = sizeof options, .flags = flags, .threads = threads};
  options.message = message;
  options.message_size = shim_message_size;
  options.bias = tensor(&t[3], bias, &views[3]);
  options.a_scale = tensor(&t[4], a_scale, &views[4]);
  options.b_scale = tensor(&t[5], b_scale, &views[5]);
  options.a_zero = tensor(&t[6], a_zero, &views[6]);
  options.b_zero = tensor(&t[7], b_zero, &views[7]);
  return attend_matmul(alpha, tensor(&t[0], a, &views[0]), tensor(&t[1], b, &views[1]), beta,
                       tensor(&t[2], c, &views[2]), &options);
}

attend_status shim_softmax(double scale, uint32_t flags, int32_t threads, void *x, void *y, void *mask, void *bias,
                           void *lse, const shim_view views[5], char message[shim_message_size]) {
  attend_tensor t[5];
  attend_softmax_options options = {.size = sizeof options, .flags = flags, .threads = threads, .scale = scale};
  options.message = message;
  options.message_size = shim_message_size;
  options.mask = tensor(&t[2], mask, &views[2]);
  options.bias = tensor(&t[3], bias, &views[3]);
  options.lse = tensor(&t[4], lse, &views[4]);
  return attend_softmax(tensor(&t[0], x, &views[0]), tensor(&t[1], y, &views[1]), &options);
}

static attend_attention_options attention_options(const shim_attention_scalars *s, attend_tensor t[10], void *mask,
                                                  void *bias, void *slopes, void *sinks, void *k_scale, void *v_scale,
                                                  void *lse, void *scores, void *pages, void *state,
                                                  int64_t *query_offsets, int64_t *kv_lengths, int64_t *kv_first,
                                                  int64_t *query_starts, int64_t *key_starts,
                                                  const shim_view views[10]) {
  attend_attention_options options = {.size = sizeof options, .flags = s->flags, .scale = s->scale};
  options.softcap = s->softcap;
  options.query_offset = s->query_offset;
  options.query_offsets = query_offsets;
  options.kv_lengths = kv_lengths;
  options.kv_first = kv_first;
  options.sequences = s->sequences;
  options.query_starts = query_starts;
  options.key_starts = key_starts;
  options.window_left = s->window_left;
  options.window_right = s->window_right;
  options.mask = tensor(&t[0], mask, &views[0]);
  options.bias = tensor(&t[1], bias, &views[1]);
  options.alibi_slopes = tensor(&t[2], slopes, &views[2]);
  options.sinks = tensor(&t[3], sinks, &views[3]);
  options.k_scale = tensor(&t[4], k_scale, &views[4]);
  options.v_scale = tensor(&t[5], v_scale, &views[5]);
  options.lse = tensor(&t[6], lse, &views[6]);
  options.scores = tensor(&t[7], scores, &views[7]);
  options.pages = tensor(&t[8], pages, &views[8]);
  options.state = tensor(&t[9], state, &views[9]);
  options.key_offset = s->key_offset;
  options.scores_stage = s->scores_stage;
  return options;
}

attend_status shim_attention(const shim_attention_scalars *scalars, void *q, void *k, void *v, void *out, void *mask,
                             void *bias, void *slopes, void *sinks, void *k_scale, void *v_scale, void *lse,
                             void *scores, void *pages, void *state, int64_t *query_offsets, int64_t *kv_lengths,
                             int64_t *kv_first, int64_t *query_starts, int64_t *key_starts, const shim_view views[14],
                             char message[shim_message_size]) {
  attend_tensor t[14];
  attend_attention_options options =
      attention_options(scalars, &t[4], mask, bias, slopes, sinks, k_scale, v_scale, lse, scores, pages, state,
                        query_offsets, kv_lengths, kv_first, query_starts, key_starts, &views[4]);
  options.threads = scalars->threads;
  options.message = message;
  options.message_size = shim_message_size;
  return attend_attention(tensor(&t[0], q, &views[0]), tensor(&t[1], k, &views[1]), tensor(&t[2], v, &views[2]),
                          tensor(&t[3], out, &views[3]), &options);
}

attend_status shim_merge(int32_t threads, void *out_a, void *lse_a, void *out_b, void *lse_b, const shim_view views[4],
                         char message[shim_message_size]) {
  attend_tensor t[4];
  const attend_merge_options options = {
      .size = sizeof options, .threads = threads, .message = message, .message_size = shim_message_size};
  return attend_attention_merge(tensor(&t[0], out_a, &views[0]), tensor(&t[1], lse_a, &views[1]),
                                tensor(&t[2], out_b, &views[2]), tensor(&t[3], lse_b, &views[3]), &options);
}

attend_status shim_self_attention(const shim_attention_scalars *scalars, void *x, void *out, void *w_q, void *w_k,
                                  void *w_v, void *b_q, void *b_k, void *b_v, void *w_o, void *b_o, void *mask,
                                  void *bias, void *slopes, void *sinks, void *k_scale, void *v_scale, void *lse,
                                  void *scores, void *pages, void *state, int64_t *query_offsets, int64_t *kv_lengths,
                                  int64_t *kv_first, int64_t *query_starts, int64_t *key_starts,
                                  const shim_view views[20], char message[shim_message_size]) {
  attend_tensor t[20];
  attend_self_attention_weights weights = {.size = sizeof weights};
  weights.w_q = tensor(&t[2], w_q, &views[2]);
  weights.w_k = tensor(&t[3], w_k, &views[3]);
  weights.w_v = tensor(&t[4], w_v, &views[4]);
  weights.b_q = tensor(&t[5], b_q, &views[5]);
  weights.b_k = tensor(&t[6], b_k, &views[6]);
  weights.b_v = tensor(&t[7], b_v, &views[7]);
  weights.w_o = tensor(&t[8], w_o, &views[8]);
  weights.b_o = tensor(&t[9], b_o, &views[9]);
  const attend_self_attention_options options = {
      .size = sizeof options, .threads = scalars->threads, .message = message, .message_size = shim_message_size};
  const attend_attention_options attention =
      attention_options(scalars, &t[10], mask, bias, slopes, sinks, k_scale, v_scale, lse, scores, pages, state,
                        query_offsets, kv_lengths, kv_first, query_starts, key_starts, &views[10]);
  return attend_self_attention(tensor(&t[0], x, &views[0]), &weights, tensor(&t[1], out, &views[1]), &options,
                               &attention);
}

attend_status shim_convert(uint32_t flags, int32_t threads, void *x, void *y, void *scale, const shim_view views[3],
                           char message[shim_message_size]) {
  attend_tensor t[3];
  attend_convert_options options = {.size = sizeof options, .flags = flags, .threads = threads};
  options.message = message;
  options.message_size = shim_message_size;
  options.scale = tensor(&t[2], scale, &views[2]);
  return attend_convert(tensor(&t[0], x, &views[0]), tensor(&t[1], y, &views[1]), &options);
}

attend_status shim_rotary(uint32_t flags, int32_t threads, int64_t rotary_dims, int64_t sequences, void *x, void *cos,
                          void *sin, void *y, int64_t *positions, int64_t *offsets, int64_t *starts,
                          const shim_view views[4], char message[shim_message_size]) {
  attend_tensor t[4];
  const attend_rotary_options options = {.size = sizeof options,
                                         .flags = flags,
                                         .threads = threads,
                                         .message = message,
                                         .message_size = shim_message_size,
                                         .rotary_dims = rotary_dims,
                                         .positions = positions,
                                         .offsets = offsets,
                                         .sequences = sequences,
                                         .starts = starts};
  return attend_rotary(tensor(&t[0], x, &views[0]), tensor(&t[1], cos, &views[1]), tensor(&t[2], sin, &views[2]),
                       tensor(&t[3], y, &views[3]), &options);
}

attend_status shim_kv_append(uint32_t flags, int32_t threads, int64_t rotary_dims, int64_t sequences, void *k, void *v,
                             void *k_cache, void *v_cache, void *pages, void *k_scale, void *v_scale, void *cos,
                             void *sin, int64_t *starts, int64_t *offsets, int64_t *slots, int64_t *positions,
                             const shim_view views[9], char message[shim_message_size]) {
  attend_tensor t[9];
  attend_kv_append_options options = {.size = sizeof options, .flags = flags, .threads = threads};
  options.message = message;
  options.message_size = shim_message_size;
  options.rotary_dims = rotary_dims;
  options.sequences = sequences;
  options.starts = starts;
  options.offsets = offsets;
  options.slots = slots;
  options.positions = positions;
  options.pages = tensor(&t[4], pages, &views[4]);
  options.k_scale = tensor(&t[5], k_scale, &views[5]);
  options.v_scale = tensor(&t[6], v_scale, &views[6]);
  options.cos = tensor(&t[7], cos, &views[7]);
  options.sin = tensor(&t[8], sin, &views[8]);
  return attend_kv_append(tensor(&t[0], k, &views[0]), tensor(&t[1], v, &views[1]), tensor(&t[2], k_cache, &views[2]),
                          tensor(&t[3], v_cache, &views[3]), &options);
}

static void run(void *context, int32_t tasks, attend_task task, void *argument) {
  (void)context;
  attendRunOnGoroutines(tasks, (uintptr_t)task, (uintptr_t)argument);
}

/* One for each number of workers, so that those which calls still use stay as they are. */
attend_status shim_set_executor(int32_t workers) {
  static attend_executor executors[1 + 64];
  if (workers == 0) return attend_set_executor(NULL);
  if (workers < 0) {
    const attend_executor wrong = {.size = sizeof wrong, .workers = workers, .run = run};
    return attend_set_executor(&wrong);
  }
  if (workers > 64) workers = 64;
  attend_executor *executor = &executors[workers];
  if (executor->size == 0) {
    executor->workers = workers;
    executor->run = run;
    executor->size = sizeof *executor;
  }
  return attend_set_executor(executor);
}

void shim_task(uintptr_t task, uintptr_t argument, int32_t i) { ((attend_task)task)((void *)argument, i); }
