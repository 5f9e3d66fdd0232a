#include "mpi/team.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace attend::mpi {
namespace {

[[noreturn]] void end_job(MPI_Comm comm, const char *what) {
  int rank = 0, ranks = 1;
  PMPI_Comm_rank(comm, &rank);
  PMPI_Comm_size(comm, &ranks);
  // One call, so that the lines of several ranks stay whole.
  std::fprintf(stderr, "attend: rank %d of %d: %s; the job ends\n", rank, ranks, what);
  std::fflush(stderr);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::abort();  // (Should it return.)
}

void on_error(MPI_Comm *comm, int *code, ...) {
  char text[MPI_MAX_ERROR_STRING + 32] = "MPI failed: ";
  int length = 0;
  MPI_Error_string(*code, text + std::strlen(text), &length);
  end_job(*comm, text);
}

// The duplicate, an attribute of the program's communicator.
int free_duplicate(MPI_Comm, int, void *attribute, void *) {
  MPI_Comm *const comm = static_cast<MPI_Comm *>(attribute);
  const int result = MPI_Comm_free(comm);
  delete comm;
  return result;
}
int duplicate_key() {
  static const int key = [] {
    int made = MPI_KEYVAL_INVALID;
    MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, free_duplicate, &made, nullptr);
    return made;
  }();
  return key;
}

}  // namespace

Fault Team::join(int32_t communicator, double timeout) {
  Fault fault;
  int runs = 0, ended = 0, level = MPI_THREAD_SINGLE, is_main = 0;
  MPI_Initialized(&runs);
  if (runs != 0) MPI_Finalized(&ended);
  if (runs == 0 || ended != 0) {
    fault.set(ATTEND_INVALID_VALUE, Argument::communicator, "MPI is not running: call MPI_Init_thread first");
    return fault;
  }
  MPI_Query_thread(&level);
  MPI_Is_thread_main(&is_main);
  if (level < MPI_THREAD_FUNNELED) {
    fault.set(ATTEND_UNSUPPORTED, Argument::communicator,
              "MPI was started for one thread alone; call MPI_Init_thread with MPI_THREAD_FUNNELED");
    return fault;
  }
  if (level == MPI_THREAD_FUNNELED && is_main == 0) {
    fault.set(ATTEND_UNSUPPORTED, Argument::communicator,
              "this is not the thread that started MPI, and with MPI_THREAD_FUNNELED it alone may call");
    return fault;
  }
  const MPI_Comm given = MPI_Comm_f2c(communicator);
  int is_inter = 0;
  if (given == MPI_COMM_NULL) {
    fault.set(ATTEND_INVALID_VALUE, Argument::communicator, "is MPI_COMM_NULL");
    return fault;
  }
  MPI_Comm_test_inter(given, &is_inter);
  if (is_inter != 0) {
    fault.set(ATTEND_UNSUPPORTED, Argument::communicator, "joins two groups; give one of a single group");
    return fault;
  }
  timeout_ = timeout;
  void *attribute = nullptr;
  int found = 0;
  MPI_Comm_get_attr(given, duplicate_key(), &attribute, &found);
  if (found == 0) {
    MPI_Comm *const made = new (std::nothrow) MPI_Comm(MPI_COMM_NULL);
    if (made == nullptr) end_job(given, "no memory for a communicator");
    comm_ = given;
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &ranks_);
    MPI_Request request;
    MPI_Comm_idup(given, made, &request);
    wait(&request);
    MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
    MPI_Comm_create_errhandler(on_error, &handler);
    MPI_Comm_set_errhandler(*made, handler);
    MPI_Errhandler_free(&handler);
    MPI_Comm_set_attr(given, duplicate_key(), made);
    attribute = made;
  }
  comm_ = *static_cast<MPI_Comm *>(attribute);
  MPI_Comm_rank(comm_, &rank_);
  MPI_Comm_size(comm_, &ranks_);
  return fault;
}

void Team::give_up(const char *format, ...) const {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  end_job(comm_, text);
}

void Team::watch(double *idle_since) {
  if (timeout_ <= 0) return;
  const double now = MPI_Wtime();
  if (*idle_since == 0) *idle_since = now;
  if (now - *idle_since > timeout_) give_up("no message for %g s: a rank is lost, or did not call", timeout_);
}

void Team::wait(int count, MPI_Request *requests) {
  double idle_since = 0;
  for (int done = 0;;) {
    MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
    if (done != 0) return;
    watch(&idle_since);
  }
}

void Team::largest(int64_t *numbers, int count) {
  MPI_Request request;
  MPI_Iallreduce(MPI_IN_PLACE, numbers, count, MPI_INT64_T, MPI_MAX, comm_, &request);
  wait(&request);
}
void Team::sum(int64_t *numbers, int count) {
  MPI_Request request;
  MPI_Iallreduce(MPI_IN_PLACE, numbers, count, MPI_INT64_T, MPI_SUM, comm_, &request);
  wait(&request);
}
void Team::sum_before(int64_t *numbers, int count) {
  MPI_Request request;
  MPI_Iexscan(MPI_IN_PLACE, numbers, count, MPI_INT64_T, MPI_SUM, comm_, &request);
  wait(&request);
  if (rank_ == 0) std::fill(numbers, numbers + count, 0);
}
void Team::broadcast(void *bytes, int64_t count, int root) {
  constexpr int64_t kMost = int64_t{1} << 28;
  for (int64_t at = 0; at < count; at += kMost) {
    MPI_Request request;
    MPI_Ibcast(static_cast<char *>(bytes) + at, static_cast<int>(std::min(kMost, count - at)), MPI_BYTE, root, comm_,
               &request);
    wait(&request);
  }
}

void Team::agree(Fault *fault, int64_t largest_number) {
  if (largest_number == 0) return;
  const int source = ranks_ - static_cast<int>(largest_number);
  if (source == rank_) fault->add_rank(rank_, ranks_);
  broadcast(fault, sizeof *fault, source);
}
void Team::agree(Fault *fault) {
  int64_t number = fault_number(*fault);
  largest(&number, 1);
  agree(fault, number);
}

}  // namespace attend::mpi
