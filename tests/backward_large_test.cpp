// Gradients of queries whose scores are so large that lse cannot hold the logarithm of their sum: a bias that is the same
// for all keys of a query changes nothing but its lse, be it the lowest that a mask of padding has.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
struct Problem {
  int64_t d = 8, dv, nq, nk, heads = 2;
  Operand<T> q, k, v, bias, sinks, out, lse, d_out, d_lse;
  attend_attention_options options = options_with<attend_attention_options>(0);

  Problem(Random &random, int64_t queries, int64_t keys)
      : dv(random.pick<int64_t>({1, 8, 17})),
        nq(queries),
        nk(keys),
        q({d, nq, heads, 1}, {}),
        k({d, nk, 1, 1}, {}),
        v({dv, nk, 1, 1}, {}),
        bias({1, nq, heads, 1}, {}),
        sinks({heads, 1, 1, 1}, {}),
        out({dv, nq, heads, 1}, {}),
        lse({1, nq, heads, 1}, {}),
        d_out({dv, nq, heads, 1}, {}),
        d_lse({1, nq, heads, 1}, {}) {
    for (Operand<T> *o : {&v, &d_out, &d_lse}) o->fill(random);
    // Scores are multiples of 1/4 below 3, so that adding the bias is exact.
    for (Operand<T> *o : {&q, &k}) {
      o->each([&](T &x, auto...) { x = random.pick({T(-0.5), T(0), T(0.5)}); });
    }
    sinks.each([&](T &x, auto...) { x = random.pick({T(0.25), T(-1), T(1.5)}); });
    bias.fill_with(T(0));
    options.scale = 1;
    options.bias = bias.tensor();
    options.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_BOTTOM_RIGHT, ATTEND_CAUSAL_TOP_LEFT});
    if (random.one_in(2)) options.softcap = 1e30;  // none, but its code
  }
  // All gradients, side by side.
  std::vector<T> gradients(int32_t threads, bool gives_lse) {
    options.lse = lse.tensor();
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
    if (!gives_lse) options.lse = nullptr;
    Operand<T> d_q(q.shape(), {}), d_k(k.shape(), {}), d_v(v.shape(), {}), d_bias(bias.shape(), {}),
        d_sinks(sinks.shape(), {});
    attend_attention_backward_options o = options_with<attend_attention_backward_options>(threads);
    o.d_lse = d_lse.tensor();
    o.d_bias = d_bias.tensor();
    if (options.sinks != nullptr) o.d_sinks = d_sinks.tensor();
    ok(attend_attention_backward(q.tensor(), k.tensor(), v.tensor(), out.tensor(), d_out.tensor(), d_q.tensor(),
                                 d_k.tensor(), d_v.tensor(), &o, &options));
    std::vector<T> all;
    for (Operand<T> *g : {&d_q, &d_k, &d_v, &d_bias, &d_sinks}) {
      if (g == &d_sinks && options.sinks == nullptr) continue;
      const std::vector<T> some = g->values();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
};

template <class T>
void expect_near(const std::vector<T> &got, const std::vector<T> &want) {
  double worst = 0, most = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    most = std::max(most, std::fabs(static_cast<double>(want[i])));
    const double error = std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = error <= worst ? worst : std::isnan(error) ? HUGE_VAL : error;
  }
  CHECK(most > 0.1);
  CHECK(worst <= 200 * kUnit<T> * most);
}

}  // namespace

TEST_CASE_TEMPLATE("gradients where lse cannot hold the logarithm of the sum", T, float, double) {
  Random random(1701);
  const T kLow = sizeof(T) == 4 ? T(-262144) : T(-0x1p45);
  for (const auto &[nq, nk] : {std::pair<int64_t, int64_t>{1, 9}, {70, 300}, {150, 600}, {65, 2100}}) {
    Problem<T> p(random, nq, nk);
    const bool all = random.one_in(2);  // of the queries, and the sinks with them
    if (all) p.options.sinks = p.sinks.tensor();
    for_each_isa([&] {
      const std::vector<T> plain = p.gradients(1, true);
      const auto add = [&](T low) {
        p.bias.each([&](T &x, int64_t, int64_t i, auto...) { x += all || i % 3 == 1 ? low : T(0); });
        if (all) p.sinks.each([&](T &x, auto...) { x += low; });
      };
      for (const T low : {kLow, -kLow}) {
        add(low);
        const std::vector<T> got = p.gradients(1, true);
        expect_near(got, plain);
        CHECK(same_bits(got, p.gradients(3, false)));
        add(-low);
      }
    });
  }
}

TEST_CASE_TEMPLATE("a row whose keys are all under the lowest bias weighs them alike", T, float, double) {
  Random random(1702);
  for (const T low : {sizeof(T) == 4 ? T(-1e9) : T(-1e18), std::numeric_limits<T>::lowest()}) {
    Problem<T> p(random, 2, 300);
    p.options.flags = 0;
    p.bias.each([&](T &x, int64_t, int64_t i, auto...) { x = i == 1 ? low : T(0); });
    p.q.each([&](T &x, int64_t, int64_t i, auto...) { x = i == 0 ? T(0) : x; });
    for_each_isa([&] {
      const std::vector<T> all = p.gradients(1, true);
      const size_t before = static_cast<size_t>(p.d * (p.nq * p.heads + p.nk)), dv = static_cast<size_t>(p.dv);
      std::vector<T> means;
      for (size_t f = 0; f < dv; ++f) {  // the mean of all queries' d_out for every key
        double sum = 0;
        for (int64_t h = 0; h < p.heads; ++h)
          for (int64_t i = 0; i < p.nq; ++i)
            sum += static_cast<double>(p.d_out.at(static_cast<int64_t>(f), i, h, 0)) / static_cast<double>(p.nk);
        means.push_back(static_cast<T>(sum));
      }
      for (size_t j = 0; j < static_cast<size_t>(p.nk); ++j)
        for (size_t f = 0; f < dv; ++f)
          CHECK(std::fabs(static_cast<double>(all[before + j * dv + f] - means[f])) <= 16 * kUnit<T>);
    });
  }
}
