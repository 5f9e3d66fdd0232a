// attend_softmax_backward against the chain rule in a wider type, against finite differences of attend_softmax, and what the
// header says of masked entries.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

enum class Place { apart, on_d_y, on_y };

struct Gradient {
  uint32_t flags;
  double scale;
  bool has_d_lse;
  Place place;
  int32_t threads;

  static Gradient random(Random &random) {
    return {random.pick<uint32_t>({0, 0, ATTEND_LOG}) | random.pick<uint32_t>({0, 0, ATTEND_ACCUMULATE}),
            random.pick({0.0, 1.0, 1.0, -0.5, 0.3}), random.one_in(3),
            random.pick({Place::apart, Place::apart, Place::on_d_y, Place::on_y}),
            static_cast<int32_t>(random.in(0, 3))};
  }
  bool log() const { return (flags & ATTEND_LOG) != 0; }
  bool accumulates() const { return (flags & ATTEND_ACCUMULATE) != 0; }
};

// y as attend_softmax gives it, some of its entries masked.
template <class T>
void draw_result(Random &random, bool log, Operand<T> *y) {
  Operand<T> x(y->shape(), {}), dense(y->shape(), {});
  x.fill(random, random.pick({1.0, 5.0}));
  const int64_t masked = random.pick({0, 0, 3, 40});
  if (masked != 0) {
    x.each([&](T &s, auto...) {
      if (random.one_in(masked)) s = -std::numeric_limits<T>::infinity();
    });
  }
  auto options = options_with<attend_softmax_options>(1);
  options.flags = log ? ATTEND_LOG : 0;
  ok(attend_softmax(x.tensor(), dense.tensor(), &options));
  y->each([&](T &v, int64_t i, int64_t j, int64_t h, int64_t b) { v = dense.at(i, j, h, b); });
}

// One random gradient; the largest error over its bound.
template <class T>
double column_gradient(Random &random, int64_t m, int64_t n) {
  using O = Operand<T>;
  const Shape shape = {m, n, random.in(1, 2), random.in(1, 2)};
  const Gradient g = Gradient::random(random);
  typename O::Layout layout_y = O::random_layout(random), layout_d_y = O::random_input_layout(random),
                     layout_d_x = random.one_in(2) ? layout_y : O::random_layout(random);
  if (g.place == Place::on_d_y) layout_d_y = layout_d_x;
  if (g.place == Place::on_y) layout_y = layout_d_x;
  O y(shape, layout_y), d_y(shape, layout_d_y), d_x(shape, layout_d_x);
  O d_lse({1, n, shape[2], shape[3]}, O::random_input_layout(random));
  draw_result(random, g.log(), &y);
  for (O *o : {&d_y, &d_x, &d_lse}) o->fill(random, 3);
  if (!g.accumulates()) d_x.fill_with(std::numeric_limits<T>::quiet_NaN());
  INFO("m " << m << " n " << n << " flags " << g.flags << " scale " << g.scale << " d_lse " << g.has_d_lse << " place "
            << static_cast<int>(g.place) << " threads " << g.threads);

  O &before = g.place == Place::on_d_y ? d_y : g.place == Place::on_y ? y : d_x;
  WideCopy<T> wy(y), wd(d_y), want(before), wl(d_lse);
  reference::naive::softmax_backward<Wide<T>>(wy.view, wd.view, want.view, g.scale, g.log(),
                                              g.has_d_lse ? &wl.view : nullptr, g.accumulates());
  // The header's bound, and the rounding of what is added to.
  const double unit = kUnit<T>, scale = g.scale == 0 ? 1 : std::fabs(g.scale);
  WideCopy<T> start(before);
  reference::Buffer<double> sums(1, n, shape[2], shape[3]);
  y.each([&](T &, int64_t i, int64_t j, int64_t h, int64_t b) {
    const double of_y = static_cast<double>(wy.view.at(i, j, h, b));
    double &sum = sums.view.at(0, j, h, b);
    if (i == 0 && g.has_d_lse) sum = std::fabs(static_cast<double>(wl.view.at(0, j, h, b)));
    if (std::isfinite(of_y)) sum += (g.log() ? 1 : of_y) * std::fabs(static_cast<double>(wd.view.at(i, j, h, b)));
  });
  const auto bound = [&](int64_t i, int64_t j, int64_t h, int64_t b) {
    const double of_y = static_cast<double>(wy.view.at(i, j, h, b)), sum = sums.view.at(0, j, h, b),
                 of_d = std::fabs(static_cast<double>(wd.view.at(i, j, h, b)));
    const double size = g.log() ? of_d + std::exp(of_y) * sum : of_y * (of_d + sum);
    const double added = g.accumulates() ? std::fabs(static_cast<double>(start.view.at(i, j, h, b))) : 0;
    return unit * (24 * scale * size + added);
  };
  double worst = 0;
  for_each_isa([&] {
    O result = before, from_y = y, from_d_y = d_y;
    auto options = options_with<attend_softmax_backward_options>(g.threads);
    options.flags = g.flags;
    options.scale = g.scale;
    options.d_lse = g.has_d_lse ? d_lse.tensor() : nullptr;
    const attend_tensor *const to = result.tensor();
    if (!ok(attend_softmax_backward(g.place == Place::on_y ? to : from_y.tensor(),
                                    g.place == Place::on_d_y ? to : from_d_y.tensor(), to, &options))) {
      return;
    }
    CHECK(result.gaps_untouched());
    CHECK(from_y.same_memory(y));
    CHECK(from_d_y.same_memory(d_y));
    const double ratio = worst_ratio(result, want.view, bound);
    CHECK(ratio <= 1);
    worst = std::max(worst, ratio);
  });
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("softmax backward: every length near a vector, a part or a chunk", T, float, double) {
  double worst = 0;
  Random random(21);
  for (int64_t m = 0; m <= 36; ++m) worst = std::max(worst, column_gradient<T>(random, m, random.in(1, 40)));
  for (const int64_t m : {63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1025, 1537}) {
    worst = std::max(worst, column_gradient<T>(random, m, random.in(1, 20)));
  }
  for (int i = 0, count = rounds(60, 6000); i < count; ++i) {
    worst = std::max(worst, column_gradient<T>(random, random.in(1, 300), random.in(1, 70)));
  }
  // More columns than a strip or a group has; several tasks.
  for (int i = 0; i < 4; ++i)
    worst = std::max(worst, column_gradient<T>(random, random.in(1, 30), random.in(500, 900)));
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("softmax backward: long columns", T, float, double) {
  Random random(22);
  for (const int64_t m : {8193, 20000, 70001}) column_gradient<T>(random, m, random.in(1, 3));
}

// Written past the caches, whatever d_x begins with.
TEST_CASE("softmax backward: larger than the caches") {
  using O = Operand<float>;
  Random random(23);
  for (const bool by_rows : {false, true}) {
    typename O::Layout layout;
    if (by_rows) std::swap(layout.order[0], layout.order[1]);
    const Shape shape = {1501, 1499, 1, 1};
    O y(shape, layout), d_y(shape, layout);
    layout.offset = random.in(0, 15);
    O d_x(shape, layout);
    draw_result(random, false, &y);
    d_y.fill(random);
    for_each_isa([&] {
      O past = d_x, in_place = d_y;
      const auto options = options_with<attend_softmax_backward_options>(2);
      if (!ok(attend_softmax_backward(y.tensor(), d_y.tensor(), past.tensor(), &options))) return;
      if (!ok(attend_softmax_backward(y.tensor(), in_place.tensor(), in_place.tensor(), &options))) return;
      CHECK(past.gaps_untouched());
      CHECK(same_bits(past.values(), in_place.values()));
    });
  }
}

// Of what is masked nothing is known: d_y may hold anything there.
TEST_CASE_TEMPLATE("softmax backward: masked entries get 0 and leak nothing", T, float, double) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();
  Random random(24);
  for (int i = 0, count = rounds(60, 6000); i < count; ++i) {
    using O = Operand<T>;
    const Shape shape = {random.pick<int64_t>({1, 2, 7, 16, 17, 40, 130, 513, 700}), random.in(1, 40), 1, 1};
    const bool log = random.one_in(2), accumulates = random.one_in(3);
    const double scale = random.pick({0.0, -0.5});
    const T masked = log ? -kInfinity : T(0);
    O y(shape, O::random_layout(random)), d_y(shape, O::random_layout(random)), d_x(shape, O::random_layout(random));
    draw_result(random, log, &y);
    y.each([&](T &v, int64_t, int64_t j, auto...) {
      if (j % 5 == 4) v = masked;  // columns of nothing else
    });
    d_y.fill(random);
    d_x.fill(random);
    O clean = d_y;
    y.each([&](T &v, int64_t r, int64_t j, int64_t h, int64_t b) {
      if (v != masked) return;
      clean.at(r, j, h, b) = 0;
      d_y.at(r, j, h, b) = random.pick({kNan, kInfinity, -kInfinity, T(1)});
    });
    INFO("rows " << shape[0] << " columns " << shape[1] << " log " << log << " accumulates " << accumulates << " scale "
                 << scale);
    for_each_isa([&] {
      auto options = options_with<attend_softmax_backward_options>(1);
      options.scale = scale;
      options.flags = (log ? ATTEND_LOG : 0) | (accumulates ? ATTEND_ACCUMULATE : 0);
      O got = d_x, want = d_x;
      if (!ok(attend_softmax_backward(y.tensor(), d_y.tensor(), got.tensor(), &options))) return;
      if (!ok(attend_softmax_backward(y.tensor(), clean.tensor(), want.tensor(), &options))) return;
      CHECK(got.same_memory(want));
      got.each([&](T &v, int64_t r, int64_t j, int64_t h, int64_t b) {
        if (y.at(r, j, h, b) != masked) return;
        const T wanted = accumulates ? d_x.at(r, j, h, b) : T(0);
        CHECK(std::memcmp(&v, &wanted, sizeof v) == 0);
      });
    });
  }
}

TEST_CASE_TEMPLATE("softmax backward: a NaN or an infinity stays in its column", T, float, double) {
  constexpr T kInfinity = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();
  for (const bool by_rows : {false, true}) {
    for (const int64_t m : {3, 17, 530}) {
      typename Operand<T>::Layout layout;
      if (by_rows) std::swap(layout.order[0], layout.order[1]);
      Operand<T> y({m, 5, 1, 1}, layout), d_y = y;
      y.fill_with(T(1) / static_cast<T>(m));
      y.at(1, 2) = 0;
      d_y.fill_with(T(0.5));
      for (const T poison : {kNan, kInfinity}) {
        auto spoilt = d_y;
        spoilt.at(m - 1, 2) = poison;
        for_each_isa([&] {
          Operand<T> d_x({m, 5, 1, 1}, layout);
          if (!ok(attend_softmax_backward(y.tensor(), spoilt.tensor(), d_x.tensor(), nullptr))) return;
          d_x.each([&](T &v, int64_t i, int64_t j, auto...) {
            INFO("row " << i << " column " << j << ": " << v);
            CHECK(std::isfinite(v) == (j != 2 || i == 1));
          });
          CHECK(d_x.at(1, 2) == 0);
        });
      }
    }
  }
}

// A logarithm that is rounded to a little more than 0 is one of 1.
TEST_CASE_TEMPLATE("softmax backward: logarithms above 0 count as 0", T, float, double) {
  Operand<T> y({40, 3, 1, 1}, {}), d_y = drawn<T>({40, 3, 1, 1}, 25);
  y.fill_with(T(-3));
  auto above = y;
  for (const int64_t j : {0, 1, 2}) {
    y.at(7, j) = 0;
    above.at(7, j) = j == 0 ? std::numeric_limits<T>::epsilon() : j == 1 ? T(300) : std::numeric_limits<T>::infinity();
  }
  auto options = options_with<attend_softmax_backward_options>(1);
  options.flags = ATTEND_LOG;
  for_each_isa([&] {
    Operand<T> of_zero({40, 3, 1, 1}, {}), of_more = of_zero;
    ok(attend_softmax_backward(y.tensor(), d_y.tensor(), of_zero.tensor(), &options));
    ok(attend_softmax_backward(above.tensor(), d_y.tensor(), of_more.tensor(), &options));
    CHECK(of_zero.same_memory(of_more));
  });
}

// The slope of L = sum d_y y + sum d_lse lse in each x and in each bias, by central differences of the forward call.
TEST_CASE("softmax backward: finite differences of attend_softmax") {
  using O = Operand<double>;
  Random random(26);
  for (int round = 0, count = rounds(12, 400); round < count; ++round) {
    const Shape shape = {random.in(1, 9), random.in(1, 4), 1, 1};
    O x(shape, {}), bias(shape, {}), d_y(shape, {}), y(shape, {}), d_x(shape, {});
    O lse({1, shape[1], 1, 1}, {}), d_lse({1, shape[1], 1, 1}, {});
    for (O *o : {&x, &bias, &d_y, &d_lse}) o->fill(random);
    std::vector<uint8_t> visible(static_cast<size_t>(shape[0] * shape[1]));
    for (uint8_t &v : visible) v = random.one_in(5) ? 0 : 1;
    const attend_tensor mask = {visible.data(), ATTEND_BOOL, 2, {shape[0], shape[1]}, {1, shape[0]}};
    auto options = options_with<attend_softmax_options>(1);
    options.flags = random.one_in(2) ? ATTEND_LOG : 0;
    options.scale = random.pick({0.0, 0.7, -1.3});
    options.mask = &mask;
    options.bias = bias.tensor();
    options.lse = lse.tensor();
    const auto loss = [&] {
      ok(attend_softmax(x.tensor(), y.tensor(), &options));
      double sum = 0;
      y.each([&](double &v, int64_t i, int64_t j, auto...) {
        if (std::isfinite(v)) sum += v * d_y.at(i, j);
      });
      lse.each([&](double &v, int64_t, int64_t j, auto...) {
        if (std::isfinite(v)) sum += v * d_lse.at(0, j);
      });
      return sum;
    };
    loss();
    auto backward = options_with<attend_softmax_backward_options>(1);
    backward.flags = options.flags;
    backward.scale = options.scale;
    backward.d_lse = d_lse.tensor();
    ok(attend_softmax_backward(y.tensor(), d_y.tensor(), d_x.tensor(), &backward));
    const double scale = options.scale == 0 ? 1 : options.scale, step = 1e-5;
    for (O *of : {&x, &bias}) {
      of->each([&](double &v, int64_t i, int64_t j, auto...) {
        const double at = v;
        v = at + step;
        const double above = loss();
        v = at - step;
        const double slope = (above - loss()) / (2 * step);
        v = at;
        CHECK(std::fabs(slope - (of == &x ? d_x.at(i, j) : d_x.at(i, j) / scale)) < 1e-8);
      });
    }
  }
}
