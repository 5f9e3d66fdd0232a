// The layout of the public structures on 64-bit systems, and the numbers, as programs that are compiled already have
// them. Structures may only grow at their end, and `size` then says which one the caller knows.
#include <cstddef>

#include "attend/attend_mpi.h"
#include "support.hpp"

namespace {

struct Field {
  const char *name;
  size_t offset, expected;
};

void check(const char *name, size_t size, size_t expected, const std::vector<Field> &fields) {
  INFO(std::string(name));
  CHECK(size == expected);
  for (const Field &field : fields) {
    INFO(std::string(field.name));
    CHECK(field.offset == field.expected);
  }
}

}  // namespace

#define FIELD(type, name, expected) \
  { #name, offsetof(type, name), expected }
#define HEAD(type)                                                                                 \
  FIELD(type, size, 0), FIELD(type, flags, 4), FIELD(type, threads, 8), FIELD(type, reserved, 12), \
      FIELD(type, workspace, 16), FIELD(type, workspace_size, 24), FIELD(type, message, 32),       \
      FIELD(type, message_size, 40), FIELD(type, executor, 48)

TEST_CASE("structures have the layout that programs were compiled with") {
  if (sizeof(void *) != 8) return;
  check("attend_tensor", sizeof(attend_tensor), 80,
        {FIELD(attend_tensor, data, 0), FIELD(attend_tensor, dtype, 8), FIELD(attend_tensor, rank, 12),
         FIELD(attend_tensor, shape, 16), FIELD(attend_tensor, stride, 48)});
  check("attend_executor", sizeof(attend_executor), 24,
        {FIELD(attend_executor, size, 0), FIELD(attend_executor, workers, 4), FIELD(attend_executor, run, 8),
         FIELD(attend_executor, context, 16)});
  check("attend_matmul_options", sizeof(attend_matmul_options), 96,
        {HEAD(attend_matmul_options), FIELD(attend_matmul_options, bias, 56), FIELD(attend_matmul_options, a_scale, 64),
         FIELD(attend_matmul_options, b_scale, 72), FIELD(attend_matmul_options, a_zero, 80),
         FIELD(attend_matmul_options, b_zero, 88)});
  check(
      "attend_softmax_options", sizeof(attend_softmax_options), 88,
      {HEAD(attend_softmax_options), FIELD(attend_softmax_options, scale, 56), FIELD(attend_softmax_options, mask, 64),
       FIELD(attend_softmax_options, bias, 72), FIELD(attend_softmax_options, lse, 80)});
  check("attend_softmax_backward_options", sizeof(attend_softmax_backward_options), 72,
        {HEAD(attend_softmax_backward_options), FIELD(attend_softmax_backward_options, scale, 56),
         FIELD(attend_softmax_backward_options, d_lse, 64)});
  check("attend_mpi_options", sizeof(attend_mpi_options), 104,
        {HEAD(attend_mpi_options), FIELD(attend_mpi_options, query_ranges, 56),
         FIELD(attend_mpi_options, query_range_count, 64), FIELD(attend_mpi_options, key_ranges, 72),
         FIELD(attend_mpi_options, key_range_count, 80), FIELD(attend_mpi_options, timeout, 88),
         FIELD(attend_mpi_options, root, 96), FIELD(attend_mpi_options, reserved2, 100)});
  check("attend_attention_options", sizeof(attend_attention_options), 240,
        {HEAD(attend_attention_options),
         FIELD(attend_attention_options, scale, 56),
         FIELD(attend_attention_options, softcap, 64),
         FIELD(attend_attention_options, query_offset, 72),
         FIELD(attend_attention_options, query_offsets, 80),
         FIELD(attend_attention_options, kv_lengths, 88),
         FIELD(attend_attention_options, window_left, 96),
         FIELD(attend_attention_options, window_right, 104),
         FIELD(attend_attention_options, mask, 112),
         FIELD(attend_attention_options, bias, 120),
         FIELD(attend_attention_options, alibi_slopes, 128),
         FIELD(attend_attention_options, sinks, 136),
         FIELD(attend_attention_options, lse, 144),
         FIELD(attend_attention_options, scores, 152),
         FIELD(attend_attention_options, scores_stage, 160),
         FIELD(attend_attention_options, reserved2, 164),
         FIELD(attend_attention_options, k_scale, 168),
         FIELD(attend_attention_options, v_scale, 176),
         FIELD(attend_attention_options, kv_first, 184),
         FIELD(attend_attention_options, sequences, 192),
         FIELD(attend_attention_options, query_starts, 200),
         FIELD(attend_attention_options, key_starts, 208),
         FIELD(attend_attention_options, pages, 216),
         FIELD(attend_attention_options, key_offset, 224),
         FIELD(attend_attention_options, state, 232)});
  check("attend_attention_backward_options", sizeof(attend_attention_backward_options), 120,
        {HEAD(attend_attention_backward_options), FIELD(attend_attention_backward_options, d_lse, 56),
         FIELD(attend_attention_backward_options, d_bias, 64), FIELD(attend_attention_backward_options, d_sinks, 72),
         FIELD(attend_attention_backward_options, delta, 80), FIELD(attend_attention_backward_options, d_q_state, 88),
         FIELD(attend_attention_backward_options, d_k_state, 96),
         FIELD(attend_attention_backward_options, d_v_state, 104),
         FIELD(attend_attention_backward_options, total_keys, 112)});
  check("attend_convert_options", sizeof(attend_convert_options), 64,
        {HEAD(attend_convert_options), FIELD(attend_convert_options, scale, 56)});
  check("attend_rotary_options", sizeof(attend_rotary_options), 96,
        {HEAD(attend_rotary_options), FIELD(attend_rotary_options, rotary_dims, 56),
         FIELD(attend_rotary_options, positions, 64), FIELD(attend_rotary_options, offsets, 72),
         FIELD(attend_rotary_options, sequences, 80), FIELD(attend_rotary_options, starts, 88)});
  check("attend_kv_append_options", sizeof(attend_kv_append_options), 144,
        {HEAD(attend_kv_append_options), FIELD(attend_kv_append_options, sequences, 56),
         FIELD(attend_kv_append_options, starts, 64), FIELD(attend_kv_append_options, offsets, 72),
         FIELD(attend_kv_append_options, slots, 80), FIELD(attend_kv_append_options, pages, 88),
         FIELD(attend_kv_append_options, k_scale, 96), FIELD(attend_kv_append_options, v_scale, 104),
         FIELD(attend_kv_append_options, cos, 112), FIELD(attend_kv_append_options, sin, 120),
         FIELD(attend_kv_append_options, rotary_dims, 128), FIELD(attend_kv_append_options, positions, 136)});
  check("attend_merge_options", sizeof(attend_merge_options), 56, {HEAD(attend_merge_options)});
  check("attend_self_attention_weights", sizeof(attend_self_attention_weights), 72,
        {FIELD(attend_self_attention_weights, size, 0), FIELD(attend_self_attention_weights, reserved, 4),
         FIELD(attend_self_attention_weights, w_q, 8), FIELD(attend_self_attention_weights, w_k, 16),
         FIELD(attend_self_attention_weights, w_v, 24), FIELD(attend_self_attention_weights, b_q, 32),
         FIELD(attend_self_attention_weights, b_k, 40), FIELD(attend_self_attention_weights, b_v, 48),
         FIELD(attend_self_attention_weights, w_o, 56), FIELD(attend_self_attention_weights, b_o, 64)});
  check("attend_self_attention_options", sizeof(attend_self_attention_options), 56,
        {HEAD(attend_self_attention_options)});
}

#undef HEAD
#undef FIELD

TEST_CASE("numbers are what programs were compiled with") {
  const struct {
    const char *name;
    int64_t number, expected;
  } numbers[] = {
      {"OK", ATTEND_OK, 0},
      {"NULL_POINTER", ATTEND_NULL_POINTER, 1},
      {"INVALID_STRUCT_SIZE", ATTEND_INVALID_STRUCT_SIZE, 2},
      {"INVALID_RANK", ATTEND_INVALID_RANK, 3},
      {"INVALID_DTYPE", ATTEND_INVALID_DTYPE, 4},
      {"INVALID_SHAPE", ATTEND_INVALID_SHAPE, 5},
      {"INVALID_STRIDE", ATTEND_INVALID_STRIDE, 6},
      {"INVALID_VALUE", ATTEND_INVALID_VALUE, 7},
      {"OVERFLOW", ATTEND_OVERFLOW, 8},
      {"OVERLAP", ATTEND_OVERLAP, 9},
      {"UNSUPPORTED", ATTEND_UNSUPPORTED, 10},
      {"WORKSPACE_TOO_SMALL", ATTEND_WORKSPACE_TOO_SMALL, 11},
      {"OUT_OF_MEMORY", ATTEND_OUT_OF_MEMORY, 12},
      {"UNKNOWN_ISA", ATTEND_UNKNOWN_ISA, 13},
      {"RANKS_DIFFER", ATTEND_RANKS_DIFFER, 14},
      {"F32", ATTEND_F32, 1},
      {"F64", ATTEND_F64, 2},
      {"BF16", ATTEND_BF16, 3},
      {"F16", ATTEND_F16, 4},
      {"I8", ATTEND_I8, 5},
      {"U8", ATTEND_U8, 6},
      {"BOOL", ATTEND_BOOL, 7},
      {"I32", ATTEND_I32, 8},
      {"F8E4M3", ATTEND_F8E4M3, 9},
      {"LOG", ATTEND_LOG, 1},
      {"CAUSAL_TOP_LEFT", ATTEND_CAUSAL_TOP_LEFT, 1},
      {"CAUSAL_BOTTOM_RIGHT", ATTEND_CAUSAL_BOTTOM_RIGHT, 2},
      {"WINDOW", ATTEND_WINDOW, 4},
      {"PARTIAL", ATTEND_PARTIAL, 8},
      {"CONTINUE", ATTEND_CONTINUE, 16},
      {"NATIVE_DOT", ATTEND_NATIVE_DOT, 65536},
      {"COMPUTE_SCALE", ATTEND_COMPUTE_SCALE, 1},
      {"ROTARY_INTERLEAVED", ATTEND_ROTARY_INTERLEAVED, 1},
      {"ROTARY_INVERSE", ATTEND_ROTARY_INVERSE, 2},
      {"COMPUTE_K_SCALE", ATTEND_COMPUTE_K_SCALE, 4},
      {"COMPUTE_V_SCALE", ATTEND_COMPUTE_V_SCALE, 8},
      {"SCORES_SCALED", ATTEND_SCORES_SCALED, 0},
      {"SCORES_SOFTCAPPED", ATTEND_SCORES_SOFTCAPPED, 1},
      {"SCORES_MASKED", ATTEND_SCORES_MASKED, 2},
      {"SCORES_PROBABILITIES", ATTEND_SCORES_PROBABILITIES, 3},
  };
  for (const auto &n : numbers) {
    INFO(std::string(n.name));
    CHECK(n.number == n.expected);
  }
  CHECK(ATTEND_REASON(0x1234) == 0x34);
}

TEST_CASE("initialisers: nothing but the size") {
  const auto check = [](const auto &options, size_t size) {
    unsigned char bytes[sizeof options];
    std::memcpy(bytes, &options, sizeof options);
    CHECK(options.size == size);
    CHECK(std::count(bytes + sizeof options.size, std::end(bytes), 0) == static_cast<int64_t>(size - 4));
  };
  const attend_matmul_options matmul = ATTEND_MATMUL_OPTIONS_INIT;
  const attend_softmax_options softmax = ATTEND_SOFTMAX_OPTIONS_INIT;
  const attend_attention_options attention = ATTEND_ATTENTION_OPTIONS_INIT;
  const attend_merge_options merge = ATTEND_MERGE_OPTIONS_INIT;
  const attend_self_attention_options self = ATTEND_SELF_ATTENTION_OPTIONS_INIT;
  const attend_self_attention_weights weights = ATTEND_SELF_ATTENTION_WEIGHTS_INIT;
  check(matmul, sizeof matmul);
  check(softmax, sizeof softmax);
  check(attention, sizeof attention);
  check(merge, sizeof merge);
  check(self, sizeof self);
  const attend_rotary_options rotary = ATTEND_ROTARY_OPTIONS_INIT;
  const attend_kv_append_options append = ATTEND_KV_APPEND_OPTIONS_INIT;
  check(weights, sizeof weights);
  check(rotary, sizeof rotary);
  check(append, sizeof append);
  const attend_attention_backward_options backward = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
  const attend_softmax_backward_options softmax_backward = ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT;
  check(softmax_backward, sizeof softmax_backward);
  check(backward, sizeof backward);
}
