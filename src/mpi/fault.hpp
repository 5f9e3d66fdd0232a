// What is wrong with a call, as a status and a sentence, wherever it was found: here, by attend itself, on another rank.
#pragma once

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

// Of attend's own sources the numbers of arguments alone: they are part of a status, and so of the interface.
#include "api/argument.hpp"
#include "attend/attend_mpi.h"

namespace attend::mpi {

struct Fault {
  attend_status status = ATTEND_OK;
  char text[508] = "";

  explicit operator bool() const { return status != ATTEND_OK; }

  // "<argument>: <format>."
  [[gnu::format(printf, 4, 5)]] bool set(int32_t reason, Argument argument, const char *format, ...) {
    status = failure(reason, argument);
    const char *const name = attend_status_argument(status);
    int at = *name == 0 ? 0 : std::snprintf(text, sizeof text, "%s: ", name);
    va_list arguments;
    va_start(arguments, format);
    at += std::vsnprintf(text + at, sizeof text - 2 - static_cast<size_t>(at), format, arguments);
    va_end(arguments);
    std::strcpy(text + std::min<size_t>(static_cast<size_t>(at), sizeof text - 3), ".");
    return true;
  }

  // What attend says of a call that it was given: flags and all beyond the head of its options come from
  // attention_options, or where those are another argument of the call from backward_options; the head from those of this
  // library.
  bool set(attend_status said, const char *sentence, bool of_backward = false) {
    const Argument argument = static_cast<Argument>(said >> 8),
                   moved = of_backward ? in_backward_options(argument) : in_attention(argument);
    status = failure(ATTEND_REASON(said), moved);
    const char *const prefix = of_backward ? "backward_" : "attention_";
    const bool renamed = moved != argument && std::strncmp(sentence, "options.", 8) == 0;
    const size_t at = renamed ? std::strlen(prefix) : 0, length = std::min(std::strlen(sentence), sizeof text - 1 - at);
    std::memcpy(text, prefix, at);
    std::memcpy(text + at, sentence, length);
    text[at + length] = 0;
    return true;
  }

  static Argument in_attention(Argument argument) {
    const bool moves =
        is_option(argument) && (argument == Argument::options_flags || argument > Argument::options_executor);
    return moves ? in_attention_options(argument) : argument;
  }
  static Argument in_backward_options(Argument argument) {
    if (argument == Argument::options_flags) return Argument::backward_options_flags;
    if (argument >= Argument::options_d_lse && argument <= Argument::options_d_sinks) {
      return moved(argument, Argument::options_d_lse, Argument::backward_options_d_lse);
    }
    if (argument >= Argument::options_delta && argument <= Argument::options_total_keys) {
      return moved(argument, Argument::options_delta, Argument::backward_options_delta);
    }
    return argument;
  }
  // As far behind `to` as it is behind `first`.
  static Argument moved(Argument argument, Argument first, Argument to) {
    return static_cast<Argument>(static_cast<int>(argument) - static_cast<int>(first) + static_cast<int>(to));
  }

  void add_rank(int rank, int ranks) {
    size_t length = std::strlen(text);
    if (length > 0 && text[length - 1] == '.') --length;
    char where[40];
    const int more = std::snprintf(where, sizeof where, " (rank %d of %d).", rank, ranks) + 1;
    length = std::min(length, sizeof text - static_cast<size_t>(more));
    std::memcpy(text + length, where, static_cast<size_t>(more));
  }

  // Into the caller's buffer.
  attend_status tell(char *message, uint64_t size) const {
    if (status != ATTEND_OK && message != nullptr && size > 0) {
      std::snprintf(message, static_cast<size_t>(size), "%s", text);
    }
    return status;
  }
};

}  // namespace attend::mpi
