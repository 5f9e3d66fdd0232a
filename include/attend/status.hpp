// attend: how a call ended, for attend.hpp: exceptions, or values where there are none.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_STATUS_HPP
#define ATTEND_STATUS_HPP

#include <attend/attend.h>

#include <cstdio>
#include <cstring>
#include <utility>

// Without exceptions functions return a status, or a result with one. Both kinds may be parts of one program, since
// their names differ for the linker.
#if !defined(__cpp_exceptions) && !defined(ATTEND_NO_EXCEPTIONS)
#define ATTEND_NO_EXCEPTIONS
#endif
#ifdef ATTEND_NO_EXCEPTIONS
#define ATTEND_HPP_NAMESPACE hpp_with_statuses
#else
#include <stdexcept>
#define ATTEND_HPP_NAMESPACE hpp
#endif

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

namespace detail {

// Room for what a call says of its failure. Only that is copied.
struct sentence {
  char text[512];
  sentence() noexcept { text[0] = 0; }
  sentence(const sentence &other) noexcept { std::strcpy(text, other.text); }
  sentence &operator=(const sentence &other) noexcept {
    if (this != &other) std::strcpy(text, other.text);
    return *this;
  }
};

}  // namespace detail

// How a call ended: attend_status, the argument it concerns, and what the call said of it.
class [[nodiscard]] status {
 public:
  status() noexcept = default;
  // `said` is what options.message received: null or empty = nothing.
  status(attend_status code, const char *said = nullptr) noexcept : code_(code) {
    if (code == ATTEND_OK) return;
    argument_ = attend_status_argument(code);
    if (said != nullptr && *said != 0) {
      write("", "", said);
    } else {
      write(argument_, *argument_ == 0 ? "" : ": ", attend_status_string(code));
    }
  }
  // What this header refuses by itself; `argument` is static.
  status(attend_status code, const char *argument, const char *what) noexcept : code_(code), argument_(argument) {
    write(argument, ": ", what);
  }

  bool ok() const noexcept { return code_ == ATTEND_OK; }
  // One of attend.h's constants: ATTEND_INVALID_SHAPE.
  int reason() const noexcept { return ATTEND_REASON(code_); }
  attend_status code() const noexcept { return code_; }
  // As it is spelled in attend.h ("q", "options.mask"), "" if there is none. Static.
  const char *argument() const noexcept { return argument_; }
  // What is wrong, behind the argument and a colon: "k: has 5 features, not q's 4." Lives as long as the status.
  const char *text() const noexcept { return ok() ? attend_status_string(code_) : sentence_.text; }

 private:
  void write(const char *argument, const char *colon, const char *what) noexcept {
    std::snprintf(sentence_.text, sizeof sentence_.text, "%s%s%s", argument, colon, what);
  }

  attend_status code_ = ATTEND_OK;
  const char *argument_ = "";
  detail::sentence sentence_;
};

// `returns<T>` is what functions return: T, or without exceptions result<T>, and status where T is void.
#ifndef ATTEND_NO_EXCEPTIONS

// What a call that failed throws; nothing was written then. what() is text() of its status.
class error : public std::runtime_error {
 public:
  explicit error(const status &s) : std::runtime_error(s.text()), code_(s.code()), argument_(s.argument()) {}
  int reason() const noexcept { return ATTEND_REASON(code_); }
  attend_status code() const noexcept { return code_; }
  const char *argument() const noexcept { return argument_; }

 private:
  attend_status code_;
  const char *argument_;
};

template <class T>
using returns = T;

namespace detail {
inline void finish(const status &s) {
  if (!s.ok()) throw error(s);
}
}  // namespace detail

#else

// A status and, if it is ok(), a value; otherwise that is empty.
template <class T>
class [[nodiscard]] result : public status {
 public:
  result(const status &s, T &&value) noexcept : status(s), value_(std::move(value)) {}
  T &value() &noexcept { return value_; }
  const T &value() const &noexcept { return value_; }
  T &&value() &&noexcept { return std::move(value_); }

 private:
  T value_;
};

namespace detail {
template <class T>
struct returned {
  using type = result<T>;
};
template <>
struct returned<void> {
  using type = status;
};
inline status finish(const status &s) noexcept { return s; }
}  // namespace detail

template <class T>
using returns = typename detail::returned<T>::type;

#endif

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_STATUS_HPP
