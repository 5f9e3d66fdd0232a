// What all functions have in common: the way of a call, and attend_attention with some of the keys.
#pragma once

#include <algorithm>

#include "mpi/call.hpp"

namespace attend::mpi {

class Computation {
 public:
  explicit Computation(Call *call) : call_(*call), sequences_(call->batch) {}

  // Everything the workspace holds.
  void carve(Carver *carver, uint64_t of_attention) {
    ranges_ = carver->take<KeyRange>(call_.keys.entries);
    counts_ = carver->take<int32_t>(2 * int64_t{call_.team.ranks()});
    lengths_ = carver->take<int64_t>(sequences_);
    one_key_ = carver->take<double>(1);
    attention_ = carver->take<char>(static_cast<int64_t>(of_attention));
    attention_bytes_ = of_attention;
  }
  // (There from carve on.)
  void *one_key() const {
    *one_key_ = 0;
    return one_key_;
  }
  Fault gather(Keys *keys) const {
    return call_.gather(call_.keys, Argument::options_key_ranges, ranges_, counts_, keys);
  }
  // With memory of ours for what this rank was not given.
  void complete() {}

 protected:
  // attend_attention, or with `need` how much workspace that takes. `o` has all but the workspace; its lengths are those of
  // all keys.
  void call_attention(const attend_tensor &q, const attend_tensor &k, const attend_tensor &v, const attend_tensor &out,
                      attend_attention_options o, uint64_t *need, Fault *fault) const {
    char text[sizeof fault->text] = "";
    o.message = text, o.message_size = sizeof text;
    o.workspace = attention_, o.workspace_size = attention_bytes_;
    attend_status s = ATTEND_OK;
    if (need != nullptr) {
      s = attend_attention_workspace(&q, &k, &v, &out, &o, need);
    } else {
      o.kv_lengths = o.sequences == 0 ? lengths_of(o.kv_lengths, o.key_offset, k.shape[1])
                                      : lengths_of_all(o.kv_lengths, o.key_offset, k.shape[1], o.sequences);
      s = attend_attention(&q, &k, &v, &out, &o);
    }
    if (s != ATTEND_OK) fault->set(s, text);
  }

  // Of the keys from `begin` on, so many; null: all of them exist.
  const int64_t *lengths_of(const int64_t *of_all, int64_t begin, int64_t count) const {
    if (of_all == nullptr) return nullptr;
    for (int64_t b = 0; b < call_.batch; ++b) lengths_[b] = std::clamp<int64_t>(of_all[b] - begin, 0, count);
    return lengths_;
  }
  // The same of sequences that all have the keys of the one batch.
  const int64_t *lengths_of_all(const int64_t *of_all, int64_t begin, int64_t count, int64_t sequences) const {
    if (of_all == nullptr) return nullptr;
    std::fill_n(lengths_, sequences, std::clamp<int64_t>(of_all[0] - begin, 0, count));
    return lengths_;
  }
  // Offsets of queries whose first stands at `position`, into room for one a batch.
  void move_queries(int64_t position, int64_t *room, attend_attention_options *o) const {
    if (o->query_offsets == nullptr) {
      o->query_offset = plus(o->query_offset, position);
      return;
    }
    for (int64_t b = 0; b < call_.batch; ++b) room[b] = plus(o->query_offsets[b], position);
    o->query_offsets = room;
  }

  Call &call_;
  int64_t sequences_;  // at most in a call of attention
  char *attention_ = nullptr;
  uint64_t attention_bytes_ = 0;
  KeyRange *ranges_ = nullptr;
  int32_t *counts_ = nullptr;
  int64_t *lengths_ = nullptr;
  double *one_key_ = nullptr;
};

// A call of the class's function, or with Purpose::size of its ..._workspace.
template <class Function>
Fault perform(Call *call, uint64_t *bytes) {
  Function function(call);
  uint64_t of_attention = 0;
  Fault fault = function.size_attention(&of_attention);
  Carver size(nullptr);
  function.carve(&size, of_attention);
  const uint64_t need = size.used() + Carver::kLine - 1;
  if (!fault && !call->computes() && bytes == nullptr) {
    fault.set(ATTEND_NULL_POINTER, Argument::bytes, "is null, but required");
  }
  Workspace workspace;
  if (!fault && call->computes()) {
    fault = workspace.get(*call, need);
    if (!fault) {
      Carver carver(workspace.memory());
      function.carve(&carver, of_attention);
      function.complete();
      fault = function.check();
    }
  }
  call->team.agree(&fault);
  if (!fault && bytes != nullptr) *bytes = need;
  if (fault || !call->computes()) return fault;
  Keys keys;
  fault = function.gather(&keys);
  if (!fault) function.run(keys);
  return fault;
}

template <class Function>
attend_status run(Purpose purpose, const Given &given, uint64_t *bytes) {
  Call call = {};
  call.function = Function::kFunction, call.purpose = purpose;
  Fault fault = call.read(given);
  if (!fault) fault = perform<Function>(&call, bytes);
  return fault.tell(call.options.message, call.options.message_size);
}

}  // namespace attend::mpi
