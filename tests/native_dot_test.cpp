// ATTEND_NATIVE_DOT: products of bf16 within the bound that attend.h states, on CPUs with dot products of bf16, and without
// any effect elsewhere.
#include "on_core.hpp"
#include "stored.hpp"

using namespace attend::test;

namespace {

constexpr auto kDepths = {int64_t{0}, int64_t{1023}, int64_t{1024}, int64_t{1025}, int64_t{2050}};
constexpr double kSmallest = 0x1p-126;
constexpr Operand<float>::Layout kByRows = {{1, 0, 2, 3}};

// Of products whose shorter side is so many.
bool has_dots(int64_t least) {
  return std::string(attend_isa()) == "avx512bf16" && (least <= 4 || attend::has_fast_pairs());
}

struct Case {
  Product p;
  int64_t heads;
  double alpha, beta;
  Stored a, b, bias, c;
  bool biased;

  static Operand<float>::Layout input(Random &random) { return Operand<float>::random_input_layout(random); }
  Case(Random &random, const Product &product, uint32_t of_a, uint32_t of_b)
      : p(product),
        heads(random.in(1, 2)),
        alpha(random.pick({1.0, 1.0, -0.7, 0.0})),
        beta(random.pick({0.0, 0.0, 1.0, 0.3})),
        a(of_a, {p.m, p.k, random.in(1, heads), 1}, input(random)),
        b(of_b, {p.k, p.n, random.in(1, heads), 1}, input(random)),
        bias(any_float(random), {random.one_in(4) ? 1 : p.m, random.one_in(2) ? 1 : p.n, 1, 1}, input(random)),
        c(any_float(random), {p.m, p.n, heads, 1}, Operand<float>::random_layout(random)),
        biased(random.one_in(2)) {
    for (Stored *s : {&a, &b, &bias, &c}) s->fill(random);
    if (beta == 0) c.fill_with(std::numeric_limits<float>::quiet_NaN());
  }

  // Where the flag may change bits.
  bool affected() {
    if (a.dtype() != ATTEND_BF16 || b.dtype() != ATTEND_BF16) return false;
    return std::min(p.m, p.n) > 4 || (p.m >= p.n ? a.tensor()->stride[1] : b.tensor()->stride[0]) == 1;
  }

  Stored result(uint32_t flags, int32_t threads) {
    attend_matmul_options options = options_with<attend_matmul_options>(threads);
    options.flags = flags;
    options.bias = biased ? bias.tensor() : nullptr;
    Stored to = c;
    ok(attend_matmul(alpha, a.tensor(), b.tensor(), beta, to.tensor(), &options));
    CHECK(to.gaps_untouched());
    return to;
  }

  static double of(Stored &x, int64_t i, int64_t j, int64_t h) {
    const Shape &s = x.numbers.shape();
    return static_cast<double>(x.numbers.at(s[0] == 1 ? 0 : i, s[1] == 1 ? 0 : j, s[2] == 1 ? 0 : h, 0));
  }
  // The largest error, as a part of the bound.
  double error(Stored &got) {
    double worst = 0;
    c.numbers.each([&](float &before, int64_t i, int64_t j, int64_t h, int64_t) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < p.k; ++k) {
        const double product = of(a, i, k, h) * of(b, k, j, h);
        sum += product;
        size += std::fabs(product);
      }
      const double start = (beta == 0 ? 0 : beta * static_cast<double>(before)) + (biased ? of(bias, i, j, h) : 0);
      const double starts =
          (beta == 0 ? 0 : std::fabs(beta * static_cast<double>(before))) + (biased ? std::fabs(of(bias, i, j, h)) : 0);
      const double exact = alpha * sum + start, all = std::fabs(alpha) * size + starts;
      double bound = static_cast<double>(p.k + 3) * (0x1p-24 * all + kSmallest);
      double result = static_cast<double>(got.numbers.at(i, j, h, 0));
      if (got.dtype() != ATTEND_F32) {
        result = number_in(got.dtype(), got.bits(i, j, h, 0));
        bound += (std::fabs(exact) + bound) * (got.dtype() == ATTEND_BF16 ? 0x1p-8 : 0x1p-11) + 0x1p-24;
      }
      const double part = std::fabs(result - exact) / bound;
      worst = part <= worst ? worst : part;  // NaN counts
    });
    return worst;
  }
};

}  // namespace

TEST_CASE("native dot products: within the bound, the same for any number of threads; elsewhere the bits of no flag") {
  Random random(1);
  int others = 0;
  bool ran = false;
  double worst = 0;
  for (int i = 0, count = rounds(250, 100000); i < count; ++i) {
    const bool both = !random.one_in(4);
    const uint32_t of_a = both ? uint32_t{ATTEND_BF16} : any_float(random),
                   of_b = both ? uint32_t{ATTEND_BF16} : any_float(random);
    Case x(random, random_product(random, 400000, kDepths), of_a, of_b);
    const OnCore core(random);
    INFO("m " << x.p.m << " n " << x.p.n << " k " << x.p.k << " alpha " << x.alpha << " beta " << x.beta << " types "
              << of_a << " " << of_b << " " << x.c.dtype());
    for_each_isa([&] {
      Stored exact = x.result(0, 1), got = x.result(ATTEND_NATIVE_DOT, 1);
      if (!has_dots(std::min(x.p.m, x.p.n)) || !x.affected()) {
        CHECK(got.same_memory(exact));
        return;
      }
      ran = true;
      others += got.same_memory(exact) ? 0 : 1;
      CHECK(got.same_memory(x.result(ATTEND_NATIVE_DOT, static_cast<int32_t>(random.in(2, 4)))));
      const double error = x.error(got);
      if (x.c.dtype() == ATTEND_F32) worst = std::max(worst, error);  // elsewhere the last rounding's is all of it
      CHECK(error <= 1);
    });
  }
  if (ran) CHECK(others > 0);
  MESSAGE("largest error over its bound, of f32: " << worst);
}

TEST_CASE("native dot products: infinities, NaN and the smallest numbers") {
  const float infinity = std::numeric_limits<float>::infinity();
  Stored a(ATTEND_BF16, {40, 33, 1, 1}, kByRows);
  a.fill_with(1);
  a.numbers.at(3, 32) = infinity;
  a.numbers.at(4, 5) = std::numeric_limits<float>::quiet_NaN();
  a.numbers.each([](float &x, int64_t i, auto...) {
    if (i == 5) x = 0x1p-130f;
  });
  a.round();
  attend_matmul_options options = options_with<attend_matmul_options>(1);
  options.flags = ATTEND_NATIVE_DOT;
  for (const int64_t n : {20, 4, 3, 1}) {
    Stored b(ATTEND_BF16, {33, n, 1, 1}, {}), c(ATTEND_F32, {40, n, 1, 1}, {});
    b.fill_with(1);
    for_each_isa([&] {
      REQUIRE(ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), &options)));
      for (int64_t j = 0; j < n; ++j) {
        CHECK(c.numbers.at(2, j) == 33);
        CHECK(c.numbers.at(3, j) == infinity);
        CHECK(std::isnan(c.numbers.at(4, j)));
        CHECK(c.numbers.at(5, j) == (has_dots(n) ? 0.0f : 33 * 0x1p-130f));
      }
    });
  }
}

// What falls below the smallest number keeps its sign in the CPU's sums. With an odd number of columns one thread has them
// apart from C, and each of two, but for the last columns, in C.
TEST_CASE("native dot products: sums that fall below the smallest number are +0 for any number of threads") {
  Random random(8);
  Stored a(ATTEND_BF16, {208, 16, 1, 1}, kByRows);
  a.fill_with(0x1p-70f);
  for (const int64_t n : {401, 4, 2, 1}) {
    Stored b(ATTEND_BF16, {16, n, 1, 1}, {});
    b.fill_with(-0x1p-70f);
    const OnCore core(random);
    for_each_isa([&] {
      for (const int32_t threads : {1, 2, 4}) {
        Operand<float> c({208, n, 1, 1}, {});
        attend_matmul_options options = options_with<attend_matmul_options>(threads);
        options.flags = ATTEND_NATIVE_DOT;
        REQUIRE(ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), &options)));
        const float wanted = has_dots(n) ? 0.0f : -16 * 0x1p-140f;
        int64_t others = 0;
        c.each([&](float &v, auto...) { others += std::memcmp(&v, &wanted, sizeof v) == 0 ? 0 : 1; });
        INFO("threads " << threads << " columns " << n);
        CHECK(others == 0);
      }
    });
  }
}

TEST_CASE("native dot products: the bits of few columns do not depend on where their numbers lie") {
  Random random(7);
  for (const int64_t n : {1, 2, 3, 4}) {
    const Product p = {random.in(5, 300), n, random.pick<int64_t>({33, 1023, 1024, 1025, 2050})};
    Stored a(ATTEND_BF16, {p.m, p.k, 1, 1}, kByRows), b(ATTEND_BF16, {p.k, n, 1, 1}, {}),
        apart(ATTEND_BF16, {p.k, n, 1, 1}, {{1, 0, 2, 3}, 3, 5});
    a.fill(random);
    b.fill(random);
    apart.numbers.each([&](float &x, int64_t i, int64_t j, auto...) { x = b.numbers.at(i, j); });
    apart.round();
    attend_matmul_options options = options_with<attend_matmul_options>(1);
    options.flags = ATTEND_NATIVE_DOT;
    for_each_isa([&] {
      Operand<float> c({p.m, n, 1, 1}, {}), by_rows({p.m, n, 1, 1}, kByRows);
      REQUIRE(ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), &options)));
      REQUIRE(ok(attend_matmul(1, a.tensor(), apart.tensor(), 0, by_rows.tensor(), &options)));
      c.each([&](float &x, int64_t i, int64_t j, auto...) { CHECK(x == by_rows.at(i, j)); });
    });
  }
}

TEST_CASE("native dot products: the workspace is enough on every instruction set, and does not depend on it") {
  Random random(9);
  for (const Product p : {Product{200, 70, 300}, Product{17, 500, 90}, Product{64, 64, 2000}, Product{5, 5, 1},
                          Product{300, 3, 3000}, Product{2, 300, 2000}}) {
    Stored a(ATTEND_BF16, {p.m, p.k, 1, 1}, kByRows), b(ATTEND_BF16, {p.k, p.n, 1, 1}, {}),
        c(ATTEND_BF16, {p.m, p.n, 1, 1}, {});
    a.fill_with(1);
    b.fill_with(1);
    uint64_t first = 0;
    const OnCore core(random);
    for_each_isa([&] {
      attend_matmul_options options = options_with<attend_matmul_options>(1);
      options.flags = ATTEND_NATIVE_DOT;
      uint64_t bytes = 0;
      REQUIRE(ok(attend_matmul_workspace(1, a.tensor(), b.tensor(), 0, c.tensor(), &options, &bytes)));
      if (first == 0) first = bytes;
      CHECK(bytes == first);
      std::vector<unsigned char> room(bytes + 64, 0xa5);
      options.workspace = room.data();
      options.workspace_size = bytes;
      REQUIRE(ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), &options)));
      CHECK(std::count(room.end() - 64, room.end(), 0xa5) == 64);
      CHECK(c.bits(p.m - 1, p.n - 1, 0, 0) == nearest_in(ATTEND_BF16, static_cast<double>(p.k)));
    });
  }
}
