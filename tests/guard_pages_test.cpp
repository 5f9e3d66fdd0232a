// No byte outside the operands is read or written: each operand ends at, or begins behind, a page that may not be
// touched, at every offset within a vector.
#include "guarded.hpp"
#include "tables.hpp"

using namespace attend::test;

namespace {

// Dense m x n, columns or rows contiguous.
template <class T>
attend_tensor matrix(T *data, int64_t m, int64_t n, bool by_rows, uint32_t dtype = kDtype<T>) {
  return {data, dtype, 2, {m, n, 0, 0}, {by_rows ? n : 1, by_rows ? 1 : m, 0, 0}};
}

// test(m, n, place): every m up to 33 and n up to 17, which is past the edges of the tiles of each instruction set, with
// every offset for each m, and both guards. Then `more` others of test's choice.
template <class F>
void each_edge(Random &random, int more, const F &test) {
  int64_t count = 0;
  for (int64_t m = 1; m <= 33; ++m) {
    for (int64_t n = 1; n <= 17; ++n, ++count) test(m, n, Place{(count / 16) % 2 != 0, count % 16});
  }
  for (int i = 0; i < more; ++i) {
    test(random.in(1, 90), random.in(1, 70), Place{random.one_in(2), random.in(0, 15)});
  }
}

// Now and then a call has a workspace, of exactly the size asked for, guarded like its operands.
template <class Options, class Need, class Call>
void run(Random &random, const Place &at, Options *options, const Need &need, const Call &call) {
  uint64_t bytes = 0;
  if (random.one_in(3)) {
    options->threads = random.one_in(2) ? 1 : 2;
    CHECK(need(&bytes) == ATTEND_OK);
  }
  const Guarded<unsigned char> workspace(static_cast<int64_t>(bytes), at);
  options->workspace = bytes != 0 ? workspace.data : nullptr;
  options->workspace_size = bytes;
  CHECK(ok(call()));
}

}  // namespace

TEST_CASE_TEMPLATE("matmul stays within its operands", T, float, double) {
  Random random(301);
  for_each_isa([&] {
    const auto test = [&](int64_t m, int64_t n, const Place &at) {
      const int64_t k = random.one_in(9) ? random.in(1, 600) : random.in(1, 40);
      Guarded<T> a(m * k, at), b(k * n, at), c(m * n, at), bias(m, at);
      const attend_tensor ta = matrix(a.data, m, k, random.one_in(2)), tb = matrix(b.data, k, n, random.one_in(2));
      const attend_tensor tc = matrix(c.data, m, n, random.one_in(2)), tbias = matrix(bias.data, m, 1, false);
      attend_matmul_options options = {};
      options.size = sizeof options;
      options.bias = random.one_in(2) ? &tbias : nullptr;
      const double beta = random.one_in(2) ? 0 : 0.5;
      run(
          random, at, &options,
          [&](uint64_t *bytes) { return attend_matmul_workspace(1, &ta, &tb, beta, &tc, &options, bytes); },
          [&] { return attend_matmul(1, &ta, &tb, beta, &tc, &options); });
    };
    each_edge(random, 60, test);
    // Long enough to be fetched ahead, packed, and cut into blocks of rows.
    for (const unsigned layouts : {0u, 1u, 2u, 3u}) {
      const int64_t m = 417, n = 131, k = 530;
      const Place at = {true, 0};
      Guarded<T> a(m * k, at), b(k * n, at), c(m * n, at);
      const attend_tensor ta = matrix(a.data, m, k, (layouts & 1u) != 0),
                          tb = matrix(b.data, k, n, (layouts & 2u) != 0);
      const attend_tensor tc = matrix(c.data, m, n, false);
      CHECK(ok(attend_matmul(1, &ta, &tb, 1, &tc, nullptr)));
    }
  });
}

// Rows that share sets of the caches, with a number of them that fills no vector; runs of rows and of columns that no cache
// holds; one number of many chunks.
TEST_CASE_TEMPLATE("thin products stay within their operands", T, float, double) {
  struct Shape {
    int64_t m, n, k;
    bool by_rows;
  };
  const Place at = {true, 0};
  for (const Shape &s :
       {Shape{19, 1, 1024, true}, Shape{19, 2, 1024, true}, Shape{19, 3, 1024, true}, Shape{19, 4, 1024, true},
        Shape{131, 1, 1024, true}, Shape{131, 3, 1000, true}, Shape{8195, 2, 1024, true}, Shape{4101, 3, 1024, false},
        Shape{4101, 7, 1024, false}, Shape{1, 1, 17 * 512 + 3, true}}) {
    for (const bool backwards : {false, true}) {           // k of A
      for (const int64_t apart : {1, s.n < 5 ? 17 : 1}) {  // elements of a column of B
        Guarded<T> a(s.m * s.k, at), b(apart == 1 ? s.k * s.n : (s.k - 1) * apart + s.n, at), c(s.m * s.n, at);
        attend_tensor ta = matrix(a.data, s.m, s.k, s.by_rows), tb = matrix(b.data, s.k, s.n, false);
        const attend_tensor tc = matrix(c.data, s.m, s.n, false);
        if (backwards) ta.data = a.data + (s.k - 1) * ta.stride[1], ta.stride[1] = -ta.stride[1];
        if (apart != 1) tb.stride[0] = apart, tb.stride[1] = 1;
        for_each_isa([&] { CHECK(ok(attend_matmul(1, &ta, &tb, 0, &tc, nullptr))); });
      }
    }
  }
}

// The odd table's tiles have 3 rows, which do not divide the units that rows are packed in.
TEST_CASE_TEMPLATE("packed panels of any tile stay within a workspace of the size asked for", T, float, double) {
  const int64_t n = 70, k = 70;
  const Place at = {true, 0};
  for_each_table([&](const std::string &, const std::string &) {
    for (const int64_t m : {31, 32, 33, 64, 97, 128, 160, 321}) {
      Guarded<T> a(m * k, at), b(k * n, at), c(m * n, at);
      const attend_tensor ta = matrix(a.data, m, k, true), tb = matrix(b.data, k, n, false),
                          tc = matrix(c.data, m, n, false);
      auto options = options_with<attend_matmul_options>(1);
      uint64_t bytes = 0;
      REQUIRE(ok(attend_matmul_workspace(1, &ta, &tb, 0, &tc, &options, &bytes)));
      const Guarded<unsigned char> workspace(static_cast<int64_t>(bytes), at);
      options.workspace = bytes != 0 ? workspace.data : nullptr;
      options.workspace_size = bytes;
      CHECK(ok(attend_matmul(1, &ta, &tb, 0, &tc, &options)));
    }
  });
}

TEST_CASE_TEMPLATE("softmax stays within its operands", T, float, double) {
  Random random(302);
  for_each_isa([&] {
    const auto test = [&](int64_t m, int64_t n, const Place &at) {
      if (random.one_in(9)) m += random.in(300, 1100);
      const bool rows = random.one_in(2);
      Guarded<T> x(m * n, at), y(m * n, at), bias(m * n, at), lse(n, at);
      Guarded<uint8_t> mask(m * n, at);
      for (int64_t i = 0; i < m * n; ++i) mask.data[i] = i % 5 != 0;
      const attend_tensor tx = matrix(x.data, m, n, rows), ty = matrix(y.data, m, n, random.one_in(4) ? !rows : rows);
      const attend_tensor tb = matrix(bias.data, m, n, rows), tl = matrix(lse.data, 1, n, true);
      const attend_tensor tm = matrix(mask.data, m, n, random.one_in(2), ATTEND_BOOL);
      attend_softmax_options options = {};
      options.size = sizeof options;
      options.flags = random.one_in(3) ? ATTEND_LOG : 0;
      if (random.one_in(2)) options.lse = &tl;
      if (random.one_in(3)) options.bias = &tb;
      if (random.one_in(3)) options.mask = &tm;
      run(
          random, at, &options, [&](uint64_t *bytes) { return attend_softmax_workspace(&tx, &ty, &options, bytes); },
          [&] { return attend_softmax(&tx, &ty, &options); });
    };
    each_edge(random, 60, test);
  });
}

TEST_CASE_TEMPLATE("softmax backward stays within its operands", T, float, double) {
  Random random(305);
  for_each_isa([&] {
    const auto test = [&](int64_t m, int64_t n, const Place &at) {
      if (random.one_in(9)) m += random.in(300, 1100);
      const bool rows = random.one_in(2);
      Guarded<T> y(m * n, at), d_y(m * n, at), d_x(m * n, at), d_lse(n, at);
      const attend_tensor ty = matrix(y.data, m, n, rows), td = matrix(d_y.data, m, n, random.one_in(4) ? !rows : rows),
                          tx = matrix(d_x.data, m, n, rows), tl = matrix(d_lse.data, 1, n, true);
      attend_softmax_backward_options options = ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT;
      options.flags = random.pick<uint32_t>({0, ATTEND_LOG, ATTEND_ACCUMULATE});
      if (random.one_in(2)) options.d_lse = &tl;
      run(
          random, at, &options,
          [&](uint64_t *bytes) { return attend_softmax_backward_workspace(&ty, &td, &tx, &options, bytes); },
          [&] { return attend_softmax_backward(&ty, &td, &tx, &options); });
    };
    each_edge(random, 60, test);
  });
}

TEST_CASE_TEMPLATE("attention stays within its operands", T, float, double) {
  Random random(303);
  for_each_isa([&] {
    const auto test = [&](int64_t nq, int64_t nk, const Place &at) {
      // More than a chunk of keys, or so many that threads share them.
      if (random.one_in(9)) nk += random.pick<int64_t>({240, 280, 1100});
      const int64_t d = random.in(1, 70), dv = random.in(1, 70);
      Guarded<T> q(d * nq, at), k(d * nk, at), v(dv * nk, at), out(dv * nq, at);
      Guarded<T> lse(nq, at), scores(nk * nq, at), bias(nk * nq, at), slope(1, at), sink(1, at);
      Guarded<uint8_t> mask(nk * nq, at);
      Guarded<int64_t> length(1, at), position(1, at);
      for (int64_t i = 0; i < nk * nq; ++i) mask.data[i] = i % 3 != 0;
      *length.data = random.in(0, nk);
      const attend_tensor tq = matrix(q.data, d, nq, random.one_in(4)), tk = matrix(k.data, d, nk, random.one_in(4));
      const attend_tensor tv = matrix(v.data, dv, nk, random.one_in(4)),
                          tout = matrix(out.data, dv, nq, random.one_in(4));
      const attend_tensor tl = matrix(lse.data, 1, nq, true), ts = matrix(scores.data, nk, nq, random.one_in(2));
      const attend_tensor tb = matrix(bias.data, nk, nq, random.one_in(2)),
                          tm = matrix(mask.data, nk, nq, random.one_in(2), ATTEND_BOOL);
      const attend_tensor tslope = {slope.data, kDtype<T>, 1, {1}, {1}}, tsink = {sink.data, kDtype<T>, 1, {1}, {1}};
      attend_attention_options options = {};
      options.size = sizeof options;
      options.flags = random.pick<uint32_t>({0, 0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
      if (random.one_in(2)) options.lse = &tl;
      if (random.one_in(3)) options.scores = &ts;
      options.scores_stage = static_cast<uint32_t>(random.in(0, 3));
      if (random.one_in(3)) options.bias = &tb;
      if (random.one_in(3)) options.mask = &tm;
      if (random.one_in(5)) options.alibi_slopes = &tslope;
      if (random.one_in(5)) options.sinks = &tsink;
      if (random.one_in(5)) options.kv_lengths = length.data;
      if (random.one_in(5) && options.flags != ATTEND_CAUSAL_BOTTOM_RIGHT) options.query_offsets = position.data;
      run(
          random, at, &options,
          [&](uint64_t *bytes) { return attend_attention_workspace(&tq, &tk, &tv, &tout, &options, bytes); },
          [&] { return attend_attention(&tq, &tk, &tv, &tout, &options); });
    };
    each_edge(random, 60, test);
  });
}

TEST_CASE_TEMPLATE("gradients of attention stay within their operands", T, float, double) {
  Random random(307);
  for_each_isa([&] {
    const auto test = [&](int64_t nq, int64_t nk, const Place &at) {
      if (random.one_in(9)) nk += random.pick<int64_t>({240, 280});
      if (random.one_in(9)) nq += random.in(40, 100);
      const int64_t d = random.in(1, 70), dv = random.in(1, 70);
      Guarded<T> q(d * nq, at), k(d * nk, at), v(dv * nk, at), out(dv * nq, at), d_out(dv * nq, at), d_q(d * nq, at),
          d_k(d * nk, at), d_v(dv * nk, at), lse(nq, at), bias(nk * nq, at), d_bias(nk * nq, at);
      const auto rows = [&](T *data, int64_t m, int64_t n) { return matrix(data, m, n, random.one_in(4)); };
      const attend_tensor tq = rows(q.data, d, nq), tk = rows(k.data, d, nk), tv = rows(v.data, dv, nk),
                          tout = rows(out.data, dv, nq), tgo = rows(d_out.data, dv, nq), tgq = rows(d_q.data, d, nq),
                          tgk = rows(d_k.data, d, nk), tgv = rows(d_v.data, dv, nk), tl = rows(lse.data, 1, nq),
                          tb = rows(bias.data, nk, nq), tgb = rows(d_bias.data, nk, nq);
      attend_attention_options forward = ATTEND_ATTENTION_OPTIONS_INIT;
      forward.flags = random.pick<uint32_t>({0, 0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
      if (random.one_in(2)) forward.lse = &tl;
      attend_attention_backward_options options = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
      if (random.one_in(3)) forward.bias = &tb, options.d_bias = &tgb;
      run(
          random, at, &options,
          [&](uint64_t *bytes) {
            return attend_attention_backward_workspace(&tq, &tk, &tv, &tout, &tgo, &tgq, &tgk, &tgv, &options, &forward,
                                                       bytes);
          },
          [&] { return attend_attention_backward(&tq, &tk, &tv, &tout, &tgo, &tgq, &tgk, &tgv, &options, &forward); });
    };
    each_edge(random, 20, test);
  });
}

TEST_CASE_TEMPLATE("attention reads nothing of keys before the first one", T, float, double) {
  Random random(306);
  for_each_isa([&] {
    const auto test = [&](int64_t nq, int64_t nk, Place at) {
      at.end = false;  // right behind the page that the keys before would lie in
      if (random.one_in(9)) nk += random.pick<int64_t>({240, 280, 1100});
      const int64_t d = random.in(1, 70), dv = random.in(1, 70), widest = std::max({d, dv, nq});
      const int64_t first = random.in(1, std::max<int64_t>(1, 4096 / static_cast<int64_t>(sizeof(T)) / widest));
      const bool by_rows = random.one_in(2);  // else before the first of each query lies the last of another
      const int64_t before = by_rows ? first * nq : first, masks = (first + nk) * nq - before;
      Guarded<T> q(d * nq, at), k(d * nk, at), v(dv * nk, at), out(dv * nq, at), bias(masks, at);
      Guarded<uint8_t> mask(masks, at);
      for (int64_t i = 0; i < masks; ++i) mask.data[i] = i % 3 != 0;
      const attend_tensor tq = matrix(q.data, d, nq, false), tout = matrix(out.data, dv, nq, random.one_in(4));
      const attend_tensor tk = matrix(k.data - first * d, d, first + nk, false),
                          tv = matrix(v.data - first * dv, dv, first + nk, false);
      const attend_tensor tb = matrix(bias.data - before, first + nk, nq, by_rows),
                          tm = matrix(mask.data - before, first + nk, nq, by_rows, ATTEND_BOOL);
      attend_attention_options options = {};
      options.size = sizeof options;
      options.kv_first = &first;
      options.flags = random.pick<uint32_t>({0, 0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
      if (random.one_in(3)) options.bias = &tb;
      if (random.one_in(3)) options.mask = &tm;
      if (random.one_in(3)) options.query_offset = options.flags == ATTEND_CAUSAL_BOTTOM_RIGHT ? 0 : first;
      if (random.one_in(3)) {
        options.flags |= ATTEND_WINDOW;
        options.window_left = random.in(-1, nk);
        options.window_right = -1;
      }
      run(
          random, at, &options,
          [&](uint64_t *bytes) { return attend_attention_workspace(&tq, &tk, &tv, &tout, &options, bytes); },
          [&] { return attend_attention(&tq, &tk, &tv, &tout, &options); });
    };
    each_edge(random, 60, test);
  });
}

TEST_CASE_TEMPLATE("the merge of attention stays within its operands", T, float, double) {
  Random random(304);
  for_each_isa([&] {
    each_edge(random, 20, [&](int64_t dv, int64_t n, const Place &at) {
      Guarded<T> out_a(dv * n, at), lse_a(n, at), out_b(dv * n, at), lse_b(n, at);
      const attend_tensor toa = matrix(out_a.data, dv, n, random.one_in(3)), tla = matrix(lse_a.data, 1, n, true),
                          tob = matrix(out_b.data, dv, n, random.one_in(3)), tlb = matrix(lse_b.data, 1, n, true);
      CHECK(ok(attend_attention_merge(&toa, &tla, &tob, &tlb, nullptr)));
    });
  });
}

TEST_CASE_TEMPLATE("self-attention stays within its operands", T, float, double) {
  Random random(305);
  for_each_isa([&] {
    each_edge(random, 60, [&](int64_t n, int64_t features, const Place &at) {
      const int64_t d = random.in(1, 40), dv = random.in(1, 40), dout = random.in(1, 40);
      Guarded<T> x(features * n, at), w_q(d * features, at), w_k(d * features, at), w_v(dv * features, at);
      Guarded<T> b_q(d, at), b_k(d, at), b_v(dv, at), w_o(dout * dv, at), b_o(dout, at), out(dv * n, at),
          projected(dout * n, at);
      const bool rows = random.one_in(3), projects = random.one_in(2);
      const attend_tensor tx = matrix(x.data, features, n, random.one_in(3)),
                          tout = projects ? matrix(projected.data, dout, n, rows) : matrix(out.data, dv, n, rows);
      const attend_tensor tw[] = {matrix(w_q.data, d, features, rows), matrix(w_k.data, d, features, !rows),
                                  matrix(w_v.data, dv, features, rows), matrix(w_o.data, dout, dv, rows)};
      const attend_tensor tb[] = {matrix(b_q.data, d, 1, false),
                                  matrix(b_k.data, d, 1, false),
                                  matrix(b_v.data, dv, 1, false),
                                  {b_o.data, kDtype<T>, 1, {dout}, {1}}};
      attend_self_attention_weights weights = {};
      weights.size = sizeof weights;
      weights.w_q = &tw[0], weights.w_k = &tw[1], weights.w_v = &tw[2];
      weights.b_q = &tb[0], weights.b_k = &tb[1], weights.b_v = &tb[2];
      if (projects) weights.w_o = &tw[3], weights.b_o = &tb[3];
      attend_self_attention_options options = {};
      options.size = sizeof options;
      run(
          random, at, &options,
          [&](uint64_t *bytes) {
            return attend_self_attention_workspace(&tx, &weights, &tout, &options, nullptr, bytes);
          },
          [&] { return attend_self_attention(&tx, &weights, &tout, &options, nullptr); });
    });
  });
}

// From the length on, not one key lies in memory.
TEST_CASE_TEMPLATE("keys and values beyond a length are not read, whatever is shown of the scores", T, float, double) {
  Random random(306);
  const int64_t length = 512, keys = 1700, d = 20, dv = 12;
  const Place at_end = {true, 0};
  for_each_isa([&] {
    for (const int64_t apart : {d, 4096 / static_cast<int64_t>(sizeof(T))}) {  // the latter is copied
      const Guarded<T> k(apart * (length - 1) + d, at_end, apart * (keys - length)),
          v(dv * length, at_end, dv * (keys - length));
      const attend_tensor tk = {k.data, kDtype<T>, 2, {d, keys, 0, 0}, {1, apart, 0, 0}},
                          tv = {v.data, kDtype<T>, 2, {dv, keys, 0, 0}, {1, dv, 0, 0}};
      for (const int64_t nq : {1, 2, 5, 40}) {
        for (uint32_t stage = 0; stage <= ATTEND_SCORES_PROBABILITIES + 1; ++stage) {  // the last: shows none
          Operand<T> q({d, nq, 1, 1}, {}), out({dv, nq, 1, 1}, {}), lse({1, nq, 1, 1}, {}),
              scores({keys, nq, 1, 1}, {});
          q.fill(random);
          for (Operand<T> *o : {&out, &lse, &scores}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
          const bool shows = stage <= ATTEND_SCORES_PROBABILITIES;
          auto options = options_with<attend_attention_options>(static_cast<int32_t>(random.in(1, 3)));
          options.kv_lengths = &length;
          options.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_BOTTOM_RIGHT});
          options.lse = lse.tensor();
          options.scores = shows ? scores.tensor() : nullptr;
          options.scores_stage = shows ? stage : 0;
          INFO("Nq " << nq << " stage " << stage << " apart " << apart << " flags " << options.flags);
          if (!ok(attend_attention(q.tensor(), &tk, &tv, out.tensor(), &options))) return;
          int64_t wrong = 0;
          scores.each([&](T &s, int64_t j, auto...) {
            const T beyond = stage == ATTEND_SCORES_PROBABILITIES ? T(0) : -std::numeric_limits<T>::infinity();
            if (shows) wrong += j < length ? std::isnan(s) : s != beyond;
          });
          out.each([&](T &x, auto...) { wrong += std::isnan(x); });
          lse.each([&](T &x, auto...) { wrong += std::isnan(x); });
          CHECK(wrong == 0);
        }
      }
    }
  });
}

// (Compilers read the size together with the four bytes behind it.)
TEST_CASE_TEMPLATE("of options that are too short nothing is read but their size", T, float, double) {
  const Guarded<uint32_t> size(2, {true, 0});
  T numbers[8] = {};
  const attend_tensor t = matrix(numbers, 1, 1, false), out = matrix(numbers + 1, 1, 1, false);
  const attend_tensor lse_a = matrix(numbers + 2, 1, 1, false), b = matrix(numbers + 3, 1, 1, false),
                      lse_b = matrix(numbers + 4, 1, 1, false);
  const void *const few = size.data;
  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  weights.w_q = weights.w_k = weights.w_v = &t;
  const auto *attention = static_cast<const attend_attention_options *>(few);
  const auto *self = static_cast<const attend_self_attention_options *>(few);
  const auto *few_weights = static_cast<const attend_self_attention_weights *>(few);
  for (const uint32_t bytes : {0u, 4u}) {
    *size.data = bytes;
    for (const attend_status status :
         {attend_matmul(1, &t, &t, 0, &out, static_cast<const attend_matmul_options *>(few)),
          attend_softmax(&t, &out, static_cast<const attend_softmax_options *>(few)),
          attend_attention(&t, &t, &t, &out, attention),
          attend_attention_merge(&out, &lse_a, &b, &lse_b, static_cast<const attend_merge_options *>(few)),
          attend_self_attention(&t, &weights, &out, self, nullptr),
          attend_self_attention(&t, &weights, &out, nullptr, attention),
          attend_self_attention(&t, few_weights, &out, nullptr, nullptr)}) {
      CHECK(ATTEND_REASON(status) == ATTEND_INVALID_STRUCT_SIZE);
    }
  }
}
