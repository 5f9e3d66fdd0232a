// Scales and softcaps of any size that the element type holds give the right result; others are refused.
#include "attention_call.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// D = 4, and keys whose scores are `step` apart, with the values 1, 2, 4.
template <class T>
struct ThreeKeys : AttentionCall<T> {
  ThreeKeys(Random &random, int64_t nq, T query, T first, T step) : AttentionCall<T>(random, 4, 1, nq, 3) {
    for (Operand<T> *o : {&this->q, &this->k}) o->fill_with(0);
    for (int64_t i = 0; i < nq; ++i) this->q.at(0, i) = query;
    for (int64_t j = 0; j < 3; ++j) {
      this->k.at(0, j) = first + static_cast<T>(j) * step;
      this->v.at(0, j) = static_cast<T>(1 << j);
    }
  }
  void check(double want) {
    if (!this->run()) return;
    this->out.each([&](T &x, auto...) { CHECK(std::fabs(static_cast<double>(x) - want) <= 40 * kUnit<T>); });
  }
  void check_refused(const char *argument) {
    this->out.fill_with(std::numeric_limits<T>::quiet_NaN());
    const attend_status status =
        attend_attention(this->q.tensor(), this->k.tensor(), this->v.tensor(), this->out.tensor(), &this->options);
    CHECK(ATTEND_REASON(status) == ATTEND_INVALID_VALUE);
    CHECK(std::string(attend_status_argument(status)) == argument);
    this->out.each([](T &x, auto...) { CHECK(std::isnan(x)); });
  }
};

// Of the values 1, 2, 4 whose scores are `step` apart.
double mean_of(double step) {
  const double e0 = std::exp(-2 * step), e1 = std::exp(-step);
  return (e0 + 2 * e1 + 4) / (e0 + e1 + 1);
}

template <class T>
std::vector<double> narrow_softcaps() {
  return sizeof(T) == 4 ? std::vector<double>{1e-20, 1e-37, 1e-38, 3e-39} : std::vector<double>{1e-200, 1e-307, 6e-309};
}

// All scores are equal, those that are 0 too.
template <class T>
void check_narrow(const std::vector<double> &softcaps) {
  Random random(1201);
  for_each_table([&](const std::string &, const std::string &) {
    for (const double softcap : softcaps) {
      for (const T first : {T(1), T(0)}) {
        for (const int64_t nq : {1, 20}) {
          INFO("softcap " << softcap << " first key " << first << " Nq " << nq);
          ThreeKeys<T> call(random, nq, 1, first, 4);
          call.options.softcap = softcap;
          call.check(7.0 / 3);
        }
      }
    }
  });
}

}  // namespace

TEST_CASE_TEMPLATE("softcaps near the largest number cap nothing", T, float, double) {
  const std::vector<double> wide = sizeof(T) == 4 ? std::vector<double>{1e30, 2.4e38, 3.4e38, 3.4028234663852886e38}
                                                  : std::vector<double>{1e300, 1.7e308, 1.7976931348623157e308};
  Random random(sizeof(T) == 4 ? 1211 : 1212);
  for_each_table([&](const std::string &, const std::string &) {
    for (const double softcap : wide) {
      for (const int64_t nq : {1, 20}) {
        INFO("softcap " << softcap << " Nq " << nq);
        ThreeKeys<T> call(random, nq, 1, 1, 4);
        call.options.softcap = softcap;
        call.check(mean_of(2));
        // Scores of any size are what they are without one.
        Operand<T> plain({3, nq, 1, 1}, {}), capped = plain;
        call.k.each([&](T &x, auto...) { x = static_cast<T>(std::pow(10, random.in(-30, 20)) * random.normal()); });
        call.options.scores = capped.tensor();
        call.options.scores_stage = ATTEND_SCORES_SOFTCAPPED;
        if (!call.run()) return;
        call.options.scores = plain.tensor();
        call.options.scores_stage = ATTEND_SCORES_SCALED;
        if (!call.run()) return;
        CHECK(capped.same_memory(plain));
      }
    }
  });
}

TEST_CASE_TEMPLATE("softcaps near 0 make all scores equal", T, float, double) { check_narrow<T>(narrow_softcaps<T>()); }

TEST_CASE_TEMPLATE("softcaps whose reciprocal overflows make all scores equal too", T, float, double) {
  check_narrow<T>(sizeof(T) == 4 ? std::vector<double>{2e-39, 1e-40, 1e-45}
                                 : std::vector<double>{5e-309, 1e-310, 5e-324});
}

TEST_CASE("what f32 does not hold is refused, whatever the other operands make of it") {
  Random random(1203);
  for (const double scale : {1e39, -1e40, 1e-46}) {
    ThreeKeys<float> call(random, 1, scale < 1 ? 1e38f : 1e-20f, 0, scale < 1 ? 1e8f : 1e-20f);
    call.options.scale = scale;
    call.check_refused("options.scale");
    Operand<float> x({2, 1, 1, 1}, {}), y = x;
    x.fill_with(7e-40f);
    auto options = options_with<attend_softmax_options>(1);
    options.scale = scale;
    CHECK(ATTEND_REASON(attend_softmax(x.tensor(), y.tensor(), &options)) == ATTEND_INVALID_VALUE);
    CHECK(y.gaps_untouched());
  }
  for (const double softcap : {1e39, 1e-46}) {
    ThreeKeys<float> call(random, 1, 1, 1, 4);
    call.options.softcap = softcap;
    call.check_refused("options.softcap");
  }
}

TEST_CASE("scales next to the ends of f32") {
  struct Case {
    double scale;
    float q, k;
  };
  Random random(1204);
  for_each_table([&](const std::string &, const std::string &) {
    for (const Case &x : {Case{3e38, 1e-20f, 1e-18f}, Case{1e-37, 1e38f, 0.1f}, Case{-3e38, -1e-38f, 0.5f}}) {
      for (const int64_t nq : {1, 20}) {
        INFO("scale " << x.scale << " q " << x.q << " Nq " << nq);
        ThreeKeys<float> call(random, nq, x.q, 0, x.k);
        call.options.scale = x.scale;
        call.check(mean_of(x.scale * static_cast<double>(x.q) * static_cast<double>(x.k)));
      }
    }
  });
}
