// attend_attention as the sentence "Exactly" of attend.h tells it, one query after the other, in scalars of T: results with
// fused multiply-add must agree in every bit. Only the exponential and the softcap of a score are the kernels' own.
#pragma once

#include "odd_tiles.hpp"
// after the backend
#include "kernels/attention/modifiers.hpp"
#include "support.hpp"

namespace attend::test {

// exp2((s - m) log2(e))
template <class T>
T weight_of(T s, T m) {
  return exp2_nonpositive(broadcast((s - m) * ExpConstants<T>::kLog2E)).lane[0];
}

// What is known of a query over some of its keys.
template <class T>
struct RunningSoftmax {
  T m = -std::numeric_limits<T>::infinity(), l = 0;
  std::vector<T> o;

  explicit RunningSoftmax(int64_t value_features) : o(static_cast<size_t>(value_features), T(0)) {}

  // Returns the factor of what was there before. (A sink has no o.)
  T fold(const RunningSoftmax &part) {
    const T top = std::max(m, part.m), shift = top == -std::numeric_limits<T>::infinity() ? T(0) : top;
    const T before = weight_of(m, shift), now = weight_of(part.m, shift);
    l = std::fma(l, before, part.l * now);
    for (size_t f = 0; f < part.o.size(); ++f) o[f] = std::fma(o[f], before, part.o[f] * now);
    m = top;
    return before;
  }
};

// The call of `spec` with spans of `span` keys.
template <class T>
class ContractModel {
 public:
  Operand<T> out, lse;

  ContractModel(Operand<T> &q, Operand<T> &k, Operand<T> &v, const reference::AttentionSpec<Wide<T>> &spec,
                int64_t span)
      : out({v.shape()[0], q.shape()[1], q.shape()[2], q.shape()[3]}, {}),
        lse({1, q.shape()[1], q.shape()[2], q.shape()[3]}, {}),
        q_(q),
        k_(k),
        v_(v),
        spec_(spec),
        span_(span),
        scale_(static_cast<T>(spec.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.shape()[0])) : spec.scale)) {
    lse.each([&](T &x, int64_t, int64_t i, int64_t h, int64_t b) { x = query(i, h, b); });
  }

 private:
  int64_t keys() const { return k_.shape()[1]; }
  int64_t kv_head(int64_t h) const { return h / (q_.shape()[2] / k_.shape()[2]); }

  bool sees(int64_t i, int64_t j, int64_t h, int64_t b) const {
    return spec_.visible(j, i, keys(), q_.shape()[1], b) && (!spec_.mask || spec_.mask(j, i, h, b)) &&
           (!spec_.bias || spec_.bias(j, i, h, b) != -std::numeric_limits<Wide<T>>::infinity());
  }

  T score(int64_t i, int64_t j, int64_t h, int64_t b) {
    T s = 0;
    for (int64_t f = 0; f < q_.shape()[0]; ++f) s = std::fma(scale_ * q_.at(f, i, h, b), k_.at(f, j, kv_head(h), b), s);
    if (spec_.softcap > 0) s = Softcap<T>(static_cast<T>(spec_.softcap))(broadcast(s)).lane[0];
    if (spec_.slopes != nullptr) {
      const int64_t ahead = i + spec_.offset(keys(), q_.shape()[1], b) - j;
      s = std::fma(-static_cast<T>(spec_.slopes[h]), static_cast<T>(ahead < 0 ? -ahead : ahead), s);
    }
    return spec_.bias ? s + static_cast<T>(spec_.bias(j, i, h, b)) : s;
  }

  // One chunk of keys.
  RunningSoftmax<T> chunk(int64_t begin, int64_t end, int64_t i, int64_t h, int64_t b) {
    RunningSoftmax<T> r(v_.shape()[0]);
    std::vector<std::pair<int64_t, T>> seen;
    for (int64_t j = begin; j < end; ++j) {
      if (!sees(i, j, h, b)) continue;
      seen.emplace_back(j, score(i, j, h, b));
      r.m = std::max(r.m, seen.back().second);
    }
    for (const auto &[j, s] : seen) {
      const T weight = weight_of(s, r.m);
      r.l += weight;
      for (size_t f = 0; f < r.o.size(); ++f) {
        r.o[f] = std::fma(v_.at(static_cast<int64_t>(f), j, kv_head(h), b), weight, r.o[f]);
      }
    }
    return r;
  }

  // Fills in `out`, returns lse.
  T query(int64_t i, int64_t h, int64_t b) {
    constexpr int64_t kChunk = 256;
    RunningSoftmax<T> whole(v_.shape()[0]), span = whole;
    const int64_t first = spec_.firsts != nullptr ? spec_.firsts[b] : 0;
    for (int64_t j = first; j < keys(); j += kChunk) {
      if ((j - first) % span_ == 0) {
        whole.fold(span);
        span = RunningSoftmax<T>(v_.shape()[0]);
      }
      span.fold(chunk(j, std::min(keys(), j + kChunk), i, h, b));
    }
    whole.fold(span);
    T factor = 1;
    if (spec_.sinks != nullptr) {
      RunningSoftmax<T> sink(0);
      sink.m = static_cast<T>(spec_.sinks[h]);
      sink.l = std::isinf(sink.m) ? T(0) : T(1);
      factor = whole.fold(sink);
    }
    factor *= whole.l == 0 ? T(0) : 1 / whole.l;
    for (int64_t f = 0; f < v_.shape()[0]; ++f) out.at(f, i, h, b) = whole.o[static_cast<size_t>(f)] * factor + T(0);
    const double m = static_cast<double>(whole.m), l = static_cast<double>(whole.l);
    return static_cast<T>(l == 0 ? -HUGE_VAL : m + std::log(l));
  }

  Operand<T> &q_, &k_, &v_;
  const reference::AttentionSpec<Wide<T>> &spec_;
  int64_t span_;
  T scale_;
};

}  // namespace attend::test
