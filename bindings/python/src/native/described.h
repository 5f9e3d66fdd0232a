/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_DESCRIBED_H
#define ATTEND_PYTHON_DESCRIBED_H

#include "views.h"

int is_described(PyObject *object);

/* Fills self->array; whoever described the memory keeps it, and has seen to it that it may be written to where it is an
 * output. Returns 0, or -1 with an exception. */
int described_open(view *self, PyObject *described, const char *name);

/* Adds MEMORY, the numbers of the types, and use_exchange. Returns 0, or -1 with an exception. */
int described_add(PyObject *module);

#endif
