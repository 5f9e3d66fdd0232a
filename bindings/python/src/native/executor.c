/* Nothing here relies on what the executor does with what it is given: helpers that begin while the call is at work take
 * part, those that begin later, or never, are not waited for. So a call from within a worker of a full pool ends too.
 *
 * SPDX-License-Identifier: BSD-3-Clause */
#include "executor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MOST_WORKERS = 64, MOST_WAITING = 64 };

static _Atomic(pid_t) process; /* that has set it: threads do not survive fork() */

/* All under the GIL. */
static PyObject *current;     /* the executor, or NULL */
static uint64_t generation;   /* goes up when that changes */
static int waiting;           /* helpers that this executor was given and has not begun */
static PyObject *helper_type; /* of Helpers */

/* What is given to the executor, once for every helper wanted: to call it is to take part in one run. */
typedef struct helpers {
  PyObject ob_base;    /* PyObject_HEAD */
  uint64_t generation; /* these two under the GIL */
  int waiting;
  pthread_mutex_t lock; /* of all below; nobody waits for the GIL with it */
  pthread_cond_t idle;
  attend_task task;
  void *argument;
  int32_t tasks, next;
  int running, over;
} helpers;

static void take_part(helpers *self) {
  pthread_mutex_lock(&self->lock);
  if (!self->over && self->next < self->tasks) {
    const int32_t i = self->next++;
    ++self->running;
    pthread_mutex_unlock(&self->lock);
    self->task(self->argument, i);
    pthread_mutex_lock(&self->lock);
    if (--self->running == 0) pthread_cond_signal(&self->idle);
  }
  pthread_mutex_unlock(&self->lock);
}

static void end_run(helpers *self) {
  pthread_mutex_lock(&self->lock);
  self->over = 1;
  while (self->running != 0) pthread_cond_wait(&self->idle, &self->lock);
  pthread_mutex_unlock(&self->lock);
}

static void count_waiting(helpers *self, int change) {
  self->waiting += change;
  if (self->generation == generation) waiting += change;
}

static PyObject *helpers_call(PyObject *object, PyObject *args, PyObject *keywords) {
  helpers *self = (helpers *)object;
  (void)args, (void)keywords;
  if (self->waiting > 0) count_waiting(self, -1);
  Py_BEGIN_ALLOW_THREADS
  take_part(self);
  Py_END_ALLOW_THREADS
  return Py_NewRef(Py_None);
}

static void helpers_dealloc(PyObject *object) {
  helpers *self = (helpers *)object;
  PyTypeObject *type = Py_TYPE(object);
  count_waiting(self, -self->waiting); /* dropped by the executor */
  pthread_cond_destroy(&self->idle);
  pthread_mutex_destroy(&self->lock);
  PyObject_Free(object);
  Py_DECREF(type);
}

/* The calling thread takes part too: when its own task ends, so does the work, but for what others have begun. */
static void run_with_helpers(PyObject *executor, int32_t tasks, attend_task task, void *argument) {
  helpers *self = PyObject_New(helpers, (PyTypeObject *)helper_type);
  if (!self) {
    PyErr_Clear(); /* then without help */
    return;
  }
  self->generation = generation;
  self->waiting = self->next = self->running = self->over = 0;
  pthread_mutex_init(&self->lock, NULL);
  pthread_cond_init(&self->idle, NULL);
  self->task = task;
  self->argument = argument;
  self->tasks = tasks;

  for (int32_t i = 1; i < tasks && waiting < MOST_WAITING; ++i) {
    count_waiting(self, 1);
    PyObject *future = PyObject_CallMethod(executor, "submit", "O", self);
    if (!future) {
      if (self->waiting > 0) count_waiting(self, -1);
      /* The call goes on without it. It raises what is no Exception, such as KeyboardInterrupt, when it ends. */
      if (PyErr_ExceptionMatches(PyExc_Exception)) PyErr_WriteUnraisable(executor);
      break;
    }
    Py_DECREF(future);
  }
  Py_BEGIN_ALLOW_THREADS
  take_part(self);
  end_run(self);
  Py_END_ALLOW_THREADS
  Py_DECREF(self);
}

/* What it leaves out the library does. */
static void run(void *context, int32_t tasks, attend_task task, void *argument) {
  (void)context;
  if (getpid() != process) return;
  const PyGILState_STATE state = PyGILState_Ensure();
  if (current && !PyErr_Occurred()) {
    PyObject *executor = Py_NewRef(current);
    run_with_helpers(executor, tasks, task, argument);
    Py_DECREF(executor);
  }
  PyGILState_Release(state);
}

attend_status executor_set(PyObject *executor, int32_t workers) {
  /* One for each number of workers, so that those which calls still use stay as they are. */
  static attend_executor executors[MOST_WORKERS + 1];
  attend_status status;
  if (executor == Py_None) {
    executor = NULL;
    status = attend_set_executor(NULL);
  } else if (workers < 0) {
    const attend_executor wrong = {.size = sizeof wrong, .workers = workers, .run = run};
    return attend_set_executor(&wrong);
  } else {
    if (workers > MOST_WORKERS) workers = MOST_WORKERS;
    attend_executor *chosen = &executors[workers];
    if (chosen->size == 0) *chosen = (attend_executor){.size = sizeof *chosen, .workers = workers, .run = run};
    process = getpid();
    status = attend_set_executor(chosen);
  }
  if (status) return status;
  PyObject *before = current;
  current = Py_XNewRef(executor);
  ++generation;
  waiting = 0;
  Py_XDECREF(before);
  return ATTEND_OK;
}

int executor_prepare(void) {
  static PyType_Slot slots[] = {{Py_tp_call, helpers_call}, {Py_tp_dealloc, helpers_dealloc}, {0, NULL}};
  static PyType_Spec spec = {"attend._attend.Helpers", sizeof(helpers), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  helper_type = PyType_FromSpec(&spec);
  return helper_type ? 0 : -1;
}
