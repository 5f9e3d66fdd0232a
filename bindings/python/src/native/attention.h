/* Attention, and what is made of it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_ATTENTION_H
#define ATTEND_PYTHON_ATTENTION_H

#include "call.h"

/* Adds the functions to the module. Returns 0, or -1 with an exception. */
int attention_add(PyObject *module);

#endif
