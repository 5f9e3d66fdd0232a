// attend_attention_merge: the union of two partial results, its identity, its errors.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

TEST_CASE_TEMPLATE("two halves of the keys merge to the whole", T, float, double) {
  using O = Operand<T>;
  Random random(sizeof(T) == 4 ? 91 : 92);
  double worst = 0;
  for (int round = 0; round < 40; ++round) {
    const int64_t d = random.in(1, 40), dv = random.in(1, 40), nq = random.in(1, 40), nk = random.in(1, 300);
    const int64_t heads = random.in(1, 3), batch = random.in(1, 2), cut = random.in(0, nk);
    O q({d, nq, heads, batch}, O::random_layout(random)), k({d, nk, heads, batch}, O::random_layout(random));
    O v({dv, nk, heads, batch}, O::random_layout(random));
    O out[3] = {O({dv, nq, heads, batch}, O::random_layout(random)),
                O({dv, nq, heads, batch}, O::random_layout(random)),
                O({dv, nq, heads, batch}, O::random_layout(random))};
    O lse[3] = {O({1, nq, heads, batch}, O::random_layout(random)), O({1, nq, heads, batch}, O::random_layout(random)),
                O({1, nq, heads, batch}, O::random_layout(random))};
    for (O *o : {&q, &k, &v}) o->fill(random, 2);
    INFO("D " << d << " Dv " << dv << " Nq " << nq << " Nk " << nk << " cut " << cut);
    // Keys before the cut, from it on, all of them.
    const int64_t from[] = {0, cut, 0}, to[] = {cut, nk, nk};
    for (size_t part = 0; part < 3; ++part) {
      attend_tensor tk = *k.tensor(), tv = *v.tensor();
      for (attend_tensor *t : {&tk, &tv}) {
        t->data = static_cast<T *>(t->data) + from[part] * t->stride[1];
        t->shape[1] = to[part] - from[part];
      }
      attend_attention_options options = {};
      options.size = sizeof options;
      options.lse = lse[part].tensor();
      REQUIRE(ok(attend_attention(q.tensor(), &tk, &tv, out[part].tensor(), &options)));
    }
    // The formula, from the partial results as they are.
    O want_out = out[0], want_lse = lse[0];
    want_out.each([&](T &x, int64_t f, int64_t i, int64_t h, int64_t b) {
      const Wide<T> la = lse[0].at(0, i, h, b), lb = lse[1].at(0, i, h, b), m = std::max(la, lb);
      const Wide<T> wa = std::exp(la - m), wb = std::exp(lb - m);
      const Wide<T> w = (wa * Wide<T>(out[0].at(f, i, h, b)) + wb * Wide<T>(out[1].at(f, i, h, b))) / (wa + wb);
      x = static_cast<T>(w);
      want_lse.at(0, i, h, b) = static_cast<T>(m + std::log(wa + wb));
    });
    attend_merge_options options = {};
    options.size = sizeof options;
    options.threads = static_cast<int32_t>(random.in(0, 3));
    const O b_before = out[1], lse_b_before = lse[1];
    REQUIRE(ok(attend_attention_merge(out[0].tensor(), lse[0].tensor(), out[1].tensor(), lse[1].tensor(), &options)));
    CHECK(out[0].gaps_untouched());
    CHECK(lse[0].gaps_untouched());
    CHECK(out[1].same_memory(b_before));
    CHECK(lse[1].same_memory(lse_b_before));
    WideCopy<T> formula(want_out), formula_lse(want_lse), whole(out[2]), whole_lse(lse[2]);
    const double ulp = 2 * kUnit<T>;
    const double ratio = worst_ratio(out[0], formula.view, [&](int64_t f, int64_t i, int64_t h, int64_t b) {
      return ulp * (4 * std::max({std::fabs(static_cast<double>(b_before.view_at(f, i, h, b))), 4.0}));
    });
    CHECK(ratio <= 1);
    worst = std::max(worst, ratio);
    CHECK(worst_ratio(lse[0], formula_lse.view, [&](auto...) { return 40 * ulp; }) <= 1);
    // And the whole, to what lse's own error of some ulp of its size allows.
    CHECK(worst_ratio(out[0], whole.view, [&](auto...) { return 400 * ulp; }) <= 1);
    CHECK(worst_ratio(lse[0], whole_lse.view, [&](auto...) { return 200 * ulp; }) <= 1);
  }
  MESSAGE("largest error over its bound: " << worst);
}

TEST_CASE_TEMPLATE("(0, -inf) is the identity, from either side", T, float, double) {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (const bool empty_first : {false, true}) {
    T a[] = {T(0.1), T(-3), T(0), T(0)}, b[] = {T(0), T(0), T(0.3), T(5)};
    T lse_a[] = {T(0.7), -inf}, lse_b[] = {-inf, T(-2)};
    const attend_tensor ta = {empty_first ? b : a, kDtype<T>, 2, {2, 2, 0, 0}, {1, 2, 0, 0}};
    const attend_tensor tb = {empty_first ? a : b, kDtype<T>, 2, {2, 2, 0, 0}, {1, 2, 0, 0}};
    const attend_tensor la = {empty_first ? lse_b : lse_a, kDtype<T>, 2, {1, 2, 0, 0}, {0, 1, 0, 0}};
    const attend_tensor lb = {empty_first ? lse_a : lse_b, kDtype<T>, 2, {1, 2, 0, 0}, {0, 1, 0, 0}};
    REQUIRE(ok(attend_attention_merge(&ta, &la, &tb, &lb, nullptr)));
    const T *out = static_cast<const T *>(ta.data), *lse = static_cast<const T *>(la.data);
    CHECK(std::vector<T>(out, out + 4) == std::vector<T>{T(0.1), T(-3), T(0.3), T(5)});
    CHECK(std::vector<T>(lse, lse + 2) == std::vector<T>{T(0.7), T(-2)});
  }
  // Two empty sets; and what an empty set holds does not matter.
  T a[] = {T(0)}, b[] = {nan}, lse_a[] = {-inf}, lse_b[] = {-inf};
  const attend_tensor ta = {a, kDtype<T>, 1, {1, 0, 0, 0}, {0, 0, 0, 0}},
                      tb = {b, kDtype<T>, 1, {1, 0, 0, 0}, {0, 0, 0, 0}};
  const attend_tensor la = {lse_a, kDtype<T>, 1, {1, 0, 0, 0}, {0, 0, 0, 0}};
  const attend_tensor lb = {lse_b, kDtype<T>, 1, {1, 0, 0, 0}, {0, 0, 0, 0}};
  REQUIRE(ok(attend_attention_merge(&ta, &la, &tb, &lb, nullptr)));
  CHECK(a[0] == 0);
  CHECK(lse_a[0] == -inf);
  lse_a[0] = T(1);
  REQUIRE(ok(attend_attention_merge(&ta, &la, &tb, &lb, nullptr)));
  CHECK(a[0] == 0);
}

TEST_CASE_TEMPLATE("a NaN or an lse of +inf of either side reaches the union, whatever the other side is", T, float,
                   double) {
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  for (const T other : {T(1), -inf, nan, inf}) {
    for (const int kind : {0, 1, 2, 3}) {
      // Of one side NaN, or what FlashAttention 2 says of a part without keys: out 0, lse +inf.
      const bool first = kind % 2 == 1;
      const T out = kind < 2 ? nan : T(0), sum = kind < 2 ? nan : inf;
      T a[] = {first ? out : T(2)}, b[] = {first ? T(2) : out};
      T lse_a[] = {first ? sum : other}, lse_b[] = {first ? other : sum};
      const auto tensor = [](T *data) { return attend_tensor{data, kDtype<T>, 1, {1, 0, 0, 0}, {0, 0, 0, 0}}; };
      const attend_tensor ta = tensor(a), la = tensor(lse_a), tb = tensor(b), lb = tensor(lse_b);
      INFO("lse " << sum << ", of the other side " << other << "; first " << first);
      REQUIRE(ok(attend_attention_merge(&ta, &la, &tb, &lb, nullptr)));
      CHECK(std::isnan(a[0]));
      CHECK(std::isnan(lse_a[0]));
    }
  }
}

TEST_CASE("merge: what is wrong, and with which argument") {
  float memory[64] = {};
  const attend_tensor good_out = {memory, ATTEND_F32, 2, {3, 2, 0, 0}, {1, 3, 0, 0}};
  const attend_tensor good_lse = {memory + 8, ATTEND_F32, 2, {1, 2, 0, 0}, {0, 1, 0, 0}};
  attend_tensor out_b = good_out, lse_b = good_lse;
  out_b.data = memory + 16;
  lse_b.data = memory + 24;
  attend_merge_options options = {};
  const auto fails = [&](const attend_tensor *a, const attend_tensor *la, const attend_tensor *b,
                         const attend_tensor *lb, int reason, const char *argument) {
    const std::vector<float> before(memory, memory + 64);
    const attend_status status = attend_attention_merge(a, la, b, lb, &options);
    CHECK(ATTEND_REASON(status) == reason);
    CHECK(std::string(attend_status_argument(status)) == argument);
    CHECK(before == std::vector<float>(memory, memory + 64));
  };
  fails(&good_out, &good_lse, &out_b, &lse_b, ATTEND_INVALID_STRUCT_SIZE, "options.size");
  options.size = sizeof options;
  fails(nullptr, &good_lse, &out_b, &lse_b, ATTEND_NULL_POINTER, "out_a");
  fails(&good_out, nullptr, &out_b, &lse_b, ATTEND_NULL_POINTER, "lse_a");
  fails(&good_out, &good_lse, nullptr, &lse_b, ATTEND_NULL_POINTER, "out_b");
  fails(&good_out, &good_lse, &out_b, nullptr, ATTEND_NULL_POINTER, "lse_b");
  attend_tensor wrong = out_b;
  wrong.shape[1] = 1;
  fails(&good_out, &good_lse, &wrong, &lse_b, ATTEND_INVALID_SHAPE, "out_b");
  wrong = good_lse;
  wrong.shape[1] = 1;
  fails(&good_out, &wrong, &out_b, &lse_b, ATTEND_INVALID_SHAPE, "lse_a");
  wrong = lse_b;
  wrong.dtype = ATTEND_F64;
  fails(&good_out, &good_lse, &out_b, &wrong, ATTEND_INVALID_DTYPE, "lse_b");
  fails(&good_out, &good_lse, &good_out, &lse_b, ATTEND_OVERLAP, "out_a");
  fails(&good_out, &good_lse, &out_b, &good_lse, ATTEND_OVERLAP, "lse_a");
  wrong = good_out;
  wrong.stride[1] = 1;
  fails(&wrong, &good_lse, &out_b, &lse_b, ATTEND_INVALID_STRIDE, "out_a");
  options.flags = 1;
  fails(&good_out, &good_lse, &out_b, &lse_b, ATTEND_UNSUPPORTED, "options.flags");
  options.flags = 0;
  options.threads = -1;
  fails(&good_out, &good_lse, &out_b, &lse_b, ATTEND_INVALID_VALUE, "options.threads");
}
