// attend_matmul against the formula in a wider type: every layout, edge and special value.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// Sizes one beside every tile width, packing block and chunk.
int64_t edge_size(Random &random) {
  static constexpr int64_t sizes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  11, 12, 13,  15,  16,  17, 24,
                                      25, 31, 32, 33, 47, 48, 49, 63, 64, 65, 97, 127, 129, 191, 193};
  constexpr int64_t count = static_cast<int64_t>(sizeof sizes / sizeof sizes[0]);
  return sizes[random.in(0, random.one_in(4) ? count - 1 : count - 8)];
}

// One random product and the element-wise bound: |error| <= (k + 2) u (|alpha| |A| |B| + |beta| |C| + |bias|).
template <class T>
double product(Random &random, bool integers) {
  const int64_t m = edge_size(random), n = edge_size(random);
  const int64_t k =
      random.one_in(8) ? random.pick<int64_t>({0, 255, 256, 257, 511, 512, 513, 1030}) : edge_size(random);
  const int64_t heads = random.in(1, 2), batch = random.in(1, 2);
  using O = Operand<T>;
  O a({m, k, random.one_in(2) ? 1 : heads, random.one_in(2) ? 1 : batch}, O::random_layout(random));
  O b({k, n, random.one_in(2) ? 1 : heads, random.one_in(2) ? 1 : batch}, O::random_layout(random));
  O c({m, n, heads, batch}, O::random_layout(random));
  O bias({random.one_in(4) ? 1 : m, random.one_in(2) ? 1 : n, 1, random.one_in(2) ? 1 : batch},
         O::random_layout(random));
  const double alpha = integers ? random.pick({1.0, -1.0, 2.0}) : random.pick({1.0, 1.0, -1.0, 0.7, 0.0});
  const double beta = integers ? random.pick({0.0, 1.0, -2.0}) : random.pick({0.0, 0.0, 1.0, 0.7});
  for (O *o : {&a, &b, &c, &bias}) integers ? o->fill_integers(random) : o->fill(random);
  if (alpha == 0) a.fill_with(std::numeric_limits<T>::quiet_NaN());
  if (beta == 0) c.fill_with(std::numeric_limits<T>::quiet_NaN());
  const bool biased = random.one_in(2);
  INFO("m " << m << " n " << n << " k " << k << " alpha " << alpha << " beta " << beta << " bias " << biased);

  const T alpha_t = static_cast<T>(alpha), beta_t = static_cast<T>(beta);
  WideCopy<T> wa(a), wb(b), wc(c), wbias(bias), aa(a, true), ab(b, true), ac(c, true), abias(bias, true);
  reference::naive::matmul<Wide<T>>(alpha_t, wa.view, wb.view, beta_t, wc.view, biased ? &wbias.view : nullptr);
  reference::naive::matmul<Wide<T>>(std::fabs(alpha_t), aa.view, ab.view, std::fabs(beta_t), ac.view,
                                    biased ? &abias.view : nullptr);
  const std::vector<T> inputs[] = {a.values(), b.values(), bias.values()};

  attend_matmul_options options = {};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(random.in(0, 3));
  options.bias = biased ? bias.tensor() : nullptr;
  if (!ok(attend_matmul(alpha, a.tensor(), b.tensor(), beta, c.tensor(), &options))) return 0;

  CHECK(c.gaps_untouched());
  CHECK(same_bits(inputs[0], a.values()));
  CHECK(same_bits(inputs[1], b.values()));
  CHECK(same_bits(inputs[2], bias.values()));
  const double ratio = worst_ratio(c, wc.view, [&](int64_t i, int64_t j, int64_t h, int64_t s) {
    return integers ? 1e-30
                    : (static_cast<double>(k) + 2) * kUnit<T> * static_cast<double>(ac.view.at(i, j, h, s)) + 1e-300;
  });
  CHECK(ratio <= 1);
  return ratio;
}

}  // namespace

TEST_CASE_TEMPLATE("matmul: random shapes, layouts and factors stay within (k + 2) roundings", T, float, double) {
  double worst = 0;
  for_each_isa([&] {
    Random random(1);
    for (int i = 0; i < 150; ++i) worst = std::max(worst, product<T>(random, false));
  });
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("matmul: integers are exact", T, float, double) {
  for_each_isa([] {
    Random random(2);
    for (int i = 0; i < 60; ++i) product<T>(random, true);
  });
}

// Large enough for packing, several row blocks, several chunks and several threads.
TEST_CASE_TEMPLATE("matmul: the packed paths", T, float, double) {
  for_each_isa([] {
    Random random(3);
    using O = Operand<T>;
    for (int form = 0; form < 8; ++form) {
      const int64_t m = 397, n = 261, k = 1100;
      typename O::Layout by_rows, by_columns;
      by_rows.order = {1, 0, 2, 3};
      O a({m, k, 1, 1}, form & 1 ? by_rows : by_columns), b({k, n, 1, 1}, form & 2 ? by_rows : by_columns);
      O c({m, n, 1, 1}, form & 4 ? by_rows : by_columns);
      for (O *o : {&a, &b}) o->fill_integers(random);
      c.fill_with(std::numeric_limits<T>::quiet_NaN());
      reference::Buffer<T> want(m, n);  // integers: exact in every order
      reference::blocked::matmul<T>(1, a.view(), b.view(), 0, want.view);
      if (!ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr))) return;
      CHECK(c.gaps_untouched());
      int64_t wrong = 0;
      c.each([&](T &x, int64_t i, int64_t j, auto...) { wrong += x != want.view.at(i, j); });
      CHECK(wrong == 0);
    }
  });
}

TEST_CASE_TEMPLATE("matmul: NaN and infinity reach the elements that depend on them, and no others", T, float, double) {
  for_each_isa([] {
    using O = Operand<T>;
    const int64_t m = 37, n = 29, k = 41;
    Random random(4);
    O a({m, k, 1, 1}, {}), b({k, n, 1, 1}, {}), c({m, n, 1, 1}, {});
    for (O *o : {&a, &b}) o->fill(random);
    a.at(33, 7) = std::numeric_limits<T>::quiet_NaN();
    b.at(40, 28) = std::numeric_limits<T>::infinity();
    if (!ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr))) return;
    c.each([&](T &x, int64_t i, int64_t j, auto...) {
      CHECK(std::isnan(x) == (i == 33));
      CHECK(std::isinf(x) == (i != 33 && j == 28));
    });
  });
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
