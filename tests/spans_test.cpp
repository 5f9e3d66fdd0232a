// Attention over several spans of keys, on a table whose spans are 512 keys instead of 16384: the formula in any
// combination of features, and the same bits whatever is computed beside a query.
#include "attention_call.hpp"
#include "attention_problem.hpp"
#include "contract_model.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr int64_t kSpan = 512;
#if defined(ATTEND_TEST_SANITIZED)
constexpr int kRounds = 5;
#else
constexpr int kRounds = 30;
#endif

// Uses the table with short spans while it lives.
struct ShortSpans {
  ShortSpans() { set_active_kernels(&short_spans()); }
  ~ShortSpans() { set_active_kernels(nullptr); }
  ShortSpans(const ShortSpans &) = delete;
  ShortSpans &operator=(const ShortSpans &) = delete;
};

// Keys around the ends of chunks and spans.
int64_t some_keys(Random &random) {
  return random.one_in(2) ? random.in(300, 2200) : random.pick<int64_t>({511, 512, 513, 767, 1024, 1025, 1536, 2049});
}

}  // namespace

TEST_CASE_TEMPLATE("spans: every combination of features, against the formula and the contract", T, float, double) {
  Random random(sizeof(T) == 4 ? 821 : 822);
  const ShortSpans table;
  double worst = 0;
  for (int round = 0; round < kRounds; ++round) {
    Problem<T> p(random, some_keys(random));
    INFO("round " << round << p.description());
    if (p.spec.scores_stage >= 2) p.poison_hidden(random);
    const Expected<T> want = expected_of(p);
    Results<T> got(p);
    worst = std::max(worst, got.compare(want));
    ContractModel<T> model(p.q, p.k, p.v, p.spec, kSpan);
    CHECK(same_bits(got.out.values(), model.out.values()));
    CHECK(same_bits(got.lse.values(), model.lse.values()));
    for (const int32_t threads : {1, static_cast<int32_t>(random.in(2, 5))}) {
      p.options.threads = threads;
      CHECK(same_bits(output_alone(p).values(), model.out.values()));
    }
  }
  MESSAGE("largest error over its bound: " << worst);
}

// Enough work for five threads, and fewer blocks than threads. Each head has a sink of its own.
TEST_CASE_TEMPLATE("spans: keys that threads share, in one round and in several", T, float, double) {
  Random random(sizeof(T) == 4 ? 831 : 832);
  const ShortSpans table;
  for (const int64_t dv : {40, 700}) {
    for (const int64_t nk : {1024, 2200, 9000}) {
      AttentionCall<T> x(random, 60, dv, 7, nk, 2);
      Operand<T> sinks({2, 1, 1, 1}, {});
      sinks.at(0, 0) = 5, sinks.at(1, 0) = 7;
      x.options.sinks = sinks.tensor();
      // (The first chunk that a query sees is not the first of a span.)
      x.options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_WINDOW;
      x.options.window_left = nk - random.in(1, 800);
      x.options.window_right = -1;
      if (!x.run()) return;
      AttentionCall<T> serial = x;
      for (const int32_t threads : {2, 3, 4, 5}) {
        INFO("Dv " << dv << " Nk " << nk << " left " << x.options.window_left << " threads " << threads);
        x.options.threads = threads;
        CHECK(x.run());
        CHECK(x.same_results(serial));
      }
    }
  }
}

TEST_CASE_TEMPLATE("spans: grouped queries that share keys have the bits of each head alone", T, float, double) {
  Random random(sizeof(T) == 4 ? 841 : 842);
  const ShortSpans table;
  for (const int64_t nq : {1, 3, 16, 40}) {
    const int64_t heads = 4, nk = some_keys(random);
    AttentionCall<T> all(random, 9, 7, nq, nk, heads);
    Operand<T> slopes({heads, 1, 1, 1}, {}), sinks({heads, 1, 1, 1}, {});
    slopes.fill(random, 0.01);
    sinks.fill(random, 3);
    all.options.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_BOTTOM_RIGHT, ATTEND_CAUSAL_TOP_LEFT});
    if (all.options.flags == ATTEND_CAUSAL_TOP_LEFT) all.options.query_offset = nk / 2;
    all.options.alibi_slopes = slopes.tensor();
    all.options.sinks = sinks.tensor();
    INFO("Nq " << nq << " Nk " << nk << " flags " << all.options.flags);
    if (!all.run()) return;
    for (int64_t h = 0; h < heads; ++h) {
      AttentionCall<T> one(random, 9, 7, nq, nk);
      Operand<T> slope({1, 1, 1, 1}, {}), sink({1, 1, 1, 1}, {});
      slope.at(0, 0) = slopes.at(h, 0);
      sink.at(0, 0) = sinks.at(h, 0);
      one.options = all.options;
      one.options.alibi_slopes = slope.tensor();
      one.options.sinks = sink.tensor();
      one.q.each([&](T &x, int64_t f, int64_t i, auto...) { x = all.q.at(f, i, h); });
      if (!one.run(all.k.tensor(), all.v.tensor())) return;
      CHECK(is_part(one.out, all.out, 0, h));
      CHECK(is_part(one.lse, all.lse, 0, h));
    }
  }
}

TEST_CASE_TEMPLATE("spans: a query alone has the bits it has beside others", T, float, double) {
  Random random(sizeof(T) == 4 ? 851 : 852);
  const ShortSpans table;
  for (int round = 0; round < 8; ++round) {
    const int64_t nq = 70, nk = 1200, offset = random.pick<int64_t>({0, 470, 990, nk - nq});
    AttentionCall<T> all(random, 6, 10, nq, nk);
    all.options.flags = ATTEND_CAUSAL_TOP_LEFT;
    all.options.query_offset = offset;
    if (random.one_in(2)) {
      all.options.flags |= ATTEND_WINDOW;
      all.options.window_left = random.in(0, 600);
      all.options.window_right = -1;
    }
    if (!all.run()) return;
    for (const int64_t i :
         {int64_t{0}, int64_t{1}, int64_t{15}, int64_t{16}, random.in(17, 40), random.in(41, 68), nq - 1}) {
      INFO("offset " << offset << " query " << i << " left " << all.options.window_left);
      AttentionCall<T> one(random, 6, 10, 1, nk);
      one.options = all.options;
      one.options.query_offset = offset + i;
      one.q.each([&](T &x, int64_t f, auto...) { x = all.q.at(f, i); });
      if (!one.run(all.k.tensor(), all.v.tensor())) return;
      CHECK(is_part(one.out, all.out, i));
      CHECK(is_part(one.lse, all.lse, i));
    }
  }
}

TEST_CASE_TEMPLATE("spans: keys that are copied, values and outputs of any stride have the bits of dense ones", T,
                   float, double) {
  Random random(sizeof(T) == 4 ? 861 : 862);
  const ShortSpans table;
  for (const int64_t nq : {1, 5, 70}) {
    const int64_t nk = some_keys(random), d = 24, dv = 11;
    AttentionCall<T> dense(random, d, dv, nq, nk);
    dense.options.flags = random.one_in(2) ? ATTEND_CAUSAL_BOTTOM_RIGHT : 0;
    INFO("Nq " << nq << " Nk " << nk << " flags " << dense.options.flags);
    if (!dense.run()) return;
    typename Operand<T>::Layout far, turned;
    far.padding = 4096 / static_cast<int64_t>(sizeof(T)) - d;  // keys begin in the same sets of a cache
    turned.order = {1, 0, 2, 3};
    turned.padding = 3;
    Operand<T> k = dense.k.in(far), v = dense.v.in(turned), out = dense.out.in(turned);
    attend_attention_options options = dense.options;
    options.lse = nullptr;
    const attend_tensor *const keys[] = {dense.k.tensor(), k.tensor()}, *const values[] = {dense.v.tensor(),
                                                                                           v.tensor()};
    for (const attend_tensor *from : keys) {
      for (const attend_tensor *of : values) {
        out.fill_with(std::numeric_limits<T>::quiet_NaN());
        options.threads = static_cast<int32_t>(random.in(1, 3));
        ok(attend_attention(dense.q.tensor(), from, of, out.tensor(), &options));
        CHECK(same_bits(out.values(), dense.out.values()));
        CHECK(out.gaps_untouched());
        AttentionCall<T> again = dense;
        CHECK(again.run(from, of));
        CHECK(again.same_results(dense));
      }
    }
  }
}
