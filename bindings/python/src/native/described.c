/* Memory that attend.torch describes itself: (MEMORY, address, dtype, shape, strides in elements). Asking a tensor for
 * these takes a tenth of what its __dlpack__ takes, which is Python code. Where PyTorch has DLPack's exchange in C
 * attention's tensors come as they are, which takes a tenth of that.
 *
 * Nobody comes here by accident: MEMORY is an object of this module that nothing else holds.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "described.h"

#include "call.h"

static PyObject *memory;

int is_described(PyObject *object) {
  return PyTuple_CheckExact(object) && PyTuple_Size(object) == 5 && PyTuple_GetItem(object, 0) == memory;
}

int described_open(view *self, PyObject *described, const char *name) {
  strided_array *array = &self->array;
  array->data = PyLong_AsVoidPtr(PyTuple_GetItem(described, 1));
  array->dtype = (uint32_t)PyLong_AsLong(PyTuple_GetItem(described, 2));
  PyObject *shape = PyTuple_GetItem(described, 3), *strides = PyTuple_GetItem(described, 4);
  const Py_ssize_t axes = PyTuple_Size(shape);
  if (PyErr_Occurred()) return -1;
  if (axes > MAX_AXES || PyTuple_Size(strides) != axes) {
    PyErr_Format(PyExc_ValueError, "%s: has %zd axes, attend takes at most %d", name, axes, MAX_AXES);
    return -1;
  }
  array->axes = (int)axes;
  for (Py_ssize_t i = 0; i < axes; ++i) {
    array->shape[i] = PyLong_AsLongLong(PyTuple_GetItem(shape, i));
    array->stride[i] = PyLong_AsLongLong(PyTuple_GetItem(strides, i));
  }
  return PyErr_Occurred() ? -1 : 0;
}

static PyObject *py_use_exchange(PyObject *module, PyObject *const *args, Py_ssize_t count) {
  (void)module;
  return expect_count(count, 1) ? PyBool_FromLong(views_exchange(args[0])) : NULL;
}

int described_add(PyObject *module) {
  static PyMethodDef methods[] = {{"use_exchange", FAST(py_use_exchange)}, {NULL, NULL, 0, NULL}};
  static const struct {
    const char *name;
    long dtype;
  } types[] = {{"F32", ATTEND_F32}, {"F64", ATTEND_F64},   {"BF16", ATTEND_BF16},
               {"F16", ATTEND_F16}, {"I8", ATTEND_I8},     {"U8", ATTEND_U8},
               {"I32", ATTEND_I32}, {"BOOL", ATTEND_BOOL}, {"F8E4M3", ATTEND_F8E4M3}};
  memory = PyObject_CallNoArgs((PyObject *)&PyBaseObject_Type);
  if (!memory || PyModule_AddObjectRef(module, "MEMORY", memory) || PyModule_AddFunctions(module, methods)) return -1;
  for (size_t i = 0; i < sizeof types / sizeof *types; ++i)
    if (PyModule_AddIntConstant(module, types[i].name, types[i].dtype)) return -1;
  return 0;
}
