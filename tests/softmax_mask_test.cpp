// attend_softmax with mask and bias against the formula in a wider type, in both layouts; masked entries hold NaN and
// Inf.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// A mask of bytes of any nonzero value, broadcast where an extent is 1.
struct Mask {
  Shape shape, stride;
  std::vector<uint8_t> bytes;
  attend_tensor view;

  Mask(Random &random, const Shape &full) {
    int64_t count = 1;
    for (size_t d = 0; d < 4; ++d) {
      shape[d] = random.one_in(4) ? 1 : full[d];
      stride[d] = count;
      count *= shape[d];
    }
    const bool few = random.one_in(4);
    bytes.resize(static_cast<size_t>(count));
    for (uint8_t &b : bytes)
      b = (few ? random.one_in(6) : !random.one_in(4)) ? static_cast<uint8_t>(random.in(1, 255)) : 0;
    view = {bytes.data(), ATTEND_BOOL, 4, {}, {}};
    std::copy(shape.begin(), shape.end(), view.shape);
    std::copy(stride.begin(), stride.end(), view.stride);
  }
  bool at(int64_t i, int64_t j, int64_t h, int64_t b) const {
    const int64_t index[] = {i, j, h, b};
    int64_t offset = 0;
    for (size_t d = 0; d < 4; ++d) offset += shape[d] == 1 ? 0 : index[d] * stride[d];
    return bytes[static_cast<size_t>(offset)] != 0;
  }
};

template <class T>
double masked_softmax(Random &random, int64_t m, int64_t n) {
  using O = Operand<T>;
  const Shape full = {m, n, random.in(1, 2), random.in(1, 2)};
  Shape some = full;
  for (int64_t &extent : some) extent = random.one_in(4) ? 1 : extent;
  O x(full, O::random_input_layout(random, 4)), y(full, O::random_layout(random)), bias(some, O::random_layout(random));
  O lse({1, n, full[2], full[3]}, O::random_layout(random));
  x.fill(random, random.pick({1.0, 20.0}));
  bias.fill(random, 3);
  const T inf = std::numeric_limits<T>::infinity(), nan = std::numeric_limits<T>::quiet_NaN();
  const bool hides = random.one_in(2), masks = random.one_in(2), biased = hides || random.one_in(2);
  if (hides) bias.each([&](T &b, auto...) { b = random.one_in(5) ? -inf : b; });
  const Mask mask(random, full);
  const double scale = random.pick({1.0, 1.0, 0.3, -1.7});
  const auto bias_at = [&](int64_t i, int64_t j, int64_t h, int64_t b) {
    return bias.at(some[0] == 1 ? 0 : i, some[1] == 1 ? 0 : j, some[2] == 1 ? 0 : h, some[3] == 1 ? 0 : b);
  };
  INFO("m " << m << " n " << n << " scale " << scale << " bias " << biased << " hides " << hides << " masks " << masks);

  // Scores by the formula; what is masked is poisoned.
  reference::Buffer<Wide<T>> s(m, n, full[2], full[3]), p(m, n, full[2], full[3]), sums(1, n, full[2], full[3]);
  reference::Buffer<double> size(1, n, full[2], full[3]);
  x.each([&](T &value, int64_t i, int64_t j, int64_t h, int64_t b) {
    const bool hidden = (masks && !mask.at(i, j, h, b)) || (biased && bias_at(i, j, h, b) == -inf);
    Wide<T> score = static_cast<Wide<T>>(static_cast<T>(scale)) * Wide<T>(value);
    if (biased && !hidden) score += Wide<T>(bias_at(i, j, h, b));
    s.view.at(i, j, h, b) = hidden ? -std::numeric_limits<Wide<T>>::infinity() : score;
    if (hidden) {
      value = random.one_in(2) ? nan : inf;
    } else {
      double &largest = size.view.at(0, j, h, b);
      largest =
          std::max(largest, std::fabs(static_cast<double>(score)) + std::fabs(scale * static_cast<double>(value)));
    }
  });
  reference::naive::softmax<Wide<T>>(s.view, p.view, 1, false, &sums.view);

  attend_softmax_options options = {};
  options.size = sizeof options;
  options.scale = scale;
  options.threads = static_cast<int32_t>(random.in(1, 2));
  options.mask = masks ? &mask.view : nullptr;
  options.bias = biased ? bias.tensor() : nullptr;
  const double ulp = 2 * kUnit<T>;
  double worst = 0;
  for_each_isa([&] {
    O result = y, got = lse;
    result.fill_with(nan);
    got.fill_with(nan);
    options.flags = 0;
    options.lse = got.tensor();
    if (!ok(attend_softmax(x.tensor(), result.tensor(), &options))) return;
    CHECK(result.gaps_untouched());
    // Rounding the score moves the weight by as much, relatively.
    const double ratio = worst_ratio(result, p.view, [&](int64_t i, int64_t j, int64_t h, int64_t b) {
      return ulp * ((4 + 2 * size.view.at(0, j, h, b)) * static_cast<double>(p.view.at(i, j, h, b)) + 1);
    });
    CHECK(ratio <= 1);
    worst = std::max(worst, ratio);
    CHECK(worst_ratio(got, sums.view, [&](int64_t, int64_t j, int64_t h, int64_t b) {
            return ulp * (2 * size.view.at(0, j, h, b) + std::log(static_cast<double>(m) + 1) + 4);
          }) <= 1);
    result.each([&](T &value, int64_t i, int64_t j, int64_t h, int64_t b) {
      if (s.view.at(i, j, h, b) == -std::numeric_limits<Wide<T>>::infinity() && value != 0)
        FAIL("a masked entry has weight");
    });
    O logs = y;
    logs.fill_with(nan);
    options.flags = ATTEND_LOG;
    if (!ok(attend_softmax(x.tensor(), logs.tensor(), &options))) return;
    logs.each([&](T &value, int64_t i, int64_t j, int64_t h, int64_t b) {
      const Wide<T> score = s.view.at(i, j, h, b), total = sums.view.at(0, j, h, b);
      if (score == -std::numeric_limits<Wide<T>>::infinity()) {
        CHECK(value == -inf);
      } else {
        const double error = static_cast<double>(std::fabs(Wide<T>(value) - (score - total)));
        CHECK(error <= ulp * (4 * size.view.at(0, j, h, b) + std::log(static_cast<double>(m) + 1) + 4));
      }
    });
  });
  return worst;
}

}  // namespace

TEST_CASE_TEMPLATE("mask and bias, broadcast, in every layout", T, float, double) {
  Random random(sizeof(T) == 4 ? 71 : 72);
  double worst = 0;
  const int rounds = std::getenv("ATTEND_TEST_LONG") != nullptr ? 4000 : 60;
  for (int i = 0; i < rounds; ++i) {
    const int64_t m = random.one_in(8) ? random.pick<int64_t>({511, 512, 513, 1030}) : random.in(1, 70);
    worst = std::max(worst, masked_softmax<T>(random, m, random.in(1, 40)));
  }
  for (int i = 0; i < 4; ++i) worst = std::max(worst, masked_softmax<T>(random, 65537 + 99 * i, 2));
  MESSAGE("worst error, of the bound: " << worst);
}

TEST_CASE_TEMPLATE("a fully masked column gives 0 and lse -inf, and its neighbours do not notice", T, float, double) {
  for (const int64_t stride : {int64_t{1}, int64_t{3}}) {
    for (const int64_t m : {1, 5, 16, 17, 600}) {
      for_each_isa([&] {
        const size_t count = static_cast<size_t>(3 * m);
        std::vector<T> x(count, std::numeric_limits<T>::quiet_NaN()), y(count, T(7)), lse(3, T(7));
        const attend_tensor tx = {x.data(), kDtype<T>, 2, {m, 3, 0, 0}, {stride, stride == 1 ? m : 1, 0, 0}};
        for (int64_t i = 0; i < m; ++i)
          for (const int64_t j : {0, 2}) x[static_cast<size_t>(i * tx.stride[0] + j * tx.stride[1])] = T(1);
        attend_tensor ty = tx;
        ty.data = y.data();
        const attend_tensor tl = {lse.data(), kDtype<T>, 2, {1, 3, 0, 0}, {1, 1, 0, 0}};
        uint8_t keep[] = {1, 0, 1};
        const attend_tensor mask = {keep, ATTEND_BOOL, 2, {1, 3, 0, 0}, {0, 1, 0, 0}};
        attend_softmax_options options = {};
        options.size = sizeof options;
        options.mask = &mask;
        options.lse = &tl;
        if (!ok(attend_softmax(&tx, &ty, &options))) return;
        for (int64_t i = 0; i < m; ++i) {
          CHECK(y[static_cast<size_t>(i * tx.stride[0] + tx.stride[1])] == 0);
          CHECK(std::fabs(static_cast<double>(y[static_cast<size_t>(i * tx.stride[0])]) * static_cast<double>(m) - 1) <
                1e-5);
        }
        CHECK(lse[1] == -std::numeric_limits<T>::infinity());
        CHECK(std::isfinite(lse[0]));
      });
    }
  }
}
