// All features of attend_attention at once, in random combinations, against the formula in a wider type. What a mask,
// a bias of -inf, a window or a length hides holds NaN and Inf.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
struct Problem {
  using O = Operand<T>;
  static constexpr T kInf = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();

  int64_t d, dv, nq, nk, heads, kv_heads, batch;
  O q, k, v, out, lse, scores, bias;
  Shape mask_shape;
  std::vector<uint8_t> mask_bytes;
  std::vector<int64_t> lengths, offsets;
  std::vector<T> slopes, sinks;
  attend_tensor mask, slopes_view, sinks_view;
  attend_attention_options options = {};
  reference::AttentionSpec<Wide<T>> spec;
  std::vector<Wide<T>> wide_slopes, wide_sinks;
  bool masked, biased;

  static O operand(Random &random, const Shape &shape, bool output) {
    return O(shape, output ? O::random_layout(random) : O::random_input_layout(random, 4));
  }
  static Shape some_of(Random &random, Shape shape) {
    for (int64_t &extent : shape) extent = random.one_in(4) ? 1 : extent;
    return shape;
  }

  explicit Problem(Random &random)
      : d(random.pick<int64_t>({1, 3, 8, 16, 17, 40, 64})),
        dv(random.pick<int64_t>({1, 2, 8, 16, 33, 64})),
        nq(random.pick<int64_t>({1, 1, 2, 7, 15, 16, 17, 33, 65})),
        nk(random.one_in(8)   ? random.in(1023, 1600)
           : random.one_in(4) ? random.in(250, 530)
                              : random.in(1, 70)),
        heads(random.pick<int64_t>({1, 2, 4})),
        kv_heads(heads / random.pick<int64_t>({1, 1, heads})),
        batch(random.in(1, 2)),
        q(operand(random, {d, nq, heads, batch}, false)),
        k(operand(random, {d, nk, kv_heads, batch}, false)),
        v(operand(random, {dv, nk, kv_heads, batch}, false)),
        out(operand(random, {dv, nq, heads, batch}, true)),
        lse(operand(random, {1, nq, heads, batch}, true)),
        scores(operand(random, {nk, nq, heads, batch}, true)),
        bias(operand(random, some_of(random, {nk, nq, heads, batch}), false)),
        mask_shape(some_of(random, {nk, nq, heads, batch})),
        masked(random.one_in(3)),
        biased(random.one_in(3)) {
    q.fill(random);
    k.fill(random);
    v.fill(random);
    bias.fill(random, 2);
    bias.each([&](T &b, auto...) { b = random.one_in(6) ? -kInf : b; });
    options.size = sizeof options;
    options.threads = static_cast<int32_t>(random.in(0, 3));
    const int causal = static_cast<int>(random.in(0, 3));
    if (causal == 1) options.flags = ATTEND_CAUSAL_TOP_LEFT, spec.causal = reference::Causal::top_left;
    if (causal == 2) options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT, spec.causal = reference::Causal::bottom_right;
    if (causal != 2 && random.one_in(3)) spec.query_offset = options.query_offset = random.in(-5, nk);
    if (causal != 2 && options.query_offset == 0 && random.one_in(6)) {
      for (int64_t b = 0; b < batch; ++b) offsets.push_back(random.in(-5, nk));
      spec.query_offsets = options.query_offsets = offsets.data();
    }
    if (random.one_in(3)) {
      options.flags |= ATTEND_WINDOW;
      spec.window = true;
      spec.left = options.window_left = random.one_in(4) ? -1 : random.in(0, nk);
      spec.right = options.window_right = random.one_in(4) ? -1 : random.one_in(8) ? INT64_MAX : random.in(0, nk);
    }
    if (random.one_in(3)) {
      for (int64_t b = 0; b < batch; ++b) lengths.push_back(random.in(0, nk));
      spec.lengths = options.kv_lengths = lengths.data();
    }
    if (random.one_in(3)) spec.scale = options.scale = random.pick({1.0, 0.4, -0.3});
    if (random.one_in(3)) spec.softcap = options.softcap = random.pick({0.7, 5.0, 50.0});
    for (int64_t h = 0; h < heads; ++h) {
      slopes.push_back(static_cast<T>(std::fabs(random.normal())));
      sinks.push_back(random.one_in(8) ? -kInf : static_cast<T>(2 * random.normal()));
      wide_slopes.push_back(Wide<T>(slopes.back()));
      wide_sinks.push_back(Wide<T>(sinks.back()));
    }
    slopes_view = {slopes.data(), kDtype<T>, 1, {heads, 0, 0, 0}, {1, 0, 0, 0}};
    sinks_view = {sinks.data(), kDtype<T>, 1, {heads, 0, 0, 0}, {1, 0, 0, 0}};
    if (random.one_in(3)) options.alibi_slopes = &slopes_view, spec.slopes = wide_slopes.data();
    if (random.one_in(3)) options.sinks = &sinks_view, spec.sinks = wide_sinks.data();
    if (masked) use_mask(random);
    if (biased) {
      options.bias = bias.tensor();
      spec.bias = [this](int64_t j, int64_t i, int64_t h, int64_t b) {
        const Shape &s = bias.shape();
        return Wide<T>(bias.at(s[0] == 1 ? 0 : j, s[1] == 1 ? 0 : i, s[2] == 1 ? 0 : h, s[3] == 1 ? 0 : b));
      };
    }
    spec.scores_stage = static_cast<int>(random.in(0, 3));
    options.scores_stage = static_cast<uint32_t>(spec.scores_stage);
  }
  Problem(const Problem &) = delete;
  Problem &operator=(const Problem &) = delete;

  void use_mask(Random &random) {
    int64_t count = 1;
    mask = {nullptr, ATTEND_BOOL, 4, {}, {}};
    for (size_t n = 0; n < 4; ++n) {
      mask.shape[n] = mask_shape[n];
      mask.stride[n] = count;
      count *= mask_shape[n];
    }
    mask_bytes.resize(static_cast<size_t>(count));
    for (uint8_t &b : mask_bytes) b = random.one_in(3) ? 0 : static_cast<uint8_t>(random.in(1, 255));
    mask.data = mask_bytes.data();
    options.mask = &mask;
    spec.mask = [this](int64_t j, int64_t i, int64_t h, int64_t b) {
      const int64_t at[] = {j, i, h, b};
      int64_t offset = 0;
      for (size_t n = 0; n < 4; ++n) offset += mask_shape[n] == 1 ? 0 : at[n] * mask.stride[n];
      return mask_bytes[static_cast<size_t>(offset)] != 0;
    };
  }

  // Whether any query of any head that shares it sees the key.
  bool seen(int64_t key, int64_t kv_head, int64_t b) {
    const int64_t group = heads / kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      for (int64_t i = 0; i < nq; ++i) {
        if (!spec.visible(key, i, nk, nq, b)) continue;
        if (spec.mask && !spec.mask(key, i, h, b)) continue;
        if (spec.bias && spec.bias(key, i, h, b) == -std::numeric_limits<Wide<T>>::infinity()) continue;
        return true;
      }
    }
    return false;
  }
  void poison_hidden(Random &random) {
    k.each([&](T &x, int64_t, int64_t j, int64_t h, int64_t b) {
      if (!seen(j, h, b)) x = random.one_in(2) ? kNan : kInf;
    });
    v.each([&](T &x, int64_t, int64_t j, int64_t h, int64_t b) {
      if (!seen(j, h, b)) x = random.one_in(2) ? kNan : -kInf;
    });
  }
};

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

}  // namespace

TEST_CASE_TEMPLATE("every combination of features", T, float, double) {
  using O = Operand<T>;
  double worst = 0;
  const char *given = std::getenv("ATTEND_TEST_ROUNDS");
  const int rounds = given != nullptr ? std::atoi(given) : std::getenv("ATTEND_TEST_LONG") != nullptr ? 20000 : 400;
  for (int round = 0; round < rounds; ++round) {
    Random random(static_cast<unsigned>(round) * 2 + (sizeof(T) == 4 ? 100001 : 100002));
    Problem<T> p(random);
    INFO("round " << round << " D " << p.d << " Dv " << p.dv << " Nq " << p.nq << " Nk " << p.nk << " H " << p.heads
                  << " Hkv " << p.kv_heads << " flags " << p.options.flags << " left " << p.options.window_left
                  << " right " << p.options.window_right << " lengths " << p.lengths.size() << " mask " << p.masked
                  << " bias " << p.biased << " softcap " << p.options.softcap << " alibi "
                  << (p.options.alibi_slopes != nullptr) << " sinks " << (p.options.sinks != nullptr) << " stage "
                  << p.options.scores_stage);
    if (p.spec.scores_stage >= 2) p.poison_hidden(random);
    WideCopy<T> wq(p.q), wk(p.k), wv(p.v), wout(p.out), wlse(p.lse), wscores(p.scores);
    p.spec.lse = &wlse.view;
    p.spec.scores = &wscores.view;
    reference::naive::attention<Wide<T>>(wq.view, wk.view, wv.view, wout.view, p.spec);
    // A score is a chain of D terms plus what is added; the weights have relatively the error that it has absolutely,
    // and V is hardly larger than 4. The chain's roundings are relative to its partial sums, which the norms bound.
    const double scale = p.spec.scale == 0 ? 1 / std::sqrt(static_cast<double>(p.d)) : std::fabs(p.options.scale);
    const double partial = scale * longest(p.q, p.d) * longest(p.k, p.d);
    double largest = std::max(1.0, partial);
    p.scores.each([&](T &, int64_t j, int64_t i, int64_t h, int64_t b) {
      const double s = static_cast<double>(wscores.view.at(j, i, h, b));
      if (std::isfinite(s)) largest = std::max(largest, std::fabs(s));
    });
    if (p.options.alibi_slopes != nullptr) largest += 4.0 * static_cast<double>(p.nk + 600);
    if (p.biased) largest += 10;
    const double u = kUnit<T>;
    const double score_error = u * (4 + static_cast<double>(p.d) + 2 * largest + 4 * partial),
                 out_error = 4 * score_error + 8 * u;
    O first = p.out;
    bool have_first = false;
    for_each_isa([&] {
      O result = p.out, sums = p.lse, shown = p.scores;
      for (O *o : {&result, &sums, &shown}) o->fill_with(p.kNan);
      p.options.lse = sums.tensor();
      p.options.scores = shown.tensor();
      if (!ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), result.tensor(), &p.options))) return;
      for (O *o : {&result, &sums, &shown}) CHECK(o->gaps_untouched());
      const double ratio = worst_ratio(result, wout.view, [&](auto...) { return out_error; });
      CHECK(ratio <= 1);
      CHECK(worst_ratio(sums, wlse.view, [&](auto...) { return 2 * score_error + 40 * u; }) <= 1);
      CHECK(worst_ratio(shown, wscores.view, [&](auto...) { return 3 * score_error + 40 * u; }) <= 1);
      worst = std::max(worst, ratio);
      // Without the outputs that show what happens, and with the keys shared out among threads where they are many: the
      // same bits; on every instruction set with FMA too.
      O plain = p.out;
      plain.fill_with(p.kNan);
      p.options.lse = p.options.scores = nullptr;
      p.options.threads = static_cast<int32_t>(random.in(1, 5));
      if (!ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), plain.tensor(), &p.options))) return;
      CHECK(same_bits(plain.values(), result.values()));
      const std::string isa = attend_isa();
      if (isa != "avx512" && isa != "avx2") return;
      if (have_first) CHECK(same_bits(first.values(), result.values()));
      first = result;
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
