/* What a call holds on to while it runs, and how its arguments are taken.
 *
 * The take_... functions may be called one after the other without looking at the outcome: after the first failure (an
 * exception is set then) the others do nothing, and call_end gives back what was opened.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_CALL_H
#define ATTEND_PYTHON_CALL_H

#include "views.h"

enum { MAX_VIEWS = 16 }; /* self_attention: 10 arrays, 4 among the options, lse and scores */

enum { MAX_RESULTS = 3 };

typedef struct call {
  int failed, views_open, integers_open, results;
  view views[MAX_VIEWS];
  Py_buffer integers[3]; /* query_offset, kv_lengths, kv_first */
  PyObject *result[MAX_RESULTS];
  view *planned[MAX_RESULTS]; /* of results that are still to be made */
} call;

/* attend.AttendError, made by the module. */
extern PyObject *attend_error;

void call_begin(call *self);

/* Ends the call: NULL after a failure, else the outputs: one, or a tuple of them. */
PyObject *call_end(call *self);

/* Adds a result; the reference becomes the call's. */
void call_keep(call *self, PyObject *result);

void call_fail(call *self, PyObject *type, const char *message);

/* Raises what the status says. `renamed` has pairs of (name in attend.h, name of the Python argument) and may be NULL. */
void call_raise(call *self, attend_status status, const char *const renamed[][2]);

/* None gives NULL: absent. */
view *open_view(call *self, PyObject *object, const char *name, int writable);
attend_tensor *take_input(call *self, PyObject *object, const char *name, int arrangement);
attend_tensor *take_inout(call *self, PyObject *object, const char *name, int arrangement);

attend_tensor *take_required(call *self, PyObject *object, const char *name, int arrangement);

/* The caller's array, or for None the plan of a new one, without memory. It becomes the call's next result. */
attend_tensor *take_output(call *self, PyObject *given, const char *name, int arrangement, const int64_t shape[4],
                           int rank, uint32_t dtype);

/* The same for an array with the axes of `like`; its view is still to be arranged. */
view *open_output_like(call *self, PyObject *given, const char *name, const strided_array *like);

/* Whether there are plans; then attend's ..._workspace function is asked about the call before call_allocate. */
int call_has_plans(const call *self);

/* Makes what was planned, after `status` said that nothing is wrong with the call; else raises what is wrong. Shapes are
 * free to claim any size (strides of 0), so nothing may be allocated before they are checked. */
void call_allocate(call *self, attend_status status, const char *const renamed[][2]);

double take_double(call *self, PyObject *object);
int64_t take_int64(call *self, PyObject *object);
int32_t take_threads(call *self, PyObject *object);

/* `count` integers from a NumPy array with one axis (the Python side sees to that), or None. */
const int64_t *take_integers(call *self, PyObject *object, const char *name, int64_t count);

#endif
