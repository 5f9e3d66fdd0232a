// attend_attention of narrow types: the bits of the f32 call on the widened operands, rounded once, with every option.
#include "attention_problem.hpp"
#include "stored.hpp"

using namespace attend::test;

namespace {

// The same values, rounded to the type, in a layout of its own; `from` becomes what they are after that.
Stored rounded(Random &random, uint32_t dtype, Operand<float> *from) {
  Stored s(dtype, from->shape(), Operand<float>::random_input_layout(random, 4));
  s.numbers.each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) { x = from->at(i, j, h, b); });
  s.round();
  from->each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) { x = s.numbers.at(i, j, h, b); });
  return s;
}
Stored rounded(Random &random, uint32_t dtype, std::vector<float> *of_heads) {
  Operand<float> o({static_cast<int64_t>(of_heads->size()), 1, 1, 1}, {});
  o.each([&](float &x, int64_t i, auto...) { x = (*of_heads)[static_cast<size_t>(i)]; });
  Stored s = rounded(random, dtype, &o);
  o.each([&](float &x, int64_t i, auto...) { (*of_heads)[static_cast<size_t>(i)] = x; });
  return s;
}

void check(Random &random, Problem<float> &p) {
  const uint32_t kv = any_float(random), of_k = random.one_in(3) ? any_float(random) : kv;
  Stored q = rounded(random, any_float(random), &p.q), k = rounded(random, of_k, &p.k), v = rounded(random, kv, &p.v),
         bias = rounded(random, any_float(random), &p.bias), slopes = rounded(random, any_float(random), &p.slopes),
         sinks = rounded(random, any_float(random), &p.sinks);
  const uint32_t of_out = any_float(random);
  const Operand<float>::Layout out_layout = Operand<float>::random_layout(random);
  const bool shows = random.one_in(4);
  INFO(p.description() << " q " << q.dtype() << " k " << k.dtype() << " v " << v.dtype() << " out " << of_out
                       << " bias " << bias.dtype() << " shows " << shows);
  for_each_isa([&] {
    Operand<float> wanted = p.out, lse = p.lse, lse_wanted = p.lse, scores = p.scores, scores_wanted = p.scores;
    p.options.lse = lse_wanted.tensor();
    p.options.scores = shows ? scores_wanted.tensor() : nullptr;
    REQUIRE(ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), wanted.tensor(), &p.options)));
    Stored out(of_out, p.out.shape(), out_layout);
    attend_attention_options options = p.options;
    options.lse = lse.tensor();
    if (shows) options.scores = scores.tensor();
    if (p.biased) options.bias = bias.tensor();
    attend_tensor of_slopes = *slopes.tensor(), of_sinks = *sinks.tensor();
    of_slopes.rank = of_sinks.rank = 1;
    if (options.alibi_slopes != nullptr) options.alibi_slopes = &of_slopes;
    if (options.sinks != nullptr) options.sinks = &of_sinks;
    REQUIRE(ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options)));
    CHECK(out.is_rounded(wanted));
    CHECK(out.gaps_untouched());
    CHECK(lse.same_memory(lse_wanted));
    if (shows) CHECK(scores.same_memory(scores_wanted));
  });
}

}  // namespace

TEST_CASE("stored attention: any mixture of f32, bf16 and f16, with every option") {
  Random random(1);
  for (int i = 0; i < rounds(250, 25000); ++i) {
    Problem<float> p(random);
    if (random.one_in(2)) p.poison_hidden(random);
    check(random, p);
  }
}

TEST_CASE("stored attention: few queries over long keys, as in decoding, and blocks of many queries") {
  Random random(2);
  for (int i = 0; i < rounds(25, 2500); ++i) {
    Problem<float> decode(random, random.in(1024, 2500), random.in(1, 4)),
        prefill(random, random.in(200, 600), random.in(120, 300));
    check(random, decode);
    check(random, prefill);
  }
}

namespace {

// K or V of 8 bits and its scale, by key and head, by channel and head, or one number; `from` becomes their product.
struct Scaled {
  Stored values;
  Operand<float> scale;

  Scaled(Random &random, uint32_t dtype, bool powers, Operand<float> *from)
      : values(dtype, from->shape(), Operand<float>::random_input_layout(random, 4)),
        scale(shape_of(random, from->shape()), Operand<float>::random_input_layout(random, 4)) {
    values.fill(random, 40);
    scale.each([&](float &x, auto...) {
      x = powers ? std::ldexp(1.0f, static_cast<int>(random.in(-7, -4)))
                 : std::fabs(static_cast<float>(random.normal())) / 40;
    });
    from->each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) {
      const Shape &s = scale.shape();
      x = values.numbers.at(i, j, h, b) *
          scale.at(s[0] == 1 ? 0 : i, s[1] == 1 ? 0 : j, s[2] == 1 ? 0 : h, s[3] == 1 ? 0 : b);
    });
  }
  static Shape shape_of(Random &random, Shape s) {
    const int64_t kind = random.in(0, 3);
    s[kind == 1 ? 1 : 0] = 1;
    if (kind == 2) s[1] = s[2] = 1;
    if (random.one_in(2)) s[3] = 1;
    return s;
  }
};

double largest_difference(Operand<float> &a, Operand<float> &b) {
  double most = 0;
  a.each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t n) {
    const double apart = std::fabs(static_cast<double>(x) - static_cast<double>(b.at(i, j, h, n)));
    most = std::isnan(apart) && std::isnan(x) == std::isnan(b.at(i, j, h, n))
               ? most
               : std::max(most, std::isnan(apart) ? HUGE_VAL : apart);
  });
  return most;
}

void check_scaled(Random &random, Problem<float> &p) {
  const bool powers = random.one_in(2);
  const auto any_byte = [&] { return random.pick<uint32_t>({ATTEND_I8, ATTEND_F8E4M3}); };
  Scaled k(random, any_byte(), powers, &p.k), v(random, any_byte(), powers, &p.v);
  INFO(p.description() << " k " << k.values.dtype() << " scale " << k.scale.shape()[0] << " x " << k.scale.shape()[1]
                       << " v " << v.values.dtype() << " scale " << v.scale.shape()[0] << " x " << v.scale.shape()[1]
                       << " powers " << powers);
  Operand<float> first = p.out;
  bool is_first = true;
  for_each_isa([&] {
    Operand<float> wanted = p.out, out = p.out, alone = p.out, lse = p.lse, lse_wanted = p.lse, scores = p.scores,
                   scores_wanted = p.scores;
    attend_attention_options options = p.options;
    options.lse = lse_wanted.tensor();
    options.scores = scores_wanted.tensor();
    REQUIRE(ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), wanted.tensor(), &options)));
    options.lse = lse.tensor();
    options.scores = scores.tensor();
    options.k_scale = k.scale.tensor();
    options.v_scale = v.scale.tensor();
    REQUIRE(ok(attend_attention(p.q.tensor(), k.values.tensor(), v.values.tensor(), out.tensor(), &options)));
    options.lse = options.scores = nullptr;  // threads may share the keys then
    options.threads = 3;
    REQUIRE(ok(attend_attention(p.q.tensor(), k.values.tensor(), v.values.tensor(), alone.tensor(), &options)));
    CHECK(alone.same_memory(out));
    if (powers) {  // then nothing is rounded that the f32 call does not round, but what is subnormal before its scale
      out.each([&](float &x, int64_t i, int64_t j, int64_t h, int64_t b) {
        const float w = wanted.at(i, j, h, b);
        if (std::fabs(x) < 0x1p-100f && std::fabs(w) < 0x1p-100f && std::fabs(x - w) < 0x1p-126f) x = w;
      });
      CHECK(out.same_memory(wanted));
      CHECK(lse.same_memory(lse_wanted));
      CHECK(scores.same_memory(scores_wanted));
    } else {
      CHECK(largest_difference(out, wanted) <= 1e-3);
      CHECK(largest_difference(lse, lse_wanted) <= 1e-3);
    }
    if (!fuses(attend_isa())) return;
    if (is_first) first = out;
    is_first = false;
    CHECK(first.same_memory(out));
  });
}

}  // namespace

// Powers of two scale exactly, so that the order in which values, scores and weights are scaled does not show: the bits are
// those of the f32 call on the products.
TEST_CASE("stored attention: keys and values of 8 bits and their scales, with every option") {
  Random random(3);
  for (int i = 0; i < rounds(200, 20000); ++i) {
    Problem<float> p(random);
    check_scaled(random, p);
  }
  for (int i = 0; i < rounds(12, 1200); ++i) {
    Problem<float> decode(random, random.in(1024, 2500), random.in(1, 4));
    check_scaled(random, decode);
  }
}

TEST_CASE("stored attention: scales belong to types of 8 bits, and integers want one") {
  Stored q(ATTEND_F32, {8, 4, 1, 1}, {}), k8(ATTEND_I8, {8, 6, 1, 1}, {}), k32(ATTEND_F32, {8, 6, 1, 1}, {}),
      f8(ATTEND_F8E4M3, {8, 6, 1, 1}, {}), out(ATTEND_F32, {8, 4, 1, 1}, {});
  Operand<float> scale({1, 6, 1, 1}, {}), both({8, 6, 1, 1}, {});
  attend_attention_options options = options_with<attend_attention_options>(1);
  const auto fails = [&](Stored &k, Stored &v, int reason, const std::string &argument) {
    const attend_status s = attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options);
    CHECK(ATTEND_REASON(s) == reason);
    CHECK(attend_status_argument(s) == argument);
  };
  fails(k8, k32, ATTEND_NULL_POINTER, "options.k_scale");
  fails(k32, k8, ATTEND_NULL_POINTER, "options.v_scale");
  fails(f8, f8, ATTEND_OK, "");
  options.k_scale = scale.tensor();
  fails(k32, k32, ATTEND_INVALID_VALUE, "options.k_scale");
  fails(k8, f8, ATTEND_OK, "");
  options.k_scale = both.tensor();
  fails(k8, f8, ATTEND_INVALID_SHAPE, "options.k_scale");
}

// What other libraries lose by rounding scores to 16 bits, or overflow: 256 * 400 = 102400 is beyond f16.
TEST_CASE("stored attention: f16 operands with scores beyond f16's largest number") {
  const int64_t d = 64;
  Stored q(ATTEND_F16, {d, 1, 1, 1}, {}), k(ATTEND_F16, {d, 3, 1, 1}, {}), v(ATTEND_F16, {d, 3, 1, 1}, {});
  q.fill_with(40);
  k.numbers.each([](float &x, int64_t, int64_t j, auto...) { x = j == 1 ? 40.0f : 39.96875f; });
  k.round();
  v.numbers.each([](float &x, int64_t, int64_t j, auto...) { x = static_cast<float>(j); });
  v.round();
  attend_attention_options options = options_with<attend_attention_options>(1);
  options.scale = 1;
  for_each_isa([&] {
    Stored out(ATTEND_F16, {d, 1, 1, 1}, {});
    Operand<float> lse({1, 1, 1, 1}, {});
    options.lse = lse.tensor();
    REQUIRE(ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options)));
    CHECK(lse.at(0, 0) == 102400);
    CHECK(number_in(ATTEND_F16, out.bits(0, 0, 0, 0)) == 1);
  });
}

// Nothing is widened whole.
TEST_CASE("stored attention: the workspace does not grow with the keys") {
  for (const int64_t queries : {1, 300}) {
    uint64_t beside[2];
    for (int i = 0; i < 2; ++i) {
      const int64_t keys = i == 0 ? 4096 : 65536;
      const auto bytes = [&](uint32_t dtype) {
        const auto tensor = [&](int64_t columns) { return attend_tensor{nullptr, dtype, 2, {64, columns}, {1, 64}}; };
        const attend_tensor q = tensor(queries), k = tensor(keys), out = tensor(queries);
        attend_attention_options options = options_with<attend_attention_options>(2);
        uint64_t size = 0;
        REQUIRE(ok(attend_attention_workspace(&q, &k, &k, &out, &options, &size)));
        return size;
      };
      beside[i] = bytes(ATTEND_BF16) - bytes(ATTEND_F32);
    }
    CHECK(beside[0] == beside[1]);
    CHECK(beside[1] <= 2 * (256u * (64 + 64 + 16) + 128 * 64) * 4);
  }
}
