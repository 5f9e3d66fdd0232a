/* SPDX-License-Identifier: BSD-3-Clause */
#include "views.h"

#include <string.h>

#include "described.h"
#include "dlpack.h"

static PyObject *numpy_array, *numpy_empty, *numpy_ascontiguousarray, *float16, *float32, *float64, *int32, *int64;
static PyObject *no_arguments, *max_version; /* of __dlpack__ */
static PyObject *no_text;

int views_prepare(void) {
  PyObject *numpy = PyImport_ImportModule("numpy");
  if (!numpy) return -1;
  numpy_array = PyObject_GetAttrString(numpy, "ndarray");
  numpy_empty = PyObject_GetAttrString(numpy, "empty");
  numpy_ascontiguousarray = PyObject_GetAttrString(numpy, "ascontiguousarray");
  PyObject *dtype = PyObject_GetAttrString(numpy, "dtype");
  if (dtype) {
    float16 = PyObject_CallFunction(dtype, "s", "f2");
    float32 = PyObject_CallFunction(dtype, "s", "f4");
    float64 = PyObject_CallFunction(dtype, "s", "f8");
    int32 = PyObject_CallFunction(dtype, "s", "i4");
    int64 = PyObject_CallFunction(dtype, "s", "i8");
  }
  Py_XDECREF(dtype);
  Py_DECREF(numpy);
  no_arguments = PyTuple_New(0);
  no_text = PyUnicode_FromString("");
  max_version = Py_BuildValue("{s(ii)}", "max_version", 1, 0);
  return numpy_array && numpy_empty && numpy_ascontiguousarray && float16 && float32 && float64 && int32 && int64 &&
                 no_arguments && no_text && max_version
             ? 0
             : -1;
}

/* ------------------------------------------------------------------------------------------ the buffer protocol -- */

static uint32_t dtype_of_format(const char *format) {
  if (!format) return ATTEND_U8;
  if (*format == '@' || *format == '=' || (*format == '<' && PY_LITTLE_ENDIAN)) ++format;
  if (!*format || format[1]) return 0;
  switch (*format) {
    case 'f':
      return ATTEND_F32;
    case 'd':
      return ATTEND_F64;
    case 'e':
      return ATTEND_F16;
    case 'i':
      return ATTEND_I32;
    case 'b':
      return ATTEND_I8;
    case 'B':
      return ATTEND_U8;
    case '?':
      return ATTEND_BOOL;
    default:
      return 0;
  }
}

static int too_many_axes(const char *name, int axes) {
  PyErr_Format(PyExc_ValueError, "%s: has %d axes, attend takes at most %d", name, axes, MAX_AXES);
  return -1;
}

static int bad_dtype(const char *name, PyObject *object) {
  PyObject *dtype = PyObject_GetAttrString(object, "dtype");
  if (!dtype) PyErr_Clear();
  PyErr_Format(
      PyExc_TypeError,
      "%s: elements must be float32, float16, bfloat16 or float64 of this machine's byte order (keys and values also "
      "float8_e4m3fn and int8; factors int8 and uint8; masks bool)%s%S",
      name, dtype ? ", not " : "", dtype ? dtype : no_text);
  Py_XDECREF(dtype);
  return -1;
}

/* Checks what both protocols leave open. Elements have to lie at multiples of their size. */
static int check_aligned(const strided_array *array, const char *name) {
  static const unsigned char size[] = {
      [ATTEND_F32] = 4, [ATTEND_F64] = 8,  [ATTEND_BF16] = 2, [ATTEND_F16] = 2,   [ATTEND_I8] = 1,
      [ATTEND_U8] = 1,  [ATTEND_BOOL] = 1, [ATTEND_I32] = 4,  [ATTEND_F8E4M3] = 1};
  if ((uintptr_t)array->data % size[array->dtype] == 0) return 0;
  PyErr_Format(PyExc_ValueError, "%s: its memory is not aligned to its elements", name);
  return -1;
}

/* What the buffer says; of_bits is the type that stands behind its integers, or 0. */
static int read_buffer(view *self, PyObject *object, const char *name, int writable, uint32_t of_bits) {
  const Py_buffer *buffer = &self->buffer;
  strided_array *array = &self->array;
  if (writable && buffer->readonly) {
    PyErr_Format(PyExc_ValueError, "%s: is read-only", name);
    return -1;
  }
  if (buffer->ndim > MAX_AXES) return too_many_axes(name, buffer->ndim);
  array->dtype = of_bits ? of_bits : dtype_of_format(buffer->format);
  if (!array->dtype) return bad_dtype(name, object);
  array->data = buffer->buf;
  array->axes = buffer->ndim;
  int64_t compact = buffer->itemsize;
  for (int i = buffer->ndim - 1; i >= 0; --i) {
    /* ctypes leaves the strides out although they are asked for. */
    const int64_t stride = buffer->strides ? buffer->strides[i] : compact;
    /* A field of a record: its elements lie at no whole multiple of their size. */
    if (buffer->shape[i] > 1 && stride % buffer->itemsize) {
      PyErr_Format(PyExc_ValueError, "%s: stride of axis %d is no multiple of the element size", name, i);
      return -1;
    }
    array->shape[i] = buffer->shape[i];
    array->stride[i] = stride / buffer->itemsize;
    compact *= buffer->shape[i];
  }
  return check_aligned(array, name);
}

/* 0: not one of the types that the package ml_dtypes adds to NumPy, in this machine's byte order. */
static uint32_t dtype_of_bits(PyObject *array) {
  PyObject *dtype = PyObject_GetAttrString(array, "dtype");
  PyObject *name = dtype ? PyObject_GetAttrString(dtype, "name") : NULL;
  PyObject *native = dtype ? PyObject_GetAttrString(dtype, "isnative") : NULL;
  uint32_t found = 0;
  if (name && PyUnicode_Check(name) && native == Py_True) {
    if (PyUnicode_CompareWithASCIIString(name, "bfloat16") == 0) found = ATTEND_BF16;
    if (PyUnicode_CompareWithASCIIString(name, "float8_e4m3fn") == 0) found = ATTEND_F8E4M3;
  }
  Py_XDECREF(dtype);
  Py_XDECREF(name);
  Py_XDECREF(native);
  PyErr_Clear();
  return found;
}

/* A NumPy array of a type that has no buffer; its bits have. */
static int open_bits(view *self, PyObject *array, const char *name, int writable) {
  const uint32_t dtype = dtype_of_bits(array);
  if (!dtype) return bad_dtype(name, array);
  PyObject *bits = PyObject_CallMethod(array, "view", "s", dtype == ATTEND_BF16 ? "u2" : "u1");
  const int failed = !bits || PyObject_GetBuffer(bits, &self->buffer, PyBUF_RECORDS_RO);
  Py_XDECREF(bits);
  return failed ? -1 : read_buffer(self, array, name, writable, dtype);
}

/* ------------------------------------------------------------------------------------------------------- DLPack -- */

static uint32_t dtype_of_dlpack(DLDataType type) {
  if (type.lanes != 1) return 0;
  switch (type.code << 8 | type.bits) {
    case kDLFloat << 8 | 32:
      return ATTEND_F32;
    case kDLFloat << 8 | 64:
      return ATTEND_F64;
    case kDLFloat << 8 | 16:
      return ATTEND_F16;
    case kDLBfloat << 8 | 16:
      return ATTEND_BF16;
    case kDLFloat8_e4m3fn << 8 | 8:
      return ATTEND_F8E4M3;
    case kDLInt << 8 | 32:
      return ATTEND_I32;
    case kDLInt << 8 | 8:
      return ATTEND_I8;
    case kDLUInt << 8 | 8:
      return ATTEND_U8;
    case kDLBool << 8 | 8:
      return ATTEND_BOOL;
    default:
      return 0;
  }
}

/* PyTorch's x.conj().imag is the memory of x.imag with its sign left to do, of which DLPack says nothing. */
static int check_not_negated(PyObject *object, const char *name) {
  PyObject *is_neg = PyObject_GetAttrString(object, "is_neg");
  if (!is_neg) {
    PyErr_Clear();
    return 0;
  }
  PyObject *answer = PyObject_CallNoArgs(is_neg);
  const int negated = answer ? PyObject_IsTrue(answer) : -1;
  Py_DECREF(is_neg);
  Py_XDECREF(answer);
  if (negated > 0) PyErr_Format(PyExc_ValueError, "%s: is negated lazily: pass its .resolve_neg()", name);
  return negated ? -1 : 0;
}

/* Says with the producer's exception which argument it is about. */
static void note_name(const char *name) {
  PyObject *type, *error, *traceback;
  PyErr_Fetch(&type, &error, &traceback);
  PyErr_NormalizeException(&type, &error, &traceback);
  PyObject *done =
      error ? PyObject_CallMethod(error, "add_note", "N", PyUnicode_FromFormat("argument: %s", name)) : NULL;
  if (!done) PyErr_Clear();
  Py_XDECREF(done);
  PyErr_Restore(type, error, traceback);
}

/* object.__dlpack__(max_version=(1, 0)), or without the version for a producer of before 1.0. */
static PyObject *export_dlpack(PyObject *object, const char *name) {
  PyObject *export = PyObject_GetAttrString(object, "__dlpack__");
  if (!export) {
    if (!PyErr_ExceptionMatches(PyExc_AttributeError)) return NULL;
    PyErr_Clear();
    PyObject *type = (PyObject *)Py_TYPE(object), *type_name = PyObject_GetAttrString(type, "__name__");
    if (type_name)
      PyErr_Format(PyExc_TypeError, "%s: an array is needed (numpy.asarray(..) makes one), not %U", name, type_name);
    Py_XDECREF(type_name);
    return NULL;
  }
  PyObject *capsule = NULL;
  if (!check_not_negated(object, name)) {
    capsule = PyObject_Call(export, no_arguments, max_version);
    if (!capsule && PyErr_ExceptionMatches(PyExc_TypeError)) {
      PyErr_Clear();
      capsule = PyObject_CallNoArgs(export);
    }
    if (!capsule) note_name(name);
  }
  Py_DECREF(export);
  return capsule;
}

/* The tensor in a capsule of either version. */
static const DLTensor *tensor_of_capsule(PyObject *capsule, const char *name, int writable) {
  if (!PyCapsule_IsValid(capsule, "dltensor_versioned")) {
    const DLManagedTensor *managed = PyCapsule_GetPointer(capsule, "dltensor");
    return managed ? &managed->dl_tensor : NULL;
  }
  const DLManagedTensorVersioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
  if (managed->version.major != 1) {
    PyErr_Format(PyExc_BufferError, "%s: DLPack %u is not known here", name, (unsigned)managed->version.major);
    return NULL;
  }
  if (writable && managed->flags & (kDLFlagReadOnly | kDLFlagIsCopied)) {
    PyErr_Format(PyExc_ValueError, managed->flags & kDLFlagReadOnly ? "%s: is read-only" : "%s: gives out a copy only",
                 name);
    return NULL;
  }
  return &managed->dl_tensor;
}

static int read_dltensor(view *self, const DLTensor *tensor, PyObject *object, const char *name) {
  const int32_t device = tensor->device.device_type;
  if (device != kDLCPU && device != kDLCUDAHost && device != kDLROCMHost) {
    PyErr_Format(PyExc_ValueError, "%s: is not in the memory of the CPU", name);
    return -1;
  }
  strided_array *array = &self->array;
  if (tensor->ndim > MAX_AXES) return too_many_axes(name, tensor->ndim);
  if (!(array->dtype = dtype_of_dlpack(tensor->dtype))) return bad_dtype(name, object);
  array->data = tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
  array->axes = tensor->ndim;
  int64_t compact = 1;
  for (int i = tensor->ndim - 1; i >= 0; --i) {
    array->shape[i] = tensor->shape[i];
    array->stride[i] = tensor->strides ? tensor->strides[i] : compact;
    compact *= tensor->shape[i];
  }
  return check_aligned(array, name);
}

static int open_dlpack(view *self, PyObject *object, const char *name, int writable) {
  /* The capsule is only borrowed from, never consumed, so letting go of it frees what the producer allocated. */
  self->capsule = export_dlpack(object, name);
  const DLTensor *tensor = self->capsule ? tensor_of_capsule(self->capsule, name, writable) : NULL;
  return tensor ? read_dltensor(self, tensor, object, name) : -1;
}

static const DLPackExchangeAPI *exchange;

int views_exchange(PyObject *capsule) {
  const DLPackExchangeAPI *api = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
  if (!api) PyErr_Clear();
  if (!api || api->version.major != 1 || !api->dltensor_from_py_object_no_sync) return 0;
  exchange = api; /* lives as long as the process, says DLPack */
  return 1;
}

int view_borrow(view *self, PyObject *tensor, const char *name) {
  DLTensor borrowed;
  self->name = name;
  if (!exchange) {
    PyErr_Format(PyExc_TypeError, "%s: is not described memory, and no library's exchange of tensors is known", name);
    return -1;
  }
  return exchange->dltensor_from_py_object_no_sync(tensor, &borrowed) ? -1
                                                                      : read_dltensor(self, &borrowed, tensor, name);
}

/* The buffer of a masked array says nothing of its mask. */
static int check_not_masked(PyObject *object, const char *name) {
  PyTypeObject *const array = (PyTypeObject *)numpy_array;
  if (Py_TYPE(object) == array || !PyObject_TypeCheck(object, array)) return 0;
  PyObject *ma = PyImport_ImportModule("numpy.ma");
  PyObject *masked_array = ma ? PyObject_GetAttrString(ma, "MaskedArray") : NULL;
  const int is_masked = masked_array ? PyObject_IsInstance(object, masked_array) : -1;
  Py_XDECREF(masked_array);
  Py_XDECREF(ma);
  if (is_masked > 0)
    PyErr_Format(PyExc_TypeError,
                 "%s: the mask of a masked array would be ignored: pass its .filled(value), or its .data with "
                 "mask=~numpy.ma.getmaskarray(..) where the function has one",
                 name);
  return is_masked ? -1 : 0;
}

/* A NumPy array by its buffer; anything else by that too, or else by DLPack: JAX's bfloat16 arrays have no buffer. */
static int open_memory(view *self, PyObject *object, const char *name, int writable) {
  const int is_numpy = PyObject_TypeCheck(object, (PyTypeObject *)numpy_array);
  if (PyObject_CheckBuffer(object)) {
    const int has_other = is_numpy || PyObject_HasAttrString(object, "__dlpack__");
    if (!PyObject_GetBuffer(object, &self->buffer, PyBUF_RECORDS_RO))
      return read_buffer(self, object, name, writable, 0);
    if (!has_other || PyErr_ExceptionMatches(PyExc_MemoryError)) return -1;
    PyErr_Clear();
  }
  return is_numpy ? open_bits(self, object, name, writable) : open_dlpack(self, object, name, writable);
}

int view_open(view *self, PyObject *object, const char *name, int writable) {
  self->name = name;
  const int failed = is_described(object) ? described_open(self, object, name) || check_aligned(&self->array, name)
                                          : check_not_masked(object, name) || open_memory(self, object, name, writable);
  if (failed) view_close(self);
  return failed ? -1 : 0;
}

void view_close(view *self) {
  if (self->buffer.obj) PyBuffer_Release(&self->buffer);
  Py_CLEAR(self->capsule);
}

/* ------------------------------------------------------------------------------------------------- NumPy arrays -- */

PyObject *new_array(const strided_array *planned) {
  PyObject *extents = PyTuple_New(planned->axes);
  if (!extents) return NULL;
  for (int i = 0; i < planned->axes; ++i) {
    PyObject *extent = PyLong_FromLongLong(planned->shape[i]);
    if (!extent || PyTuple_SetItem(extents, i, extent)) {
      Py_DECREF(extents);
      return NULL;
    }
  }
  PyObject *ml_dtypes = NULL;
  PyObject *dtype = planned->dtype == ATTEND_F64   ? float64
                    : planned->dtype == ATTEND_F16 ? float16
                    : planned->dtype == ATTEND_I32 ? int32
                                                   : float32;
  if (planned->dtype == ATTEND_BF16) {
    ml_dtypes = PyImport_ImportModule("ml_dtypes");
    dtype = ml_dtypes ? PyObject_GetAttrString(ml_dtypes, "bfloat16") : NULL;
    if (!ml_dtypes && PyErr_ExceptionMatches(PyExc_ImportError)) {
      PyErr_Clear();
      PyErr_SetString(PyExc_TypeError,
                      "out: NumPy has bfloat16 from the package ml_dtypes, which is not installed; pass out=");
    }
  } else {
    Py_INCREF(dtype);
  }
  PyObject *result = dtype ? PyObject_CallFunctionObjArgs(numpy_empty, extents, dtype, NULL) : NULL;
  Py_XDECREF(dtype);
  Py_XDECREF(ml_dtypes);
  Py_DECREF(extents);
  return result;
}

PyObject *as_int64(PyObject *array, const char *name) {
  Py_buffer given;
  if (PyObject_GetBuffer(array, &given, PyBUF_RECORDS_RO)) return NULL;
  const size_t length = strlen(given.format);
  const int may_wrap = given.itemsize == 8 && strchr("LQ", given.format[length - 1]) != NULL;
  PyBuffer_Release(&given);
  PyObject *result = PyObject_CallFunctionObjArgs(numpy_ascontiguousarray, array, int64, NULL);
  if (!result || !may_wrap) return result;
  Py_buffer numbers;
  if (PyObject_GetBuffer(result, &numbers, PyBUF_SIMPLE)) {
    Py_DECREF(result);
    return NULL;
  }
  int wrapped = 0;
  for (Py_ssize_t i = 0; i < numbers.len / 8; ++i) wrapped |= ((const int64_t *)numbers.buf)[i] < 0;
  PyBuffer_Release(&numbers);
  if (!wrapped) return result;
  PyErr_Format(PyExc_OverflowError, "%s: numbers of at most 2**63 - 1 are needed", name);
  Py_DECREF(result);
  return NULL;
}
