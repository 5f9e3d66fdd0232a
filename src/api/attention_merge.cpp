#include "drivers/attention_merge.hpp"

#include <cstddef>

#include "api/boundary.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_merge_options, reserved) + sizeof(uint32_t);

attend_status read(const attend_tensor *out_a, const attend_tensor *lse_a, const attend_tensor *out_b,
                   const attend_tensor *lse_b, const attend_merge_options *given, AttentionMerge *p, int *threads) {
  attend_merge_options options;
  Execution execution;
  if (attend_status s = read_struct(given, kFirstVersion, Argument::options_size, &options)) return s;
  if (attend_status s =
          check_head(options.flags, 0, options.threads, options.reserved, nullptr, 0, Purpose::compute, &execution))
    return s;
  *threads = execution.threads;
  uint32_t dtype = kAnyDtype;
  const Purpose purpose = Purpose::compute;
  if (attend_status s = read_tensor(out_a, Argument::out_a, Role::output, purpose, &dtype, &p->out_a)) return s;
  if (attend_status s = read_tensor(lse_a, Argument::lse_a, Role::output, purpose, &dtype, &p->lse_a)) return s;
  if (attend_status s = read_tensor(out_b, Argument::out_b, Role::input, purpose, &dtype, &p->out_b)) return s;
  if (attend_status s = read_tensor(lse_b, Argument::lse_b, Role::input, purpose, &dtype, &p->lse_b)) return s;
  p->dtype = dtype_of(dtype);
  const std::array<int64_t, 4> &shape = p->out_a.shape, of_lse = {1, shape[1], shape[2], shape[3]};
  if (attend_status s = expect_shape(p->lse_a, Argument::lse_a, of_lse)) return s;
  if (attend_status s = expect_shape(p->out_b, Argument::out_b, shape)) return s;
  if (attend_status s = expect_shape(p->lse_b, Argument::lse_b, of_lse)) return s;
  for (const Tensor *other : {&p->lse_a, &p->out_b, &p->lse_b}) {
    if (attend_status s = expect_apart(p->out_a, Argument::out_a, *other)) return s;
  }
  for (const Tensor *other : {&p->out_b, &p->lse_b}) {
    if (attend_status s = expect_apart(p->lse_a, Argument::lse_a, *other)) return s;
  }
  return ATTEND_OK;
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_attention_merge(const attend_tensor *out_a, const attend_tensor *lse_a, const attend_tensor *out_b,
                                     const attend_tensor *lse_b, const attend_merge_options *options) {
  AttentionMerge problem;
  int threads = 0;
  if (attend_status s = read(out_a, lse_a, out_b, lse_b, options, &problem, &threads)) return s;
  if (!is_empty(problem.lse_a)) attention_merge(problem, threads);
  return ATTEND_OK;
}
