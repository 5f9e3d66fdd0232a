// attend_convert against conversions written from the formats' definitions (stored.hpp), between all types.
#include "stored.hpp"

using namespace attend::test;

namespace {

constexpr uint32_t kNarrow[] = {ATTEND_BF16, ATTEND_F16, ATTEND_F8E4M3};

template <class T>
attend_tensor column(std::vector<T> &values, uint32_t dtype) {
  return {values.data(), dtype, 1, {static_cast<int64_t>(values.size())}, {1}};
}

template <class To, class From>
std::vector<To> converted(std::vector<From> &from, uint32_t from_type, uint32_t to_type) {
  std::vector<To> to(from.size());
  const attend_tensor x = column(from, from_type), y = column(to, to_type);
  attend_convert_options options = options_with<attend_convert_options>(2);
  CHECK(ok(attend_convert(&x, &y, &options)));
  return to;
}

// What f32 rounds to each number of a format: the middle between it and the next, and the floats on either side.
std::vector<float> midpoints(const Format &f) {
  std::vector<float> values;
  const uint32_t all = (1u << (f.exponent_bits + f.significand_bits)) - 1u;
  for (uint32_t bits = 0; bits < all; ++bits) {
    const double low = number_of(f, bits), high = number_of(f, bits + 1);
    if (!std::isfinite(low)) continue;
    // Beyond the largest number as if there was one more.
    const double step = std::isfinite(high) ? high - low : low - number_of(f, bits - 1);
    const auto middle = static_cast<float>(low + step / 2);
    for (const float v : {static_cast<float>(low), std::nextafter(middle, 0.0f), middle,
                          std::nextafter(middle, std::numeric_limits<float>::infinity())}) {
      values.push_back(v);
      values.push_back(-v);
    }
  }
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  for (const float v : {inf, -inf, nan, -nan, std::numeric_limits<float>::max(), -std::numeric_limits<float>::max(),
                        std::numeric_limits<float>::denorm_min(), 464.0f, 464.1f, 1e30f}) {
    values.push_back(v);
  }
  return values;
}

// NaN is NaN, whatever its payload and sign.
bool same_number(uint32_t dtype, uint32_t a, uint32_t b) {
  return a == b || (std::isnan(number_in(dtype, a)) && std::isnan(number_in(dtype, b)));
}

template <class To>
void check_midpoints(uint32_t dtype) {
  std::vector<float> values = midpoints(format_of(dtype));
  for_each_isa([&] {
    const std::vector<To> got = converted<To>(values, ATTEND_F32, dtype);
    size_t wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      wrong += !same_number(dtype, got[i], nearest_in(dtype, static_cast<double>(values[i])));
    }
    CHECK(wrong == 0);
  });
}

template <class From>
void check_widening(uint32_t dtype) {
  std::vector<From> all;
  for (uint32_t bits = 0; bits < 1u << (8 * sizeof(From)); ++bits) all.push_back(static_cast<From>(bits));
  for_each_isa([&] {
    const std::vector<float> got = converted<float>(all, dtype, ATTEND_F32);
    size_t wrong = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      const double want = number_in(dtype, all[i]);
      const auto of_want = static_cast<float>(want);
      wrong += std::isnan(want) ? !std::isnan(got[i]) : std::memcmp(&got[i], &of_want, sizeof of_want) != 0;
    }
    CHECK(wrong == 0);
  });
}

}  // namespace

TEST_CASE("convert: every number of every narrow type is widened exactly") {
  check_widening<uint16_t>(ATTEND_BF16);
  check_widening<uint16_t>(ATTEND_F16);
  check_widening<uint8_t>(ATTEND_F8E4M3);
  check_widening<uint8_t>(ATTEND_I8);
  check_widening<uint8_t>(ATTEND_U8);
}

TEST_CASE("convert: f32 is rounded to nearest even at every midpoint") {
  check_midpoints<uint16_t>(ATTEND_BF16);
  check_midpoints<uint16_t>(ATTEND_F16);
  check_midpoints<uint8_t>(ATTEND_F8E4M3);
  std::vector<float> values;
  for (int n = -400; n < 400; ++n) {
    for (const float v : {0.0f, 0.25f, 0.5f, 0.75f}) values.push_back(static_cast<float>(n) + v);
  }
  values.push_back(1e30f), values.push_back(-1e30f);
  for (const uint32_t dtype : {ATTEND_I8, ATTEND_U8}) {
    for_each_isa([&] {
      const std::vector<uint8_t> got = converted<uint8_t>(values, ATTEND_F32, dtype);
      for (size_t i = 0; i < values.size(); ++i) CHECK(got[i] == nearest_in(dtype, static_cast<double>(values[i])));
    });
  }
  std::vector<float> nan = {std::numeric_limits<float>::quiet_NaN()};
  CHECK(converted<uint8_t>(nan, ATTEND_F32, ATTEND_I8)[0] == 0);
}

// By way of f32 some of these would be rounded twice: just above a midpoint, by less than f32 can say.
TEST_CASE("convert: f64 and i32 are rounded once") {
  for (const uint32_t dtype : kNarrow) {
    const Format &f = format_of(dtype);
    std::vector<double> values;
    for (const uint32_t bits : {1u, 0x35u, 0x3cu, 0x41u, 0x7du}) {
      const double low = number_of(f, bits), middle = (low + number_of(f, bits + 1)) / 2;
      for (const double v : {std::nextafter(middle, 0.0), middle, std::nextafter(middle, 1e300)})
        values.push_back(v), values.push_back(-v);
    }
    values.insert(values.end(), {1e300, -1e300, 1e-300, HUGE_VAL});
    for_each_isa([&] {
      const std::vector<uint16_t> got =
          dtype == ATTEND_F8E4M3 ? std::vector<uint16_t>() : converted<uint16_t>(values, ATTEND_F64, dtype);
      const std::vector<uint8_t> got8 =
          dtype == ATTEND_F8E4M3 ? converted<uint8_t>(values, ATTEND_F64, dtype) : std::vector<uint8_t>();
      for (size_t i = 0; i < values.size(); ++i) {
        CHECK((got.empty() ? got8[i] : got[i]) == nearest_in(dtype, values[i]));
      }
    });
  }
  std::vector<int32_t> integers = {0, 1, -1, 257, 16777217, -16777217, INT32_MAX, INT32_MIN, 65519, 65520};
  const std::vector<uint16_t> halves = converted<uint16_t>(integers, ATTEND_I32, ATTEND_F16);
  const std::vector<double> doubles = converted<double>(integers, ATTEND_I32, ATTEND_F64);
  const std::vector<float> floats = converted<float>(integers, ATTEND_I32, ATTEND_F32);
  for (size_t i = 0; i < integers.size(); ++i) {
    CHECK(halves[i] == nearest_in(ATTEND_F16, integers[i]));
    CHECK(doubles[i] == integers[i]);
    CHECK(floats[i] == static_cast<float>(integers[i]));
  }
  std::vector<double> large = {2147483646.5, 2147483647.5, 1e10, -1e10, -0.5, 0.5, 1.5, std::nan("")};
  const std::vector<int32_t> want = {2147483646, INT32_MAX, INT32_MAX, INT32_MIN, 0, 0, 2, 0};
  CHECK(converted<int32_t>(large, ATTEND_F64, ATTEND_I32) == want);
}

// Any layout, any pair of narrow types, and scales by column, row and whole, given and computed.
TEST_CASE("convert: layouts, and scales given and computed") {
  Random random(1);
  for (int round = 0; round < rounds(300, 30000); ++round) {
    const Shape shape = {random.in(1, 300), random.in(1, 20), random.in(1, 2), random.in(1, 2)};
    const uint32_t from = random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16}),
                   to = random.pick<uint32_t>({ATTEND_I8, ATTEND_F8E4M3});
    const bool computes = random.one_in(2);
    Shape of_scale = shape;
    for (int64_t &extent : of_scale) extent = random.one_in(2) ? 1 : extent;
    Stored x(from, shape, Operand<float>::random_input_layout(random, 4)),
        y(to, shape, Operand<float>::random_layout(random));
    Operand<float> scale(of_scale, Operand<float>::random_layout(random));
    x.fill(random, random.one_in(9) ? 0 : 3);
    scale.each([&](float &s, auto...) { s = static_cast<float>(0.01 + std::fabs(random.normal()) / 20); });
    attend_convert_options options = options_with<attend_convert_options>(static_cast<int32_t>(random.in(1, 3)));
    options.flags = computes ? ATTEND_COMPUTE_SCALE : 0;
    INFO("from " << from << " to " << to << " computes " << computes << " scale " << of_scale[0] << " " << of_scale[1]);
    Operand<float> largest(of_scale, {});
    largest.fill_with(0);
    const auto cell = [&](Operand<float> &o, int64_t i, int64_t j, int64_t h, int64_t b) -> float & {
      return o.at(of_scale[0] == 1 ? 0 : i, of_scale[1] == 1 ? 0 : j, of_scale[2] == 1 ? 0 : h,
                  of_scale[3] == 1 ? 0 : b);
    };
    x.numbers.each([&](float &v, int64_t i, int64_t j, int64_t h, int64_t b) {
      float &most = cell(largest, i, j, h, b);
      most = std::max(most, std::fabs(v));
    });
    for_each_isa([&] {
      Stored result = y;
      Operand<float> used = scale;
      options.scale = used.tensor();
      REQUIRE(ok(attend_convert(x.tensor(), result.tensor(), &options)));
      CHECK(result.gaps_untouched());
      CHECK(used.gaps_untouched());
      size_t wrong = 0;
      x.numbers.each([&](float &v, int64_t i, int64_t j, int64_t h, int64_t b) {
        const float s = cell(used, i, j, h, b), most = cell(largest, i, j, h, b);
        if (computes) wrong += s != (most == 0 ? 1 : most / (to == ATTEND_I8 ? 127.0f : 448.0f));
        float quotient = v / s;
        if (to == ATTEND_I8) quotient = std::clamp(quotient, -127.0f, 127.0f);
        wrong += result.bits(i, j, h, b) != nearest_in(to, static_cast<double>(quotient));
      });
      CHECK(wrong == 0);
      // And back: q scale, rounded once to f32.
      Operand<float> back(shape, {});
      attend_convert_options from_scale = options_with<attend_convert_options>(1);
      from_scale.scale = used.tensor();
      REQUIRE(ok(attend_convert(result.tensor(), back.tensor(), &from_scale)));
      back.each([&](float &v, int64_t i, int64_t j, int64_t h, int64_t b) {
        wrong += v != static_cast<float>(number_in(to, result.bits(i, j, h, b))) * cell(used, i, j, h, b);
      });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("convert: in place where elements have one size; what does not fit is named") {
  std::vector<float> values = {1.5f, -2.5f, 3e9f, 0.1f};
  std::vector<uint16_t> halves = converted<uint16_t>(values, ATTEND_F32, ATTEND_BF16);
  const attend_tensor bf16 = column(halves, ATTEND_BF16);
  attend_tensor f16 = bf16;
  f16.dtype = ATTEND_F16;
  attend_convert_options options = options_with<attend_convert_options>(1);
  REQUIRE(ok(attend_convert(&bf16, &f16, &options)));
  for (size_t i = 0; i < values.size(); ++i) {
    const double as_bf16 = number_in(ATTEND_BF16, nearest_in(ATTEND_BF16, static_cast<double>(values[i])));
    CHECK(halves[i] == nearest_in(ATTEND_F16, as_bf16));
  }
  const attend_tensor x = column(values, ATTEND_F32), overlapping = {values.data(), ATTEND_BF16, 1, {4}, {1}};
  const auto fails = [&](const attend_tensor &a, const attend_tensor &b, int reason, const std::string &argument) {
    const attend_status s = attend_convert(&a, &b, &options);
    CHECK(ATTEND_REASON(s) == reason);
    CHECK(attend_status_argument(s) == argument);
  };
  fails(x, overlapping, ATTEND_OVERLAP, "y");
  attend_tensor boolean = bf16;
  boolean.dtype = ATTEND_BOOL;
  fails(boolean, x, ATTEND_INVALID_DTYPE, "x");
  fails(x, boolean, ATTEND_INVALID_DTYPE, "y");
  float one = 1;
  const attend_tensor scale = {&one, ATTEND_F32, 1, {1}, {1}};
  options.scale = &scale;
  fails(x, bf16, ATTEND_INVALID_VALUE, "options.scale");
  options.flags = ATTEND_COMPUTE_SCALE;
  fails(x, bf16, ATTEND_INVALID_VALUE, "options.flags");
  std::vector<uint8_t> bytes(4);
  const attend_tensor i8 = column(bytes, ATTEND_I8);
  options.scale = nullptr;
  fails(x, i8, ATTEND_NULL_POINTER, "options.scale");
}
