// attend/attend.hpp: attention_backward, with the bits of the C call and the slopes of what attention computes.
#include <attend/attend.hpp>

#include "hpp/results.hpp"

using namespace attend::test;
using attend::tensor;

namespace {

struct Bf16 {
  uint16_t bits;
};

}  // namespace

template <>
struct attend::element<Bf16> {
  static constexpr std::uint32_t dtype = ATTEND_BF16;
};

namespace {

// Two query heads for each of keys; as attend.h has it, and as NumPy.
constexpr int64_t kB = 2, kH = 4, kKv = 2, kQueries = 5, kKeys = 7, kD = 8, kDv = 6;
struct Shape4 {
  int64_t batch, heads, items, features;
  attend::extents numpy() const { return {batch, heads, items, features}; }
  template <class T>
  attend_tensor c(const std::vector<T> &x) const {
    return {const_cast<T *>(x.data()),
            attend::element<T>::dtype,
            4,
            {features, items, heads, batch},
            {1, features, items * features, heads * items * features}};
  }
  int64_t count() const { return batch * heads * items * features; }
};
constexpr Shape4 kQ = {kB, kH, kQueries, kD}, kK = {kB, kKv, kKeys, kD}, kV = {kB, kKv, kKeys, kDv},
                 kOut = {kB, kH, kQueries, kDv}, kLse = {kB, kH, kQueries, 1}, kBias = {1, kH, kQueries, kKeys},
                 kSinks = {1, 1, 1, kH};

template <class T>
struct Numbers {
  std::vector<T> q = normals<T>(kQ.count(), 1), k = normals<T>(kK.count(), 2), v = normals<T>(kV.count(), 3),
                 d_out = normals<T>(kOut.count(), 4), d_lse = normals<T>(kLse.count(), 5),
                 bias = normals<T>(kBias.count(), 6), sinks = normals<T>(kH, 7), out = std::vector<T>(d_out.size()),
                 lse = std::vector<T>(d_lse.size());

  Numbers() { attend::attention(of_q(), of_k(), of_v(), of_out(), options()); }
  auto of_q() const { return tensor(q, kQ.numpy()); }
  auto of_k() const { return tensor(k, kK.numpy()); }
  auto of_v() const { return tensor(v, kV.numpy()); }
  auto of_out() { return tensor(out, kOut.numpy()); }
  auto of_d_out() const { return tensor(d_out, kOut.numpy()); }
  auto of_d_lse() const { return tensor(d_lse, kLse.numpy()); }
  // The forward call's, as they are; only its `lse` is written.
  attend::attention_options options() {
    return attend::attention_options()
        .causal_top_left()
        .query_offset(1)
        .softcap(3)
        .bias(tensor(bias, kBias.numpy()))
        .sinks(sinks)
        .lse(tensor(lse, kLse.numpy()));
  }
  // The number that the gradients are of.
  double loss() {
    attend::attention(of_q(), of_k(), of_v(), of_out(), options());
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += static_cast<double>(out[i] * d_out[i]);
    for (size_t i = 0; i < lse.size(); ++i) sum += static_cast<double>(lse[i] * d_lse[i]);
    return sum;
  }
};

template <class T>
struct Gradients {
  std::vector<T> q, k, v, bias, sinks;
  // What gradients are added to.
  Gradients() : q(normals<T>(kQ.count(), 8)), k(normals<T>(kK.count(), 9)), v(normals<T>(kV.count(), 10)) {
    bias = normals<T>(kBias.count(), 11);
    sinks = normals<T>(kH, 12);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("attention_backward: bits of the C call", T, float, double) {
  Numbers<T> n;
  for (const bool accumulates : {false, true}) {
    Gradients<T> wanted, mine;
    const attend_tensor q = kQ.c(n.q), k = kK.c(n.k), v = kV.c(n.v), out = kOut.c(n.out), d_out = kOut.c(n.d_out),
                        d_q = kQ.c(wanted.q), d_k = kK.c(wanted.k), d_v = kV.c(wanted.v), lse = kLse.c(n.lse),
                        d_lse = kLse.c(n.d_lse), bias = kBias.c(n.bias), d_bias = kBias.c(wanted.bias),
                        sinks = kSinks.c(n.sinks), d_sinks = kSinks.c(wanted.sinks);
    attend_attention_options of_forward = ATTEND_ATTENTION_OPTIONS_INIT;
    of_forward.flags = ATTEND_CAUSAL_TOP_LEFT;
    of_forward.query_offset = 1;
    of_forward.softcap = 3;
    of_forward.bias = &bias;
    of_forward.sinks = &sinks;
    of_forward.lse = &lse;
    attend_attention_backward_options o = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
    if (accumulates) o.flags = ATTEND_ACCUMULATE;
    o.d_lse = &d_lse;
    o.d_bias = &d_bias;
    o.d_sinks = &d_sinks;
    REQUIRE(ok(attend_attention_backward(&q, &k, &v, &out, &d_out, &d_q, &d_k, &d_v, &o, &of_forward)));

    auto options = attend::attention_backward_options().d_lse(n.of_d_lse());
    options.d_bias(tensor(mine.bias, kBias.numpy())).d_sinks(mine.sinks);
    if (accumulates) options.accumulate();
    const auto run = [&](const attend::attention_options &forward, const attend::attention_backward_options &backward) {
      attend::attention_backward(n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), tensor(mine.q, kQ.numpy()),
                                 tensor(mine.k, kK.numpy()), tensor(mine.v, kV.numpy()), forward, backward);
    };
    run(n.options(), options);
    CHECK(same_bits(mine.q, wanted.q));
    CHECK(same_bits(mine.k, wanted.k));
    CHECK(same_bits(mine.v, wanted.v));
    CHECK(same_bits(mine.bias, wanted.bias));
    CHECK(same_bits(mine.sinks, wanted.sinks));
    if (accumulates) continue;

    // Owned ones, in a workspace, without d_bias and d_sinks; then one gradient alone.
    const auto backward = attend::attention_backward_options().d_lse(n.of_d_lse());
    const attend::attention_gradients<T> owned =
        attend::attention_backward(n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), n.options(), backward);
    CHECK(same_bits(owned.d_q, wanted.q));
    CHECK(same_bits(owned.d_k, wanted.k));
    CHECK(same_bits(owned.d_v, wanted.v));
    CHECK((owned.d_k.extent(0) == kD && owned.d_k.extent(1) == kKeys && owned.d_k.extent(2) == kKv));
    std::fill(mine.k.begin(), mine.k.end(), T(0));
    const auto of_d_k = tensor(mine.k, kK.numpy());
    auto in_workspace = backward;
    std::vector<unsigned char> room(attend::attention_backward_workspace(
        n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), nullptr, of_d_k, nullptr, n.options(), backward));
    REQUIRE(!room.empty());
    attend::attention_backward(n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), nullptr, of_d_k, nullptr,
                               n.options(), in_workspace.workspace(room));
    CHECK(same_bits(mine.k, wanted.k));
  }
}

TEST_CASE("attention_backward: the slopes of attention") {
  Numbers<double> n;
  Gradients<double> g;
  const attend::attention_gradients<double> of = attend::attention_backward(
      n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), n.options(),
      attend::attention_backward_options().d_lse(n.of_d_lse()).d_bias(tensor(g.bias, kBias.numpy())).d_sinks(g.sinks));
  Random random(13);
  const auto check = [&](const char *name, std::vector<double> &x, const double *slopes) {
    INFO(name);
    for (int round = 0; round < 12; ++round) {
      const auto i = static_cast<size_t>(random.in(0, static_cast<int64_t>(x.size()) - 1));
      const double there = x[i], step = 1e-5;
      x[i] = there + step;
      const double above = n.loss();
      x[i] = there - step;
      const double below = n.loss();
      x[i] = there;
      CHECK(std::fabs((above - below) / (2 * step) - slopes[i]) < 1e-8 * (1 + std::fabs(slopes[i])));
    }
  };
  check("q", n.q, of.d_q.data());
  check("k", n.k, of.d_k.data());
  check("v", n.v, of.d_v.data());
  check("bias", n.bias, g.bias.data());
  check("sinks", n.sinks, g.sinks.data());
}

TEST_CASE("attention_backward: narrow operands, of which one batch serves two") {
  const std::vector<float> x = normals<float>(2 * 3 * 4, 14);
  const auto one = attend::convert<Bf16>(tensor(x.data(), {1, 1, 3, 4})),
             two = attend::convert<Bf16>(tensor(x, {2, 1, 3, 4}));
  const auto out = attend::attention(two, one, one);
  const attend::attention_gradients<float> of = attend::attention_backward(two, one, one, out, two);
  CHECK((of.d_q.extent(3) == 2 && of.d_k.extent(3) == 1));
  // As the sum over batches of one each.
  std::vector<float> sum(12);
  for (int64_t b = 0; b < 2; ++b) {
    const auto part = [&](const attend::array<Bf16> &y) { return tensor(y.data() + 12 * b, {1, 1, 3, 4}); };
    attend::attention_backward(part(two), one, one, part(out), part(two), nullptr, tensor(sum, {1, 1, 3, 4}), nullptr,
                               {}, attend::attention_backward_options().accumulate());
  }
  for (size_t i = 0; i < 12; ++i) CHECK(std::fabs(of.d_k[i] - sum[i]) <= 1e-6f);
  std::vector<Bf16> narrow(24);
  attend::attention_backward(two, one, one, out, two, tensor(narrow, {2, 1, 3, 4}), nullptr, nullptr);
  const auto rounded = attend::convert<Bf16>(of.d_q);
  CHECK(same_bits(narrow, rounded));
  const Thrown t = thrown([&] {
    attend::attention_backward(two, one, one, out, two, nullptr, tensor(narrow.data(), {3, 4}), nullptr);
  });
  CHECK(t.reason == ATTEND_INVALID_DTYPE);
  CHECK(t.argument == "d_k");
}

TEST_CASE("attention_backward: keys in two calls, and queries in two, have the gradients of one") {
  constexpr int64_t kN = 300, kDim = 4;
  std::vector<float> q = normals<float>(kN * kDim, 21), k = normals<float>(kN * kDim, 22),
                     v = normals<float>(kN * kDim, 23), d_out = normals<float>(kN * kDim, 24), lse(kN), delta(kN),
                     again(kN);
  const auto of = [](std::vector<float> &x, int64_t a, int64_t b, int64_t features = 4) {
    return attend::tensor(x.data() + a * features, {int64_t{1}, b - a, features});
  };
  const auto options = [&](int64_t a, int64_t b) {
    return attend::attention_options().causal_top_left().query_offset(a).lse(of(lse, a, b, 1));
  };
  const attend::array<float> out = attend::attention(of(q, 0, kN), of(k, 0, kN), of(v, 0, kN), options(0, kN));
  std::vector<float> outs(out.begin(), out.end());
  const auto run = [&](int64_t q0, int64_t q1, int64_t k0, int64_t k1, auto &&d_q, auto &&d_k, auto &&d_v,
                       const attend::attention_backward_options &o, int64_t key_offset = 0) {
    attend::attention_backward(of(q, q0, q1), of(k, k0, k1), of(v, k0, k1), of(outs, q0, q1), of(d_out, q0, q1), d_q,
                               d_k, d_v, options(q0, q1).key_offset(key_offset), o);
  };
  using backward = attend::attention_backward_options;
  std::vector<float> want[3], got[3];
  for (int i = 0; i < 3; ++i) want[i].resize(kN * kDim), got[i].resize(kN * kDim);
  run(0, kN, 0, kN, of(want[0], 0, kN), of(want[1], 0, kN), of(want[2], 0, kN), backward().delta(of(delta, 0, kN, 1)));
  std::vector<float> state(2 * kN * kDim), k_state(kN * kDim), v_state(kN * kDim);
  const std::vector<int64_t> total = {kN}, totals = {kN, kN};
  const auto of_keys = [&] {
    return backward().d_q_state(attend::tensor(state, {int64_t{1}, kN, 2 * kDim})).total_keys(total);
  };
  for (const int64_t a : {0, 256}) {
    const int64_t b = a == 0 ? 256 : kN;
    run(0, kN, a, b, of(got[0], 0, kN), of(got[1], a, b), of(got[2], a, b),
        a == 0 ? of_keys().pauses() : of_keys().resumes(), a);
  }
  for (int i = 0; i < 3; ++i) CHECK(same_bits(got[i], want[i]));
  for (auto &x : got) std::fill(x.begin(), x.end(), 7.0f);
  const auto of_queries = [&] { return backward().d_k_state(of(k_state, 0, kN)).d_v_state(of(v_state, 0, kN)); };
  for (const int64_t a : {0, 128}) {
    const int64_t b = a == 0 ? 128 : kN;
    run(a, b, 0, kN, of(got[0], a, b), of(got[1], 0, kN), of(got[2], 0, kN),
        (a == 0 ? of_queries().pauses() : of_queries().resumes()).delta(of(again, a, b, 1)));
  }
  for (int i = 0; i < 3; ++i) CHECK(same_bits(got[i], want[i]));
  CHECK(same_bits(again, delta));
  const Thrown t =
      thrown([&] { run(0, kN, 0, kN, of(got[0], 0, kN), nullptr, nullptr, of_keys().total_keys(totals)); });
  CHECK(t.what == "options.total_keys: has 2 numbers, but the batch is 1.");
}

TEST_CASE("attention_backward: options of the forward call as they are, and what is refused") {
  Numbers<float> n;
  std::vector<char> too_small(1);
  int32_t most = 0;
  const attend::executor executor([&](int32_t tasks, attend::task task) {
    most = std::max(most, tasks);
    for (int32_t i = 0; i < tasks; ++i) task(i);
  });
  const auto run = [&](const attend::attention_options &forward, const attend::attention_backward_options &options) {
    return attend::attention_backward(n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_d_out(), forward, options);
  };
  using backward = attend::attention_backward_options;
  const auto wanted = run(n.options(), {});
  auto forward = n.options();
  CHECK(same_bits(run(forward.workspace(too_small).threads(1).native_dot(), {}).d_q, wanted.d_q));
  CHECK(thrown([&] { run(forward.threads(-1), {}); }).argument == "options.threads");
  CHECK(same_bits(run(forward, backward().threads(1)).d_v, wanted.d_v));
  CHECK(thrown([&] { run(n.options(), backward().workspace(too_small)); }).reason == ATTEND_WORKSPACE_TOO_SMALL);
  // The forward's executor, and its own first.
  const std::vector<float> large = normals<float>(4 * 300 * 32, 15);
  const tensor t(large, {4, 300, 32});
  const auto out = attend::attention(t, t, t);
  attend::attention_backward(t, t, t, out, t, attend::attention_options().executor(executor).threads(2));
  CHECK(most == 2);
  most = 0;
  attend::attention_backward(t, t, t, out, t, attend::attention_options().executor(executor).threads(2),
                             backward().threads(1));
  CHECK(most == 0);

  const Thrown nothing = thrown([&] { run(n.options(), backward().accumulate()); });
  CHECK(nothing.reason == ATTEND_INVALID_VALUE);
  CHECK(nothing.what == "options.flags: has ATTEND_ACCUMULATE, but without outputs there is nothing to add to.");
  std::vector<float> d_bias(n.bias.size());
  const auto no_bias = attend::attention_options();
  CHECK(thrown([&] { run(no_bias, backward().d_bias(tensor(d_bias, kBias.numpy()))); }).argument == "options.d_bias");
  const std::vector<int64_t> lengths(3, 1);
  CHECK(thrown([&] { run(attend::attention_options().kv_lengths(lengths), {}); }).what ==
        "options.kv_lengths: has 3 numbers, but the batch is 2.");
  const Thrown t2 =
      thrown([&] { attend::attention_backward(n.of_q(), n.of_k(), n.of_v(), n.of_out(), n.of_v(), n.options()); });
  CHECK(t2.argument == "d_out");
}
