// Where untrusted arguments become the drivers' problems: every check of the ABI is written once, here.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "api/signatures.hpp"
#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"

namespace attend {

// The fields of `options`, or of the `attention_options` of attend_self_attention.
#define ATTEND_OPTION_ARGUMENTS(X, options)               \
  X(options##_size, #options ".size")                     \
  X(options##_flags, #options ".flags")                   \
  X(options##_threads, #options ".threads")               \
  X(options##_reserved, #options ".reserved")             \
  X(options##_workspace, #options ".workspace")           \
  X(options##_workspace_size, #options ".workspace_size") \
  X(options##_message, #options ".message")               \
  X(options##_message_size, #options ".message_size")     \
  X(options##_executor, #options ".executor")             \
  X(options##_scale, #options ".scale")                   \
  X(options##_softcap, #options ".softcap")               \
  X(options##_query_offset, #options ".query_offset")     \
  X(options##_query_offsets, #options ".query_offsets")   \
  X(options##_kv_lengths, #options ".kv_lengths")         \
  X(options##_window, #options ".window_left")            \
  X(options##_mask, #options ".mask")                     \
  X(options##_bias, #options ".bias")                     \
  X(options##_alibi_slopes, #options ".alibi_slopes")     \
  X(options##_sinks, #options ".sinks")                   \
  X(options##_lse, #options ".lse")                       \
  X(options##_scores, #options ".scores")                 \
  X(options##_scores_stage, #options ".scores_stage")     \
  X(options##_reserved2, #options ".reserved2")           \
  X(options##_k_scale, #options ".k_scale")               \
  X(options##_v_scale, #options ".v_scale")               \
  X(options##_kv_first, #options ".kv_first")             \
  X(options##_sequences, #options ".sequences")           \
  X(options##_query_starts, #options ".query_starts")     \
  X(options##_key_starts, #options ".key_starts")         \
  X(options##_pages, #options ".pages")                   \
  X(options##_key_offset, #options ".key_offset")         \
  X(options##_state, #options ".state")

// What a status can point at. The number is part of the status; new ones go to the end.
#define ATTEND_ARGUMENTS(X)                     \
  X(none, "")                                   \
  X(a, "a")                                     \
  X(b, "b")                                     \
  X(c, "c")                                     \
  X(x, "x")                                     \
  X(y, "y")                                     \
  X(q, "q")                                     \
  X(k, "k")                                     \
  X(v, "v")                                     \
  X(out, "out")                                 \
  X(bytes, "bytes")                             \
  X(name, "name")                               \
  X(threads, "threads")                         \
  ATTEND_OPTION_ARGUMENTS(X, options)           \
  ATTEND_OPTION_ARGUMENTS(X, attention_options) \
  X(options_a_scale, "options.a_scale")         \
  X(options_b_scale, "options.b_scale")         \
  X(options_a_zero, "options.a_zero")           \
  X(options_b_zero, "options.b_zero")           \
  X(weights, "weights")                         \
  X(weights_size, "weights.size")               \
  X(weights_reserved, "weights.reserved")       \
  X(weights_w_q, "weights.w_q")                 \
  X(weights_w_k, "weights.w_k")                 \
  X(weights_w_v, "weights.w_v")                 \
  X(weights_b_q, "weights.b_q")                 \
  X(weights_b_k, "weights.b_k")                 \
  X(weights_b_v, "weights.b_v")                 \
  X(weights_w_o, "weights.w_o")                 \
  X(weights_b_o, "weights.b_o")                 \
  X(out_a, "out_a")                             \
  X(lse_a, "lse_a")                             \
  X(out_b, "out_b")                             \
  X(lse_b, "lse_b")                             \
  X(executor, "executor")

enum class Argument : int32_t {
#define ATTEND_ENUMERATOR(id, text) id,
  ATTEND_ARGUMENTS(ATTEND_ENUMERATOR)
#undef ATTEND_ENUMERATOR
};

// The same field of the attention options of attend_self_attention.
constexpr Argument in_attention_options(Argument field) {
  return static_cast<Argument>(static_cast<int32_t>(field) - static_cast<int32_t>(Argument::options_size) +
                               static_cast<int32_t>(Argument::attention_options_size));
}

constexpr attend_status failure(int32_t reason, Argument argument) {
  return reason | static_cast<int32_t>(argument) << 8;
}

// Compute: data must be there. Size: only shapes count.
enum class Purpose { compute, size };
enum class Role { input, output };

// The operands of one call: each is validated on its own, and its type with those of the operands before it.
class Operands {
 public:
  Operands(const Signatures &function, Purpose purpose) : types_(function), purpose_(purpose) {}

  // Fills `result`.
  attend_status read(const attend_tensor *tensor, Argument argument, Role role, Kind kind, Tensor *result);
  // The same, but null means absent.
  attend_status read_optional(const attend_tensor *tensor, Argument argument, Role role, Kind kind, Tensor *result) {
    return tensor == nullptr ? ATTEND_OK : read(tensor, argument, role, kind, result);
  }

 private:
  const Signatures &types_;
  Rows rows_ = ~Rows{0};  // that fit all operands so far
  Purpose purpose_;
};

// Compares extents with those a tensor must have; where `broadcasts` has a bit (1 << dimension), 1 fits too.
attend_status expect_shape(const Tensor &tensor, Argument argument, const std::array<int64_t, 4> &shape,
                           unsigned broadcasts = 0);
constexpr unsigned kBatch = 8, kHeadsAndBatch = 12, kAll = 15;

// Whether a number among the options is one in the type of the arithmetic on elements of this type too: not beyond the
// largest, and 0 only if it was 0.
inline bool is_representable(double value, Dtype dtype) {
  const bool single = acc_of(dtype) == Dtype::f32;
  const double most = single ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return std::fabs(value) <= most && (!single || value == 0 || static_cast<float>(value) != 0);
}
inline bool is_empty(const Tensor &tensor) { return tensor.count == 0; }
bool same_view(const Tensor &a, const Tensor &b);

// ATTEND_OVERLAP if the two provably share a byte: their first, lowest or highest elements coincide, or share_a_byte
// (overlap.hpp) says so.
attend_status expect_apart_slow(const Tensor &output, Argument argument, const Tensor &other);
inline attend_status expect_apart(const Tensor &output, Argument argument, const Tensor &other) {
  // Absent, empty, or their ranges are apart: the usual case, and the quick one.
  if (output.count == 0 || other.count == 0 || output.end <= other.begin || other.end <= output.begin) return ATTEND_OK;
  return expect_apart_slow(output, argument, other);
}

// An array of integers among the options as an operand, for expect_apart; null: absent.
Tensor integers(const int64_t *first, int64_t count);

attend_status check_size(const void *given, uint32_t size, size_t known, size_t first_version, Argument argument);

// Copies a struct of any version into the one this library knows; null gives all zero.
template <class Struct>
attend_status read_struct(const Struct *given, size_t first_version, Argument size_argument, Struct *copy) {
  *copy = Struct();
  if (given == nullptr) return ATTEND_OK;
  if (given->size == sizeof(Struct)) {
    *copy = *given;
    return ATTEND_OK;
  }
  if (attend_status s = check_size(given, given->size, sizeof(Struct), first_version, size_argument)) return s;
  std::memcpy(copy, given, given->size < sizeof(Struct) ? given->size : sizeof(Struct));
  return ATTEND_OK;
}

// A field that belongs to a later version, and whether it is set.
struct LaterField {
  bool set;
  Argument argument;
};
template <size_t kCount>
attend_status expect_unset(const LaterField (&fields)[kCount]) {
  for (const LaterField &field : fields) {
    if (field.set) return failure(ATTEND_UNSUPPORTED, field.argument);
  }
  return ATTEND_OK;
}

// What an executor says, checked.
attend_status read_executor(const attend_executor &given, Argument argument, Executor *executor);

// attend_set_executor's; null = none.
Executor library_executor();
void set_library_executor(const attend_executor *executor);

// The fields that all options structs begin with; the workspace counts for Purpose::compute only.
template <class Options>
attend_status check_head(const Options &o, uint32_t known_flags, Purpose purpose, Execution *execution) {
  if ((o.flags & ~(known_flags | ATTEND_NATIVE_DOT)) != 0) return failure(ATTEND_UNSUPPORTED, Argument::options_flags);
  if (o.threads < 0) return failure(ATTEND_INVALID_VALUE, Argument::options_threads);
  if (o.reserved != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_reserved);
  if (purpose == Purpose::compute && o.workspace == nullptr && o.workspace_size != 0) {
    return failure(ATTEND_NULL_POINTER, Argument::options_workspace);
  }
  *execution = {o.threads, o.workspace, o.workspace_size, execution->executor};
  if (o.executor != nullptr) {
    if (attend_status s = read_executor(*o.executor, Argument::options_executor, &execution->executor)) return s;
  }
  return expect_unset(
      {{o.message != nullptr, Argument::options_message}, {o.message_size != 0, Argument::options_message_size}});
}

template <class Options>
attend_status read_options(const Options *given, size_t first_version, uint32_t known_flags, Purpose purpose,
                           Options *copy, Execution *execution) {
  if (attend_status s = read_struct(given, first_version, Argument::options_size, copy)) return s;
  execution->executor = library_executor();
  return given == nullptr ? ATTEND_OK : check_head(*copy, known_flags, purpose, execution);
}

attend_status status_of(Acquired result);

// The answer of the ..._workspace functions.
attend_status store_bytes(const Need &need, int threads, uint64_t *bytes);

}  // namespace attend
