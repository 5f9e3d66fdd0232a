#include "drivers/attention.hpp"

#include <cmath>

#include "api/attention_options.hpp"
#include "api/plain_matrix.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention_small.hpp"

namespace attend {
namespace {

// The scale of K or V: integers want one, f8e4m3 may have one.
attend_status read_scale(const attend_tensor *given, Argument argument, const Tensor &of, int64_t batch,
                         Operands *operands, Tensor *scale) {
  const bool is_integer = of.dtype == Dtype::i8;
  if (given == nullptr) return is_integer ? failure(ATTEND_NULL_POINTER, argument) : ATTEND_OK;
  if (!is_integer && of.dtype != Dtype::f8e4m3) return failure(ATTEND_INVALID_VALUE, argument);
  if (attend_status s = operands->read(given, argument, Role::input, Kind::acc, scale)) return s;
  if (attend_status s = expect_shape(*scale, argument, {of.rows(), of.columns(), of.heads(), batch}, kAll)) return s;
  return scale->rows() != 1 && scale->columns() != 1 ? failure(ATTEND_INVALID_SHAPE, argument) : ATTEND_OK;
}

attend_status read(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v, const attend_tensor *out,
                   const attend_attention_options *given, Purpose purpose, Attention *p, Execution *execution) {
  AttentionOptions options;
  if (attend_status s = read_attention_options(given, purpose, &options, p)) return s;
  *execution = options.execution;
  Operands operands(kAttentionTypes, purpose);
  if (attend_status s = operands.read(q, Argument::q, Role::input, Kind::left, &p->q)) return s;
  if (attend_status s = operands.read(k, Argument::k, Role::input, Kind::right, &p->k)) return s;
  if (attend_status s = operands.read(v, Argument::v, Role::input, Kind::right, &p->v)) return s;
  if (attend_status s = operands.read(out, Argument::out, Role::output, Kind::out, &p->out)) return s;
  const std::array<int64_t, 4> &shape = p->out.shape;
  const int64_t features = p->q.rows(), heads = shape[2], kv_heads = p->k.heads(), batch = shape[3];
  if (features == 0) return failure(ATTEND_INVALID_SHAPE, Argument::q);
  if (features > kMostFeatures) return failure(ATTEND_OVERFLOW, Argument::q);
  if (shape[0] > kMostFeatures) return failure(ATTEND_OVERFLOW, Argument::out);
  if (attend_status s = expect_shape(p->q, Argument::q, {features, shape[1], heads, batch}, kBatch)) return s;
  if (attend_status s = expect_shape(p->k, Argument::k, {features, p->k.columns(), kv_heads, batch}, kBatch)) return s;
  if (attend_status s = expect_shape(p->v, Argument::v, {shape[0], p->k.columns(), kv_heads, batch}, kBatch)) return s;
  if (attend_status s = read_scale(options.k_scale, Argument::options_k_scale, p->k, batch, &operands, &p->k_scale))
    return s;
  if (attend_status s = read_scale(options.v_scale, Argument::options_v_scale, p->v, batch, &operands, &p->v_scale))
    return s;
  if (heads != 0 && (kv_heads == 0 || heads % kv_heads != 0)) return failure(ATTEND_INVALID_SHAPE, Argument::k);
  if (attend_status s = finish_attention(options, &operands, p->q.dtype, features, p->k.columns(), shape, purpose, p))
    return s;
  if (purpose == Purpose::size) return ATTEND_OK;
  const struct {
    const Tensor *output;
    Argument argument;
  } outputs[] = {{&p->out, Argument::out}, {&p->lse, Argument::options_lse}, {&p->scores, Argument::options_scores}};
  const Tensor offsets = integers(p->offsets, batch), firsts = integers(p->firsts, batch),
               lengths = integers(p->lengths, batch);
  const Tensor *const others[] = {&p->q,    &p->k,   &p->v,    &p->mask, &p->bias,    &p->slopes, &p->sinks,
                                  &offsets, &firsts, &lengths, &p->out,  &p->k_scale, &p->v_scale};
  for (const auto &o : outputs) {
    for (const Tensor *other : others) {
      if (other == o.output) continue;
      if (attend_status s = expect_apart(*o.output, o.argument, *other)) return s;
    }
  }
  return ATTEND_OK;
}

bool has_nothing_to_do(const Attention &p) {
  return is_empty(p.out) && (!p.lse || is_empty(p.lse)) && (!p.scores || is_empty(p.scores));
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
  if (attend_status s = read(q, k, v, out, options, Purpose::compute, &problem, &execution)) return s;
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(attention(*active_kernels(), problem, execution));
}

attend_status attend_attention_workspace(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                                         const attend_tensor *out, const attend_attention_options *options,
                                         uint64_t *bytes) {
  if (bytes == nullptr) return failure(ATTEND_NULL_POINTER, Argument::bytes);
  Attention problem;
  Execution execution;
  if (attend_status s = read(q, k, v, out, options, Purpose::size, &problem, &execution)) return s;
  return store_bytes(has_nothing_to_do(problem) ? Need() : attention_need(problem), execution.threads, bytes);
}
