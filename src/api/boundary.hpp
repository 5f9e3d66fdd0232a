// Where untrusted arguments become the drivers' problems: every check of the ABI is written once, here.
#pragma once

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>

#include "api/message.hpp"
#include "api/signatures.hpp"
#include "drivers/scratch.hpp"
#include "drivers/tensor.hpp"

namespace attend {

// Compute: data must be there. Size: only shapes count.
enum class Purpose { compute, size };
enum class Role { input, output };

// The operands of one call: each is validated on its own, and its type with those of the operands before it.
class Operands {
 public:
  Operands(const Signatures &function, Purpose purpose, const Message &message)
      : types_(function), message_(message), purpose_(purpose) {}

  // Fills `result`.
  attend_status read(const attend_tensor *tensor, Argument argument, Role role, Kind kind, Tensor *result);
  // The same, but null means absent.
  attend_status read_optional(const attend_tensor *tensor, Argument argument, Role role, Kind kind, Tensor *result) {
    return tensor == nullptr ? ATTEND_OK : read(tensor, argument, role, kind, result);
  }

 private:
  const Signatures &types_;
  const Message &message_;
  Rows rows_ = ~Rows{0};  // that fit all operands so far
  Purpose purpose_;
};

// Compares extents with those a tensor must have; where `broadcasts` has a bit (1 << dimension), 1 fits too. `axes` says
// what they count and where the ones needed come from.
attend_status expect_shape(const Tensor &tensor, Argument argument, const std::array<int64_t, 4> &shape,
                           const Axes &axes, const Message &message, unsigned broadcasts = 0);
constexpr unsigned kBatch = 8, kHeadsAndBatch = 12, kAll = 15;

// Whether a number among the options is one in the type of the arithmetic on elements of this type too: not beyond the
// largest, and 0 only if it was 0.
inline bool is_representable(double value, Dtype dtype) {
  const bool single = acc_of(dtype) == Dtype::f32;
  const double most = single ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
  return std::fabs(value) <= most && (!single || value == 0 || static_cast<float>(value) != 0);
}
inline bool is_empty(const Tensor &tensor) { return tensor.count == 0; }
bool same_view(const Tensor &a, const Tensor &b);

// ATTEND_OVERLAP if the two provably share a byte: their first, lowest or highest elements coincide, or share_a_byte
// (overlap.hpp) says so.
attend_status expect_apart_slow(const Tensor &output, Argument argument, const Tensor &other, Argument other_argument,
                                const Message &message);
inline attend_status expect_apart(const Tensor &output, Argument argument, const Tensor &other, Argument other_argument,
                                  const Message &message) {
  // Absent, empty, or their ranges are apart: the usual case, and the quick one.
  if (output.count == 0 || other.count == 0 || output.end <= other.begin || other.end <= output.begin) return ATTEND_OK;
  return expect_apart_slow(output, argument, other, other_argument, message);
}

// An array of integers among the options as an operand, for expect_apart; null: absent.
Tensor integers(const int64_t *first, int64_t count);

attend_status check_size(const void *given, uint32_t size, size_t known, size_t first_version, Argument argument,
                         const Message &message);

// Copies a struct of any version into the one this library knows; null gives all zero.
template <class Struct>
attend_status read_struct(const Struct *given, size_t first_version, Argument size_argument, const Message &message,
                          Struct *copy) {
  *copy = Struct();
  if (given == nullptr) return ATTEND_OK;
  if (given->size == sizeof(Struct)) {
    *copy = *given;
    return ATTEND_OK;
  }
  if (attend_status s = check_size(given, given->size, sizeof(Struct), first_version, size_argument, message)) return s;
  std::memcpy(copy, given, given->size < sizeof(Struct) ? given->size : sizeof(Struct));
  return ATTEND_OK;
}

// What an executor says, checked.
attend_status read_executor(const attend_executor &given, Argument argument, const Message &message,
                            Executor *executor);

// attend_set_executor's; null = none.
Executor library_executor();
void set_library_executor(const attend_executor *executor);

// The fields that all options structs begin with; the workspace counts for Purpose::compute only. The message is where
// what is wrong with the call is said from here on, unless those of another struct's head come first.
template <class Options>
attend_status check_head(const Options &o, uint32_t known_flags, Purpose purpose, Execution *execution,
                         Message *message) {
  if (!message->of_attention_options) *message = {o.message, o.message_size};
  if (const uint32_t unknown = o.flags & ~(known_flags | ATTEND_NATIVE_DOT)) {
    return fail(*message, ATTEND_UNSUPPORTED, Argument::options_flags, "has 0x%x, which means nothing here", unknown);
  }
  if (o.threads < 0) return wrong_value(*message, Argument::options_threads, int64_t{o.threads}, "0 or more");
  if (o.reserved != 0) return wrong_value(*message, Argument::options_reserved, int64_t{o.reserved}, "0");
  if (purpose == Purpose::compute && o.workspace == nullptr && o.workspace_size != 0) {
    return fail(*message, ATTEND_NULL_POINTER, Argument::options_workspace, "is null, but has a size");
  }
  if (o.message == nullptr && o.message_size != 0) {
    return fail(*message, ATTEND_NULL_POINTER, Argument::options_message, "is null, but has a size");
  }
  *execution = {o.threads, o.workspace, o.workspace_size, execution->executor};
  if (o.executor == nullptr) return ATTEND_OK;
  return read_executor(*o.executor, Argument::options_executor, *message, &execution->executor);
}

template <class Options>
attend_status read_options(const Options *given, size_t first_version, uint32_t known_flags, Purpose purpose,
                           Options *copy, Execution *execution, Message *message) {
  if (attend_status s = read_struct(given, first_version, Argument::options_size, *message, copy)) return s;
  execution->executor = library_executor();
  return given == nullptr ? ATTEND_OK : check_head(*copy, known_flags, purpose, execution, message);
}

// The status of what a driver says; `need` is asked if there was no memory.
attend_status no_memory(Acquired result, const Need &need, const Execution &execution, const Message &message);
template <class NeedOf>
attend_status status_of(Acquired result, const NeedOf &need, const Execution &execution, const Message &message) {
  return result == Acquired::ok ? ATTEND_OK : no_memory(result, need(), execution, message);
}

// Whether so many bytes for each of what the extents count, of which 0 count as 1, stay far from what 63 bits can count.
bool are_countable(int64_t bytes, std::initializer_list<int64_t> extents);

// The answer of the ..._workspace functions.
attend_status store_bytes(const Need &need, int threads, const Message &message, uint64_t *bytes);

}  // namespace attend
