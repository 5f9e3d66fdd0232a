// Attention and softmax at the ends of the number range: biases of the largest numbers there are, scores near them,
// positions that f32 barely holds, lse next to 0, infinite scores.
#include "attention_call.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
constexpr T kMost = std::numeric_limits<T>::max();
template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNan = std::numeric_limits<T>::quiet_NaN();

// One query and many, on the ways for few and for many of them, in several chunks, and shared out among threads.
struct Size {
  int64_t nq, nk;
  bool turned;
  int32_t threads;
};
constexpr Size kSizes[] = {{1, 3, false, 1},   {1, 700, false, 1},  {3, 300, true, 1},
                           {20, 40, false, 1}, {20, 600, false, 2}, {9, 2100, false, 3}};

// f(call) for every table and size: D = 32, Dv = 24.
template <class T, class F>
void for_each_call(unsigned stream, const F &f) {
  Random random(stream + (sizeof(T) == 4 ? 0 : 1));
  for_each_table([&](const std::string &, const std::string &) {
    for (const Size &size : kSizes) {
      INFO("Nq " << size.nq << " Nk " << size.nk << " turned " << size.turned << " threads " << size.threads);
      AttentionCall<T> call(random, 32, 24, size.nq, size.nk, 1, size.turned);
      call.options.threads = size.threads;
      f(call, random);
    }
  });
}

// What a mean of n values, at most `largest`, is off by: a chain of 256, and a fold for each.
template <class T>
double mean_error(int64_t n, double largest) {
  return kUnit<T> * (static_cast<double>(std::min<int64_t>(n, 256) + n / 256) + 12) * largest;
}

// The largest difference from the mean of V's keys that `counts` names, over the error that it may have.
template <class T, class Counts>
double off_the_mean(AttentionCall<T> &call, const Counts &counts) {
  double worst = 0;
  call.out.each([&](T &x, int64_t f, auto...) {
    Wide<T> sum = 0;
    double largest = 0;
    int64_t n = 0;
    for (int64_t j = 0; j < call.v.shape()[1]; ++j) {
      if (!counts(j)) continue;
      ++n;
      sum += Wide<T>(call.v.at(f, j));
      largest = std::max(largest, std::fabs(static_cast<double>(call.v.at(f, j))));
    }
    const double error = static_cast<double>(std::fabs(Wide<T>(x) - sum / static_cast<Wide<T>>(n)));
    const double ratio = error / mean_error<T>(n, largest);
    if (!(ratio <= worst)) worst = ratio;
  });
  return worst;
}

// log of the sum of n equal weights beside a score, rounded once.
template <class T>
T lse_of(T score, int64_t n) {
  return static_cast<T>(Wide<T>(score) + std::log(Wide<T>(n)));
}

template <class T>
std::vector<T> extreme_biases() {
  std::vector<T> values = {-kMost<T>, T(0.9) * kMost<T>, -T(0.3) * kMost<T>};
  // What "masked" is in f32 models, in f64.
  if (sizeof(T) == 8) values.push_back(static_cast<T>(std::numeric_limits<float>::lowest()));
  return values;
}

}  // namespace

TEST_CASE_TEMPLATE("a bias of the largest numbers on every key: the mean", T, float, double) {
  for (const T value : extreme_biases<T>()) {
    INFO("bias " << value);
    for_each_call<T>(901, [&](AttentionCall<T> &call, Random &random) {
      const int64_t nq = call.q.shape()[1], nk = call.k.shape()[1];
      Operand<T> bias({nk, random.one_in(2) ? nq : 1, 1, 1}, Operand<T>::random_input_layout(random)),
          scores({nk, nq, 1, 1}, {});
      bias.fill_with(value);
      call.options.bias = bias.tensor();
      call.options.scores = random.one_in(2) ? scores.tensor() : nullptr;
      call.options.scores_stage = ATTEND_SCORES_MASKED;
      if (!call.run()) return;
      CHECK(off_the_mean(call, [](int64_t) { return true; }) <= 1);
      call.lse.each([&](T &x, auto...) { CHECK(x == lse_of(value, nk)); });
      if (call.options.scores == nullptr) return;
      int64_t wrong = 0;
      scores.each([&](T &x, auto...) { wrong += x != value; });
      CHECK(wrong == 0);
    });
  }
}

TEST_CASE_TEMPLATE("a bias of the largest numbers on some keys weighs nothing, or all", T, float, double) {
  for_each_call<T>(911, [&](AttentionCall<T> &call, Random &random) {
    const int64_t nk = call.k.shape()[1];
    // A whole chunk, or any keys.
    const int64_t chunk = random.one_in(2) ? random.in(0, std::max<int64_t>(0, nk / 256 - 1)) : -1;
    std::vector<bool> low;
    for (int64_t j = 0; j < nk; ++j) low.push_back(j != nk - 1 && (chunk >= 0 ? j / 256 == chunk : random.one_in(2)));
    Operand<T> bias({nk, 1, 1, 1}, {});
    const auto set = [&](T on_low, T else_) {
      bias.each([&](T &b, int64_t j, auto...) { b = low[static_cast<size_t>(j)] ? on_low : else_; });
      call.options.bias = bias.tensor();
      return call.run();
    };
    if (!set(-kInf<T>, 0)) return;
    AttentionCall<T> hidden = call;
    for (const T value : {-kMost<T>, -T(0.3) * kMost<T>}) {
      if (!set(value, 0)) return;
      CHECK(call.same_results(hidden));
    }
    if (!set(0, T(0.9) * kMost<T>)) return;
    CHECK(off_the_mean(call, [&](int64_t j) { return !low[static_cast<size_t>(j)]; }) <= 1);
  });
}

TEST_CASE_TEMPLATE("softmax: a bias of the largest numbers", T, float, double) {
  Random random(sizeof(T) == 4 ? 921 : 922);
  for_each_table([&](const std::string &, const std::string &) {
    for (const int64_t m : {1, 2, 5, 8, 31, 64, 100, 600, 70000}) {
      const int64_t n = m > 1000 ? 1 : 19;
      typename Operand<T>::Layout layout;
      if (random.one_in(2)) layout.order = {1, 0, 2, 3};
      Operand<T> x({m, n, 1, 1}, layout), y = x, lse({1, n, 1, 1}, {}), bias = x, hidden = x, lse_hidden = lse;
      x.fill(random);
      auto options = options_with<attend_softmax_options>(static_cast<int32_t>(random.in(1, 2)));
      options.scale = 0.7;
      const auto run = [&](Operand<T> &to, Operand<T> &sums) {
        for (Operand<T> *o : {&to, &sums}) o->fill_with(kNan<T>);
        options.bias = bias.tensor();
        options.lse = sums.tensor();
        return ok(attend_softmax(x.tensor(), to.tensor(), &options));
      };
      for (const T value : extreme_biases<T>()) {
        INFO("m " << m << " by rows " << (layout.order[0] == 1) << " bias " << value);
        bias.fill_with(value);
        if (!run(y, lse)) return;
        const Wide<T> want = 1 / Wide<T>(m);
        int64_t wrong = 0;
        y.each([&](T &p, auto...) { wrong += !(std::fabs(Wide<T>(p) - want) <= 4 * Wide<T>(kUnit<T>) * want); });
        CHECK(wrong == 0);
        lse.each([&](T &l, auto...) { CHECK(l == lse_of(value, m)); });
        if (value > 0) continue;
        // On some entries only.
        bias.each([&](T &b, int64_t i, auto...) { b = i != m / 2 && random.one_in(2) ? value : T(0); });
        if (!run(y, lse)) return;
        bias.each([&](T &b, auto...) { b = b == value ? -kInf<T> : b; });
        if (!run(hidden, lse_hidden)) return;
        CHECK(y.same_memory(hidden));
        CHECK(lse.same_memory(lse_hidden));
      }
    }
  });
}

TEST_CASE_TEMPLATE("a key whose bias is the lowest number is visible, NaN and all", T, float, double) {
  for_each_call<T>(931, [&](AttentionCall<T> &call, Random &random) {
    const int64_t nk = call.k.shape()[1], key = random.in(0, nk - 1);
    Operand<T> bias({nk, 1, 1, 1}, {});
    bias.fill_with(0);
    bias.at(key, 0) = -kMost<T>;
    call.options.bias = bias.tensor();
    const bool in_k = random.one_in(2);
    Operand<T> &spoilt = in_k ? call.k : call.v;
    for (int64_t f = 0; f < spoilt.shape()[0]; ++f) spoilt.at(f, key) = kNan<T>;
    INFO("key " << key << " in K " << in_k);
    if (!call.run()) return;
    call.out.each([&](T &x, auto...) { CHECK(std::isnan(x)); });
    if (in_k) call.lse.each([&](T &x, auto...) { CHECK(std::isnan(x)); });
    // Hidden, it is not seen.
    bias.at(key, 0) = -kInf<T>;
    if (!call.run()) return;
    call.out.each([&](T &x, auto...) { CHECK((std::isfinite(x))); });
    call.lse.each([&](T &x, auto...) { CHECK((std::isfinite(x))); });
  });
}

TEST_CASE_TEMPLATE("scores near the largest number", T, float, double) {
  for_each_call<T>(941, [&](AttentionCall<T> &call, Random &random) {
    // 32 equal products whose sum, 29/32 of the largest number, is exact.
    const int64_t nk = call.k.shape()[1], top = random.in(0, nk - 1), next = random.in(0, nk - 1);
    const T size = std::ldexp(T(1), std::numeric_limits<T>::max_exponent / 2 - 5);
    call.q.fill_with(size);
    call.k.each([&](T &x, int64_t, int64_t j, auto...) {
      const bool largest = j == top || j == next;
      x = size * (largest ? T(29) : static_cast<T>(random.in(-29, 28)));
    });
    call.options.scale = 1;
    if (!call.run()) return;
    const T score = std::ldexp(T(29), std::numeric_limits<T>::max_exponent - 5);
    CHECK(off_the_mean(call, [&](int64_t j) { return j == top || j == next; }) <= 1);
    call.lse.each([&](T &x, auto...) { CHECK(x == score); });
    // And the lowest, all of them.
    call.k.fill_with(-29 * size);
    if (!call.run()) return;
    CHECK(off_the_mean(call, [](int64_t) { return true; }) <= 1);
    call.lse.each([&](T &x, auto...) { CHECK(x == -score); });
  });
}

TEST_CASE_TEMPLATE("ALiBi far away, where T holds every score", T, float, double) {
  double worst = 0;
  for_each_call<T>(951, [&](AttentionCall<T> &call, Random &random) {
    // Products in eighths of at most 8, distances in quarters of at most 2^20: 23 bits.
    const int64_t nq = call.q.shape()[1], nk = call.k.shape()[1];
    const T slope = random.pick({T(1), T(0.5), T(0.25)});
    Operand<T> slopes({1, 1, 1, 1}, {}), scores({nk, nq, 1, 1}, {});
    slopes.at(0, 0) = slope;
    for (Operand<T> *o : {&call.q, &call.k}) o->fill_with(0);
    for (int64_t i = 0; i < nq; ++i) call.q.at(0, i) = 1;
    for (int64_t j = 0; j < nk; ++j) call.k.at(0, j) = static_cast<T>(random.in(-64, 64)) / 8;
    call.options.scale = 1;
    call.options.alibi_slopes = slopes.tensor();
    for (const int64_t offset : {int64_t{-245000}, int64_t{-1000000}, random.in(-1000000, -245000), int64_t{1000000}}) {
      INFO("slope " << slope << " offset " << offset);
      call.options.query_offset = offset;
      if (!call.run()) return;
      for (int64_t i = 0; i < nq; ++i) {
        std::vector<Wide<T>> s;
        for (int64_t j = 0; j < nk; ++j) {
          s.push_back(Wide<T>(call.k.at(0, j)) - Wide<T>(slope) * Wide<T>(std::abs(i + offset - j)));
        }
        const Wide<T> m = *std::max_element(s.begin(), s.end());
        Wide<T> sum = 0;
        for (const Wide<T> x : s) sum += std::exp(x - m);
        const double u = kUnit<T>, lse = static_cast<double>(m + std::log(sum));
        CHECK(std::fabs(static_cast<double>(call.lse.at(0, i)) - lse) <= 2 * u * std::fabs(lse));
        for (int64_t f = 0; f < call.v.shape()[0]; ++f) {
          Wide<T> want = 0, size = 0;
          for (size_t j = 0; j < s.size(); ++j) {
            const Wide<T> term = std::exp(s[j] - m) / sum * Wide<T>(call.v.at(f, static_cast<int64_t>(j)));
            want += term;
            size += std::fabs(term);
          }
          const double error = static_cast<double>(std::fabs(Wide<T>(call.out.at(f, i)) - want) / size);
          worst = std::max(worst, error / (40 * u));
        }
      }
    }
  });
  MESSAGE("largest error over its bound: " << worst);
  CHECK(worst <= 1);
}

// D = 1, q = 1: a score is its key, without an error of its own.
TEST_CASE_TEMPLATE("the error of lse", T, float, double) {
  Random random(sizeof(T) == 4 ? 961 : 962);
  double worst = 0;
  for_each_table([&](const std::string &, const std::string &) {
    for (int round = 0; round < 200; ++round) {
      const int64_t nk = random.pick<int64_t>({1, 2, 3, 10, 100, 300});
      AttentionCall<T> call(random, 1, 1, 1, nk);
      call.q.fill_with(1);
      call.options.scale = 1;
      call.k.fill(random, random.pick({0.1, 1.0, 10.0}));
      if (nk == 2 && random.one_in(2)) call.k.at(0, 0) = 0, call.k.at(0, 1) = -static_cast<T>(random.in(1, 40));
      const auto exact = [&] {
        Wide<T> sum = 0, m = -std::numeric_limits<Wide<T>>::infinity();
        call.k.each([&](T &s, auto...) { m = std::max(m, Wide<T>(s)); });
        call.k.each([&](T &s, auto...) { sum += std::exp(Wide<T>(s) - m); });
        return m + std::log(sum);
      };
      // Now and then next to 0.
      const T shift = random.one_in(2) ? static_cast<T>(exact()) : T(0);
      call.k.each([&](T &s, auto...) { s -= shift; });
      if (!call.run()) return;
      const Wide<T> lse = exact();
      // That of the sum, whose chain of n roundings adds up like sqrt(n), is absolute in its logarithm.
      const double error = static_cast<double>(std::fabs(Wide<T>(call.lse.at(0, 0)) - lse));
      const double units = 12 + 3 * std::sqrt(static_cast<double>(nk)) + 2 * std::fabs(static_cast<double>(lse));
      worst = std::max(worst, error / (units * kUnit<T>));
    }
  });
  MESSAGE("largest error over its bound: " << worst);
  CHECK(worst <= 1);
}

// The worst: all terms of a chunk but the first are lost, half a unit each.
TEST_CASE_TEMPLATE("the error of lse: at most 256 units of rounding from a sum", T, float, double) {
  Random random(963);
  AttentionCall<T> call(random, 1, 1, 1, 256);
  call.q.fill_with(1);
  call.options.scale = 1;
  call.k.fill_with(std::log(T(0.99) * static_cast<T>(kUnit<T>)));
  call.k.at(0, 0) = 0;
  const Wide<T> want = std::log1p(255 * std::exp(Wide<T>(call.k.at(0, 1))));
  for_each_table([&](const std::string &, const std::string &) {
    if (!call.run()) return;
    CHECK(static_cast<double>(std::fabs(Wide<T>(call.lse.at(0, 0)) - want)) <= 256 * kUnit<T>);
  });
}

TEST_CASE_TEMPLATE("a score of +inf makes its own column NaN", T, float, double) {
  for_each_call<T>(981, [&](AttentionCall<T> &call, Random &random) {
    const int64_t nq = call.q.shape()[1], nk = call.k.shape()[1], key = random.in(0, nk - 1),
                  query = random.in(0, nq - 1);
    Operand<T> bias({nk, nq, 1, 1}, {});
    bias.fill(random);
    call.options.bias = bias.tensor();
    if (!call.run()) return;
    AttentionCall<T> before = call;
    bias.at(key, query) = kInf<T>;
    if (!call.run()) return;
    for (int64_t i = 0; i < nq; ++i) {
      for (int64_t f = 0; f < call.out.shape()[0]; ++f) {
        CHECK((i == query ? std::isnan(call.out.at(f, i)) : call.out.at(f, i) == before.out.at(f, i)));
      }
      CHECK((i == query ? std::isnan(call.lse.at(0, i)) : call.lse.at(0, i) == before.lse.at(0, i)));
    }
    // A key of inf: the sign of a query decides between +inf and -inf, which weighs nothing.
    bias.fill_with(0);
    for (int64_t i = 0; i < nq; ++i) bias.at(key, i) = -kInf<T>;
    for (int64_t i = 0; i < nq; ++i) call.q.at(0, i) = i % 2 == 0 ? T(1) : T(-1);
    if (!call.run()) return;
    before = call;
    for (int64_t i = 0; i < nq; ++i) bias.at(key, i) = 0;
    call.k.at(0, key) = kInf<T>;
    if (!call.run()) return;
    for (int64_t i = 0; i < nq; ++i) {
      const bool plus = i % 2 == 0;
      CHECK((plus ? std::isnan(call.lse.at(0, i)) : call.lse.at(0, i) == before.lse.at(0, i)));
      CHECK((plus ? std::isnan(call.out.at(0, i)) : call.out.at(0, i) == before.out.at(0, i)));
    }
  });
}

TEST_CASE_TEMPLATE("softmax: +inf makes its own column NaN", T, float, double) {
  Random random(sizeof(T) == 4 ? 991 : 992);
  for_each_table([&](const std::string &, const std::string &) {
    for (const int64_t m : {1, 2, 7, 16, 33, 600, 70000}) {
      const int64_t n = m > 1000 ? 2 : 37, column = random.in(0, n - 1);
      typename Operand<T>::Layout layout;
      if (random.one_in(2)) layout.order = {1, 0, 2, 3};
      Operand<T> x({m, n, 1, 1}, layout), lse({1, n, 1, 1}, {});
      Operand<T> y[] = {x, x}, sums[] = {lse, lse};
      x.fill(random);
      auto options = options_with<attend_softmax_options>(static_cast<int32_t>(random.in(1, 2)));
      for (size_t run = 0; run < 2; ++run) {
        options.lse = sums[run].tensor();
        if (!ok(attend_softmax(x.tensor(), y[run].tensor(), &options))) return;
        x.at(random.in(0, m - 1), column) = kInf<T>;
      }
      INFO("m " << m << " column " << column << " by rows " << (layout.order[0] == 1));
      int64_t wrong = 0;
      y[1].each(
          [&](T &p, int64_t i, int64_t j, auto...) { wrong += j == column ? !std::isnan(p) : p != y[0].at(i, j); });
      sums[1].each(
          [&](T &l, int64_t, int64_t j, auto...) { wrong += j == column ? !std::isnan(l) : l != sums[0].at(0, j); });
      CHECK(wrong == 0);
    }
  });
}
