#include "api/rotary_options.hpp"

#include <cinttypes>

namespace attend {

attend_status read_tables(const attend_tensor *cos, const attend_tensor *sin, int64_t rotary_dims,
                          const RotaryNames &names, Operands *operands, const Message &message, Rotary *p) {
  const int64_t features = p->x.rows(), dims = rotary_dims == 0 ? features : rotary_dims;
  if (dims < 0 || dims > features || dims % 2 != 0) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_rotary_dims,
                "is %" PRId64 " for %" PRId64 " features, but must be even and at most as many, 0 for all of them",
                rotary_dims, features);
  }
  p->pairs = dims / 2;
  if (attend_status s = operands->read(cos, names.cos, Role::input, Kind::right, &p->cos)) return s;
  if (attend_status s = operands->read(sin, names.sin, Role::input, Kind::right, &p->sin)) return s;
  if (p->cos.rows() != p->pairs) {
    return fail(message, ATTEND_INVALID_SHAPE, names.cos,
                "has %" PRId64 " rows, not %" PRId64 ", one for each pair of rotated features", p->cos.rows(),
                p->pairs);
  }
  // Of packed sequences the batch is no extent of x.
  const Axes axes = {{{Count::rows},
                      {Count::columns},
                      {Count::heads, names.x},
                      {Count::batches, p->tokens.starts == nullptr ? names.x : Argument::none}}};
  const std::array<int64_t, 4> shape = {p->pairs, p->cos.columns(), p->x.heads(), p->tokens.batch};
  if (attend_status s = expect_shape(p->cos, names.cos, shape, axes, message, kHeadsAndBatch)) return s;
  return expect_shape(p->sin, names.sin, p->cos.shape, axes_of(names.cos), message);
}

attend_status check_positions(const Rotary &p, const RotaryNames &names, const Message &message) {
  const int64_t positions = p.cos.columns();
  const Tokens &tokens = p.tokens;
  if (tokens.positions != nullptr) {
    const int64_t count = tokens.count();
    for (int64_t t = 0; t < count; ++t) {
      const bool goes_nowhere = p.to.slots != nullptr && p.to.slots[t] == -1;
      const int64_t position = tokens.positions[t];
      if (goes_nowhere || (position >= 0 && position < positions)) continue;
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_positions,
                  "is %" PRId64 " for item %" PRId64 ", but %s has %" PRId64 " positions, counted from 0", position, t,
                  attend_status_argument(failure(0, names.cos)), positions);
    }
    return ATTEND_OK;
  }
  // Without arrays all are alike.
  const int64_t different = tokens.starts != nullptr || tokens.offsets != nullptr ? tokens.batch : 1;
  for (int64_t b = 0; b < different; ++b) {
    const int64_t length = tokens.length(b), offset = tokens.offset(b);
    if (length == 0 || (offset >= 0 && length <= positions && offset <= positions - length)) continue;
    if (tokens.offsets == nullptr) {
      return fail(message, ATTEND_INVALID_VALUE, names.cos,
                  "has %" PRId64 " positions for the %" PRId64 " items of batch %" PRId64, positions, length, b);
    }
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_offsets,
                "is %" PRId64 " for batch %" PRId64 " of %" PRId64 " items, but %s has %" PRId64
                " positions, counted from 0",
                offset, b, length, attend_status_argument(failure(0, names.cos)), positions);
  }
  return ATTEND_OK;
}

}  // namespace attend
