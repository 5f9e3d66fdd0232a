// A table of kernels may lack rows: it has those of the next table in the list then, and computes what that computes.
#include "attention_call.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// The rows of a table that are not null, as bits, and which of them are those of `other`.
template <class T>
unsigned rows_of(const KernelsOf<T> &kernels, const KernelsOf<T> *other = nullptr) {
  unsigned rows = 0, row = 1;
#define ATTEND_KERNEL(name, argument, unit)                                                  \
  if (other == nullptr ? kernels.name != nullptr : kernels.name == other->name) rows |= row; \
  row <<= 1;
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
  return rows;
}

template <class T>
unsigned without_rows(KernelsOf<T> *kernels, unsigned missing) {
  unsigned row = 1;
#define ATTEND_KERNEL(name, argument, unit)          \
  if ((missing & row) != 0) kernels->name = nullptr; \
  row <<= 1;
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
  return row - 1;  // all of them
}

// The best table of this CPU without some rows, which then come from the scalar one: four, sixteen or fewer lanes above
// one lane.
struct Mixed {
  KernelTable upper = *available_kernels(0), table;
  const KernelTable &lower = odd_tiles();

  Mixed(unsigned missing_f32, unsigned missing_f64) {
    upper.name = "mixed";
    without_rows(&upper.f32, missing_f32);
    without_rows(&upper.f64, missing_f64);
    table = upper;
    fill_holes(&table, lower);
  }
};

template <class T>
const KernelsOf<T> &kernels_of(const KernelTable &table) {
  if constexpr (sizeof(T) == 4) {
    return table.f32;
  } else {
    return table.f64;
  }
}

template <class T>
void check_rows(const Mixed &mixed, unsigned missing, unsigned all) {
  const KernelsOf<T> &table = kernels_of<T>(mixed.table), &lower = kernels_of<T>(mixed.lower),
                     &best = kernels_of<T>(*available_kernels(0));
  CHECK(rows_of(table) == all);
  CHECK(rows_of(table, &lower) == missing);
  CHECK(rows_of(table, &best) == (all & ~missing));
  CHECK(table.turned_columns == (table.matmul == lower.matmul ? lower : best).turned_columns);
  CHECK(table.attention_lanes == (table.attention == lower.attention ? lower : best).attention_lanes);
}

// Few queries whose keys' features are contiguous: what is done with them depends on the lanes.
template <class T>
std::vector<T> attention(unsigned stream, int64_t nq) {
  Random random(stream);
  AttentionCall<T> call(random, 9, 7, nq, 300);
  call.run();
  return call.out.values();
}

template <class T>
std::vector<T> softmax(unsigned stream, bool by_rows) {
  Random random(stream);
  typename Operand<T>::Layout layout;
  if (by_rows) layout.order = {1, 0, 2, 3};
  Operand<T> x({40, 70, 1, 1}, layout);
  x.fill(random);
  ok(attend_softmax(x.tensor(), x.tensor(), nullptr));
  return x.values();
}

template <class T>
std::vector<T> matmul(unsigned stream) {
  auto a = drawn<T>({50, 30, 1, 1}, stream), b = drawn<T>({30, 20, 1, 1}, stream + 1), c = drawn<T>({50, 20, 1, 1}, 0);
  ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr));
  return c.values();
}

// Results that depend on each row.
template <class T>
std::vector<std::vector<T>> results() {
  std::vector<std::vector<T>> all = {softmax<T>(1101, false), softmax<T>(1101, true), matmul<T>(1102)};
  for (int64_t nq = 1; nq <= 9; ++nq) all.push_back(attention<T>(1103, nq));
  return all;
}

}  // namespace

TEST_CASE("the rows that a table lacks are those of the lower one") {
  KernelTable none = *available_kernels(0);
  const unsigned all = without_rows(&none.f32, 0);
  for (unsigned missing = 0; missing <= all; ++missing) {
    INFO("missing " << missing);
    const Mixed mixed(missing, all & ~missing);
    check_rows<float>(mixed, missing, all);
    check_rows<double>(mixed, all & ~missing, all);
    CHECK(std::string(mixed.table.name) == "mixed");
    CHECK(mixed.table.required == available_kernels(0)->required);
  }
}

TEST_CASE_TEMPLATE("a table with the rows of two computes what each of them would", T, float, double) {
  const KernelTable &best = *available_kernels(0);
  set_active_kernels(&best);
  const auto of_best = results<T>();
  set_active_kernels(&odd_tiles());
  const auto of_lower = results<T>();
  KernelTable none = best;
  const unsigned all = without_rows(&none.f32, 0);
  for (unsigned missing = 0; missing <= all; ++missing) {
    // Under sanitizers up to two rows of either table.
    if (std::min(__builtin_popcount(missing), __builtin_popcount(all & ~missing)) > rounds(12, 12)) continue;
    INFO("missing " << missing);
    const Mixed mixed(missing, missing);
    set_active_kernels(&mixed.table);
    const auto of_mixed = results<T>();
    REQUIRE(of_mixed.size() == of_best.size());
    for (size_t i = 0; i < of_mixed.size(); ++i) {
      CHECK((same_bits(of_mixed[i], of_best[i]) || same_bits(of_mixed[i], of_lower[i])));
    }
  }
  set_active_kernels(nullptr);
}

TEST_CASE("the library's tables have no holes") {
  KernelTable none = *available_kernels(0);
  const unsigned all = without_rows(&none.f32, 0);
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) {
    INFO(std::string(table->name));
    CHECK(rows_of(table->f32) == all);
    CHECK(rows_of(table->f64) == all);
    CHECK(table->f32.attention_lanes >= 1);
    CHECK(table->f64.attention_lanes >= 1);
  }
}
