// What attend_bench_against concludes from its timings. No clock and no library here, so that a test can make up both.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_AGAINST_VERDICT_HPP
#define ATTEND_BENCH_AGAINST_VERDICT_HPP

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace attend::bench::against {

// Seconds that equally many calls took: of the old library, of a second copy of it, and of the new one.
struct Round {
  double old, again, now;
};

struct Figures {
  double seconds;  // median of old
  double ratio;    // median of old / now: > 1 means that now is faster
  double control;  // median of old / again, which would be 1 on a machine without noise
  double spread;   // how far from 1 `control` may lie
};

enum class Verdict { passes, within_spread, misses, not_measured };

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// The rank (from 0) up to which sorted values are cut off at either end for what is left to hold their true median with
// a confidence of 95 %. Each value lies below the median with probability 1/2, whatever the distribution: the count of
// those that do is binomial, and P(count <= rank) <= 2.5 %. 4 of 18, 3 of 15.
inline size_t confident_rank(size_t count) {
  double term = std::ldexp(1.0, -static_cast<int>(count)), tail = term;
  size_t rank = 0;
  for (size_t next = 1; next <= count / 2; ++next) {
    term *= static_cast<double>(count - next + 1) / static_cast<double>(next);
    tail += term;
    if (tail > 0.025) break;
    rank = next;
  }
  return rank;
}

// How far from 1 the median of these ratios, which ought to be 1, lies at most (confidence 95 %). Counts both what
// scatters from round to round and what is the same in all of them, such as where the copies lie in memory. Of the
// median and not of the single ratio, since it is a median that is held against the mark.
inline double spread_around_1(std::vector<double> ratios) {
  std::sort(ratios.begin(), ratios.end());
  const size_t rank = confident_rank(ratios.size());
  return std::max(1 - ratios[rank], ratios[ratios.size() - 1 - rank] - 1);
}

inline Figures figures_of(const std::vector<Round> &rounds) {
  std::vector<double> olds, ratios, controls;
  for (const Round &round : rounds) {
    olds.push_back(round.old);
    // Of one round, since a machine that is slow for a second is slow for all three.
    ratios.push_back(round.old / round.now);
    controls.push_back(round.old / round.again);
  }
  return {median(olds), median(ratios), median(controls), spread_around_1(controls)};
}

// A row misses its mark only by more than its own spread; one of a larger spread than `limit` says nothing.
inline Verdict verdict_of(const Figures &figures, double mark, double limit) {
  if (!(figures.spread <= limit)) return Verdict::not_measured;
  if (figures.ratio >= mark) return Verdict::passes;
  return figures.ratio + figures.spread >= mark ? Verdict::within_spread : Verdict::misses;
}

}  // namespace attend::bench::against

#endif  // ATTEND_BENCH_AGAINST_VERDICT_HPP
