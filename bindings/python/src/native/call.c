/* SPDX-License-Identifier: BSD-3-Clause */
#include "call.h"

#include <string.h>

PyObject *attend_error;

void call_begin(call *self) {
  self->failed = self->views_open = self->integers_open = self->results = 0;
  for (int i = 0; i < MAX_RESULTS; ++i) self->planned[i] = NULL;
}

PyObject *call_end(call *self) {
  if (PyErr_Occurred()) self->failed = 1; /* while an executor's threads were asked for */
  for (int i = 0; i < self->views_open; ++i) view_close(&self->views[i]);
  for (int i = 0; i < self->integers_open; ++i) PyBuffer_Release(&self->integers[i]);
  if (!self->failed && self->results == 1) return self->result[0];
  PyObject *tuple = self->failed ? NULL : PyTuple_New(self->results);
  for (int i = 0; i < self->results; ++i) {
    if (tuple)
      PyTuple_SetItem(tuple, i, self->result[i]);
    else
      Py_XDECREF(self->result[i]); /* NULL: only planned */
  }
  return tuple;
}

void call_keep(call *self, PyObject *result) { self->result[self->results++] = result; }

void call_fail(call *self, PyObject *type, const char *message) {
  PyErr_SetString(type, message);
  self->failed = 1;
}

void call_raise(call *self, attend_status status, const char *const renamed[][2]) {
  self->failed = 1;
  if (ATTEND_REASON(status) == ATTEND_OUT_OF_MEMORY) {
    PyErr_NoMemory();
    return;
  }
  /* "options.window_left" and "attention_options.window_left" are both the argument window. */
  static const char *const everywhere[][2] = {
      {"window_left", "window"}, {"query_offsets", "query_offset"}, {"scores", "return_scores"}, {NULL, NULL}};
  const char *argument = attend_status_argument(status);
  const char *dot = strrchr(argument, '.');
  if (dot) argument = dot + 1;
  for (int i = 0; everywhere[i][0]; ++i)
    if (strcmp(everywhere[i][0], argument) == 0) argument = everywhere[i][1];
  for (int i = 0; renamed && renamed[i][0]; ++i) {
    if (strcmp(renamed[i][0], argument) == 0) {
      argument = renamed[i][1];
      break; /* matmul exchanges a and b */
    }
  }
  PyObject *message = *argument ? PyUnicode_FromFormat("%s: %s", argument, attend_status_string(status))
                                : PyUnicode_FromString(attend_status_string(status));
  PyObject *error = message ? PyObject_CallFunctionObjArgs(attend_error, message, NULL) : NULL;
  PyObject *name = PyUnicode_FromString(argument), *reason = PyLong_FromLong(ATTEND_REASON(status));
  if (error && name && reason && !PyObject_SetAttrString(error, "argument", name) &&
      !PyObject_SetAttrString(error, "reason", reason))
    PyErr_SetObject(attend_error, error);
  Py_XDECREF(message);
  Py_XDECREF(error);
  Py_XDECREF(name);
  Py_XDECREF(reason);
}

/* ------------------------------------------------------------------------------------------------------- arrays -- */

view *open_view(call *self, PyObject *object, const char *name, int writable) {
  if (self->failed || object == Py_None) return NULL;
  view *opened = &self->views[self->views_open];
  memset(opened, 0, sizeof *opened);
  if ((self->failed = view_open(opened, object, name, writable))) return NULL;
  ++self->views_open;
  return opened;
}

static attend_tensor *take(call *self, PyObject *object, const char *name, int arrangement, int writable) {
  view *opened = open_view(self, object, name, writable);
  if (!opened || (self->failed = view_arrange(opened, name, arrangement))) return NULL;
  return &opened->tensor;
}

attend_tensor *take_input(call *self, PyObject *object, const char *name, int arrangement) {
  return take(self, object, name, arrangement, 0);
}

attend_tensor *take_inout(call *self, PyObject *object, const char *name, int arrangement) {
  return take(self, object, name, arrangement, 1);
}

attend_tensor *take_required(call *self, PyObject *object, const char *name, int arrangement) {
  if (!self->failed && object == Py_None) {
    PyErr_Format(PyExc_TypeError, "%s: an array is needed, not None", name);
    self->failed = 1;
  }
  return take_input(self, object, name, arrangement);
}

static view *plan_result(call *self) {
  view *planned = &self->views[self->views_open++];
  self->planned[self->results] = planned;
  call_keep(self, NULL);
  return planned;
}

attend_tensor *take_output(call *self, PyObject *given, const char *name, int arrangement, const int64_t shape[4],
                           int rank, uint32_t dtype) {
  if (self->failed) return NULL;
  if (given != Py_None) {
    call_keep(self, Py_NewRef(given));
    return take_inout(self, given, name, arrangement);
  }
  view *planned = plan_result(self);
  view_plan(planned, shape, rank, arrangement, dtype);
  if ((self->failed = view_arrange(planned, name, arrangement))) return NULL;
  return &planned->tensor;
}

view *open_output_like(call *self, PyObject *given, const char *name, const strided_array *like) {
  if (self->failed) return NULL;
  if (given != Py_None) {
    call_keep(self, Py_NewRef(given));
    return open_view(self, given, name, 1);
  }
  view *planned = plan_result(self);
  view_plan_array(planned, like->axes, like->shape, like->dtype);
  return planned;
}

int call_has_plans(const call *self) {
  for (int i = 0; i < self->results; ++i)
    if (self->planned[i]) return 1;
  return 0;
}

void call_allocate(call *self, attend_status status, const char *const renamed[][2]) {
  if (status) call_raise(self, status, renamed);
  for (int i = 0; i < self->results && !self->failed; ++i) {
    view *planned = self->planned[i];
    if (!planned) continue;
    self->result[i] = new_array(&planned->array);
    self->failed = !self->result[i] || view_open(planned, self->result[i], "out", 1);
    planned->tensor.data = planned->array.data; /* its strides are as planned */
  }
}

/* ------------------------------------------------------------------------------------------------------ numbers -- */

double take_double(call *self, PyObject *object) {
  if (self->failed) return 0;
  const double value = PyFloat_AsDouble(object);
  if (value == -1 && PyErr_Occurred()) self->failed = 1;
  return value;
}

int64_t take_int64(call *self, PyObject *object) {
  if (self->failed) return 0;
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) self->failed = 1;
  return value;
}

int32_t take_threads(call *self, PyObject *object) {
  const int64_t value = take_int64(self, object);
  if (value > INT32_MAX || value < INT32_MIN) call_fail(self, PyExc_OverflowError, "threads: too large");
  return (int32_t)value;
}

const int64_t *take_integers(call *self, PyObject *object, const char *name, int64_t count) {
  if (self->failed || object == Py_None) return NULL;
  self->failed = 1;
  const Py_ssize_t given = PyObject_Size(object);
  if (given != count) {
    if (given >= 0)
      PyErr_Format(PyExc_ValueError, "%s: %zd numbers for a batch of %lld", name, given, (long long)count);
    return NULL;
  }
  PyObject *numbers = as_int64(object, name);
  if (!numbers) return NULL;
  Py_buffer *buffer = &self->integers[self->integers_open];
  self->failed = PyObject_GetBuffer(numbers, buffer, PyBUF_SIMPLE);
  Py_DECREF(numbers); /* held by the buffer */
  if (self->failed) return NULL;
  ++self->integers_open;
  return buffer->buf;
}
