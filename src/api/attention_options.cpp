#include "api/attention_options.hpp"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstddef>

#include "api/plain_matrix.hpp"
#include "api/serving.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_attention_options, state) + sizeof(void *);
constexpr uint32_t kCausal = ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT;
constexpr uint32_t kPieces = ATTEND_PARTIAL | ATTEND_CONTINUE;
constexpr uint32_t kFlags = kCausal | ATTEND_WINDOW | kPieces;

// The stages have attend.h's numbers.
constexpr bool is(ScoresStage stage, int number) { return static_cast<int>(stage) == number; }
static_assert(is(ScoresStage::scaled, ATTEND_SCORES_SCALED) && is(ScoresStage::softcapped, ATTEND_SCORES_SOFTCAPPED) &&
              is(ScoresStage::masked, ATTEND_SCORES_MASKED) &&
              is(ScoresStage::probabilities, ATTEND_SCORES_PROBABILITIES));

// What packs sequences, and pages, among themselves.
attend_status check_serving(const attend_attention_options &o, const Message &message) {
  const bool packs = o.query_starts != nullptr || o.key_starts != nullptr;
  if (attend_status s = check_count(o.sequences, message)) return s;
  if (o.sequences == 0 && packs) {
    return wrong_value(message, Argument::options_sequences, o.sequences, "the number of packed sequences");
  }
  if (o.sequences > 0 && !packs) {
    return wrong_value(message, Argument::options_sequences, o.sequences, "0 without query_starts and key_starts");
  }
  if (o.pages != nullptr && o.key_starts != nullptr) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_key_starts,
                "is given, but keys in pages are not packed");
  }
  if (o.pages != nullptr && o.kv_lengths == nullptr) {
    return fail(message, ATTEND_NULL_POINTER, Argument::options_kv_lengths,
                "is null, but required where keys lie in pages");
  }
  if (o.scores != nullptr && o.sequences > 0) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_scores, "is given, but sequences are packed");
  }
  return ATTEND_OK;
}

// What computes over some of the keys at a time.
attend_status check_pieces(const attend_attention_options &o, const Message &message) {
  constexpr int64_t kChunk = Contract<float>::kKeyChunk;
  if (o.key_offset < 0 || o.key_offset % kChunk != 0) {
    return wrong_value(message, Argument::options_key_offset, o.key_offset, "a multiple of 256, 0 or more");
  }
  const bool pieces = (o.flags & kPieces) != 0;
  if (pieces && o.state == nullptr) {
    return fail(message, ATTEND_NULL_POINTER, Argument::options_state,
                "is null, but required with ATTEND_PARTIAL and ATTEND_CONTINUE");
  }
  if (pieces && o.scores != nullptr && o.scores_stage == ATTEND_SCORES_PROBABILITIES) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_scores,
                "is given for probabilities, which one of several calls over the keys does not know");
  }
  if (!pieces && o.key_offset == 0) return ATTEND_OK;
  if ((o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_flags,
                "has ATTEND_CAUSAL_BOTTOM_RIGHT, but where the keys end is not known to one of several calls");
  }
  if (o.kv_first != nullptr) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_kv_first,
                "is given, but one of several calls counts keys from key_offset");
  }
  return ATTEND_OK;
}

}  // namespace

attend_status too_many_features(const Message &to, Argument argument, int64_t features) {
  return fail(to, ATTEND_OVERFLOW, argument, "has %" PRId64 " features, not at most %" PRId64, features, kMostFeatures);
}

attend_status read_attention_options(const attend_attention_options *given, Purpose purpose, AttentionOptions *result,
                                     Attention *problem) {
  attend_attention_options o;
  if (attend_status s = read_options(given, kFirstVersion, kFlags, purpose, &o, &result->execution, &result->message))
    return s;
  const Message &message = result->message;
  if (!std::isfinite(o.scale)) return wrong_value(message, Argument::options_scale, o.scale, "finite");
  if (!std::isfinite(o.softcap) || o.softcap < 0) {
    return wrong_value(message, Argument::options_softcap, o.softcap, "finite and 0 or more");
  }
  const bool window = (o.flags & ATTEND_WINDOW) != 0;
  const int64_t least = window ? -1 : 0, most = window ? INT64_MAX : 0;
  for (const int64_t side : {o.window_left, o.window_right}) {
    if (side < least || side > most) {
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_window,
                  "left and right are %" PRId64 " and %" PRId64 ", but must be %s", o.window_left, o.window_right,
                  window ? "-1 or more" : "0 without ATTEND_WINDOW");
    }
  }
  if (o.reserved2 != 0) return wrong_value(message, Argument::options_reserved2, int64_t{o.reserved2}, "0");
  if (attend_status s = check_serving(o, message)) return s;
  if (attend_status s = check_pieces(o, message)) return s;
  if (o.scores_stage > ATTEND_SCORES_PROBABILITIES) {
    return wrong_value(message, Argument::options_scores_stage, int64_t{o.scores_stage}, "0, 1, 2 or 3");
  }
  if ((o.flags & kCausal) == kCausal) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_flags,
                "has both of the causal flags, not one or none");
  }
  const bool bottom_right = (o.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0;
  if (bottom_right && o.query_offset != 0) {
    return wrong_value(message, Argument::options_query_offset, o.query_offset, "0 where causal is bottom-right");
  }
  if (o.query_offsets != nullptr && bottom_right) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_query_offsets,
                "is given, but must not be where causal is bottom-right");
  }
  if (o.query_offsets != nullptr && o.query_offset != 0) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_query_offsets,
                "is given beside one offset for all, %" PRId64, o.query_offset);
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
  p.sequences = o.sequences;
  p.query_starts = o.query_starts;
  p.key_starts = o.key_starts;
  p.key_offset = o.key_offset;
  p.pauses = (o.flags & ATTEND_PARTIAL) != 0;
  p.resumes = (o.flags & ATTEND_CONTINUE) != 0;
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
  result->pages = o.pages;
  result->state = o.state;
  return ATTEND_OK;
}

attend_status expect_plain_head(const attend_attention_options *given, const AttentionOptions &read) {
  const Message &said = read.message;
  if (read.execution.threads != 0) {
    return wrong_value(said, Argument::options_threads, int64_t{read.execution.threads}, "0: those of options count");
  }
  if (given == nullptr) return ATTEND_OK;
  const struct {
    bool given;
    Argument argument;
  } of_options[] = {{given->workspace != nullptr, Argument::options_workspace},
                    {given->message != nullptr, Argument::options_message},
                    {given->executor != nullptr, Argument::options_executor}};
  for (const auto &o : of_options) {
    if (o.given) return fail(said, ATTEND_INVALID_VALUE, o.argument, "is given, but that of options counts");
  }
  return ATTEND_OK;
}

bool only_scales(const attend_attention_options *given, Dtype dtype, double *scale) {
  if (!is_plain_options<offsetof(attend_attention_options, scale)>(given)) return false;
  *scale = given == nullptr ? 0 : given->scale;
  return is_representable(*scale, dtype);
}

namespace {

attend_status read_inputs(const AttentionOptions &options, Operands *operands, int64_t keys,
                          const std::array<int64_t, 4> &out_shape, const AttentionAxes &all_axes, Attention *problem) {
  const struct {
    const attend_tensor *given;
    Argument argument;
    Kind kind;
    Tensor *to;
    std::array<int64_t, 4> shape;
    const Axes &axes;
    unsigned broadcasts;
  } inputs[] = {
      {options.mask,
       Argument::options_mask,
       Kind::mask,
       &problem->mask,
       {keys, out_shape[1], out_shape[2], out_shape[3]},
       all_axes.scores,
       kAll},
      {options.bias,
       Argument::options_bias,
       Kind::added,
       &problem->bias,
       {keys, out_shape[1], out_shape[2], out_shape[3]},
       all_axes.scores,
       kAll},
      {options.alibi_slopes,
       Argument::options_alibi_slopes,
       Kind::added,
       &problem->slopes,
       {out_shape[2], 1, 1, 1},
       all_axes.heads,
       0},
      {options.sinks,
       Argument::options_sinks,
       Kind::added,
       &problem->sinks,
       {out_shape[2], 1, 1, 1},
       all_axes.heads,
       0},
  };
  for (const auto &i : inputs) {
    if (attend_status s = operands->read_optional(i.given, i.argument, Role::input, i.kind, i.to)) return s;
    if (!*i.to) continue;
    std::array<int64_t, 4> shape = i.shape;
    // Of packed keys a row is one of the query's own sequence: there may be more than the longest has.
    if (i.broadcasts != 0 && problem->key_starts != nullptr) shape[0] = std::max(keys, i.to->rows());
    if (attend_status s = expect_shape(*i.to, i.argument, shape, i.axes, options.message, i.broadcasts)) return s;
  }
  return ATTEND_OK;
}

attend_status check_keys(const Attention &p, int64_t keys, int64_t count, const Message &message) {
  if (p.lengths == nullptr && p.firsts == nullptr) return ATTEND_OK;
  for (int64_t b = 0; b < count; ++b) {
    const int64_t most = p.key_starts != nullptr ? p.key_starts[b + 1] - p.key_starts[b] : keys,
                  length = p.lengths != nullptr ? p.lengths[b] : most, first = p.firsts != nullptr ? p.firsts[b] : 0;
    const auto wrong = [&](Argument argument, int64_t is, int64_t at_most) {
      return fail(message, ATTEND_INVALID_VALUE, argument,
                  "is %" PRId64 " for batch %" PRId64 ", but must be 0 to %" PRId64, is, b, at_most);
    };
    if (length < 0 || length > most) return wrong(Argument::options_kv_lengths, length, most);
    if (first < 0 || first > length) return wrong(Argument::options_kv_first, first, length);
  }
  return ATTEND_OK;
}

}  // namespace

attend_status finish_attention(const AttentionOptions &options, Operands *operands, Dtype query, int64_t features,
                               int64_t keys, const std::array<int64_t, 4> &shape, const AttentionAxes &axes,
                               Purpose purpose, Attention *problem) {
  const Message &message = options.message;
  const Argument lse = Argument::options_lse, scores = Argument::options_scores;
  if (attend_status s = operands->read_optional(options.lse, lse, options.role_of_lse, Kind::acc, &problem->lse))
    return s;
  if (attend_status s = operands->read_optional(options.scores, scores, Role::output, Kind::acc, &problem->scores))
    return s;
  if (!is_representable(problem->scale, query)) {
    return not_representable(message, Argument::options_scale, problem->scale, query);
  }
  if (!is_representable(problem->softcap, query)) {
    return not_representable(message, Argument::options_softcap, problem->softcap, query);
  }
  if (problem->scale == 0) problem->scale = 1 / std::sqrt(static_cast<double>(features));
  if (options.mask != nullptr || options.bias != nullptr || options.alibi_slopes != nullptr ||
      options.sinks != nullptr) {
    if (attend_status s = read_inputs(options, operands, keys, shape, axes, problem)) return s;
  }
  if (purpose == Purpose::compute) {
    if (attend_status s = check_keys(*problem, keys, problem->sequences > 0 ? problem->sequences : shape[3], message))
      return s;
  }
  if (problem->lse) {
    const std::array<int64_t, 4> of_lse = {1, shape[1], shape[2], shape[3]};
    if (attend_status s = expect_shape(problem->lse, lse, of_lse, axes.lse, message)) return s;
  }
  if (problem->scores) {
    const std::array<int64_t, 4> of_scores = {keys, shape[1], shape[2], shape[3]};
    if (attend_status s = expect_shape(problem->scores, scores, of_scores, axes.scores, message)) return s;
  }
  if (options.state != nullptr) {
    constexpr Argument kState = Argument::options_state;
    const Role role = problem->pauses ? Role::output : Role::input;
    if (attend_status s = operands->read(options.state, kState, role, Kind::acc, &problem->state)) return s;
    const std::array<int64_t, 4> of_state = {2 * (problem->v.rows() + 2), shape[1], shape[2], shape[3]};
    if (attend_status s = expect_shape(problem->state, kState, of_state, axes.state, message)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  return expect_apart(problem->scores, scores, problem->lse, lse, message);
}

attend_status expect_packed(const int64_t *starts, int64_t sequences, const Tensor &of, Argument argument,
                            Argument starts_argument, Purpose purpose, const Message &message) {
  if (attend_status s = expect_one_batch(of, argument, message)) return s;
  if (purpose == Purpose::size) return ATTEND_OK;
  return check_starts(starts, sequences, of.columns(), starts_argument, message);
}

attend_status expect_apart_from_options(const Tensor &output, Argument argument, const Attention &p, int64_t batch,
                                        const Message &message) {
  if (is_empty(output)) return ATTEND_OK;
  const struct {
    const Tensor &tensor;
    Argument argument;
  } tensors[] = {{p.mask, Argument::options_mask},           {p.bias, Argument::options_bias},
                 {p.slopes, Argument::options_alibi_slopes}, {p.sinks, Argument::options_sinks},
                 {p.k_scale, Argument::options_k_scale},     {p.v_scale, Argument::options_v_scale},
                 {p.pages, Argument::options_pages},         {p.state, Argument::options_state}};
  for (const auto &t : tensors) {
    if (&t.tensor == &output) continue;
    if (attend_status s = expect_apart(output, argument, t.tensor, t.argument, message)) return s;
  }
  const struct {
    const int64_t *first;
    int64_t count;
    Argument argument;
  } arrays[] = {{p.offsets, batch, Argument::options_query_offsets},
                {p.firsts, batch, Argument::options_kv_first},
                {p.lengths, batch, Argument::options_kv_lengths},
                {p.query_starts, p.sequences + 1, Argument::options_query_starts},
                {p.key_starts, p.sequences + 1, Argument::options_key_starts}};
  for (const auto &a : arrays) {
    if (a.first == nullptr) continue;
    if (attend_status s = expect_apart(output, argument, integers(a.first, a.count), a.argument, message)) return s;
  }
  return ATTEND_OK;
}

}  // namespace attend
