/* How the axes of an array become the dimensions of a tensor, and back.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include <string.h>

#include "views.h"

typedef struct dimension {
  int64_t extent, stride;
} dimension;

static int insert_one(dimension *dimensions, int rank, int at) {
  for (int i = rank; i > at; --i) dimensions[i] = dimensions[i - 1];
  dimensions[at] = (dimension){1, 0};
  return rank + 1;
}

static int set_tensor(view *self, const char *name, const dimension *dimensions, int rank) {
  if (rank > 4) {
    PyErr_Format(PyExc_ValueError, "%s: has %d axes, too many here", name, self->array.axes);
    return -1;
  }
  self->tensor.data = self->array.data;
  self->tensor.dtype = self->array.dtype;
  self->tensor.rank = rank ? (uint32_t)rank : 1u;
  static const dimension number = {1, 0}; /* broadcasts to anything */
  if (rank == 0) dimensions = &number;
  for (uint32_t i = 0; i < self->tensor.rank; ++i) {
    self->tensor.shape[i] = dimensions[i].extent;
    self->tensor.stride[i] = dimensions[i].stride;
  }
  return 0;
}

int view_arrange(view *self, const char *name, int arrangement) {
  const strided_array *array = &self->array;
  dimension dimensions[MAX_AXES + 2];
  int rank = array->axes;
  for (int i = 0; i < rank; ++i) {
    const int axis = rank - 1 - i;
    dimensions[i] = (dimension){array->shape[axis], array->stride[axis]};
  }
  if (arrangement & WITHOUT_ROWS) rank = insert_one(dimensions, rank, 0);
  if (arrangement & AS_WEIGHT && rank >= 2) {
    const dimension in = dimensions[0];
    dimensions[0] = dimensions[1];
    dimensions[1] = in;
  }
  if (arrangement & ONE_HEAD && rank > 2) rank = insert_one(dimensions, rank, 2);
  return set_tensor(self, name, dimensions, rank);
}

int view_arrange_axis(view *self, const char *name, int axes, int axis) {
  const strided_array *array = &self->array;
  if (array->axes > axes) {
    PyErr_Format(PyExc_ValueError, "%s: has more axes than x", name);
    return -1;
  }
  dimension dimensions[MAX_AXES];
  int next = 1;
  for (int from_end = -1; from_end >= -axes; --from_end) {
    const int i = array->axes + from_end;
    const dimension here = i >= 0 ? (dimension){array->shape[i], array->stride[i]} : (dimension){1, 0};
    dimensions[from_end == axis ? 0 : next++] = here;
  }
  return set_tensor(self, name, dimensions, axes);
}

void view_plan_array(view *self, int axes, const int64_t *shape, uint32_t dtype) {
  memset(self, 0, sizeof *self);
  strided_array *array = &self->array;
  array->dtype = dtype;
  array->axes = axes;
  uint64_t stride = 1; /* what wraps is refused: so many elements do not fit */
  for (int i = axes - 1; i >= 0; --i) {
    array->shape[i] = shape[i];
    array->stride[i] = (int64_t)stride;
    stride *= (uint64_t)shape[i];
  }
}

void view_plan(view *self, const int64_t shape[4], int rank, int arrangement, uint32_t dtype) {
  int64_t reversed[4];
  int axes = 0;
  for (int i = rank - 1; i >= 0; --i) {
    if (i == 2 && arrangement & ONE_HEAD) continue;
    if (i == 0 && arrangement & WITHOUT_ROWS) continue;
    reversed[axes++] = shape[i];
  }
  view_plan_array(self, axes, reversed, dtype);
}
