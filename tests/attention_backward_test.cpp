// Gradients of attention in random combinations of all options, against the formula in a wider type; and their bits over
// threads, instruction sets, and with and without lse.
#include "backward_model.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// One call, every gradient over what `start` holds, or poison.
template <class T>
struct Backward {
  Operand<T> q, k, v, bias, sinks;

  Backward(Problem<T> &p, Random &random, bool accumulates)
      : q(p.q.shape(), Operand<T>::random_layout(random)),
        k(p.k.shape(), Operand<T>::random_layout(random)),
        v(p.v.shape(), Operand<T>::random_layout(random)),
        bias(p.bias.shape(), Operand<T>::random_layout(random)),
        sinks({p.heads, 1, 1, 1}, {}) {
    each([&](Operand<T> &o) {
      o.fill(random);
      if (!accumulates) o.fill_with(Problem<T>::kNan);
    });
  }
  template <class F>
  void each(const F &f) {
    for (Operand<T> *o : {&q, &k, &v, &bias, &sinks}) f(*o);
  }
  std::vector<T> values() {
    std::vector<T> all;
    each([&](Operand<T> &o) {
      const std::vector<T> some = o.values();
      all.insert(all.end(), some.begin(), some.end());
    });
    return all;
  }
};

struct Gradients {
  attend_attention_backward_options options = options_with<attend_attention_backward_options>(1);
  bool gives_lse = true;
  int wanted = 31;  // a bit each, in the order of Backward::each
};

template <class T>
bool run(Problem<T> &p, Operand<T> &out, Operand<T> &lse, Operand<T> &d_out, Gradients how, Backward<T> *to) {
  attend_attention_options o = p.options;
  o.threads = 0;
  o.scores = nullptr;
  o.scores_stage = 0;
  o.lse = how.gives_lse ? lse.tensor() : nullptr;
  const auto wanted = [&how](int i, Operand<T> &x) { return how.wanted >> i & 1 ? x.tensor() : nullptr; };
  if (p.options.bias != nullptr) how.options.d_bias = wanted(3, to->bias);
  if (p.options.sinks != nullptr) how.options.d_sinks = wanted(4, to->sinks);
  const bool good =
      ok(attend_attention_backward(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), d_out.tensor(),
                                   wanted(0, to->q), wanted(1, to->k), wanted(2, to->v), &how.options, &o));
  to->each([](Operand<T> &x) { CHECK(x.gaps_untouched()); });
  return good;
}

template <class T>
void forward(Problem<T> &p, Operand<T> *out, Operand<T> *lse) {
  attend_attention_options o = p.options;
  o.lse = lse->tensor();
  o.scores = nullptr;
  ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), out->tensor(), &o));
}

template <class T>
double check(Problem<T> &p, Random &random) {
  Operand<T> d_out(p.out.shape(), Operand<T>::random_input_layout(random, 4)),
      d_lse(p.lse.shape(), Operand<T>::random_input_layout(random, 4)), out = p.out, lse = p.lse;
  d_out.fill(random);
  d_lse.fill(random);
  Gradients how;
  if (random.one_in(2)) how.options.d_lse = d_lse.tensor();
  const bool accumulates = random.one_in(3);
  if (accumulates) how.options.flags = ATTEND_ACCUMULATE;
  BackwardModel<T> model(p, d_out, how.options.d_lse != nullptr ? &d_lse : nullptr);
  const Backward<T> before(p, random, accumulates);
  double worst = 0;
  std::vector<T> first;
  for_each_isa([&] {
    forward(p, &out, &lse);
    Backward<T> got = before, again = before;
    if (!run(p, out, lse, d_out, how, &got)) return;
    Backward<T> start = before;
    if (!accumulates) start.each([](Operand<T> &o) { o.fill_with(T(0)); });
    const auto compare = [&](const char *name, Operand<T> &o, Operand<T> &at, const auto &want, const auto &bound,
                             Wide<T> additions = 1) {
      INFO("gradient of " << std::string(name));
      const double ratio = BackwardModel<T>::worst(o, at, want, bound, additions);
      CHECK(ratio <= 1);
      worst = std::max(worst, ratio);
    };
    compare("q", got.q, start.q, model.sum.q, model.bound.q);
    compare("k", got.k, start.k, model.sum.k, model.bound.k);
    compare("v", got.v, start.v, model.sum.v, model.bound.v);
    if (p.options.bias != nullptr)
      compare("bias", got.bias, start.bias, model.sum.bias, model.bound.bias, model.terms_of_bias());
    if (p.options.sinks != nullptr) compare("sinks", got.sinks, start.sinks, model.sum.sinks, model.bound.sinks);
    how.gives_lse = random.one_in(2);
    how.options.threads = static_cast<int32_t>(random.in(1, 5));
    run(p, out, lse, d_out, how, &again);
    CHECK(same_bits(again.values(), got.values()));
    // Some of them: their bits, and nothing else.
    Backward<T> some = before;
    how.wanted = static_cast<int>(random.one_in(2) ? random.pick({1, 2, 4, 6}) : random.in(0, 31));
    run(p, out, lse, d_out, how, &some);
    Operand<T> *const alone[] = {&some.q, &some.k, &some.v, &some.bias, &some.sinks}, *const together[] = {
                                                                                          &got.q, &got.k, &got.v,
                                                                                          &got.bias, &got.sinks};
    Backward<T> untouched = before;
    Operand<T> *const start_of[] = {&untouched.q, &untouched.k, &untouched.v, &untouched.bias, &untouched.sinks};
    for (int i = 0; i < 5; ++i) {
      CHECK(same_bits(alone[i]->values(), (how.wanted >> i & 1 ? together : start_of)[i]->values()));
    }
    how.wanted = 31;
    const std::string isa = attend_isa();
    if (isa != "avx512" && isa != "avx2") return;
    if (!first.empty()) CHECK(same_bits(first, got.values()));
    first = got.values();
  });
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("gradients: every combination of features", T, float, double) {
  const int count = rounds(120, 4000);
  double worst = 0;
  for (int round = 0; round < count; ++round) {
    Random random(static_cast<unsigned>(round) * 2 + (sizeof(T) == 4 ? 500001 : 500002));
    Problem<T> p(random, random.one_in(2) ? random.in(1, 70) : random.in(200, 900),
                 random.one_in(2) ? 0 : random.in(1, 150));
    if (random.one_in(2)) p.poison_hidden(random);
    INFO("round " << round << p.description());
    worst = std::max(worst, check(p, random));
  }
  MESSAGE("largest error over its bound: " << worst);
}
