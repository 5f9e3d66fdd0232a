// What the tests over MPI share: the ranks, random shards, and the bytes that a rank sent.
#pragma once

#define OMPI_SKIP_MPICXX
#define MPICH_SKIP_MPICXX
#include <mpi.h>

#include "arrays.hpp"
#include "attend/attend_mpi.h"
#include "tables.hpp"

namespace attend::test {

struct World {
  int rank = 0, ranks = 1;
  int32_t comm = 0;  // as the library takes it
};
const World &world();

// Bytes that this rank has given to MPI_Isend since the start.
int64_t bytes_sent();

// All ranks draw the same numbers from the same stream; what is this rank's alone comes from another.
inline unsigned own_stream(unsigned stream) { return stream + 1000003u * static_cast<unsigned>(world().rank + 1); }

constexpr int64_t kSpan = Contract<float>::kKeySpan;

// Uses the table whose spans this program is compiled for.
struct Spans {
  Spans() { set_active_kernels(kSpan == 512 ? &short_spans() : nullptr); }
  ~Spans() { set_active_kernels(nullptr); }
  Spans(const Spans &) = delete;
  Spans &operator=(const Spans &) = delete;
};

// One of the instruction sets with fused multiply-add, this rank's own choice, as if each rank had another CPU. (Short spans
// have one table.)
struct OwnIsa {
  explicit OwnIsa(Random &own) {
    std::vector<const char *> fused;
    for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) {
      if (fuses(name)) fused.push_back(name);
    }
    if (kSpan == 512 || fused.empty()) return;
    REQUIRE(attend_set_isa(fused[static_cast<size_t>(own.in(0, static_cast<int64_t>(fused.size()) - 1))]) == ATTEND_OK);
  }
  ~OwnIsa() {
    if (kSpan != 512) attend_set_isa(nullptr);
  }
  OwnIsa(const OwnIsa &) = delete;
  OwnIsa &operator=(const OwnIsa &) = delete;
};

// Who has which of some columns: ranges (first, count) of each rank.
struct Split {
  std::vector<std::vector<int64_t>> ranges;
  bool ordered;  // one a rank, in the order of ranks: no ranges need to be given

  // Cuts at multiples of `unit`.
  Split(Random &random, int64_t columns, int64_t unit);
  const std::vector<int64_t> &own() const { return ranges[static_cast<size_t>(world().rank)]; }
  int64_t count_of(int rank) const;
  int64_t own_count() const { return count_of(world().rank); }
};

// This rank's columns of a whole, in memory of its own and any layout; `one` = an extent of 1 is for all columns.
Array own_columns(Random &random, const attend_tensor &whole, const Split &split, bool one = false);
// Whether the columns of `own` are those of `whole`.
bool are_own_columns(const attend_tensor &own, const attend_tensor &whole, const Split &split);

// Keys, or queries, that this rank sends when all of them go around the ring, as the header says.
int64_t columns_sent(const Split &split, int64_t columns);

// What every rank's call has: threads of its own choice, room for a message, an end.
template <size_t N>
attend_mpi_options options_of_rank(Random &own, char (&text)[N]) {
  attend_mpi_options o = ATTEND_MPI_OPTIONS_INIT;
  o.threads = static_cast<int32_t>(own.in(1, 2));
  o.message = text, o.message_size = sizeof text;
  o.timeout = 60;
  return o;
}
// For attend_mpi_options, which they must outlive.
void give_queries(const Split &split, attend_mpi_options *options);
void give_keys(const Split &split, attend_mpi_options *options);

// On every rank, or none.
bool on_all_ranks(bool here);

}  // namespace attend::test
