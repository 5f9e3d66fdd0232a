// The ranks that compute together: a communicator of our own, and waiting that ends the job when nothing comes any more.
#pragma once

#define OMPI_SKIP_MPICXX
#define MPICH_SKIP_MPICXX
#include <mpi.h>

#include "mpi/fault.hpp"

namespace attend::mpi {

class Team {
 public:
  // `communicator` is a handle of Fortran. What each rank finds for itself is a fault; all ranks call it.
  Fault join(int32_t communicator, double timeout);

  MPI_Comm comm() const { return comm_; }
  int rank() const { return rank_; }
  int ranks() const { return ranks_; }

  // Until all are done.
  void wait(int count, MPI_Request *requests);
  void wait(MPI_Request *request) { wait(1, request); }

  // Looks at the time since `*idle_since` while nothing comes (0: begins to), and ends the job after the timeout.
  void watch(double *idle_since);

  // Element by element; the largest, the sum, the sum of those of the ranks before.
  void largest(int64_t *numbers, int count);
  void sum(int64_t *numbers, int count);
  void sum_before(int64_t *numbers, int count);
  void broadcast(void *bytes, int64_t count, int root);

  // The fault of the lowest rank that has one becomes every rank's. `first`: largest() has been asked already, with
  // fault_number(fault), and said this.
  int64_t fault_number(const Fault &fault) const { return fault ? ranks_ - rank_ : 0; }
  void agree(Fault *fault, int64_t largest_number);
  void agree(Fault *fault);

  // Says so on standard error and ends the job.
  [[noreturn]] [[gnu::format(printf, 2, 3)]] void give_up(const char *format, ...) const;

 private:
  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0, ranks_ = 1;
  double timeout_ = 0;
};

}  // namespace attend::mpi
