// The sentence that a failing call leaves in its caller's buffer. What finds a fault says here what it knows of it and gets
// the status back. Nothing is formatted where no buffer was given, and nothing allocates or depends on the locale.
//
// Sentences begin with the argument and a colon. Another operand is named as "q's", and nothing else is written like that,
// so that bindings can put their own names. Extents are counted in words that hold for arrays of either order; only where
// no such word is known they are rows and columns.
#pragma once

#include "api/argument.hpp"
#include "api/signatures.hpp"
#include "drivers/tensor.hpp"

namespace attend {

struct Message {
  char *text = nullptr;  // null = not wanted
  uint64_t size = 0;
  bool of_attention_options = false;  // what is said of options' fields concerns those of attention_options
};

// What an extent counts.
enum class Count : unsigned char { rows, columns, heads, batches, features, queries, keys, items };

// What an extent counts, and the one that it must equal: whose (none: unsaid), and what that one counts.
struct Axis {
  Count counts;
  Argument as = Argument::none;
  Count there = counts;
};
struct Axes {
  Axis axis[4];
};
constexpr Axes kPlainAxes = {{{Count::rows}, {Count::columns}, {Count::heads}, {Count::batches}}};
// All those of another operand.
constexpr Axes axes_of(Argument as) {
  return {{{Count::rows, as}, {Count::columns, as}, {Count::heads, as}, {Count::batches, as}}};
}

// Of an element type.
const char *name_of(uint32_t dtype);
inline const char *name_of(Dtype dtype) { return name_of(static_cast<uint32_t>(dtype)); }

#define ATTEND_COLD [[gnu::cold, gnu::noinline]]

// "<argument>: <format>."
ATTEND_COLD [[gnu::format(printf, 4, 5)]] attend_status fail(const Message &to, int32_t reason, Argument argument,
                                                             const char *format, ...);

// ATTEND_INVALID_VALUE: "is <number>, but must be <needed>".
ATTEND_COLD attend_status wrong_value(const Message &to, Argument argument, int64_t number, const char *needed);
ATTEND_COLD attend_status wrong_value(const Message &to, Argument argument, double number, const char *needed);

// The same of one that is_representable denies.
ATTEND_COLD attend_status not_representable(const Message &to, Argument argument, double number, Dtype dtype);

// ATTEND_INVALID_SHAPE
ATTEND_COLD attend_status negative_extent(const Message &to, Argument argument, size_t dimension, int64_t extent);
ATTEND_COLD attend_status wrong_extent(const Message &to, Argument argument, const Axis &axis, int64_t extent,
                                       int64_t needed, bool or_one);

// ATTEND_INVALID_DTYPE: a type that is in no row of `left`.
ATTEND_COLD attend_status wrong_type(const Message &to, Argument argument, const Signatures &types, Rows left,
                                     Kind kind, uint32_t dtype);

// ATTEND_OVERFLOW
ATTEND_COLD attend_status too_wide(const Message &to, Argument argument, const Tensor &tensor);

// ATTEND_INVALID_STRIDE: the elements along a dimension are too close.
ATTEND_COLD attend_status too_close(const Message &to, Argument argument, const Tensor &tensor, size_t dimension,
                                    int64_t needed);

ATTEND_COLD attend_status overlap(const Message &to, Argument output, Argument other);

#undef ATTEND_COLD

}  // namespace attend
