// attend_matmul against the formula in a wider type: every layout, edge and special value.
#include "on_core.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// Sizes one beside every tile width, packing block and chunk; the large ones rarely, for the sake of the oracle.
int64_t edge_size(Random &random) {
  static constexpr int64_t sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  11, 12, 13,  15,  16,  17,  24,  25, 31,
                                      32, 33, 47, 48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 191, 192, 193};
  static constexpr int64_t large[] = {255, 256, 257, 511, 512, 513};
  if (random.one_in(30)) return large[random.in(0, 5)];
  constexpr int64_t count = static_cast<int64_t>(sizeof sizes / sizeof sizes[0]);
  return sizes[random.in(0, random.one_in(4) ? count - 1 : 25)];
}

struct Size {
  int64_t m, n, k;
};

Size random_size(Random &random) {
  Size s;
  do {
    s = {edge_size(random), edge_size(random), edge_size(random)};
    if (random.one_in(8)) s.k = random.pick<int64_t>({0, 255, 256, 257, 511, 512, 513, 1030});
  } while (s.m * s.n * s.k > 2000000);
  return s;
}

// One random product and the element-wise bound: |error| <= (k + 2) u (|alpha| |A| |B| + |beta| |C| + |bias|).
template <class T>
double product(Random &random, bool integers) {
  using O = Operand<T>;
  const Size s = random_size(random);
  const int64_t heads = random.in(1, 2), batch = random.in(1, 2);
  const auto one_or = [&random](int64_t extent) { return random.one_in(2) ? 1 : extent; };
  O a({s.m, s.k, one_or(heads), one_or(batch)}, O::random_input_layout(random));
  O b({s.k, s.n, one_or(heads), one_or(batch)}, O::random_input_layout(random));
  O bias({random.one_in(4) ? 1 : s.m, one_or(s.n), one_or(heads), one_or(batch)}, O::random_input_layout(random));
  O c({s.m, s.n, heads, batch}, O::random_layout(random));
  const double alpha = integers ? random.pick({1.0, -1.0, 2.0}) : random.pick({1.0, 1.0, -1.0, 0.7, 0.0});
  const double beta = integers ? random.pick({0.0, 1.0, -2.0}) : random.pick({0.0, 0.0, 1.0, 0.7});
  for (O *o : {&a, &b, &c, &bias}) integers ? o->fill_integers(random) : o->fill(random);
  // What is not to be read.
  const T nan = std::numeric_limits<T>::quiet_NaN();
  if (alpha == 0) a.fill_with(nan), b.fill_with(nan);
  if (beta == 0) c.fill_with(nan);
  const bool biased = random.one_in(2);
  INFO("m " << s.m << " n " << s.n << " k " << s.k << " alpha " << alpha << " beta " << beta << " bias " << biased);

  const T alpha_t = static_cast<T>(alpha), beta_t = static_cast<T>(beta);
  WideCopy<T> wa(a), wb(b), wc(c), wbias(bias), aa(a, true), ab(b, true), ac(c, true), abias(bias, true);
  reference::naive::matmul<Wide<T>>(alpha_t, wa.view, wb.view, beta_t, wc.view, biased ? &wbias.view : nullptr);
  reference::naive::matmul<Wide<T>>(std::fabs(alpha_t), aa.view, ab.view, std::fabs(beta_t), ac.view,
                                    biased ? &abias.view : nullptr);
  const double roundings = (static_cast<double>(s.k) + 2) * kUnit<T>;

  attend_matmul_options options = {};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(random.in(0, 3));
  options.bias = biased ? bias.tensor() : nullptr;
  const O inputs[] = {a, b, bias};
  double worst = 0;
  const OnCore core(random);
  INFO("an L1 of " << caches().l1);
  for_each_isa([&] {
    O result = c;
    if (!ok(attend_matmul(alpha, a.tensor(), b.tensor(), beta, result.tensor(), &options))) return;
    CHECK(result.gaps_untouched());
    if (random.one_in(4)) {
      const OnCore another(random);
      O same = c;
      if (ok(attend_matmul(alpha, a.tensor(), b.tensor(), beta, same.tensor(), &options))) {
        CHECK(same.same_memory(result));
      }
    }
    const double ratio = worst_ratio(result, wc.view, [&](int64_t i, int64_t j, int64_t h, int64_t n) {
      return integers ? 1e-30 : roundings * static_cast<double>(ac.view.at(i, j, h, n)) + 1e-300;
    });
    CHECK(ratio <= 1);
    worst = std::max(worst, ratio);
  });
  CHECK(inputs[0].same_memory(a));
  CHECK(inputs[1].same_memory(b));
  CHECK(inputs[2].same_memory(bias));
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("matmul: random shapes, layouts and factors stay within (k + 2) roundings", T, float, double) {
  double worst = 0;
  Random random(1);
  for (int i = 0, count = rounds(150, 1000000); i < count; ++i) worst = std::max(worst, product<T>(random, false));
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("matmul: integers are exact", T, float, double) {
  Random random(2);
  for (int i = 0; i < 60; ++i) product<T>(random, true);
}

// Large enough for packing, several row blocks, several chunks and several threads; operands of every kind that the
// driver tells apart: contiguous either way, columns that share cache sets, and no contiguous dimension at all.
TEST_CASE_TEMPLATE("matmul: the packed paths", T, float, double) {
  using O = Operand<T>;
  const int64_t m = 397, n = 150, k = 700;
  const auto layout = [](int kind, int64_t rows) {
    typename O::Layout l;
    constexpr int64_t kAliased = 1024 / static_cast<int64_t>(sizeof(T));
    if (kind == 1) l.order = {1, 0, 2, 3};
    if (kind == 2) l.padding = kAliased - rows % kAliased;
    if (kind == 3) l.step = 2;
    return l;
  };
  Random random(3);
  O a({m, k, 1, 1}, {}), b({k, n, 1, 1}, {}), bias({m, 1, 1, 1}, {});
  for (O *o : {&a, &b, &bias}) o->fill_integers(random);
  reference::Buffer<T> want(m, n);  // integers: exact in every order
  reference::View<T> bias_view = bias.view();
  reference::blocked::matmul<T>(1, a.view(), b.view(), 0, want.view, &bias_view);
  for (int form = 0; form < 12; ++form) {
    const int kind_a = form % 4, kind_b = (form + form / 4) % 4, kind_c = form % 3 == 2 ? 3 : form % 3;
    INFO("A " << kind_a << " B " << kind_b << " C " << kind_c);
    O x = a.in(layout(kind_a, m)), y = b.in(layout(kind_b, k));
    const O c({m, n, 1, 1}, layout(kind_c, m));
    attend_matmul_options options = {};
    options.size = sizeof options;
    options.threads = form % 4;
    const OnCore core(random);
    options.bias = bias.tensor();
    for_each_isa([&] {
      O result = c;
      if (!ok(attend_matmul(1, x.tensor(), y.tensor(), 0, result.tensor(), &options))) return;
      CHECK(result.gaps_untouched());
      int64_t wrong = 0;
      result.each([&](T &v, int64_t i, int64_t j, auto...) { wrong += v != want.view.at(i, j); });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE_TEMPLATE("matmul: NaN and infinity reach the elements that depend on them, and no others", T, float, double) {
  using O = Operand<T>;
  const int64_t m = 37, n = 29, k = 41;
  Random random(4);
  O a({m, k, 1, 1}, {}), b({k, n, 1, 1}, {}), c({m, n, 1, 1}, {});
  for (O *o : {&a, &b, &c}) o->fill(random);
  a.at(33, 7) = std::numeric_limits<T>::quiet_NaN();
  b.at(40, 28) = std::numeric_limits<T>::infinity();
  c.at(3, 4) = std::numeric_limits<T>::quiet_NaN();
  for_each_isa([&] {
    for (const bool adds : {false, true}) {
      O result = c;
      if (!ok(attend_matmul(1, a.tensor(), b.tensor(), adds ? 0.5 : 0, result.tensor(), nullptr))) return;
      result.each([&](T &x, int64_t i, int64_t j, auto...) {
        const bool nan = i == 33 || (adds && i == 3 && j == 4);
        CHECK(std::isnan(x) == nan);
        CHECK(std::isinf(x) == (!nan && j == 28));
      });
    }
  });
}

// Of underflow the sign is left, of a sum of zeros +0: whatever C's strides, and so the ways to it, are.
TEST_CASE_TEMPLATE("matmul: the sign of a zero is that of fma", T, float, double) {
  const T least = std::numeric_limits<T>::denorm_min();
  struct Factors {
    T a, b, chunk;
  };
  for (const Factors f : {Factors{-least, 1, -least}, {least, 1, least}, {-least, T(0.25), T(-0.0)}, {0, -1, 0}}) {
    for (const T alpha : {T(1), T(0.3), T(-0.3), T(-1)}) {
      for (const int64_t m : {1, 5, 33, 70}) {
        const int64_t n = m == 70 ? 1 : 5;
        for (const int64_t step : {1, 2}) {
          const auto filled = [](int64_t rows, int64_t columns, int64_t every, T value) {
            Operand<T> x({rows, columns, 1, 1}, {{0, 1, 2, 3}, 0, every, 0, {1, 1, 1, 1}});
            x.fill_with(value);
            return x;
          };
          Operand<T> a = filled(m, 1, 1, f.a), b = filled(1, n, 1, f.b), c = filled(m, n, step, T(7));
          INFO("a " << f.a << " alpha " << alpha << " m " << m << " every " << step);
          for_each_isa([&] {
            const volatile T product = alpha * f.chunk;
            const T wanted = fuses(attend_isa()) ? std::fma(alpha, f.chunk, T(0)) : product + T(0);
            const T chunk = fuses(attend_isa()) ? std::fma(f.a, f.b, T(0)) : f.a * f.b + T(0);
            if (std::memcmp(&chunk, &f.chunk, sizeof chunk) != 0) return;  // where it rounds twice
            Operand<T> result = c;
            if (!ok(attend_matmul(static_cast<double>(alpha), a.tensor(), b.tensor(), 0, result.tensor(), nullptr)))
              return;
            int wrong = 0;
            result.each(
                [&](T &x, int64_t, int64_t, int64_t, int64_t) { wrong += std::memcmp(&x, &wanted, sizeof x) != 0; });
            CHECK(wrong == 0);
          });
        }
      }
    }
  }
}

// C0 is fma(1, C, +0), and so +0 where C is -0: whichever way a product goes, that depends on the instruction set and the caches.
TEST_CASE_TEMPLATE("matmul: a C of -0 becomes +0 where beta is 1", T, float, double) {
  using O = Operand<T>;
  Random random(11);
  typename O::Layout by_columns, by_rows, apart;
  by_rows.order = {1, 0, 2, 3};
  apart.step = 2;
  for (const int64_t m : {1, 5, 17, 33, 70, 128}) {
    for (const int64_t n : {1, 3, 8, 20}) {
      for (const int64_t k : {0, 1, 512, 600}) {
        for (const unsigned layouts : {0u, 1u, 2u, 3u, 4u}) {
          O a({m, k, 1, 1}, layouts & 1u ? by_rows : by_columns), b({k, n, 1, 1}, layouts & 2u ? by_rows : by_columns);
          O c({m, n, 1, 1}, layouts & 4u ? apart : by_columns);
          a.fill_with(0), b.fill_with(1), c.fill_with(T(-0.0));
          const OnCore core(random);
          INFO("m " << m << " n " << n << " k " << k << " layouts " << layouts << " an L2 of " << caches().l2);
          for_each_isa([&] {
            O result = c;
            if (!ok(attend_matmul(-1, a.tensor(), b.tensor(), 1, result.tensor(), nullptr))) return;
            int64_t negative = 0;
            result.each([&](T &x, auto...) { negative += std::signbit(x); });
            CHECK(negative == 0);
          });
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("matmul: zero strides repeat an input, denormals are kept", T, float, double) {
  for_each_isa([] {
    std::vector<T> c(6);
    T a = 3, b[2] = {std::numeric_limits<T>::denorm_min(), 5};
    const attend_tensor ta = {&a, kDtype<T>, 2, {3, 1, 0, 0}, {0, 0, 0, 0}},
                        tb = {b, kDtype<T>, 2, {1, 2, 0, 0}, {0, 1, 0, 0}};
    const attend_tensor tc = {c.data(), kDtype<T>, 2, {3, 2, 0, 0}, {1, 3, 0, 0}};
    if (!ok(attend_matmul(1, &ta, &tb, 0, &tc, nullptr))) return;
    for (size_t i = 0; i < 3; ++i) {
      CHECK(c[i] == 3 * std::numeric_limits<T>::denorm_min());
      CHECK(c[3 + i] == 15);
    }
  });
}

TEST_CASE("products beyond the L2: packing, prefetching and blocks of rows") {
  Random random(8);
  for (const Size &s : {Size{random.in(385, 450), random.in(129, 200), random.in(513, 700)},
                        Size{1030, 1, random.in(600, 900)}, Size{random.in(100, 140), 2, 1500},
                        // A in place, in the L2: one panel of rows, and tiles of each width; beyond it
                        Size{random.in(33, 48), random.in(9, 100), random.in(560, 700)},
                        Size{random.in(97, 200), random.in(9, 48), random.in(300, 600)},
                        Size{1100, random.in(2, 4), random.in(880, 930)},
                        // columns of A 4 KiB apart
                        Size{1024, random.in(33, 48), random.in(520, 560)}, Size{1024, random.in(49, 70), 515}}) {
    for (const unsigned layouts : {0u, 1u, 2u, 3u}) {
      Operand<float>::Layout by_rows = {{1, 0, 2, 3}, random.pick<int64_t>({0, 3}), 1, 0, {1, 1, 1, 1}}, by_columns;
      Operand<float> a({s.m, s.k, 1, 1}, layouts & 1u ? by_rows : by_columns);
      Operand<float> b({s.k, s.n, 1, 1}, layouts & 2u ? by_rows : by_columns);
      Operand<float> c({s.m, s.n, 1, 1}, by_columns);
      for (Operand<float> *o : {&a, &b, &c}) o->fill(random);
      WideCopy<float> wa(a), wb(b), wc(c), aa(a, true), ab(b, true), ac(c, true);
      reference::blocked::matmul<double>(1, wa.view, wb.view, 1, wc.view, nullptr);
      reference::blocked::matmul<double>(1, aa.view, ab.view, 1, ac.view, nullptr);
      const OnCore core(random);
      INFO("m " << s.m << " n " << s.n << " k " << s.k << " layouts " << layouts << " an L1 of " << caches().l1);
      for_each_isa([&] {
        Operand<float> result = c;
        if (!ok(attend_matmul(1, a.tensor(), b.tensor(), 1, result.tensor(), nullptr))) return;
        CHECK(result.gaps_untouched());
        CHECK(worst_ratio(result, wc.view, [&](int64_t i, int64_t j, int64_t h, int64_t n) {
                return (static_cast<double>(s.k) + 2) * kUnit<float> * ac.view.at(i, j, h, n);
              }) <= 1);
      });
    }
  }
}

// B of contiguous rows is packed once for several blocks of A's rows, and for so many columns at a time.
TEST_CASE("matmul: more rows and columns than are packed at a time") {
  using O = Operand<float>;
  Random random(9);
  const int64_t m = random.in(385, 420), n = random.in(1057, 1110), k = random.in(513, 560);
  O::Layout by_rows;
  by_rows.order = {1, 0, 2, 3};
  O a({m, k, 1, 1}, {}), b({k, n, 1, 1}, by_rows), c({m, n, 1, 1}, {});
  for (O *o : {&a, &b, &c}) o->fill_integers(random);
  reference::Buffer<float> want(m, n);  // integers: exact in every order
  reference::blocked::matmul<float>(1, a.view(), b.view(), 0, want.view, nullptr);
  for (const int threads : {1, 2}) {
    INFO("m " << m << " n " << n << " k " << k << " threads " << threads);
    attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
    options.threads = threads;
    const OnCore core(random);
    for_each_isa([&] {
      O result = c;
      if (!ok(attend_matmul(1, a.tensor(), b.tensor(), 1, result.tensor(), &options))) return;
      CHECK(result.gaps_untouched());
      int64_t wrong = 0;
      result.each(
          [&](float &v, int64_t i, int64_t j, auto...) { wrong += v != want.view.at(i, j) + c.view().at(i, j); });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE("matmul: many rows of little depth by few columns") {
  using O = Operand<float>;
  Random random(10);
  for (const int64_t k : {1, 5, 8, 63, 64}) {
    const int64_t m = 80000 / k + 7, n = random.in(5, 32);
    const int64_t rows = k < 32 ? 20 * m / 3 : m;
    O a({rows, k, 1, 1}, {}), b({k, n, 1, 1}, {}), c({rows, n, 1, 1}, {});
    for (O *o : {&a, &b}) o->fill_integers(random);
    reference::Buffer<float> want(rows, n);
    reference::blocked::matmul<float>(1, a.view(), b.view(), 0, want.view, nullptr);
    const OnCore core(random);
    INFO("m " << rows << " n " << n << " k " << k << " an L2 of " << caches().l2);
    if (!ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr))) return;
    int64_t wrong = 0;
    c.each([&](float &v, int64_t i, int64_t j, auto...) { wrong += v != want.view.at(i, j); });
    CHECK(wrong == 0);
  }
}

// 1e-60 is 0 in f32: then A, B and C are not read.
TEST_CASE("matmul: alpha and beta are rounded to the element type first") {
  const auto value = [](auto a, double alpha, double beta) {
    using T = decltype(a);
    T b = 2, c = std::numeric_limits<T>::quiet_NaN(), bias = 5;
    if (beta == 0) c = 7;
    const auto tensor = [](T &x) { return attend_tensor{&x, kDtype<T>, 1, {1, 0, 0, 0}, {1, 0, 0, 0}}; };
    const attend_tensor ta = tensor(a), tb = tensor(b), tc = tensor(c), tbias = tensor(bias);
    attend_matmul_options options = {};
    options.size = sizeof options;
    options.bias = &tbias;
    ok(attend_matmul(alpha, &ta, &tb, beta, &tc, &options));
    return c;
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for_each_isa([&] {
    CHECK(value(static_cast<float>(nan), 1e-60, 0) == 5);
    CHECK(value(3.0f, 1, 1e-60) == 11);
    CHECK(std::isnan(value(nan, 1e-60, 0)));
    CHECK(std::isnan(value(3.0, 1, 1e-60)));
  });
}
