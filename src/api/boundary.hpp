// Where untrusted arguments become the drivers' problems: every check of the ABI is written once, here.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>

#include "attend/attend.h"
#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"

namespace attend {

// What a status can point at. The number is part of the status; new ones go to the end.
#define ATTEND_ARGUMENTS(X)                                               \
  X(none, "")                                                             \
  X(a, "a")                                                               \
  X(b, "b")                                                               \
  X(c, "c")                                                               \
  X(x, "x")                                                               \
  X(y, "y")                                                               \
  X(q, "q")                                                               \
  X(k, "k")                                                               \
  X(v, "v")                                                               \
  X(out, "out")                                                           \
  X(bytes, "bytes")                                                       \
  X(name, "name")                                                         \
  X(threads, "threads")                                                   \
  X(options_size, "options.size")                                         \
  X(options_flags, "options.flags")                                       \
  X(options_threads, "options.threads")                                   \
  X(options_reserved, "options.reserved")                                 \
  X(options_workspace, "options.workspace")                               \
  X(options_workspace_size, "options.workspace_size")                     \
  X(options_scale, "options.scale")                                       \
  X(options_softcap, "options.softcap")                                   \
  X(options_query_offset, "options.query_offset")                         \
  X(options_query_offsets, "options.query_offsets")                       \
  X(options_kv_lengths, "options.kv_lengths")                             \
  X(options_window, "options.window_left")                                \
  X(options_mask, "options.mask")                                         \
  X(options_bias, "options.bias")                                         \
  X(options_alibi_slopes, "options.alibi_slopes")                         \
  X(options_sinks, "options.sinks")                                       \
  X(options_lse, "options.lse")                                           \
  X(options_scores, "options.scores")                                     \
  X(options_scores_stage, "options.scores_stage")                         \
  X(options_reserved2, "options.reserved2")                               \
  X(attention_options_size, "attention_options.size")                     \
  X(attention_options_flags, "attention_options.flags")                   \
  X(attention_options_threads, "attention_options.threads")               \
  X(attention_options_reserved, "attention_options.reserved")             \
  X(attention_options_workspace, "attention_options.workspace")           \
  X(attention_options_workspace_size, "attention_options.workspace_size") \
  X(attention_options_scale, "attention_options.scale")                   \
  X(attention_options_softcap, "attention_options.softcap")               \
  X(attention_options_query_offset, "attention_options.query_offset")     \
  X(attention_options_query_offsets, "attention_options.query_offsets")   \
  X(attention_options_kv_lengths, "attention_options.kv_lengths")         \
  X(attention_options_window, "attention_options.window_left")            \
  X(attention_options_mask, "attention_options.mask")                     \
  X(attention_options_bias, "attention_options.bias")                     \
  X(attention_options_alibi_slopes, "attention_options.alibi_slopes")     \
  X(attention_options_sinks, "attention_options.sinks")                   \
  X(attention_options_lse, "attention_options.lse")                       \
  X(attention_options_scores, "attention_options.scores")                 \
  X(attention_options_scores_stage, "attention_options.scores_stage")     \
  X(attention_options_reserved2, "attention_options.reserved2")           \
  X(weights, "weights")                                                   \
  X(weights_size, "weights.size")                                         \
  X(weights_reserved, "weights.reserved")                                 \
  X(weights_w_q, "weights.w_q")                                           \
  X(weights_w_k, "weights.w_k")                                           \
  X(weights_w_v, "weights.w_v")                                           \
  X(weights_b_q, "weights.b_q")                                           \
  X(weights_b_k, "weights.b_k")                                           \
  X(weights_b_v, "weights.b_v")                                           \
  X(weights_w_o, "weights.w_o")                                           \
  X(weights_b_o, "weights.b_o")                                           \
  X(out_a, "out_a")                                                       \
  X(lse_a, "lse_a")                                                       \
  X(out_b, "out_b")                                                       \
  X(lse_b, "lse_b")

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
static_assert(in_attention_options(Argument::options_reserved2) == Argument::attention_options_reserved2,
              "the two lists of option fields run in parallel");

constexpr attend_status failure(int32_t reason, Argument argument) {
  return reason | static_cast<int32_t>(argument) << 8;
}

// Compute: data must be there. Size: only shapes count.
enum class Purpose { compute, size };
enum class Role { input, output };

// Validates one tensor on its own and fills `result`. The first operand of a call settles *dtype (kAnyDtype before); a
// mask is read with *dtype = ATTEND_BOOL.
constexpr uint32_t kAnyDtype = 0;
attend_status read_tensor(const attend_tensor *tensor, Argument argument, Role role, Purpose purpose, uint32_t *dtype,
                          Tensor *result);
// The same, but null means absent.
attend_status read_optional(const attend_tensor *tensor, Argument argument, Role role, Purpose purpose, uint32_t *dtype,
                            Tensor *result);

// Compares extents with those a tensor must have; where `broadcasts` has a bit (1 << dimension), 1 fits too.
attend_status expect_shape(const Tensor &tensor, Argument argument, const std::array<int64_t, 4> &shape,
                           unsigned broadcasts = 0);
constexpr unsigned kBatch = 8, kHeadsAndBatch = 12, kAll = 15;

constexpr Dtype dtype_of(uint32_t dtype) { return dtype == ATTEND_F64 ? Dtype::f64 : Dtype::f32; }
// Whether a number among the options is one in the type of the arithmetic too: not beyond the largest, and 0 only if it
// was 0.
inline bool is_representable(double value, uint32_t dtype) {
  const bool single = dtype != ATTEND_F64;
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

// The fields that all options structs begin with; the workspace counts for Purpose::compute only.
attend_status check_head(uint32_t flags, uint32_t known_flags, int32_t threads, uint32_t reserved,
                         const void *workspace, uint64_t workspace_size, Purpose purpose, Execution *execution);

template <class Options>
attend_status read_options(const Options *given, size_t first_version, uint32_t known_flags, Purpose purpose,
                           Options *copy, Execution *execution) {
  if (attend_status s = read_struct(given, first_version, Argument::options_size, copy)) return s;
  return check_head(copy->flags, known_flags, copy->threads, copy->reserved, copy->workspace, copy->workspace_size,
                    purpose, execution);
}

attend_status status_of(Acquired result);

// The answer of the ..._workspace functions.
attend_status store_bytes(const Need &need, int threads, uint64_t *bytes);

}  // namespace attend
