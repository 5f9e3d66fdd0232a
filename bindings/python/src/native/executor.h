/* The threads of a concurrent.futures.Executor as an attend_executor.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_EXECUTOR_H
#define ATTEND_PYTHON_EXECUTOR_H

#include "call.h"

/* Once, when the module is made. Returns 0, or -1 with an exception. */
int executor_prepare(void);

/* For all calls from now on; None is the library's own threads again. */
attend_status executor_set(PyObject *executor, int32_t workers);

#endif
