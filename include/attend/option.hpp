// attend: what options are made of, for options.hpp: operands, integers, and what all options have.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_OPTION_HPP
#define ATTEND_OPTION_HPP

#include <attend/executor.hpp>
#include <attend/tensor.hpp>
#include <cstdio>
#include <iterator>
#include <optional>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

namespace detail {

struct any_options {};
template <class T>
using unless_options = std::enable_if_t<!std::is_base_of_v<any_options, bare<T>>>;

template <class X>
attend_tensor input(const X &x) {
  return tensor(x).c();
}
template <class X>
attend_tensor output(X &&x) {
  const tensor t(std::forward<X>(x));
  static_assert(!std::is_const_v<std::remove_pointer_t<decltype(t.data())>>,
                "attend: an output of const elements, or in memory that ends with this statement");
  return t.c();
}

// An operand that may be absent.
class slot {
 public:
  slot &operator=(const attend_tensor &t) noexcept { return t_ = t, *this; }
  template <class X>
  void set_mask(const X &x) {
    static_assert(sizeof(element_of<const X &>) == 1, "attend: a mask has elements of one byte: bool, unsigned char");
    t_ = input(x);
    t_->dtype = ATTEND_BOOL;
  }
  void store(const attend_tensor **field) const noexcept {
    if (t_) *field = &*t_;
  }

 private:
  std::optional<attend_tensor> t_;
};

// Integers, one a batch or one a token, or starts, one more than there are sequences.
class integers {
 public:
  template <class X>
  void set(const X &x) {
    static_assert(std::is_same_v<std::remove_const_t<element_of<const X &>>, std::int64_t>,
                  "attend: offsets, lengths, first keys and starts are of std::int64_t");
    first_ = detail::data(x);
    count_ = static_cast<std::int64_t>(std::size(x));
  }
  bool fit(std::int64_t batch) const noexcept { return count_ < 0 || count_ == batch; }
  // Of those that do not fit.
  status misfit(const char *field, std::int64_t needed, const char *of = "the batch is") const noexcept {
    char what[96];
    std::snprintf(what, sizeof what, "has %lld numbers, but %s %lld.", static_cast<long long>(count_), of,
                  static_cast<long long>(needed));
    return {ATTEND_INVALID_SHAPE, field, what};
  }
  bool given() const noexcept { return count_ >= 0; }
  std::int64_t count() const noexcept { return count_; }
  // Starts have an end, too.
  bool begin_sequences() const noexcept { return count_ < 0 || count_ >= 2; }
  status no_sequences(const char *field) const noexcept { return misfit(field, 2, "starts of sequences are at least"); }
  void store(const std::int64_t **field) const noexcept {
    if (count_ >= 0) *field = first_;
  }

 private:
  const std::int64_t *first_ = nullptr;
  std::int64_t count_ = -1;  // not given
};

// What all options have.
template <class Options, class Struct>
class head : public any_options {
 public:
  // At most so many threads; 0 = attend::threads().
  Options &threads(std::int32_t most) noexcept { return c_.threads = most, self(); }
  Options &native_dot() noexcept { return flag(ATTEND_NATIVE_DOT); }
  // Memory of the caller's for the call, which allocates none then; its contents are lost. For one call at a time.
  Options &workspace(void *memory, std::uint64_t bytes) noexcept {
    c_.workspace = memory;
    c_.workspace_size = bytes;
    return self();
  }
  // The same of a vector, an array, a span.
  template <class Memory>
  Options &workspace(Memory &memory) {
    return workspace(std::data(memory), static_cast<std::uint64_t>(std::size(memory)) * sizeof(*std::data(memory)));
  }
  // For this call, instead of set_executor's.
  Options &executor(const attend::executor &e) noexcept { return c_.executor = &e.c(), self(); }
  Options &executor(const attend::executor &&) = delete;

  // As attend.h has it, without what was set by operands and integers.
  Struct &c() noexcept { return c_; }

 protected:
  Options &self() noexcept { return static_cast<Options &>(*this); }
  Options &flag(std::uint32_t f) noexcept { return c_.flags |= f, self(); }

  Struct c_ = attend_zero_with_size<Struct>();
};

}  // namespace detail

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_OPTION_HPP
