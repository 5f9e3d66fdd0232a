#include "api/attention_options.hpp"

#include <cmath>
#include <cstddef>

#include "api/plain_matrix.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_attention_options, state) + sizeof(void *);
constexpr uint32_t kCausal = ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT;
constexpr uint32_t kFlags = kCausal | ATTEND_WINDOW;

// The stages have attend.h's numbers.
constexpr bool is(ScoresStage stage, int number) { return static_cast<int>(stage) == number; }
static_assert(is(ScoresStage::scaled, ATTEND_SCORES_SCALED) && is(ScoresStage::softcapped, ATTEND_SCORES_SOFTCAPPED) &&
              is(ScoresStage::masked, ATTEND_SCORES_MASKED) &&
              is(ScoresStage::probabilities, ATTEND_SCORES_PROBABILITIES));

}  // namespace

attend_status read_attention_options(const attend_attention_options *given, Purpose purpose, AttentionOptions *result,
                                     Attention *problem) {
  attend_attention_options o;
  if (attend_status s = read_options(given, kFirstVersion, kFlags, purpose, &o, &result->execution)) return s;
  if (!std::isfinite(o.scale)) return failure(ATTEND_INVALID_VALUE, Argument::options_scale);
  if (!std::isfinite(o.softcap) || o.softcap < 0) return failure(ATTEND_INVALID_VALUE, Argument::options_softcap);
  const bool window = (o.flags & ATTEND_WINDOW) != 0;
  const int64_t least = window ? -1 : 0, most = window ? INT64_MAX : 0;
  for (const int64_t side : {o.window_left, o.window_right}) {
    if (side < least || side > most) return failure(ATTEND_INVALID_VALUE, Argument::options_window);
  }
  if (o.reserved2 != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_reserved2);
  if (attend_status s = expect_unset({{o.sequences != 0, Argument::options_sequences},
                                      {o.query_starts != nullptr, Argument::options_query_starts},
                                      {o.key_starts != nullptr, Argument::options_key_starts},
                                      {o.pages != nullptr, Argument::options_pages},
                                      {o.key_offset != 0, Argument::options_key_offset},
                                      {o.state != nullptr, Argument::options_state}})) {
    return s;
  }
  if (o.scores_stage > ATTEND_SCORES_PROBABILITIES)
    return failure(ATTEND_INVALID_VALUE, Argument::options_scores_stage);
  if ((o.flags & kCausal) == kCausal) return failure(ATTEND_INVALID_VALUE, Argument::options_flags);
  const bool bottom_right = (o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0;
  if (bottom_right && o.query_offset != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_query_offset);
  if (o.query_offsets != nullptr && (bottom_right || o.query_offset != 0)) {
    return failure(ATTEND_INVALID_VALUE, Argument::options_query_offsets);
  }
  Attention &p = *problem;
  p.scale = o.scale;
  p.softcap = o.softcap;
  p.causal = (o.flags & kCausal) != 0;
  p.bottom_right = bottom_right;
  p.offset = o.query_offset;
  p.offsets = o.query_offsets;
  p.firsts = o.kv_first;
  p.lengths = o.kv_lengths;
  p.left = window ? o.window_left : -1;
  p.right = window ? o.window_right : -1;
  p.scores_stage = static_cast<ScoresStage>(o.scores_stage);
  result->mask = o.mask;
  result->bias = o.bias;
  result->alibi_slopes = o.alibi_slopes;
  result->sinks = o.sinks;
  result->lse = o.lse;
  result->scores = o.scores;
  result->k_scale = o.k_scale;
  result->v_scale = o.v_scale;
  return ATTEND_OK;
}

bool only_scales(const attend_attention_options *given, Dtype dtype, double *scale) {
  if (!is_plain_options<offsetof(attend_attention_options, scale)>(given)) return false;
  *scale = given == nullptr ? 0 : given->scale;
  return is_representable(*scale, dtype);
}

namespace {

attend_status read_inputs(const AttentionOptions &options, Operands *operands, int64_t keys,
                          const std::array<int64_t, 4> &out_shape, Attention *problem) {
  const struct {
    const attend_tensor *given;
    Argument argument;
    Kind kind;
    Tensor *to;
    std::array<int64_t, 4> shape;
    unsigned broadcasts;
  } inputs[] = {
      {options.mask,
       Argument::options_mask,
       Kind::mask,
       &problem->mask,
       {keys, out_shape[1], out_shape[2], out_shape[3]},
       kAll},
      {options.bias,
       Argument::options_bias,
       Kind::added,
       &problem->bias,
       {keys, out_shape[1], out_shape[2], out_shape[3]},
       kAll},
      {options.alibi_slopes, Argument::options_alibi_slopes, Kind::added, &problem->slopes, {out_shape[2], 1, 1, 1}, 0},
      {options.sinks, Argument::options_sinks, Kind::added, &problem->sinks, {out_shape[2], 1, 1, 1}, 0},
  };
  for (const auto &i : inputs) {
    if (attend_status s = operands->read_optional(i.given, i.argument, Role::input, i.kind, i.to)) return s;
    if (!*i.to) continue;
    if (attend_status s = expect_shape(*i.to, i.argument, i.shape, i.broadcasts)) return s;
  }
  return ATTEND_OK;
}

attend_status check_keys(const Attention &p, int64_t keys, int64_t batch) {
  if (p.lengths == nullptr && p.firsts == nullptr) return ATTEND_OK;
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t length = p.lengths != nullptr ? p.lengths[b] : keys, first = p.firsts != nullptr ? p.firsts[b] : 0;
    if (length < 0 || length > keys) return failure(ATTEND_INVALID_VALUE, Argument::options_kv_lengths);
    if (first < 0 || first > length) return failure(ATTEND_INVALID_VALUE, Argument::options_kv_first);
  }
  return ATTEND_OK;
}

}  // namespace

attend_status finish_attention(const AttentionOptions &options, Operands *operands, Dtype query, int64_t features,
                               int64_t keys, const std::array<int64_t, 4> &out_shape, Purpose purpose,
                               Attention *problem) {
  const Argument lse = Argument::options_lse, scores = Argument::options_scores;
  if (attend_status s = operands->read_optional(options.lse, lse, Role::output, Kind::acc, &problem->lse)) return s;
  if (attend_status s = operands->read_optional(options.scores, scores, Role::output, Kind::acc, &problem->scores))
    return s;
  if (!is_representable(problem->scale, query)) return failure(ATTEND_INVALID_VALUE, Argument::options_scale);
  if (!is_representable(problem->softcap, query)) return failure(ATTEND_INVALID_VALUE, Argument::options_softcap);
  if (problem->scale == 0) problem->scale = 1 / std::sqrt(static_cast<double>(features));
  if (options.mask != nullptr || options.bias != nullptr || options.alibi_slopes != nullptr ||
      options.sinks != nullptr) {
    if (attend_status s = read_inputs(options, operands, keys, out_shape, problem)) return s;
  }
  if (purpose == Purpose::compute) {
    if (attend_status s = check_keys(*problem, keys, out_shape[3])) return s;
  }
  if (problem->lse) {
    if (attend_status s = expect_shape(problem->lse, lse, {1, out_shape[1], out_shape[2], out_shape[3]})) return s;
  }
  if (problem->scores) {
    if (attend_status s = expect_shape(problem->scores, scores, {keys, out_shape[1], out_shape[2], out_shape[3]}))
      return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  for (const Tensor *input : {&problem->mask, &problem->bias, &problem->slopes, &problem->sinks}) {
    if (attend_status s = expect_apart(problem->lse, lse, *input)) return s;
    if (attend_status s = expect_apart(problem->scores, scores, *input)) return s;
  }
  return expect_apart(problem->scores, scores, problem->lse);
}

}  // namespace attend
