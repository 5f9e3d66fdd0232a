// attend: views of memory, and results that own theirs, for attend.hpp.
//
// SPDX-License-Identifier: BSD-3-Clause
//
// Element types, shapes and strides are those of attend_tensor in attend.h: (rows, columns, heads, batch), a column is
// an item. What is new here is where they come from:
//
//     attend::tensor(x, {heads, n, d})    NumPy's order: the row-major array [heads, n, d] of activations, which is the
//                                         tensor (d, n, heads)
//     attend::matrix(w, {out, in})        row-major matrices as they are written, (out, in): weights, A and B of A B;
//                                         with [heads, out, in] a stack of them, (out, in, heads)
//     attend::columns(x, {d, n, heads})   the library's own order, first extent first in memory
//     attend::tensor(x)                   of what knows its shape:
//                                           a matrix with data(), rows(), cols(), innerStride(), outerStride(), as
//                                             Eigen's matrices, maps, blocks and transposes: rows by cols, as it stands
//                                           an mdspan, or a C array such as float x[3][4]: NumPy's order
//                                           anything else with data() and size(), as std::vector, std::array,
//                                             std::span: one column
//
// The first argument is a pointer, or anything with data() and size(), whose size must be that of the shape. A third
// argument gives strides in elements, in the order of the shape; 0 repeats the same elements (inputs only).
//
// Lifetime.  A tensor is a view: it owns nothing, and is copied freely. What it views must live until the call returns;
//            a temporary does, if it is made in the call's own statement.
// Threads.   Views are values. Different threads may read the same memory at once.
#ifndef ATTEND_TENSOR_HPP
#define ATTEND_TENSOR_HPP

#include <algorithm>
#include <attend/element.hpp>
#include <attend/status.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

// --------------------------------------------------------------------------------------------------------- extents --

// One to four extents or strides, of any integer types: {heads, n, d}.
class extents {
 public:
  extents() noexcept = default;
  template <class... I, class = std::enable_if_t<(sizeof...(I) > 0) && (std::is_integral_v<I> && ...)>>
  extents(I... values) noexcept : extents() {
    static_assert(sizeof...(I) <= 4, "attend: a tensor has one to four dimensions");
    ((values_[rank_++] = static_cast<std::int64_t>(values)), ...);
  }
  std::uint32_t rank() const noexcept { return rank_; }
  std::int64_t operator[](std::size_t i) const noexcept { return values_[i]; }
  // For ranks that are known late. What is beyond the fourth counts, but is not kept: no call accepts it.
  void push_back(std::int64_t value) noexcept {
    if (rank_ < 4) values_[rank_] = value;
    ++rank_;
  }

 private:
  std::int64_t values_[4] = {};
  std::uint32_t rank_ = 0;
};

namespace detail {

template <class T>
using bare = std::remove_cv_t<std::remove_reference_t<T>>;

template <class Void, template <class> class Expression, class C>
struct valid : std::false_type {};
template <template <class> class Expression, class C>
struct valid<std::void_t<Expression<C>>, Expression, C> : std::true_type {};
template <template <class> class Expression, class C>
inline constexpr bool has = valid<void, Expression, std::remove_reference_t<C> &>::value;

template <class C>
using data_of_it = decltype(std::declval<C>().data());
template <class C>
using size_of_it = decltype(std::declval<C>().size());
template <class C>
using as_c = std::enable_if_t<std::is_same_v<bare<decltype(std::declval<C>().c())>, attend_tensor>>;
template <class C>
using matrix_extents = decltype(std::declval<C>().rows(), std::declval<C>().cols());
template <class C>
using matrix_strides = decltype(std::declval<C>().innerStride(), std::declval<C>().outerStride());
template <class C>
using mdspan_parts = decltype(std::declval<C>().data_handle(), std::declval<C>().rank(), std::declval<C>().extent(0),
                              std::declval<C>().stride(0));
template <class T>
using dtype_of = decltype(element<bare<T>>::dtype);
template <class C>
using major_of = decltype(bare<C>::IsRowMajor);

template <class T>
struct is_vector_of_bits : std::false_type {};
template <class A>
struct is_vector_of_bits<std::vector<bool, A>> : std::true_type {};

template <class C>
inline constexpr bool is_pointer = std::is_pointer_v<bare<C>> || std::is_null_pointer_v<bare<C>>;
template <class C>
inline constexpr bool is_c_array = std::is_array_v<std::remove_reference_t<C>>;
template <class C>
inline constexpr bool is_matrix = has<matrix_extents, C>;
// Memory of elements, of which some say their shape themselves.
template <class C>
inline constexpr bool is_source = is_pointer<C> || is_c_array<C> || has<data_of_it, C> || has<mdspan_parts, C>;

// The first element. Memory that dies with the statement, a vector that a function returned, is read only.
template <class C>
auto data(C &&c) {
  static_assert(!is_vector_of_bits<bare<C>>::value,
                "attend: std::vector<bool> packs bits, and a mask needs a byte each: use std::vector<unsigned char>");
  if constexpr (is_vector_of_bits<bare<C>>::value) {
    return static_cast<const bool *>(nullptr);  // one message is enough
  } else if constexpr (is_pointer<C>) {
    return c;
  } else if constexpr (is_c_array<C>) {
    if constexpr (std::rank_v<std::remove_reference_t<C>> == 1) {
      return &c[0];
    } else {
      return detail::data(c[0]);
    }
  } else if constexpr (has<mdspan_parts, C>) {
    return c.data_handle();
  } else {
    static_assert(has<data_of_it, C>, "attend: no data(): evaluate the expression, or give pointer and shape");
    if constexpr (std::is_lvalue_reference_v<C> || is_matrix<C>) {
      return c.data();
    } else {
      return std::as_const(c).data();
    }
  }
}
template <class C>
using element_of = std::remove_pointer_t<decltype(detail::data(std::declval<C>()))>;

inline constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
// Of counts. What is too large stays so, for the library to refuse.
constexpr std::int64_t product(std::int64_t a, std::int64_t b) noexcept {
  return a <= 0 || b <= 0 ? 0 : a > kMost / b ? kMost : a * b;
}

// Axes are those of NumPy; the same, but the last two are a matrix as written; or those of attend.h.
enum class order { numpy, matrix, columns };
constexpr std::size_t dimension(std::size_t axis, std::size_t rank, order o) noexcept {
  if (o == order::columns) return axis;
  if (o == order::matrix && rank >= 2 && axis + 2 >= rank) return axis + 2 - rank;
  return rank - 1 - axis;
}

// Says why at once, or makes the call that is given this tensor fail with ATTEND_INVALID_SHAPE.
#ifndef ATTEND_NO_EXCEPTIONS
[[noreturn]] inline void refuse(attend_tensor *, std::int64_t needed, std::int64_t there) {
  char what[96];
  std::snprintf(what, sizeof what, "shape and strides need %lld elements, there are %lld.",
                static_cast<long long>(needed), static_cast<long long>(there));
  throw error(status(ATTEND_INVALID_SHAPE, "tensor", what));
}
#else
inline void refuse(attend_tensor *t, std::int64_t, std::int64_t) noexcept { t->shape[0] = -1; }
#endif

// `count`: the elements that are there, of which the first is that of index 0; negative: not known.
inline attend_tensor lay_out(const void *memory, std::uint32_t dtype, const extents &shape, const extents &strides,
                             order o, std::int64_t count) {
  attend_tensor t = {const_cast<void *>(memory), dtype, shape.rank(), {1, 1, 1, 1}, {0, 0, 0, 0}};
  const std::size_t rank = shape.rank();
  if (rank > 4) return t;  // ATTEND_INVALID_RANK
  const bool dense = strides.rank() == 0;
  if (!dense && strides.rank() != rank) {
    t.rank = 0;  // the same
    return t;
  }
  std::int64_t elements = 1, needed = 1;
  bool backward = false;
  for (std::size_t i = 0; i < rank; ++i) {
    const std::size_t axis = o == order::columns ? i : rank - 1 - i, d = dimension(axis, rank, o);
    t.shape[d] = shape[axis];
    t.stride[d] = dense ? elements : strides[axis];
    elements = product(elements, shape[axis]);
    if (shape[axis] <= 1) continue;
    backward |= t.stride[d] < 0;
    needed += std::min(product(t.stride[d], shape[axis] - 1), kMost - needed);
  }
  if (elements == 0) needed = 0;
  // A vector is as large as its shape; with strides, at least. Before the first element there is nothing.
  if (count >= 0 && (dense ? needed != count : needed > count || backward)) refuse(&t, needed, count);
  return t;
}

}  // namespace detail

// ----------------------------------------------------------------------------------------------- views and results --

// A view of T's, or of const T's, which are inputs only. The head of this file says what it is made of. A shape that
// does not fit what is there throws; without exceptions the call that gets the view fails with ATTEND_INVALID_SHAPE.
template <class T>
class tensor {
  static_assert(detail::has<detail::dtype_of, T>, "attend: no element type; see attend::element");

 public:
  using value_type = std::remove_const_t<T>;

  // Of what knows its shape. tensor<T> becomes tensor<const T> by it.
  template <class C, class = std::enable_if_t<detail::is_source<C> && !std::is_same_v<detail::bare<C>, tensor>>>
  tensor(C &&source) : t_(of(source, pointer(std::forward<C>(source)))) {}

  // NumPy's order.
  template <class C>
  tensor(C &&memory, const extents &shape, const extents &strides = {})
      : tensor(std::forward<C>(memory), shape, strides, detail::order::numpy) {}

  T *data() const noexcept { return static_cast<T *>(t_.data); }
  std::uint32_t rank() const noexcept { return t_.rank; }
  // Of dimension 0 (rows) to 3 (batch); extents beyond the rank are 1.
  std::int64_t extent(std::uint32_t d) const noexcept { return d < t_.rank && d < 4 ? t_.shape[d] : 1; }
  std::int64_t stride(std::uint32_t d) const noexcept { return d < t_.rank && d < 4 ? t_.stride[d] : 0; }
  // Unchecked.
  T &operator()(std::int64_t row, std::int64_t column = 0, std::int64_t head = 0,
                std::int64_t batch = 0) const noexcept {
    return data()[row * stride(0) + column * stride(1) + head * stride(2) + batch * stride(3)];
  }
  // For functions of attend.h.
  const attend_tensor &c() const noexcept { return t_; }

 private:
  template <class C>
  friend tensor<detail::element_of<C>> matrix(C &&, const extents &, const extents &);
  template <class C>
  friend tensor<detail::element_of<C>> columns(C &&, const extents &, const extents &);

  static constexpr std::uint32_t kDtype = element<value_type>::dtype;

  template <class C>
  static T *pointer(C &&c) {
    static_assert(std::is_convertible_v<decltype(detail::data(std::forward<C>(c))), T *>,
                  "attend: elements of another type, or const (as temporaries are) where they are to be written");
    return detail::data(std::forward<C>(c));
  }

  template <class C>
  tensor(C &&memory, const extents &shape, const extents &strides, detail::order o) {
    std::int64_t count = -1;
    if constexpr (detail::is_c_array<C>) {
      count = static_cast<std::int64_t>(sizeof(memory) / sizeof(T));
    } else if constexpr (!detail::is_pointer<C>) {
      static_assert(!detail::is_matrix<C> && detail::has<detail::size_of_it, C>,
                    "attend: a shape goes with a pointer, or with data() and size(); matrices have theirs");
      count = static_cast<std::int64_t>(memory.size());
    }
    t_ = detail::lay_out(pointer(std::forward<C>(memory)), kDtype, shape, strides, o, count);
  }

  template <class C>
  static attend_tensor of(const C &c, T *data) {
    extents shape, strides;
    if constexpr (detail::has<detail::as_c, C>) {
      return c.c();
    } else if constexpr (detail::is_matrix<C>) {
      static_assert(detail::has<detail::matrix_strides, C>,
                    "attend: a matrix without innerStride() and outerStride(): give data(), shape and order");
      const auto inner = static_cast<std::int64_t>(c.innerStride()), outer = static_cast<std::int64_t>(c.outerStride());
      bool by_rows = false;
      if constexpr (detail::has<detail::major_of, C>) by_rows = C::IsRowMajor;
      shape = {c.rows(), c.cols()};
      strides = {by_rows ? outer : inner, by_rows ? inner : outer};
      return detail::lay_out(data, kDtype, shape, strides, detail::order::columns, -1);
    } else if constexpr (std::is_array_v<C>) {
      add_extents<C>(&shape);
    } else if constexpr (detail::has<detail::mdspan_parts, C>) {
      for (std::size_t i = 0; i < static_cast<std::size_t>(c.rank()); ++i) {
        shape.push_back(static_cast<std::int64_t>(c.extent(i)));
        strides.push_back(static_cast<std::int64_t>(c.stride(i)));
      }
    } else {
      static_assert(detail::has<detail::size_of_it, C>, "attend: memory that does not know its size: give a shape");
      shape = {c.size()};
    }
    return detail::lay_out(data, kDtype, shape, strides, detail::order::numpy, -1);
  }
  template <class C>
  static void add_extents(extents *shape) noexcept {
    if constexpr (std::is_array_v<C>) {
      shape->push_back(static_cast<std::int64_t>(std::extent_v<C>));
      add_extents<std::remove_extent_t<C>>(shape);
    }
  }

  attend_tensor t_;
};

template <class C>
tensor(C &&) -> tensor<detail::element_of<C>>;
template <class C>
tensor(C &&, const extents &) -> tensor<detail::element_of<C>>;
template <class C>
tensor(C &&, const extents &, const extents &) -> tensor<detail::element_of<C>>;

// Row-major matrices as they are written: [.., rows, columns] is (rows, columns, ..).
template <class C>
tensor<detail::element_of<C>> matrix(C &&memory, const extents &shape, const extents &strides = {}) {
  return tensor<detail::element_of<C>>(std::forward<C>(memory), shape, strides, detail::order::matrix);
}
// The library's own order: (rows, columns, heads, batch), rows first in memory.
template <class C>
tensor<detail::element_of<C>> columns(C &&memory, const extents &shape, const extents &strides = {}) {
  return tensor<detail::element_of<C>>(std::forward<C>(memory), shape, strides, detail::order::columns);
}

// A result, with memory of its own: (rows, columns, heads, batch) without gaps, rows first, which is NumPy's array
// [batch, heads, columns, rows]. It is moved, not copied; what was moved from is empty.
template <class T>
class array {
 public:
  using value_type = T;

  array() noexcept = default;
  array(array &&other) noexcept : array() { swap(other); }
  array &operator=(array &&other) noexcept {
    array(std::move(other)).swap(*this);
    return *this;
  }
  void swap(array &other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(t_, other.t_);
    std::swap(size_, other.size_);
  }

  T *data() noexcept { return memory_.get(); }
  const T *data() const noexcept { return memory_.get(); }
  std::size_t size() const noexcept { return size_; }
  T *begin() noexcept { return data(); }
  T *end() noexcept { return data() + size_; }
  const T *begin() const noexcept { return data(); }
  const T *end() const noexcept { return data() + size_; }
  T &operator[](std::size_t i) noexcept { return memory_[i]; }
  const T &operator[](std::size_t i) const noexcept { return memory_[i]; }

  std::int64_t extent(std::uint32_t d) const noexcept { return tensor<const T>(*this).extent(d); }
  const T &operator()(std::int64_t row, std::int64_t column = 0, std::int64_t head = 0,
                      std::int64_t batch = 0) const noexcept {
    return tensor<const T>(*this)(row, column, head, batch);
  }
  const attend_tensor &c() const noexcept { return t_; }

  // For the calls that return arrays. Elements are not set.
  status allocate(const extents &shape) noexcept {
    std::int64_t count = 1;
    for (std::size_t d = 0; d < shape.rank(); ++d) count = detail::product(count, shape[d]);
    if (count > detail::kMost / 32) return {ATTEND_OVERFLOW, "out", attend_status_string(ATTEND_OVERFLOW)};
    memory_.reset(count == 0 ? nullptr : new (std::nothrow) T[static_cast<std::size_t>(count)]);
    if (count != 0 && memory_ == nullptr) {
      return {ATTEND_OUT_OF_MEMORY, "out", attend_status_string(ATTEND_OUT_OF_MEMORY)};
    }
    t_ = detail::lay_out(memory_.get(), element<T>::dtype, shape, {}, detail::order::columns, -1);
    size_ = static_cast<std::size_t>(count);
    return {};
  }

 private:
  std::unique_ptr<T[]> memory_;
  attend_tensor t_ = {nullptr, element<T>::dtype, 2, {0, 0, 0, 0}, {1, 0, 0, 0}};
  std::size_t size_ = 0;
};

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_TENSOR_HPP
