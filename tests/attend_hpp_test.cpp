// attend/attend.hpp: each call has the bits of attend.h's, and the values of the formula; options, lifetimes.
#include <attend/attend.hpp>

#include "hpp/results.hpp"
#include "numpy_random.hpp"
#ifdef ATTEND_TEST_EIGEN
#include <Eigen/Core>
#endif

using namespace attend::test;
using attend::columns;
using attend::extents;
using attend::matrix;
using attend::tensor;

namespace {

// [batch, heads, items, features], of NumPy's order.
struct Shape4 {
  int64_t batch, heads, items, features;
  extents numpy() const { return {batch, heads, items, features}; }
  int64_t count() const { return batch * heads * items * features; }
  attend_tensor c(const void *data, uint32_t dtype) const {
    return {const_cast<void *>(data),
            dtype,
            4,
            {features, items, heads, batch},
            {1, features, items * features, heads * items * features}};
  }
};

}  // namespace

TEST_CASE_TEMPLATE("attention: bits of the C call, values of the formula", T, float, double) {
  const Shape4 sq = {2, 4, 5, 8}, sk = {2, 2, 9, 8}, sv = {2, 2, 9, 6}, so = {2, 4, 5, 6};
  const std::vector<T> q = normals<T>(sq.count(), 1), k = normals<T>(sk.count(), 2), v = normals<T>(sv.count(), 3);
  const attend::array<T> out = attend::attention(tensor(q, sq.numpy()), tensor(k, sk.numpy()), tensor(v, sv.numpy()));

  std::vector<T> wanted(static_cast<size_t>(so.count()));
  const attend_tensor cq = sq.c(q.data(), kDtype<T>), ck = sk.c(k.data(), kDtype<T>), cv = sv.c(v.data(), kDtype<T>),
                      co = so.c(wanted.data(), kDtype<T>);
  REQUIRE(ok(attend_attention(&cq, &ck, &cv, &co, nullptr)));
  CHECK(same_bits(out, wanted));
  std::vector<T> mine(wanted.size());
  attend::attention(tensor(q, sq.numpy()), tensor(k, sk.numpy()), tensor(v, sv.numpy()), tensor(mine, so.numpy()));
  CHECK(same_bits(mine, wanted));

  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t h = 0; h < 4; ++h) {
      for (int64_t i = 0; i < 5; ++i) {
        double p[9], sum = 0;
        for (int64_t j = 0; j < 9; ++j) {
          double s = 0;
          for (int64_t d = 0; d < 8; ++d) {
            s += static_cast<double>(q[static_cast<size_t>(((b * 4 + h) * 5 + i) * 8 + d)]) *
                 static_cast<double>(k[static_cast<size_t>(((b * 2 + h / 2) * 9 + j) * 8 + d)]);
          }
          sum += p[j] = std::exp(s / std::sqrt(8.0));
        }
        for (int64_t d = 0; d < 6; ++d) {
          double o = 0;
          for (int64_t j = 0; j < 9; ++j)
            o += p[j] / sum * static_cast<double>(v[static_cast<size_t>(((b * 2 + h / 2) * 9 + j) * 6 + d)]);
          CHECK(std::fabs(static_cast<double>(out(d, i, h, b)) - o) < 40 * kUnit<T>);
        }
      }
    }
  }
}

TEST_CASE("results have the shape that broadcast operands give") {
  const std::vector<float> x = normals<float>(2 * 3 * 4, 1);
  const auto one = tensor(x.data(), {1, 1, 3, 4}), two = tensor(x, {2, 1, 3, 4});
  const auto batch_of = [](const attend::array<float> &out) { return out.extent(3); };
  CHECK(batch_of(attend::attention(one, one, one)) == 1);
  CHECK(batch_of(attend::attention(two, one, one)) == 2);
  CHECK(batch_of(attend::attention(one, two, one)) == 2);
  CHECK(batch_of(attend::attention(one, one, two)) == 2);
  CHECK(batch_of(attend::matmul(one, matrix(x, {2, 1, 3, 4}))) == 2);
  CHECK(batch_of(attend::matmul(two, matrix(x.data(), {1, 1, 3, 4}))) == 2);
  // Without keys, without queries, without a batch.
  const tensor<const float> empty(nullptr, {0, 4}), none(nullptr, {0, 1, 3, 4});
  const auto zero = attend::attention(one, empty, empty);
  CHECK(zero.size() == 12);
  CHECK(std::count(zero.begin(), zero.end(), 0.0f) == 12);
  CHECK(attend::attention(empty, one, one).size() == 0);
  CHECK(batch_of(attend::attention(one, none, one)) == 0);
}

TEST_CASE("attention: every option reaches its field") {
  std::vector<float> bias(12), slopes(2), sinks(2), lse(4), scores(12), k_scale(3), v_scale(6);
  std::vector<unsigned char> mask(12);
  const std::vector<int64_t> offsets(2), lengths(2), first(2), query_starts(3), key_starts(3);
  const std::vector<int32_t> pages(6);
  std::vector<char> workspace(100);
  const attend::executor executor([](int32_t, attend::task) {});
  attend::attention_options options;
  options.threads(3).native_dot().workspace(workspace).executor(executor);
  options.scale(2).softcap(3).causal_top_left().causal_bottom_right().window(4, 5).query_offset(6);
  options.query_offsets(offsets).kv_lengths(lengths).kv_first(first);
  options.query_starts(query_starts).key_starts(key_starts).pages(tensor(pages, {2, 3}));
  options.k_scale(tensor(k_scale, {3, 1})).v_scale(v_scale);
  options.mask(tensor(mask, {4, 3})).bias(tensor(bias, {4, 3})).alibi_slopes(slopes).sinks(sinks);
  options.lse(tensor(lse, {4, 1})).scores(tensor(scores, {4, 3}), ATTEND_SCORES_MASKED);

  // A copy views the same memory, with pointers of its own.
  const attend::attention_options copy = options;
  const attend_attention_options c = copy.get();
  CHECK(c.size == sizeof c);
  CHECK(c.flags == (ATTEND_CAUSAL_TOP_LEFT | ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_WINDOW |
                    static_cast<uint32_t>(ATTEND_NATIVE_DOT)));
  CHECK(c.threads == 3);
  CHECK(c.workspace == workspace.data());
  CHECK(c.workspace_size == 100);
  CHECK(c.executor == &executor.c());
  CHECK(c.scale == 2);
  CHECK(c.softcap == 3);
  CHECK(c.window_left == 4);
  CHECK(c.window_right == 5);
  CHECK(c.query_offset == 6);
  CHECK(c.query_offsets == offsets.data());
  CHECK(c.kv_lengths == lengths.data());
  CHECK(c.kv_first == first.data());
  CHECK(c.sequences == 2);
  CHECK(c.query_starts == query_starts.data());
  CHECK(c.key_starts == key_starts.data());
  CHECK(c.scores_stage == ATTEND_SCORES_MASKED);
  const auto is = [&](const attend_tensor *field, const void *data, uint32_t dtype) {
    REQUIRE(field != nullptr);
    CHECK(field->data == data);
    CHECK(field->dtype == dtype);
    const char *const at = reinterpret_cast<const char *>(field);
    CHECK((at >= reinterpret_cast<const char *>(&copy) && at < reinterpret_cast<const char *>(&copy + 1)));
  };
  is(c.mask, mask.data(), ATTEND_BOOL);
  is(c.bias, bias.data(), ATTEND_F32);
  is(c.pages, pages.data(), ATTEND_I32);
  is(c.k_scale, k_scale.data(), ATTEND_F32);
  is(c.v_scale, v_scale.data(), ATTEND_F32);
  is(c.alibi_slopes, slopes.data(), ATTEND_F32);
  is(c.sinks, sinks.data(), ATTEND_F32);
  is(c.lse, lse.data(), ATTEND_F32);
  is(c.scores, scores.data(), ATTEND_F32);

  // Nothing set is nothing said, and what has no setter is there.
  const attend_attention_options initial = ATTEND_ATTENTION_OPTIONS_INIT, none = attend::attention_options().get();
  CHECK(std::memcmp(&initial, &none, sizeof none) == 0);
  options.c().key_offset = 256;
  CHECK(options.get().key_offset == 256);
}

TEST_CASE("attention: temporaries of options and operands live through the call") {
  const extents shape{2, 3, 4};
  const auto items = [](unsigned stream) { return normals<float>(24, stream); };
  const std::vector<float> q = items(1), k = items(2), v = items(3);
  const std::vector<unsigned char> mask = {1, 1, 0};
  const std::vector<int64_t> lengths = {2};
  std::vector<float> lse(6), want_lse(6);
  const auto out = attend::attention(tensor(items(1), shape), tensor(items(2), shape), tensor(items(3), shape),
                                     attend::attention_options()
                                         .mask(tensor(std::vector<unsigned char>{1, 1, 0}, {1, 3}))
                                         .kv_lengths(std::vector<int64_t>{2})
                                         .lse(tensor(lse, {2, 3, 1})));
  const Shape4 s = {1, 2, 3, 4};
  std::vector<float> wanted(24);
  const attend_tensor cq = s.c(q.data(), ATTEND_F32), ck = s.c(k.data(), ATTEND_F32), cv = s.c(v.data(), ATTEND_F32),
                      co = s.c(wanted.data(), ATTEND_F32);
  const attend_tensor cm = {const_cast<unsigned char *>(mask.data()), ATTEND_BOOL, 2, {3, 1}, {1, 3}};
  const attend_tensor cl = {want_lse.data(), ATTEND_F32, 3, {1, 3, 2}, {1, 1, 3}};
  attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
  o.mask = &cm;
  o.lse = &cl;
  o.kv_lengths = lengths.data();
  REQUIRE(ok(attend_attention(&cq, &ck, &cv, &co, &o)));
  CHECK(same_bits(out, wanted));
  CHECK(same_bits(lse, want_lse));
}

TEST_CASE_TEMPLATE("matmul: by rows, by columns, alpha, beta, bias, broadcast", T, float, double) {
  // A (2 x 3) B (3 x 2), by rows.
  const T a[2][3] = {{1, 2, 3}, {4, 5, 6}}, b[3][2] = {{1, 2}, {0, 1}, {-1, 0}};
  T c[2][2] = {{1, 1}, {1, 1}};
  attend::matmul(matrix(a, {2, 3}), matrix(b, {3, 2}), matrix(c, {2, 2}));
  CHECK((c[0][0] == -2 && c[0][1] == 4 && c[1][0] == -2 && c[1][1] == 13));
  const auto ab = attend::matmul(matrix(a, {2, 3}), matrix(b, {3, 2}));
  CHECK((ab(0, 0) == -2 && ab(0, 1) == 4 && ab(1, 0) == -2 && ab(1, 1) == 13));
  const T want[4] = {-2, -2, 4, 13};  // it lies by columns
  CHECK(std::equal(ab.begin(), ab.end(), want));

  // 2 A B + 3 C + bias, the bias one number for each row.
  const std::vector<T> bias = {10, 20};
  attend::matmul(matrix(a, {2, 3}), matrix(b, {3, 2}), matrix(c, {2, 2}),
                 attend::matmul_options().alpha(2).beta(3).bias(bias));
  CHECK((c[0][0] == 0 && c[0][1] == 30 && c[1][0] == 10 && c[1][1] == 85));
  // Stride 0: every column of C gets the same bias, every head the same B.
  const std::vector<T> heads = normals<T>(4 * 6, 5);
  const auto many = attend::matmul(matrix(heads, {4, 2, 3}), matrix(&b[0][0], {4, 3, 2}, {0, 2, 1}),
                                   attend::matmul_options().bias(columns(bias, {2, 2, 4}, {1, 0, 0})));
  for (int64_t h = 0; h < 4; ++h) {
    const auto one =
        attend::matmul(matrix(heads.data() + 6 * h, {2, 3}), matrix(b, {3, 2}), attend::matmul_options().bias(bias));
    CHECK(std::memcmp(many.data() + 4 * h, one.data(), 4 * sizeof(T)) == 0);
  }
  // There is no C to read.
  const Thrown t = thrown([&] {
    attend::matmul(matrix(a, {2, 3}), matrix(b, {3, 2}), attend::matmul_options().beta(1));
  });
  CHECK(t.reason == ATTEND_INVALID_VALUE);
  CHECK(t.argument == "beta");
  const attend_matmul_options get = attend::matmul_options().bias(bias).get();
  CHECK(get.size == sizeof get);
}

TEST_CASE_TEMPLATE("softmax: in place, log, mask of bool and bytes, bias, lse", T, float, double) {
  const std::vector<T> x = normals<T>(15, 6);
  const auto y = attend::softmax(tensor(x, {5, 3}));
  CHECK(y.extent(0) == 3);
  CHECK(y.extent(1) == 5);
  for (int64_t n = 0; n < 5; ++n) {
    CHECK(std::fabs(static_cast<double>(y(0, n) + y(1, n) + y(2, n)) - 1) < 8 * kUnit<T>);
    const double ratio =
        std::exp(static_cast<double>(x[static_cast<size_t>(3 * n)] - x[static_cast<size_t>(3 * n + 1)]));
    CHECK(std::fabs(static_cast<double>(y(0, n) / y(1, n)) / ratio - 1) < 40 * kUnit<T>);
  }
  std::vector<T> in_place = x;
  attend::softmax(tensor(in_place, {5, 3}), tensor(in_place, {5, 3}));
  CHECK(same_bits(in_place, y));

  const bool bits[3] = {true, false, true};
  const std::vector<unsigned char> bytes = {1, 0, 2};
  std::vector<T> lse(5), wanted(15), want_lse(5), mine(15);
  const T bias[3] = {1, 2, 3};
  const auto by_bits =
      attend::softmax(tensor(x, {5, 3}), attend::softmax_options().mask(bits).bias(bias).log().scale(0.5));
  attend::softmax(tensor(x, {5, 3}), tensor(mine, {5, 3}),
                  attend::softmax_options().mask(bytes).bias(bias).log().scale(0.5).lse(tensor(lse, {5, 1})));
  const attend_tensor cx = {const_cast<T *>(x.data()), kDtype<T>, 2, {3, 5}, {1, 3}};
  const attend_tensor cy = {wanted.data(), kDtype<T>, 2, {3, 5}, {1, 3}};
  const attend_tensor cl = {want_lse.data(), kDtype<T>, 2, {1, 5}, {1, 1}};
  const attend_tensor cm = {const_cast<bool *>(bits), ATTEND_BOOL, 1, {3}, {1}};
  const attend_tensor cb = {const_cast<T *>(bias), kDtype<T>, 1, {3}, {1}};
  attend_softmax_options o = ATTEND_SOFTMAX_OPTIONS_INIT;
  o.flags = ATTEND_LOG;
  o.scale = 0.5;
  o.mask = &cm, o.bias = &cb, o.lse = &cl;
  REQUIRE(ok(attend_softmax(&cx, &cy, &o)));
  CHECK(same_bits(by_bits, wanted));
  CHECK(same_bits(mine, wanted));
  CHECK(same_bits(lse, want_lse));
}

TEST_CASE_TEMPLATE("softmax_backward: apart, in place, accumulated, log, d_lse", T, float, double) {
  const std::vector<T> x = normals<T>(15, 7), d_y = normals<T>(15, 8), d_lse = normals<T>(5, 9);
  const auto y = attend::softmax(tensor(x, {5, 3}), attend::softmax_options().log().scale(0.5));
  const auto options = [&] { return attend::softmax_backward_options().log().scale(0.5).d_lse(tensor(d_lse, {5, 1})); };
  const auto d_x = attend::softmax_backward(y, tensor(d_y, {5, 3}), options());
  CHECK(d_x.extent(0) == 3);
  std::vector<T> wanted(15), in_place = d_y, sum(15);
  const attend_tensor cy = {const_cast<T *>(y.data()), kDtype<T>, 2, {3, 5}, {1, 3}},
                      cd = {const_cast<T *>(d_y.data()), kDtype<T>, 2, {3, 5}, {1, 3}};
  const attend_tensor cx = {wanted.data(), kDtype<T>, 2, {3, 5}, {1, 3}};
  const attend_tensor cl = {const_cast<T *>(d_lse.data()), kDtype<T>, 2, {1, 5}, {1, 1}};
  attend_softmax_backward_options o = ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT;
  o.flags = ATTEND_LOG;
  o.scale = 0.5;
  o.d_lse = &cl;
  REQUIRE(ok(attend_softmax_backward(&cy, &cd, &cx, &o)));
  CHECK(same_bits(d_x, wanted));
  attend::softmax_backward(y, tensor(in_place, {5, 3}), tensor(in_place, {5, 3}), options());
  CHECK(same_bits(in_place, wanted));
  attend::softmax_backward(y, tensor(d_y, {5, 3}), tensor(sum, {5, 3}), options().accumulate());
  CHECK(same_bits(sum, wanted));
  CHECK(attend::softmax_backward_workspace(y, tensor(d_y, {5, 3}), tensor(sum, {5, 3})) == 0);
}

TEST_CASE_TEMPLATE("attention_merge: two halves are the whole", T, float, double) {
  const std::vector<T> q = normals<T>(3 * 4, 7), k = normals<T>(10 * 4, 8), v = normals<T>(10 * 4, 9);
  std::vector<T> out[2] = {std::vector<T>(12), std::vector<T>(12)}, lse[2] = {std::vector<T>(3), std::vector<T>(3)};
  for (int64_t half = 0; half < 2; ++half) {
    const auto part = [&](const std::vector<T> &x) { return tensor(x.data() + 20 * half, {5, 4}); };
    attend::attention(tensor(q, {3, 4}), part(k), part(v), tensor(out[half], {3, 4}),
                      attend::attention_options().lse(tensor(lse[half], {3, 1})));
  }
  const auto view = [](std::vector<T> &x) { return tensor(x, {3, x.size() / 3}); };
  CHECK(attend::attention_merge_workspace(view(out[0]), view(lse[0]), view(out[1]), view(lse[1])) == 0);
  attend::attention_merge(view(out[0]), view(lse[0]), view(out[1]), view(lse[1]), attend::merge_options().threads(1));
  const auto whole = attend::attention(tensor(q, {3, 4}), tensor(k, {10, 4}), tensor(v, {10, 4}));
  for (size_t i = 0; i < 12; ++i) CHECK(std::fabs(static_cast<double>(out[0][i] - whole[i])) < 40 * kUnit<T>);
  const Thrown t = thrown([&] { attend::attention_merge(view(out[0]), view(lse[0]), view(out[0]), view(lse[1])); });
  CHECK(t.reason == ATTEND_OVERLAP);
}

TEST_CASE_TEMPLATE("notebook: self-attention in ten lines", T, float, double) {
  const NotebookInputs in;
  const auto as = [](const std::vector<double> &v) { return std::vector<T>(v.begin(), v.end()); };
  const std::vector<T> x = as(in.x), omega_q = as(in.omega_q), omega_k = as(in.omega_k), omega_v = as(in.omega_v),
                       beta_q = as(in.beta_q), beta_k = as(in.beta_k), beta_v = as(in.beta_v);

  const auto omega = [](const std::vector<T> &w) { return matrix(w, {4, 4}); };
  auto weights = attend::self_attention_weights(omega(omega_q), omega(omega_k), omega(omega_v));
  weights.b_q(beta_q).b_k(beta_k).b_v(beta_v);
  T p[3][3];
  const auto options = attend::attention_options().scale(1).scores(p, ATTEND_SCORES_PROBABILITIES);
  const auto unscaled = attend::self_attention(tensor(x, {3, 4}), weights, options);
  const auto scaled = attend::self_attention(tensor(x, {3, 4}), weights);

  const double bound = sizeof(T) == 8 ? 0.5000001e-8 : 2e-6;
  for (int64_t n = 0; n < 3; ++n) {
    for (int64_t d = 0; d < 4; ++d) {
      CHECK(std::fabs(static_cast<double>(unscaled(d, n)) - kUnscaledPrinted.out[n][d]) <= bound);
      CHECK(std::fabs(static_cast<double>(scaled(d, n)) - kScaledPrinted.out[n][d]) <= bound);
    }
    for (int64_t k = 0; k < 3; ++k)
      CHECK(std::fabs(static_cast<double>(p[n][k]) - kUnscaledPrinted.attention[n][k]) <= bound);
  }
}

TEST_CASE("self_attention: heads, output projection, one set of options") {
  const int64_t d = 8, h = 2, dh = 4, n = 6, batch = 2;
  const std::vector<float> x = normals<float>(batch * n * d, 1), w_q = normals<float>(h * dh * d, 2),
                           w_k = normals<float>(h * dh * d, 3), w_v = normals<float>(h * dh * d, 4),
                           w_o = normals<float>(d * h * dh, 5), b_o = normals<float>(d, 6),
                           b_q = normals<float>(h * dh, 7);
  const auto w = [&](const std::vector<float> &m) { return matrix(m, {h, dh, d}); };
  attend::self_attention_weights weights(w(w_q), w(w_k), w(w_v));
  weights.b_q(tensor(b_q, {h, 1, dh}));
  const tensor tx(x, {batch, int64_t{1}, n, d});
  const auto heads = attend::self_attention(tx, weights);
  CHECK((heads.extent(0) == dh && heads.extent(1) == n && heads.extent(2) == h && heads.extent(3) == batch));
  weights.w_o(columns(w_o, {d, dh, h}, {h * dh, int64_t{1}, dh})).b_o(b_o);

  const std::vector<int64_t> lengths = {6, 3};
  auto options = attend::attention_options().causal_top_left().kv_lengths(lengths).threads(1).native_dot();
  std::vector<float> out(static_cast<size_t>(batch * n * d)), wanted(out.size());
  const tensor to(out, {batch, int64_t{1}, n, d});
  std::vector<char> workspace(attend::self_attention_workspace(tx, weights, to, options));
  REQUIRE(!workspace.empty());
  attend::self_attention(tx, weights, to, options.workspace(workspace));
  CHECK(same_bits(attend::self_attention(tx, weights, options), out));

  const attend_tensor cx = {const_cast<float *>(x.data()), ATTEND_F32, 4, {d, n, 1, batch}, {1, d, n * d, n * d}};
  const attend_tensor co = {wanted.data(), ATTEND_F32, 4, {d, n, 1, batch}, {1, d, n * d, n * d}};
  const auto cw = [&](const std::vector<float> &m) {
    return attend_tensor{const_cast<float *>(m.data()), ATTEND_F32, 3, {dh, d, h}, {d, 1, dh * d}};
  };
  const attend_tensor cq = cw(w_q), ck = cw(w_k), cv = cw(w_v);
  const attend_tensor cb = {const_cast<float *>(b_q.data()), ATTEND_F32, 3, {dh, 1, h}, {1, 0, dh}};
  const attend_tensor cwo = {const_cast<float *>(w_o.data()), ATTEND_F32, 3, {d, dh, h}, {h * dh, 1, dh}};
  const attend_tensor cbo = {const_cast<float *>(b_o.data()), ATTEND_F32, 1, {d}, {1}};
  attend_self_attention_weights c = ATTEND_SELF_ATTENTION_WEIGHTS_INIT;
  c.w_q = &cq, c.w_k = &ck, c.w_v = &cv, c.b_q = &cb, c.w_o = &cwo, c.b_o = &cbo;
  attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
  o.flags = ATTEND_CAUSAL_TOP_LEFT;
  o.kv_lengths = lengths.data();
  REQUIRE(ok(attend_self_attention(&cx, &c, &co, nullptr, &o)));
  CHECK(same_bits(out, wanted));
  // The head was one of self-attention's: so is its error.
  CHECK(thrown([&] { attend::self_attention(tx, weights, options.threads(-1)); }).argument == "options.threads");
}

#ifdef ATTEND_TEST_EIGEN
TEST_CASE("Eigen: the book's matrices without a word about layout") {
  std::vector<float> memory = normals<float>(8 * 5 * 3, 1);
  using Items = Eigen::Map<Eigen::MatrixXf>;
  const Items q(memory.data(), 8, 5), k(memory.data() + 40, 8, 5), v(memory.data() + 80, 8, 5);
  Eigen::MatrixXf p = (k.transpose() * q / std::sqrt(8.0f)).array().exp();
  for (long n = 0; n < 5; ++n) p.col(n) /= p.col(n).sum();
  const Eigen::MatrixXf wanted = v * p;

  Eigen::MatrixXf out(10, 5);
  attend::attention(q, k, v, out.bottomRows(8));
  CHECK((out.bottomRows(8) - wanted).cwiseAbs().maxCoeff() < 1e-5f);
  const auto owned = attend::attention(q, k, v);
  CHECK(Eigen::Map<const Eigen::MatrixXf>(owned.data(), 8, 5) == out.bottomRows(8));
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> scores(5, 5);
  attend::matmul(k.transpose(), q, scores, attend::matmul_options().bias(Eigen::VectorXf::Ones(5).eval()));
  CHECK((scores - k.transpose() * q).isConstant(1, 1e-4f));
}
#endif
