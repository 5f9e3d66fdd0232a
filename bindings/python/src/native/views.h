/* Arrays of any Python library as attend_tensors over the same memory.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_VIEWS_H
#define ATTEND_PYTHON_VIEWS_H

#define Py_LIMITED_API 0x030B0000 /* one build for Python 3.11 and everything after it */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <attend/attend.h>

/* How the axes of an array become (rows, columns, heads, batch). Without a flag they are reversed: [.., N, D] is
 * (D, N, ..). */
enum {
  AS_ACTIVATION = 0,
  AS_WEIGHT = 1,    /* [.., out, in] is (out, in, ..): it stands to the left of a column */
  WITHOUT_ROWS = 2, /* [.., N] is (1, N, ..): one number per column */
  ONE_HEAD = 4      /* [B, N, D] is (D, N, 1, B): no axis of heads */
};

enum { MAX_AXES = 4 };

typedef struct strided_array {
  void *data;
  uint32_t dtype;
  int axes;
  int64_t shape[MAX_AXES], stride[MAX_AXES]; /* the array's own order of axes; strides in elements */
} strided_array;

/* Of lse and scores: the type of the arithmetic. */
static inline uint32_t arithmetic_dtype(uint32_t dtype) { return dtype == ATTEND_F64 ? ATTEND_F64 : ATTEND_F32; }

/* An array in use: the memory stays where it is until view_close. Zero-initialised means absent. */
typedef struct view {
  const char *name;
  Py_buffer buffer; /* one of these two holds the memory */
  PyObject *capsule;
  strided_array array;
  attend_tensor tensor;
} view;

/* Opens the memory of `object`, which calls itself `name` in errors. Returns 0, or -1 with an exception. */
int view_open(view *self, PyObject *object, const char *name, int writable);

/* The same of a tensor of the library whose type's exchange was given to views_exchange, and which its face, attend.torch, has
 * looked at: it lies on the CPU, no sign is still to be turned, and it may be written to where it is an output. */
int view_borrow(view *self, PyObject *tensor, const char *name);

/* Takes the capsule __dlpack_c_exchange_api__ of a type. Returns 1, or 0 if it is of no use here. */
int views_exchange(PyObject *capsule);

/* Fills self->tensor from self->array. Returns 0, or -1 with an exception if there are too many axes. */
int view_arrange(view *self, const char *name, int arrangement);

/* The same for a softmax along `axis` (counted from the end, so negative) of an array with `axes` axes, to which a
 * shorter one is broadcast by NumPy's rule: that axis becomes the rows, the others follow in reverse. */
int view_arrange_axis(view *self, const char *name, int axes, int axis);

void view_close(view *self);

/* Describes an array without memory: row-major, its axes those that view_arrange(.., arrangement) would turn into a
 * tensor of this shape and rank. */
void view_plan(view *self, const int64_t shape[4], int rank, int arrangement, uint32_t dtype);

/* The same, of the array's own shape. */
void view_plan_array(view *self, int axes, const int64_t *shape, uint32_t dtype);

/* An uninitialised NumPy array as planned. */
PyObject *new_array(const strided_array *planned);

/* A NumPy array of integers, one axis, as contiguous int64: a new reference, or NULL with an exception. */
PyObject *as_int64(PyObject *array, const char *name);

/* Called once, when the module is imported. Returns 0, or -1 with an exception. */
int views_prepare(void);

#endif
