#include "drivers/softmax_backward.hpp"

#include <cmath>
#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_softmax_backward_options, d_lse) + sizeof(void *);

constexpr Axes kAxes = axes_of(Argument::y);
constexpr Axes kAxesOfLse = {
    {{Count::rows}, {Count::columns, Argument::y}, {Count::heads, Argument::y}, {Count::batches, Argument::y}}};

attend_status read(const attend_tensor *y, const attend_tensor *d_y, const attend_tensor *d_x,
                   const attend_softmax_backward_options *given, Purpose purpose, SoftmaxBackward *p,
                   Execution *execution, Message *message) {
  attend_softmax_backward_options options;
  if (attend_status s =
          read_options(given, kFirstVersion, ATTEND_LOG | ATTEND_ACCUMULATE, purpose, &options, execution, message)) {
    return s;
  }
  if (!std::isfinite(options.scale)) return wrong_value(*message, Argument::options_scale, options.scale, "finite");
  Operands operands(kSoftmaxBackwardTypes, purpose, *message);
  if (attend_status s = operands.read(y, Argument::y, Role::input, Kind::left, &p->y)) return s;
  if (attend_status s = operands.read(d_y, Argument::d_y, Role::input, Kind::right, &p->d_y)) return s;
  if (attend_status s = operands.read(d_x, Argument::d_x, Role::output, Kind::out, &p->d_x)) return s;
  if (attend_status s =
          operands.read_optional(options.d_lse, Argument::options_d_lse, Role::input, Kind::acc, &p->d_lse))
    return s;
  if (!is_representable(options.scale, p->y.dtype)) {
    return not_representable(*message, Argument::options_scale, options.scale, p->y.dtype);
  }
  p->scale = options.scale == 0 ? 1 : options.scale;
  p->log = (options.flags & ATTEND_LOG) != 0;
  p->accumulates = (options.flags & ATTEND_ACCUMULATE) != 0;
  if (attend_status s = expect_shape(p->d_y, Argument::d_y, p->y.shape, kAxes, *message)) return s;
  if (attend_status s = expect_shape(p->d_x, Argument::d_x, p->y.shape, kAxes, *message)) return s;
  if (p->d_lse) {
    const std::array<int64_t, 4> shape = {1, p->y.columns(), p->y.heads(), p->y.batch()};
    if (attend_status s = expect_shape(p->d_lse, Argument::options_d_lse, shape, kAxesOfLse, *message)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  const struct {
    const Tensor *tensor;
    Argument argument;
  } inputs[] = {{&p->y, Argument::y}, {&p->d_y, Argument::d_y}};
  for (const auto &input : inputs) {
    if (same_view(*input.tensor, p->d_x) && size_of(input.tensor->dtype) == size_of(p->d_x.dtype)) continue;
    if (attend_status s = expect_apart(p->d_x, Argument::d_x, *input.tensor, input.argument, *message)) return s;
  }
  return expect_apart(p->d_x, Argument::d_x, p->d_lse, Argument::options_d_lse, *message);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_softmax_backward(const attend_tensor *y, const attend_tensor *d_y, const attend_tensor *d_x,
                                      const attend_softmax_backward_options *options) {
  SoftmaxBackward problem;
  Execution execution;
  Message message;
  if (attend_status s = read(y, d_y, d_x, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (is_empty(problem.d_x)) return ATTEND_OK;
  return status_of(
      softmax_backward(*active_kernels(), problem, execution), [&] { return softmax_backward_need(problem); },
      execution, message);
}

attend_status attend_softmax_backward_workspace(const attend_tensor *y, const attend_tensor *d_y,
                                                const attend_tensor *d_x,
                                                const attend_softmax_backward_options *options, uint64_t *bytes) {
  SoftmaxBackward problem;
  Execution execution;
  Message message;
  if (attend_status s = read(y, d_y, d_x, options, Purpose::size, &problem, &execution, &message)) return s;
  const Need need = is_empty(problem.d_x) ? Need() : softmax_backward_need(problem);
  return store_bytes(need, execution.threads, message, bytes);
}
