// The layout of the public structures on 64-bit systems, as programs that are compiled already have it. It may only
// grow at the end of a structure, whose `size` then says which one the caller knows.
#include <cstddef>

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

TEST_CASE("structures have the layout that programs were compiled with") {
  if (sizeof(void *) != 8) return;
  check("attend_tensor", sizeof(attend_tensor), 80,
        {FIELD(attend_tensor, data, 0), FIELD(attend_tensor, dtype, 8), FIELD(attend_tensor, rank, 12),
         FIELD(attend_tensor, shape, 16), FIELD(attend_tensor, stride, 48)});
  check("attend_matmul_options", sizeof(attend_matmul_options), 40,
        {FIELD(attend_matmul_options, size, 0), FIELD(attend_matmul_options, flags, 4),
         FIELD(attend_matmul_options, threads, 8), FIELD(attend_matmul_options, reserved, 12),
         FIELD(attend_matmul_options, workspace, 16), FIELD(attend_matmul_options, workspace_size, 24),
         FIELD(attend_matmul_options, bias, 32)});
  check("attend_softmax_options", sizeof(attend_softmax_options), 64,
        {FIELD(attend_softmax_options, size, 0), FIELD(attend_softmax_options, flags, 4),
         FIELD(attend_softmax_options, threads, 8), FIELD(attend_softmax_options, reserved, 12),
         FIELD(attend_softmax_options, workspace, 16), FIELD(attend_softmax_options, workspace_size, 24),
         FIELD(attend_softmax_options, scale, 32), FIELD(attend_softmax_options, mask, 40),
         FIELD(attend_softmax_options, bias, 48), FIELD(attend_softmax_options, lse, 56)});
  check("attend_attention_options", sizeof(attend_attention_options), 144,
        {FIELD(attend_attention_options, size, 0),          FIELD(attend_attention_options, flags, 4),
         FIELD(attend_attention_options, threads, 8),       FIELD(attend_attention_options, reserved, 12),
         FIELD(attend_attention_options, workspace, 16),    FIELD(attend_attention_options, workspace_size, 24),
         FIELD(attend_attention_options, scale, 32),        FIELD(attend_attention_options, softcap, 40),
         FIELD(attend_attention_options, query_offset, 48), FIELD(attend_attention_options, query_offsets, 56),
         FIELD(attend_attention_options, kv_lengths, 64),   FIELD(attend_attention_options, window_left, 72),
         FIELD(attend_attention_options, window_right, 80), FIELD(attend_attention_options, mask, 88),
         FIELD(attend_attention_options, bias, 96),         FIELD(attend_attention_options, alibi_slopes, 104),
         FIELD(attend_attention_options, sinks, 112),       FIELD(attend_attention_options, lse, 120),
         FIELD(attend_attention_options, scores, 128),      FIELD(attend_attention_options, scores_stage, 136),
         FIELD(attend_attention_options, reserved2, 140)});
  check("attend_merge_options", sizeof(attend_merge_options), 16,
        {FIELD(attend_merge_options, size, 0), FIELD(attend_merge_options, flags, 4),
         FIELD(attend_merge_options, threads, 8), FIELD(attend_merge_options, reserved, 12)});
  check("attend_self_attention_weights", sizeof(attend_self_attention_weights), 72,
        {FIELD(attend_self_attention_weights, size, 0), FIELD(attend_self_attention_weights, reserved, 4),
         FIELD(attend_self_attention_weights, w_q, 8), FIELD(attend_self_attention_weights, w_k, 16),
         FIELD(attend_self_attention_weights, w_v, 24), FIELD(attend_self_attention_weights, b_q, 32),
         FIELD(attend_self_attention_weights, b_k, 40), FIELD(attend_self_attention_weights, b_v, 48),
         FIELD(attend_self_attention_weights, w_o, 56), FIELD(attend_self_attention_weights, b_o, 64)});
  check(
      "attend_self_attention_options", sizeof(attend_self_attention_options), 32,
      {FIELD(attend_self_attention_options, size, 0), FIELD(attend_self_attention_options, flags, 4),
       FIELD(attend_self_attention_options, threads, 8), FIELD(attend_self_attention_options, reserved, 12),
       FIELD(attend_self_attention_options, workspace, 16), FIELD(attend_self_attention_options, workspace_size, 24)});
}

#undef FIELD
