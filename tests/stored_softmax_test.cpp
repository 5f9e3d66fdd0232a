// attend_softmax of narrow types: the bits of the f32 call on the widened operands, rounded once.
#include "stored.hpp"

using namespace attend::test;

namespace {

void check(Random &random, int64_t rows, int64_t columns, bool contiguous) {
  using Layout = Operand<float>::Layout;
  const int64_t heads = random.in(1, 2);
  Layout in = Operand<float>::random_input_layout(random, 4), out = Operand<float>::random_layout(random);
  if (contiguous) in = out = Layout();
  const uint32_t of_x = any_float(random);
  // y is f32 or x's type.
  const uint32_t of_y = random.one_in(3) ? uint32_t{ATTEND_F32} : of_x;
  Stored x(of_x, {rows, columns, heads, 1}, in), y(of_y, {rows, columns, heads, 1}, out);
  Stored bias(any_float(random), {random.one_in(4) ? 1 : rows, random.one_in(2) ? 1 : columns, 1, 1}, in);
  x.fill(random, 3);
  bias.fill(random);
  bias.numbers.each([&](float &b, auto...) {
    if (random.one_in(9)) b = -std::numeric_limits<float>::infinity();
  });
  bias.round();
  std::vector<uint8_t> bytes(static_cast<size_t>(rows));
  for (uint8_t &b : bytes) b = random.one_in(5) ? 0 : 1;
  const attend_tensor mask = {bytes.data(), ATTEND_BOOL, 2, {rows, 1}, {1, 0}};
  attend_softmax_options options = options_with<attend_softmax_options>(static_cast<int32_t>(random.in(1, 3)));
  options.flags = random.one_in(3) ? ATTEND_LOG : 0;
  if (random.one_in(2)) options.scale = 0.3;
  if (random.one_in(3)) options.mask = &mask;
  const bool biased = random.one_in(3), in_place = of_x == of_y && random.one_in(3);
  INFO("rows " << rows << " columns " << columns << " x " << of_x << " y " << of_y << " log " << options.flags
               << " scale " << options.scale << " mask " << (options.mask != nullptr) << " bias " << biased << " "
               << bias.dtype() << " in place " << in_place << " contiguous " << contiguous);
  for_each_isa([&] {
    Operand<float> wanted = y.numbers, lse({1, columns, heads, 1}, {}), lse_wanted = lse;
    Stored result = in_place ? x : y;
    options.bias = biased ? bias.numbers.tensor() : nullptr;
    options.lse = lse_wanted.tensor();
    // A layout of its own decides the order of sums: the f32 call has that of the call it is compared with.
    Operand<float> numbers = x.numbers, of_result = in_place ? x.numbers : wanted;
    REQUIRE(ok(attend_softmax(numbers.tensor(), in_place ? numbers.tensor() : of_result.tensor(), &options)));
    options.bias = biased ? bias.tensor() : nullptr;
    options.lse = lse.tensor();
    REQUIRE(ok(attend_softmax(in_place ? result.tensor() : x.tensor(), result.tensor(), &options)));
    CHECK(result.is_rounded(in_place ? numbers : of_result));
    CHECK(result.gaps_untouched());
    CHECK(lse.same_memory(lse_wanted));
  });
}

void check_backward(Random &random, int64_t rows, int64_t columns, bool contiguous) {
  const auto layout = [&] { return contiguous ? Operand<float>::Layout() : Operand<float>::random_layout(random); };
  const Shape shape = {rows, columns, random.in(1, 2), 1};
  Stored y(any_float(random), shape, layout()), d_y(any_float(random), shape, layout());
  Stored d_x(any_float(random), shape, layout());
  auto options = options_with<attend_softmax_backward_options>(static_cast<int32_t>(random.in(1, 3)));
  options.flags = (random.one_in(3) ? ATTEND_LOG : 0) | (random.one_in(3) ? ATTEND_ACCUMULATE : 0);
  if (random.one_in(2)) options.scale = 0.3;
  y.numbers.each([&](float &v, auto...) {
    const float magnitude = static_cast<float>(std::fabs(random.normal()));
    v = random.one_in(5) ? 0 : (options.flags & ATTEND_LOG) != 0 ? -3 * magnitude : magnitude;
  });
  y.round();
  d_y.fill(random);
  d_x.fill(random);
  const bool in_place = y.dtype() == d_x.dtype() && random.one_in(3);
  if (in_place) d_x = y;
  INFO("backward, rows " << rows << " columns " << columns << " y " << y.dtype() << " d_y " << d_y.dtype() << " d_x "
                         << d_x.dtype() << " flags " << options.flags << " in place " << in_place);
  for_each_isa([&] {
    Operand<float> wanted = d_x.numbers, of_y = y.numbers;
    Stored result = d_x;
    REQUIRE(ok(attend_softmax_backward(in_place ? wanted.tensor() : of_y.tensor(), d_y.numbers.tensor(),
                                       wanted.tensor(), &options)));
    REQUIRE(
        ok(attend_softmax_backward(in_place ? result.tensor() : y.tensor(), d_y.tensor(), result.tensor(), &options)));
    CHECK(result.is_rounded(wanted));
    CHECK(result.gaps_untouched());
  });
}

}  // namespace

TEST_CASE("stored softmax: gradients of any mixture of f32, bf16 and f16") {
  Random random(3);
  for (int i = 0, count = rounds(300, 30000); i < count; ++i) {
    const int64_t rows = random.pick<int64_t>({1, 2, 7, 8, 16, 17, 33, 65, 127, 200, 255, 257, 512, 513, 1030});
    check_backward(random, rows, random.in(1, 40), random.one_in(2));
  }
  for (int i = 0; i < 4; ++i) check_backward(random, random.in(1, 20), random.in(250, 900), false);
}

TEST_CASE("stored softmax: any mixture of f32, bf16 and f16 has the f32 call's bits, rounded once") {
  Random random(1);
  for (int i = 0, count = rounds(300, 30000); i < count; ++i) {
    const int64_t rows =
        random.pick<int64_t>({0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65, 127, 200, 511, 512, 513, 1030});
    check(random, rows, random.in(1, 40), random.one_in(2));
  }
}

// More than a group of columns, and columns that are read twice; spans of several threads.
TEST_CASE("stored softmax: long columns") {
  Random random(2);
  for (int i = 0; i < 6; ++i) check(random, random.in(5000, 20000), random.in(1, 9), i % 2 == 0);
  for (int i = 0; i < 6; ++i) check(random, random.in(65537, 90000), random.in(1, 2), i % 3 != 0);
}
