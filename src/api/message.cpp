#include "api/message.hpp"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace attend {
namespace {

Argument place(const Message &to, Argument argument) {
  const bool moves = to.of_attention_options && is_option(argument);
  return moves ? in_attention_options(argument) : argument;
}

class Sentence {
 public:
  Sentence(const Message &to, int32_t reason, Argument argument)
      : to_(to), status_(failure(reason, place(to, argument))), at_(to.text), left_(std::min(to.size, kMost)) {
    if (at_ == nullptr) left_ = 0;
    if (argument != Argument::none) add("%s: ", attend_status_argument(status_));
  }
  [[gnu::format(printf, 2, 3)]] Sentence &add(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    add_list(format, arguments);
    va_end(arguments);
    return *this;
  }
  [[gnu::format(printf, 2, 0)]] Sentence &add_list(const char *format, va_list arguments) {
    if (left_ == 0) return *this;
    const int length = std::vsnprintf(at_, left_, format, arguments);
    const uint64_t written = length < 0 ? 0 : std::min<uint64_t>(static_cast<uint64_t>(length), left_ - 1);
    at_ += written;
    left_ -= written;
    return *this;
  }
  Sentence &add_number(double number) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.9g", std::isnan(number) ? std::fabs(number) : number);
    // The locale's decimal point, which may have several bytes, is the only thing that is neither.
    const auto is_plain = [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '+' || c == '-';
    };
    bool in_point = false;
    for (const char *c = digits; *c != 0; ++c) {
      if (is_plain(*c)) add("%c", *c);
      if (!is_plain(*c) && !in_point) add(".");
      in_point = !is_plain(*c);
    }
    return *this;
  }
  Sentence &add_extent(int64_t extent, Count count) {
    static constexpr const char *kWords[][2] = {{"rows", "row"},      {"columns", "column"},   {"heads", "head"},
                                                {"batches", "batch"}, {"features", "feature"}, {"queries", "query"},
                                                {"keys", "key"},      {"items", "item"}};
    return add("%" PRId64 " %s", extent, kWords[static_cast<size_t>(count)][extent == 1]);
  }
  Sentence &add_name_of(Argument other) { return add("%s's", attend_status_argument(failure(0, place(to_, other)))); }
  attend_status end() { return add(".").status_; }

 private:
  // More is never said, and some vsnprintf take no size beyond INT_MAX.
  static constexpr uint64_t kMost = 4096;

  const Message &to_;
  const attend_status status_;
  char *at_;
  uint64_t left_;  // with room for the final 0
};

void add_types(Sentence *sentence, const Signatures &types, Rows rows, Kind kind) {
  int left = 0;
  for (uint32_t t = 0; t < kTypes; ++t) left += (types.with(kind, t) & rows) != 0;
  for (uint32_t t = 0; t < kTypes; ++t) {
    if ((types.with(kind, t) & rows) == 0) continue;
    --left;
    sentence->add("%s%s", name_of(t), left == 0 ? "" : left == 1 ? " or " : ", ");
  }
}

}  // namespace

const char *name_of(uint32_t dtype) {
  static constexpr const char *kNames[kTypes] = {"int64", "float32", "float64", "bfloat16", "float16",
                                                 "int8",  "uint8",   "bool",    "int32",    "float8_e4m3"};
  return kNames[dtype];
}

attend_status fail(const Message &to, int32_t reason, Argument argument, const char *format, ...) {
  Sentence sentence(to, reason, argument);
  va_list arguments;
  va_start(arguments, format);
  sentence.add_list(format, arguments);
  va_end(arguments);
  return sentence.end();
}

attend_status wrong_value(const Message &to, Argument argument, int64_t number, const char *needed) {
  return fail(to, ATTEND_INVALID_VALUE, argument, "is %" PRId64 ", but must be %s", number, needed);
}

attend_status wrong_value(const Message &to, Argument argument, double number, const char *needed) {
  Sentence sentence(to, ATTEND_INVALID_VALUE, argument);
  return sentence.add("is ").add_number(number).add(", but must be %s", needed).end();
}

attend_status not_representable(const Message &to, Argument argument, double number, Dtype dtype) {
  Sentence sentence(to, ATTEND_INVALID_VALUE, argument);
  const char *const type = name_of(acc_of(dtype));
  sentence.add("is ").add_number(number);
  if (std::fabs(number) < 1) return sentence.add(", which is 0 in %s", type).end();
  return sentence.add(", which is beyond %s's largest number", type).end();
}

attend_status negative_extent(const Message &to, Argument argument, size_t dimension, int64_t extent) {
  Sentence sentence(to, ATTEND_INVALID_SHAPE, argument);
  return sentence.add("has ").add_extent(extent, kPlainAxes.axis[dimension].counts).add(", not 0 or more").end();
}

attend_status wrong_extent(const Message &to, Argument argument, const Axis &axis, int64_t extent, int64_t needed,
                           bool or_one) {
  Sentence sentence(to, ATTEND_INVALID_SHAPE, argument);
  sentence.add("has ").add_extent(extent, axis.counts).add(", not %s", or_one && needed != 1 ? "1 or " : "");
  if (axis.as != Argument::none) sentence.add_name_of(axis.as).add(" ");
  if (axis.there == axis.counts) return sentence.add("%" PRId64, needed).end();
  return sentence.add_extent(needed, axis.there).end();
}

attend_status wrong_type(const Message &to, Argument argument, const Signatures &types, Rows left, Kind kind,
                         uint32_t dtype) {
  const bool is_type = dtype != 0 && dtype < kTypes;
  Sentence sentence(to, ATTEND_INVALID_DTYPE, argument);
  if (is_type) {
    sentence.add("is %s; ", name_of(dtype));
  } else {
    sentence.add("has dtype %" PRIu32 ", which is no element type; ", dtype);
  }
  bool narrowed = false;  // by the operands before it
  for (uint32_t t = 0; t < kTypes; ++t) narrowed |= types.with(kind, t) != 0 && (types.with(kind, t) & left) == 0;
  add_types(&sentence, types, left, kind);
  return sentence.add(" is needed%s", narrowed ? " beside the other operands" : "").end();
}

attend_status too_wide(const Message &to, Argument argument, const Tensor &tensor) {
  Sentence sentence(to, ATTEND_OVERFLOW, argument);
  sentence.add("spans more bytes than 63 bits can count: ");
  const char *between = "";
  for (size_t i = 0; i < 4; ++i) {
    if (tensor.shape[i] == 1) continue;
    sentence.add("%s", between).add_extent(tensor.shape[i], kPlainAxes.axis[i].counts);
    sentence.add(" of stride %" PRId64, tensor.stride[i]);
    between = ", ";
  }
  return sentence.end();
}

attend_status too_close(const Message &to, Argument argument, const Tensor &tensor, size_t dimension, int64_t needed) {
  Sentence sentence(to, ATTEND_INVALID_STRIDE, argument);
  sentence.add("its ").add_extent(tensor.shape[dimension], kPlainAxes.axis[dimension].counts);
  sentence.add(" have stride %" PRId64 ", but need one of at least %" PRId64 " to share no memory",
               tensor.stride[dimension], needed);
  return sentence.end();
}

attend_status overlap(const Message &to, Argument output, Argument other) {
  Sentence sentence(to, ATTEND_OVERLAP, output);
  return sentence.add("overlaps ").add_name_of(other).add(" memory, but needs its own").end();
}

}  // namespace attend
