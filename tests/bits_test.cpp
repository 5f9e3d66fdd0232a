// The same bits: for any number of threads, alignment, leading dimension and neighbour, on every instruction set with
// FMA; on the others for the same things within the one set.
#include <map>

#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// Collects results that must be equal within their group.
template <class T>
class Same {
 public:
  void add(const std::string &group, const std::vector<T> &values, const std::string &what) {
    INFO(what);
    const auto first = first_.emplace(group, values).first;
    CHECK(same_bits(first->second, values));
  }

 private:
  std::map<std::string, std::vector<T>> first_;
};

// How one call differs from the others of its case: threads, and the place of its operands in memory. Fewer
// under the sanitizers, which look at accesses, not at bits, and take up to fifty times as long (g++'s).
#if defined(ATTEND_TEST_SANITIZED)
constexpr int32_t kThreads[] = {1, 3};
#else
constexpr int32_t kThreads[] = {1, 2, 3, 4, 8, 8, 2, 1};
#endif
constexpr int64_t kVariants = sizeof kThreads / sizeof kThreads[0];

std::string describe(const std::string &table, int64_t variant) {
  return table + ", variant " + std::to_string(variant) + ", threads " + std::to_string(kThreads[variant]);
}

// A layout of the same order in memory, but other alignment (0..15 elements, over the operands and variants) and
// leading dimension.
template <class T>
typename Operand<T>::Layout shifted(bool by_rows, int64_t variant) {
  typename Operand<T>::Layout l;
  if (by_rows) l.order = {1, 0, 2, 3};
  l.offset = variant * 5 % 16;
  l.padding = variant % 4 * 7;
  return l;
}

}  // namespace

TEST_CASE_TEMPLATE("bits: matmul", T, float, double) {
  struct Case {
    int64_t m, n, k;
    double beta;
    bool biased, a_by_rows, b_by_rows, c_by_rows;
  };
  // With every way to finish (store, add, bias, beta), one chunk of k and several, and several threads' worth of work.
  const Case cases[] = {{5, 3, 7, 0, false, true, false, false},      {64, 64, 64, 0, false, false, false, false},
                        {97, 61, 700, 0.7, true, true, false, false}, {131, 203, 530, 1, false, false, true, true},
                        {200, 300, 256, 0, true, true, true, false},  {1, 257, 300, 0, false, true, true, false},
                        {257, 1, 512, 0, false, true, false, false},  {3, 70, 1100, 0, false, false, true, true}};
  unsigned stream = 40;
  for (const Case &x : cases) {
    stream += 10;
    Same<T> same;
    INFO("m " << x.m << " n " << x.n << " k " << x.k);
    auto a = drawn<T>({x.m, x.k, 1, 2}, stream), b = drawn<T>({x.k, x.n, 1, 2}, stream + 1),
         c = drawn<T>({x.m, x.n, 1, 2}, stream + 2), bias = drawn<T>({x.m, 1, 1, 1}, stream + 3);
    for (int64_t variant = 0; variant < kVariants; ++variant) {
      // Layout is no part of the contract of a product: in the last variant A, B and C are the other way round.
      const bool turned = variant == kVariants - 1;
      auto a1 = a.in(shifted<T>(x.a_by_rows != turned, variant));
      auto b1 = b.in(shifted<T>(x.b_by_rows != turned, variant + 1));
      const auto c1 = c.in(shifted<T>(x.c_by_rows != turned, variant + 2));
      auto options = options_with<attend_matmul_options>(kThreads[variant]);
      options.bias = x.biased ? bias.tensor() : nullptr;
      for_each_table([&](const std::string &table, const std::string &group) {
        auto result = c1;
        ok(attend_matmul(0.7, a1.tensor(), b1.tensor(), x.beta, result.tensor(), &options));
        same.add(group, result.values(), describe(table, variant));
      });
    }
  }
}

TEST_CASE_TEMPLATE("bits: a column of a product depends on no other column or batch", T, float, double) {
  const int64_t m = 70, n = 50, k = 530;
  auto a = drawn<T>({m, k, 1, 2}, 201), b = drawn<T>({k, n, 1, 2}, 202), c = drawn<T>({m, n, 1, 2}, 203);
  for_each_table([&](const std::string &, const std::string &) {
    ok(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), nullptr));
    for (const int64_t width : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{13}, int64_t{31}}) {
      INFO("width " << width);
      Operand<T> part({m, width, 1, 1}, {});
      const attend_tensor all = columns_of(a, 0, k, 0, 1), some = columns_of(b, 17, width, 0, 1);
      ok(attend_matmul(1, &all, &some, 0, part.tensor(), nullptr));
      CHECK(is_part(part, c, 17, 0, 1));
    }
  });
}

TEST_CASE_TEMPLATE("bits: softmax, within each layout", T, float, double) {
  for (const bool by_rows : {false, true}) {
    for (const int64_t m : {2, 3, 8, 16, 47, 100, 511, 513, 1600, 66000}) {
      Same<T> same, same_lse;
      INFO("rows " << m << " by rows " << by_rows);
      // Columns enough for the threads, 128 of them are a task, or a column long enough.
      const int64_t n = m > 2000 ? 2 : m > 500 ? 300 : 200;
      auto x = drawn<T>({m, n, 1, 2}, 301, 4);
      for (int64_t variant = 0; variant < kVariants; ++variant) {
        auto from = x.in(shifted<T>(by_rows, variant));
        const Operand<T> to(x.shape(), shifted<T>(by_rows, variant + 1));
        const Operand<T> sums({1, n, 1, 2}, shifted<T>(by_rows, variant + 2));
        auto options = options_with<attend_softmax_options>(kThreads[variant]);
        options.scale = 0.9;
        for_each_table([&](const std::string &table, const std::string &group) {
          auto y = to, lse = sums;
          options.lse = lse.tensor();
          ok(attend_softmax(from.tensor(), y.tensor(), &options));
          same.add(group, y.values(), describe(table, variant));
          same_lse.add(group, lse.values(), describe(table, variant) + ", lse");
        });
      }
    }
  }
}

TEST_CASE_TEMPLATE("bits: softmax backward, within each layout", T, float, double) {
  for (const bool by_rows : {false, true}) {
    for (const int64_t m : {2, 8, 16, 47, 511, 513, 1600, 66000}) {
      Same<T> same;
      INFO("rows " << m << " by rows " << by_rows);
      const int64_t n = m > 2000 ? 2 : m > 500 ? 600 : 200;
      auto y = drawn<T>({m, n, 1, 2}, 321), d_y = drawn<T>({m, n, 1, 2}, 322);
      for (int64_t variant = 0; variant < kVariants; ++variant) {
        auto from_y = y.in(shifted<T>(by_rows, variant)), from_d_y = d_y.in(shifted<T>(by_rows, variant + 1));
        const Operand<T> to(y.shape(), shifted<T>(by_rows, variant + 2));
        auto options = options_with<attend_softmax_backward_options>(kThreads[variant]);
        options.scale = 0.9;
        options.flags = m % 2 == 0 ? ATTEND_LOG : 0;
        for_each_table([&](const std::string &table, const std::string &group) {
          auto d_x = to;
          ok(attend_softmax_backward(from_y.tensor(), from_d_y.tensor(), d_x.tensor(), &options));
          same.add(group, d_x.values(), describe(table, variant));
        });
      }
    }
  }
}

TEST_CASE_TEMPLATE("bits: a column's softmax depends on no other column or batch", T, float, double) {
  const int64_t m = 530, n = 40;
  auto drawn_x = drawn<T>({m, n, 1, 2}, 311, 4);
  for (const bool by_rows : {false, true}) {
    auto x = drawn_x.in(shifted<T>(by_rows, 0)), y = x;
    for_each_table([&](const std::string &, const std::string &) {
      ok(attend_softmax(x.tensor(), y.tensor(), nullptr));
      for (const int64_t width : {int64_t{1}, int64_t{3}, int64_t{16}, int64_t{21}}) {
        INFO("width " << width << " by rows " << by_rows);
        Operand<T> part({m, width, 1, 1}, shifted<T>(by_rows, 1));
        const attend_tensor some = columns_of(x, 11, width, 0, 1);
        ok(attend_softmax(&some, part.tensor(), nullptr));
        CHECK(is_part(part, y, 11, 0, 1));
      }
    });
  }
}

TEST_CASE_TEMPLATE("bits: attention", T, float, double) {
  struct Case {
    int64_t features, value_features, queries, keys;
    uint32_t flags, stage;
    bool v_by_rows, out_by_rows;
  };
  const Case cases[] = {{64, 64, 150, 300, 0, ATTEND_SCORES_SCALED, false, false},
                        {33, 17, 70, 530, ATTEND_CAUSAL_BOTTOM_RIGHT, ATTEND_SCORES_PROBABILITIES, false, true},
                        {16, 40, 129, 129, ATTEND_CAUSAL_TOP_LEFT, ATTEND_SCORES_MASKED, true, false},
                        {80, 80, 1, 700, 0, ATTEND_SCORES_PROBABILITIES, false, false}};
  unsigned stream = 400;
  for (const Case &x : cases) {
    stream += 10;
    Same<T> same, same_lse, same_scores;
    INFO("D " << x.features << " Nq " << x.queries << " Nk " << x.keys);
    auto q = drawn<T>({x.features, x.queries, 4, 2}, stream, 2), k = drawn<T>({x.features, x.keys, 2, 2}, stream + 1),
         v = drawn<T>({x.value_features, x.keys, 2, 2}, stream + 2);
    for (int64_t variant = 0; variant < kVariants; ++variant) {
      const bool turned = variant == kVariants - 1;  // every other layout
      auto q1 = q.in(shifted<T>(turned, variant)), k1 = k.in(shifted<T>(turned, variant + 1)),
           v1 = v.in(shifted<T>(x.v_by_rows != turned, variant + 2));
      const Operand<T> to({x.value_features, x.queries, 4, 2}, shifted<T>(x.out_by_rows != turned, variant + 3));
      const Operand<T> sums({1, x.queries, 4, 2}, shifted<T>(false, variant));
      const Operand<T> shown({x.keys, x.queries, 4, 2}, shifted<T>(turned, variant));
      auto options = options_with<attend_attention_options>(kThreads[variant]);
      options.flags = x.flags;
      options.scores_stage = x.stage;
      const bool with_scores = variant == 0 || turned;  // large
      for_each_table([&](const std::string &table, const std::string &group) {
        auto out = to, lse = sums, scores = shown;
        options.lse = lse.tensor();
        options.scores = with_scores ? scores.tensor() : nullptr;
        ok(attend_attention(q1.tensor(), k1.tensor(), v1.tensor(), out.tensor(), &options));
        same.add(group, out.values(), describe(table, variant));
        same_lse.add(group, lse.values(), describe(table, variant) + ", lse");
        if (with_scores) same_scores.add(group, scores.values(), describe(table, variant) + ", scores");
      });
    }
  }
}

TEST_CASE_TEMPLATE("bits: ALiBi at positions that no T holds exactly", T, float, double) {
  const int64_t d = 5, n = 37, keys = 300;
  auto q = drawn<T>({d, n, 1, 1}, 521), k = drawn<T>({d, keys, 1, 1}, 522), v = drawn<T>({d, keys, 1, 1}, 523);
  for (const int64_t offset : {(int64_t{1} << 24) - 20, (int64_t{1} << 53) - 20, (int64_t{1} << 58) + 3,
                               -(int64_t{1} << 24) + 20, -(int64_t{1} << 58) - 3}) {
    INFO("offset " << offset);
    Same<T> same;
    Operand<T> slope({1, 1, 1, 1}, {});
    slope.at(0, 0, 0, 0) = T(1) / static_cast<T>(1 << 22);
    auto options = options_with<attend_attention_options>(1);
    options.alibi_slopes = slope.tensor();
    options.scores_stage = ATTEND_SCORES_MASKED;
    for_each_table([&](const std::string &table, const std::string &group) {
      Operand<T> out({d, n, 1, 1}, {}), scores({keys, n, 1, 1}, {}), alone({d, 1, 1, 1}, {});
      options.scores = scores.tensor();
      options.query_offset = offset;
      ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
      same.add(group, scores.values(), table);
      options.scores = nullptr;
      for (const int64_t i : {int64_t{0}, int64_t{5}, int64_t{36}}) {
        const attend_tensor one = columns_of(q, i, 1);
        options.query_offset = offset + i;
        ok(attend_attention(&one, k.tensor(), v.tensor(), alone.tensor(), &options));
        CHECK(is_part(alone, out, i));
      }
    });
  }
}

TEST_CASE_TEMPLATE("bits: a query's output depends on no other query, head or batch", T, float, double) {
  const int64_t d = 24, n = 90, keys = 300;
  auto q = drawn<T>({d, n, 3, 2}, 501), k = drawn<T>({d, keys, 3, 2}, 502), v = drawn<T>({d, keys, 3, 2}, 503);
  auto out = drawn<T>({d, n, 3, 2}, 504);
  for_each_table([&](const std::string &, const std::string &) {
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), nullptr));
    for (const int64_t i : {int64_t{0}, int64_t{15}, int64_t{16}, int64_t{77}, int64_t{89}}) {
      INFO("query " << i);
      Operand<T> alone({d, 1, 1, 1}, {});
      const attend_tensor q1 = columns_of(q, i, 1, 2, 1), k1 = columns_of(k, 0, keys, 2, 1),
                          v1 = columns_of(v, 0, keys, 2, 1);
      ok(attend_attention(&q1, &k1, &v1, alone.tensor(), nullptr));
      CHECK(is_part(alone, out, i, 2, 1));
    }
  });
}

// A sum that ends as -0: its sign must not tell what else was computed, though chunks that a query does not see add +0.
TEST_CASE_TEMPLATE("bits: not even the sign of a zero depends on other queries", T, float, double) {
  const int64_t keys = 513;
  Operand<T> q({1, 16, 1, 1}, {}), k({1, keys, 1, 1}, {}), v({1, keys, 1, 1}, {}), out({1, 16, 1, 1}, {});
  q.fill_with(1);
  v.fill_with(0);
  v.at(0, 0) = -std::numeric_limits<T>::denorm_min();  // which the factor of the second chunk rounds to -0
  k.each([](T &x, int64_t, int64_t j, auto...) { x = j == 0 ? T(0) : j < 256 ? T(-3) : T(1.5); });
  auto options = options_with<attend_attention_options>(1);
  options.scale = 1;
  options.flags = ATTEND_CAUSAL_TOP_LEFT;
  options.query_offset = keys - 16;
  Same<T> same;
  for_each_table([&](const std::string &table, const std::string &group) {
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
    same.add(group, out.values(), table);
    for (int64_t i = 0; i < 16; ++i) {
      Operand<T> alone({1, 1, 1, 1}, {});
      const attend_tensor one = columns_of(q, i, 1);
      auto moved = options;
      moved.query_offset += i;
      ok(attend_attention(&one, k.tensor(), v.tensor(), alone.tensor(), &moved));
      CHECK(is_part(alone, out, i));
    }
  });
}

TEST_CASE_TEMPLATE("bits: self-attention", T, float, double) {
  const int64_t features = 70, head = 24, values = 20, items = 290, heads = 4, kv_heads = 2, outputs = 50;
  auto x = drawn<T>({features, items, 1, 2}, 601, 0.5);
  auto w_q = drawn<T>({head, features, heads, 1}, 602, 0.3), w_k = drawn<T>({head, features, kv_heads, 1}, 603, 0.3);
  auto w_v = drawn<T>({values, features, kv_heads, 1}, 604, 0.3), w_o = drawn<T>({outputs, values, heads, 1}, 605);
  auto b_q = drawn<T>({head, 1, heads, 1}, 606), b_o = drawn<T>({outputs, 1, 1, 1}, 607);
  for (const bool projected : {false, true}) {
    Same<T> same;
    INFO("projected " << projected);
    for (int64_t variant = 0; variant < kVariants; ++variant) {
      const bool turned = variant == kVariants - 1;
      const auto moved = [&](Operand<T> &o, int64_t by) { return o.in(shifted<T>(turned, variant + by)); };
      auto x1 = moved(x, 0), w_q1 = moved(w_q, 1), w_k1 = moved(w_k, 2), w_v1 = moved(w_v, 3), w_o1 = moved(w_o, 4);
      const Operand<T> to(projected ? Shape{outputs, items, 1, 2} : Shape{values, items, heads, 2},
                          shifted<T>(turned, variant + 5));
      attend_self_attention_weights weights = {};
      weights.size = sizeof weights;
      weights.w_q = w_q1.tensor();
      weights.w_k = w_k1.tensor();
      weights.w_v = w_v1.tensor();
      weights.b_q = b_q.tensor();
      weights.w_o = projected ? w_o1.tensor() : nullptr;
      weights.b_o = projected ? b_o.tensor() : nullptr;
      const auto options = options_with<attend_self_attention_options>(kThreads[variant]);
      auto attention = options_with<attend_attention_options>(0);
      attention.flags = ATTEND_CAUSAL_TOP_LEFT;
      for_each_table([&](const std::string &table, const std::string &group) {
        auto out = to;
        ok(attend_self_attention(x1.tensor(), &weights, out.tensor(), &options, &attention));
        same.add(group, out.values(), describe(table, variant));
      });
    }
  }
}
