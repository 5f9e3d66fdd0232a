/* Rotary embedding, and new keys and values into caches.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_SERVING_H
#define ATTEND_PYTHON_SERVING_H

#include "call.h"

/* Adds the functions to the module. Returns 0, or -1 with an exception. */
int serving_add(PyObject *module);

#endif
