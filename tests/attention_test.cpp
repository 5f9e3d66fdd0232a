// attend_attention against the formula in a wider type; masks, layouts, and what must never leak.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

struct Size {
  int64_t features, value_features, queries, keys;
};

Size random_size(Random &random) {
  const auto pick = [&] { return random.pick<int64_t>({1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 48, 63, 64, 65, 80}); };
  Size s = {pick(), random.one_in(8) ? random.in(1, 150) : pick(), random.in(1, 40), random.in(1, 40)};
  if (random.one_in(4)) s.queries = random.pick<int64_t>({63, 64, 65, 100, 129});
  if (random.one_in(3)) s.keys = random.pick<int64_t>({0, 95, 255, 256, 257, 300, 511, 512, 513, 600});
  return s;
}

reference::Causal causal_of(uint32_t flags) {
  return flags == ATTEND_CAUSAL_TOP_LEFT       ? reference::Causal::top_left
         : flags == ATTEND_CAUSAL_BOTTOM_RIGHT ? reference::Causal::bottom_right
                                               : reference::Causal::none;
}

// One random problem, all outputs. The bound: a score is a dot product of D terms whose roundings add up like sqrt(D), and a few
// more for the scale; exp turns its absolute error into a relative one of the weight. Any implementation in T has that error; the
// factor 2 is for the online form.
template <class T>
double attention(Random &random) {
  using O = Operand<T>;
  const Size s = random_size(random);
  const int64_t kv_heads = random.in(1, 2), heads = kv_heads * random.in(1, 3), batch = random.in(1, 2);
  const bool one_kv = random.one_in(4);
  O q({s.features, s.queries, heads, batch}, O::random_layout(random));
  O k({s.features, s.keys, kv_heads, one_kv ? 1 : batch}, O::random_layout(random));
  O v({s.value_features, s.keys, kv_heads, one_kv ? 1 : batch}, O::random_layout(random));
  O out({s.value_features, s.queries, heads, batch}, O::random_layout(random));
  O lse({1, s.queries, heads, batch}, O::random_layout(random));
  O scores({s.keys, s.queries, heads, batch}, O::random_layout(random));
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
      for (int64_t i = 0; i < batch; ++i) offsets.push_back(random.in(-10, 10));
      options.query_offsets = offsets.data();
    }
  }
  options.lse = lse.tensor();
  const bool with_scores = random.one_in(2);
  options.scores_stage = static_cast<uint32_t>(random.in(0, 3));
  options.scores = with_scores ? scores.tensor() : nullptr;
  INFO("D " << s.features << " Dv " << s.value_features << " Nq " << s.queries << " Nk " << s.keys << " H " << heads
            << "/" << kv_heads << " B " << batch << " flags " << options.flags << " offset " << options.query_offset
            << " stage " << options.scores_stage << " scale " << options.scale);

  WideCopy<T> wq(q), wk(k), wv(v), wout(out), wlse(lse), wscores(scores), av(v, true);
  reference::AttentionSpec<Wide<T>> spec;
  spec.scale = options.scale;
  spec.causal = causal_of(options.flags);
  spec.query_offset = options.query_offset;
  spec.query_offsets = options.query_offsets;
  spec.lse = &wlse.view;
  spec.scores = &wscores.view;
  spec.scores_stage = static_cast<int>(options.scores_stage);
  reference::naive::attention<Wide<T>>(wq.view, wk.view, wv.view, wout.view, spec);

  if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options))) return 0;
  for (O *o : {&out, &lse, &scores}) CHECK(o->gaps_untouched());

  double largest_q = 0, largest_k = 0, largest_v = 0;
  q.each([&](T &x, auto...) { largest_q = std::max(largest_q, std::fabs(static_cast<double>(x))); });
  k.each([&](T &x, auto...) { largest_k = std::max(largest_k, std::fabs(static_cast<double>(x))); });
  v.each([&](T &x, auto...) { largest_v = std::max(largest_v, std::fabs(static_cast<double>(x))); });
  const double scale = static_cast<double>(spec.scale_for(s.features));
  const double terms = std::fabs(scale) * largest_q * largest_k;
  const double score_error = kUnit<T> * ((std::sqrt(static_cast<double>(s.features)) + 8) * terms + 4);
  const double out_error = largest_v * (2 * score_error + 8 * kUnit<T>);
  const double ratio = worst_ratio(out, wout.view, [&](auto...) { return out_error; });
  CHECK(ratio <= 1);
  CHECK(worst_ratio(lse, wlse.view, [&](int64_t, int64_t j, int64_t h, int64_t b) {
          return 2 * score_error + 4 * kUnit<T> * std::fabs(static_cast<double>(wlse.view.at(0, j, h, b)));
        }) <= 1);
  if (with_scores) {
    const bool probabilities = options.scores_stage == ATTEND_SCORES_PROBABILITIES;
    CHECK(worst_ratio(scores, wscores.view,
                      [&](auto...) { return (probabilities ? 2 : 1) * score_error + 8 * kUnit<T>; }) <= 1);
  }
  return ratio;
}

// Heads interleaved, the [N, H, D] array of the frameworks, and V turned: plain operands for the tests below.
template <class T>
struct Causal {
  static constexpr int64_t kItems = 300, kFeatures = 33;
  Operand<T> q, k, v, out;
  explicit Causal(Random &random, bool turned)
      : q({kFeatures, kItems, 2, 1}, {{0, 2, 1, 3}, 0, 1, 0, {1, 1, 1, 1}}),
        k({kFeatures, kItems, 1, 1}, {{0, 2, 1, 3}, 0, 1, 0, {1, 1, 1, 1}}),
        v({kFeatures, kItems, 1, 1},
          {{turned ? size_t{1} : size_t{0}, turned ? size_t{0} : size_t{1}, 2, 3}, 0, 1, 0, {1, 1, 1, 1}}),
        out({kFeatures, kItems, 2, 1}, {{0, 2, 1, 3}, 0, 1, 0, {1, 1, 1, 1}}) {
    for (Operand<T> *o : {&q, &k, &v}) o->fill(random);
  }
  std::vector<T> run(int64_t offset) {
    attend_attention_options options = {};
    options.size = sizeof options;
    options.flags = ATTEND_CAUSAL_TOP_LEFT;
    options.query_offset = offset;
    out.fill_with(std::numeric_limits<T>::quiet_NaN());
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
    return out.values();
  }
};

}  // namespace

TEST_CASE_TEMPLATE("attention: random shapes, layouts and masks", T, float, double) {
  double worst = 0;
  for_each_isa([&] {
    Random random(21);
    for (int i = 0; i < 120; ++i) worst = std::max(worst, attention<T>(random));
  });
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("attention: keys and values that a query does not see never reach it", T, float, double) {
  for_each_isa([] {
    for (const bool turned : {false, true}) {
      Random random(22);
      Causal<T> c(random, turned);
      for (const int64_t offset : {int64_t{-40}, int64_t{0}, int64_t{-255}}) {
        INFO("offset " << offset << " turned " << turned);
        const int64_t seen = Causal<T>::kItems + offset;  // keys that the last query sees
        const std::vector<T> before = c.run(offset);
        Causal<T> poisoned = c;
        for (int64_t key = 0; key < Causal<T>::kItems; ++key) {
          if (key < seen) continue;
          for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) {
            poisoned.k.at(f, key) = std::numeric_limits<T>::quiet_NaN();
            poisoned.v.at(f, key) = std::numeric_limits<T>::infinity();
          }
        }
        CHECK(same_bits(before, poisoned.run(offset)));
        // One poisoned key among those that only later queries see: the earlier ones keep their bits.
        Causal<T> middle = c;
        const int64_t key = seen / 2;
        for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) {
          middle.k.at(f, key) = std::numeric_limits<T>::infinity();
          middle.v.at(f, key) = std::numeric_limits<T>::quiet_NaN();
        }
        const std::vector<T> after = middle.run(offset);
        const size_t row = static_cast<size_t>(Causal<T>::kFeatures), items = static_cast<size_t>(Causal<T>::kItems);
        for (size_t head = 0; head < 2; ++head) {
          for (size_t i = 0; i < items; ++i) {
            const size_t at = (head * items + i) * row;
            const bool sees = key <= static_cast<int64_t>(i) + offset;
            const bool same = std::memcmp(&before[at], &after[at], row * sizeof(T)) == 0;
            CHECK(same == !sees);
            CHECK(std::isnan(after[at]) == sees);
          }
        }
      }
    }
  });
}

TEST_CASE_TEMPLATE("attention: a query alone gives 0, the first of a sequence its V, exactly", T, float, double) {
  for_each_isa([] {
    Random random(23);
    for (const bool turned : {false, true}) {
      Causal<T> c(random, turned);
      c.run(0);
      for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, 0, 1) == c.v.at(f, 0));
      c.run(-7);
      for (int64_t i = 0; i < 7; ++i)
        for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, i, 1) == 0);
      for (int64_t f = 0; f < Causal<T>::kFeatures; ++f) CHECK(c.out.at(f, 7) == c.v.at(f, 0));
      c.run(-1000);
      c.out.each([](T &x, auto...) { CHECK(x == 0); });
    }
  });
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
    // One score of 1e4, all others -1e4: one-hot, in a later chunk than most. Two of them: the mean of two, exactly halved.
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
