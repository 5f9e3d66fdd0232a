/* What a call holds on to while it runs, and how its arguments are taken.
 *
 * The take_... functions may be called one after the other without looking at the outcome: after the first failure (an
 * exception is set then) the others do nothing, and call_end gives back what was opened.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#ifndef ATTEND_PYTHON_CALL_H
#define ATTEND_PYTHON_CALL_H

#include "views.h"

enum { MAX_VIEWS = 17 }; /* attention_backward: 5 arrays, lse, d_lse, pages, 4 among the options, 5 gradients */

enum { MAX_RESULTS = 5 };

/* What attend.h calls a thing, without its struct, and what it is called here. */
typedef const char *const renaming[2];

typedef struct naming {
  renaming *renamed;    /* ended by NULL; or NULL */
  const char *count[4]; /* what rows, columns, heads and batches are; NULL = the same */
} naming;

typedef struct call {
  int failed, views_open, integers_open, results;
  int gives_tuple; /* of one output too */
  int borrows;     /* what is no described memory is a tensor for view_borrow */
  view views[MAX_VIEWS];
  Py_buffer integers[5]; /* query_offset, kv_lengths, kv_first, query_starts, key_starts */
  PyObject *result[MAX_RESULTS];
  view *planned[MAX_RESULTS]; /* of results that are still to be made */
  const naming *naming;
  int axes, axis;    /* of a softmax, whose extents count along axes; 0, 0 of other calls */
  char message[512]; /* of attend's options */
} call;

/* For the options of the call. */
#define WITH_MESSAGE(call) .message = (call).message, .message_size = sizeof(call).message

/* The row of a function of positional arguments alone in a table of methods, and what such a function begins with: 0 with
 * an exception if their number is wrong. */
#define FAST(function) (PyCFunction)(void (*)(void)) function, METH_FASTCALL, NULL
int expect_count(Py_ssize_t count, Py_ssize_t expected);

/* attend.AttendError, made by the module. */
extern PyObject *attend_error;

/* NULL: nothing but rows and columns has another name, since axes are reversed. */
void call_begin(call *self, const naming *names);

/* From here on extents count along axes: those of a softmax along `axis` (negative) of an array with so many. */
void call_count_along(call *self, int axes, int axis);

/* Ends the call: NULL after a failure, else the outputs: one, or a tuple of them. */
PyObject *call_end(call *self);

/* Adds a result; the reference becomes the call's. */
void call_keep(call *self, PyObject *result);

/* Takes the last result back, which its memory was made for and nobody is to see. */
void call_forget(call *self);

void call_fail(call *self, PyObject *type, const char *message);

/* Raises what the message says, or the status if there is none. */
void call_raise(call *self, attend_status status);

/* Raises these words, whose reference is taken; NULL: there is an exception already. */
void call_raise_words(call *self, attend_status status, PyObject *words);

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
void call_allocate(call *self, attend_status status);

/* Not 0, which means the default in attend.h. */
double take_scale(call *self, PyObject *object, const char *instead_of_zero);

double take_double(call *self, PyObject *object, const char *name);
int64_t take_int64(call *self, PyObject *object, const char *name);
int32_t take_int32(call *self, PyObject *object, const char *name);

/* `count` integers from a NumPy array with one axis (the Python side sees to that), or None. */
const int64_t *take_integers(call *self, PyObject *object, const char *name, int64_t count);

/* The same of numbers for each token. */
const int64_t *take_per_token(call *self, PyObject *object, const char *name, int64_t tokens);

/* The same of where packed sequences begin and end, one more than there are: *sequences, or if that is 0 whatever the
 * array says, two numbers at least. */
const int64_t *take_starts(call *self, PyObject *object, const char *name, int64_t *sequences);

/* ------------------------------------------------------------------------------------------------------- shapes -- */

static inline int64_t extent(const attend_tensor *tensor, uint32_t dimension) {
  return dimension < tensor->rank ? tensor->shape[dimension] : 1;
}

static inline int64_t broadcast(int64_t a, int64_t b) { return a == 1 ? b : a; }

static inline int larger(uint32_t a, uint32_t b) { return (int)(a > b ? a : b); }

/* A result that is too large for any machine would hide what else is wrong. The same call for one column finds it, and
 * leaves its own message. */
static inline attend_tensor one_column(const attend_tensor *tensor) {
  attend_tensor one = *tensor;
  if (one.rank > 1) one.shape[1] = 1;
  return one;
}
static inline attend_status first_of(attend_status small, attend_status all) { return small ? small : all; }

#endif
