#include "drivers/softmax.hpp"

#include <cmath>
#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_softmax_options, lse) + sizeof(void *);

attend_status read(const attend_tensor *x, const attend_tensor *y, const attend_softmax_options *given, Purpose purpose,
                   Softmax *p, Execution *execution) {
  attend_softmax_options options;
  if (attend_status s = read_options(given, kFirstVersion, ATTEND_LOG, purpose, &options, execution)) return s;
  if (!std::isfinite(options.scale)) return failure(ATTEND_INVALID_VALUE, Argument::options_scale);
  Operands operands(kSoftmaxTypes, purpose);
  if (attend_status s = operands.read(x, Argument::x, Role::input, Kind::left, &p->x)) return s;
  if (attend_status s = operands.read(y, Argument::y, Role::output, Kind::out, &p->y)) return s;
  if (attend_status s = operands.read_optional(options.lse, Argument::options_lse, Role::output, Kind::acc, &p->lse))
    return s;
  if (attend_status s = operands.read_optional(options.mask, Argument::options_mask, Role::input, Kind::mask, &p->mask))
    return s;
  if (attend_status s =
          operands.read_optional(options.bias, Argument::options_bias, Role::input, Kind::added, &p->bias))
    return s;
  if (!is_representable(options.scale, p->x.dtype)) return failure(ATTEND_INVALID_VALUE, Argument::options_scale);
  p->scale = options.scale == 0 ? 1 : options.scale;
  p->log = (options.flags & ATTEND_LOG) != 0;
  if (attend_status s = expect_shape(p->y, Argument::y, p->x.shape)) return s;
  if (p->mask) {
    if (attend_status s = expect_shape(p->mask, Argument::options_mask, p->x.shape, kAll)) return s;
  }
  if (p->bias) {
    if (attend_status s = expect_shape(p->bias, Argument::options_bias, p->x.shape, kAll)) return s;
  }
  if (p->lse) {
    const std::array<int64_t, 4> shape = {1, p->x.columns(), p->x.heads(), p->x.batch()};
    if (attend_status s = expect_shape(p->lse, Argument::options_lse, shape)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (!same_view(p->x, p->y)) {
    if (attend_status s = expect_apart(p->y, Argument::y, p->x)) return s;
  }
  for (const Tensor *other : {&p->mask, &p->bias}) {
    if (attend_status s = expect_apart(p->y, Argument::y, *other)) return s;
  }
  for (const Tensor *other : {&p->x, &p->y, &p->mask, &p->bias}) {
    if (attend_status s = expect_apart(p->lse, Argument::options_lse, *other)) return s;
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
  if (attend_status s = read(x, y, options, Purpose::compute, &problem, &execution)) return s;
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(softmax(*active_kernels(), problem, execution));
}

attend_status attend_softmax_workspace(const attend_tensor *x, const attend_tensor *y,
                                       const attend_softmax_options *options, uint64_t *bytes) {
  if (bytes == nullptr) return failure(ATTEND_NULL_POINTER, Argument::bytes);
  Softmax problem;
  Execution execution;
  if (attend_status s = read(x, y, options, Purpose::size, &problem, &execution)) return s;
  return store_bytes(has_nothing_to_do(problem) ? Need() : softmax_need(problem), execution.threads, bytes);
}
