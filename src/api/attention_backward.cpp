#include "drivers/attention_backward.hpp"

#include <cinttypes>
#include <cstddef>
#include <tuple>

#include "api/attention_operands.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention_backward_plan.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_attention_backward_options, d_sinks) + sizeof(void *);

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
  const struct {
    const Tensor &tensor;
    Argument argument;
  } inputs[] = {{f.q, Argument::q},
                {f.k, Argument::k},
                {f.v, Argument::v},
                {f.out, Argument::out},
                {p.d_out, Argument::d_out},
                {p.d_lse, Argument::options_d_lse},
                {f.lse, Argument::options_lse}},
    outputs[] = {{p.d_q, Argument::d_q},
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
  if (attend_status s = read_options(given, kFirstVersion, ATTEND_ACCUMULATE, purpose, &o, execution, message))
    return s;
  p->accumulates = (o.flags & ATTEND_ACCUMULATE) != 0;
  AttentionOptions inner;
  inner.message = *message;
  inner.message.of_attention_options = true;  // those of `options` are done with
  inner.role_of_lse = Role::input;
  const Message &said = inner.message;
  Attention &f = p->forward;
  if (attend_status s = read_attention_options(attention_given, purpose, &inner, &f)) return s;
  if (attend_status s = expect_plain_head(attention_given, inner)) return s;
  if (attend_status s = check_forward(inner, f)) return s;
  Operands operands(kAttentionBackwardTypes, purpose, said);
  int64_t batch = 0;
  if (attend_status s = read_operands(q, k, v, out, Role::input, inner, &operands, purpose, &f, &batch)) return s;
  if (attend_status s = operands.read(gradients.d_out, Argument::d_out, Role::input, Kind::left, &p->d_out)) return s;
  if (attend_status s = expect_shape(p->d_out, Argument::d_out, f.out.shape, axes_of(Argument::out), said)) return s;
  if (o.d_lse != nullptr) {
    constexpr Argument kDLse = Argument::options_d_lse;
    const std::array<int64_t, 4> of_lse = {1, f.out.columns(), f.out.heads(), f.out.batch()};
    constexpr Axes kAxes = {{{Count::features},
                             {Count::queries, Argument::out},
                             {Count::heads, Argument::out},
                             {Count::batches, Argument::out}}};
    if (attend_status s = operands.read(o.d_lse, kDLse, Role::input, Kind::acc, &p->d_lse)) return s;
    if (attend_status s = expect_shape(p->d_lse, kDLse, of_lse, kAxes, said)) return s;
  }
  if (attend_status s = read_gradients(gradients.d_q, gradients.d_k, gradients.d_v, o, &operands, said, p)) return s;
  if (!fits(*p, batch)) {
    return fail(said, ATTEND_OVERFLOW, Argument::q,
                "sums for its %" PRId64 " queries of %" PRId64 " features take more bytes than 63 bits can count",
                f.out.columns(), f.q.rows());
  }
  return purpose == Purpose::size ? ATTEND_OK : check_overlaps(*p, batch, said);
}

// Whether there is no gradient of anything.
bool has_nothing_to_do(const AttentionBackward &p) {
  for (const Tensor *t : {&p.d_q, &p.d_k, &p.d_v, &p.d_bias, &p.d_sinks}) {
    if (*t && !is_empty(*t)) return false;
  }
  return true;
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
