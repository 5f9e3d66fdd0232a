// What attend_mpi_attention and attend_mpi_decode have in common: the way of a call, and attend_attention with some of the
// keys.
#pragma once

#include <algorithm>

#include "mpi/call.hpp"

namespace attend::mpi {

class Computation {
 public:
  explicit Computation(Call *call) : call_(*call) {}

  // Everything the workspace holds.
  void carve(Carver *carver, uint64_t of_attention) {
    ranges_ = carver->take<KeyRange>(call_.key_ranges);
    counts_ = carver->take<int32_t>(2 * int64_t{call_.team.ranks()});
    lengths_ = carver->take<int64_t>(call_.batch);
    one_key_ = carver->take<double>(1);
    attention_ = carver->take<char>(static_cast<int64_t>(of_attention));
    attention_bytes_ = of_attention;
  }
  // (There from carve on.)
  void *one_key() const {
    *one_key_ = 0;
    return one_key_;
  }
  Fault gather_keys(Keys *keys) const { return call_.gather_keys(ranges_, counts_, keys); }
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
      if (o.kv_lengths != nullptr) {
        for (int64_t b = 0; b < call_.batch; ++b) {
          lengths_[b] = std::clamp<int64_t>(o.kv_lengths[b] - o.key_offset, 0, k.shape[1]);
        }
        o.kv_lengths = lengths_;
      }
      s = attend_attention(&q, &k, &v, &out, &o);
    }
    if (s != ATTEND_OK) fault->set(s, text);
  }

  Call &call_;
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
      fault = check_as_computed(*call, function.state(), function.one_key());
    }
  }
  call->team.agree(&fault);
  if (!fault && bytes != nullptr) *bytes = need;
  if (fault || !call->computes()) return fault;
  Keys keys;
  fault = function.gather_keys(&keys);
  if (!fault) function.run(keys);
  return fault;
}

template <class Function>
attend_status run(Purpose purpose, int32_t communicator, const attend_tensor *q, const attend_tensor *k,
                  const attend_tensor *v, const attend_tensor *out, const attend_mpi_options *options,
                  const attend_attention_options *attention_options, uint64_t *bytes) {
  Call call = {};
  call.function = Function::kFunction, call.purpose = purpose;
  Fault fault = call.read(communicator, q, k, v, out, options, attention_options);
  if (!fault) fault = perform<Function>(&call, bytes);
  return fault.tell(call.options.message, call.options.message_size);
}

}  // namespace attend::mpi
