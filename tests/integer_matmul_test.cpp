// attend_matmul of 8-bit integers against sums in 64 bits: exact on every instruction set, and scaled in the stated order.
#include "stored.hpp"

namespace attend::test {
template <>
constexpr uint32_t kDtype<int32_t> = ATTEND_I32;
}

using namespace attend::test;

namespace {

using Layout = Operand<float>::Layout;

Operand<int32_t>::Layout same(const Layout &l) {
  Operand<int32_t>::Layout other;
  other.order = l.order, other.padding = l.padding, other.step = l.step, other.offset = l.offset, other.sign = l.sign;
  return other;
}

uint32_t any_byte(Random &random) { return random.pick<uint32_t>({ATTEND_I8, ATTEND_U8}); }
int32_t least_of(uint32_t dtype) { return dtype == ATTEND_I8 ? -128 : 0; }

// Of all numbers of the type; or its extremes alone, whose products are the largest.
void fill(Stored *x, Random &random) {
  const bool extremes = random.one_in(4);
  x->numbers.each([&](float &v, auto...) {
    const int32_t least = least_of(x->dtype());
    v = static_cast<float>(extremes ? random.pick({least, least + 255})
                                    : least + static_cast<int32_t>(random.in(0, 255)));
  });
  x->round();
}

constexpr auto kDepths = {int64_t{0}, int64_t{1023}, int64_t{1024}, int64_t{1025}, int64_t{2050}};

// Scales or zero points: one for all, or for each row of A or column of B.
Shape numbers_of(Random &random, bool of_a, const Product &p, int64_t heads) {
  return {of_a && !random.one_in(3) ? p.m : 1, !of_a && !random.one_in(3) ? p.n : 1, random.one_in(2) ? heads : 1, 1};
}

struct Problem {
  Product p;
  int64_t heads;
  Stored a, b;
  Operand<int32_t> a_zero, b_zero;
  bool has_a_zero, has_b_zero;

  Problem(Random &random, const Product &product)
      : p(product),
        heads(random.in(1, 2)),
        a(any_byte(random), {p.m, p.k, random.in(1, heads), 1}, Operand<float>::random_input_layout(random)),
        b(any_byte(random), {p.k, p.n, random.in(1, heads), 1}, Operand<float>::random_input_layout(random)),
        a_zero(numbers_of(random, true, p, heads), same(Operand<float>::random_input_layout(random))),
        b_zero(numbers_of(random, false, p, heads), same(Operand<float>::random_input_layout(random))),
        has_a_zero(random.one_in(2)),
        has_b_zero(random.one_in(2)) {
    fill(&a, random);
    fill(&b, random);
    a_zero.each([&](int32_t &z, auto...) { z = least_of(a.dtype()) + static_cast<int32_t>(random.in(0, 255)); });
    b_zero.each([&](int32_t &z, auto...) { z = least_of(b.dtype()) + static_cast<int32_t>(random.in(0, 255)); });
  }

  template <class T>
  static T of(Operand<T> &x, int64_t i, int64_t j, int64_t h) {
    const Shape &s = x.shape();
    return x.at(s[0] == 1 ? 0 : i, s[1] == 1 ? 0 : j, s[2] == 1 ? 0 : h, 0);
  }
  int64_t sum(int64_t i, int64_t j, int64_t h) {
    const int64_t za = has_a_zero ? of(a_zero, i, 0, h) : 0, zb = has_b_zero ? of(b_zero, 0, j, h) : 0;
    int64_t total = 0;
    for (int64_t k = 0; k < p.k; ++k) {
      const auto left = static_cast<int64_t>(of(a.numbers, i, k, h)),
                 right = static_cast<int64_t>(of(b.numbers, k, j, h));
      total += (left - za) * (right - zb);
    }
    return total;
  }
  attend_matmul_options options(int32_t threads) {
    attend_matmul_options o = options_with<attend_matmul_options>(threads);
    o.a_zero = has_a_zero ? a_zero.tensor() : nullptr;
    o.b_zero = has_b_zero ? b_zero.tensor() : nullptr;
    return o;
  }
};

int32_t wrapped(int64_t v) { return static_cast<int32_t>(static_cast<uint32_t>(static_cast<uint64_t>(v))); }

void check_exact(Random &random, const Product &product, int32_t threads) {
  Problem x(random, product);
  Operand<int32_t> c({x.p.m, x.p.n, x.heads, 1}, same(Operand<float>::random_layout(random)));
  Operand<int32_t> bias({random.one_in(4) ? 1 : x.p.m, random.one_in(2) ? 1 : x.p.n, 1, 1},
                        same(Operand<float>::random_input_layout(random)));
  bias.each([&](int32_t &v, auto...) { v = static_cast<int32_t>(random.in(INT32_MIN, INT32_MAX)); });
  attend_matmul_options o = x.options(threads);
  const bool biased = random.one_in(2);
  o.bias = biased ? bias.tensor() : nullptr;
  Operand<int32_t> wanted = c;
  wanted.each([&](int32_t &v, int64_t i, int64_t j, int64_t h, int64_t) {
    v = wrapped(x.sum(i, j, h) + (biased ? Problem::of(bias, i, j, h) : 0));
  });
  INFO("m " << x.p.m << " n " << x.p.n << " k " << x.p.k << " types " << x.a.dtype() << " " << x.b.dtype());
  for_each_isa([&] {
    Operand<int32_t> result = c;
    if (!ok(attend_matmul(1, x.a.tensor(), x.b.tensor(), 0, result.tensor(), &o))) return;
    CHECK(result.same_memory(wanted));
  });
}

// What happens to the sums: C = fma(alpha, (a_scale b_scale) sum, fma(beta, C, bias)).
struct Scaling {
  Product p;
  int64_t heads;
  Stored c, bias;
  Operand<float> a_scale, b_scale;
  float alpha, beta;
  bool biased, scaled_a, scaled_b;

  Scaling(Random &random, const Product &product, int64_t count, bool may_scale_a, bool may_scale_b)
      : p(product),
        heads(count),
        c(any_float(random), {p.m, p.n, heads, 1}, Operand<float>::random_layout(random)),
        bias(any_float(random), {random.one_in(4) ? 1 : p.m, random.one_in(2) ? 1 : p.n, 1, 1},
             Operand<float>::random_input_layout(random)),
        a_scale(numbers_of(random, true, p, heads), Operand<float>::random_input_layout(random)),
        b_scale(numbers_of(random, false, p, heads), Operand<float>::random_input_layout(random)),
        alpha(random.pick({1.0f, 1.0f, -0.7f, 0.0f})),
        beta(random.pick({0.0f, 0.0f, 1.0f, 0.3f})),
        biased(random.one_in(2)),
        scaled_a(may_scale_a && !random.one_in(3)),
        scaled_b(may_scale_b && !random.one_in(3)) {
    c.fill(random);
    bias.fill(random);
    a_scale.fill(random, 1.0 / 64);
    b_scale.fill(random, 1.0 / 64);
    if (beta == 0) c.fill_with(std::numeric_limits<float>::quiet_NaN());
  }

  // sums(s): stores them in s, (M, N, H), for the instruction set in use.
  template <class F>
  void check(const attend_tensor *a, const attend_tensor *b, attend_matmul_options o, const F &sums) {
    o.bias = biased ? bias.tensor() : nullptr;
    o.a_scale = scaled_a ? a_scale.tensor() : nullptr;
    o.b_scale = scaled_b ? b_scale.tensor() : nullptr;
    INFO("m " << p.m << " n " << p.n << " k " << p.k << " alpha " << alpha << " beta " << beta << " types " << a->dtype
              << " " << b->dtype << " " << c.dtype());
    for_each_isa([&] {
      Operand<float> s({p.m, p.n, heads, 1}, {});
      sums(&s);
      const bool fused = fuses(attend_isa());
      // (volatile: no compiler may fuse it.)
      const auto fma = [fused](float x, float y, float z) {
        const volatile float rounded = x * y;
        return fused ? std::fma(x, y, z) : rounded + z;
      };
      Stored result = c;
      Operand<float> wanted = c.numbers;
      wanted.each([&](float &v, int64_t i, int64_t j, int64_t h, int64_t) {
        const float scale =
            (scaled_a ? Problem::of(a_scale, i, 0, h) : 1) * (scaled_b ? Problem::of(b_scale, 0, j, h) : 1);
        float start = biased ? Problem::of(bias.numbers, i, j, h) : 0;
        if (beta != 0) start = fma(beta, v, start);
        v = alpha == 0 || p.k == 0 ? start : fma(alpha, scale * s.at(i, j, h), start);
      });
      const attend_tensor *const to = result.tensor();
      if (!ok(attend_matmul(static_cast<double>(alpha), a, b, static_cast<double>(beta), to, &o))) return;
      CHECK(result.is_rounded(wanted));
      CHECK(result.gaps_untouched());
    });
  }
};

void check_scaled(Random &random, const Product &product, int32_t threads) {
  Problem x(random, product);
  Scaling scaling(random, product, x.heads, true, true);
  scaling.check(x.a.tensor(), x.b.tensor(), x.options(threads), [&](Operand<float> *sums) {
    sums->each(
        [&](float &v, int64_t i, int64_t j, int64_t h, int64_t) { v = static_cast<float>(wrapped(x.sum(i, j, h))); });
  });
}

// Integers on one side: the sums are the f32 product's.
void check_weights(Random &random, const Product &p, int32_t threads) {
  const bool left = random.one_in(2);
  const int64_t heads = random.in(1, 2);
  const auto layout = [&] { return Operand<float>::random_input_layout(random); };
  const uint32_t integers = ATTEND_I8, floats = any_float(random);
  Stored a(left ? integers : floats, {p.m, p.k, random.in(1, heads), 1}, layout());
  Stored b(left ? floats : integers, {p.k, p.n, random.in(1, heads), 1}, layout());
  Stored &weights = left ? a : b, &activations = left ? b : a;
  fill(&weights, random);
  activations.fill(random);
  Scaling scaling(random, p, heads, left, !left);
  scaling.check(a.tensor(), b.tensor(), options_with<attend_matmul_options>(threads), [&](Operand<float> *sums) {
    ok(attend_matmul(1, a.numbers.tensor(), b.numbers.tensor(), 0, sums->tensor(), nullptr));
  });
}

}  // namespace

TEST_CASE("integers: sums are those in 64 bits, modulo 2^32") {
  Random random(1);
  for (int i = 0, count = rounds(300, 100000); i < count; ++i)
    check_exact(random, random_product(random, 400000, kDepths), static_cast<int32_t>(random.in(1, 3)));
  for (int i = 0; i < rounds(4, 60); ++i)
    check_exact(random, {random.in(90, 200), random.in(150, 500), random.in(100, 300)}, 3);
}

TEST_CASE("integers: scales, zero points, alpha, beta and a bias come in the stated order") {
  Random random(2);
  for (int i = 0, count = rounds(300, 100000); i < count; ++i)
    check_scaled(random, random_product(random, 400000, kDepths), static_cast<int32_t>(random.in(1, 3)));
}

TEST_CASE("integers: weights of 8 bits beside activations of floating point give the f32 product, scaled") {
  Random random(4);
  for (int i = 0, count = rounds(500, 100000); i < count; ++i)
    check_weights(random, random_product(random, 400000, kDepths), static_cast<int32_t>(random.in(1, 3)));
  for (int i = 0; i < rounds(4, 60); ++i)
    check_weights(random, {random.in(300, 900), random.in(1, 4), random.in(500, 700)}, 2);
}

// What saturates where pairs of bytes are added in 16 bits, as several libraries do without VNNI.
TEST_CASE("integers: products that 16 bits do not hold") {
  const struct {
    uint32_t left, right;
    float a, b;
  } cases[] = {{ATTEND_U8, ATTEND_I8, 255, 127}, {ATTEND_U8, ATTEND_I8, 255, -128},
               {ATTEND_I8, ATTEND_I8, 100, 100}, {ATTEND_I8, ATTEND_I8, -128, -128},
               {ATTEND_U8, ATTEND_U8, 255, 255}, {ATTEND_I8, ATTEND_U8, -128, 255}};
  for (const auto &of : cases) {
    for (const Product p : {Product{33, 7, 64}, Product{1, 9, 64}, Product{40, 3, 2049}, Product{5, 50, 33}}) {
      Stored a(of.left, {p.m, p.k, 1, 1}, {}), b(of.right, {p.k, p.n, 1, 1}, {});
      Layout by_rows;
      std::swap(by_rows.order[0], by_rows.order[1]);
      Stored turned(of.left, {p.m, p.k, 1, 1}, by_rows);
      a.fill_with(of.a);
      b.fill_with(of.b);
      turned.fill_with(of.a);
      for_each_isa([&] {
        for (Stored *stored : {&a, &turned}) {
          Operand<int32_t> c({p.m, p.n, 1, 1}, {});
          if (!ok(attend_matmul(1, stored->tensor(), b.tensor(), 0, c.tensor(), nullptr))) return;
          const auto wanted = static_cast<int32_t>(of.a) * static_cast<int32_t>(of.b) * static_cast<int32_t>(p.k);
          const std::vector<int32_t> all = c.values();
          CHECK(std::count(all.begin(), all.end(), wanted) == p.m * p.n);
        }
      });
    }
  }
}

TEST_CASE("integers: the workspace bounds what is used, and does not grow with K") {
  Random random(3);
  for (const Product p : {Product{200, 70, 300}, Product{300, 2, 3000}, Product{17, 500, 90}, Product{64, 64, 2000}}) {
    Problem x(random, p);
    Operand<int32_t> c({p.m, p.n, x.heads, 1}, {}), again = c;
    attend_matmul_options o = x.options(1);
    uint64_t bytes = 0;
    REQUIRE(ok(attend_matmul_workspace(1, x.a.tensor(), x.b.tensor(), 0, c.tensor(), &o, &bytes)));
    CHECK(bytes < 600 * 1024);
    REQUIRE(ok(attend_matmul(1, x.a.tensor(), x.b.tensor(), 0, c.tensor(), &o)));
    std::vector<unsigned char> room(bytes + 64, 0xa5);
    o.workspace = room.data();
    o.workspace_size = bytes;
    REQUIRE(ok(attend_matmul(1, x.a.tensor(), x.b.tensor(), 0, again.tensor(), &o)));
    CHECK(again.same_memory(c));
    CHECK(std::count(room.end() - 64, room.end(), 0xa5) == 64);
    o.workspace_size = bytes / 2;
    CHECK(ATTEND_REASON(attend_matmul(1, x.a.tensor(), x.b.tensor(), 0, again.tensor(), &o)) ==
          ATTEND_WORKSPACE_TOO_SMALL);
  }
}

TEST_CASE("integers: what is refused") {
  Stored a(ATTEND_I8, {3, 4, 1, 1}, {}), u(ATTEND_U8, {4, 5, 1, 1}, {}), f(ATTEND_F32, {4, 5, 1, 1}, {});
  Operand<int32_t> c({3, 5, 1, 1}, {}), zero({1, 1, 1, 1}, {}), zeros({3, 1, 1, 1}, {});
  Operand<float> scale({1, 1, 1, 1}, {}), out({3, 5, 1, 1}, {});
  Operand<double> wide({3, 5, 1, 1}, {});
  a.fill_with(1);
  u.fill_with(2);
  f.fill_with(2);
  scale.fill_with(1);
  zero.fill_with(0);
  zeros.fill_with(0);
  char text[400];
  attend_matmul_options o = ATTEND_MATMUL_OPTIONS_INIT;
  o.message = text;
  o.message_size = sizeof text;
  const auto refused = [&](double alpha, const attend_tensor *b, double beta, const attend_tensor *to, int reason) {
    const attend_status s = attend_matmul(alpha, a.tensor(), b, beta, to, &o);
    uint64_t bytes = 0;
    std::string said = text;
    const attend_status size = attend_matmul_workspace(alpha, a.tensor(), b, beta, to, &o, &bytes);
    CHECK(
        (size == s || said.find("which is not in") != std::string::npos || said.find("overlaps") != std::string::npos));
    CHECK(ATTEND_REASON(s) == reason);
    o.a_scale = o.b_scale = o.a_zero = o.b_zero = o.bias = nullptr;
    return said;
  };
  CHECK(refused(1, f.tensor(), 0, c.tensor(), ATTEND_INVALID_DTYPE) ==
        "c: is int32; float32, bfloat16 or float16 is needed beside the other operands.");
  CHECK(refused(1, u.tensor(), 0, wide.tensor(), ATTEND_INVALID_DTYPE) ==
        "c: is float64; float32, bfloat16, float16 or int32 is needed beside the other operands.");
  CHECK(refused(0.5, u.tensor(), 0, c.tensor(), ATTEND_INVALID_VALUE) ==
        "alpha: is 0.5, but must be 1 where c's type is int32.");
  CHECK(refused(1, u.tensor(), 1, c.tensor(), ATTEND_INVALID_VALUE) ==
        "beta: is 1, but must be 0 where c's type is int32.");
  o.a_scale = scale.tensor();
  CHECK(refused(1, u.tensor(), 0, c.tensor(), ATTEND_INVALID_VALUE) ==
        "options.a_scale: is given, but c's type is int32, not a floating-point type.");
  o.b_zero = zeros.tensor();
  CHECK(refused(1, u.tensor(), 0, c.tensor(), ATTEND_INVALID_SHAPE) == "options.b_zero: has 3 rows, not 1.");
  o.b_zero = scale.tensor();
  CHECK(refused(1, u.tensor(), 0, c.tensor(), ATTEND_INVALID_DTYPE).find("options.b_zero: is float32; int32") == 0);
  o.a_zero = zeros.tensor();
  zeros.at(2, 0) = 128;
  CHECK(refused(1, u.tensor(), 0, c.tensor(), ATTEND_INVALID_VALUE) ==
        "options.a_zero: has 128, which is not in int8, a's type: -128 to 127.");
  o.b_zero = zero.tensor();
  zero.at(0, 0) = -1;
  CHECK(refused(1, u.tensor(), 0, out.tensor(), ATTEND_INVALID_VALUE) ==
        "options.b_zero: has -1, which is not in uint8, b's type: 0 to 255.");
  o.a_zero = c.tensor();
  CHECK(refused(1, u.tensor(), 0, c.tensor(), ATTEND_INVALID_SHAPE) == "options.a_zero: has 5 columns, not 1.");
  attend_tensor inside = *out.tensor();
  inside.rank = 1;
  inside.shape[0] = 1;
  o.b_scale = &inside;
  CHECK(refused(1, u.tensor(), 0, out.tensor(), ATTEND_OVERLAP) ==
        "c: overlaps options.b_scale's memory, but needs its own.");
  o.b_zero = zero.tensor();
  CHECK(refused(1, f.tensor(), 0, out.tensor(), ATTEND_INVALID_VALUE) ==
        "options.b_zero: is given, but b's type is float32, not int8 or uint8.");
  o.a_zero = zero.tensor();
  CHECK(refused(1, f.tensor(), 0, out.tensor(), ATTEND_INVALID_VALUE) ==
        "options.a_zero: is given, but a's type is int8 and b's type is float32: zero points go with two operands of "
        "integers.");
  o.a_scale = scale.tensor();
  Stored g(ATTEND_F32, {3, 4, 1, 1}, {});
  g.fill_with(1);
  CHECK(attend_matmul(1, g.tensor(), f.tensor(), 0, out.tensor(), &o) != ATTEND_OK);
  CHECK(std::string(text) == "options.a_scale: is given, but a's type is float32, not int8 or uint8.");
}
