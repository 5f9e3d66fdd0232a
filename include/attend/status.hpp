// attend: how a call ended, for attend.hpp: exceptions, or values where there are none.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_STATUS_HPP
#define ATTEND_STATUS_HPP

#include <attend/attend.h>

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
#include <string>
#define ATTEND_HPP_NAMESPACE hpp
#endif

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

// How a call ended: attend_status, and the argument it concerns.
class [[nodiscard]] status {
 public:
  status(attend_status code = ATTEND_OK) noexcept : code_(code), argument_(attend_status_argument(code)) {}
  // What this header refuses by itself; `argument` is static.
  status(attend_status code, const char *argument) noexcept : code_(code), argument_(argument) {}

  bool ok() const noexcept { return code_ == ATTEND_OK; }
  // One of attend.h's constants: ATTEND_INVALID_SHAPE.
  int reason() const noexcept { return ATTEND_REASON(code_); }
  attend_status code() const noexcept { return code_; }
  // As it is spelled in attend.h ("q", "options.mask"), "" if there is none. Static.
  const char *argument() const noexcept { return argument_; }
  // What is wrong and what to do about it. Static.
  const char *text() const noexcept { return attend_status_string(code_); }

 private:
  attend_status code_;
  const char *argument_;
};

// `returns<T>` is what functions return: T, or without exceptions result<T>, and status where T is void.
#ifndef ATTEND_NO_EXCEPTIONS

// What a call that failed throws; nothing was written then. what() is "argument: what is wrong".
class error : public std::runtime_error {
 public:
  explicit error(status s) : error(s, s.text()) {}
  error(status s, const std::string &text)
      : std::runtime_error(*s.argument() == 0 ? text : s.argument() + (": " + text)), status_(s) {}
  int reason() const noexcept { return status_.reason(); }
  attend_status code() const noexcept { return status_.code(); }
  const char *argument() const noexcept { return status_.argument(); }

 private:
  status status_;
};

template <class T>
using returns = T;

namespace detail {
inline void finish(status s) {
  if (!s.ok()) throw error(s);
}
}  // namespace detail

#else

// A status and, if it is ok(), a value; otherwise that is empty.
template <class T>
class [[nodiscard]] result : public status {
 public:
  result(status s, T &&value) noexcept : status(s), value_(std::move(value)) {}
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
inline status finish(status s) noexcept { return s; }
}  // namespace detail

template <class T>
using returns = typename detail::returned<T>::type;

#endif

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_STATUS_HPP
