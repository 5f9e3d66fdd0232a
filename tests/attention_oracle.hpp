// Attention by the formula in a wider type, and how far from it rounding may lead: of all tests that do not know their
// numbers better.
#pragma once

#include "support.hpp"

namespace attend::test {

// The largest norm of a column, not finite ones aside.
template <class T>
double longest(Operand<T> &x, int64_t rows) {
  double most = 0;
  const Shape &s = x.shape();
  for (int64_t b = 0; b < s[3]; ++b) {
    for (int64_t h = 0; h < s[2]; ++h) {
      for (int64_t j = 0; j < s[1]; ++j) {
        double sum = 0;
        for (int64_t i = 0; i < rows; ++i) {
          const double v = static_cast<double>(x.at(i, j, h, b));
          if (std::isfinite(v)) sum += v * v;
        }
        most = std::max(most, std::sqrt(sum));
      }
    }
  }
  return most;
}

// What the formula makes of a call in a wider type, and how far off T may be. A score is a chain of D terms plus what is
// added; the weights have relatively the error that it has absolutely, and V is hardly larger than 4. The chain's
// roundings are relative to its partial sums, which the norms bound.
template <class T>
struct Expected {
  reference::Buffer<Wide<T>> out, lse, scores;
  double out_error, lse_error, scores_error;

  // `added`: at most what ALiBi and bias add to a score.
  Expected(Operand<T> &q, Operand<T> &k, Operand<T> &v, reference::AttentionSpec<Wide<T>> spec, double added = 0)
      : out(v.shape()[0], q.shape()[1], q.shape()[2], q.shape()[3]),
        lse(1, q.shape()[1], q.shape()[2], q.shape()[3]),
        scores(k.shape()[1], q.shape()[1], q.shape()[2], q.shape()[3]) {
    const WideCopy<T> wq(q), wk(k), wv(v);
    spec.lse = &lse.view;
    spec.scores = &scores.view;
    reference::naive::attention<Wide<T>>(wq.view, wk.view, wv.view, out.view, spec);
    const int64_t d = q.shape()[0];
    const double scale = std::fabs(static_cast<double>(spec.scale_for(d)));
    const double partial = scale * longest(q, d) * longest(k, d), u = kUnit<T>;
    double largest = std::max(1.0, partial);
    for (const Wide<T> s : scores.values) {
      if (std::isfinite(s)) largest = std::max(largest, std::fabs(static_cast<double>(s)));
    }
    largest += added;
    const double score_error = u * (4 + static_cast<double>(d) + 2 * largest + 4 * partial);
    out_error = 4 * score_error + 8 * u;
    lse_error = 2 * score_error + 40 * u;
    scores_error = 3 * score_error + 40 * u;
  }

  // Errors over their bounds: at most 1.
  double of_out(Operand<T> &got) const {
    return worst_ratio(got, out.view, [&](auto...) { return out_error; });
  }
  double of_lse(Operand<T> &got) const {
    return worst_ratio(got, lse.view, [&](auto...) { return lse_error; });
  }
  double of_scores(Operand<T> &got) const {
    return worst_ratio(got, scores.view, [&](auto...) { return scores_error; });
  }
};

}  // namespace attend::test
