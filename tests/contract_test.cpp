// What attend.h says that attention computes "exactly", proved by a scalar model of that sentence: every table with fused
// multiply-add must give its bits, in any combination of features, up to several spans of 16384 keys.
#include "attention_problem.hpp"
#include "contract_model.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr int64_t kSpan = 16384;
#if defined(ATTEND_TEST_SANITIZED)
constexpr int kRounds = 20;
#else
constexpr int kRounds = 100;
#endif

// Runs f for every table whose results the model knows.
template <class F>
void for_each_fma_table(const F &f) {
  for_each_table([&](const std::string &, const std::string &group) {
    if (group == "FMA") f();
  });
}

struct Long {
  int64_t d, dv, nq, nk, heads, kv_heads;
  uint32_t flags;
  int64_t left;
  bool sink, alibi, biased;
};

}  // namespace

TEST_CASE_TEMPLATE("the contract in scalars: every combination of features", T, float, double) {
  Random random(sizeof(T) == 4 ? 801 : 802);
  for (int round = 0; round < kRounds; ++round) {
    Problem<T> p(random);
    INFO("round " << round << p.description());
    if (random.one_in(2)) p.poison_hidden(random);
    ContractModel<T> model(p.q, p.k, p.v, p.spec, kSpan);
    for_each_fma_table([&] {
      p.options.threads = static_cast<int32_t>(random.in(1, 4));
      Results<T> got(p);
      CHECK(same_bits(got.out.values(), model.out.values()));
      CHECK(same_bits(got.lse.values(), model.lse.values()));
      CHECK(same_bits(output_alone(p).values(), model.out.values()));
    });
  }
}

TEST_CASE_TEMPLATE("the contract in scalars: several spans of 16384 keys", T, float, double) {
  Random random(sizeof(T) == 4 ? 811 : 812);
  // Queries alone, of grouped heads, too many for their keys to be shared out; windows from within a span on; a key
  // before, at and behind the end of a span.
  const Long cases[] = {{4, 4, 1, 2 * kSpan + 500, 1, 1, 0, -1, false, false, false},
                        {3, 5, 2, 2 * kSpan + 1, 4, 2, ATTEND_CAUSAL_BOTTOM_RIGHT, -1, true, false, false},
                        {8, 8, 4, kSpan + 3, 2, 1, ATTEND_CAUSAL_BOTTOM_RIGHT, -1, false, false, true},
                        {2, 3, 20, kSpan + 10, 1, 1, ATTEND_CAUSAL_BOTTOM_RIGHT, -1, true, true, false},
                        {2, 1, 17, 2 * kSpan + 700, 1, 1, ATTEND_CAUSAL_BOTTOM_RIGHT, kSpan + 290, false, true, false},
                        {5, 2, 3, kSpan, 1, 1, 0, -1, true, false, true}};
  for (const Long &x : cases) {
    Operand<T> q({x.d, x.nq, x.heads, 1}, {}), k({x.d, x.nk, x.kv_heads, 1}, {}), v({x.dv, x.nk, x.kv_heads, 1}, {}),
        bias({x.nk, 1, 1, 1}, {}), slopes({x.heads, 1, 1, 1}, {}), sinks({x.heads, 1, 1, 1}, {});
    for (Operand<T> *o : {&q, &k, &v, &bias, &sinks}) o->fill(random, 2);
    slopes.fill(random, 1e-4);
    auto options = options_with<attend_attention_options>(1);
    reference::AttentionSpec<Wide<T>> spec;
    options.flags = x.flags;
    if (x.flags != 0) spec.causal = reference::Causal::bottom_right;
    if (x.left >= 0) {
      options.flags |= ATTEND_WINDOW;
      options.window_left = spec.left = x.left;
      options.window_right = -1;
      spec.window = true;
    }
    std::vector<Wide<T>> wide_slopes, wide_sinks;
    slopes.each([&](T &s, auto...) { wide_slopes.push_back(s); });
    sinks.each([&](T &s, auto...) { wide_sinks.push_back(s); });
    if (x.alibi) options.alibi_slopes = slopes.tensor(), spec.slopes = wide_slopes.data();
    if (x.sink) options.sinks = sinks.tensor(), spec.sinks = wide_sinks.data();
    if (x.biased) {
      options.bias = bias.tensor();
      spec.bias = [&](int64_t j, auto...) { return Wide<T>(bias.at(j, 0)); };
    }
    ContractModel<T> model(q, k, v, spec, kSpan);
    for_each_fma_table([&] {
      for (const int32_t threads : {1, 2, 3}) {
        INFO("Nq " << x.nq << " Nk " << x.nk << " H " << x.heads << " flags " << options.flags << " threads "
                   << threads);
        options.threads = threads;
        Operand<T> out = model.out, lse = model.lse;
        for (Operand<T> *o : {&out, &lse}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
        options.lse = lse.tensor();
        ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
        CHECK(out.same_memory(model.out));
        CHECK(lse.same_memory(model.lse));
      }
    });
  }
}
