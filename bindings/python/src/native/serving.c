/* rotary and kv_append, whose arguments are as attend/_serving.py passes them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "serving.h"

/* Tokens of a call: columns, and batches, where nothing is packed. What is beyond 63 bits fits no array. */
static int64_t tokens_of(const attend_tensor *tensor) {
  return (int64_t)((uint64_t)extent(tensor, 1) * (uint64_t)extent(tensor, 3));
}

static int64_t batch_of(const attend_tensor *tensor, int64_t sequences) {
  return sequences ? sequences : extent(tensor, 3);
}

/* (x, cos, sin, out, rotary_dims, positions, offsets, starts, interleaved, inverse, threads) */
static PyObject *py_rotary(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {{"y", "out"}, {NULL, NULL}};
  static const naming names = {renamed, {"columns", "rows"}};
  (void)module;
  if (!expect_count(count, 11)) return NULL;
  call self;
  call_begin(&self, &names);
  const attend_tensor *x = take_required(&self, args[0], "x", AS_ACTIVATION);
  const attend_tensor *cos = take_required(&self, args[1], "cos", AS_ACTIVATION);
  const attend_tensor *sin = take_required(&self, args[2], "sin", AS_ACTIVATION);
  attend_rotary_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[10], "threads"), WITH_MESSAGE(self)};
  options.rotary_dims = take_int64(&self, args[4], "rotary_dims");
  options.starts = take_starts(&self, args[7], "starts", &options.sequences);
  if (args[8] == Py_True) options.flags |= ATTEND_ROTARY_INTERLEAVED;
  if (args[9] == Py_True) options.flags |= ATTEND_ROTARY_INVERSE;
  if (self.failed) return call_end(&self);
  options.positions = take_per_token(&self, args[5], "positions", tokens_of(x));
  options.offsets = take_integers(&self, args[6], "offsets", batch_of(x, options.sequences));
  view *y = open_output_like(&self, args[3], "out", &self.views[0].array);
  if (!self.failed) self.failed = view_arrange(y, "out", AS_ACTIVATION);
  uint64_t bytes;
  if (!self.failed && call_has_plans(&self))
    call_allocate(&self, attend_rotary_workspace(x, cos, sin, &y->tensor, &options, &bytes));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_rotary(x, cos, sin, &y->tensor, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

/* Of flags, those that the Python side has not looked at: a scale is to be computed of a cache that takes none. */
static const naming *name_flags(const attend_tensor *k_cache, int computes_k_scale) {
  static renaming of_k[] = {{"flags", "compute_k_scale"}, {NULL, NULL}};
  static renaming of_v[] = {{"flags", "compute_v_scale"}, {NULL, NULL}};
  static const naming k_names = {of_k, {"columns", "rows"}}, v_names = {of_v, {"columns", "rows"}};
  const int has_eight_bits = k_cache && (k_cache->dtype == ATTEND_I8 || k_cache->dtype == ATTEND_F8E4M3);
  return computes_k_scale && !has_eight_bits ? &k_names : &v_names;
}

static attend_tensor *take_scale_of(call *self, PyObject *object, const char *name, int is_output) {
  return is_output ? take_inout(self, object, name, AS_ACTIVATION) : take_input(self, object, name, AS_ACTIVATION);
}

/* (k, v, k_cache, v_cache, threads, offsets, starts, slots, pages, k_scale, v_scale, computes_k_scale, computes_v_scale, cos,
 * sin, rotary_dims, positions, interleaved) */
static PyObject *py_kv_append(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  if (!expect_count(count, 18)) return NULL;
  call self;
  call_begin(&self, NULL);
  const attend_tensor *k = take_required(&self, args[0], "k", AS_ACTIVATION);
  const attend_tensor *v = take_input(&self, args[1], "v", AS_ACTIVATION);
  const attend_tensor *k_cache = take_inout(&self, args[2], "k_cache", AS_ACTIVATION);
  const attend_tensor *v_cache = take_inout(&self, args[3], "v_cache", AS_ACTIVATION);
  self.naming = name_flags(k_cache, args[11] == Py_True);
  attend_kv_append_options options = {
      .size = sizeof options, .threads = take_int32(&self, args[4], "threads"), WITH_MESSAGE(self)};
  if (args[11] == Py_True) options.flags |= ATTEND_COMPUTE_K_SCALE;
  if (args[12] == Py_True) options.flags |= ATTEND_COMPUTE_V_SCALE;
  if (args[17] == Py_True) options.flags |= ATTEND_ROTARY_INTERLEAVED;
  options.starts = take_starts(&self, args[6], "starts", &options.sequences);
  options.pages = take_input(&self, args[8], "pages", AS_ACTIVATION);
  options.k_scale = take_scale_of(&self, args[9], "k_scale", args[11] == Py_True);
  options.v_scale = take_scale_of(&self, args[10], "v_scale", args[12] == Py_True);
  options.cos = take_input(&self, args[13], "cos", AS_ACTIVATION);
  options.sin = take_input(&self, args[14], "sin", AS_ACTIVATION);
  options.rotary_dims = take_int64(&self, args[15], "rotary_dims");
  if (self.failed) return call_end(&self);
  options.offsets = take_integers(&self, args[5], "offsets", batch_of(k, options.sequences));
  options.slots = take_per_token(&self, args[7], "slots", tokens_of(k));
  options.positions = take_per_token(&self, args[16], "positions", tokens_of(k));
  call_keep(&self, Py_NewRef(Py_None));
  if (self.failed) return call_end(&self);

  attend_status status;
  Py_BEGIN_ALLOW_THREADS
  status = attend_kv_append(k, v, k_cache, v_cache, &options);
  Py_END_ALLOW_THREADS
  if (status) call_raise(&self, status);
  return call_end(&self);
}

static PyMethodDef methods[] = {{"rotary", FAST(py_rotary)}, {"kv_append", FAST(py_kv_append)}, {NULL, NULL, 0, NULL}};

int serving_add(PyObject *module) { return PyModule_AddFunctions(module, methods); }
