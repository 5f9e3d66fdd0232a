// A call's memory, what goes into it first, and the last look at the operands before anything is computed.
#include <cinttypes>
#include <cstdlib>

#include "mpi/call.hpp"

namespace attend::mpi {

Fault Call::gather(const Columns &of, Argument argument, KeyRange *ranges, int32_t *counts, Keys *of_all) {
  const int ranks = team.ranks(), rank = team.rank();
  Fault fault;
  int32_t *const displacements = counts + ranks;
  counts[rank] = of.ordered ? 1 : static_cast<int32_t>(of.range_count);
  MPI_Request request;
  MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, counts, 1, MPI_INT32_T, team.comm(), &request);
  team.wait(&request);
  int32_t entries = 0;
  for (int r = 0; r < ranks; ++r) {
    displacements[r] = entries;
    entries += counts[r];
  }
  KeyRange *const own = ranges + displacements[rank];
  if (of.ordered) own[0] = {of.first, of.own, 0, rank, 0};
  int64_t column = 0;
  for (int64_t i = 0; !of.ordered && i < of.range_count; ++i) {
    own[i] = {of.ranges[2 * i], of.ranges[2 * i + 1], column, rank, 0};
    column += own[i].count;
  }
  for (int r = 0; r < ranks; ++r) {
    counts[r] *= static_cast<int32_t>(sizeof(KeyRange)), displacements[r] *= static_cast<int32_t>(sizeof(KeyRange));
  }
  MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, ranges, counts, displacements, MPI_BYTE, team.comm(), &request);
  team.wait(&request);
  int64_t count = entries, bad = 0;
  if (!order_keys(ranges, &count, of.total, &bad)) {
    fault.set(ATTEND_INVALID_SHAPE, argument,
              "the ranks' %" PRId64 " columns do not cover as many positions: none or several have position %" PRId64,
              of.total, bad);
  }
  for (int64_t i = 0; !fault && function == Function::decode && i < count; ++i) {
    if (ranges[i].first % kKeySpan == 0) continue;
    fault.set(ATTEND_INVALID_SHAPE, Argument::k,
              "rank %d's keys begin at position %" PRId64 ", but must at a multiple of %" PRId64, ranges[i].owner,
              ranges[i].first, kKeySpan);
  }
  *of_all = {ranges, count, of.total};
  return fault;
}

Fault Workspace::get(const Call &call, uint64_t need) {
  Fault fault;
  char *memory = static_cast<char *>(call.options.workspace);
  if (memory != nullptr && call.options.workspace_size < need) {
    fault.set(ATTEND_WORKSPACE_TOO_SMALL, Argument::options_workspace_size,
              "has %" PRIu64 " bytes, but this rank's shard needs %" PRIu64, call.options.workspace_size, need);
    return fault;
  }
  if (memory == nullptr) {
    own_ = std::malloc(need);
    memory = static_cast<char *>(own_);
    if (memory == nullptr) {
      fault.set(ATTEND_OUT_OF_MEMORY, Argument::none, "%" PRIu64 " bytes could not be allocated", need);
      return fault;
    }
  }
  aligned_ = memory + (Carver::kLine - reinterpret_cast<uintptr_t>(memory) % Carver::kLine) % Carver::kLine;
  return fault;
}
Workspace::~Workspace() { std::free(own_); }

attend_tensor stand_in(attend_tensor t, int64_t columns, void *one) {
  t = four_extents(t);
  t.data = one;
  if (t.shape[1] != 1 || columns != 1) t.shape[1] = columns;
  for (int64_t &stride : t.stride) stride = 0;
  return t;
}

Fault check_as_computed(const Call &call, const attend_tensor &state, void *one_key) {
  Fault fault;
  char text[sizeof fault.text] = "", byte = 0;
  attend_attention_options o = call.attention;
  o.message = text, o.message_size = sizeof text;
  o.workspace = &byte, o.workspace_size = 1;
  o.flags |= ATTEND_PARTIAL;
  o.state = &state;
  const auto check = [&](const attend_tensor &k, const attend_tensor &v) {
    const attend_status s = attend_attention(&call.q, &k, &v, &call.out, &o);
    if (s != ATTEND_OK && ATTEND_REASON(s) != ATTEND_WORKSPACE_TOO_SMALL) fault.set(s, text);
    return !fault;
  };
  // All keys at one place. Scales of keys are of some.
  const attend_tensor k = stand_in(call.k, call.keys.total, one_key), v = stand_in(call.v, call.keys.total, one_key);
  attend_tensor k_scale = {}, v_scale = {};
  if (call.k_scales == Scales::of_keys) o.k_scale = &(k_scale = stand_in(*o.k_scale, 1, one_key));
  if (call.v_scales == Scales::of_keys) o.v_scale = &(v_scale = stand_in(*o.v_scale, 1, one_key));
  if (!check(k, v)) return fault;
  // Those of this rank, where they are.
  o.mask = o.bias = nullptr;
  o.kv_lengths = nullptr;
  o.k_scale = call.attention.k_scale, o.v_scale = call.attention.v_scale;
  check(call.k, call.v);
  return fault;
}

}  // namespace attend::mpi
