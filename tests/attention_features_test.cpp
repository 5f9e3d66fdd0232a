// All features of attend_attention at once, in random combinations, against the formula in a wider type. What a mask,
// a bias of -inf, a window or a length hides holds NaN and Inf.
#include "attention_problem.hpp"

using namespace attend;
using namespace attend::test;

TEST_CASE_TEMPLATE("every combination of features", T, float, double) {
  using O = Operand<T>;
  double worst = 0;
  const char *given = std::getenv("ATTEND_TEST_ROUNDS");
#if defined(ATTEND_TEST_SANITIZED)
  constexpr int kRounds = 100;
#else
  constexpr int kRounds = 400;
#endif
  const int rounds = given != nullptr ? std::atoi(given) : std::getenv("ATTEND_TEST_LONG") != nullptr ? 20000 : kRounds;
  for (int round = 0; round < rounds; ++round) {
    Random random(static_cast<unsigned>(round) * 2 + (sizeof(T) == 4 ? 100001 : 100002));
    Problem<T> p(random);
    INFO("round " << round << p.description());
    if (p.spec.scores_stage >= 2) p.poison_hidden(random);
    const Expected<T> want = expected_of(p);
    O first = p.out;
    bool have_first = false;
    for_each_isa([&] {
      Results<T> got(p);
      worst = std::max(worst, got.compare(want));
      // Without the outputs that show what happens, and with the keys shared out among threads where they are many: the
      // same bits; on every instruction set with FMA too.
      p.options.threads = static_cast<int32_t>(random.in(1, 5));
      CHECK(same_bits(output_alone(p).values(), got.out.values()));
      if (!fuses(attend_isa())) return;
      if (have_first) CHECK(same_bits(first.values(), got.out.values()));
      first = got.out;
      have_first = true;
    });
  }
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("keys that begin in the same sets of a cache, as in [N, H, D] arrays: the bits of dense ones", T,
                   float, double) {
  using O = Operand<T>;
  Random random(5);
  for (const int64_t d : {1, 16, 33, 64, 100}) {  // one more than whole vectors too
    for (const int64_t nk : {1, 16, 255, 256, 257, 600}) {
      for (const int64_t nq : {1, 5, 70}) {
        O q({d, nq, 1, 1}, {}), k({d, nk, 1, 1}, {}), v({d, nk, 1, 1}, {});
        for (O *o : {&q, &k, &v}) o->fill(random);
        // 2 KiB and 4 KiB apart, forwards and backwards.
        const int64_t apart = random.pick<int64_t>({2048, 4096}) / static_cast<int64_t>(sizeof(T));
        const bool backwards = random.one_in(2);
        std::vector<T> memory(static_cast<size_t>(apart * nk), std::numeric_limits<T>::quiet_NaN());
        for (int64_t j = 0; j < nk; ++j) {
          for (int64_t f = 0; f < d; ++f)
            memory[static_cast<size_t>((backwards ? nk - 1 - j : j) * apart + f)] = k.at(f, j, 0, 0);
        }
        attend_tensor far = *k.tensor();
        far.data = memory.data() + (backwards ? (nk - 1) * apart : 0);
        far.stride[1] = backwards ? -apart : apart;
        attend_attention_options options = {};
        options.size = sizeof options;
        options.threads = static_cast<int32_t>(random.in(1, 3));
        options.flags = random.one_in(2) ? ATTEND_CAUSAL_BOTTOM_RIGHT : 0;
        if (random.one_in(2)) {  // the first chunk begins at a later key
          options.flags |= ATTEND_WINDOW;
          options.window_left = random.in(0, nk);
          options.window_right = -1;
        }
        for_each_isa([&] {
          O dense({d, nq, 1, 1}, {}), copied({d, nq, 1, 1}, {});
          if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), dense.tensor(), &options))) return;
          if (!ok(attend_attention(q.tensor(), &far, v.tensor(), copied.tensor(), &options))) return;
          CHECK(same_bits(dense.values(), copied.values()));
        });
      }
    }
  }
}

TEST_CASE_TEMPLATE("ALiBi depends on a key's distance alone, exact in T or not", T, float, double) {
  using O = Operand<T>;
  Random random(26);
  O q({2, 37, 1, 1}, {}), k({2, 50, 1, 1}, {}), v({2, 50, 1, 1}, {}), out({2, 37, 1, 1}, {}),
      scores({50, 37, 1, 1}, {});
  O slope({1, 1, 1, 1}, {});
  for (O *o : {&k, &v, &slope}) o->fill(random);
  q.fill_with(0);
  attend_attention_options options = {};
  options.size = sizeof options;
  options.alibi_slopes = slope.tensor();
  options.scores = scores.tensor();
  options.scores_stage = ATTEND_SCORES_MASKED;
  constexpr int64_t kSteps = int64_t{1} << (std::is_same_v<T, float> ? 24 : 53);  // beyond, T has no odd numbers
  for_each_isa([&] {
    for (const int64_t offset : {int64_t{20}, kSteps, kSteps + 1, 5 - kSteps, -2 * kSteps}) {
      INFO("offset " << offset);
      options.query_offset = offset;
      if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options))) return;
      int64_t wrong = 0;
      for (int64_t i = 1; i < 37; ++i) {
        for (int64_t j = 1; j < 50; ++j) wrong += scores.at(j, i) != scores.at(j - 1, i - 1);
      }
      CHECK(wrong == 0);
      CHECK(scores.at(0, 0) != scores.at(49, 0));
    }
  });
}

// More keys than the threads have room to keep the parts of: several rounds, each folded before the next.
TEST_CASE_TEMPLATE("few queries, whose keys threads share in rounds: the bits of one thread", T, float, double) {
  using O = Operand<T>;
  Random random(27);
  struct Case {
    int64_t features, value_features, queries, heads, keys;
  };
  for (const Case &x : {Case{8, 8, 1, 1, 70000}, Case{4, 130, 16, 1, 9001}, Case{8, 8, 2, 4, 25000}}) {
    O q({x.features, x.queries, x.heads, 1}, {}), k({x.features, x.keys, 1, 1}, {}),
        v({x.value_features, x.keys, 1, 1}, {}), out({x.value_features, x.queries, x.heads, 1}, {});
    for (O *o : {&q, &k, &v}) o->fill(random);
    for_each_isa([&] {
      attend_attention_options options = {};
      options.size = sizeof options;
      O results[] = {out, out, out};
      for (const int32_t threads : {1, 2, 3}) {
        INFO("Nq " << x.queries << " H " << x.heads << " Nk " << x.keys << " threads " << threads);
        options.threads = threads;
        O &result = results[threads - 1];
        if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), result.tensor(), &options))) return;
        CHECK(result.same_memory(results[0]));
      }
    });
  }
}
