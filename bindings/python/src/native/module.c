/* attend._attend: arrays in, attend_tensors down, NumPy arrays out. Every argument is positional and checked for its kind
 * only; what attend itself checks is left to it. attend/__init__.py is the face of this.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "attention.h"
#include "described.h"
#include "executor.h"
#include "serving.h"
#include "settings.h"

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

/* ------------------------------------------------------------------------------------------------------- matmul -- */

/* Of 8-bit integers: int32, which is exact, float32 with a scale; beside a floating-point factor, its type. */
static uint32_t product_dtype(uint32_t a, uint32_t b, const attend_matmul_options *options) {
  const int a_is_byte = a == ATTEND_I8 || a == ATTEND_U8, b_is_byte = b == ATTEND_I8 || b == ATTEND_U8;
  if (!a_is_byte || !b_is_byte) return a_is_byte ? b : a;
  return options->a_scale || options->b_scale ? ATTEND_F32 : ATTEND_I32;
}

/* (a, b, out, bias, alpha, beta, threads, a_scale, b_scale, a_zero, b_zero, native_dot): row-major arrays, so (A B)^T =
 * B^T A^T with the names changed over. */
static PyObject *py_matmul(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {
      {"a", "b"},           {"b", "a"},           {"c", "out"}, {"a_scale", "b_scale"}, {"b_scale", "a_scale"},
      {"a_zero", "b_zero"}, {"b_zero", "a_zero"}, {NULL, NULL}};
  static const naming names = {renamed, {"columns", "rows", "along axis -3", "along axis -4"}};
  (void)module;
  if (!expect_count(count, 12)) return NULL;
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
  if (args[11] == Py_True) options.flags = ATTEND_NATIVE_DOT;
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

/* The axis of an operand with so many, counted from the end from here on; 0 with an exception if there is none. */
static int take_axis(call *self, int64_t *axis, const char *name, int axes) {
  if (*axis < -axes || *axis >= axes) {
    PyErr_Format(PyExc_ValueError, "axis: %lld, but %s has %d axes", (long long)*axis, name, axes);
    self->failed = 1;
    return 0;
  }
  if (*axis >= 0) *axis -= axes;
  call_count_along(self, axes, (int)*axis);
  return 1;
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
  if (!take_axis(&self, &axis, "x", axes)) return call_end(&self);
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

/* (y, d_y, axis, out, d_lse, scale, log, accumulate, threads) */
static PyObject *py_softmax_backward(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {{"d_x", "out"}, {NULL, NULL}};
  static const naming names = {renamed, {NULL}};
  (void)module;
  if (!expect_count(count, 9)) return NULL;
  call self;
  call_begin(&self, &names);
  (void)take_required(&self, args[0], "y", AS_ACTIVATION);
  (void)take_required(&self, args[1], "d_y", AS_ACTIVATION);
  int64_t axis = take_int64(&self, args[2], "axis");
  attend_softmax_backward_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[8], "threads"), WITH_MESSAGE(self)};
  options.scale = take_scale(&self, args[5], "");
  if (args[6] == Py_True) options.flags |= ATTEND_LOG;
  if (args[7] == Py_True) options.flags |= ATTEND_ACCUMULATE;
  if (self.failed) return call_end(&self);

  view *y = &self.views[0], *d_y = &self.views[1];
  const int axes = y->array.axes;
  if (!take_axis(&self, &axis, "y", axes)) return call_end(&self);
  view *d_x = open_output_like(&self, args[3], "out", &y->array);
  options.d_lse = take_input(&self, args[4], "d_lse", WITHOUT_ROWS);
  if (!self.failed)
    self.failed = view_arrange_axis(y, "y", axes, (int)axis) || view_arrange_axis(d_y, "d_y", axes, (int)axis) ||
                  view_arrange_axis(d_x, "out", axes, (int)axis);
  uint64_t bytes;
  if (!self.failed && call_has_plans(&self))
    call_allocate(&self, attend_softmax_backward_workspace(&y->tensor, &d_y->tensor, &d_x->tensor, &options, &bytes));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_softmax_backward(&y->tensor, &d_y->tensor, &d_x->tensor, &options);
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
                                {"softmax_backward", FAST(py_softmax_backward)},
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
  if (!attend_error || settings_add(module) || attention_add(module) || serving_add(module) || described_add(module) ||
      PyModule_AddObjectRef(module, "AttendError", attend_error) ||
      PyModule_AddIntConstant(module, "HEADER_VERSION", ATTEND_VERSION))
    goto failed;
  return module;
failed:
  Py_XDECREF(module);
  return NULL;
}
