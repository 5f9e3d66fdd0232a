#include "drivers/attention.hpp"

#include <cmath>

#include "api/attention_operands.hpp"
#include "api/plain_matrix.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention_small.hpp"

namespace attend {
namespace {

attend_status read(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v, const attend_tensor *out,
                   const attend_attention_options *given, Purpose purpose, Attention *p, Execution *execution,
                   Message *message) {
  AttentionOptions options;
  if (attend_status s = read_attention_options(given, purpose, &options, p)) return s;
  *message = options.message;
  *execution = options.execution;
  Operands operands(kAttentionTypes, purpose, *message);
  int64_t batch = 0;
  if (attend_status s =
          read_operands(q, k, v, out, Argument::out, Role::output, options, &operands, purpose, p, &batch))
    return s;
  if (purpose == Purpose::size) return ATTEND_OK;
  const struct {
    const Tensor &tensor;
    Argument argument;
  } others[] = {{p->out, Argument::out}, {p->q, Argument::q}, {p->k, Argument::k}, {p->v, Argument::v}},
    outputs[] = {{p->out, Argument::out},
                 {p->lse, Argument::options_lse},
                 {p->scores, Argument::options_scores},
                 {p->state, Argument::options_state}};
  for (const auto &o : outputs) {
    if (&o.tensor == &p->state && !p->pauses) continue;
    for (const auto &other : others) {
      if (&other.tensor == &o.tensor) continue;
      if (attend_status s = expect_apart(o.tensor, o.argument, other.tensor, other.argument, *message)) return s;
    }
    if (attend_status s = expect_apart_from_options(o.tensor, o.argument, *p, batch, *message)) return s;
  }
  return ATTEND_OK;
}

bool has_nothing_to_do(const Attention &p) {
  return is_empty(p.out) && (!p.lse || is_empty(p.lse)) && (!p.scores || is_empty(p.scores)) &&
         (!p.pauses || is_empty(p.state));
}

// Small calls whose arguments are beyond doubt; false leaves the call to the general way.
template <class T>
bool attend_at_once(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v, const attend_tensor *out,
                    const attend_attention_options *options) {
  SmallAttention<T> p;
  PlainMatrix mq, mk, mv, mo;
  if (!only_scales(options, dtype_of<T>(), &p.scale)) return false;
  if (!is_plain<T>(q, &mq) || !is_plain<T>(k, &mk) || !is_plain<T>(v, &mv) || !is_plain<T>(out, &mo)) return false;
  if (mk.rows != mq.rows || mv.columns != mk.columns || mo.rows != mv.rows || mo.columns != mq.columns) return false;
  if (!is_distinct(mo) || !is_apart(mo, mq) || !is_apart(mo, mk) || !is_apart(mo, mv)) return false;
  if (p.scale == 0) p.scale = 1 / std::sqrt(static_cast<double>(mq.rows));
  p.q = view_of<const T>(mq), p.k = view_of<const T>(mk), p.v = view_of<const T>(mv), p.out = view_of<T>(mo);
  return attention_small(*active_kernels(), p, execution_of(options));
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_attention(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                               const attend_tensor *out, const attend_attention_options *options) {
  if (out != nullptr && out->dtype == ATTEND_F32) {
    if (attend_at_once<float>(q, k, v, out, options)) return ATTEND_OK;
  } else if (out != nullptr && out->dtype == ATTEND_F64) {
    if (attend_at_once<double>(q, k, v, out, options)) return ATTEND_OK;
  }
  Attention problem;
  Execution execution;
  Message message;
  if (attend_status s = read(q, k, v, out, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(
      attention(*active_kernels(), problem, execution), [&] { return attention_need(problem); }, execution, message);
}

attend_status attend_attention_workspace(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                         const attend_tensor *out, const attend_attention_options *options,
                                         uint64_t *bytes) {
  Attention problem;
  Execution execution;
  Message message;
  if (attend_status s = read(q, k, v, out, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(has_nothing_to_do(problem) ? Need() : attention_need(problem), execution.threads, message, bytes);
}
