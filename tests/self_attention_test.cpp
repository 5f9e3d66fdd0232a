// attend_self_attention against the formula: heads, grouped-query weights, biases, output projection, batch.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
void self_attention(Random &random) {
  using O = Operand<T>;
  const int64_t features = random.in(1, 40), head = random.in(1, 20), values = random.in(1, 20),
                items = random.in(1, 90);
  const int64_t kv_heads = random.in(1, 2), heads = kv_heads * random.in(1, 3), batch = random.in(1, 2),
                outputs = random.in(1, 30);
  const bool biased = random.one_in(2), projected = random.one_in(2);
  const auto layout = [&] { return O::random_layout(random); };
  O x({features, items, 1, batch}, layout());
  O w_q({head, features, heads, 1}, layout()), w_k({head, features, kv_heads, 1}, layout());
  O w_v({values, features, kv_heads, 1}, layout()), w_o({outputs, values, heads, 1}, layout());
  O b_q({head, 1, heads, 1}, layout()), b_k({head, 1, kv_heads, 1}, layout()), b_v({values, 1, kv_heads, 1}, layout());
  O b_o({outputs, 1, 1, 1}, layout());
  O out(projected ? Shape{outputs, items, 1, batch} : Shape{values, items, heads, batch}, layout());
  O scores({items, items, heads, batch}, layout());
  for (O *o : {&x, &w_q, &w_k, &w_v, &w_o, &b_q, &b_k, &b_v, &b_o}) o->fill(random, 0.5);
  for (O *o : {&out, &scores}) o->fill_with(std::numeric_limits<T>::quiet_NaN());

  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  weights.w_q = w_q.tensor();
  weights.w_k = w_k.tensor();
  weights.w_v = w_v.tensor();
  if (biased) {
    weights.b_q = b_q.tensor();
    weights.b_k = b_k.tensor();
    weights.b_v = b_v.tensor();
  }
  if (projected) {
    weights.w_o = w_o.tensor();
    weights.b_o = biased ? b_o.tensor() : nullptr;
  }
  attend_self_attention_options options = {};
  options.size = sizeof options;
  options.threads = static_cast<int32_t>(random.in(0, 3));
  attend_attention_options attention = {};
  attention.size = sizeof attention;
  attention.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
  attention.scores = scores.tensor();
  attention.scores_stage = ATTEND_SCORES_PROBABILITIES;

  WideCopy<T> wx(x), wwq(w_q), wwk(w_k), wwv(w_v), wwo(w_o), wbq(b_q), wbk(b_k), wbv(b_v), wbo(b_o), wout(out),
      wscores(scores);
  reference::Weights<Wide<T>> wide = {wwq.view, wwk.view, wwv.view};
  if (biased) {
    wide.b_q = &wbq.view;
    wide.b_k = &wbk.view;
    wide.b_v = &wbv.view;
  }
  if (projected) {
    wide.w_o = &wwo.view;
    wide.b_o = biased ? &wbo.view : nullptr;
  }
  reference::AttentionSpec<Wide<T>> spec;
  spec.causal = attention.flags == 0 ? reference::Causal::none : reference::Causal::top_left;  // Nq = Nk: the same
  spec.scores = &wscores.view;
  spec.scores_stage = ATTEND_SCORES_PROBABILITIES;
  reference::naive::self_attention<Wide<T>>(wx.view, wide, wout.view, spec);

  INFO("D " << features << " Dh " << head << " Dv " << values << " N " << items << " H " << heads << "/" << kv_heads
            << " B " << batch << " biased " << biased << " projected " << projected << " flags " << attention.flags);
  if (!ok(attend_self_attention(x.tensor(), &weights, out.tensor(), &options, &attention))) return;
  CHECK(out.gaps_untouched());
  CHECK(scores.gaps_untouched());
  // Dot products of at most 40 terms of size 1/4 feed scores of size about 10: some hundred roundings.
  const double bound = 2000 * kUnit<T>;
  CHECK(worst_ratio(out, wout.view, [&](auto...) { return bound; }) <= 1);
  CHECK(worst_ratio(scores, wscores.view, [&](auto...) { return bound; }) <= 1);
}

}  // namespace

TEST_CASE_TEMPLATE("self-attention: random shapes", T, float, double) {
  for_each_isa([] {
    Random random(31);
    for (int i = 0; i < 60; ++i) self_attention<T>(random);
  });
}
