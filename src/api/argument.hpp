// What a status can point at, and how the two make one number.
#pragma once

#include <cstdint>

#include "attend/attend.h"

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

// The fields of attend_mpi_attention_backward's `backward_options`, which are those of attend_attention_backward's `options`.
#define ATTEND_BACKWARD_ARGUMENTS(X)                                    \
  X(backward_options_size, "backward_options.size")                     \
  X(backward_options_flags, "backward_options.flags")                   \
  X(backward_options_threads, "backward_options.threads")               \
  X(backward_options_reserved, "backward_options.reserved")             \
  X(backward_options_workspace, "backward_options.workspace")           \
  X(backward_options_workspace_size, "backward_options.workspace_size") \
  X(backward_options_message, "backward_options.message")               \
  X(backward_options_message_size, "backward_options.message_size")     \
  X(backward_options_executor, "backward_options.executor")             \
  X(backward_options_d_lse, "backward_options.d_lse")                   \
  X(backward_options_d_bias, "backward_options.d_bias")                 \
  X(backward_options_d_sinks, "backward_options.d_sinks")               \
  X(backward_options_delta, "backward_options.delta")                   \
  X(backward_options_d_q_state, "backward_options.d_q_state")           \
  X(backward_options_d_k_state, "backward_options.d_k_state")           \
  X(backward_options_d_v_state, "backward_options.d_v_state")           \
  X(backward_options_total_keys, "backward_options.total_keys")

// What a status can point at. The number is part of the status; new ones go to the end.
#define ATTEND_ARGUMENTS(X)                       \
  X(none, "")                                     \
  X(a, "a")                                       \
  X(b, "b")                                       \
  X(c, "c")                                       \
  X(x, "x")                                       \
  X(y, "y")                                       \
  X(q, "q")                                       \
  X(k, "k")                                       \
  X(v, "v")                                       \
  X(out, "out")                                   \
  X(bytes, "bytes")                               \
  X(name, "name")                                 \
  X(threads, "threads")                           \
  ATTEND_OPTION_ARGUMENTS(X, options)             \
  ATTEND_OPTION_ARGUMENTS(X, attention_options)   \
  X(options_a_scale, "options.a_scale")           \
  X(options_b_scale, "options.b_scale")           \
  X(options_a_zero, "options.a_zero")             \
  X(options_b_zero, "options.b_zero")             \
  X(weights, "weights")                           \
  X(weights_size, "weights.size")                 \
  X(weights_reserved, "weights.reserved")         \
  X(weights_w_q, "weights.w_q")                   \
  X(weights_w_k, "weights.w_k")                   \
  X(weights_w_v, "weights.w_v")                   \
  X(weights_b_q, "weights.b_q")                   \
  X(weights_b_k, "weights.b_k")                   \
  X(weights_b_v, "weights.b_v")                   \
  X(weights_w_o, "weights.w_o")                   \
  X(weights_b_o, "weights.b_o")                   \
  X(out_a, "out_a")                               \
  X(lse_a, "lse_a")                               \
  X(out_b, "out_b")                               \
  X(lse_b, "lse_b")                               \
  X(executor, "executor")                         \
  X(alpha, "alpha")                               \
  X(beta, "beta")                                 \
  X(cos, "cos")                                   \
  X(sin, "sin")                                   \
  X(k_cache, "k_cache")                           \
  X(v_cache, "v_cache")                           \
  X(options_starts, "options.starts")             \
  X(options_offsets, "options.offsets")           \
  X(options_positions, "options.positions")       \
  X(options_slots, "options.slots")               \
  X(options_cos, "options.cos")                   \
  X(options_sin, "options.sin")                   \
  X(options_rotary_dims, "options.rotary_dims")   \
  X(d_out, "d_out")                               \
  X(d_q, "d_q")                                   \
  X(d_k, "d_k")                                   \
  X(d_v, "d_v")                                   \
  X(options_d_lse, "options.d_lse")               \
  X(options_d_bias, "options.d_bias")             \
  X(options_d_sinks, "options.d_sinks")           \
  X(d_y, "d_y")                                   \
  X(d_x, "d_x")                                   \
  X(communicator, "communicator")                 \
  X(options_query_ranges, "options.query_ranges") \
  X(options_key_ranges, "options.key_ranges")     \
  X(options_timeout, "options.timeout")           \
  X(options_root, "options.root")                 \
  X(options_delta, "options.delta")               \
  X(options_d_q_state, "options.d_q_state")       \
  X(options_d_k_state, "options.d_k_state")       \
  X(options_d_v_state, "options.d_v_state")       \
  X(options_total_keys, "options.total_keys")     \
  ATTEND_BACKWARD_ARGUMENTS(X)

enum class Argument : int32_t {
#define ATTEND_ENUMERATOR(id, text) id,
  ATTEND_ARGUMENTS(ATTEND_ENUMERATOR)
#undef ATTEND_ENUMERATOR
};

constexpr bool is_option(Argument argument) {
  return argument >= Argument::options_size && argument <= Argument::options_state;
}
// The same field of the attention options of attend_self_attention.
constexpr Argument in_attention_options(Argument field) {
  return static_cast<Argument>(static_cast<int32_t>(field) - static_cast<int32_t>(Argument::options_size) +
                               static_cast<int32_t>(Argument::attention_options_size));
}

constexpr attend_status failure(int32_t reason, Argument argument) {
  return reason | static_cast<int32_t>(argument) << 8;
}

}  // namespace attend
