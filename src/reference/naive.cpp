// The formulas of attend.h, one loop per index and nothing else. If this file and the documentation can be read side by
// side, the tests that compare with it mean something; so no loop here is reordered, merged or blocked for speed.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "reference.hpp"

namespace attend::reference::naive {

namespace {

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// A NaN counts as the greatest of all: x > m is false for it on either side, and a maximum that forgot a NaN would let
// a column of NaN and -inf pass for a column of -inf.
template <class T>
T maximum(const std::vector<T> &x) {
  T m = kMinusInfinity<T>;
  for (const T value : x) {
    if (value > m || std::isnan(value)) m = value;
  }
  return m;
}

// p_i = exp(x_i - m) / sum_j exp(x_j - m) of one column. A column of nothing but -inf (or of nothing at all) has no
// weights; the formula would give exp(-inf + inf) = NaN there. For m = +inf that NaN is wanted and comes by itself.
template <class T>
struct ColumnSoftmax {
  std::vector<T> p;
  T m, sum = 0;

  explicit ColumnSoftmax(const std::vector<T> &x) : p(x.size(), T(0)), m(maximum(x)) {
    if (m == kMinusInfinity<T>) return;
    for (std::size_t i = 0; i < x.size(); ++i) p[i] = std::exp(x[i] - m);
    for (const T e : p) sum += e;
    for (T &e : p) e /= sum;
  }
  T log_sum_exp() const { return m == kMinusInfinity<T> ? m : m + std::log(sum); }
};

}  // namespace

// One sum per element, in order of k and in the type itself. The library cuts k into chunks and fuses its
// multiply-adds, so its last bits differ: comparisons need a bound, or an oracle in a wider type.
template <class T>
void matmul(double alpha, View<T> a, View<T> b, double beta, View<T> c, View<T> *bias) {
  const T alpha_t = static_cast<T>(alpha), beta_t = static_cast<T>(beta);
  const int64_t depth = a.shape[1];
  for (int64_t batch = 0; batch < c.shape[3]; ++batch) {
    for (int64_t h = 0; h < c.shape[2]; ++h) {
      for (int64_t j = 0; j < c.shape[1]; ++j) {
        for (int64_t i = 0; i < c.shape[0]; ++i) {
          // What must not be read is not multiplied by 0 either: 0 * NaN is NaN.
          T result = bias ? bias->at(i, j, h, batch) : T(0);
          if (beta_t != 0) result += beta_t * c.at(i, j, h, batch);
          if (alpha_t != 0 && depth > 0) {
            T sum = 0;
            for (int64_t k = 0; k < depth; ++k) sum += a.at(i, k, h, batch) * b.at(k, j, h, batch);
            result += alpha_t * sum;
          }
          c.at(i, j, h, batch) = result;
        }
      }
    }
  }
}

// Equation 12.5 of the book in its max-shifted form. Weights too small for a normal number are left as exp gives them,
// where the library makes them exactly 0: the two differ by less than the smallest normal number.
template <class T>
void softmax(View<T> x, View<T> y, double scale, bool log, View<T> *lse) {
  const T scale_t = scale == 0 ? T(1) : static_cast<T>(scale);
  std::vector<T> column(static_cast<std::size_t>(x.shape[0]));
  for (int64_t b = 0; b < x.shape[3]; ++b) {
    for (int64_t h = 0; h < x.shape[2]; ++h) {
      for (int64_t j = 0; j < x.shape[1]; ++j) {
        // The whole column is read before any of it is written: y may be x.
        for (std::size_t i = 0; i < column.size(); ++i) column[i] = scale_t * x.at(static_cast<int64_t>(i), j, h, b);
        const ColumnSoftmax<T> result(column);
        for (std::size_t i = 0; i < column.size(); ++i) {
          T &target = y.at(static_cast<int64_t>(i), j, h, b);
          if (!log) {
            target = result.p[i];
          } else if (result.m == kMinusInfinity<T>) {
            target = kMinusInfinity<T>;
          } else {
            // Not x - (m + log sum): m may be large and the difference small, so it is taken first.
            target = (column[i] - result.m) - std::log(result.sum);
          }
        }
        if (lse) lse->at(0, j, h, b) = result.log_sum_exp();
      }
    }
  }
}

// By the chain rule: of x_j, p_j (delta_ij - p_i) reaches y_i, delta_ij - p_i its logarithm, and p_j lse.
template <class T>
void softmax_backward(View<T> y, View<T> d_y, View<T> d_x, double scale, bool log, View<T> *d_lse, bool accumulates) {
  const T scale_t = scale == 0 ? T(1) : static_cast<T>(scale), masked = log ? kMinusInfinity<T> : T(0);
  for (int64_t b = 0; b < y.shape[3]; ++b) {
    for (int64_t h = 0; h < y.shape[2]; ++h) {
      for (int64_t j = 0; j < y.shape[1]; ++j) {
        T sum = d_lse ? -d_lse->at(0, j, h, b) : T(0);
        for (int64_t i = 0; i < y.shape[0]; ++i) {
          if (y.at(i, j, h, b) != masked) sum += (log ? T(1) : y.at(i, j, h, b)) * d_y.at(i, j, h, b);
        }
        for (int64_t i = 0; i < y.shape[0]; ++i) {
          const T of_y = y.at(i, j, h, b), of_d = d_y.at(i, j, h, b), before = accumulates ? d_x.at(i, j, h, b) : T(0);
          const T slope = log ? of_d - std::exp(of_y) * sum : of_y * (of_d - sum);
          d_x.at(i, j, h, b) = of_y == masked ? before : before + scale_t * slope;
        }
      }
    }
  }
}

// One query after the other, as in the notebook: scores with every key, softmax of that list, weighted sum of values.
template <class T>
void attention(View<T> q, View<T> k, View<T> v, View<T> out, const AttentionSpec<T> &spec) {
  const int64_t features = q.shape[0], queries = out.shape[1], keys = k.shape[1];
  const int64_t heads = out.shape[2], key_heads = k.shape[2], batches = out.shape[3];
  const T scale = spec.scale_for(features);

  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      // Grouped queries: neighbouring query heads share a key and value head.
      const int64_t key_head = h / (heads / key_heads);
      for (int64_t i = 0; i < queries; ++i) {
        // s = scale * K^T q for every key, softcapped, and with ALiBi and bias for the keys that this query sees.
        // Invisible keys that exist get a score too, NaN perhaps, because ATTEND_SCORES_SCALED reports it; it goes no
        // further.
        std::vector<T> scaled;
        std::vector<int64_t> visible_keys;
        std::vector<T> visible_scores;
        for (int64_t j = 0; j < keys; ++j) {
          T dot = 0;
          for (int64_t d = 0; d < features; ++d) dot += k.at(d, j, key_head, b) * q.at(d, i, h, b);
          T s = scale * dot;
          const T cap = static_cast<T>(spec.softcap);
          const T capped = cap > 0 ? cap * std::tanh(s / cap) : s;
          scaled.push_back(!spec.exists(j, b) ? kMinusInfinity<T> : spec.scores_stage == 0 ? s : capped);
          if (!spec.visible(j, i, keys, queries, b) || (spec.mask && !spec.mask(j, i, h, b))) continue;
          s = capped;
          if (spec.slopes) {
            const int64_t position = i + spec.offset(keys, queries, b);
            s -= spec.slopes[h] * static_cast<T>(j < position ? position - j : j - position);
          }
          if (spec.bias) {
            const T bias = spec.bias(j, i, h, b);
            if (bias == kMinusInfinity<T>) continue;
            s += bias;
          }
          visible_keys.push_back(j);
          visible_scores.push_back(s);
        }
        // A sink is one score more, whose value is 0: the last one here.
        const bool sink = spec.sinks && spec.sinks[h] != kMinusInfinity<T>;
        if (sink) visible_scores.push_back(spec.sinks[h]);

        // p = softmax(s), o = V p. An invisible key is left out, not given the weight 0, so its values cannot matter.
        const ColumnSoftmax<T> softmax_of_visible(visible_scores);
        for (int64_t d = 0; d < out.shape[0]; ++d) {
          T sum = 0;
          for (std::size_t n = 0; n < visible_keys.size(); ++n) {
            sum += v.at(d, visible_keys[n], key_head, b) * softmax_of_visible.p[n];
          }
          out.at(d, i, h, b) = sum;
        }

        // Without a visible key the loops above were empty: o = 0 already, and log_sum_exp is -inf.
        if (spec.lse) spec.lse->at(0, i, h, b) = softmax_of_visible.log_sum_exp();
        if (spec.scores) {
          const bool every_key = spec.scores_stage < 2;  // ATTEND_SCORES_SCALED and SOFTCAPPED
          const bool probabilities = spec.scores_stage == 3;
          for (int64_t j = 0; j < keys; ++j) {
            const T hidden = probabilities ? T(0) : kMinusInfinity<T>;
            spec.scores->at(j, i, h, b) = every_key ? scaled[static_cast<std::size_t>(j)] : hidden;
          }
          for (std::size_t n = 0; n < visible_keys.size() && !every_key; ++n) {
            spec.scores->at(visible_keys[n], i, h, b) = probabilities ? softmax_of_visible.p[n] : visible_scores[n];
          }
        }
      }
    }
  }
}

// Equations 12.2, 12.4 and 12.6 to 12.8 of the book, with any number of heads.
template <class T>
void self_attention(View<T> x, const Weights<T> &w, View<T> out, const AttentionSpec<T> &spec) {
  const int64_t items = x.shape[1], batches = out.shape[3];
  const int64_t heads = w.w_q.shape[2], key_heads = w.w_k.shape[2];
  const int64_t features = w.w_q.shape[0], value_features = w.w_v.shape[0];

  // Q = b_q + W_q X, K = b_k + W_k X, V = b_v + W_v X; X broadcasts over the heads, the weights over the batch.
  Buffer<T> q(features, items, heads, batches), k(features, items, key_heads, batches);
  Buffer<T> v(value_features, items, key_heads, batches);
  matmul(1, w.w_q, x, 0, q.view, w.b_q);
  matmul(1, w.w_k, x, 0, k.view, w.b_k);
  matmul(1, w.w_v, x, 0, v.view, w.b_v);
  if (!w.w_o) {
    attention(q.view, k.view, v.view, out, spec);
    return;
  }

  // out = b_o + sum over heads of W_o O: the same as one matrix W_o times the heads' outputs stacked on each other.
  Buffer<T> o(value_features, items, heads, batches);
  attention(q.view, k.view, v.view, o.view, spec);
  for (int64_t b = 0; b < batches; ++b) {
    for (int64_t n = 0; n < items; ++n) {
      for (int64_t i = 0; i < out.shape[0]; ++i) {
        T sum = w.b_o ? w.b_o->at(i, 0) : T(0);
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t d = 0; d < value_features; ++d) sum += w.w_o->at(i, d, h) * o.view.at(d, n, h, b);
        }
        out.at(i, n, 0, b) = sum;
      }
    }
  }
}

#define ATTEND_REFERENCE_INSTANTIATE(T)                                                        \
  template void matmul<T>(double, View<T>, View<T>, double, View<T>, View<T> *);               \
  template void softmax<T>(View<T>, View<T>, double, bool, View<T> *);                         \
  template void softmax_backward<T>(View<T>, View<T>, View<T>, double, bool, View<T> *, bool); \
  template void attention<T>(View<T>, View<T>, View<T>, View<T>, const AttentionSpec<T> &);    \
  template void self_attention<T>(View<T>, const Weights<T> &, View<T>, const AttentionSpec<T> &);

ATTEND_REFERENCE_INSTANTIATE(float)
ATTEND_REFERENCE_INSTANTIATE(double)
ATTEND_REFERENCE_INSTANTIATE(long double)

#undef ATTEND_REFERENCE_INSTANTIATE

}  // namespace attend::reference::naive
