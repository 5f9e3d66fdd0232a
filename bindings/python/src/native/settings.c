/* SPDX-License-Identifier: BSD-3-Clause */
#include "settings.h"

#include "executor.h"

static PyObject *py_version(PyObject *module, PyObject *unused) {
  (void)module, (void)unused;
  return PyLong_FromUnsignedLong(attend_version());
}

static PyObject *py_isa(PyObject *module, PyObject *unused) {
  (void)module, (void)unused;
  return PyUnicode_FromString(attend_isa());
}

static PyObject *py_isa_names(PyObject *module, PyObject *unused) {
  (void)module, (void)unused;
  PyObject *names = PyList_New(0);
  for (int32_t i = 0; names && attend_isa_name(i); ++i) {
    PyObject *name = PyUnicode_FromString(attend_isa_name(i));
    if (!name || PyList_Append(names, name)) Py_CLEAR(names);
    Py_XDECREF(name);
  }
  return names;
}

/* Ends a setting, which says itself what is wrong, since attend has no message to give. */
static PyObject *setting_end(call *self, attend_status status, PyObject *words) {
  if (status)
    call_raise_words(self, status, words);
  else
    call_keep(self, Py_NewRef(Py_None));
  return call_end(self);
}

/* "name: is 'mmx', not one of ..", with the beginning of the name as it was given. */
static PyObject *say_unknown(PyObject *name) {
  PyObject *names = py_isa_names(NULL, NULL), *space = PyUnicode_FromString(" ");
  PyObject *joined = names && space ? PyUnicode_Join(space, names) : NULL;
  PyObject *words = joined ? PyUnicode_FromFormat("name: is '%.60U', not one of %U.", name, joined) : NULL;
  Py_XDECREF(names);
  Py_XDECREF(space);
  Py_XDECREF(joined);
  return words;
}

static PyObject *py_set_isa(PyObject *module, PyObject *name) {
  (void)module;
  const char *text = NULL;
  if (name != Py_None && !PyUnicode_Check(name)) {
    PyErr_Format(PyExc_TypeError, "name: a string or None is needed, not %R", name);
    return NULL;
  }
  if (name != Py_None && !(text = PyUnicode_AsUTF8AndSize(name, NULL))) return NULL;
  call self;
  call_begin(&self, NULL);
  const attend_status status = attend_set_isa(text);
  return setting_end(&self, status, status ? say_unknown(name) : NULL);
}

static PyObject *py_threads(PyObject *module, PyObject *unused) {
  (void)module, (void)unused;
  return PyLong_FromLong(attend_threads());
}

static PyObject *say_negative(const char *name, int32_t value) {
  return PyUnicode_FromFormat("%s: is %ld, but must be 0 or more.", name, (long)value);
}

static PyObject *py_set_threads(PyObject *module, PyObject *threads) {
  (void)module;
  call self;
  call_begin(&self, NULL);
  const int32_t value = take_int32(&self, threads, "threads");
  if (self.failed) return call_end(&self);
  const attend_status status = attend_set_threads(value);
  return setting_end(&self, status, status ? say_negative("threads", value) : NULL);
}

/* (executor, workers) */
static PyObject *py_set_executor(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  static renaming renamed[] = {{"executor", "workers"}, {NULL, NULL}}; /* nothing else can be wrong */
  static const naming names = {renamed, {NULL}};
  (void)module;
  if (!expect_count(count, 2)) return NULL;
  call self;
  call_begin(&self, &names);
  const int32_t workers = take_int32(&self, args[1], "workers");
  if (self.failed) return call_end(&self);
  const attend_status status = executor_set(args[0], workers);
  return setting_end(&self, status, status ? say_negative("workers", workers) : NULL);
}

static PyMethodDef methods[] = {
    {"version", py_version, METH_NOARGS, NULL},
    {"isa", py_isa, METH_NOARGS,
     "isa()\n--\n\nThe instruction set in use: \"avx512bf16\", \"avx512vnni\", \"avx512\", \"avx2\", \"sse42\" or "
     "\"generic\"."},
    {"isa_names", py_isa_names, METH_NOARGS,
     "isa_names()\n--\n\nThe instruction sets that this library has and this CPU runs, best first."},
    {"set_isa", py_set_isa, METH_O,
     "set_isa(name, /)\n--\n\nUse the named instruction set from now on; None: the best. For tests and benchmarks."},
    {"threads", py_threads, METH_NOARGS, "threads()\n--\n\nThreads used by a call that does not say."},
    {"set_threads", py_set_threads, METH_O,
     "set_threads(threads, /)\n--\n\nSet it for the process; 0: back to the default."},
    {"set_executor", FAST(py_set_executor)},
    {NULL, NULL, 0, NULL}};

int settings_add(PyObject *module) { return PyModule_AddFunctions(module, methods); }
