// The notebook's systems, through the C interface on every instruction set and through both references: every digit
// that the notebook prints (f64), 2e-6 (f32).
#include "numpy_random.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr int64_t kN = kNotebookItems, kD = kNotebookFeatures;

// The inputs in T, as the book's matrices: X is D x N; Omega was drawn row by row.
template <class T>
struct Notebook {
  std::vector<T> x, w[3], b[3], out = std::vector<T>(kD * kN), attention = std::vector<T>(kN * kN);

  Notebook() {
    const NotebookInputs in;
    const auto converted = [](const std::vector<double> &v) { return std::vector<T>(v.begin(), v.end()); };
    x = converted(in.x);
    w[0] = converted(in.omega_q), w[1] = converted(in.omega_k), w[2] = converted(in.omega_v);
    b[0] = converted(in.beta_q), b[1] = converted(in.beta_k), b[2] = converted(in.beta_v);
  }
  static attend_tensor tensor(std::vector<T> &v, int64_t rows, int64_t columns, bool by_rows = false) {
    return {v.data(), kDtype<T>, 2, {rows, columns, 0, 0}, {by_rows ? columns : 1, by_rows ? 1 : rows, 0, 0}};
  }
  static reference::View<T> view(std::vector<T> &v, int64_t rows, int64_t columns, bool by_rows = false) {
    return {v.data(), {rows, columns, 1, 1}, {by_rows ? columns : 1, by_rows ? 1 : rows, 0, 0}};
  }

  void expect(const NotebookResult &printed) {
    const double absolute = sizeof(T) == 8 ? 0.5000001e-8 : 2e-6;
    // Nine significant digits of weights as small as 1e-13.
    const double relative = sizeof(T) == 8 ? 0.5000001e-8 : 2e-5;
    for (size_t n = 0; n < kN; ++n) {
      for (size_t d = 0; d < kD; ++d)
        CHECK(std::fabs(static_cast<double>(out[n * kD + d]) - printed.out[n][d]) <= absolute);
      for (size_t k = 0; k < kN; ++k) {
        const double want = printed.attention[n][k];
        CHECK(std::fabs(static_cast<double>(attention[n * kN + k]) - want) <= relative * want);
      }
    }
  }
};

template <class T>
void through_the_interface(double scale, const NotebookResult &printed) {
  Notebook<T> nb;
  const attend_tensor x = nb.tensor(nb.x, kD, kN), out = nb.tensor(nb.out, kD, kN), p = nb.tensor(nb.attention, kN, kN);
  attend_tensor w[3], b[3];
  for (size_t i = 0; i < 3; ++i) {
    w[i] = nb.tensor(nb.w[i], kD, kD, true);
    b[i] = nb.tensor(nb.b[i], kD, 1);
  }
  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  weights.w_q = &w[0], weights.w_k = &w[1], weights.w_v = &w[2];
  weights.b_q = &b[0], weights.b_k = &b[1], weights.b_v = &b[2];
  attend_attention_options options = {};
  options.size = sizeof options;
  options.scale = scale;
  options.scores = &p;
  options.scores_stage = ATTEND_SCORES_PROBABILITIES;
  if (ok(attend_self_attention(&x, &weights, &out, nullptr, &options))) nb.expect(printed);
}

// "One query at a time": a projection each, dot products with every key, softmax of that list, weighted sum of the
// values.
template <class T>
void one_query_at_a_time() {
  Notebook<T> nb;
  std::vector<T> projected[3];
  for (size_t i = 0; i < 3; ++i) {
    projected[i].resize(kD * kN);
    const attend_tensor w = nb.tensor(nb.w[i], kD, kD, true), b = nb.tensor(nb.b[i], kD, 1),
                        x = nb.tensor(nb.x, kD, kN);
    const attend_tensor y = nb.tensor(projected[i], kD, kN);
    attend_matmul_options options = {};
    options.size = sizeof options;
    options.bias = &b;
    if (!ok(attend_matmul(1, &w, &x, 0, &y, &options))) return;
  }
  const attend_tensor keys_transposed = nb.tensor(projected[1], kN, kD, true), values = nb.tensor(projected[2], kD, kN);
  for (int64_t n = 0; n < kN; ++n) {
    attend_tensor query = {projected[0].data() + n * kD, kDtype<T>, 1, {kD, 0, 0, 0}, {1, 0, 0, 0}};
    attend_tensor list = {nb.attention.data() + n * kN, kDtype<T>, 1, {kN, 0, 0, 0}, {1, 0, 0, 0}};
    attend_tensor item = {nb.out.data() + n * kD, kDtype<T>, 1, {kD, 0, 0, 0}, {1, 0, 0, 0}};
    if (!ok(attend_matmul(1, &keys_transposed, &query, 0, &list, nullptr))) return;
    if (!ok(attend_softmax(&list, &list, nullptr))) return;
    if (!ok(attend_matmul(1, &values, &list, 0, &item, nullptr))) return;
  }
  nb.expect(kUnscaledPrinted);
}

// The same steps through a reference; `matmul` and `softmax` are its functions.
template <class T, class Matmul, class Softmax>
void one_query_at_a_time(const Matmul &matmul, const Softmax &softmax) {
  Notebook<T> nb;
  std::vector<T> projected[3];
  for (size_t i = 0; i < 3; ++i) {
    projected[i].resize(kD * kN);
    reference::View<T> bias = nb.view(nb.b[i], kD, 1);
    matmul(1, nb.view(nb.w[i], kD, kD, true), nb.view(nb.x, kD, kN), 0, nb.view(projected[i], kD, kN), &bias);
  }
  for (int64_t n = 0; n < kN; ++n) {
    const reference::View<T> query = {projected[0].data() + n * kD, {kD, 1, 1, 1}, {1, 0, 0, 0}};
    const reference::View<T> list = {nb.attention.data() + n * kN, {kN, 1, 1, 1}, {1, 0, 0, 0}};
    const reference::View<T> item = {nb.out.data() + n * kD, {kD, 1, 1, 1}, {1, 0, 0, 0}};
    matmul(1, nb.view(projected[1], kN, kD, true), query, 0, list, nullptr);
    softmax(list, list, 1, false, nullptr);
    matmul(1, nb.view(projected[2], kD, kN), list, 0, item, nullptr);
  }
  nb.expect(kUnscaledPrinted);
}

template <class T, class SelfAttention>
void through_a_reference(const SelfAttention &self_attention, double scale, const NotebookResult &printed) {
  Notebook<T> nb;
  reference::View<T> b[3], p = nb.view(nb.attention, kN, kN);
  for (size_t i = 0; i < 3; ++i) b[i] = nb.view(nb.b[i], kD, 1);
  const reference::Weights<T> weights = {nb.view(nb.w[0], kD, kD, true),
                                         nb.view(nb.w[1], kD, kD, true),
                                         nb.view(nb.w[2], kD, kD, true),
                                         &b[0],
                                         &b[1],
                                         &b[2]};
  reference::AttentionSpec<T> spec;
  spec.scale = scale;
  spec.scores = &p;
  spec.scores_stage = ATTEND_SCORES_PROBABILITIES;
  self_attention(nb.view(nb.x, kD, kN), weights, nb.view(nb.out, kD, kN), spec);
  nb.expect(printed);
}

// The book's next step: two heads of D / 2 features each, their outputs concatenated and projected by W_o. The heads'
// weights are the rows of Omega; W_o is drawn after all else.
template <class T>
void two_heads() {
  constexpr int64_t kHeads = 2, kHead = kD / kHeads;
  Notebook<T> nb;
  NumpyRandom random(7);
  std::vector<T> w_o;
  for (int i = 0; i < kD * kD; ++i) w_o.push_back(static_cast<T>(random.normal()));
  // W[out][in] by rows: head h is rows h D/2 ...; of W_o, whose rows are long, columns h D/2 ...
  const auto head_rows = [](std::vector<T> &v) {
    return attend_tensor{v.data(), kDtype<T>, 3, {kHead, kD, kHeads, 0}, {kD, 1, kHead * kD, 0}};
  };
  const auto head_bias = [](std::vector<T> &v) {
    return attend_tensor{v.data(), kDtype<T>, 3, {kHead, 1, kHeads, 0}, {1, 0, kHead, 0}};
  };
  const attend_tensor x = nb.tensor(nb.x, kD, kN), out = nb.tensor(nb.out, kD, kN);
  const attend_tensor o = {w_o.data(), kDtype<T>, 3, {kD, kHead, kHeads, 0}, {kD, 1, kHead, 0}};
  attend_tensor w[3], b[3];
  for (size_t i = 0; i < 3; ++i) {
    w[i] = head_rows(nb.w[i]);
    b[i] = head_bias(nb.b[i]);
  }
  attend_self_attention_weights weights = {sizeof weights, 0, &w[0], &w[1], &w[2], &b[0], &b[1], &b[2], &o, nullptr};
  if (!ok(attend_self_attention(&x, &weights, &out, nullptr, nullptr))) return;

  // The same in double, with the concatenation written out: by its formulas, not by the reference's idea of heads.
  const std::vector<double> wide_o(w_o.begin(), w_o.end());
  std::vector<double> qkv[3], concatenated(kD * kN);
  for (size_t i = 0; i < 3; ++i) {
    const std::vector<double> wide_w(nb.w[i].begin(), nb.w[i].end()), wide_b(nb.b[i].begin(), nb.b[i].end());
    for (size_t n = 0; n < kN; ++n) {
      for (size_t r = 0; r < kD; ++r) {
        double sum = wide_b[r];
        for (size_t c = 0; c < kD; ++c) sum += wide_w[r * kD + c] * static_cast<double>(nb.x[n * kD + c]);
        qkv[i].push_back(sum);
      }
    }
  }
  for (int64_t h = 0; h < kHeads; ++h) {
    const auto view = [h](std::vector<double> &v) {
      return reference::View<double>{v.data() + h * kHead, {kHead, kN, 1, 1}, {1, kD, 0, 0}};
    };
    reference::naive::attention<double>(view(qkv[0]), view(qkv[1]), view(qkv[2]), view(concatenated));
  }
  for (size_t n = 0; n < kN; ++n) {
    for (size_t r = 0; r < kD; ++r) {
      double want = 0;
      for (size_t c = 0; c < kD; ++c) want += wide_o[r * kD + c] * concatenated[n * kD + c];
      CHECK(std::fabs(static_cast<double>(nb.out[n * kD + r]) - want) <= (sizeof(T) == 8 ? 1e-14 : 4e-6));
    }
  }
}

}  // namespace

TEST_CASE("notebook: the inputs are NumPy's") {
  const NotebookInputs in;
  const double first[] = {1.78862847, 0.43650985, 0.09649747, -1.8634927};
  for (size_t i = 0; i < 4; ++i) CHECK(std::fabs(in.x[i] - first[i]) <= 0.5000001e-8);
}

TEST_CASE_TEMPLATE("notebook: self_attention, unscaled and scaled", T, float, double) {
  for_each_isa([] {
    through_the_interface<T>(1, kUnscaledPrinted);
    through_the_interface<T>(0, kScaledPrinted);  // the default: 1 / sqrt(D)
  });
}

TEST_CASE_TEMPLATE("notebook: one query at a time", T, float, double) {
  for_each_isa([] { one_query_at_a_time<T>(); });
}

TEST_CASE_TEMPLATE("notebook: the references", T, float, double) {
  for (const double scale : {1.0, 0.0}) {
    const NotebookResult &printed = scale == 1 ? kUnscaledPrinted : kScaledPrinted;
    through_a_reference<T>(reference::naive::self_attention<T>, scale, printed);
    through_a_reference<T>(reference::blocked::self_attention<T>, scale, printed);
  }
  one_query_at_a_time<T>(reference::naive::matmul<T>, reference::naive::softmax<T>);
  one_query_at_a_time<T>(reference::blocked::matmul<T>, reference::blocked::softmax<T>);
}

TEST_CASE_TEMPLATE("notebook: multi-head self-attention with an output projection", T, float, double) {
  for_each_isa(two_heads<T>);
}

TEST_CASE_TEMPLATE("notebook: softmax_cols stays stable where the notebook's overflows", T, float, double) {
  for_each_isa([] {
    T x[2][3] = {{1000, 0, -1000}, {-1000, -1000, -1000}};
    const attend_tensor t = {x, kDtype<T>, 2, {3, 2, 0, 0}, {1, 3, 0, 0}};
    if (!ok(attend_softmax(&t, &t, nullptr))) return;
    CHECK(x[0][0] == 1);
    CHECK(x[0][1] == 0);
    CHECK(x[0][2] == 0);
    for (const T v : x[1]) CHECK(std::fabs(static_cast<double>(v) - 1.0 / 3) < 2 * kUnit<T>);
  });
}
