// attend_softmax against the formula in a wider type, and what the header says about special values.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// One random softmax; the error is compared with 4 ulp of the value plus 1 ulp of the column's largest output.
template <class T>
double column_softmax(Random &random, int64_t m, int64_t n) {
  using O = Operand<T>;
  const int64_t heads = random.in(1, 2), batch = random.in(1, 2);
  O x({m, n, heads, batch}, O::random_input_layout(random)), y({m, n, heads, batch}, O::random_layout(random));
  O lse({1, n, heads, batch}, O::random_layout(random));
  x.fill(random, random.pick({1.0, 5.0, 50.0}));
  for (O *o : {&y, &lse}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
  attend_softmax_options options = {};
  options.size = sizeof options;
  options.flags = random.one_in(3) ? ATTEND_LOG : 0;
  options.scale = random.pick({0.0, 0.0, 1.0, -0.5, 0.3, -1.7});
  options.threads = static_cast<int32_t>(random.in(0, 2));
  const bool log = options.flags != 0;
  const double scale = options.scale == 0 ? 1 : options.scale;
  INFO("m " << m << " n " << n << " scale " << scale << " log " << log);

  // The scores are rounded to T before all else, so the oracle starts from the rounded ones.
  O scores = x.in({});
  scores.each([&](T &s, auto...) { s *= static_cast<T>(scale); });
  WideCopy<T> ws(scores), wy(y), wl(lse);
  reference::naive::softmax<Wide<T>>(ws.view, wy.view, 1, log, &wl.view);
  const double ulp = 2 * kUnit<T>;
  reference::Buffer<double> largest(1, n, heads, batch);
  y.each([&](T &, int64_t i, int64_t j, int64_t h, int64_t b) {
    double &top = largest.view.at(0, j, h, b);
    top = std::max(top, static_cast<double>(wy.view.at(i, j, h, b)));
  });

  const O input = x, dense = x.in({});
  const auto bound = [&](int64_t i, int64_t j, int64_t h, int64_t b) {
    const double want = std::fabs(static_cast<double>(wy.view.at(i, j, h, b)));
    if (log) return ulp * (2 * want + 4 + std::fabs(static_cast<double>(ws.view.at(i, j, h, b))));
    return ulp * (4 * want + largest.view.at(0, j, h, b));
  };
  double worst = 0;
  for_each_isa([&] {
    O result = y, sums = lse;
    options.lse = sums.tensor();
    if (!ok(attend_softmax(x.tensor(), result.tensor(), &options))) return;
    CHECK(result.gaps_untouched());
    CHECK(sums.gaps_untouched());
    const double ratio = worst_ratio(result, wy.view, bound);
    CHECK(ratio <= 1);
    worst = std::max(worst, ratio);
    CHECK(worst_ratio(sums, wl.view, [&](int64_t, int64_t j, int64_t h, int64_t b) {
            return ulp * (2 * std::fabs(static_cast<double>(wl.view.at(0, j, h, b))) + 4);
          }) <= 1);
    for (int64_t j = 0; j < n && m > 0 && !log; ++j) {
      long double sum = 0;
      for (int64_t i = 0; i < m; ++i) sum += static_cast<long double>(result.at(i, j, heads - 1, batch - 1));
      CHECK(static_cast<double>(std::fabs(sum - 1)) <= 8 * ulp);
    }
    // Dense columns, with lse, without it and in place: the same bits.
    O in_place = dense, apart = dense, from = dense, with_lse = dense;
    if (!ok(attend_softmax(from.tensor(), with_lse.tensor(), &options))) return;
    options.lse = nullptr;
    if (!ok(attend_softmax(from.tensor(), apart.tensor(), &options))) return;
    CHECK(worst_ratio(apart, wy.view, bound) <= 1);
    CHECK(with_lse.same_memory(apart));
    if (!ok(attend_softmax(in_place.tensor(), in_place.tensor(), &options))) return;
    CHECK(in_place.same_memory(apart));
  });
  CHECK(input.same_memory(x));
  return worst;
}

// Softmax of one list in both layouts (contiguous down the column, and as one of 5 interleaved columns).
template <class T, class Check>
void of_list(const std::vector<T> &list, uint32_t flags, const Check &check, double scale = 0) {
  for (const int64_t stride : {1, 5}) {
    INFO("row stride " << stride);
    const int64_t m = static_cast<int64_t>(list.size());
    std::vector<T> x(static_cast<size_t>(5 * m)), y(x.size());
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < 5; ++j)
        x[static_cast<size_t>(stride == 1 ? i + j * m : 5 * i + j)] = j == 2 ? list[static_cast<size_t>(i)] : T(0.25);
    const attend_tensor tx = {x.data(), kDtype<T>, 2, {m, 5, 0, 0}, {stride, stride == 1 ? m : 1, 0, 0}};
    attend_tensor ty = tx;
    ty.data = y.data();
    T lse[5];
    const attend_tensor tl = {lse, kDtype<T>, 2, {1, 5, 0, 0}, {1, 1, 0, 0}};
    attend_softmax_options options = {};
    options.size = sizeof options;
    options.flags = flags;
    options.scale = scale;
    options.lse = &tl;
    if (!ok(attend_softmax(&tx, &ty, &options))) return;
    std::vector<T> result;
    for (int64_t i = 0; i < m; ++i) result.push_back(y[static_cast<size_t>(stride == 1 ? i + 2 * m : 5 * i + 2)]);
    // The neighbours never notice.
    for (const int64_t j : {1, 3}) {
      bool finite = std::isfinite(lse[j]);
      for (int64_t i = 0; i < m; ++i)
        finite &= std::isfinite(y[static_cast<size_t>(stride == 1 ? i + j * m : 5 * i + j)]);
      CHECK(finite);
    }
    check(result, lse[2]);
  }
}

}  // namespace

// Several share a vector.
TEST_CASE_TEMPLATE("softmax: short columns one behind the other are those that stand alone", T, float, double) {
  Random random(12);
  for (int64_t m = 1; m <= 17; ++m) {
    for (const int64_t n : {1, 2, 3, 5, 8, 31, 64}) {
      INFO("m " << m << " n " << n);
      Operand<T> x({m, n, 1, 1}, {}), y({m, n, 1, 1}, {}), alone({m, n, 1, 1}, {});
      x.fill(random, 3);
      for_each_isa([&] {
        if (!ok(attend_softmax(x.tensor(), y.tensor(), nullptr))) return;
        for (int64_t j = 0; j < n; ++j) {
          const attend_tensor from = {&x.at(0, j, 0, 0), kDtype<T>, 1, {m}, {1}},
                              to = {&alone.at(0, j, 0, 0), kDtype<T>, 1, {m}, {1}};
          if (!ok(attend_softmax(&from, &to, nullptr))) return;
        }
        CHECK(y.same_memory(alone));
      });
    }
  }
}

TEST_CASE_TEMPLATE("softmax: every length near a vector or a chunk", T, float, double) {
  double worst = 0;
  Random random(11);
  for (int64_t m = 0; m <= 70; ++m) worst = std::max(worst, column_softmax<T>(random, m, random.in(1, 20)));
  for (const int64_t m : {127, 128, 129, 255, 257, 300, 511, 512, 513, 527, 1023, 1024, 1025, 1537}) {
    worst = std::max(worst, column_softmax<T>(random, m, random.in(1, 20)));
  }
  for (int i = 0; i < 30; ++i) {
    worst = std::max(worst, column_softmax<T>(random, random.in(71, 300), random.in(1, 40)));
  }
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("softmax: long columns", T, float, double) {
  Random random(12);
  // The two-pass algorithm begins behind 256 KiB; spans of 16384 (f32) or 8192 elements, chunks of 512.
  for (const int64_t m : {32768, 32769, 65536, 65537, 81921, 100000}) column_softmax<T>(random, m, 2);
}

TEST_CASE_TEMPLATE("softmax: special values as the header says", T, float, double) {
  const T inf = static_cast<T>(kInfinity), nan = std::numeric_limits<T>::quiet_NaN();
  for_each_isa([&] {
    for (const size_t length : {1u, 3u, 16u, 17u, 40u, 530u, 66000u}) {
      INFO("length " << length);
      const size_t last = length - 1;
      std::vector<T> list(length, T(1));
      // +inf by itself, by a negative scale, by an overflow of the scale; at the end of the column and at its
      // beginning.
      const std::pair<T, double> poison[] = {
          {nan, 1}, {nan, -2}, {inf, 1}, {-inf, -1}, {std::numeric_limits<T>::max(), 2}};
      for (const std::pair<T, double> &p : poison) {
        if (length > 10000 && p.second != 1) continue;
        const T value = p.first;
        const double scale = p.second;
        for (const size_t at : {last, size_t{0}}) {
          for (const uint32_t flags : {0u, ATTEND_LOG}) {
            INFO("value " << value << " scale " << scale << " at " << at << " flags " << flags);
            std::vector<T> poisoned = list;
            poisoned[at] = value;
            const auto all_nan = [](const std::vector<T> &y, T lse) {
              CHECK(std::all_of(y.begin(), y.end(), [](T v) { return std::isnan(v); }));
              CHECK(std::isnan(lse));
            };
            of_list(poisoned, flags, all_nan, scale);
          }
        }
      }
      list.assign(length, -inf);
      of_list(list, 0, [&](const std::vector<T> &y, T lse) {
        for (const T v : y) CHECK(v == 0);
        CHECK(lse == -inf);
      });
      of_list(list, ATTEND_LOG, [&](const std::vector<T> &y, T lse) {
        for (const T v : y) CHECK(v == -inf);
        CHECK(lse == -inf);
      });
      list[last] = T(-1234.5);
      of_list(list, 0, [&](const std::vector<T> &y, T lse) {
        for (size_t i = 0; i < last; ++i) CHECK(y[i] == 0);
        CHECK(y[last] == 1);
        CHECK(lse == T(-1234.5));
      });
      // Stable: no overflow, no subnormal weights.
      list.assign(length, T(-1000));
      list[last] = 1000;
      of_list(list, 0, [&](const std::vector<T> &y, T lse) {
        for (size_t i = 0; i < last; ++i) CHECK(y[i] == 0);
        CHECK(y[last] == 1);
        CHECK(lse == 1000);
      });
    }
  });
}

TEST_CASE_TEMPLATE("softmax: weights below the smallest normal number are exactly 0", T, float, double) {
  const T cut = sizeof(T) == 4 ? T(-0x1.5d589ep+6) : T(-0x1.6232bdd7abcd2p+9);  // ln of that number, rounded up
  const T normal = std::numeric_limits<T>::min();
  const double least = static_cast<double>(std::exp(static_cast<long double>(cut)));
  CHECK(least >= static_cast<double>(normal));
  for_each_isa([&] {
    for (const size_t length : {3u, 21u, 600u, 70000u}) {
      std::vector<T> list(length, std::nextafter(cut, T(-1e4)));
      list[length / 2] = 0;
      list[length - 1] = cut;
      of_list(list, 0, [&](const std::vector<T> &y, T lse) {
        for (size_t i = 0; i + 1 < length; ++i) CHECK(y[i] == (i == length / 2 ? T(1) : T(0)));
        CHECK(y[length - 1] >= normal);
        CHECK(std::fabs(static_cast<double>(y[length - 1]) - least) <= 8 * kUnit<T> * least);
        CHECK(lse == 0);
      });
    }
  });
}

// One large score and n others of 0: the logarithm of a probability next to 1 has the header's absolute error.
TEST_CASE_TEMPLATE("softmax: logarithms next to 0", T, float, double) {
  const struct {
    double large;
    size_t others;
  } columns[] = {{16.94, 1}, {20, 99999}, {36.5, 1}, {40, 3}};
  for_each_isa([&] {
    for (const auto &c : columns) {
      std::vector<T> list(c.others + 1, T(0));
      list[c.others / 2] = static_cast<T>(c.large);
      const double s = static_cast<double>(list[c.others / 2]);
      const double want = -std::log1p(static_cast<double>(c.others) * std::exp(-s));
      of_list(list, ATTEND_LOG, [&](const std::vector<T> &y, T lse) {
        CHECK(std::fabs(static_cast<double>(y[c.others / 2]) - want) <= 2 * kUnit<T> * (4 + 2 * std::fabs(want) + s));
        CHECK(y[c.others / 2] <= 0);
        CHECK(std::fabs(static_cast<double>(lse) - (s - want)) <= 2 * kUnit<T> * (4 + 2 * s));
      });
    }
  });
}

TEST_CASE_TEMPLATE("softmax: monotone, and the same for a column shifted by a power of two", T, float, double) {
  for_each_isa([] {
    Random random(13);
    std::vector<T> list;
    for (int i = 0; i < 600; ++i) list.push_back(static_cast<T>(random.in(-4096, 4096)) / 256);
    std::vector<T> shifted = list;
    for (T &x : shifted) x += 64;
    // One result for each layout: they have orders of summation of their own.
    std::vector<std::vector<T>> of_one, of_other;
    of_list(list, 0, [&](const std::vector<T> &y, T) {
      for (size_t i = 0; i < list.size(); ++i)
        for (size_t j = 0; j < 20; ++j)
          if (list[i] < list[j]) CHECK(y[i] <= y[j]);
      of_one.push_back(y);
    });
    of_list(shifted, 0, [&](const std::vector<T> &y, T) { of_other.push_back(y); });
    REQUIRE(of_one.size() == of_other.size());
    for (size_t i = 0; i < of_one.size(); ++i) CHECK(same_bits(of_one[i], of_other[i]));
  });
}
