// attend/attend.hpp: conversion, and element types beside float and double, with the bits of the C calls.
#include <attend/attend.hpp>

#include "hpp/results.hpp"

using namespace attend::test;
using attend::columns;
using attend::tensor;

namespace {

// Storage types of a user's own.
struct Bf16 {
  uint16_t bits;
};
struct F8 {
  uint8_t bits;
};

}  // namespace

template <>
struct attend::element<Bf16> {
  static constexpr std::uint32_t dtype = ATTEND_BF16;
};
template <>
struct attend::element<F8> {
  static constexpr std::uint32_t dtype = ATTEND_F8E4M3;
};

namespace {

// [batch, heads, items, features] as attend.h has it.
constexpr int64_t kB = 2, kH = 3, kN = 7, kD = 5, kCount = kB * kH * kN * kD;
template <class T>
attend_tensor c_view(const T *data) {
  return {const_cast<T *>(data), attend::element<T>::dtype, 4, {kD, kN, kH, kB}, {1, kD, kN * kD, kH * kN * kD}};
}
// One number an item, and one a feature, for each head.
attend_tensor c_by_item(const std::vector<float> &scale) {
  return {const_cast<float *>(scale.data()), ATTEND_F32, 4, {1, kN, kH, kB}, {1, 1, kN, kN * kH}};
}
attend_tensor c_by_feature(const std::vector<float> &scale) {
  return {const_cast<float *>(scale.data()), ATTEND_F32, 3, {kD, 1, kH}, {1, 1, kD}};
}
template <class X>
auto view(X &x) {
  return tensor(x, {kB, kH, kN, kD});
}

std::vector<float> positive(int64_t count, unsigned stream) {
  std::vector<float> x = normals<float>(count, stream);
  for (float &v : x) v = std::fabs(v) / 64 + 0.01f;
  return x;
}

template <class To, class From>
void expect_bits_of_c(const std::vector<From> &x) {
  INFO(attend::element<From>::dtype << " to " << attend::element<To>::dtype);
  std::vector<To> wanted(x.size()), mine(x.size());
  const attend_tensor cx = c_view(x.data()), cy = c_view(wanted.data());
  REQUIRE(ok(attend_convert(&cx, &cy, nullptr)));
  const attend::array<To> owned = attend::convert<To>(view(x));
  CHECK((owned.extent(0) == kD && owned.extent(1) == kN && owned.extent(2) == kH && owned.extent(3) == kB));
  CHECK(same_bits(owned, wanted));
  attend::convert(view(x), view(mine), attend::convert_options().threads(1));
  CHECK(same_bits(mine, wanted));
}

}  // namespace

TEST_CASE("convert: values") {
  const std::vector<double> x = {0.5, 1.5, -2.5, 300, -1e10};
  const auto small = attend::convert<std::int8_t>(tensor(x));
  CHECK(std::vector<int>(small.begin(), small.end()) == std::vector<int>{0, 2, -2, 127, -128});
  const auto large = attend::convert<std::int32_t>(tensor(x));
  CHECK(std::vector<std::int32_t>(large.begin(), large.end()) == std::vector<std::int32_t>{0, 2, -2, 300, INT32_MIN});
  const auto bytes = attend::convert<unsigned char>(tensor(x));
  CHECK(std::vector<int>(bytes.begin(), bytes.end()) == std::vector<int>{0, 2, 0, 255, 0});
  CHECK(attend::convert<Bf16>(tensor(x))[1].bits == 0x3fc0);
  CHECK(attend::convert<F8>(tensor(x))[0].bits == 0x30);
  CHECK(attend::convert<float>(tensor(x))[4] == -1e10f);
  CHECK(attend::convert<float>(tensor<const double>(nullptr, {0, 4})).size() == 0);

  // In place where elements have one size.
  std::vector<float> y = {1.5f, -2, 7};
  attend::convert(tensor(y), tensor(reinterpret_cast<std::int32_t *>(y.data()), {3}));
  std::int32_t as_integers[3];
  std::memcpy(as_integers, y.data(), sizeof as_integers);
  CHECK((as_integers[0] == 2 && as_integers[1] == -2 && as_integers[2] == 7));
}

TEST_CASE("convert: bits of the C call") {
  const std::vector<float> x = normals<float>(kCount, 1);
  const std::vector<double> wide = normals<double>(kCount, 2);
  expect_bits_of_c<Bf16>(x);
  expect_bits_of_c<F8>(x);
  expect_bits_of_c<std::int8_t>(x);
  expect_bits_of_c<double>(x);
  expect_bits_of_c<float>(wide);
  expect_bits_of_c<F8>(wide);
  expect_bits_of_c<std::int32_t>(wide);
  const auto narrow = attend::convert<F8>(view(x));
  expect_bits_of_c<float>(std::vector<F8>(narrow.begin(), narrow.end()));

  std::vector<F8> y(kCount);
  CHECK(attend::convert_workspace(view(x), view(y)) == 0);
}

TEST_CASE_TEMPLATE("convert: scales, given and computed", To, std::int8_t, F8) {
  const std::vector<float> x = normals<float>(kCount, 3);
  std::vector<To> wanted(kCount), mine(kCount);
  const attend_tensor cx = c_view(x.data()), cy = c_view(wanted.data());
  attend_convert_options o = ATTEND_CONVERT_OPTIONS_INIT;
  using options = attend::convert_options;

  // Given, one an item.
  const std::vector<float> given = positive(kB * kH * kN, 4);
  const attend_tensor c_given = c_by_item(given);
  o.scale = &c_given;
  REQUIRE(ok(attend_convert(&cx, &cy, &o)));
  const tensor by_item(given, {kB, kH, kN, int64_t{1}});
  CHECK(same_bits(attend::convert<To>(view(x), options().scale(by_item)), wanted));
  attend::convert(view(x), view(mine), options().scale(by_item));
  CHECK(same_bits(mine, wanted));

  // And back.
  std::vector<float> wanted_back(kCount);
  const attend_tensor c_back = c_view(wanted_back.data());
  REQUIRE(ok(attend_convert(&cy, &c_back, &o)));
  CHECK(same_bits(attend::convert<float>(view(mine), options().scale(by_item)), wanted_back));

  // Computed, one a feature, for all batches.
  std::vector<float> want_scale(kH * kD), scale(kH * kD);
  const attend_tensor c_scale = c_by_feature(want_scale);
  o.scale = &c_scale;
  o.flags = ATTEND_COMPUTE_SCALE;
  REQUIRE(ok(attend_convert(&cx, &cy, &o)));
  const tensor by_feature(scale, {kH, int64_t{1}, kD});
  CHECK(same_bits(attend::convert<To>(view(x), options().compute_scale(by_feature)), wanted));
  CHECK(same_bits(scale, want_scale));
  CHECK(*std::min_element(scale.begin(), scale.end()) > 0);
  std::fill(scale.begin(), scale.end(), 0.0f);
  attend::convert(view(x), view(mine), options().compute_scale(by_feature));
  CHECK(same_bits(mine, wanted));
  CHECK(same_bits(scale, want_scale));

  // The last word counts: computed once, then given.
  const auto again = options().compute_scale(by_feature).scale(by_feature);
  CHECK(again.get().flags == 0);
  CHECK(same_bits(attend::convert<To>(view(x), again), wanted));

  // A copy of options views the same memory, with pointers of its own.
  const attend::convert_options copy = again;
  CHECK(copy.get().scale->data == scale.data());
  CHECK(copy.get().scale != again.get().scale);
}

TEST_CASE("convert: what is refused") {
  const std::vector<float> x(6, 1);
  std::vector<float> scale(1);
  using options = attend::convert_options;
  Thrown t = thrown([&] { attend::convert<Bf16>(tensor(x), options().compute_scale(scale)); });
  CHECK(t.reason == ATTEND_INVALID_VALUE);
  CHECK(t.argument == "options.flags");
  CHECK(t.what.find("bfloat16") != std::string::npos);
  t = thrown([&] { attend::convert<std::int8_t>(tensor(x), options().scale(scale).threads(-2)); });
  CHECK(t.what.find("options.threads: is -2,") == 0);
  t = thrown([&] { attend::convert<std::int8_t>(tensor(x), options().scale(std::vector<float>(5, 1))); });
  CHECK(t.reason == ATTEND_INVALID_SHAPE);
  CHECK(t.what == "options.scale: has 5 rows, not 1 or x's 6.");
  t = thrown([&] { attend::convert<bool>(tensor(x)); });
  CHECK(t.reason == ATTEND_INVALID_DTYPE);
  CHECK(t.argument == "y");
  std::vector<unsigned char> y(5);
  CHECK(thrown([&] { attend::convert_workspace(x, y); }).what == "y: has 5 rows, not x's 6.");
}

TEST_CASE_TEMPLATE("attention: keys and values with scales, bits of the C call", Narrow, std::int8_t, F8) {
  const std::vector<float> q = normals<float>(kCount, 5), k = normals<float>(kCount, 6), v = normals<float>(kCount, 7);
  std::vector<float> k_scale(kB * kH * kN), v_scale(kH * kD);
  const tensor by_key(k_scale, {kB, kH, kN, int64_t{1}}), by_feature(v_scale, {kH, int64_t{1}, kD});
  const auto narrow_k = attend::convert<Narrow>(view(k), attend::convert_options().compute_scale(by_key));
  const auto narrow_v = attend::convert<Narrow>(view(v), attend::convert_options().compute_scale(by_feature));
  const auto out =
      attend::attention(view(q), narrow_k, narrow_v, attend::attention_options().k_scale(by_key).v_scale(by_feature));

  std::vector<float> wanted(kCount);
  const attend_tensor cq = c_view(q.data()), ck = c_view(narrow_k.data()), cv = c_view(narrow_v.data()),
                      co = c_view(wanted.data()), cks = c_by_item(k_scale), cvs = c_by_feature(v_scale);
  attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
  o.k_scale = &cks, o.v_scale = &cvs;
  REQUIRE(ok(attend_attention(&cq, &ck, &cv, &co, &o)));
  CHECK(same_bits(out, wanted));
  // Near to the call on the numbers themselves.
  const auto exact = attend::attention(view(q), view(k), view(v));
  double largest = 0;
  for (size_t i = 0; i < exact.size(); ++i)
    largest = std::max(largest, std::fabs(static_cast<double>(out[i]) - static_cast<double>(exact[i])));
  CHECK(largest < (attend::element<Narrow>::dtype == ATTEND_I8 ? 0.1 : 0.3));
}

TEST_CASE("attention: int8 needs its scales; a result has the queries' type") {
  std::vector<std::int8_t> k(12, 1);
  const std::vector<float> q(12, 1);
  const tensor tq(q, {3, 4});
  const tensor tk(k, {3, 4});
  using options = attend::attention_options;
  Thrown t = thrown([&] { attend::attention(tq, tk, tk, options()); });
  CHECK(t.reason == ATTEND_NULL_POINTER);
  CHECK(t.argument == "options.k_scale");
  const std::vector<float> one(1, 0.5f);
  CHECK(thrown([&] { attend::attention(tq, tk, tk, options().k_scale(one)); }).argument == "options.v_scale");
  const attend::array<float> out = attend::attention(tq, tk, tk, options().k_scale(one).v_scale(one));
  CHECK(std::count(out.begin(), out.end(), 0.5f) == 12);

  const auto narrow = attend::convert<Bf16>(tq);
  const attend::array<Bf16> of_narrow = attend::attention(narrow, tq, tq);
  CHECK(of_narrow[0].bits == 0x3f80);
}

TEST_CASE("matmul: integers, exact and scaled, and weights of 8 bits") {
  // W is 2 x 3, x is 3 x 2 with items of three features.
  const std::vector<std::int8_t> w = {1, -2, 3, 100, 127, -128};
  const std::vector<std::uint8_t> x = {4, 5, 6, 255, 0, 128};
  const std::vector<std::int32_t> zero = {128};
  const std::vector<float> by_row = {0.5f, 0.25f};
  const auto weights = attend::matrix(w, {2, 3});
  const auto sums = attend::matmul(weights, tensor(x, {2, 3}));
  CHECK(std::vector<std::int32_t>(sums.begin(), sums.end()) ==
        std::vector<std::int32_t>{4 - 10 + 18, 400 + 635 - 768, 255 + 384, 25500 - 16384});
  std::vector<float> y(4);
  attend::matmul(weights, tensor(x, {2, 3}), tensor(y, {2, 2}),
                 attend::matmul_options().a_scale(by_row).b_zero(zero).alpha(2));
  CHECK(y ==
        std::vector<float>{12 - 128.0f * 2, 0.5f * (267 - 128.0f * 99), 639 - 128.0f * 2, 0.5f * (9116 - 128.0f * 99)});
  const std::vector<float> activations(x.begin(), x.end());
  const auto floats = attend::matmul(weights, tensor(activations, {2, 3}), attend::matmul_options().a_scale(by_row));
  CHECK(std::vector<float>(floats.begin(), floats.end()) == std::vector<float>{6, 66.75f, 319.5f, 2279});
  const auto turned = attend::matmul(tensor(activations, {3, 2}), attend::matrix(w, {3, 2}),
                                     attend::matmul_options().b_scale(std::vector<float>{2}));
  static_assert(std::is_same_v<std::decay_t<decltype(turned[0])>, float>);
  CHECK_THROWS_WITH(attend::matmul(weights, tensor(x, {2, 3}), attend::matmul_options().a_scale(by_row)),
                    "options.a_scale: is given, but c's type is int32, not a floating-point type.");
}
