/* attention, its gradients, self_attention and merge, whose arguments are as attend/__init__.py passes them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "attention.h"

static attend_status check_attention(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                     const attend_tensor *out, const attend_attention_options *options) {
  uint64_t bytes;
  const attend_status status = attend_attention_workspace(q, k, v, out, options, &bytes);
  if (ATTEND_REASON(status) != ATTEND_OVERFLOW) return status;
  const attend_tensor q1 = one_column(q), out1 = one_column(out);
  const attend_attention_options bare = {.size = sizeof bare,
                                         .message = options->message,
                                         .message_size = options->message_size,
                                         .k_scale = options->k_scale,
                                         .v_scale = options->v_scale,
                                         .kv_lengths = options->kv_lengths,
                                         .sequences = options->sequences,
                                         .query_starts = options->query_starts,
                                         .key_starts = options->key_starts,
                                         .pages = options->pages};
  return first_of(attend_attention_workspace(&q1, k, v, &out1, &bare, &bytes), status);
}

static attend_status check_self_attention(const attend_tensor *x, const attend_self_attention_weights *weights,
                                          const attend_tensor *out, const attend_self_attention_options *options,
                                          const attend_attention_options *attention_options) {
  uint64_t bytes;
  const attend_status status = attend_self_attention_workspace(x, weights, out, options, attention_options, &bytes);
  if (ATTEND_REASON(status) != ATTEND_OVERFLOW) return status;
  const attend_tensor x1 = one_column(x), out1 = one_column(out);
  const attend_self_attention_options bare = {
      .size = sizeof bare, .message = options->message, .message_size = options->message_size};
  return first_of(attend_self_attention_workspace(&x1, weights, &out1, &bare, NULL, &bytes), status);
}

/* What the scores of a call look like: Nk x Nq for every head and batch, and how their axes stand. */
typedef struct scores_shape {
  int64_t keys, queries, heads, batch;
  int rank, arrangement;
  uint32_t dtype;
} scores_shape;

enum { ATTENTION_OPTIONS = 18, FIRST_OF_SERVING = 15 };

/* (.., query_starts, key_starts, pages), the last of the attention options: what says how many batches there are, and so
 * has to be known before the others and before the output. */
static void take_serving(call *self, PyObject *const *args, attend_attention_options *options) {
  args += FIRST_OF_SERVING;
  options->query_starts = take_starts(self, args[0], "query_starts", &options->sequences);
  options->key_starts = take_starts(self, args[1], "key_starts", &options->sequences);
  options->pages = take_input(self, args[2], "pages", AS_ACTIVATION);
}

/* (flags, scale, softcap, query_offset, query_offsets, kv_lengths, kv_first, window_left, window_right, mask, bias, alibi_slopes,
 * sinks, ..) */
static void take_inputs_of_options(call *self, PyObject *const *args, const scores_shape *scores,
                                   attend_attention_options *options) {
  const int arrangement = scores->arrangement;
  const int64_t batch = options->sequences ? options->sequences : scores->batch;
  options->flags |= (uint32_t)take_int64(self, args[0], "causal");
  if (args[1] != Py_None) options->scale = take_scale(self, args[1], "; None means 1 / sqrt(D)");
  options->softcap = take_double(self, args[2], "softcap");
  options->query_offset = take_int64(self, args[3], "query_offset");
  options->query_offsets = take_integers(self, args[4], "query_offset", batch);
  options->kv_lengths = take_integers(self, args[5], "kv_lengths", batch);
  options->kv_first = take_integers(self, args[6], "kv_first", batch);
  options->window_left = take_int64(self, args[7], "window");
  options->window_right = take_int64(self, args[8], "window");
  options->mask = take_input(self, args[9], "mask", arrangement);
  options->bias = take_input(self, args[10], "bias", arrangement);
  options->alibi_slopes = take_input(self, args[11], "alibi_slopes", AS_ACTIVATION);
  options->sinks = take_input(self, args[12], "sinks", AS_ACTIVATION);
}

/* The same, and (.., want_lse or an array for it, scores_stage or None, ..). To be called after the call's main output is
 * taken: results keep that order. */
static void take_attention_options(call *self, PyObject *const *args, const scores_shape *scores,
                                   attend_attention_options *options) {
  const int arrangement = scores->arrangement;
  take_inputs_of_options(self, args, scores, options);
  if (args[13] != Py_False) {
    const int64_t shape[4] = {1, scores->queries, scores->heads, scores->batch};
    options->lse = take_output(self, args[13] == Py_True ? Py_None : args[13], "lse", arrangement | WITHOUT_ROWS, shape,
                               scores->rank, arithmetic_dtype(scores->dtype));
  }
  if (args[14] != Py_None) {
    const int64_t shape[4] = {scores->keys, scores->queries, scores->heads, scores->batch};
    options->scores =
        take_output(self, Py_None, "scores", arrangement, shape, scores->rank, arithmetic_dtype(scores->dtype));
    options->scores_stage = (uint32_t)take_int64(self, args[14], "return_scores");
  }
}

/* Of attention. Packed queries are one batch; those of pages are the rows of the table, not what the pool has. */
static scores_shape shape_of_scores(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                    const attend_attention_options *options) {
  const attend_tensor *pages = options->pages;
  scores_shape shape = {extent(k, 1),
                        extent(q, 1),
                        extent(q, 2),
                        broadcast(extent(q, 3), broadcast(extent(k, 3), extent(v, 3))),
                        larger((uint32_t)larger(q->rank, k->rank), v->rank),
                        AS_ACTIVATION,
                        q->dtype};
  if (options->query_starts) {
    shape.batch = 1;
    shape.rank = (int)q->rank;
  } else if (options->key_starts) {
    shape.batch = options->sequences;
    shape.rank = 4;
  } else if (pages) {
    shape.batch = extent(pages, 1);
    shape.rank = pages->rank > 1 ? 4 : (int)q->rank;
  }
  /* What is beyond 63 bits is found by the check of all. */
  if (pages) shape.keys = (int64_t)((uint64_t)shape.keys * (uint64_t)extent(pages, 0));
  return shape;
}

/* (state, key_offset, pauses): keys in pieces. A state goes on from what it holds; a new one is the result of a first piece. */
static void take_pieces(call *self, PyObject *const *args, const scores_shape *scores, int64_t value_rows,
                        attend_attention_options *options) {
  options->key_offset = take_int64(self, args[1], "key_offset");
  if (args[0] != Py_None) options->flags |= ATTEND_CONTINUE;
  if (!(options->flags & ATTEND_PARTIAL)) {
    options->state = take_input(self, args[0], "state", AS_ACTIVATION);
    return;
  }
  const int64_t shape[4] = {(int64_t)(2 * ((uint64_t)value_rows + 2)), scores->queries, scores->heads, scores->batch};
  options->state =
      take_output(self, args[0], "state", AS_ACTIVATION, shape, scores->rank, arithmetic_dtype(scores->dtype));
}

enum { ATTENTION_OPERANDS = 10 };

/* `of_torch`: by the names of attend.torch, of tensors and of memory that it describes. */
static void begin(call *self, int of_torch) {
  static renaming renamed[] = {{"q", "query"},
                               {"k", "key"},
                               {"v", "value"},
                               {"mask", "attn_mask"},
                               {"bias", "attn_mask"},
                               {"flags", "is_causal"},
                               {"kv_first", "first"},
                               {"kv_lengths", "lengths"},
                               {"query_offsets", "query_offset"},
                               {NULL, NULL}};
  static const naming torch_names = {renamed, {"columns", "rows"}};
  call_begin(self, of_torch ? &torch_names : NULL);
  self->borrows = of_torch;
}

/* (q, k, v, out, threads, k_scale, v_scale, state, key_offset, pauses) and the attention options. The result of a call that
 * pauses is the state: `out`, which such a call only looks at, is memory that nobody is given. */
static PyObject *attention(PyObject *const *args, Py_ssize_t count, int of_torch) {
  if (!expect_count(count, ATTENTION_OPERANDS + ATTENTION_OPTIONS)) return NULL;
  call self;
  begin(&self, of_torch);
  const attend_tensor *q = take_required(&self, args[0], "q", AS_ACTIVATION);
  const attend_tensor *k = take_required(&self, args[1], "k", AS_ACTIVATION);
  const attend_tensor *v = take_required(&self, args[2], "v", AS_ACTIVATION);
  attend_attention_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[4], "threads"), WITH_MESSAGE(self)};
  options.k_scale = take_input(&self, args[5], "k_scale", AS_ACTIVATION);
  options.v_scale = take_input(&self, args[6], "v_scale", AS_ACTIVATION);
  const int pauses = args[9] == Py_True;
  if (pauses) options.flags = ATTEND_PARTIAL;
  take_serving(&self, args + ATTENTION_OPERANDS, &options);
  if (self.failed) return call_end(&self);

  const scores_shape scores = shape_of_scores(q, k, v, &options);
  const int64_t shape[4] = {extent(v, 0), scores.queries, scores.heads, scores.batch};
  const attend_tensor *out = NULL;
  if (!pauses) out = take_output(&self, args[3], "out", AS_ACTIVATION, shape, scores.rank, q->dtype);
  take_pieces(&self, args + 7, &scores, extent(v, 0), &options);
  take_attention_options(&self, args + ATTENTION_OPERANDS, &scores, &options);
  if (pauses) out = take_output(&self, Py_None, "out", AS_ACTIVATION, shape, scores.rank, q->dtype);
  if (!self.failed && call_has_plans(&self)) call_allocate(&self, check_attention(q, k, v, out, &options));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_attention(q, k, v, out, &options);
  Py_END_ALLOW_THREADS
  if (pauses) call_forget(&self);
  if (status) call_raise(&self, status);
  return call_end(&self);
}

static PyObject *py_attention(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  return attention(args, count, 0);
}
static PyObject *py_attention_of_tensors(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  return attention(args, count, 1);
}

/* True: a new array, of the operand's type, or where that is narrow and the batch is summed of the arithmetic's. False: the
 * gradient is not wanted. */
static attend_tensor *take_gradient(call *self, PyObject *given, const char *name, const attend_tensor *of,
                                    uint32_t dtype) {
  if (self->failed || given == Py_False) return NULL;
  if (given != Py_True) return take_output(self, given, name, AS_ACTIVATION, NULL, 0, 0);
  int64_t shape[4];
  for (uint32_t i = 0; i < 4; ++i) shape[i] = extent(of, i);
  return take_output(self, Py_None, name, AS_ACTIVATION, shape, (int)of->rank, dtype);
}
static attend_tensor *take_gradient_of(call *self, PyObject *given, const char *name, const attend_tensor *of,
                                       int is_packed, int64_t batch) {
  if (self->failed) return NULL;
  const int sums = !is_packed && batch > 1 && extent(of, 3) == 1;
  return take_gradient(self, given, name, of, sums ? arithmetic_dtype(of->dtype) : of->dtype);
}
/* Of something that is perhaps absent; then there is no gradient. */
static attend_tensor *take_gradient_of_option(call *self, PyObject *given, const char *name, const char *what,
                                              const attend_tensor *of, uint32_t dtype) {
  if (self->failed || given == Py_False) return NULL;
  if (of) return take_gradient(self, given, name, of, arithmetic_dtype(dtype));
  PyErr_Format(PyExc_ValueError, "%s: is asked for, but not given %s", name, what);
  self->failed = 1;
  return NULL;
}

/* (q, k, v, out, d_out, lse, d_lse, d_q, d_k, d_v, d_bias, d_sinks, accumulate, threads) and the attention options, of which
 * lse and scores are not looked at; gradients are arrays, True or False */
static PyObject *attention_backward(PyObject *const *args, Py_ssize_t count, int of_torch) {
  if (!expect_count(count, 14 + ATTENTION_OPTIONS)) return NULL;
  call self;
  begin(&self, of_torch);
  self.gives_tuple = 1;
  const attend_tensor *q = take_required(&self, args[0], "q", AS_ACTIVATION);
  const attend_tensor *k = take_required(&self, args[1], "k", AS_ACTIVATION);
  const attend_tensor *v = take_required(&self, args[2], "v", AS_ACTIVATION);
  const attend_tensor *out = take_required(&self, args[3], "out", AS_ACTIVATION);
  const attend_tensor *d_out = take_required(&self, args[4], "d_out", AS_ACTIVATION);
  attend_attention_options forward = {.size = sizeof forward};
  attend_attention_backward_options options = {.size = sizeof options,
                                               .flags = args[12] == Py_True ? ATTEND_ACCUMULATE : 0,
                                               .threads = take_int32(&self, args[13], "threads"),
                                               WITH_MESSAGE(self)};
  forward.lse = take_input(&self, args[5], "lse", WITHOUT_ROWS);
  options.d_lse = take_input(&self, args[6], "d_lse", WITHOUT_ROWS);
  take_serving(&self, args + 14, &forward);
  if (self.failed) return call_end(&self);

  const scores_shape scores = shape_of_scores(q, k, v, &forward);
  take_inputs_of_options(&self, args + 14, &scores, &forward);
  const int64_t batch = scores.batch;
  const attend_tensor *d_q = take_gradient_of(&self, args[7], "d_q", q, forward.query_starts != NULL, batch);
  const attend_tensor *d_k = take_gradient_of(&self, args[8], "d_k", k, forward.key_starts != NULL, batch);
  const attend_tensor *d_v = take_gradient_of(&self, args[9], "d_v", v, forward.key_starts != NULL, batch);
  options.d_bias = take_gradient_of_option(&self, args[10], "d_bias", "bias", forward.bias, q->dtype);
  options.d_sinks = take_gradient_of_option(&self, args[11], "d_sinks", "sinks", forward.sinks, q->dtype);
  attend_status status;
  if (!self.failed && call_has_plans(&self)) {
    uint64_t bytes;
    status = attend_attention_backward_workspace(q, k, v, out, d_out, d_q, d_k, d_v, &options, &forward, &bytes);
    call_allocate(&self, status);
  }
  if (self.failed) return call_end(&self);

  Py_BEGIN_ALLOW_THREADS
  status = attend_attention_backward(q, k, v, out, d_out, d_q, d_k, d_v, &options, &forward);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

static PyObject *py_attention_backward(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  return attention_backward(args, count, 0);
}
static PyObject *py_attention_backward_of_tensors(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  return attention_backward(args, count, 1);
}

/* (x, w_q, w_k, w_v, b_q, b_k, b_v, w_o, b_o, out, threads) and the attention options */
static PyObject *py_self_attention(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  if (!expect_count(count, 11 + ATTENTION_OPTIONS)) return NULL;
  call self;
  call_begin(&self, NULL);
  const attend_tensor *x = take_required(&self, args[0], "x", ONE_HEAD);
  attend_self_attention_weights weights = {.size = sizeof weights};
  weights.w_q = take_required(&self, args[1], "w_q", AS_WEIGHT);
  weights.w_k = take_required(&self, args[2], "w_k", AS_WEIGHT);
  weights.w_v = take_required(&self, args[3], "w_v", AS_WEIGHT);
  weights.b_q = take_input(&self, args[4], "b_q", AS_WEIGHT);
  weights.b_k = take_input(&self, args[5], "b_k", AS_WEIGHT);
  weights.b_v = take_input(&self, args[6], "b_v", AS_WEIGHT);
  weights.w_o = take_input(&self, args[7], "w_o", AS_WEIGHT);
  weights.b_o = take_input(&self, args[8], "b_o", AS_ACTIVATION);
  attend_self_attention_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[10], "threads"), WITH_MESSAGE(self)};
  attend_attention_options attention_options = {.size = sizeof attention_options};
  take_serving(&self, args + 11, &attention_options);
  if (self.failed) return call_end(&self);

  const int has_batch = x->rank > 2, has_heads = weights.w_q->rank > 2, out_has_heads = has_heads && !weights.w_o;
  const scores_shape scores = {extent(x, 1),
                               extent(x, 1),
                               extent(weights.w_q, 2),
                               extent(x, 3),
                               has_batch   ? 4
                               : has_heads ? 3
                                           : 2,
                               has_heads ? AS_ACTIVATION : ONE_HEAD,
                               x->dtype};
  const int64_t shape[4] = {extent(weights.w_o ? weights.w_o : weights.w_v, 0), scores.queries,
                            weights.w_o ? 1 : scores.heads, scores.batch};
  const attend_tensor *out = take_output(&self, args[9], "out", out_has_heads ? AS_ACTIVATION : ONE_HEAD, shape,
                                         has_batch       ? 4
                                         : out_has_heads ? 3
                                                         : 2,
                                         x->dtype);
  take_attention_options(&self, args + 11, &scores, &attention_options);
  if (!self.failed && call_has_plans(&self))
    call_allocate(&self, check_self_attention(x, &weights, out, &options, &attention_options));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_self_attention(x, &weights, out, &options, &attention_options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

/* (out_a, lse_a, out_b, lse_b, threads) */
static PyObject *py_merge(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  if (!expect_count(count, 5)) return NULL;
  call self;
  call_begin(&self, NULL);
  const attend_tensor *out_a = take_inout(&self, args[0], "out_a", AS_ACTIVATION);
  const attend_tensor *lse_a = take_inout(&self, args[1], "lse_a", WITHOUT_ROWS);
  const attend_tensor *out_b = take_input(&self, args[2], "out_b", AS_ACTIVATION);
  const attend_tensor *lse_b = take_input(&self, args[3], "lse_b", WITHOUT_ROWS);
  const attend_merge_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[4], "threads"), WITH_MESSAGE(self)};
  if (self.failed) return call_end(&self);
  call_keep(&self, Py_NewRef(args[0]));
  call_keep(&self, Py_NewRef(args[1]));

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_attention_merge(out_a, lse_a, out_b, lse_b, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

static PyMethodDef methods[] = {{"attention", FAST(py_attention)},
                                {"attention_of_tensors", FAST(py_attention_of_tensors)},
                                {"attention_backward", FAST(py_attention_backward)},
                                {"attention_backward_of_tensors", FAST(py_attention_backward_of_tensors)},
                                {"self_attention", FAST(py_self_attention)},
                                {"merge", FAST(py_merge)},
                                {NULL, NULL, 0, NULL}};

int attention_add(PyObject *module) { return PyModule_AddFunctions(module, methods); }
