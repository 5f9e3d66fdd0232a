#include "drivers/attention_merge.hpp"

#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_merge_options, executor) + sizeof(void *);

constexpr Axes kAxes = {{{Count::features, Argument::out_a},
                         {Count::queries, Argument::out_a},
                         {Count::heads, Argument::out_a},
                         {Count::batches, Argument::out_a}}};
constexpr Axes kAxesOfLse = {{{Count::features},
                              {Count::queries, Argument::out_a},
                              {Count::heads, Argument::out_a},
                              {Count::batches, Argument::out_a}}};

attend_status read(const attend_tensor *out_a, const attend_tensor *lse_a, const attend_tensor *out_b,
                   const attend_tensor *lse_b, const attend_merge_options *given, Purpose purpose, AttentionMerge *p,
                   Execution *execution, Message *message) {
  attend_merge_options options;
  if (attend_status s = read_options(given, kFirstVersion, 0, purpose, &options, execution, message)) return s;
  Operands operands(kMergeTypes, purpose, *message);
  if (attend_status s = operands.read(out_a, Argument::out_a, Role::output, Kind::out, &p->out_a)) return s;
  if (attend_status s = operands.read(lse_a, Argument::lse_a, Role::output, Kind::acc, &p->lse_a)) return s;
  if (attend_status s = operands.read(out_b, Argument::out_b, Role::input, Kind::left, &p->out_b)) return s;
  if (attend_status s = operands.read(lse_b, Argument::lse_b, Role::input, Kind::acc, &p->lse_b)) return s;
  const std::array<int64_t, 4> &shape = p->out_a.shape, of_lse = {1, shape[1], shape[2], shape[3]};
  if (attend_status s = expect_shape(p->lse_a, Argument::lse_a, of_lse, kAxesOfLse, *message)) return s;
  if (attend_status s = expect_shape(p->out_b, Argument::out_b, shape, kAxes, *message)) return s;
  if (attend_status s = expect_shape(p->lse_b, Argument::lse_b, of_lse, kAxesOfLse, *message)) return s;
  if (purpose == Purpose::size) return ATTEND_OK;
  if (attend_status s = expect_apart(p->out_a, Argument::out_a, p->lse_a, Argument::lse_a, *message)) return s;
  const struct {
    const Tensor *tensor;
    Argument argument;
  } inputs[] = {{&p->out_b, Argument::out_b}, {&p->lse_b, Argument::lse_b}};
  for (const auto &i : inputs) {
    if (attend_status s = expect_apart(p->out_a, Argument::out_a, *i.tensor, i.argument, *message)) return s;
    if (attend_status s = expect_apart(p->lse_a, Argument::lse_a, *i.tensor, i.argument, *message)) return s;
  }
  return ATTEND_OK;
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_attention_merge(const attend_tensor *out_a, const attend_tensor *lse_a, const attend_tensor *out_b,
                                     const attend_tensor *lse_b, const attend_merge_options *options) {
  AttentionMerge problem;
  Execution execution;
  Message message;
  if (attend_status s = read(out_a, lse_a, out_b, lse_b, options, Purpose::compute, &problem, &execution, &message)) {
    return s;
  }
  if (!is_empty(problem.lse_a)) attention_merge(*active_kernels(), problem, execution);
  return ATTEND_OK;
}

attend_status attend_attention_merge_workspace(const attend_tensor *out_a, const attend_tensor *lse_a,
                                               const attend_tensor *out_b, const attend_tensor *lse_b,
                                               const attend_merge_options *options, uint64_t *bytes) {
  AttentionMerge problem;
  Execution execution;
  Message message;
  if (attend_status s = read(out_a, lse_a, out_b, lse_b, options, Purpose::size, &problem, &execution, &message)) {
    return s;
  }
  return store_bytes(Need(), execution.threads, message, bytes);
}
