// attend_attention against the formula in a wider type; masks, layouts, and what must never leak.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

struct Size {
  int64_t features, value_features, queries, keys, kv_heads, heads, batch;
};

// Beside every tile edge, query block (64 f32, 32 f64) and key chunk (256); no more work than the oracle does quickly.
Size random_size(Random &random) {
  const auto features = [&] {
    return random.pick<int64_t>({1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 80, 96, 97, 128, 129});
  };
  const auto items = [&]() -> int64_t {
    if (!random.one_in(3)) return random.in(1, 40);
    return random.pick<int64_t>({0, 1, 63, 64, 65, 95, 127, 129, 255, 256, 257, 300, 511, 512, 513, 600});
  };
  Size s;
  do {
    s = {features(), features(), items(), items(), random.in(1, 2), random.in(1, 3), random.in(1, 2)};
    s.heads *= s.kv_heads;
  } while ((s.features + s.value_features) * s.queries * s.keys * s.heads * s.batch > 2000000);
  return s;
}

reference::Causal causal_of(uint32_t flags) {
  return flags == ATTEND_CAUSAL_TOP_LEFT       ? reference::Causal::top_left
         : flags == ATTEND_CAUSAL_BOTTOM_RIGHT ? reference::Causal::bottom_right
                                               : reference::Causal::none;
}

struct Extent {
  double largest = 0, rms = 0;
};

template <class T>
Extent extent_of(Operand<T> &o) {
  Extent e;
  double count = 0;
  o.each([&](T &x, auto...) {
    e.largest = std::max(e.largest, std::fabs(static_cast<double>(x)));
    e.rms += static_cast<double>(x) * static_cast<double>(x);
    ++count;
  });
  e.rms = std::sqrt(e.rms / std::max(1.0, count));
  return e;
}

// One random problem, all outputs. The bound: a score is a chain of D terms whose partial sums grow like sqrt(D), so
// that their roundings add up to about D / 4 units of a term, and the worst of many elements to four times that; some
// more roundings of one element are for scale, product and result. exp turns a score's absolute error into a relative
// one of its weight. Any implementation in T has these errors; the factor 2 is for the online form.
template <class T>
double attention(Random &random) {
  using O = Operand<T>;
  const Size s = random_size(random);
  const auto one_or_batch = [&] { return random.one_in(4) ? 1 : s.batch; };
  // Repeated features would add up roundings of one sign; all else may repeat.
  const auto input = [&] { return O::random_input_layout(random, 1); };
  O q({s.features, s.queries, s.heads, one_or_batch()}, input());
  O k({s.features, s.keys, s.kv_heads, one_or_batch()}, input());
  O v({s.value_features, s.keys, s.kv_heads, one_or_batch()}, O::random_input_layout(random));
  O out({s.value_features, s.queries, s.heads, s.batch}, O::random_layout(random));
  O lse({1, s.queries, s.heads, s.batch}, O::random_layout(random));
  O scores({s.keys, s.queries, s.heads, s.batch}, O::random_layout(random));
  q.fill(random, random.pick({1.0, 1.0, 4.0}));
  for (O *o : {&k, &v}) o->fill(random);
  for (O *o : {&out, &lse, &scores}) o->fill_with(std::numeric_limits<T>::quiet_NaN());

  attend_attention_options options = {};
  options.size = sizeof options;
  options.flags = random.pick<uint32_t>({0, 0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
  options.scale = random.pick({0.0, 0.0, 1.0, -0.3});
  options.threads = static_cast<int32_t>(random.in(0, 3));
  std::vector<int64_t> offsets;
  if (options.flags == ATTEND_CAUSAL_TOP_LEFT) {
    if (random.one_in(2)) {
      options.query_offset = random.pick<int64_t>({0, 1, -1, -5, 7, 300, INT64_MAX, INT64_MIN});
    } else {
      for (int64_t i = 0; i < s.batch; ++i) offsets.push_back(random.in(-10, 10));
      options.query_offsets = offsets.data();
    }
  }
  options.scores_stage = static_cast<uint32_t>(random.in(0, 3));
  INFO("D " << s.features << " Dv " << s.value_features << " Nq " << s.queries << " Nk " << s.keys << " H " << s.heads
            << "/" << s.kv_heads << " B " << s.batch << " flags " << options.flags << " offset " << options.query_offset
            << " stage " << options.scores_stage << " scale " << options.scale);

  WideCopy<T> wq(q), wk(k), wv(v), wout(out), wlse(lse), wscores(scores);
  reference::AttentionSpec<Wide<T>> spec;
  spec.scale = options.scale;
  spec.causal = causal_of(options.flags);
  spec.query_offset = options.query_offset;
  spec.query_offsets = options.query_offsets;
  spec.lse = &wlse.view;
  spec.scores = &wscores.view;
  spec.scores_stage = static_cast<int>(options.scores_stage);
  reference::naive::attention<Wide<T>>(wq.view, wk.view, wv.view, wout.view, spec);

  const Extent of_q = extent_of(q), of_k = extent_of(k);
  const double terms = 4 * static_cast<double>(s.features) * of_q.rms * of_k.rms + 8 * of_q.largest * of_k.largest;
  const double score_error = kUnit<T> * (std::fabs(static_cast<double>(spec.scale_for(s.features))) * terms + 4);
  const double out_error = extent_of(v).largest * (2 * score_error + 8 * kUnit<T>);
  const bool probabilities = options.scores_stage == ATTEND_SCORES_PROBABILITIES;
  const O inputs[] = {q, k, v};
  double worst = 0;
  for_each_isa([&] {
    O result = out, sums = lse, shown = scores;
    options.lse = sums.tensor();
    options.scores = shown.tensor();
    if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), result.tensor(), &options))) return;
    for (O *o : {&result, &sums, &shown}) CHECK(o->gaps_untouched());
    const double ratio = worst_ratio(result, wout.view, [&](auto...) { return out_error; });
    CHECK(ratio <= 1);
    const double of_lse = worst_ratio(sums, wlse.view, [&](int64_t, int64_t j, int64_t h, int64_t b) {
      return 2 * score_error + 4 * kUnit<T> * std::fabs(static_cast<double>(wlse.view.at(0, j, h, b)));
    });
    CHECK(of_lse <= 1);
    const double of_scores =
        worst_ratio(shown, wscores.view, [&](auto...) { return (probabilities ? 2 : 1) * score_error + 8 * kUnit<T>; });
    CHECK(of_scores <= 1);
    worst = std::max({worst, ratio, of_lse, of_scores});
    // The output does not depend on what else is asked for.
    options.lse = options.scores = nullptr;
    O alone = out;
    if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), alone.tensor(), &options))) return;
    CHECK(alone.same_memory(result));
  });
  CHECK(inputs[0].same_memory(q));
  CHECK(inputs[1].same_memory(k));
  CHECK(inputs[2].same_memory(v));
  return worst;
}

// A causal problem of two heads interleaved as in the [N, H, D] arrays of the frameworks, V turned or not.
template <class T>
struct Causal {
  static constexpr int64_t kItems = 300, kFeatures = 33, kHeads = 2;
  Operand<T> q, k, v, out, lse, scores;

  static typename Operand<T>::Layout interleaved() {
    typename Operand<T>::Layout l;
    l.order = {0, 2, 1, 3};
    return l;
  }
  static typename Operand<T>::Layout turned_round() {
    typename Operand<T>::Layout l;
    l.order = {1, 0, 2, 3};
    return l;
  }
  explicit Causal(Random &random, bool turned)
      : q({kFeatures, kItems, kHeads, 1}, interleaved()),
        k({kFeatures, kItems, 1, 1}, interleaved()),
        v({kFeatures, kItems, 1, 1}, turned ? turned_round() : interleaved()),
        out({kFeatures, kItems, kHeads, 1}, interleaved()),
        lse({1, kItems, kHeads, 1}, {}),
        scores({kItems, kItems, kHeads, 1}, {}) {
    for (Operand<T> *o : {&q, &k, &v}) o->fill(random);
  }
  void poison(int64_t key, T in_k, T in_v) {
    for (int64_t f = 0; f < kFeatures; ++f) {
      k.at(f, key) = in_k;
      v.at(f, key) = in_v;
    }
  }
  void run(int64_t offset, uint32_t stage = ATTEND_SCORES_PROBABILITIES) {
    attend_attention_options options = {};
    options.size = sizeof options;
    options.flags = ATTEND_CAUSAL_TOP_LEFT;
    options.query_offset = offset;
    options.lse = lse.tensor();
    options.scores = scores.tensor();
    options.scores_stage = stage;
    out.fill_with(std::numeric_limits<T>::quiet_NaN());
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
  }
  // All results of query i of one head are the same bits here and there.
  bool same_query(Causal &other, int64_t i, int64_t head) {
    bool same = std::memcmp(&out.at(0, i, head), &other.out.at(0, i, head), kFeatures * sizeof(T)) == 0;
    same &= std::memcmp(&scores.at(0, i, head), &other.scores.at(0, i, head), kItems * sizeof(T)) == 0;
    return same && std::memcmp(&lse.at(0, i, head), &other.lse.at(0, i, head), sizeof(T)) == 0;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("attention: random shapes, layouts and masks", T, float, double) {
  double worst = 0;
  Random random(21);
  for (int i = 0; i < 150; ++i) worst = std::max(worst, attention<T>(random));
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("attention: keys and values that a query does not see never reach it", T, float, double) {
  const T nan = std::numeric_limits<T>::quiet_NaN(), inf = std::numeric_limits<T>::infinity();
  for (const bool turned : {false, true}) {
    Random random(22);
    const Causal<T> drawn(random, turned);
    for_each_isa([&] {
      for (const int64_t offset : {int64_t{-40}, int64_t{0}, int64_t{-255}}) {
        const uint32_t stage = offset == 0 ? ATTEND_SCORES_MASKED : ATTEND_SCORES_PROBABILITIES;
        INFO("offset " << offset << " turned " << turned);
        const int64_t seen = Causal<T>::kItems + offset;  // keys that the last query sees
        Causal<T> clean = drawn;
        clean.run(offset, stage);
        Causal<T> poisoned = drawn;
        for (int64_t key = seen; key < Causal<T>::kItems; ++key) poisoned.poison(key, key % 2 ? nan : inf, inf);
        poisoned.run(offset, stage);
        CHECK(poisoned.out.same_memory(clean.out));
        CHECK(poisoned.lse.same_memory(clean.lse));
        CHECK(poisoned.scores.same_memory(clean.scores));
        // One poisoned key among those that only later queries see: the earlier ones keep their bits, the later are
        // NaN.
        const int64_t key = seen / 2;
        Causal<T> middle = drawn;
        middle.poison(key, inf, nan);
        middle.run(offset, stage);
        for (int64_t head = 0; head < Causal<T>::kHeads; ++head) {
          for (int64_t i = 0; i < Causal<T>::kItems; ++i) {
            INFO("head " << head << " query " << i);
            const bool sees = key <= i + offset;
            CHECK(middle.same_query(clean, i, head) == !sees);
            CHECK(std::isnan(middle.out.at(0, i, head)) == sees);
            CHECK(std::isnan(middle.lse.at(0, i, head)) == sees);
          }
        }
      }
    });
  }
}

TEST_CASE_TEMPLATE("attention: offsets and windows near the limits of their type, whose sums are not", T, float,
                   double) {
  using O = Operand<T>;
  Random random(25);
  O q({3, 9, 1, 1}, {}), k({3, 20, 1, 1}, {}), v({2, 20, 1, 1}, {}), out({2, 9, 1, 1}, {});
  for (O *o : {&q, &k, &v}) o->fill(random);
  constexpr int64_t kFar = int64_t{1} << 61;
  struct Positions {
    int64_t offset, left, right;
  };
  const std::pair<Positions, Positions> same[] = {{{INT64_MIN, -1, INT64_MAX}, {-1, -1, 0}},
                                                  {{-kFar, -1, kFar + 7}, {0, -1, 7}},
                                                  {{INT64_MAX, INT64_MAX - 3, -1}, {3, 0, -1}},
                                                  {{kFar, kFar, INT64_MAX}, {0, 0, -1}}};
  for_each_isa([&] {
    for (const auto &pair : same) {
      O results[] = {out, out};
      for (const size_t i : {size_t{0}, size_t{1}}) {
        const Positions &at = i == 0 ? pair.first : pair.second;
        INFO("offset " << at.offset << " left " << at.left << " right " << at.right);
        attend_attention_options options = {};
        options.size = sizeof options;
        options.flags = ATTEND_WINDOW;
        options.query_offset = at.offset;
        options.window_left = at.left;
        options.window_right = at.right;
        if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), results[i].tensor(), &options))) return;
      }
      CHECK(results[0].same_memory(results[1]));
    }
  });
}

TEST_CASE_TEMPLATE("attention: a query alone gives 0, the first of a sequence its V, exactly", T, float, double) {
  for (const bool turned : {false, true}) {
    Random random(23);
    const Causal<T> drawn(random, turned);
    for_each_isa([&] {
      Causal<T> c = drawn;
      const T none = -std::numeric_limits<T>::infinity();
      c.run(0);
      for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, 0, 1) == c.v.at(f, 0));
      CHECK(c.scores.at(0, 0, 1) == 1);
      c.run(-7);
      for (int64_t i = 0; i < 7; ++i) {
        for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, i, 1) == 0);
        CHECK(c.lse.at(0, i, 1) == none);
        CHECK(c.scores.at(0, i, 1) == 0);
      }
      for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, 7) == c.v.at(f, 0));
      c.run(-1000);
      int64_t wrong = 0;
      c.out.each([&](T &x, auto...) { wrong += x != 0; });
      c.lse.each([&](T &x, auto...) { wrong += x != none; });
      CHECK(wrong == 0);
    });
  }
}

// What any implementation in T has to put up with is the rounding of its scores; the fused form may at most double it.
TEST_CASE_TEMPLATE("attention: at most twice the error of an unfused implementation in the same type", T, float,
                   double) {
  using O = Operand<T>;
  Random random(25);
  for (const int64_t keys : {int64_t{40}, int64_t{700}}) {
    const int64_t d = 64, queries = 24;
    O q({d, queries, 1, 1}, {}), k({d, keys, 1, 1}, {}), v({d, keys, 1, 1}, {}), out({d, queries, 1, 1}, {});
    for (O *o : {&q, &k, &v}) o->fill(random);
    WideCopy<T> wq(q), wk(k), wv(v), want(out);
    reference::naive::attention<Wide<T>>(wq.view, wk.view, wv.view, want.view);
    const auto deviation = [&](O &got) {
      double sum = 0;
      got.each([&](T &x, int64_t i, int64_t j, auto...) {
        sum += std::pow(static_cast<double>(Wide<T>(x) - want.view.at(i, j)), 2);
      });
      return std::sqrt(sum / static_cast<double>(d * queries));
    };
    O unfused = out;
    reference::naive::attention<T>(q.view(), k.view(), v.view(), unfused.view());
    const double allowed = 2 * deviation(unfused);
    for_each_isa([&] {
      O result = out;
      if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), result.tensor(), nullptr))) return;
      MESSAGE(std::string(attend_isa()) << " keys " << keys << ": " << deviation(result) / allowed);
      CHECK(deviation(result) <= allowed);
    });
  }
}

TEST_CASE_TEMPLATE("attention: huge scores, ties and equal scores", T, float, double) {
  for_each_isa([] {
    using O = Operand<T>;
    const int64_t n = 400, d = 16;
    O q({d, 20, 1, 1}, {}), k({d, n, 1, 1}, {}), v({d, n, 1, 1}, {}), out({d, 20, 1, 1}, {});
    Random random(24);
    v.fill(random);
    q.fill_with(0);
    k.fill_with(0);
    // All scores equal: the mean.
    if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), nullptr))) return;
    double mean = 0;
    for (int64_t j = 0; j < n; ++j) mean += static_cast<double>(v.at(3, j)) / static_cast<double>(n);
    CHECK(std::fabs(static_cast<double>(out.at(3, 19)) - mean) < 64 * kUnit<T>);
    // One score of 1e4, all others -1e4: one-hot, in a later chunk than most. Two of them: the mean of two, exactly
    // halved.
    q.fill_with(100);
    k.fill_with(T(-6.25));
    attend_attention_options options = {};
    options.size = sizeof options;
    options.scale = 1;
    for (int64_t f = 0; f < d; ++f) k.at(f, 300) = T(6.25);
    if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options))) return;
    for (int64_t f = 0; f < d; ++f) CHECK(out.at(f, 5) == v.at(f, 300));
    for (int64_t f = 0; f < d; ++f) k.at(f, 10) = T(6.25);
    if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options))) return;
    for (int64_t f = 0; f < d; ++f) CHECK(out.at(f, 5) == (v.at(f, 10) + v.at(f, 300)) * T(0.5));
  });
}

// A key that is seen and whose score is -inf weighs 0, and 0 times infinity is NaN: not what a hidden key gives, whatever
// else the queries beside this one see. (Found by the fuzzer: it depended on how many queries share a tile.)
TEST_CASE_TEMPLATE("attention: a visible score of -inf beside an infinite value", T, float, double) {
  using O = Operand<T>;
  constexpr int64_t kItems = 75, kKey = 3;
  const T infinity = std::numeric_limits<T>::infinity();
  Random random(27);
  O q({1, kItems, 1, 1}, {}), k({1, kItems, 1, 1}, {}), v({2, kItems, 1, 1}, {}), out({2, kItems, 1, 1}, {});
  q.fill_with(1);
  k.fill(random);
  v.fill(random);
  k.at(0, kKey) = -infinity;
  v.at(1, kKey) = infinity;
  attend_attention_options options = {};
  options.size = sizeof options;
  options.flags = ATTEND_CAUSAL_TOP_LEFT;
  std::vector<uint8_t> visible(kItems, 1);
  const attend_tensor mask = {visible.data(), ATTEND_BOOL, 1, {kItems}, {1}};
  for (const bool hidden : {false, true}) {
    visible[kKey] = !hidden;
    options.mask = hidden ? &mask : nullptr;
    for_each_isa([&] {
      O result = out;
      if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), result.tensor(), &options))) return;
      result.each(
          [&](T &x, int64_t i, int64_t j, auto...) { CHECK(std::isnan(x) == (!hidden && i == 1 && j >= kKey)); });
    });
  }
}
