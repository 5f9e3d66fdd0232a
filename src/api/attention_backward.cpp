#include "drivers/attention_backward.hpp"

#include <cinttypes>
#include <cstddef>
#include <tuple>

#include "api/attention_operands.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention_backward_plan.hpp"
#include "drivers/attention_sequence.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_attention_backward_options, total_keys) + sizeof(void *);
constexpr uint32_t kFlags = ATTEND_ACCUMULATE | ATTEND_PARTIAL | ATTEND_CONTINUE;

// What of the forward call's options has no gradient.
attend_status check_forward(const AttentionOptions &options, const Attention &p) {
  const Message &said = options.message;
  if (p.resumes || p.pauses) {
    return fail(said, ATTEND_UNSUPPORTED, Argument::options_flags,
                "has ATTEND_PARTIAL or ATTEND_CONTINUE, but gradients are those of one call over all keys");
  }
  const struct {
    const attend_tensor *given;
    Argument argument;
    const char *why;
  } refused[] = {
      {options.state, Argument::options_state, "is given, but gradients are those of one call over all keys"},
      {options.scores, Argument::options_scores, "is given, but scores are not kept: they have no gradient here"},
      {options.k_scale, Argument::options_k_scale, "is given, but keys that are quantised have no gradient"},
      {options.v_scale, Argument::options_v_scale, "is given, but values that are quantised have no gradient"},
      {options.pages, Argument::options_pages, "is given, but keys in pages have no gradient"}};
  for (const auto &r : refused) {
    if (r.given != nullptr) return fail(said, ATTEND_UNSUPPORTED, r.argument, "%s", r.why);
  }
  return ATTEND_OK;
}

// What delta takes the place of, and what it cannot be had for.
attend_status check_delta(const attend_tensor *out, const attend_attention_backward_options &o,
                          const AttentionOptions &of_forward, const Message &message) {
  if (out != nullptr || o.delta == nullptr) return ATTEND_OK;
  if (of_forward.lse == nullptr) {
    return fail(message, ATTEND_NULL_POINTER, Argument::options_lse,
                "is null, but required where delta is given for out");
  }
  if (o.d_lse != nullptr) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_d_lse, "is given, but delta, which has it, is read");
  }
  if (o.d_sinks != nullptr) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_d_sinks,
                "is given, but delta is read: it is found with out");
  }
  return ATTEND_OK;
}

// Keys or queries in pieces, among the options: those of the call, `message`, and of the forward call.
attend_status check_pieces(const attend_attention_backward_options &o, const AttentionOptions &of_forward,
                           const Attention &f, const Message &message) {
  const Message &said = of_forward.message;
  if (o.d_q_state != nullptr && o.total_keys == nullptr) {
    return fail(message, ATTEND_NULL_POINTER, Argument::options_total_keys, "is null, but required with d_q_state");
  }
  if (o.d_q_state == nullptr && o.total_keys != nullptr) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_total_keys, "is given, but not d_q_state");
  }
  if ((o.flags & (ATTEND_PARTIAL | ATTEND_CONTINUE)) == 0) return ATTEND_OK;
  const bool of_keys = o.d_k_state != nullptr || o.d_v_state != nullptr;
  if (o.d_q_state == nullptr && !of_keys) {
    return fail(message, ATTEND_NULL_POINTER, Argument::options_d_q_state,
                "is null, and so are d_k_state and d_v_state, but ATTEND_PARTIAL and ATTEND_CONTINUE need one");
  }
  if (o.d_q_state != nullptr && of_keys) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_d_q_state,
                "is given beside d_k_state or d_v_state, but a call is one of pieces of the keys, or of the queries");
  }
  if (o.d_bias != nullptr) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_d_bias, "is given, but is that of one call over all");
  }
  if (o.d_sinks != nullptr) {
    return fail(message, ATTEND_UNSUPPORTED, Argument::options_d_sinks, "is given, but is that of one call over all");
  }
  if (of_forward.lse == nullptr) {
    return fail(said, ATTEND_NULL_POINTER, Argument::options_lse,
                "is null, but required with ATTEND_PARTIAL and ATTEND_CONTINUE");
  }
  if (f.bottom_right) {
    return fail(said, ATTEND_INVALID_VALUE, Argument::options_flags,
                "has ATTEND_CAUSAL_BOTTOM_RIGHT, but how many there are is not known to one of several calls");
  }
  if (f.firsts != nullptr && o.d_q_state != nullptr) {
    return fail(said, ATTEND_INVALID_VALUE, Argument::options_kv_first,
                "is given, but one of several calls counts keys from key_offset");
  }
  return ATTEND_OK;
}

// The keys of all pieces, and that this one is cut where spans may end.
attend_status check_total_keys(const AttentionBackward &p, int64_t batch, const Message &message) {
  constexpr int64_t kChunk = Contract<float>::kKeyChunk;
  for (int64_t b = 0; p.keys_in_pieces() && b < batch; ++b) {
    const Sequence s = sequence_of(p.forward, b);
    const int64_t total = p.total_keys[b], keys = s.end - s.first, before = p.forward.key_offset;
    if (total < 0 || (keys > 0 && (total < before || total - before < keys))) {
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_total_keys,
                  "is %" PRId64 " for batch %" PRId64 ", but this piece has %" PRId64 " keys from %" PRId64 " on",
                  total, b, keys, before);
    }
    if (keys % kChunk != 0 && total - before != keys) {
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_total_keys,
                  "is %" PRId64 " for batch %" PRId64 ", but a piece of %" PRId64
                  " keys, no multiple of 256, would end before it, at %" PRId64,
                  total, b, keys, before + keys);
    }
  }
  return ATTEND_OK;
}

attend_status read_states(const attend_attention_backward_options &o, int64_t batch, Operands *operands,
                          const Message &message, AttentionBackward *p) {
  const Attention &f = p->forward;
  constexpr Axes kOfQueries =
                     {{{Count::rows}, {Count::queries, Argument::q}, {Count::heads, Argument::q}, {Count::batches}}},
                 kOfKeys = {{{Count::rows}, {Count::keys, Argument::k}, {Count::heads, Argument::k}, {Count::batches}}};
  const int64_t q_batch = f.query_starts != nullptr ? 1 : batch, k_batch = f.key_starts != nullptr ? 1 : batch;
  const struct {
    const attend_tensor *given;
    Argument argument;
    Tensor *to;
    const Tensor &of;
    Argument of_argument;
    const Axes &axes;
    std::array<int64_t, 4> shape;
  } states[] = {{o.d_q_state,
                 Argument::options_d_q_state,
                 &p->d_q_state,
                 p->d_q,
                 Argument::d_q,
                 kOfQueries,
                 {2 * f.q.rows(), f.q.columns(), f.q.heads(), q_batch}},
                {o.d_k_state,
                 Argument::options_d_k_state,
                 &p->d_k_state,
                 p->d_k,
                 Argument::d_k,
                 kOfKeys,
                 {f.k.rows(), f.k.columns(), f.k.heads(), k_batch}},
                {o.d_v_state,
                 Argument::options_d_v_state,
                 &p->d_v_state,
                 p->d_v,
                 Argument::d_v,
                 kOfKeys,
                 {f.v.rows(), f.v.columns(), f.v.heads(), k_batch}}};
  for (const auto &s : states) {
    if (s.given == nullptr) continue;
    if (!s.of) {
      return fail(message, ATTEND_INVALID_VALUE, s.argument, "is given, but not %s",
                  attend_status_argument(failure(0, s.of_argument)));
    }
    const Role role = p->pauses ? Role::output : Role::input;
    if (attend_status status = operands->read(s.given, s.argument, role, Kind::acc, s.to)) return status;
    if (attend_status status = expect_shape(*s.to, s.argument, s.shape, s.axes, message)) return status;
  }
  return ATTEND_OK;
}

attend_status read_gradients(const attend_tensor *d_q, const attend_tensor *d_k, const attend_tensor *d_v,
                             const attend_attention_backward_options &o, Operands *operands, const Message &message,
                             AttentionBackward *p) {
  const Attention &f = p->forward;
  const struct {
    const attend_tensor *given;
    Argument argument;
    Kind kind;
    Tensor *to;
    const Tensor &of;
    Argument of_argument;
  } gradients[] = {
      {d_q, Argument::d_q, Kind::out, &p->d_q, f.q, Argument::q},
      {d_k, Argument::d_k, Kind::out, &p->d_k, f.k, Argument::k},
      {d_v, Argument::d_v, Kind::out, &p->d_v, f.v, Argument::v},
      {o.d_bias, Argument::options_d_bias, Kind::acc, &p->d_bias, f.bias, Argument::attention_options_bias},
      {o.d_sinks, Argument::options_d_sinks, Kind::acc, &p->d_sinks, f.sinks, Argument::attention_options_sinks}};
  for (const auto &g : gradients) {
    if (g.given == nullptr) continue;
    if (!g.of) {
      return fail(message, ATTEND_INVALID_VALUE, g.argument, "is given, but not %s",
                  attend_status_argument(failure(0, g.of_argument)));
    }
    if (attend_status s = operands->read(g.given, g.argument, Role::output, g.kind, g.to)) return s;
    if (attend_status s = expect_shape(*g.to, g.argument, g.of.shape, axes_of(g.of_argument), message)) return s;
  }
  // A gradient that sums over batches is kept in the type of the arithmetic.
  const SharedGradients shared = shared_gradients(*p);
  for (const auto &[gradient, argument, sums] : {std::tuple{&p->d_q, Argument::d_q, shared.q},
                                                 {&p->d_k, Argument::d_k, shared.k},
                                                 {&p->d_v, Argument::d_v, shared.v}}) {
    if (!sums || !gradient->is_narrow()) continue;
    return fail(message, ATTEND_INVALID_DTYPE, argument, "is %s, but a gradient that sums over the batch is float32",
                name_of(gradient->dtype));
  }
  return ATTEND_OK;
}

attend_status check_overlaps(const AttentionBackward &p, int64_t batch, const Message &message) {
  const Attention &f = p.forward;
  const Tensor none = {}, total_keys = integers(p.total_keys, batch);
  const struct {
    const Tensor &tensor;
    Argument argument;
  } inputs[] = {{f.q, Argument::q},
                {f.k, Argument::k},
                {f.v, Argument::v},
                {p.reads_delta ? none : f.out, Argument::out},
                {p.d_out, Argument::d_out},
                {p.d_lse, Argument::options_d_lse},
                {f.lse, Argument::options_lse},
                {p.reads_delta ? p.delta : none, Argument::options_delta},
                {p.pauses ? none : p.d_q_state, Argument::options_d_q_state},
                {p.pauses ? none : p.d_k_state, Argument::options_d_k_state},
                {p.pauses ? none : p.d_v_state, Argument::options_d_v_state},
                {total_keys, Argument::options_total_keys}},
    outputs[] = {{p.reads_delta ? none : p.delta, Argument::options_delta},
                 {p.pauses ? p.d_q_state : none, Argument::options_d_q_state},
                 {p.pauses ? p.d_k_state : none, Argument::options_d_k_state},
                 {p.pauses ? p.d_v_state : none, Argument::options_d_v_state},
                 {p.d_q, Argument::d_q},
                 {p.d_k, Argument::d_k},
                 {p.d_v, Argument::d_v},
                 {p.d_bias, Argument::options_d_bias},
                 {p.d_sinks, Argument::options_d_sinks}};
  for (const auto &o : outputs) {
    for (const auto &input : inputs) {
      if (attend_status s = expect_apart(o.tensor, o.argument, input.tensor, input.argument, message)) return s;
    }
    for (const auto *other = outputs; other != &o; ++other) {
      if (attend_status s = expect_apart(o.tensor, o.argument, other->tensor, other->argument, message)) return s;
    }
    if (attend_status s = expect_apart_from_options(o.tensor, o.argument, f, batch, message)) return s;
  }
  return ATTEND_OK;
}

// Sums of d_q for a few heads and any thread, lse, and sinks lie in the workspace: their bytes must be countable. (Inputs with
// strides of 0 may claim any number of queries.)
bool fits(const AttentionBackward &p, int64_t batch) {
  const Attention &f = p.forward;
  const int64_t group = f.k.heads() == 0 ? 1 : f.out.heads() / f.k.heads();
  constexpr int64_t kNumber = 8, kSums = 4 * kNumber * kMostThreads;
  return are_countable(kSums, {group, f.out.columns(), f.q.rows()}) &&
         are_countable(kNumber, {f.out.columns(), f.out.heads(), f.out.batch()}) &&
         are_countable(kNumber * kMostSpans, {batch, f.out.heads()});
}

struct Gradients {
  const attend_tensor *d_out, *d_q, *d_k, *d_v;
};

attend_status read(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v, const attend_tensor *out,
                   const Gradients &gradients, const attend_attention_backward_options *given,
                   const attend_attention_options *attention_given, Purpose purpose, AttentionBackward *p,
                   Execution *execution, Message *message) {
  attend_attention_backward_options o;
  if (attend_status s = read_options(given, kFirstVersion, kFlags, purpose, &o, execution, message)) return s;
  p->accumulates = (o.flags & ATTEND_ACCUMULATE) != 0;
  p->resumes = (o.flags & ATTEND_CONTINUE) != 0;
  p->pauses = (o.flags & ATTEND_PARTIAL) != 0;
  p->total_keys = o.total_keys;
  p->reads_delta = out == nullptr && o.delta != nullptr;
  AttentionOptions inner;
  inner.message = *message;
  inner.message.of_attention_options = true;  // those of `options` are done with
  inner.role_of_lse = Role::input;
  const Message &said = inner.message;
  Attention &f = p->forward;
  if (attend_status s = read_attention_options(attention_given, purpose, &inner, &f)) return s;
  if (attend_status s = expect_plain_head(attention_given, inner)) return s;
  if (attend_status s = check_forward(inner, f)) return s;
  if (attend_status s = check_delta(out, o, inner, said)) return s;
  if (attend_status s = check_pieces(o, inner, f, *message)) return s;
  Operands operands(kAttentionBackwardTypes, purpose, said);
  int64_t batch = 0;
  // Where delta is read, shapes are those of d_out.
  const attend_tensor *const shaped = p->reads_delta ? gradients.d_out : out;
  const Argument of_out = p->reads_delta ? Argument::d_out : Argument::out;
  if (attend_status s = read_operands(q, k, v, shaped, of_out, Role::input, inner, &operands, purpose, &f, &batch))
    return s;
  if (attend_status s = operands.read(gradients.d_out, Argument::d_out, Role::input, Kind::left, &p->d_out)) return s;
  if (attend_status s = expect_shape(p->d_out, Argument::d_out, f.out.shape, axes_of(Argument::out), said)) return s;
  const std::array<int64_t, 4> of_lse = {1, f.out.columns(), f.out.heads(), f.out.batch()};
  const Axes axes_of_lse = {
      {{Count::features}, {Count::queries, of_out}, {Count::heads, of_out}, {Count::batches, of_out}}};
  const struct {
    const attend_tensor *given;
    Argument argument;
    Role role;
    Tensor *to;
  } of_queries[] = {{o.d_lse, Argument::options_d_lse, Role::input, &p->d_lse},
                    {o.delta, Argument::options_delta, p->reads_delta ? Role::input : Role::output, &p->delta}};
  for (const auto &t : of_queries) {
    if (t.given == nullptr) continue;
    if (attend_status s = operands.read(t.given, t.argument, t.role, Kind::acc, t.to)) return s;
    if (attend_status s = expect_shape(*t.to, t.argument, of_lse, axes_of_lse, said)) return s;
  }
  if (attend_status s = read_gradients(gradients.d_q, gradients.d_k, gradients.d_v, o, &operands, said, p)) return s;
  if (attend_status s = read_states(o, batch, &operands, said, p)) return s;
  if (!fits(*p, batch)) {
    return fail(said, ATTEND_OVERFLOW, Argument::q,
                "sums for its %" PRId64 " queries of %" PRId64 " features take more bytes than 63 bits can count",
                f.out.columns(), f.q.rows());
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (attend_status s = check_total_keys(*p, batch, said)) return s;
  return check_overlaps(*p, batch, said);
}

// Whether there is no gradient of anything.
bool has_nothing_to_do(const AttentionBackward &p) {
  for (const Tensor *t : {&p.d_q, &p.d_k, &p.d_v, &p.d_bias, &p.d_sinks}) {
    if (*t && !is_empty(*t)) return false;
  }
  return p.reads_delta || is_empty(p.delta);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_attention_backward(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                        const attend_tensor *out, const attend_tensor *d_out, const attend_tensor *d_q,
                                        const attend_tensor *d_k, const attend_tensor *d_v,
                                        const attend_attention_backward_options *options,
                                        const attend_attention_options *attention_options) {
  AttentionBackward problem;
  Execution execution;
  Message message;
  if (attend_status s = read(q, k, v, out, {d_out, d_q, d_k, d_v}, options, attention_options, Purpose::compute,
                             &problem, &execution, &message)) {
    return s;
  }
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(
      attention_backward(*active_kernels(), problem, execution), [&] { return attention_backward_need(problem); },
      execution, message);
}

attend_status attend_attention_backward_workspace(const attend_tensor *q, const attend_tensor *k,
                                                  const attend_tensor *v, const attend_tensor *out,
                                                  const attend_tensor *d_out, const attend_tensor *d_q,
                                                  const attend_tensor *d_k, const attend_tensor *d_v,
                                                  const attend_attention_backward_options *options,
                                                  const attend_attention_options *attention_options, uint64_t *bytes) {
  AttentionBackward problem;
  Execution execution;
  Message message;
  if (attend_status s = read(q, k, v, out, {d_out, d_q, d_k, d_v}, options, attention_options, Purpose::size, &problem,
                             &execution, &message)) {
    return s;
  }
  return store_bytes(has_nothing_to_do(problem) ? Need() : attention_backward_need(problem), execution.threads, message,
                     bytes);
}
