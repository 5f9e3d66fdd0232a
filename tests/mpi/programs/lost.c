/* A rank that is lost ends the job with our message; a thread level that is too low is said.
 *
 * lost absent    the last rank does not call           lost killed    it is killed while it computes
 * lost levels    no loss: MPI before it runs, and started for one thread alone */
#define _POSIX_C_SOURCE 200809L
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attend/attend_mpi.h"

/* So many that the last rank cannot have sent all of its keys before it computes. */
enum { COLUMNS = 2400 };
static float x[8 * COLUMNS], y[8 * COLUMNS];
static char text[400];

static attend_status call(int32_t communicator, const attend_executor *executor) {
  const attend_tensor t = {x, ATTEND_F32, 2, {8, COLUMNS}, {1, 8}}, out = {y, ATTEND_F32, 2, {8, COLUMNS}, {1, 8}};
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  o.message = text, o.message_size = sizeof text;
  o.executor = executor;
  o.timeout = 1;
  return attend_mpi_attention(communicator, &t, &t, &t, &out, &o, NULL);
}

static void die(void *context, int32_t tasks, attend_task task, void *argument) {
  (void)context, (void)tasks, (void)task, (void)argument;
  raise(SIGKILL);
}

static int expect(attend_status status, int reason, const char *words) {
  if (ATTEND_REASON(status) == reason && strstr(text, words) != NULL) return 0;
  printf("status %d: %s\n", (int)ATTEND_REASON(status), text);
  return 1;
}

int main(int count, char **arguments) {
  int level, rank, ranks;
  if (count != 2) return 2;
  if (strcmp(arguments[1], "levels") == 0) {
    int wrong = expect(call(0, NULL), ATTEND_INVALID_VALUE, "MPI is not running");
    MPI_Init_thread(NULL, NULL, MPI_THREAD_SINGLE, &level);
    if (level == MPI_THREAD_SINGLE) {
      wrong |= expect(call(MPI_Comm_c2f(MPI_COMM_WORLD), NULL), ATTEND_UNSUPPORTED, "MPI_THREAD_FUNNELED");
    } else {
      printf("This MPI has level %d whatever is asked for.\n", level);
    }
    MPI_Finalize();
    return wrong;
  }
  MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  if (level < MPI_THREAD_FUNNELED) return 2;
  if (call(MPI_Comm_c2f(MPI_COMM_WORLD), NULL) != ATTEND_OK) {
    printf("%s\n", text);
    return 2;
  }
  if (rank < ranks - 1) {
    call(MPI_Comm_c2f(MPI_COMM_WORLD), NULL);
    printf("returned\n");
  } else if (strcmp(arguments[1], "absent") == 0) {
    sleep(60);
  } else {
    attend_executor killer = ATTEND_EXECUTOR_INIT;
    killer.run = die;
    call(MPI_Comm_c2f(MPI_COMM_WORLD), &killer);
    raise(SIGKILL); /* (The call was too small to be shared.) */
  }
  return 2;
}
