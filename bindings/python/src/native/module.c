/* attend._attend: arrays in, attend_tensors down, NumPy arrays out. Every argument is positional and checked for its kind
 * only; what attend itself checks is left to it. attend/__init__.py is the face of this.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "executor.h"
#include "settings.h"

static int64_t extent(const attend_tensor *tensor, uint32_t dimension) {
  return dimension < tensor->rank ? tensor->shape[dimension] : 1;
}

static int64_t broadcast(int64_t a, int64_t b) { return a == 1 ? b : a; }

static int larger(uint32_t a, uint32_t b) { return (int)(a > b ? a : b); }

/* A result that is too large for any machine would hide what else is wrong. The same call for one column finds it, and
 * leaves its own message. */
static attend_tensor one_column(const attend_tensor *tensor) {
  attend_tensor one = *tensor;
  if (one.rank > 1) one.shape[1] = 1;
  return one;
}
static attend_status first_of(attend_status small, attend_status all) { return small ? small : all; }

static attend_status check_matmul(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                                  const attend_tensor *c, const attend_matmul_options *options) {
  uint64_t bytes;
  const attend_status status = attend_matmul_workspace(alpha, a, b, beta, c, options, &bytes);
  if (ATTEND_REASON(status) != ATTEND_OVERFLOW) return status;
  const attend_tensor b1 = one_column(b), c1 = one_column(c);
  const attend_matmul_options bare = {
      .size = sizeof bare, .message = options->message, .message_size = options->message_size};
  return first_of(attend_matmul_workspace(alpha, a, &b1, beta, &c1, &bare, &bytes), status);
}

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
                                         .v_scale = options->v_scale};
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

/* ------------------------------------------------------------------------------------------------------- matmul -- */

/* Of 8-bit integers: int32, which is exact, float32 with a scale; beside a floating-point factor, its type. */
static uint32_t product_dtype(uint32_t a, uint32_t b, const attend_matmul_options *options) {
  const int a_is_byte = a == ATTEND_I8 || a == ATTEND_U8, b_is_byte = b == ATTEND_I8 || b == ATTEND_U8;
  if (!a_is_byte || !b_is_byte) return a_is_byte ? b : a;
  return options->a_scale || options->b_scale ? ATTEND_F32 : ATTEND_I32;
}

/* (a, b, out, bias, alpha, beta, threads, a_scale, b_scale, a_zero, b_zero): row-major arrays, so (A B)^T = B^T A^T with
 * the names changed over. */
static PyObject *py_matmul(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {
      {"a", "b"},           {"b", "a"},           {"c", "out"}, {"a_scale", "b_scale"}, {"b_scale", "a_scale"},
      {"a_zero", "b_zero"}, {"b_zero", "a_zero"}, {NULL, NULL}};
  static const naming names = {renamed, {"columns", "rows", "along axis -3", "along axis -4"}};
  (void)module;
  if (!expect_count(count, 11)) return NULL;
  call self;
  call_begin(&self, &names);
  const attend_tensor *a = take_required(&self, args[0], "a", AS_ACTIVATION);
  const attend_tensor *b = take_required(&self, args[1], "b", AS_ACTIVATION);
  attend_matmul_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[6], "threads"), WITH_MESSAGE(self)};
  const double alpha = take_double(&self, args[4], "alpha"), beta = take_double(&self, args[5], "beta");
  options.bias = take_input(&self, args[3], "bias", AS_ACTIVATION);
  options.b_scale = take_input(&self, args[7], "a_scale", AS_ACTIVATION);
  options.a_scale = take_input(&self, args[8], "b_scale", AS_ACTIVATION);
  options.b_zero = take_input(&self, args[9], "a_zero", AS_ACTIVATION);
  options.a_zero = take_input(&self, args[10], "b_zero", AS_ACTIVATION);
  for (int i = 0; i < 2 && !self.failed; ++i) {
    const view *factor = &self.views[i];
    if (factor->array.axes >= 2) continue;
    PyErr_Format(PyExc_ValueError, "%s: has %d axes, but needs 2 or more", factor->name, factor->array.axes);
    self.failed = 1;
  }
  if (!self.failed && beta != 0 && args[2] == Py_None) call_fail(&self, PyExc_ValueError, "beta: needs an out to read");
  if (self.failed) return call_end(&self);

  const int64_t shape[4] = {extent(b, 0), extent(a, 1), broadcast(extent(a, 2), extent(b, 2)),
                            broadcast(extent(a, 3), extent(b, 3))};
  const attend_tensor *c = take_output(&self, args[2], "out", AS_ACTIVATION, shape, larger(a->rank, b->rank),
                                       product_dtype(a->dtype, b->dtype, &options));
  if (!self.failed && call_has_plans(&self)) call_allocate(&self, check_matmul(alpha, b, a, beta, c, &options));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_matmul(alpha, b, a, beta, c, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

/* ------------------------------------------------------------------------------------------------------ softmax -- */

static double take_scale(call *self, PyObject *object, const char *instead_of_zero) {
  const double scale = take_double(self, object, "scale");
  if (!self->failed && scale == 0) {
    PyErr_Format(PyExc_ValueError, "scale: must not be 0%s", instead_of_zero);
    self->failed = 1;
  }
  return scale;
}

/* (x, axis, out, mask, bias, scale, log, want_lse, threads) */
static PyObject *py_softmax(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {{"y", "out"}, {NULL, NULL}};
  static const naming names = {renamed, {NULL}};
  (void)module;
  if (!expect_count(count, 9)) return NULL;
  call self;
  call_begin(&self, &names);
  (void)take_required(&self, args[0], "x", AS_ACTIVATION);
  int64_t axis = take_int64(&self, args[1], "axis");
  attend_softmax_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[8], "threads"), WITH_MESSAGE(self)};
  options.scale = take_scale(&self, args[5], "");
  if (args[6] == Py_True) options.flags = ATTEND_LOG;
  if (self.failed) return call_end(&self);

  view *x = &self.views[0];
  const int axes = x->array.axes;
  if (axis < -axes || axis >= axes) {
    PyErr_Format(PyExc_ValueError, "axis: %lld, but x has %d axes", (long long)axis, axes);
    self.failed = 1;
    return call_end(&self);
  }
  if (axis >= 0) axis -= axes;
  call_count_along(&self, axes, (int)axis);
  view *y = open_output_like(&self, args[2], "out", &x->array);
  view *mask = open_view(&self, args[3], "mask", 0);
  view *bias = open_view(&self, args[4], "bias", 0);
  if (!self.failed)
    self.failed = view_arrange_axis(x, "x", axes, (int)axis) || view_arrange_axis(y, "out", axes, (int)axis) ||
                  (mask && view_arrange_axis(mask, "mask", axes, (int)axis)) ||
                  (bias && view_arrange_axis(bias, "bias", axes, (int)axis));
  if (self.failed) return call_end(&self);
  options.mask = mask ? &mask->tensor : NULL;
  options.bias = bias ? &bias->tensor : NULL;
  if (args[7] == Py_True) {
    const int64_t shape[4] = {1, extent(&x->tensor, 1), extent(&x->tensor, 2), extent(&x->tensor, 3)};
    options.lse = take_output(&self, Py_None, "lse", WITHOUT_ROWS, shape, axes, arithmetic_dtype(x->array.dtype));
  }
  uint64_t bytes;
  if (!self.failed && call_has_plans(&self))
    call_allocate(&self, attend_softmax_workspace(&x->tensor, &y->tensor, &options, &bytes));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_softmax(&x->tensor, &y->tensor, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

/* ---------------------------------------------------------------------------------------------------- attention -- */

/* What the scores of a call look like: Nk x Nq for every head and batch, and how their axes stand. */
typedef struct scores_shape {
  int64_t keys, queries, heads, batch;
  int rank, arrangement;
  uint32_t dtype;
} scores_shape;

enum { ATTENTION_OPTIONS = 15 };

/* (flags, scale, softcap, query_offset, query_offsets, kv_lengths, kv_first, window_left, window_right, mask, bias, alibi_slopes,
 * sinks, want_lse, scores_stage or None). To be called after the call's main output is taken: results keep that order. */
static void take_attention_options(call *self, PyObject *const *args, const scores_shape *scores,
                                   attend_attention_options *options) {
  const int arrangement = scores->arrangement;
  options->flags = (uint32_t)take_int64(self, args[0], "causal");
  if (args[1] != Py_None) options->scale = take_scale(self, args[1], "; None means 1 / sqrt(D)");
  options->softcap = take_double(self, args[2], "softcap");
  options->query_offset = take_int64(self, args[3], "query_offset");
  options->query_offsets = take_integers(self, args[4], "query_offset", scores->batch);
  options->kv_lengths = take_integers(self, args[5], "kv_lengths", scores->batch);
  options->kv_first = take_integers(self, args[6], "kv_first", scores->batch);
  options->window_left = take_int64(self, args[7], "window");
  options->window_right = take_int64(self, args[8], "window");
  options->mask = take_input(self, args[9], "mask", arrangement);
  options->bias = take_input(self, args[10], "bias", arrangement);
  options->alibi_slopes = take_input(self, args[11], "alibi_slopes", AS_ACTIVATION);
  options->sinks = take_input(self, args[12], "sinks", AS_ACTIVATION);
  if (args[13] == Py_True) {
    const int64_t shape[4] = {1, scores->queries, scores->heads, scores->batch};
    options->lse = take_output(self, Py_None, "lse", arrangement | WITHOUT_ROWS, shape, scores->rank,
                               arithmetic_dtype(scores->dtype));
  }
  if (args[14] != Py_None) {
    const int64_t shape[4] = {scores->keys, scores->queries, scores->heads, scores->batch};
    options->scores =
        take_output(self, Py_None, "scores", arrangement, shape, scores->rank, arithmetic_dtype(scores->dtype));
    options->scores_stage = (uint32_t)take_int64(self, args[14], "return_scores");
  }
}

/* (q, k, v, out, threads, k_scale, v_scale) and the attention options */
static PyObject *py_attention(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  if (!expect_count(count, 7 + ATTENTION_OPTIONS)) return NULL;
  call self;
  call_begin(&self, NULL);
  const attend_tensor *q = take_required(&self, args[0], "q", AS_ACTIVATION);
  const attend_tensor *k = take_required(&self, args[1], "k", AS_ACTIVATION);
  const attend_tensor *v = take_required(&self, args[2], "v", AS_ACTIVATION);
  attend_attention_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[4], "threads"), WITH_MESSAGE(self)};
  options.k_scale = take_input(&self, args[5], "k_scale", AS_ACTIVATION);
  options.v_scale = take_input(&self, args[6], "v_scale", AS_ACTIVATION);
  if (self.failed) return call_end(&self);

  const int64_t batch = broadcast(extent(q, 3), broadcast(extent(k, 3), extent(v, 3)));
  const scores_shape scores = {
      extent(k, 1),  extent(q, 1), extent(q, 2), batch, larger((uint32_t)larger(q->rank, k->rank), v->rank),
      AS_ACTIVATION, q->dtype};
  const int64_t shape[4] = {extent(v, 0), scores.queries, scores.heads, batch};
  const attend_tensor *out = take_output(&self, args[3], "out", AS_ACTIVATION, shape, scores.rank, q->dtype);
  take_attention_options(&self, args + 7, &scores, &options);
  if (!self.failed && call_has_plans(&self)) call_allocate(&self, check_attention(q, k, v, out, &options));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_attention(q, k, v, out, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
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

/* ------------------------------------------------------------------------------------------------------ convert -- */

/* (x, out, scale, computes_scale, threads): arrays that are there, out of x's shape. */
static PyObject *py_convert(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {{"y", "out"}, {"flags", "scale_axis"}, {NULL, NULL}};
  static const naming names = {renamed, {"columns", "rows", "along axis -3", "along axis -4"}};
  (void)module;
  if (!expect_count(count, 5)) return NULL;
  call self;
  call_begin(&self, &names);
  const attend_tensor *x = take_required(&self, args[0], "x", AS_ACTIVATION);
  const attend_tensor *y = take_inout(&self, args[1], "out", AS_ACTIVATION);
  attend_convert_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[4], "threads"), WITH_MESSAGE(self)};
  const int computes = args[3] == Py_True;
  options.scale = computes ? take_inout(&self, args[2], "scale", AS_ACTIVATION)
                           : take_input(&self, args[2], "scale", AS_ACTIVATION);
  if (computes) options.flags = ATTEND_COMPUTE_SCALE;
  if (self.failed) return call_end(&self);
  call_keep(&self, Py_NewRef(args[1]));
  if (computes) call_keep(&self, Py_NewRef(args[2]));

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_convert(x, y, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

static PyMethodDef methods[] = {{"matmul", FAST(py_matmul)},
                                {"softmax", FAST(py_softmax)},
                                {"attention", FAST(py_attention)},
                                {"self_attention", FAST(py_self_attention)},
                                {"merge", FAST(py_merge)},
                                {"convert", FAST(py_convert)},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "attend._attend", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__attend(void) {
  PyObject *module = PyModule_Create(&definition);
  if (!module || views_prepare() || executor_prepare()) goto failed;
  attend_error = PyErr_NewExceptionWithDoc(
      "attend.AttendError",
      "What attend does not accept. argument: its name; reason: the number of the ATTEND_ constant in attend.h.",
      PyExc_ValueError, NULL);
  if (!attend_error || settings_add(module) || PyModule_AddObjectRef(module, "AttendError", attend_error) ||
      PyModule_AddIntConstant(module, "HEADER_VERSION", ATTEND_VERSION))
    goto failed;
  return module;
failed:
  Py_XDECREF(module);
  return NULL;
}
