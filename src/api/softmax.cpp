#include "drivers/softmax.hpp"

#include <cmath>
#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_softmax_options, lse) + sizeof(void *);

constexpr Axes kAxes = axes_of(Argument::x);
constexpr Axes kAxesOfLse = {
    {{Count::rows}, {Count::columns, Argument::x}, {Count::heads, Argument::x}, {Count::batches, Argument::x}}};

attend_status read(const attend_tensor *x, const attend_tensor *y, const attend_softmax_options *given, Purpose purpose,
                   Softmax *p, Execution *execution, Message *message) {
  attend_softmax_options options;
  if (attend_status s = read_options(given, kFirstVersion, ATTEND_LOG, purpose, &options, execution, message)) return s;
  if (!std::isfinite(options.scale)) return wrong_value(*message, Argument::options_scale, options.scale, "finite");
  Operands operands(kSoftmaxTypes, purpose, *message);
  if (attend_status s = operands.read(x, Argument::x, Role::input, Kind::left, &p->x)) return s;
  if (attend_status s = operands.read(y, Argument::y, Role::output, Kind::out, &p->y)) return s;
  if (attend_status s = operands.read_optional(options.lse, Argument::options_lse, Role::output, Kind::acc, &p->lse))
    return s;
  if (attend_status s = operands.read_optional(options.mask, Argument::options_mask, Role::input, Kind::mask, &p->mask))
    return s;
  if (attend_status s =
          operands.read_optional(options.bias, Argument::options_bias, Role::input, Kind::added, &p->bias))
    return s;
  if (!is_representable(options.scale, p->x.dtype)) {
    return not_representable(*message, Argument::options_scale, options.scale, p->x.dtype);
  }
  p->scale = options.scale == 0 ? 1 : options.scale;
  p->log = (options.flags & ATTEND_LOG) != 0;
  if (attend_status s = expect_shape(p->y, Argument::y, p->x.shape, kAxes, *message)) return s;
  if (p->mask) {
    if (attend_status s = expect_shape(p->mask, Argument::options_mask, p->x.shape, kAxes, *message, kAll)) return s;
  }
  if (p->bias) {
    if (attend_status s = expect_shape(p->bias, Argument::options_bias, p->x.shape, kAxes, *message, kAll)) return s;
  }
  if (p->lse) {
    const std::array<int64_t, 4> shape = {1, p->x.columns(), p->x.heads(), p->x.batch()};
    if (attend_status s = expect_shape(p->lse, Argument::options_lse, shape, kAxesOfLse, *message)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (!same_view(p->x, p->y)) {
    if (attend_status s = expect_apart(p->y, Argument::y, p->x, Argument::x, *message)) return s;
  }
  const struct {
    const Tensor *tensor;
    Argument argument;
  } others[] = {{&p->mask, Argument::options_mask},
                {&p->bias, Argument::options_bias},
                {&p->x, Argument::x},
                {&p->y, Argument::y}};
  for (const auto &o : others) {
    if (o.tensor != &p->x && o.tensor != &p->y) {
      if (attend_status s = expect_apart(p->y, Argument::y, *o.tensor, o.argument, *message)) return s;
    }
    if (attend_status s = expect_apart(p->lse, Argument::options_lse, *o.tensor, o.argument, *message)) return s;
  }
  return ATTEND_OK;
}

bool has_nothing_to_do(const Softmax &p) { return is_empty(p.y) && (!p.lse || is_empty(p.lse)); }

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_softmax(const attend_tensor *x, const attend_tensor *y, const attend_softmax_options *options) {
  Softmax problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, y, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(
      softmax(*active_kernels(), problem, execution), [&] { return softmax_need(problem); }, execution, message);
}

attend_status attend_softmax_workspace(const attend_tensor *x, const attend_tensor *y,
                                       const attend_softmax_options *options, uint64_t *bytes) {
  Softmax problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, y, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(has_nothing_to_do(problem) ? Need() : softmax_need(problem), execution.threads, message, bytes);
}
