#include "drivers/convert.hpp"

#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_convert_options, scale) + sizeof(void *);

constexpr Axes kAxes = axes_of(Argument::x);

attend_status read(const attend_tensor *x, const attend_tensor *y, const attend_convert_options *given, Purpose purpose,
                   Convert *p, Execution *execution, Message *message) {
  attend_convert_options options;
  if (attend_status s =
          read_options(given, kFirstVersion, ATTEND_COMPUTE_SCALE, purpose, &options, execution, message)) {
    return s;
  }
  p->computes_scale = (options.flags & ATTEND_COMPUTE_SCALE) != 0;
  Operands operands(kConvertTypes, purpose, *message);
  if (attend_status s = operands.read(x, Argument::x, Role::input, Kind::left, &p->x)) return s;
  if (attend_status s = operands.read(y, Argument::y, Role::output, Kind::out, &p->y)) return s;
  if (attend_status s = operands.read_optional(options.scale, Argument::options_scale,
                                               p->computes_scale ? Role::output : Role::input, Kind::acc, &p->scale))
    return s;
  if (attend_status s = expect_shape(p->y, Argument::y, p->x.shape, kAxes, *message)) return s;
  if (p->computes_scale) {
    if (p->y.dtype != Dtype::i8 && p->y.dtype != Dtype::f8e4m3) {
      return fail(*message, ATTEND_INVALID_VALUE, Argument::options_flags,
                  "has ATTEND_COMPUTE_SCALE, but y's type is %s, not int8 or float8_e4m3", name_of(p->y.dtype));
    }
    if (!p->scale) {
      return fail(*message, ATTEND_NULL_POINTER, Argument::options_scale,
                  "is null, but required with ATTEND_COMPUTE_SCALE");
    }
  }
  if (p->scale) {
    if (takes_scale(p->x.dtype) == takes_scale(p->y.dtype)) {
      return fail(*message, ATTEND_INVALID_VALUE, Argument::options_scale,
                  "is given, but x's type is %s and y's type %s: one of the two must be int8, uint8 or float8_e4m3",
                  name_of(p->x.dtype), name_of(p->y.dtype));
    }
    if (attend_status s = expect_shape(p->scale, Argument::options_scale, p->x.shape, kAxes, *message, kAll)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (!same_view(p->x, p->y) || size_of(p->x.dtype) != size_of(p->y.dtype)) {
    if (attend_status s = expect_apart(p->y, Argument::y, p->x, Argument::x, *message)) return s;
  }
  if (attend_status s = expect_apart(p->y, Argument::y, p->scale, Argument::options_scale, *message)) return s;
  if (!p->computes_scale) return ATTEND_OK;
  return expect_apart(p->scale, Argument::options_scale, p->x, Argument::x, *message);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_convert(const attend_tensor *x, const attend_tensor *y, const attend_convert_options *options) {
  Convert problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, y, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (!is_empty(problem.x)) convert(*active_kernels(), problem, execution);
  return ATTEND_OK;
}

attend_status attend_convert_workspace(const attend_tensor *x, const attend_tensor *y,
                                       const attend_convert_options *options, uint64_t *bytes) {
  Convert problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, y, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(Need(), execution.threads, message, bytes);
}
