// The same bits: for any number of threads, alignment, leading dimension and neighbour, on every instruction set with FMA.
#include <functional>

#include "dispatch/registry.hpp"
#include "support.hpp"

extern "C" const attend::KernelTable attend_kernels_odd_tiles;

using namespace attend;
using namespace attend::test;

namespace {

// Runs f for the tables whose bits must agree: those with FMA, and the scalar one with odd tiles.
void for_each_fma_table(const std::function<void(const char *)> &f) {
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) {
    if ((table->required & kFma) == 0) continue;
    set_active_kernels(table);
    f(table->name);
  }
  set_active_kernels(&attend_kernels_odd_tiles);
  f("odd tiles");
  set_active_kernels(nullptr);
}

// Collects results that must be equal.
template <class T>
struct Same {
  std::vector<T> first;
  void add(const std::vector<T> &values, const std::string &what) {
    INFO(what);
    if (first.empty()) first = values;
    CHECK(same_bits(first, values));
  }
};

template <class T>
Operand<T> drawn(const Shape &shape, unsigned stream, const typename Operand<T>::Layout &layout, double size = 1) {
  Random random(stream);
  Operand<T> o(shape, layout);
  o.fill(random, size);
  return o;
}

// A layout of the same order in memory, but other alignment and leading dimension.
template <class T>
typename Operand<T>::Layout shifted(bool by_rows, int64_t variant) {
  typename Operand<T>::Layout l;
  if (by_rows) l.order = {1, 0, 2, 3};
  l.offset = variant * 5 % 16;
  l.padding = variant * 7;
  return l;
}

constexpr int32_t kThreads[] = {1, 2, 3, 4, 8};

}  // namespace

TEST_CASE_TEMPLATE("bits: matmul", T, float, double) {
  struct Case {
    int64_t m, n, k;
    double beta;
    bool biased, a_by_rows, b_by_rows, c_by_rows;
  };
  const Case cases[] = {{5, 3, 7, 0, false, true, false, false},      {64, 64, 64, 0, false, false, false, false},
                        {97, 61, 700, 0.7, true, true, false, false}, {131, 203, 530, 1, false, false, true, true},
                        {200, 300, 600, 0, true, true, true, false},  {1, 257, 300, 0, false, true, true, false},
                        {257, 1, 300, 0, false, true, false, false},  {3, 70, 1100, 0, false, false, true, true}};
  unsigned stream = 40;
  for (const Case &x : cases) {
    stream += 10;
    Same<T> same;
    INFO("m " << x.m << " n " << x.n << " k " << x.k);
    for_each_fma_table([&](const char *table) {
      for (int64_t variant = 0; variant < 5; ++variant) {
        auto a = drawn<T>({x.m, x.k, 1, 2}, stream, shifted<T>(x.a_by_rows, variant));
        auto b = drawn<T>({x.k, x.n, 1, 2}, stream + 1, shifted<T>(x.b_by_rows, variant + 1));
        auto c = drawn<T>({x.m, x.n, 1, 2}, stream + 2, shifted<T>(x.c_by_rows, variant + 2));
        auto bias = drawn<T>({x.m, 1, 1, 1}, stream + 3, {});
        attend_matmul_options options = {};
        options.size = sizeof options;
        options.threads = kThreads[variant];
        options.bias = x.biased ? bias.tensor() : nullptr;
        ok(attend_matmul(0.7, a.tensor(), b.tensor(), x.beta, c.tensor(), &options));
        same.add(c.values(), std::string(table) + ", threads " + std::to_string(kThreads[variant]));
      }
      // Layout is no part of the contract of a product: A, B and C the other way round.
      auto a = drawn<T>({x.m, x.k, 1, 2}, stream, shifted<T>(!x.a_by_rows, 0));
      auto b = drawn<T>({x.k, x.n, 1, 2}, stream + 1, shifted<T>(!x.b_by_rows, 0));
      auto c = drawn<T>({x.m, x.n, 1, 2}, stream + 2, shifted<T>(!x.c_by_rows, 0));
      auto bias = drawn<T>({x.m, 1, 1, 1}, stream + 3, {});
      attend_matmul_options options = {};
      options.size = sizeof options;
      options.bias = x.biased ? bias.tensor() : nullptr;
      ok(attend_matmul(0.7, a.tensor(), b.tensor(), x.beta, c.tensor(), &options));
      same.add(c.values(), std::string(table) + ", turned");
    });
  }
}

TEST_CASE_TEMPLATE("bits: a column of a product does not depend on how many columns there are", T, float, double) {
  for_each_fma_table([](const char *table) {
    INFO(table);
    const int64_t m = 70, n = 50, k = 530;
    auto a = drawn<T>({m, k, 1, 1}, 201, {}), b = drawn<T>({k, n, 1, 1}, 202, {}), c = drawn<T>({m, n, 1, 1}, 203, {});
    ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr));
    for (const int64_t width : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{13}, int64_t{31}}) {
      Operand<T> part({m, width, 1, 1}, {});
      attend_tensor some = *b.tensor();
      some.shape[1] = width;
      some.data = &b.at(0, 17);
      ok(attend_matmul(1, a.tensor(), &some, 0, part.tensor(), nullptr));
      bool same = true;
      part.each([&](T &v, int64_t i, int64_t j, auto...) { same &= std::memcmp(&v, &c.at(i, 17 + j), sizeof v) == 0; });
      CHECK(same);
    }
  });
}

TEST_CASE_TEMPLATE("bits: softmax, within each layout", T, float, double) {
  for (const bool by_rows : {false, true}) {
    for (const int64_t m : {3, 16, 100, 511, 513, 1600}) {
      Same<T> same;
      INFO("rows " << m << " by rows " << by_rows);
      for_each_fma_table([&](const char *table) {
        for (int64_t variant = 0; variant < 5; ++variant) {
          auto x = drawn<T>({m, 90, 1, 2}, 301, shifted<T>(by_rows, variant), 4);
          auto y = drawn<T>({m, 90, 1, 2}, 302, shifted<T>(by_rows, variant + 1));
          attend_softmax_options options = {};
          options.size = sizeof options;
          options.threads = kThreads[variant];
          ok(attend_softmax(x.tensor(), y.tensor(), &options));
          same.add(y.values(), std::string(table) + ", threads " + std::to_string(kThreads[variant]));
        }
      });
    }
  }
}

TEST_CASE_TEMPLATE("bits: attention", T, float, double) {
  struct Case {
    int64_t features, value_features, queries, keys;
    uint32_t flags;
    bool v_by_rows, out_by_rows;
  };
  const Case cases[] = {{64, 64, 150, 300, 0, false, false},
                        {33, 17, 70, 530, ATTEND_CAUSAL_BOTTOM_RIGHT, false, true},
                        {16, 40, 129, 129, ATTEND_CAUSAL_TOP_LEFT, true, false},
                        {80, 80, 1, 700, 0, false, false}};
  unsigned stream = 400;
  for (const Case &x : cases) {
    stream += 10;
    Same<T> same;
    INFO("D " << x.features << " Nq " << x.queries << " Nk " << x.keys);
    for_each_fma_table([&](const char *table) {
      for (int64_t variant = 0; variant < 6; ++variant) {
        auto q = drawn<T>({x.features, x.queries, 4, 2}, stream, shifted<T>(false, variant), 2);
        auto k = drawn<T>({x.features, x.keys, 2, 2}, stream + 1, shifted<T>(variant == 5, variant + 1));
        auto v = drawn<T>({x.value_features, x.keys, 2, 2}, stream + 2,
                          shifted<T>(x.v_by_rows != (variant == 5), variant + 2));
        auto out = drawn<T>({x.value_features, x.queries, 4, 2}, stream + 3,
                            shifted<T>(x.out_by_rows != (variant == 5), variant + 3));
        attend_attention_options options = {};
        options.size = sizeof options;
        options.flags = x.flags;
        options.threads = variant == 5 ? 0 : kThreads[variant];  // variant 5: every other layout, library's threads
        ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
        same.add(out.values(), std::string(table) + ", variant " + std::to_string(variant));
      }
    });
  }
}

TEST_CASE_TEMPLATE("bits: a query's output depends on no other query, head or batch", T, float, double) {
  for_each_fma_table([](const char *table) {
    INFO(table);
    const int64_t d = 24, n = 90, keys = 300;
    auto q = drawn<T>({d, n, 3, 2}, 501, {}), k = drawn<T>({d, keys, 3, 2}, 502, {}),
         v = drawn<T>({d, keys, 3, 2}, 503, {});
    auto out = drawn<T>({d, n, 3, 2}, 504, {});
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), nullptr));
    for (const int64_t i : {int64_t{0}, int64_t{15}, int64_t{16}, int64_t{77}, int64_t{89}}) {
      Operand<T> alone({d, 1, 1, 1}, {});
      const auto one = [](Operand<T> &o, int64_t column, int64_t columns) {
        attend_tensor t = *o.tensor();
        t.data = &o.at(0, column, 2, 1);
        t.rank = 2;
        t.shape[1] = columns;
        return t;
      };
      const attend_tensor q1 = one(q, i, 1), k1 = one(k, 0, keys), v1 = one(v, 0, keys);
      ok(attend_attention(&q1, &k1, &v1, alone.tensor(), nullptr));
      bool same = true;
      alone.each([&](T &x, int64_t f, auto...) { same &= std::memcmp(&x, &out.at(f, i, 2, 1), sizeof x) == 0; });
      CHECK(same);
    }
  });
}
