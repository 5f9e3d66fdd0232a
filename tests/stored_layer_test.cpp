// attend_self_attention and attend_attention_merge of narrow types: the bits of the f32 call on the widened operands,
// rounded once.
#include "stored.hpp"

using namespace attend::test;

TEST_CASE("stored self-attention: any mixture of types, with and without an output projection") {
  Random random(1);
  for (int round = 0; round < rounds(60, 6000); ++round) {
    const int64_t d = random.pick<int64_t>({1, 5, 16, 40}), dh = random.pick<int64_t>({1, 8, 17}),
                  dv = random.pick<int64_t>({1, 8, 12}), n = random.in(1, 70), heads = random.pick<int64_t>({1, 2, 4}),
                  kv_heads = random.one_in(2) ? heads : 1, batch = random.in(1, 2), d_out = random.in(1, 30);
    const bool projects = random.one_in(2), biased = random.one_in(2);
    const Shape of_out = projects ? Shape{d_out, n, 1, batch} : Shape{dv, n, heads, batch};
    const auto operand = [&](const Shape &shape) {
      Stored s(any_float(random), shape, Operand<float>::random_input_layout(random, 4));
      s.fill(random);
      return s;
    };
    Stored x = operand({d, n, 1, batch}), w_q = operand({dh, d, heads, 1}), w_k = operand({dh, d, kv_heads, 1}),
           w_v = operand({dv, d, kv_heads, 1}), b_q = operand({dh, 1, heads, 1}), b_v = operand({dv, 1, kv_heads, 1}),
           w_o = operand({d_out, dv, heads, 1}), b_o = operand({d_out, 1, 1, 1});
    Stored out(any_float(random), of_out, Operand<float>::random_layout(random));
    attend_self_attention_weights narrow = ATTEND_SELF_ATTENTION_WEIGHTS_INIT, wide = narrow;
    const auto both = [&](const attend_tensor *attend_self_attention_weights::*field, Stored &s) {
      narrow.*field = s.tensor();
      wide.*field = s.numbers.tensor();
    };
    both(&attend_self_attention_weights::w_q, w_q);
    both(&attend_self_attention_weights::w_k, w_k);
    both(&attend_self_attention_weights::w_v, w_v);
    if (biased) both(&attend_self_attention_weights::b_q, b_q), both(&attend_self_attention_weights::b_v, b_v);
    if (projects) both(&attend_self_attention_weights::w_o, w_o);
    if (projects && biased) both(&attend_self_attention_weights::b_o, b_o);
    attend_attention_options attention = options_with<attend_attention_options>(0);
    if (random.one_in(2)) attention.flags = ATTEND_CAUSAL_TOP_LEFT;
    INFO("D " << d << " Dh " << dh << " Dv " << dv << " N " << n << " H " << heads << " Hkv " << kv_heads
              << " projects " << projects << " biased " << biased << " x " << x.dtype() << " out " << out.dtype());
    for_each_isa([&] {
      Operand<float> wanted = out.numbers;
      Stored result = out;
      attend_self_attention_options options =
          options_with<attend_self_attention_options>(static_cast<int32_t>(random.in(1, 2)));
      REQUIRE(ok(attend_self_attention(x.numbers.tensor(), &wide, wanted.tensor(), &options, &attention)));
      REQUIRE(ok(attend_self_attention(x.tensor(), &narrow, result.tensor(), &options, &attention)));
      CHECK(result.is_rounded(wanted));
      CHECK(result.gaps_untouched());
    });
  }
}

TEST_CASE("stored merge: any mixture of types") {
  Random random(2);
  for (int round = 0; round < rounds(60, 6000); ++round) {
    const int64_t dv = random.pick<int64_t>({1, 7, 64, 127, 129, 300}), nq = random.in(1, 9), heads = random.in(1, 3);
    const auto layout = [&] { return Operand<float>::random_layout(random); };
    Stored a(any_float(random), {dv, nq, heads, 1}, layout()), b(any_float(random), {dv, nq, heads, 1}, layout());
    Operand<float> lse_a({1, nq, heads, 1}, {}), lse_b({1, nq, heads, 1}, {});
    a.fill(random), b.fill(random), lse_a.fill(random, 2), lse_b.fill(random, 2);
    lse_b.at(0, 0) = -std::numeric_limits<float>::infinity();
    for_each_isa([&] {
      Stored result = a;
      Operand<float> wanted = a.numbers, lse = lse_a, lse_wanted = lse_a;
      attend_merge_options options = options_with<attend_merge_options>(1);
      REQUIRE(ok(
          attend_attention_merge(wanted.tensor(), lse_wanted.tensor(), b.numbers.tensor(), lse_b.tensor(), &options)));
      REQUIRE(ok(attend_attention_merge(result.tensor(), lse.tensor(), b.tensor(), lse_b.tensor(), &options)));
      CHECK(result.is_rounded(wanted));
      CHECK(result.gaps_untouched());
      CHECK(lse.same_memory(lse_wanted));
    });
  }
}
