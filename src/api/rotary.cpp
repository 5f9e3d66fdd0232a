#include "drivers/rotary.hpp"

#include <cstddef>

#include "api/rotary_options.hpp"
#include "api/serving.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_rotary_options, starts) + sizeof(void *);
constexpr RotaryNames kNames = {Argument::x, Argument::cos, Argument::sin};

// What the arrays say, which ..._workspace does not look at.
attend_status check_arrays(const Rotary &p, const Message &message) {
  if (p.tokens.starts != nullptr) {
    const Argument starts = Argument::options_starts;
    if (attend_status s = check_starts(p.tokens.starts, p.tokens.batch, p.tokens.columns, starts, message)) return s;
  }
  return check_positions(p, kNames, message);
}

attend_status check_overlaps(const Rotary &p, const Message &message) {
  if (!same_view(p.x, p.y) || size_of(p.x.dtype) != size_of(p.y.dtype)) {
    if (attend_status s = expect_apart(p.y, Argument::y, p.x, Argument::x, message)) return s;
  }
  const int64_t starts = p.tokens.batch + 1;
  const struct {
    Tensor tensor;
    Argument argument;
  } others[] = {{p.cos, Argument::cos},
                {p.sin, Argument::sin},
                {integers(p.tokens.starts, starts), Argument::options_starts},
                {integers(p.tokens.offsets, p.tokens.batch), Argument::options_offsets},
                {integers(p.tokens.positions, p.tokens.count()), Argument::options_positions}};
  for (const auto &o : others) {
    if (attend_status s = expect_apart(p.y, Argument::y, o.tensor, o.argument, message)) return s;
  }
  return ATTEND_OK;
}

attend_status read(const attend_tensor *x, const attend_tensor *cos, const attend_tensor *sin, const attend_tensor *y,
                   const attend_rotary_options *given, Purpose purpose, Rotary *p, Execution *execution,
                   Message *message) {
  attend_rotary_options o;
  if (attend_status s = read_options(given, kFirstVersion, ATTEND_ROTARY_INTERLEAVED | ATTEND_ROTARY_INVERSE, purpose,
                                     &o, execution, message)) {
    return s;
  }
  Operands operands(kRotaryTypes, purpose, *message);
  if (attend_status s = operands.read(x, Argument::x, Role::input, Kind::left, &p->x)) return s;
  if (attend_status s = check_packing(o.sequences, o.starts, p->x, Argument::x, *message)) return s;
  p->interleaved = (o.flags & ATTEND_ROTARY_INTERLEAVED) != 0;
  p->inverse = (o.flags & ATTEND_ROTARY_INVERSE) != 0;
  p->tokens = {p->x.columns(), o.starts != nullptr ? o.sequences : p->x.batch(), o.starts, o.offsets, o.positions};
  if (o.positions != nullptr && o.offsets != nullptr) {
    return fail(*message, ATTEND_INVALID_VALUE, Argument::options_offsets,
                "is given beside positions, which say all of them");
  }
  if (attend_status s = read_tables(cos, sin, o.rotary_dims, kNames, &operands, *message, p)) return s;
  if (attend_status s = operands.read(y, Argument::y, Role::output, Kind::out, &p->y)) return s;
  if (attend_status s = expect_shape(p->y, Argument::y, p->x.shape, axes_of(Argument::x), *message)) return s;
  // Where no array says otherwise, the columns are the positions.
  const bool are_columns = o.starts == nullptr && o.offsets == nullptr && o.positions == nullptr;
  if (are_columns && !is_empty(p->x)) {
    if (attend_status s = check_positions(*p, kNames, *message)) return s;
  }
  if (purpose == Purpose::size || is_empty(p->x)) return ATTEND_OK;
  if (attend_status s = check_overlaps(*p, *message)) return s;
  return check_arrays(*p, *message);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_rotary(const attend_tensor *x, const attend_tensor *cos, const attend_tensor *sin,
                            const attend_tensor *y, const attend_rotary_options *options) {
  Rotary problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, cos, sin, y, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (!is_empty(problem.x)) rotary(*active_kernels(), problem, execution);
  return ATTEND_OK;
}

attend_status attend_rotary_workspace(const attend_tensor *x, const attend_tensor *cos, const attend_tensor *sin,
                                      const attend_tensor *y, const attend_rotary_options *options, uint64_t *bytes) {
  Rotary problem;
  Execution execution;
  Message message;
  if (attend_status s = read(x, cos, sin, y, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(Need(), execution.threads, message, bytes);
}
