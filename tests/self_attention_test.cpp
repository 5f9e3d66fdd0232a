// attend_self_attention against the formula: heads, grouped-query weights, biases, output projection, batch, masks.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

struct Size {
  int64_t features, head_features, value_features, items, kv_heads, heads, batch, outputs;
  bool projected;
};

Size random_size(Random &random) {
  Size s = {random.in(1, 40), random.in(1, 20), random.in(1, 20), random.in(1, 60), random.in(1, 2),
            random.in(1, 3),  random.in(1, 2),  random.in(1, 30), random.one_in(2)};
  s.heads *= s.kv_heads;
  if (random.one_in(10)) s.items = random.pick<int64_t>({0, 1, 64, 65, 129});
  if (random.one_in(10)) s.features = random.pick<int64_t>({64, 65, 300});
  if (random.one_in(20)) s.value_features = 0;
  if (random.one_in(20)) s.outputs = 0;
  return s;
}

// The operands in one type: T through the interface, Wide<T> for the oracle.
template <class T>
struct Problem {
  using O = Operand<T>;
  Size s;
  O x, w_q, w_k, w_v, w_o, b_q, b_k, b_v, b_o, out, lse, scores;
  bool biases[4];

  Problem(Random &random, const Size &size)
      : s(size),
        x({s.features, s.items, 1, s.batch}, O::random_layout(random)),
        w_q({s.head_features, s.features, s.heads, 1}, O::random_layout(random)),
        w_k({s.head_features, s.features, s.kv_heads, 1}, O::random_layout(random)),
        w_v({s.value_features, s.features, s.kv_heads, 1}, O::random_layout(random)),
        w_o({s.outputs, s.value_features, s.heads, 1}, O::random_layout(random)),
        b_q({s.head_features, 1, s.heads, 1}, O::random_layout(random)),
        b_k({s.head_features, 1, s.kv_heads, 1}, O::random_layout(random)),
        b_v({s.value_features, 1, s.kv_heads, 1}, O::random_layout(random)),
        b_o({s.outputs, 1, 1, 1}, O::random_layout(random)),
        out(s.projected ? Shape{s.outputs, s.items, 1, s.batch} : Shape{s.value_features, s.items, s.heads, s.batch},
            O::random_layout(random)),
        lse({1, s.items, s.heads, s.batch}, O::random_layout(random)),
        scores({s.items, s.items, s.heads, s.batch}, O::random_layout(random)) {
    for (O *o : {&x, &w_q, &w_k, &w_v, &w_o, &b_q, &b_k, &b_v, &b_o}) o->fill(random, 0.5);
    for (O *o : {&out, &lse, &scores}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
    for (bool &biased : biases) biased = random.one_in(2);
  }

  attend_self_attention_weights weights() {
    attend_self_attention_weights w = {};
    w.size = sizeof w;
    w.w_q = w_q.tensor();
    w.w_k = w_k.tensor();
    w.w_v = w_v.tensor();
    if (biases[0]) w.b_q = b_q.tensor();
    if (biases[1]) w.b_k = b_k.tensor();
    if (biases[2]) w.b_v = b_v.tensor();
    if (s.projected) {
      w.w_o = w_o.tensor();
      if (biases[3]) w.b_o = b_o.tensor();
    }
    return w;
  }
};

template <class T>
double self_attention(Random &random) {
  using O = Operand<T>;
  Problem<T> p(random, random_size(random));
  const Size &s = p.s;
  const attend_self_attention_weights weights = p.weights();
  attend_self_attention_options options = {};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(random.in(0, 3));
  attend_attention_options attention = {};
  attention.size = sizeof attention;
  attention.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
  attention.scale = random.pick({0.0, 0.0, 1.0, -0.2});
  attention.scores_stage = random.pick<uint32_t>({ATTEND_SCORES_SCALED, ATTEND_SCORES_PROBABILITIES});
  if (attention.flags == ATTEND_CAUSAL_TOP_LEFT) attention.query_offset = random.pick<int64_t>({0, -3, 4});
  INFO("D " << s.features << " Dh " << s.head_features << " Dv " << s.value_features << " N " << s.items << " H "
            << s.heads << "/" << s.kv_heads << " B " << s.batch << " Dout " << s.outputs << " projected " << s.projected
            << " biases " << p.biases[0] << p.biases[1] << p.biases[2] << p.biases[3] << " flags " << attention.flags
            << " offset " << attention.query_offset << " scale " << attention.scale);

  WideCopy<T> x(p.x), w_q(p.w_q), w_k(p.w_k), w_v(p.w_v), w_o(p.w_o), b_q(p.b_q), b_k(p.b_k), b_v(p.b_v), b_o(p.b_o),
      out(p.out), lse(p.lse), scores(p.scores);
  reference::Weights<Wide<T>> wide = {w_q.view, w_k.view, w_v.view};
  if (p.biases[0]) wide.b_q = &b_q.view;
  if (p.biases[1]) wide.b_k = &b_k.view;
  if (p.biases[2]) wide.b_v = &b_v.view;
  if (s.projected) wide.w_o = &w_o.view;
  if (p.biases[3]) wide.b_o = &b_o.view;
  reference::AttentionSpec<Wide<T>> spec;
  spec.scale = attention.scale;
  spec.causal = attention.flags == 0 ? reference::Causal::none : reference::Causal::top_left;  // Nq = Nk: the same
  spec.query_offset = attention.query_offset;
  spec.lse = &lse.view;
  spec.scores = &scores.view;
  spec.scores_stage = static_cast<int>(attention.scores_stage);
  reference::naive::self_attention<Wide<T>>(x.view, wide, out.view, spec);

  // Q, K and V are chains of D terms of standard deviation 1/4, so `q` large, with roundings of about D / 10 units; a
  // score is one of Dh terms of q^2. The worst of many elements is five times that. See attention_test.cpp for the
  // rest.
  const double d = static_cast<double>(s.features), dh = static_cast<double>(s.head_features);
  const double q = std::sqrt(d / 16 + 0.25), q_error = kUnit<T> * (d / 10 + 2);
  const double scale = std::fabs(static_cast<double>(spec.scale_for(s.head_features)));
  const double score_error =
      5 * scale * (2 * std::sqrt(dh) * q * q_error + kUnit<T> * (dh / 4 + 4 * std::sqrt(dh) + 8) * q * q) +
      4 * kUnit<T>;
  double out_error = 5 * (q * (2 * score_error + 2 * kUnit<T>)+q_error);
  if (s.projected) {
    // Sums of H Dv of these, times 1/2.
    const double sum = static_cast<double>(s.heads * s.value_features);
    out_error = out_error * (std::sqrt(sum) + 1) + kUnit<T> * (sum * q + 4);
  }
  double worst = 0;
  for_each_isa([&] {
    O result = p.out, sums = p.lse, shown = p.scores;
    attention.lse = sums.tensor();
    attention.scores = shown.tensor();
    if (!ok(attend_self_attention(p.x.tensor(), &weights, result.tensor(), &options, &attention))) return;
    for (O *o : {&result, &sums, &shown}) CHECK(o->gaps_untouched());
    const double ratio = worst_ratio(result, out.view, [&](auto...) { return out_error; });
    CHECK(ratio <= 1);
    const double of_lse = worst_ratio(sums, lse.view, [&](auto...) { return 2 * score_error + 8 * kUnit<T>; });
    const double of_scores = worst_ratio(shown, scores.view, [&](auto...) { return 2 * score_error + 8 * kUnit<T>; });
    CHECK(of_lse <= 1);
    CHECK(of_scores <= 1);
    worst = std::max({worst, ratio, of_lse, of_scores});
    // The output does not depend on what else is asked for.
    attention.lse = attention.scores = nullptr;
    O alone = p.out;
    if (!ok(attend_self_attention(p.x.tensor(), &weights, alone.tensor(), &options, &attention))) return;
    CHECK(alone.same_memory(result));
  });
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("self-attention: random shapes", T, float, double) {
  double worst = 0;
  Random random(31);
  for (int i = 0; i < 100; ++i) worst = std::max(worst, self_attention<T>(random));
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("self-attention: lse without output or value features", T, float, double) {
  Random random(33);
  for (const bool outputs : {false, true}) {
    // The output projection is an empty product of either orientation; the weights without elements are nowhere.
    Problem<T> p(random, {5, 4, outputs ? 0 : 27, 36, 2, 6, 1, outputs ? 8 : 0, true});
    attend_self_attention_weights weights = p.weights();
    attend_tensor w_v = *weights.w_v, w_o = *weights.w_o, out = *p.out.tensor();
    w_o.data = nullptr;
    if (outputs) w_v.data = nullptr;
    if (!outputs) out.data = nullptr;
    weights.w_v = &w_v;
    weights.w_o = &w_o;
    if (outputs) weights.b_v = nullptr;
    if (!outputs) weights.b_o = nullptr;
    attend_attention_options attention = {};
    attention.size = sizeof attention;
    for_each_isa([&] {
      Operand<T> alone = p.lse, beside = p.lse;
      attention.lse = beside.tensor();
      if (!ok(attend_self_attention(p.x.tensor(), &weights, &out, nullptr, &attention))) return;
      attend_self_attention_weights unprojected = p.weights();
      Operand<T> attended({p.s.value_features, 36, 6, 1}, {});
      unprojected.w_o = unprojected.b_o = nullptr;
      attention.lse = alone.tensor();
      if (!ok(attend_self_attention(p.x.tensor(), &unprojected, attended.tensor(), nullptr, &attention))) return;
      CHECK(alone.same_memory(beside));
    });
  }
}

TEST_CASE_TEMPLATE("self-attention: without value features the output projection leaves its bias", T, float, double) {
  Random random(32);
  Problem<T> p(random, {5, 4, 0, 9, 2, 4, 2, 6, true});
  p.biases[3] = true;
  const attend_self_attention_weights weights = p.weights();
  for_each_isa([&] {
    Operand<T> result = p.out;
    if (!ok(attend_self_attention(p.x.tensor(), &weights, result.tensor(), nullptr, nullptr))) return;
    result.each([&](T &x, int64_t i, auto...) { CHECK(x == p.b_o.at(i, 0)); });
    CHECK(result.gaps_untouched());
  });
}
