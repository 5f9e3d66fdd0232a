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
  if (function == Function::attention && o.root != 0) {
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
  const struct {
    bool is_given;
    Argument argument;
  } heads[] = {{a.threads != 0, Argument::options_threads},
               {a.workspace != nullptr, Argument::options_workspace},
               {a.workspace_size != 0, Argument::options_workspace_size},
               {a.message != nullptr, Argument::options_message},
               {a.message_size != 0, Argument::options_message_size},
               {a.executor != nullptr, Argument::options_executor}};
  for (const auto &h : heads) {
    if (!h.is_given) continue;
    fault->set(ATTEND_INVALID_VALUE, in_attention_options(h.argument), "must be 0 here: `options` has it");
    return false;
  }
  const bool decodes = function == Function::decode;
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
  attention.threads = options.threads;
  attention.executor = options.executor;
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

Fault Call::read(int32_t communicator, const attend_tensor *q_given, const attend_tensor *k_given,
                 const attend_tensor *v_given, const attend_tensor *out_given, const attend_mpi_options *options_given,
                 const attend_attention_options *attention_given) {
  options = attend_mpi_options();
  const bool has_timeout = options_given != nullptr && options_given->size >= kFirstVersion;
  Fault fault = team.join(communicator, has_timeout ? options_given->timeout : 0);
  if (fault) {
    if (has_timeout) options.message = options_given->message, options.message_size = options_given->message_size;
    return fault;
  }
  if (read_options(options_given, &fault)) read_attention(attention_given, &fault);
  const attend_tensor *const given[] = {q_given, k_given, v_given, out_given};
  attend_tensor *const copies[] = {&q, &k, &v, &out};
  if (!fault) {
    // Types, shapes and options as attention itself checks them, without what concerns the keys of all ranks, and without
    // results that this rank does not get.
    attend_attention_options o = attention;
    o.mask = o.bias = nullptr;
    char text[sizeof fault.text] = "";
    o.message = text, o.message_size = sizeof text;
    uint64_t bytes = 0;
    if (const attend_status s = attend_attention_workspace(q_given, k_given, v_given, out_given, &o, &bytes)) {
      fault.set(s, text);
    }
  }
  if (!fault) {
    for (int i = 0; i < 4; ++i) *copies[i] = four_extents(*given[i]);
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
  int64_t sums[] = {k.shape[1], ordered_keys ? 1 : options.key_range_count};
  int64_t before[] = {k.shape[1], q.shape[1]};
  team.sum(sums, 2);
  team.sum_before(before, 2);
  keys = sums[0], key_ranges = sums[1];
  first_key = before[0], first_query = before[1];
  if (keys < 0 || keys > INT64_MAX / 8) fault.set(ATTEND_OVERFLOW, Argument::k, "all ranks' keys are too many");
  if (key_ranges > INT32_MAX / 32) {
    fault.set(ATTEND_INVALID_VALUE, Argument::options_key_ranges, "all ranks' ranges are too many");
  }
  return fault;
}

}  // namespace attend::mpi
