#include "api/attention_options.hpp"

#include <cmath>
#include <cstddef>

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_attention_options, reserved2) + sizeof(uint32_t);
constexpr uint32_t kCausal = ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT;

}  // namespace

attend_status read_attention_options(const attend_attention_options *given, Purpose purpose, AttentionOptions *result) {
  attend_attention_options o;
  if (attend_status s = read_options(given, kFirstVersion, kCausal, purpose, &o, &result->execution)) return s;
  const struct {
    bool set;
    Argument field;
  } later[] = {
      {o.softcap != 0, Argument::options_softcap},
      {o.kv_lengths != nullptr, Argument::options_kv_lengths},
      {o.window_left != 0 || o.window_right != 0, Argument::options_window},
      {o.mask != nullptr, Argument::options_mask},
      {o.bias != nullptr, Argument::options_bias},
      {o.alibi_slopes != nullptr, Argument::options_alibi_slopes},
      {o.sinks != nullptr, Argument::options_sinks},
  };
  for (const auto &feature : later) {
    if (feature.set) return failure(ATTEND_UNSUPPORTED, feature.field);
  }
  if (!std::isfinite(o.scale)) return failure(ATTEND_INVALID_VALUE, Argument::options_scale);
  if (o.reserved2 != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_reserved2);
  if (o.scores_stage > ATTEND_SCORES_PROBABILITIES)
    return failure(ATTEND_INVALID_VALUE, Argument::options_scores_stage);
  if ((o.flags & kCausal) == kCausal) return failure(ATTEND_INVALID_VALUE, Argument::options_flags);
  result->bottom_right = (o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0;
  if (result->bottom_right && o.query_offset != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_query_offset);
  if (o.query_offsets != nullptr && (result->bottom_right || o.query_offset != 0)) {
    return failure(ATTEND_INVALID_VALUE, Argument::options_query_offsets);
  }
  result->problem.scale = o.scale;
  result->problem.causal = (o.flags & kCausal) != 0;
  result->problem.offset = o.query_offset;
  result->problem.offsets = o.query_offsets;
  result->problem.scores_stage = static_cast<int>(o.scores_stage);
  result->lse = o.lse;
  result->scores = o.scores;
  return ATTEND_OK;
}

attend_status finish_attention(const AttentionOptions &options, uint32_t dtype, int64_t features, int64_t keys,
                               const std::array<int64_t, 4> &out_shape, Purpose purpose, Attention *problem) {
  const Argument lse = Argument::options_lse, scores = Argument::options_scores;
  if (attend_status s = read_optional(options.lse, lse, Role::output, purpose, &dtype, &problem->lse)) return s;
  if (attend_status s = read_optional(options.scores, scores, Role::output, purpose, &dtype, &problem->scores))
    return s;
  problem->dtype = dtype_of(dtype);
  if (problem->scale == 0) problem->scale = 1 / std::sqrt(static_cast<double>(features));
  if (options.bottom_right) problem->offset = keys - out_shape[1];
  if (problem->lse) {
    if (attend_status s = expect_shape(problem->lse, lse, {1, out_shape[1], out_shape[2], out_shape[3]})) return s;
  }
  if (problem->scores) {
    if (attend_status s = expect_shape(problem->scores, scores, {keys, out_shape[1], out_shape[2], out_shape[3]}))
      return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  return expect_apart(problem->scores, scores, problem->lse);
}

}  // namespace attend
