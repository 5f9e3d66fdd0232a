#include "mpi/call.hpp"

#include <cinttypes>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdlib>

namespace attend::mpi {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_mpi_options, reserved2) + sizeof(uint32_t);
constexpr size_t kFirstVersionOfAttention = offsetof(attend_attention_options, state) + sizeof(void *);
constexpr size_t kFirstVersionOfBackward = offsetof(attend_attention_backward_options, total_keys) + sizeof(void *);

// A struct of any version; null: all zero.
template <class Struct>
bool read_struct(const Struct *given, size_t first_version, Argument size_argument, Struct *copy, Fault *fault) {
  *copy = Struct();
  copy->size = sizeof(Struct);
  if (given == nullptr) return true;
  const size_t size = given->size;
  if (size < first_version) {
    fault->set(ATTEND_INVALID_STRUCT_SIZE, size_argument, "is %zu, but must be %zu or more", size, first_version);
    return false;
  }
  for (size_t i = sizeof(Struct); i < size; ++i) {
    if (reinterpret_cast<const char *>(given)[i] != 0) {
      fault->set(ATTEND_INVALID_STRUCT_SIZE, size_argument, "is %zu, and what this library does not know is not 0",
                 size);
      return false;
    }
  }
  std::memcpy(copy, given, size < sizeof(Struct) ? size : sizeof(Struct));
  copy->size = sizeof(Struct);
  return true;
}

// The head of options that are not the first: false if some of it is given, which those have.
template <class Struct, class Name>
bool is_headless(const Struct &o, const Name &name, Fault *fault) {
  const struct {
    bool is_given;
    Argument argument;
  } heads[] = {{o.threads != 0, Argument::options_threads},
               {o.workspace != nullptr, Argument::options_workspace},
               {o.workspace_size != 0, Argument::options_workspace_size},
               {o.message != nullptr, Argument::options_message},
               {o.message_size != 0, Argument::options_message_size},
               {o.executor != nullptr, Argument::options_executor},
               {o.reserved != 0, Argument::options_reserved}};
  for (const auto &h : heads) {
    if (h.is_given) return !fault->set(ATTEND_INVALID_VALUE, name(h.argument), "must be 0 here: `options` has it");
  }
  return true;
}

Scales scales_of(const attend_tensor *scale) {
  if (scale == nullptr) return Scales::none;
  return four_extents(*scale).shape[0] == 1 ? Scales::of_keys : Scales::of_features;
}

}  // namespace

attend_tensor four_extents(const attend_tensor &t) {
  attend_tensor four = t;
  four.rank = 4;
  for (uint32_t d = t.rank; d < 4; ++d) four.shape[d] = 1;
  for (uint32_t d = 0; d < 4; ++d) {
    if (four.shape[d] == 1) four.stride[d] = 0;
  }
  return four;
}

namespace {
attend_tensor along(attend_tensor t, uint32_t dimension, int64_t begin, int64_t count) {
  t = four_extents(t);
  if (t.data != nullptr) t.data = static_cast<char *>(t.data) + begin * t.stride[dimension] * bytes_of_element(t);
  t.shape[dimension] = count;
  return t;
}
}  // namespace
attend_tensor rows_of(attend_tensor t, int64_t begin, int64_t count) { return along(t, 0, begin, count); }
attend_tensor columns_of(attend_tensor t, int64_t begin, int64_t count) { return along(t, 1, begin, count); }

attend_tensor heads_of(attend_tensor t, int64_t first, int64_t step) {
  t = along(t, 2, first, t.shape[2] / step);
  t.stride[2] *= step;
  return t;
}

bool Call::read_options(const attend_mpi_options *given, Fault *fault) {
  if (!read_struct(given, kFirstVersion, Argument::options_size, &options, fault)) {
    options = attend_mpi_options();  // (Its message is not to be written to.)
    return false;
  }
  const auto wrong = [fault](int32_t reason, Argument argument, const char *what) {
    fault->set(reason, argument, "%s", what);
    return false;
  };
  const attend_mpi_options &o = options;
  const uint32_t known = function == Function::decode ? ATTEND_MPI_ALL_RANKS : ATTEND_MPI_COMPUTE_THREAD;
  if ((o.flags & ~(known | ATTEND_NATIVE_DOT)) != 0) {
    fault->set(ATTEND_UNSUPPORTED, Argument::options_flags, "has 0x%x, which means nothing here",
               o.flags & ~(known | ATTEND_NATIVE_DOT));
    return false;
  }
  if (o.message == nullptr && o.message_size != 0) {
    return wrong(ATTEND_NULL_POINTER, Argument::options_message, "is null, but has a size");
  }
  if (computes() && o.workspace == nullptr && o.workspace_size != 0) {
    return wrong(ATTEND_NULL_POINTER, Argument::options_workspace, "is null, but has a size");
  }
  if (o.reserved != 0) return wrong(ATTEND_INVALID_VALUE, Argument::options_reserved, "must be 0");
  if (o.reserved2 != 0) return wrong(ATTEND_INVALID_VALUE, Argument::options_reserved2, "must be 0");
  if (!(o.timeout >= 0 && o.timeout < HUGE_VAL)) {
    return wrong(ATTEND_INVALID_VALUE, Argument::options_timeout, "must be a number of seconds, 0 or more");
  }
  if (o.root < 0 || o.root >= team.ranks()) {
    fault->set(ATTEND_INVALID_VALUE, Argument::options_root, "is %d, but must be one of %d ranks", o.root,
               team.ranks());
    return false;
  }
  if (function != Function::decode && o.root != 0) {
    return wrong(ATTEND_INVALID_VALUE, Argument::options_root, "must be 0 here: every rank has its own queries");
  }
  if (function == Function::decode && (o.query_ranges != nullptr || o.query_range_count != 0)) {
    return wrong(ATTEND_INVALID_VALUE, Argument::options_query_ranges, "must be null here: the queries are the root's");
  }
  return true;
}

bool Call::read_attention(const attend_attention_options *given, Fault *fault) {
  if (!read_struct(given, kFirstVersionOfAttention, Argument::attention_options_size, &attention, fault)) return false;
  const attend_attention_options &a = attention;
  if (!is_headless(a, in_attention_options, fault)) return false;
  const bool decodes = function == Function::decode, backward_too = function == Function::backward;
  const struct {
    bool is_given;
    Argument argument;
    const char *why;
  } unsupported[] = {
      {a.scores != nullptr || a.scores_stage != 0, Argument::options_scores, "is not for keys of several ranks"},
      {a.sequences != 0, Argument::options_sequences, "must be 0: packed sequences are not spread over ranks"},
      {a.query_starts != nullptr, Argument::options_query_starts, "packed sequences are not spread over ranks"},
      {a.key_starts != nullptr, Argument::options_key_starts, "packed sequences are not spread over ranks"},
      {a.pages != nullptr, Argument::options_pages, "paged caches are not spread over ranks"},
      {a.kv_first != nullptr, Argument::options_kv_first, "is not for keys of several ranks"},
      {a.key_offset != 0, Argument::options_key_offset, "must be 0: options.key_ranges says where keys are"},
      {a.state != nullptr, Argument::options_state, "must be null: all keys are in one call"},
      {(a.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) != 0, Argument::options_flags,
       "has ATTEND_PARTIAL or ATTEND_CONTINUE, but all keys are in one call"},
      {decodes && a.mask != nullptr, Argument::options_mask, "is not for keys that stay on their ranks"},
      {decodes && a.bias != nullptr, Argument::options_bias, "is not for keys that stay on their ranks"},
      {backward_too && a.mask != nullptr, Argument::options_mask, "does not travel with the queries"},
      {backward_too && a.bias != nullptr, Argument::options_bias, "does not travel with the queries"},
  };
  for (const auto &u : unsupported) {
    if (!u.is_given) continue;
    fault->set(ATTEND_UNSUPPORTED, in_attention_options(u.argument), "%s", u.why);
    return false;
  }
  if ((a.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0) {
    fault->set(ATTEND_INVALID_VALUE, Argument::attention_options_flags,
               "has ATTEND_CAUSAL_BOTTOM_RIGHT; give positions, and ATTEND_CAUSAL_TOP_LEFT");
    return false;
  }
  if (backward_too) {
    if (a.lse != nullptr) return true;
    return !fault->set(ATTEND_NULL_POINTER, Argument::attention_options_lse,
                       "is null, but required: what attend_mpi_attention wrote");
  }
  attention.threads = options.threads;
  attention.executor = options.executor;
  return true;
}

bool Call::read_backward(const attend_attention_backward_options *given, Fault *fault) {
  if (!read_struct(given, kFirstVersionOfBackward, Argument::backward_options_size, &backward, fault)) return false;
  const attend_attention_backward_options &b = backward;
  const auto name = [](Argument of_head) {
    return Fault::moved(of_head, Argument::options_size, Argument::backward_options_size);
  };
  if (!is_headless(b, name, fault)) return false;
  const struct {
    bool is_given;
    Argument argument;
    const char *why;
  } unsupported[] = {
      {b.d_bias != nullptr, Argument::backward_options_d_bias, "must be null: no bias is spread over ranks"},
      {b.d_sinks != nullptr, Argument::backward_options_d_sinks, "is not for queries of several ranks"},
      {b.delta != nullptr, Argument::backward_options_delta, "must be null: it is found by each query's rank"},
      {b.d_q_state != nullptr, Argument::backward_options_d_q_state, "must be null: all keys are in one call"},
      {b.d_k_state != nullptr, Argument::backward_options_d_k_state, "must be null: all queries are in one call"},
      {b.d_v_state != nullptr, Argument::backward_options_d_v_state, "must be null: all queries are in one call"},
      {b.total_keys != nullptr, Argument::backward_options_total_keys, "must be null: all keys are in one call"},
      {(b.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) != 0, Argument::backward_options_flags,
       "has ATTEND_PARTIAL or ATTEND_CONTINUE, but all keys and queries are in one call"},
  };
  for (const auto &u : unsupported) {
    if (u.is_given) return !fault->set(ATTEND_UNSUPPORTED, u.argument, "%s", u.why);
  }
  backward.threads = options.threads;
  backward.executor = options.executor;
  return true;
}

bool Call::read_ranges(Fault *fault) {
  const struct {
    const int64_t *ranges;
    int64_t count, columns;
    Argument argument;
    const char *of;
  } both[] = {{options.query_ranges, options.query_range_count, q.shape[1], Argument::options_query_ranges, "q"},
              {options.key_ranges, options.key_range_count, k.shape[1], Argument::options_key_ranges, "k"}};
  for (const auto &r : both) {
    if (r.count < 0 || (r.ranges == nullptr) != (r.count == 0) || r.count > INT32_MAX / 32) {
      return !fault->set(ATTEND_INVALID_VALUE, r.argument, "has a count of %" PRId64 ", and is %s", r.count,
                         r.ranges == nullptr ? "null" : "not null");
    }
    if (r.ranges == nullptr) continue;
    int64_t sum = 0;
    for (int64_t i = 0; i < r.count; ++i) {
      const int64_t first = r.ranges[2 * i], number = r.ranges[2 * i + 1];
      if (first < 0 || number < 0 || first > INT64_MAX / 4 || number > r.columns - sum) {
        return !fault->set(ATTEND_INVALID_VALUE, r.argument,
                           "range %" PRId64 " is %" PRId64 " columns from %" PRId64
                           " on, but must be 0 or more of %s's %" PRId64 " from 0 or more on",
                           i, number, first, r.of, r.columns - sum);
      }
      sum += number;
      if (function == Function::decode && number > 0 && first % kKeySpan != 0) {
        return !fault->set(ATTEND_INVALID_SHAPE, r.argument,
                           "range %" PRId64 " begins at %" PRId64 ", but must at a multiple of %" PRId64, i, first,
                           kKeySpan);
      }
    }
    if (sum != r.columns) {
      return !fault->set(ATTEND_INVALID_SHAPE, r.argument, "are of %" PRId64 " columns, but %s has %" PRId64, sum, r.of,
                         r.columns);
    }
  }
  return true;
}

// Without what concerns the keys of all ranks, and without results that this rank does not get.
void Call::check(const Given &given, Fault *fault) const {
  attend_attention_options o = attention;
  o.mask = o.bias = nullptr;
  char text[sizeof fault->text] = "";
  uint64_t bytes = 0;
  attend_status s = ATTEND_OK;
  if (function == Function::backward) {
    attend_attention_backward_options b = backward;
    b.message = text, b.message_size = sizeof text;
    s = attend_attention_backward_workspace(given.q, given.k, given.v, given.out, given.d_out, given.d_q, given.d_k,
                                            given.d_v, &b, &o, &bytes);
  } else {
    o.message = text, o.message_size = sizeof text;
    s = attend_attention_workspace(given.q, given.k, given.v, given.out, &o, &bytes);
  }
  if (s != ATTEND_OK) fault->set(s, text, function == Function::backward);
}

Fault Call::read(const Given &given) {
  options = attend_mpi_options();
  const bool has_timeout = given.options != nullptr && given.options->size >= kFirstVersion;
  Fault fault = team.join(given.communicator, has_timeout ? given.options->timeout : 0);
  if (fault) {
    if (has_timeout) options.message = given.options->message, options.message_size = given.options->message_size;
    return fault;
  }
  if (read_options(given.options, &fault) && read_attention(given.attention, &fault) &&
      function == Function::backward) {
    read_backward(given.backward, &fault);
  }
  if (!fault) check(given, &fault);
  if (!fault) {
    const struct {
      const attend_tensor *given;
      attend_tensor *copy;
    } all[] = {{given.q, &q},         {given.k, &k},     {given.v, &v},     {given.out, &out},
               {given.d_out, &d_out}, {given.d_q, &d_q}, {given.d_k, &d_k}, {given.d_v, &d_v}};
    for (const auto &t : all) {
      if (t.given != nullptr) *t.copy = four_extents(*t.given);
    }
    batch = out.shape[3];
    k_scales = scales_of(attention.k_scale), v_scales = scales_of(attention.v_scale);
    read_ranges(&fault);
  }
  // (What is hashed must be there.)
  if (!fault && computes()) {
    const struct {
      const attend_tensor *tensor;
      Argument argument;
    } vectors[] = {
        {attention.alibi_slopes, Argument::attention_options_alibi_slopes},
        {attention.sinks, Argument::attention_options_sinks},
        {k_scales == Scales::of_features ? attention.k_scale : nullptr, Argument::attention_options_k_scale},
        {v_scales == Scales::of_features ? attention.v_scale : nullptr, Argument::attention_options_v_scale}};
    for (const auto &n : vectors) {
      if (n.tensor != nullptr && n.tensor->data == nullptr) {
        fault.set(ATTEND_NULL_POINTER, n.argument, "has null data");
        break;
      }
    }
  }
  if (!compare(&fault)) return fault;
  queries.own = q.shape[1], queries.ranges = options.query_ranges, queries.range_count = options.query_range_count;
  keys.own = k.shape[1], keys.ranges = options.key_ranges, keys.range_count = options.key_range_count;
  int64_t sums[4], before[2];
  int i = 0;
  for (const Columns *c : {&keys, &queries}) {
    before[i] = c->own;
    sums[2 * i] = c->own, sums[2 * i + 1] = c->ordered ? 1 : c->range_count;
    ++i;
  }
  team.sum(sums, 4);
  team.sum_before(before, 2);
  const struct {
    Columns *columns;
    Argument argument, ranges;
    const char *name;
  } both[] = {{&keys, Argument::k, Argument::options_key_ranges, "keys"},
              {&queries, Argument::q, Argument::options_query_ranges, "queries"}};
  i = 0;
  for (const auto &of : both) {
    of.columns->first = before[i], of.columns->total = sums[2 * i], of.columns->entries = sums[2 * i + 1];
    ++i;
    if (fault || (function == Function::decode && of.columns == &queries)) continue;
    if (of.columns->total < 0 || of.columns->total > INT64_MAX / 8) {
      fault.set(ATTEND_OVERFLOW, of.argument, "all ranks' %s are too many", of.name);
    } else if (of.columns->entries > INT32_MAX / 32) {
      fault.set(ATTEND_INVALID_VALUE, of.ranges, "all ranks' ranges are too many");
    }
  }
  return fault;
}

}  // namespace attend::mpi
