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
  // attention_options, the head from those of this library.
  bool set(attend_status said, const char *sentence) {
    const Argument argument = static_cast<Argument>(said >> 8);
    const bool moves =
        is_option(argument) && (argument == Argument::options_flags || argument > Argument::options_executor);
    status = moves ? failure(ATTEND_REASON(said), in_attention_options(argument)) : said;
    const bool renamed = moves && std::strncmp(sentence, "options.", 8) == 0;
    const size_t at = renamed ? 10 : 0, length = std::min(std::strlen(sentence), sizeof text - 1 - at);
    std::memcpy(text, "attention_", at);
    std::memcpy(text + at, sentence, length);
    text[at + length] = 0;
    return true;
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
