/* SPDX-License-Identifier: BSD-3-Clause */
#include "call.h"

#include <stdio.h>
#include <string.h>

#include "described.h"

PyObject *attend_error;

int expect_count(Py_ssize_t count, Py_ssize_t expected) {
  if (count == expected) return 1;
  PyErr_Format(PyExc_TypeError, "%zd arguments instead of %zd", count, expected);
  return 0;
}

void call_begin(call *self, const naming *names) {
  static const naming reversed = {NULL, {"columns", "rows"}};
  self->failed = self->views_open = self->integers_open = self->results = self->gives_tuple = 0;
  for (int i = 0; i < MAX_RESULTS; ++i) self->planned[i] = NULL;
  self->naming = names ? names : &reversed;
  self->axes = self->axis = self->borrows = 0;
  self->message[0] = 0;
}

void call_count_along(call *self, int axes, int axis) {
  self->axes = axes;
  self->axis = axis;
}

PyObject *call_end(call *self) {
  if (PyErr_Occurred()) self->failed = 1; /* while an executor's threads were asked for */
  for (int i = 0; i < self->views_open; ++i) view_close(&self->views[i]);
  for (int i = 0; i < self->integers_open; ++i) PyBuffer_Release(&self->integers[i]);
  if (!self->failed && self->results == 1 && !self->gives_tuple) return self->result[0];
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

void call_forget(call *self) { Py_XDECREF(self->result[--self->results]); }

void call_fail(call *self, PyObject *type, const char *message) {
  PyErr_SetString(type, message);
  self->failed = 1;
}

/* ------------------------------------------------------------------------------------------------------- errors -- */

typedef struct text {
  char letters[2048];
  size_t length;
} text;

static void append(text *self, const char *letters, size_t length) {
  const size_t room = sizeof self->letters - 1 - self->length;
  if (length > room) length = room;
  memcpy(self->letters + self->length, letters, length);
  self->length += length;
  self->letters[self->length] = 0;
}

/* The Python argument of a name in attend.h: options.window_left and attention_options.window_left are both window. */
static const char *argument_of(const naming *names, const char *name) {
  static renaming everywhere[] = {{"window_left", "window"},
                                  {"query_offsets", "query_offset"},
                                  {"scores", "return_scores"},
                                  {"flags", "causal"},
                                  {NULL, NULL}};
  const char *dot = strrchr(name, '.');
  if (dot) name = dot + 1;
  for (int i = 0; names->renamed && names->renamed[i][0]; ++i)
    if (strcmp(names->renamed[i][0], name) == 0) return names->renamed[i][1];
  for (int i = 0; everywhere[i][0]; ++i)
    if (strcmp(everywhere[i][0], name) == 0) return everywhere[i][1];
  return name;
}

/* What the words for a dimension's extent are here; `along` is memory for them. */
static const char *count_of(const call *of, const char *word, char along[24]) {
  static const char *const counts[4][2] = {
      {"rows", "row"}, {"columns", "column"}, {"heads", "head"}, {"batches", "batch"}};
  int i = 0;
  while (i < 4 && strcmp(word, counts[i][0]) != 0 && strcmp(word, counts[i][1]) != 0) ++i;
  if (i < 4 && of->naming->count[i]) return of->naming->count[i];
  if (i >= of->axes) return word;
  /* As view_arrange_axis has it: the axis, then the others from the end. */
  const int axis = i == 0 ? of->axis : -i > of->axis ? -i : -i - 1;
  snprintf(along, 24, "along axis %d", axis);
  return along;
}

/* A sentence of attend's with the names that things have here. Operands are what stands before the first colon and
 * before "'s". */
static void translate(text *self, const call *of) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz_.0123456789";
  const char *const sentence = of->message, *at = sentence;
  const int of_weight = strncmp(sentence, "weights.", 8) == 0; /* whose axes are not reversed */
  while (*at) {
    char word[64], along[24];
    size_t length = strspn(at, letters);
    while (length && at[length - 1] == '.') --length;
    if (length == 0 || length >= sizeof word) {
      append(self, at, length ? length : 1);
      at += length ? length : 1;
      continue;
    }
    memcpy(word, at, length);
    word[length] = 0;
    at += length;
    const char *meant = word;
    if (strncmp(at, "'s", 2) == 0 || (*at == ':' && at == sentence + length) || strncmp(word, "options.", 8) == 0)
      meant = argument_of(of->naming, word);
    else if (!of_weight)
      meant = count_of(of, word, along);
    append(self, meant, strlen(meant));
  }
}

/* The shapes of the arrays that were given, in their own order of axes. */
static void append_shapes(text *self, const call *of) {
  const char *between = ": ";
  if (self->length) --self->length; /* the full stop */
  for (int i = 0; i < of->views_open; ++i) {
    const view *given = &of->views[i];
    char letters[128];
    if (!given->name) continue; /* only planned */
    int length = snprintf(letters, sizeof letters, "%s%s [", between, given->name);
    for (int axis = 0; axis < given->array.axes; ++axis)
      length += snprintf(letters + length, sizeof letters - (size_t)length, "%s%lld", axis ? ", " : "",
                         (long long)given->array.shape[axis]);
    append(self, letters, (size_t)length);
    append(self, "]", 1);
    between = ", ";
  }
  append(self, ".", 1);
}

void call_raise_words(call *self, attend_status status, PyObject *words) {
  self->failed = 1;
  PyObject *error = words ? PyObject_CallFunctionObjArgs(attend_error, words, NULL) : NULL;
  PyObject *name = PyUnicode_FromString(argument_of(self->naming, attend_status_argument(status)));
  PyObject *reason = PyLong_FromLong(ATTEND_REASON(status));
  if (error && name && reason && !PyObject_SetAttrString(error, "argument", name) &&
      !PyObject_SetAttrString(error, "reason", reason))
    PyErr_SetObject(attend_error, error);
  Py_XDECREF(words);
  Py_XDECREF(error);
  Py_XDECREF(name);
  Py_XDECREF(reason);
}

void call_raise(call *self, attend_status status) {
  self->failed = 1;
  if (ATTEND_REASON(status) == ATTEND_OUT_OF_MEMORY) {
    PyErr_NoMemory();
    return;
  }
  const char *argument = argument_of(self->naming, attend_status_argument(status));
  text said = {.length = 0};
  if (self->message[0]) {
    translate(&said, self);
  } else {
    append(&said, argument, strlen(argument));
    append(&said, ": ", *argument ? 2 : 0);
    append(&said, attend_status_string(status), strlen(attend_status_string(status)));
  }
  if (ATTEND_REASON(status) == ATTEND_INVALID_SHAPE) {
    append_shapes(&said, self);
    static const char biases[] = " A bias of several heads is [H, Dh, 1].";
    if (argument[0] == 'b' && argument[1] == '_' && strchr("qkv", argument[2]))
      append(&said, biases, sizeof biases - 1);
  }
  call_raise_words(self, status, PyUnicode_FromString(said.letters));
}

/* ------------------------------------------------------------------------------------------------------- arrays -- */

view *open_view(call *self, PyObject *object, const char *name, int writable) {
  if (self->failed || object == Py_None) return NULL;
  view *opened = &self->views[self->views_open];
  memset(opened, 0, sizeof *opened);
  self->failed = self->borrows && !is_described(object) ? view_borrow(opened, object, name)
                                                        : view_open(opened, object, name, writable);
  if (self->failed) return NULL;
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

void call_allocate(call *self, attend_status status) {
  if (status) call_raise(self, status);
  for (int i = 0; i < self->results && !self->failed; ++i) {
    view *planned = self->planned[i];
    if (!planned) continue;
    self->result[i] = new_array(&planned->array);
    self->failed = !self->result[i] || view_open(planned, self->result[i], "out", 1);
    planned->tensor.data = planned->array.data; /* its strides are as planned */
  }
}

/* ------------------------------------------------------------------------------------------------------ numbers -- */

/* Replaces an exception that names no argument. */
static void not_a(call *self, const char *what, PyObject *object, const char *name) {
  self->failed = 1;
  if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
    PyErr_Clear();
    PyErr_Format(PyExc_OverflowError, "%s: %R is too large", name, object);
  } else if (PyErr_ExceptionMatches(PyExc_TypeError)) {
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s: %s is needed, not %R", name, what, object);
  }
}

double take_double(call *self, PyObject *object, const char *name) {
  if (self->failed) return 0;
  const double value = PyFloat_AsDouble(object);
  if (value == -1 && PyErr_Occurred()) not_a(self, "a number", object, name);
  return value;
}

double take_scale(call *self, PyObject *object, const char *instead_of_zero) {
  const double scale = take_double(self, object, "scale");
  if (!self->failed && scale == 0) {
    PyErr_Format(PyExc_ValueError, "scale: must not be 0%s", instead_of_zero);
    self->failed = 1;
  }
  return scale;
}

int64_t take_int64(call *self, PyObject *object, const char *name) {
  if (self->failed) return 0;
  const long long value = PyLong_AsLongLong(object);
  if (value == -1 && PyErr_Occurred()) not_a(self, "an integer", object, name);
  return value;
}

int32_t take_int32(call *self, PyObject *object, const char *name) {
  const int64_t value = take_int64(self, object, name);
  if (value > INT32_MAX || value < INT32_MIN) {
    PyErr_Format(PyExc_OverflowError, "%s: %R is too large", name, object);
    self->failed = 1;
  }
  return (int32_t)value;
}

/* As contiguous int64, which the call holds. */
static const int64_t *hold_integers(call *self, PyObject *object, const char *name) {
  self->failed = 1;
  PyObject *numbers = as_int64(object, name);
  if (!numbers) return NULL;
  Py_buffer *buffer = &self->integers[self->integers_open];
  self->failed = PyObject_GetBuffer(numbers, buffer, PyBUF_SIMPLE);
  Py_DECREF(numbers); /* held by the buffer */
  if (self->failed) return NULL;
  ++self->integers_open;
  return buffer->buf;
}

static const int64_t *take_counted(call *self, PyObject *object, const char *name, int64_t count, const char *words) {
  if (self->failed || object == Py_None) return NULL;
  const Py_ssize_t given = PyObject_Size(object);
  if (given == count) return hold_integers(self, object, name);
  if (given >= 0) PyErr_Format(PyExc_ValueError, words, name, given, (long long)count);
  self->failed = 1;
  return NULL;
}

const int64_t *take_integers(call *self, PyObject *object, const char *name, int64_t count) {
  return take_counted(self, object, name, count, "%s: %zd numbers for a batch of %lld");
}

const int64_t *take_per_token(call *self, PyObject *object, const char *name, int64_t tokens) {
  return take_counted(self, object, name, tokens, "%s: %zd numbers for %lld items");
}

const int64_t *take_starts(call *self, PyObject *object, const char *name, int64_t *sequences) {
  if (self->failed || object == Py_None) return NULL;
  const Py_ssize_t given = PyObject_Size(object);
  if (given >= 2 && (*sequences == 0 || *sequences == given - 1)) {
    *sequences = given - 1;
    return hold_integers(self, object, name);
  }
  if (given >= 2)
    PyErr_Format(PyExc_ValueError, "%s: %zd numbers for %lld sequences; one more is needed", name, given,
                 (long long)*sequences);
  else if (given >= 0)
    PyErr_Format(PyExc_ValueError, "%s: %zd numbers; starts of sequences and the end of the last are at least 2", name,
                 given);
  self->failed = 1;
  return NULL;
}
