// attend_softmax where the number of columns and the size of the results decide how it works: strips of several vectors
// with neighbours on both sides, columns beyond the scratch, results that go past the caches.
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
void large_softmax(Random &random, int64_t m, int64_t n, bool by_rows, bool unaligned = false) {
  using O = Operand<T>;
  typename O::Layout layout;
  if (by_rows) std::swap(layout.order[0], layout.order[1]);
  // Whole cache lines, or not.
  if (random.one_in(3)) layout.padding = random.in(1, 15);
  if (random.one_in(3)) layout.offset = random.in(1, 15);
  if (unaligned) layout.padding = 0, layout.offset = 1;  // every column in the same way
  O x({m, n, 1, 1}, layout), y({m, n, 1, 1}, layout);
  x.fill(random, 5);
  const WideCopy<T> scores(x);
  const double ulp = 2 * kUnit<T>;
  attend_softmax_options options = {};
  options.size = sizeof options;
#if defined(ATTEND_TEST_SANITIZED)  // minutes, of which what decides about addresses is the same for both
  const std::vector<uint32_t> kinds = {random.one_in(2) ? 0u : ATTEND_LOG};
#else
  const std::vector<uint32_t> kinds = {0u, ATTEND_LOG};
#endif
  for (const uint32_t flags : kinds) {
    const bool log = flags != 0;
    options.scale = random.one_in(2) ? 1 : 0.5;  // exact
    INFO("m " << m << " n " << n << " by rows " << by_rows << " padding " << layout.padding << " offset "
              << layout.offset << " scale " << options.scale << " log " << log);
    options.flags = flags;
    WideCopy<T> want(y);
    reference::naive::softmax<Wide<T>>(scores.view, want.view, options.scale, log);
    std::vector<double> largest(static_cast<size_t>(n));
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < m; ++i) {
        double &top = largest[static_cast<size_t>(j)];
        top = std::max(top, static_cast<double>(want.view.at(i, j, 0, 0)));
      }
    }
    const auto bound = [&](int64_t i, int64_t j, int64_t, int64_t) {
      const double value = std::fabs(static_cast<double>(want.view.at(i, j, 0, 0)));
      if (log) return ulp * (2 * value + 4 + std::fabs(static_cast<double>(scores.view.at(i, j, 0, 0))));
      return ulp * (4 * value + largest[static_cast<size_t>(j)]);
    };
    for_each_isa([&] {
      O apart = y, in_place = x;
      for (const int32_t threads : {1, 2}) {
        options.threads = threads;
        apart.fill_with(std::numeric_limits<T>::quiet_NaN());
        if (!ok(attend_softmax(x.tensor(), apart.tensor(), &options))) return;
        CHECK(worst_ratio(apart, want.view, bound) <= 1);
      }
      CHECK(apart.gaps_untouched());
      if (!ok(attend_softmax(in_place.tensor(), in_place.tensor(), &options))) return;
      CHECK(in_place.same_memory(apart));
    });
  }
}

}  // namespace

TEST_CASE_TEMPLATE("softmax: strips of every width", T, float, double) {
  Random random(81);
  const std::pair<int64_t, int64_t> shapes[] = {{3, 700},   {1030, 300}, {1100, 299}, {2100, 150},
                                                {5000, 70}, {9000, 40},  {70000, 20}, {140000, 5}};
  for (const auto &[m, n] : shapes) large_softmax<T>(random, m, n, true);
}

TEST_CASE_TEMPLATE("softmax: results past the caches", T, float, double) {
  Random random(82);
#if defined(ATTEND_TEST_SANITIZED)  // each type one way, the other type the other
  const bool wide = random.one_in(2) == (sizeof(T) == 4);
  large_softmax<T>(random, 1030, 2080 + random.in(0, 32), wide);
  large_softmax<T>(random, 40000, 24, !wide, true);
#else
  for (const bool by_rows : {false, true}) {
    large_softmax<T>(random, 1030, 2080 + random.in(0, 32), by_rows);
    for (const bool unaligned : {false, true}) large_softmax<T>(random, 40000, 64, by_rows, unaligned);
  }
#endif
}
