// What the formulas of attend_attention_backward say, in a type so wide that its rounding does not count, and how far an
// implementation in T may be from it.
#pragma once

#include "attention_problem.hpp"

namespace attend::test {

template <class T>
struct BackwardModel {
  using W = Wide<T>;
  Problem<T> &p;
  Operand<T> &d_out, *d_lse;
  // In the order of Operand::each.
  struct Sums {
    std::vector<W> q, k, v, bias, sinks;
  };
  Sums sum, bound;

  BackwardModel(Problem<T> &problem, Operand<T> &of_out, Operand<T> *of_lse)
      : p(problem), d_out(of_out), d_lse(of_lse) {
    const auto size = [](const Operand<T> &o) {
      const Shape &s = o.shape();
      return static_cast<size_t>(s[0] * s[1] * s[2] * s[3]);
    };
    for (Sums *s : {&sum, &bound}) {
      s->q.assign(size(p.q), 0);
      s->k.assign(size(p.k), 0);
      s->v.assign(size(p.v), 0);
      s->bias.assign(size(p.bias), 0);
      s->sinks.assign(static_cast<size_t>(p.heads), 0);
    }
    for (int64_t b = 0; b < p.batch; ++b)
      for (int64_t h = 0; h < p.heads; ++h)
        for (int64_t i = 0; i < p.nq; ++i) add_query(i, h, b);
  }

  // Index in Operand::each's order, extents of 1 broadcasting.
  static size_t at(const Operand<T> &o, int64_t i, int64_t j, int64_t h, int64_t b) {
    const Shape &s = o.shape();
    const auto in = [&](size_t d, int64_t n) { return s[d] == 1 ? 0 : n; };
    return static_cast<size_t>(((in(3, b) * s[2] + in(2, h)) * s[1] + in(1, j)) * s[0] + in(0, i));
  }

  // Numbers that are added for one of the bias, one after the other.
  W terms_of_bias() const {
    const Shape &s = p.bias.shape();
    const int64_t keys = s[0] == 1 ? p.nk : 1, queries = s[1] == 1 ? p.nq : 1;
    return static_cast<W>(keys * queries * (s[2] == 1 ? p.heads : 1) * (s[3] == 1 ? p.batch : 1));
  }

  // One query's part of all sums.
  void add_query(int64_t i, int64_t h, int64_t b) {
    const int64_t kv = h / (p.heads / p.kv_heads);
    const W scale = p.spec.scale_for(p.d), cap = static_cast<W>(p.spec.softcap),
            inf = std::numeric_limits<W>::infinity();
    struct Key {
      int64_t j;
      W s, slope, error, dp, dp_size;
    };
    std::vector<Key> keys;
    W most = p.spec.sinks != nullptr ? p.spec.sinks[h] : -inf;
    for (int64_t j = 0; j < p.nk; ++j) {
      if (!p.spec.visible(j, i, p.nk, p.nq, b)) continue;
      if (p.spec.mask && !p.spec.mask(j, i, h, b)) continue;
      const W bias = p.spec.bias ? p.spec.bias(j, i, h, b) : W(0);
      if (bias == -inf) continue;
      Key key = {j, 0, 1, 0, 0, 0};
      W size = 0;
      for (int64_t f = 0; f < p.d; ++f) {
        const W product = scale * W(p.q.at(f, i, h, b)) * W(p.k.at(f, j, kv, b));
        key.s += product;
        size += std::fabs(product);
      }
      key.error = size * static_cast<W>(p.d + 4);
      if (cap > 0) {
        const W t = std::tanh(key.s / cap);
        key.s = cap * t;
        key.slope = 1 - t * t;
      }
      if (p.spec.slopes != nullptr) {
        const auto distance = static_cast<W>(std::llabs(i + p.spec.offset(p.nk, p.nq, b) - j));
        key.s -= p.spec.slopes[h] * distance;
        key.error += p.spec.slopes[h] * distance * 2;
      }
      key.s += bias;
      key.error += std::fabs(bias) + std::fabs(key.s);
      for (int64_t f = 0; f < p.dv; ++f) {
        const W product = W(d_out.at(f, i, h, b)) * W(p.v.at(f, j, kv, b));
        key.dp += product;
        key.dp_size += std::fabs(product);
      }
      most = std::max(most, key.s);
      keys.push_back(key);
    }
    if (most == -inf) return;
    W sum_of_weights = p.spec.sinks != nullptr ? std::exp(p.spec.sinks[h] - most) : W(0);
    for (const Key &key : keys) sum_of_weights += std::exp(key.s - most);
    const W lse = most + std::log(sum_of_weights);
    W delta = d_lse != nullptr ? -W(d_lse->at(0, i, h, b)) : W(0), delta_size = std::fabs(delta);
    W error_of_lse = 0, dropped = 0;  // what weights that may be taken as 0 leave out of delta
    for (const Key &key : keys) {
      const W weight = std::exp(key.s - lse);
      delta += weight * key.dp;
      delta_size += weight * key.dp_size;
      error_of_lse = std::max(error_of_lse, key.error);
      dropped += key.dp_size * 4 * static_cast<W>(std::numeric_limits<T>::min());
    }
    const W unit = static_cast<W>(kUnit<T>);
    for (const Key &key : keys) {
      const W weight = std::exp(key.s - lse), bias_gradient = weight * (key.dp - delta), ds = bias_gradient * key.slope;
      // Relative errors of the weight, and of what follows it.
      const W error = unit * (key.error + error_of_lse + 8 * std::fabs(lse) + 64 + static_cast<W>(p.dv));
      // A weight so small that it may be taken as 0 has an absolute one.
      const W weight_error = weight * error + 4 * static_cast<W>(std::numeric_limits<T>::min());
      const W ds_error = (key.dp_size + delta_size) * weight_error;
      for (int64_t f = 0; f < p.dv; ++f) {
        const size_t n = at(p.v, f, key.j, kv, b);
        const W d = W(d_out.at(f, i, h, b));
        sum.v[n] += weight * d;
        bound.v[n] += std::fabs(d) * weight_error;
      }
      for (int64_t f = 0; f < p.d; ++f) {
        const W q = W(p.q.at(f, i, h, b)), k = W(p.k.at(f, key.j, kv, b));
        const size_t nq = at(p.q, f, i, h, b), nk = at(p.k, f, key.j, kv, b);
        sum.q[nq] += scale * ds * k;
        bound.q[nq] += std::fabs(scale * k) * ds_error;
        sum.k[nk] += scale * ds * q;
        bound.k[nk] += std::fabs(scale * q) * ds_error;
      }
      const size_t n = at(p.bias, key.j, i, h, b);
      sum.bias[n] += bias_gradient;
      bound.bias[n] += 2 * ds_error + unit * terms_of_bias() * std::fabs(bias_gradient);
    }
    if (p.spec.sinks == nullptr) return;
    const W weight = std::exp(p.spec.sinks[h] - lse);
    sum.sinks[static_cast<size_t>(h)] -= weight * delta;
    bound.sinks[static_cast<size_t>(h)] +=
        2 * weight * (delta_size * unit * (error_of_lse + 8 * std::fabs(lse) + 64 + static_cast<W>(p.dv)) + dropped);
  }

  // The largest |got - before - want| over its bound; `additions`: numbers that were added to `before` one by one.
  static double worst(Operand<T> &got, Operand<T> &before, const std::vector<W> &want, const std::vector<W> &bounds,
                      W additions = 1) {
    double worst = 0;
    size_t n = 0;
    got.each([&](T &x, int64_t i, int64_t j, int64_t h, int64_t b) {
      const W start = W(before.at(i, j, h, b)), w = start + want[n];
      const W room = bounds[n] + static_cast<W>(kUnit<T>) * (3 + additions) * (std::fabs(start) + std::fabs(want[n]));
      const W error = std::fabs(W(x) - w);
      const double ratio = error == 0 ? 0 : static_cast<double>(error / room);
      if (!(ratio <= worst)) worst = std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
      ++n;
    });
    return worst;
  }
};

}  // namespace attend::test
