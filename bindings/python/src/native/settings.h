/* What concerns the library and no call: its version, instruction sets, threads and executor.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_SETTINGS_H
#define ATTEND_PYTHON_SETTINGS_H

#include "call.h"

/* Adds the functions to the module. Returns 0, or -1 with an exception. */
int settings_add(PyObject *module);

#endif
