// What ./run bench --against concludes from timings that are made up here.
#include "../bench/against_verdict.hpp"

#include <random>

#include "support.hpp"

using namespace attend::bench::against;

namespace {

constexpr double kMark = 0.98, kLimit = 0.03;

// A new library that takes `slowdown` times as long, on a machine whose timings scatter by `noise` and which becomes
// three times as slow in the middle of it all.
std::vector<Round> timings(double slowdown, double noise, int count = 18) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  std::vector<Round> rounds;
  for (int i = 0; i < count; ++i) {
    const auto time = [&](double seconds) {
      return (2 * i < count ? 1 : 3) * seconds * std::exp(noise * normal(random));
    };
    const double old = time(0.01), again = time(0.01);
    rounds.push_back({old, again, time(0.01 * slowdown)});
  }
  return rounds;
}

Verdict verdict(double slowdown, double noise) {
  return verdict_of(figures_of(timings(slowdown, noise)), kMark, kLimit);
}

}  // namespace

TEST_CASE("the median, and the ranks between which it lies with a confidence of 95 %") {
  CHECK(median({3}) == 3);
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 9, 2}) == 3);
  // From tables of the sign test: 15 values 4th to 12th, 18 5th to 14th, 30 10th to 21st, 60 22nd to 39th.
  CHECK(confident_rank(1) == 0);
  CHECK(confident_rank(5) == 0);
  CHECK(confident_rank(15) == 3);
  CHECK(confident_rank(18) == 4);
  CHECK(confident_rank(30) == 9);
  CHECK(confident_rank(60) == 21);
}

TEST_CASE("rows that clearly pass, clearly miss, and are too noisy") {
  CHECK(verdict(1.00, 0.001) == Verdict::passes);
  CHECK(verdict(0.80, 0.001) == Verdict::passes);
  CHECK(verdict(1.01, 0.001) == Verdict::passes);
  CHECK(verdict(1.10, 0.001) == Verdict::misses);
  CHECK(verdict(1.03, 0.001) == Verdict::misses);
  CHECK(verdict(1.10, 0.02) == Verdict::misses);
  CHECK(verdict(1.00, 0.3) == Verdict::not_measured);
  CHECK(verdict(1.50, 0.3) == Verdict::not_measured);
}

TEST_CASE("figures") {
  const Figures figures = figures_of(timings(1.25, 0));
  CHECK(figures.ratio == doctest::Approx(0.8));
  CHECK(figures.control == 1);
  CHECK(figures.spread == 0);
  CHECK(figures.seconds == doctest::Approx(0.02));  // half of the rounds 0.01, half 0.03

  // A few rounds that another program disturbs are no matter.
  std::vector<Round> rounds = timings(1, 0.002);
  for (size_t i = 0; i < 4; ++i) rounds[3 * i].now *= 10, rounds[3 * i + 1].again *= 7;
  CHECK(verdict_of(figures_of(rounds), kMark, kLimit) == Verdict::passes);

  // A copy that always is slower, because of where it lies, is a spread too: its ratios agree, but not on 1.
  rounds = timings(1.03, 0);
  for (Round &round : rounds) round.again *= 1.02;
  CHECK(figures_of(rounds).spread == doctest::Approx(1 - 1 / 1.02));
}

TEST_CASE("the mark is missed by more than the spread only") {
  const auto of = [](double ratio, double spread) { return verdict_of({1, ratio, 1, spread}, kMark, kLimit); };
  CHECK(of(0.981, 0) == Verdict::passes);
  CHECK(of(0.979, 0) == Verdict::misses);
  CHECK(of(0.965, 0.02) == Verdict::within_spread);
  CHECK(of(0.955, 0.02) == Verdict::misses);
  CHECK(of(0.955, 0.029) == Verdict::within_spread);
  CHECK(of(0.5, 0.031) == Verdict::not_measured);
  CHECK(of(1.5, 0.031) == Verdict::not_measured);
  CHECK(of(1, std::nan("")) == Verdict::not_measured);
}
