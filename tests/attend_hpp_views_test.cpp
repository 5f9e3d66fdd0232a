// Where the tensors of attend/tensor.hpp come from: shapes, strides, const, temporaries, and what is refused.
#include <attend/tensor.hpp>
#include <cstring>
#include <stdexcept>
#include <type_traits>

#include "support.hpp"
#ifdef ATTEND_TEST_EIGEN
#include <Eigen/Core>
#endif

using attend::columns;
using attend::extents;
using attend::matrix;
using attend::tensor;

namespace {

// Of the tensor: data, type, shape and strides.
template <class T>
void expect(const tensor<T> &t, const void *data, std::initializer_list<int64_t> shape,
            std::initializer_list<int64_t> stride) {
  CHECK(t.c().data == data);
  CHECK(t.c().dtype == attend::element<std::remove_const_t<T>>::dtype);
  REQUIRE(t.rank() == shape.size());
  for (uint32_t d = 0; d < t.rank(); ++d) {
    INFO("dimension " << d);
    CHECK(t.extent(d) == shape.begin()[d]);
    if (t.extent(d) > 1) CHECK(t.stride(d) == stride.begin()[d]);
  }
}

template <class T>
constexpr bool kWritable = false;
template <class T>
constexpr bool kWritable<tensor<T>> = !std::is_const_v<T>;

// A span, whose elements may be written although it is const itself.
template <class T>
struct Span {
  T *first;
  size_t count;
  T *data() const { return first; }
  size_t size() const { return count; }
};

// The members of an Eigen matrix that are looked at, so that they are tested without Eigen too.
template <class T, bool kByRows>
struct Matrix {
  static constexpr bool IsRowMajor = kByRows;
  T *first;
  long count_rows, count_columns, inner, outer;
  T *data() { return first; }
  const T *data() const { return first; }
  long rows() const { return count_rows; }
  long cols() const { return count_columns; }
  long size() const { return count_rows * count_columns; }
  long innerStride() const { return inner; }
  long outerStride() const { return outer; }
};

// Those of an mdspan.
struct Mdspan {
  double *first;
  std::array<size_t, 3> extents, strides;
  static constexpr size_t rank() { return 3; }
  double *data_handle() const { return first; }
  size_t extent(size_t i) const { return extents[i]; }
  size_t stride(size_t i) const { return strides[i]; }
  size_t size() const { return extents[0] * extents[1] * extents[2]; }
};

std::vector<float> made() { return std::vector<float>(6, 1); }

// What a 16-bit type of the user's own looks like.
struct Half {
  uint16_t bits;
};

int refused(const std::function<void()> &make, const char *what) {
  try {
    make();
  } catch (const attend::error &e) {
    CHECK(std::string(e.what()) == what);
    return e.reason();
  }
  return ATTEND_OK;
}

}  // namespace

template <>
struct attend::element<Half> {
  static constexpr std::uint32_t dtype = ATTEND_F16;
};

TEST_CASE("tensor: NumPy's order, matrices as written, the library's order") {
  std::vector<float> x(2 * 3 * 4 * 5);
  expect(tensor(x, {2, 3, 4, 5}), x.data(), {5, 4, 3, 2}, {1, 5, 20, 60});
  expect(matrix(x, {2, 3, 4, 5}), x.data(), {4, 5, 3, 2}, {5, 1, 20, 60});
  expect(columns(x, {2, 3, 4, 5}), x.data(), {2, 3, 4, 5}, {1, 2, 6, 24});
  expect(tensor(x, {24, 5}), x.data(), {5, 24}, {1, 5});
  expect(matrix(x, {24, 5}), x.data(), {24, 5}, {5, 1});
  expect(tensor(x, {120}), x.data(), {120}, {1});
  expect(matrix(x, {120}), x.data(), {120}, {1});
  expect(tensor(x), x.data(), {120}, {1});
  // Strides in the order of the shape.
  expect(tensor(x, {3, 4}, {8, 2}), x.data(), {4, 3}, {2, 8});
  expect(matrix(x, {2, 3, 4}, {40, 8, 2}), x.data(), {3, 4, 2}, {8, 2, 40});
  expect(columns(x, {2, 3, 4}, {1, 40, 2}), x.data(), {2, 3, 4}, {1, 40, 2});
  expect(tensor(x, {7, 5}, {0, 1}), x.data(), {5, 7}, {1, 0});
  // Elements by their place.
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  CHECK(tensor(x, {2, 3, 4, 5})(4, 3, 2, 1) == 119);
  CHECK(tensor(x, {2, 3, 4, 5})(1, 2, 0, 1) == 60 + 2 * 5 + 1);
  CHECK(matrix(x, {24, 5})(2, 1) == 11);
  tensor(x, {24, 5})(1, 2) = -1;
  CHECK(x[11] == -1);
  // Any integers make a shape.
  const size_t n = 24;
  const uint16_t d = 5;
  expect(tensor(x, {n, d}), x.data(), {5, 24}, {1, 5});
  extents late;
  for (const int64_t e : {4, 30}) late.push_back(e);
  expect(tensor(x, late), x.data(), {30, 4}, {1, 30});
  CHECK(tensor(x).extent(3) == 1);
}

TEST_CASE("tensor: pointers, arrays, spans, C arrays, mdspan; const and temporaries") {
  double x[2][3][4] = {};
  double *const p = &x[0][0][0];
  const double *const cp = p;
  expect(tensor(x), p, {4, 3, 2}, {1, 4, 12});
  expect(tensor(p, {6, 4}), p, {4, 6}, {1, 4});
  expect(tensor(p + 20, {3, 4}, {-4, -1}), p + 20, {4, 3}, {-1, -4});
  expect(tensor(x[1], {4, 3}), p + 12, {3, 4}, {1, 3});
  expect(tensor(Span<double>{p, 24}), p, {24}, {1});
  expect(tensor(Mdspan{p, {2, 3, 4}, {1, 8, 2}}), p, {4, 3, 2}, {2, 8, 1});
  std::array<double, 6> a = {};
  expect(tensor(a, {2, 3}), a.data(), {3, 2}, {1, 3});
  expect(tensor<float>(nullptr, {2, 3}), nullptr, {3, 2}, {1, 3});
  expect(tensor(std::vector<float>()), nullptr, {0}, {1});
  CHECK(tensor(made(), {2, 3})(2, 1) == 1);

  static_assert(kWritable<decltype(tensor(p, {2}))>);
  static_assert(!kWritable<decltype(tensor(cp, {2}))>);
  static_assert(kWritable<decltype(tensor(x))>);
  static_assert(!kWritable<decltype(tensor(std::as_const(x)))>);
  static_assert(kWritable<decltype(tensor(a))>);
  static_assert(!kWritable<decltype(tensor(std::as_const(a), {6}))>);
  static_assert(!kWritable<decltype(tensor(made()))>);
  static_assert(kWritable<decltype(tensor(Span<double>{p, 24}))>);
  static_assert(!kWritable<decltype(tensor(Span<const double>{p, 24}))>);
  static_assert(kWritable<decltype(tensor(Mdspan{}))>);

  // A view of elements becomes one of const elements, and not the other way.
  const tensor<double> view(p, {6, 4});
  expect(tensor<const double>(view), p, {4, 6}, {1, 4});
  expect(tensor(view), p, {4, 6}, {1, 4});
  const auto takes = [](tensor<const double> t) { return t.extent(0); };
  CHECK(takes(view) == 4);
  CHECK(takes(x) == 4);
  static_assert(std::is_trivially_copyable_v<tensor<double>>);
}

TEST_CASE("tensor: matrices stand as they do") {
  std::vector<float> x(100);
  using ByColumns = Matrix<float, false>;
  using ByRows = Matrix<float, true>;
  ByColumns m{x.data(), 3, 4, 1, 3};
  expect(tensor(m), x.data(), {3, 4}, {1, 3});
  expect(tensor(ByRows{x.data(), 3, 4, 1, 4}), x.data(), {3, 4}, {4, 1});
  expect(tensor(ByColumns{x.data() + 7, 3, 4, 2, 10}), x.data() + 7, {3, 4}, {2, 10});
  expect(tensor(ByRows{x.data() + 90, 3, 4, -1, -10}), x.data() + 90, {3, 4}, {-10, -1});
  static_assert(kWritable<decltype(tensor(m))>);
  static_assert(kWritable<decltype(tensor(ByRows{}))>, "a map that is a temporary is a place to write");
  static_assert(!kWritable<decltype(tensor(std::as_const(m)))>);
}

TEST_CASE("tensor: element types") {
  Half h[6] = {};
  CHECK(tensor(h, {2, 3}).c().dtype == ATTEND_F16);
  bool b[2] = {};
  CHECK(tensor(b).c().dtype == ATTEND_BOOL);
  CHECK(attend::element<float>::dtype == ATTEND_F32);
  CHECK(attend::element<double>::dtype == ATTEND_F64);
}

TEST_CASE("tensor: a shape that does not fit the memory") {
  std::vector<float> x(12);
  const char *const text = "tensor: shape and strides need 15 elements, there are 12.";
  CHECK(refused([&] { tensor(x, {3, 5}); }, text) == ATTEND_INVALID_SHAPE);
  CHECK(refused([&] { matrix(x, {3, 5}); }, text) == ATTEND_INVALID_SHAPE);
  CHECK(refused([&] { columns(x, {3, 5}); }, text) == ATTEND_INVALID_SHAPE);
  CHECK(refused(
            [&] {
              tensor(x, {2, 5});
            },
            "tensor: shape and strides need 10 elements, there are 12.") == ATTEND_INVALID_SHAPE);
  // With strides fewer may be used, but none behind the last or before the first.
  CHECK(refused([&] { tensor(x, {3, 4}, {4, 1}); }, "") == ATTEND_OK);
  CHECK(refused([&] { tensor(x, {2, 2}, {10, 1}); }, "") == ATTEND_OK);
  CHECK(refused(
            [&] {
              tensor(x, {2, 2}, {11, 1});
            },
            "tensor: shape and strides need 13 elements, there are 12.") == ATTEND_INVALID_SHAPE);
  CHECK(refused(
            [&] {
              tensor(x, {2, 2}, {-2, 1});
            },
            "tensor: shape and strides need 2 elements, there are 12.") == ATTEND_INVALID_SHAPE);
  CHECK(refused([&] { tensor(x, {0, 5}, {100, 1}); }, "") == ATTEND_OK);
  const int64_t most = INT64_MAX;
  CHECK(refused(
            [&] {
              tensor(x, {most, most});
            },
            "tensor: shape and strides need 9223372036854775807 elements, there are 12.") == ATTEND_INVALID_SHAPE);
  CHECK(refused(
            [&] {
              tensor(x, {2, 2}, {most, most});
            },
            "tensor: shape and strides need 9223372036854775807 elements, there are 12.") == ATTEND_INVALID_SHAPE);
  // Of pointers nothing is known: the call finds out.
  CHECK(refused([&] { tensor(x.data(), {INT64_MIN, most}, {most, INT64_MIN}); }, "") == ATTEND_OK);
  CHECK(refused([&] { tensor(x.data(), {most, most, most}); }, "") == ATTEND_OK);
}

TEST_CASE("tensor: what the library refuses is left to it") {
  std::vector<float> x(12), y(12);
  const auto status_of = [&](const tensor<float> &t) { return attend_softmax(&t.c(), &tensor(y).c(), nullptr); };
  extents five;
  for (int i = 0; i < 5; ++i) five.push_back(1);
  CHECK(ATTEND_REASON(status_of(tensor(x.data(), five))) == ATTEND_INVALID_RANK);
  CHECK(ATTEND_REASON(status_of(tensor(x.data(), extents()))) == ATTEND_INVALID_RANK);
  CHECK(ATTEND_REASON(status_of(tensor(x.data(), {3, 4}, {1}))) == ATTEND_INVALID_RANK);
  CHECK(ATTEND_REASON(status_of(tensor(x.data(), {-3, 4}))) == ATTEND_INVALID_SHAPE);
  CHECK(ATTEND_REASON(status_of(tensor(x.data(), {INT64_MAX, INT64_MAX, 2}))) == ATTEND_OVERFLOW);
  CHECK(ATTEND_REASON(status_of(tensor<float>(nullptr, {12}))) == ATTEND_NULL_POINTER);
}

TEST_CASE("array: owns, is moved, and is empty before and after") {
  using Array = attend::array<float>;
  static_assert(!std::is_copy_constructible_v<Array> && !std::is_copy_assignable_v<Array>);
  static_assert(std::is_nothrow_move_constructible_v<Array> && std::is_nothrow_move_assignable_v<Array>);
  Array a;
  CHECK(a.size() == 0);
  CHECK(a.data() == nullptr);
  CHECK(a.begin() == a.end());
  CHECK(a.extent(0) == 0);
  REQUIRE(a.allocate({2, 3, 4}).ok());
  CHECK(a.size() == 24);
  std::iota(a.begin(), a.end(), 0.0f);
  CHECK(a(1, 2, 3) == 23);
  CHECK(a(1, 0, 1) == 7);
  expect(tensor(a), a.data(), {2, 3, 4}, {1, 2, 6});
  static_assert(kWritable<decltype(tensor(a))>);
  static_assert(!kWritable<decltype(tensor(std::as_const(a)))>);
  static_assert(!kWritable<decltype(tensor(Array()))>, "it would end with the statement");

  const float *const memory = a.data();
  Array b = std::move(a);
  CHECK(b.data() == memory);
  CHECK(a.size() == 0);  // NOLINT: what is left is part of the interface
  CHECK(a.extent(0) == 0);
  a = std::move(b);
  CHECK(a.data() == memory);
  CHECK(b.size() == 0);
  Array &same = a;
  a = std::move(same);
  CHECK(a.data() == memory);
  CHECK(a[23] == 23);

  CHECK(Array().allocate({INT64_MAX / 2, 4}).reason() == ATTEND_OVERFLOW);
#ifndef ATTEND_TEST_SANITIZED
  CHECK(Array().allocate({int64_t{1} << 50, 4}).reason() == ATTEND_OUT_OF_MEMORY);
#endif
}

#ifdef ATTEND_TEST_EIGEN
TEST_CASE("tensor: Eigen's matrices, maps, blocks and transposes") {
  Eigen::MatrixXf m = Eigen::MatrixXf::Zero(5, 7);
  expect(tensor(m), m.data(), {5, 7}, {1, 5});
  expect(tensor(m.transpose()), m.data(), {7, 5}, {5, 1});
  expect(tensor(m.block(1, 2, 3, 4)), m.data() + 11, {3, 4}, {1, 5});
  expect(tensor(m.col(3)), m.data() + 15, {5, 1}, {1, 0});
  expect(tensor(m.row(3)), m.data() + 3, {1, 7}, {0, 5});
  const Eigen::Matrix<double, 3, 2, Eigen::RowMajor> by_rows = Eigen::Matrix<double, 3, 2>::Zero();
  expect(tensor(by_rows), by_rows.data(), {3, 2}, {2, 1});
  Eigen::VectorXf v = Eigen::VectorXf::Zero(4);
  expect(tensor(v), v.data(), {4, 1}, {1, 0});
  float x[60] = {};
  using Strided = Eigen::Map<Eigen::MatrixXf, 0, Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>>;
  expect(tensor(Strided(x, 3, 4, {12, 2})), x, {3, 4}, {2, 12});
  expect(tensor(Eigen::Map<const Eigen::MatrixXf>(x, 3, 4)), x, {3, 4}, {1, 3});
  const Eigen::Ref<const Eigen::MatrixXf> ref = m.leftCols(2);
  expect(tensor(ref), m.data(), {5, 2}, {1, 5});
  static_assert(kWritable<decltype(tensor(Eigen::Map<Eigen::MatrixXf>(x, 3, 4)))>);
  static_assert(kWritable<decltype(tensor(m.block(1, 2, 3, 4)))>);
  static_assert(!kWritable<decltype(tensor(ref))>);
  static_assert(!kWritable<decltype(tensor(Eigen::Map<const Eigen::MatrixXf>(x, 3, 4)))>);
  static_assert(!kWritable<decltype(tensor(std::as_const(m)))>);
}
#else
TEST_CASE("not tested: Eigen is not installed (libeigen3-dev)") {
  MESSAGE("Eigen is not installed: its matrices were not tested, but a type with the same members was");
}
#endif
