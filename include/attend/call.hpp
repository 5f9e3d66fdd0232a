// attend: what all functions of attend.hpp do with options, outputs and failures.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_CALL_HPP
#define ATTEND_CALL_HPP

#include <attend/options.hpp>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

namespace detail {

template <class X>
using value_of = std::remove_const_t<element_of<const X &>>;

inline std::int64_t extent(const attend_tensor &t, std::uint32_t d) noexcept {
  return d < t.rank && d < 4 ? t.shape[d] : 1;
}
inline extents shape_of(const attend_tensor &t) noexcept {
  return {extent(t, 0), extent(t, 1), extent(t, 2), extent(t, 3)};
}
// Of two operands that broadcast.
inline std::int64_t common(const attend_tensor &a, const attend_tensor &b, std::uint32_t d) noexcept {
  return extent(a, d) == 1 ? extent(b, d) : extent(a, d);
}

// Where options become attend.h's: f(options) is the call. Its message lies here, or in the caller's room for one.
template <class Options, class F>
returns<void> call(const Options &options, const F &f) {
  auto o = options.get();
  sentence room;
  if (o.message_size == 0) {
    o.message = room.text;
    o.message_size = sizeof room.text;
  }
  const char *const said = o.message;
  const attend_status code = f(&o);
  // That of a wrong options.size is not there: what lies in a caller's room is not of this call.
  const bool is_said = said == room.text || ATTEND_REASON(code) != ATTEND_INVALID_STRUCT_SIZE;
  return finish(status(code, is_said ? said : nullptr));
}
// f(bytes) asks for a workspace.
template <class F>
returns<std::uint64_t> ask(const F &f) {
  std::uint64_t bytes = 0;
#ifndef ATTEND_NO_EXCEPTIONS
  f(&bytes);
  return bytes;
#else
  const status s = f(&bytes);
  return {s, std::move(bytes)};
#endif
}
// f(out) writes an array of this shape.
template <class T, class F>
returns<array<T>> make(const extents &shape, const F &f) {
  array<T> out;
  status s = out.allocate(shape);
#ifndef ATTEND_NO_EXCEPTIONS
  finish(s);
  f(out.c());
  return out;
#else
  if (s.ok()) s = f(out.c());
  return {s, s.ok() ? std::move(out) : array<T>()};
#endif
}

}  // namespace detail

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_CALL_HPP
