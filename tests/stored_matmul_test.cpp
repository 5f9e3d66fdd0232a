// attend_matmul of narrow types: the bits of the f32 call on the widened operands, rounded once, on every instruction set.
#include "on_core.hpp"
#include "stored.hpp"

using namespace attend::test;

namespace {

constexpr auto kDepths = {int64_t{0}, int64_t{511}, int64_t{512}, int64_t{513}, int64_t{1030}};

void check_product(Random &random, const Product &p, int32_t threads) {
  const int64_t heads = random.in(1, 2);
  using Layout = Operand<float>::Layout;
  const auto layout = [&] { return Operand<float>::random_input_layout(random); };
  const Layout out = Operand<float>::random_layout(random);
  Stored a(any_float(random), {p.m, p.k, random.in(1, heads), 1}, layout());
  Stored b(any_float(random), {p.k, p.n, random.in(1, heads), 1}, layout());
  Stored bias(any_float(random), {random.one_in(4) ? 1 : p.m, random.one_in(2) ? 1 : p.n, 1, 1}, layout());
  Stored c(any_float(random), {p.m, p.n, heads, 1}, out);
  for (Stored *s : {&a, &b, &bias, &c}) s->fill(random);
  const double alpha = random.pick({1.0, 1.0, -0.7, 0.0}), beta = random.pick({0.0, 0.0, 1.0, 0.3});
  if (beta == 0) c.fill_with(std::numeric_limits<float>::quiet_NaN());
  const bool biased = random.one_in(2);
  attend_matmul_options options = options_with<attend_matmul_options>(threads),
                        wide = options_with<attend_matmul_options>(1);
  options.bias = biased ? bias.tensor() : nullptr;
  wide.bias = biased ? bias.numbers.tensor() : nullptr;
  INFO("m " << p.m << " n " << p.n << " k " << p.k << " alpha " << alpha << " beta " << beta << " biased " << biased
            << " types " << a.dtype() << " " << b.dtype() << " " << c.dtype() << " " << bias.dtype());
  for_each_isa([&] {
    Stored result = c;
    Operand<float> wanted = c.numbers;
    {
      const OnCore another(random);
      if (!ok(attend_matmul(alpha, a.numbers.tensor(), b.numbers.tensor(), beta, wanted.tensor(), &wide))) return;
    }
    const OnCore core(random);
    if (!ok(attend_matmul(alpha, a.tensor(), b.tensor(), beta, result.tensor(), &options))) return;
    CHECK(result.is_rounded(wanted));
    CHECK(result.gaps_untouched());
  });
}

}  // namespace

TEST_CASE("stored matmul: any mixture of f32, bf16 and f16 has the f32 call's bits, rounded once") {
  Random random(1);
  for (int i = 0, count = rounds(400, 100000); i < count; ++i) {
    check_product(random, random_product(random, 1000000, kDepths), static_cast<int32_t>(random.in(1, 3)));
  }
}

TEST_CASE("stored matmul: large products, on several threads") {
  Random random(2);
  for (int i = 0; i < rounds(6, 60); ++i)
    check_product(random, {random.in(250, 400), random.in(150, 300), random.in(500, 700)}, 3);
  for (int i = 0; i < rounds(4, 40); ++i) check_product(random, {random.in(9000, 20000), 1, random.in(100, 600)}, 2);
  for (int i = 0; i < rounds(4, 40); ++i) check_product(random, {1, random.in(9000, 20000), random.in(100, 600)}, 2);
}

// Sums of 16-bit results are not rounded on the way: 4096 times 1 is not the 256 at which bf16 would stop counting.
TEST_CASE("stored matmul: a long sum is rounded once") {
  for (const uint32_t dtype : {ATTEND_BF16, ATTEND_F16}) {
    Stored a(dtype, {40, 4096, 1, 1}, {}), b(dtype, {4096, 24, 1, 1}, {}), c(dtype, {40, 24, 1, 1}, {});
    a.fill_with(1);
    b.fill_with(1);
    for_each_isa([&] {
      Stored result = c;
      attend_matmul_options options = options_with<attend_matmul_options>(1);
      REQUIRE(ok(attend_matmul(1, a.tensor(), b.tensor(), 0, result.tensor(), &options)));
      CHECK(number_in(dtype, result.bits(39, 23, 0, 0)) == 4096);
    });
  }
}

// Nothing is widened whole: what a narrow call needs beside the f32 call is bounded.
TEST_CASE("stored matmul: the workspace does not grow with the operands") {
  uint64_t beside[2];
  for (int i = 0; i < 2; ++i) {
    const int64_t n = i == 0 ? 1024 : 65536;
    const auto bytes = [&](uint32_t dtype) {
      const auto tensor = [&](int64_t rows, int64_t columns) {
        return attend_tensor{nullptr, dtype, 2, {rows, columns}, {1, rows}};
      };
      const attend_tensor a = tensor(n, n), b = tensor(n, n), c = tensor(n, n);
      attend_matmul_options options = options_with<attend_matmul_options>(2);
      uint64_t size = 0;
      REQUIRE(ok(attend_matmul_workspace(1, &a, &b, 0, &c, &options, &size)));
      return size;
    };
    beside[i] = bytes(ATTEND_BF16) - bytes(ATTEND_F32);
  }
  CHECK(beside[0] == beside[1]);
  CHECK(beside[1] <= 2 * (512u << 10));
  // Few columns whose elements lie apart are gathered, of both types alike, up to half of the L2.
  for (const int64_t k : {1024, 16384, 65536}) {
    const auto bytes = [&](uint32_t of_b) {
      const attend_tensor a = {nullptr, ATTEND_F32, 2, {4096, k}, {k, 1}}, b = {nullptr, of_b, 2, {k, 4}, {4096, 1}},
                          c = {nullptr, ATTEND_F32, 2, {4096, 4}, {1, 4096}};
      attend_matmul_options options = options_with<attend_matmul_options>(1);
      uint64_t size = 0;
      REQUIRE(ok(attend_matmul_workspace(1, &a, &b, 0, &c, &options, &size)));
      return size;
    };
    INFO("k " << k);
    CHECK(bytes(ATTEND_F32) <= (512u << 10) + 64);
    if (k <= 16384) {
      CHECK(bytes(ATTEND_BF16) == bytes(ATTEND_F32));
    } else {
      CHECK(bytes(ATTEND_BF16) <= 128u << 10);
    }
  }
}
