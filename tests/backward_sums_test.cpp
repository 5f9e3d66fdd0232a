// Gradients as sums: over what an operand repeats, over spans of keys and the threads that share them, and as derivatives.
#include "arrays.hpp"
#include "backward_model.hpp"
#include "guarded.hpp"
#include "operands.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// Operands of one call in arrays of their own, drawn.
struct Plain {
  Array q, k, v, out, lse, d_out, d_q, d_k, d_v;
  attend_attention_options options = options_with<attend_attention_options>(0);
  attend_attention_backward_options gradients = options_with<attend_attention_backward_options>(1);

  Plain(Random &random, uint32_t type, int64_t d, int64_t dv, int64_t nq, int64_t nk, int64_t heads, int64_t kv_heads,
        const std::array<int64_t, 3> &batches = {1, 1, 1}, int64_t batch = 1)
      : q(type, {d, nq, heads, batches[0]}),
        k(type, {d, nk, kv_heads, batches[1]}),
        v(type, {dv, nk, kv_heads, batches[2]}),
        out(type, {dv, nq, heads, batch}),
        lse(type, {1, nq, heads, batch}),
        d_out(type, {dv, nq, heads, batch}),
        d_q(q.like({d, nq, heads, batches[0]})),
        d_k(k.like({d, nk, kv_heads, batches[1]})),
        d_v(v.like({dv, nk, kv_heads, batches[2]})) {
    for (Array *a : {&q, &k, &v, &d_out}) a->fill(random);
  }
  void forward() {
    options.lse = &lse.t;
    ok(attend_attention(&q.t, &k.t, &v.t, &out.t, &options));
  }
  bool backward() {
    return ok(
        attend_attention_backward(&q.t, &k.t, &v.t, &out.t, &d_out.t, &d_q.t, &d_k.t, &d_v.t, &gradients, &options));
  }
};

// L = sum of d_out out + sum of d_lse lse.
double loss(Plain &p, const Array &d_lse) {
  p.forward();
  double sum = 0;
  for (int64_t h = 0; h < p.out.t.shape[2]; ++h)
    for (int64_t j = 0; j < p.out.t.shape[1]; ++j) {
      for (int64_t i = 0; i < p.out.t.shape[0]; ++i)
        sum += *reinterpret_cast<double *>(element(p.out.t, i, j, h)) *
               *reinterpret_cast<double *>(element(p.d_out.t, i, j, h));
      sum += *reinterpret_cast<double *>(element(p.lse.t, 0, j, h)) *
             *reinterpret_cast<double *>(element(d_lse.t, 0, j, h));
    }
  return sum;
}

}  // namespace

TEST_CASE("gradients are derivatives: finite differences") {
  Random random(1601);
  for (int round = 0; round < 12; ++round) {
    Plain p(random, ATTEND_F64, 5, 3, 7, 9, 2, 1);
    Array d_lse(ATTEND_F64, {1, 7, 2, 1}), bias(ATTEND_F64, {9, round % 2 == 0 ? 7 : 1, round % 3 == 0 ? 1 : 2, 1}),
        sinks(ATTEND_F64, {2, 1, 1, 1}), d_bias = bias.like({9, bias.t.shape[1], bias.t.shape[2], 1}),
                                         d_sinks = sinks.like({2, 1, 1, 1});
    for (Array *a : {&d_lse, &bias, &sinks}) a->fill(random);
    p.options.bias = &bias.t;
    p.options.sinks = &sinks.t;
    p.options.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_BOTTOM_RIGHT});
    p.options.softcap = random.pick({0.0, 2.0});
    p.gradients.d_bias = &d_bias.t;
    p.gradients.d_sinks = &d_sinks.t;
    p.gradients.d_lse = &d_lse.t;
    p.forward();
    if (!p.backward()) return;
    const struct {
      Array *of, *gradient;
    } pairs[] = {{&p.q, &p.d_q}, {&p.k, &p.d_k}, {&p.v, &p.d_v}, {&bias, &d_bias}, {&sinks, &d_sinks}};
    for (const auto &pair : pairs) {
      const int64_t *shape = pair.of->t.shape;
      for (int64_t h = 0; h < shape[2]; ++h)
        for (int64_t j = 0; j < shape[1]; ++j)
          for (int64_t i = 0; i < shape[0]; ++i) {
            double &x = *reinterpret_cast<double *>(element(pair.of->t, i, j, h));
            const double before = x, step = 1e-5;
            x = before + step;
            const double above = loss(p, d_lse);
            x = before - step;
            const double below = loss(p, d_lse);
            x = before;
            const double got = *reinterpret_cast<double *>(element(pair.gradient->t, i, j, h));
            CHECK(std::fabs(got - (above - below) / (2 * step)) < 1e-7 * (1 + std::fabs(got)));
          }
    }
  }
}

TEST_CASE("what a batch shares has the sum over it, in the batches' order") {
  Random random(1602);
  for (int round = 0; round < 8; ++round) {
    const std::array<int64_t, 3> batches = {random.pick<int64_t>({1, 3}), random.pick<int64_t>({1, 3}),
                                            random.pick<int64_t>({1, 3})};
    const int64_t heads = 2, nq = random.in(1, 90), nk = random.in(1, 300);
    Plain p(random, ATTEND_F32, 16, 8, nq, nk, heads, 1, batches, 3);
    Array bias(ATTEND_F32, {random.pick<int64_t>({1, nk}), random.pick<int64_t>({1, nq}),
                            random.pick<int64_t>({1, heads}), random.pick<int64_t>({1, 3})});
    bias.fill(random);
    Array d_bias = bias.like({bias.t.shape[0], bias.t.shape[1], bias.t.shape[2], bias.t.shape[3]});
    p.options.bias = &bias.t;
    p.gradients.d_bias = &d_bias.t;
    p.gradients.threads = static_cast<int32_t>(random.in(1, 4));
    p.forward();
    if (!p.backward()) return;
    // Batch by batch, each added to those before.
    Array d_q = p.d_q.like({16, nq, heads, batches[0]}), d_k = p.d_k.like({16, nk, 1, batches[1]}),
          d_v = p.d_v.like({8, nk, 1, batches[2]}),
          d_bias1 = d_bias.like({d_bias.t.shape[0], d_bias.t.shape[1], d_bias.t.shape[2], d_bias.t.shape[3]});
    for (Array *a : {&d_q, &d_k, &d_v, &d_bias1}) a->fill_with_bytes(0);
    for (int64_t b = 0; b < 3; ++b) {
      const auto of = [b](const Array &a) { return part(a.t, 1, 0, a.t.shape[1], b); };
      const attend_tensor q = of(p.q), k = of(p.k), v = of(p.v), out = of(p.out), d_out = of(p.d_out), lse = of(p.lse),
                          gq = of(d_q), gk = of(d_k), gv = of(d_v), one_bias = of(bias), gb = of(d_bias1);
      attend_attention_options o = p.options;
      o.lse = &lse;
      o.bias = &one_bias;
      attend_attention_backward_options g = p.gradients;
      g.flags = ATTEND_ACCUMULATE;
      g.d_bias = &gb;
      g.threads = 1;
      ok(attend_attention_backward(&q, &k, &v, &out, &d_out, &gq, &gk, &gv, &g, &o));
    }
    CHECK(same_elements(p.d_q.t, d_q.t));
    CHECK(same_elements(p.d_k.t, d_k.t));
    CHECK(same_elements(p.d_v.t, d_v.t));
    CHECK(same_elements(d_bias.t, d_bias1.t));
  }
}

// The same gradients as products of stored matrices, in T throughout: the usual way without fusion.
template <class T>
struct Unfused {
  std::vector<T> d_q, d_k, d_v;

  explicit Unfused(Problem<T> &p, Operand<T> &d_out)
      : d_q(size(p.nq, p.d)), d_k(size(p.nk, p.d)), d_v(size(p.nk, p.dv)) {
    const T scale = T(1) / std::sqrt(static_cast<T>(p.d));
    std::vector<T> weights(static_cast<size_t>(p.nk)), d_weights(weights.size());
    for (int64_t i = 0; i < p.nq; ++i) {
      T most = -Problem<T>::kInf, sum = 0, delta = 0;
      for (int64_t j = 0; j < p.nk; ++j) {
        T s = 0, d = 0;
        for (int64_t f = 0; f < p.d; ++f) s += p.q.at(f, i) * p.k.at(f, j);
        for (int64_t f = 0; f < p.dv; ++f) d += d_out.at(f, i) * p.v.at(f, j);
        weights[static_cast<size_t>(j)] = s * scale;
        d_weights[static_cast<size_t>(j)] = d;
        most = std::max(most, s * scale);
      }
      for (T &w : weights) sum += w = std::exp(w - most);
      for (size_t j = 0; j < weights.size(); ++j) delta += (weights[j] /= sum) * d_weights[j];
      for (int64_t j = 0; j < p.nk; ++j) {
        const T w = weights[static_cast<size_t>(j)], ds = w * (d_weights[static_cast<size_t>(j)] - delta) * scale;
        for (int64_t f = 0; f < p.dv; ++f) d_v[static_cast<size_t>(j * p.dv + f)] += w * d_out.at(f, i);
        for (int64_t f = 0; f < p.d; ++f) {
          d_q[static_cast<size_t>(i * p.d + f)] += ds * p.k.at(f, j);
          d_k[static_cast<size_t>(j * p.d + f)] += ds * p.q.at(f, i);
        }
      }
    }
  }
  static size_t size(int64_t a, int64_t b) { return static_cast<size_t>(a * b); }
};

TEST_CASE_TEMPLATE("gradients are at most twice as far from the formula as those of an unfused computation", T, float,
                   double) {
  Random random(1606);
  for (const int64_t keys : {300, 1100}) {
    Problem<T> p(random, keys, 130);
    p.spec = {};
    p.options = options_with<attend_attention_options>(0);
    p.heads = p.kv_heads = p.batch = 1;  // of which the first alone is looked at
    p.d = p.dv = 64;
    p.q = Operand<T>({64, 130, 1, 1}, {}), p.k = Operand<T>({64, keys, 1, 1}, {}), p.v = p.k;
    p.out = p.q, p.lse = Operand<T>({1, 130, 1, 1}, {});
    Operand<T> d_out = p.q, d_q = p.q, d_k = p.k, d_v = p.v;
    for (Operand<T> *o : {&p.q, &p.k, &p.v, &d_out}) o->fill(random);
    p.options.lse = p.lse.tensor();
    ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), &p.options));
    ok(attend_attention_backward(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), d_out.tensor(), d_q.tensor(),
                                 d_k.tensor(), d_v.tensor(), nullptr, &p.options));
    const BackwardModel<T> model(p, d_out, nullptr);
    const Unfused<T> unfused(p, d_out);
    const auto error = [](const std::vector<T> &got, const std::vector<Wide<T>> &want) {
      Wide<T> squares = 0;
      for (size_t i = 0; i < got.size(); ++i) squares += (Wide<T>(got[i]) - want[i]) * (Wide<T>(got[i]) - want[i]);
      return static_cast<double>(std::sqrt(squares));
    };
    CHECK(error(d_q.values(), model.sum.q) <= 2 * error(unfused.d_q, model.sum.q));
    CHECK(error(d_k.values(), model.sum.k) <= 2 * error(unfused.d_k, model.sum.k));
    CHECK(error(d_v.values(), model.sum.v) <= 2 * error(unfused.d_v, model.sum.v));
    MESSAGE("of " << keys << " keys: " << error(d_q.values(), model.sum.q) / error(unfused.d_q, model.sum.q) << " "
                  << error(d_k.values(), model.sum.k) / error(unfused.d_k, model.sum.k) << " "
                  << error(d_v.values(), model.sum.v) / error(unfused.d_v, model.sum.v));
  }
}

TEST_CASE_TEMPLATE("spans of keys: the formula, and the bits of any number of threads", T, float, double) {
  Random random(1603);
  const int count = rounds(5, 60);
  for (int round = 0; round < count; ++round) {
    Problem<T> p(random, random.in(2000, 4000), random.pick<int64_t>({1, 20, 65}));
    INFO(p.description());
    Operand<T> d_out = p.out, lse = p.lse, out = p.out;
    d_out.fill(random);
    attend_attention_options o = p.options;
    o.scores = nullptr;
    o.scores_stage = 0;
    o.lse = lse.tensor();
    ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), &o));
    o.threads = 0;
    BackwardModel<T> model(p, d_out, nullptr);
    Operand<T> d_q(p.q.shape(), {}), d_k(p.k.shape(), {}), d_v(p.v.shape(), {}), zero_q = d_q, zero_k = d_k,
                                                                                 zero_v = d_v;
    for (Operand<T> *z : {&zero_q, &zero_k, &zero_v}) z->fill_with(T(0));
    std::vector<T> first;
    for (const int32_t threads : {1, 2, 3, 5}) {
      attend_attention_backward_options g = options_with<attend_attention_backward_options>(threads);
      uint64_t bytes = 0;
      ok(attend_attention_backward_workspace(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), d_out.tensor(),
                                             d_q.tensor(), d_k.tensor(), d_v.tensor(), &g, &o, &bytes));
      const Guarded<char> workspace(static_cast<int64_t>(bytes), {true, 0});
      g.workspace = workspace.data, g.workspace_size = bytes;
      for (Operand<T> *x : {&d_q, &d_k, &d_v}) x->fill_with(Problem<T>::kNan);
      ok(attend_attention_backward(p.q.tensor(), p.k.tensor(), p.v.tensor(), out.tensor(), d_out.tensor(), d_q.tensor(),
                                   d_k.tensor(), d_v.tensor(), &g, &o));
      std::vector<T> all;
      for (Operand<T> *x : {&d_q, &d_k, &d_v}) {
        const std::vector<T> some = x->values();
        all.insert(all.end(), some.begin(), some.end());
      }
      if (first.empty()) first = all;
      CHECK(same_bits(first, all));
    }
    CHECK(BackwardModel<T>::worst(d_q, zero_q, model.sum.q, model.bound.q) <= 1);
    CHECK(BackwardModel<T>::worst(d_k, zero_k, model.sum.k, model.bound.k) <= 1);
    CHECK(BackwardModel<T>::worst(d_v, zero_v, model.sum.v, model.bound.v) <= 1);
  }
}

// By calls of at most 8 chunks, whose sums are those of their chunks in order, whatever their own spans.
TEST_CASE("spans of keys are the least power of two of chunks of which there are at most 8, and are added in order") {
  Random random(1607);
  const struct {
    int64_t keys, span;
  } cases[] = {{9 * 256 - 5, 512}, {16 * 256, 512}, {17 * 256, 1024}, {24 * 256 + 1, 1024}};
  for (const auto &c : cases) {
    INFO("keys " << c.keys);
    Plain p(random, ATTEND_F32, 5, 4, 3, c.keys, 1, 1);
    p.options.scale = 1;
    for_each_isa([&] {
      p.forward();
      if (!p.backward()) return;
      const int64_t elements = 5 * 3;
      Array of_span = p.d_q.like({5, 3, 1, 1});
      std::vector<float> sum(static_cast<size_t>(elements));
      for (int64_t begin = 0; begin < c.keys; begin += c.span) {
        const int64_t keys = std::min(c.span, c.keys - begin);
        const attend_tensor k = part(p.k.t, 1, begin, keys), v = part(p.v.t, 1, begin, keys);
        ok(attend_attention_backward(&p.q.t, &k, &v, &p.out.t, &p.d_out.t, &of_span.t, nullptr, nullptr, &p.gradients,
                                     &p.options));
        for (int64_t i = 0; i < elements; ++i) {
          const float x = *reinterpret_cast<float *>(element(of_span.t, i % 5, i / 5));
          float &to = sum[static_cast<size_t>(i)];
          to = begin == 0 ? x : to + x;
        }
      }
      for (int64_t i = 0; i < elements; ++i) {
        CHECK(std::memcmp(element(p.d_q.t, i % 5, i / 5), &sum[static_cast<size_t>(i)], sizeof(float)) == 0);
      }
    });
  }
}

TEST_CASE("what a query does not see leaks into no gradient; a query that sees nothing has none") {
  Random random(1604);
  const float kNan = std::nanf("");
  for (const int64_t n : {5, 70, 300}) {
    Plain p(random, ATTEND_F32, 16, 16, n, n, 1, 1), clean(random, ATTEND_F32, 16, 16, n, n, 1, 1);
    p.options.flags = ATTEND_CAUSAL_TOP_LEFT;
    p.options.query_offset = -2;  // queries 0 and 1 see nothing
    const auto at = [](Array &a, int64_t i, int64_t j) -> float & {
      return *reinterpret_cast<float *>(element(a.t, i, j));
    };
    p.forward();
    p.backward();
    Array d_q = p.d_q.like({16, n, 1, 1}), d_k = p.d_k.like({16, n, 1, 1}), d_v = p.d_v.like({16, n, 1, 1});
    for (int64_t j = 0; j < n; ++j)
      for (int64_t i = 0; i < 16; ++i) {
        at(d_q, i, j) = at(p.d_q, i, j), at(d_k, i, j) = at(p.d_k, i, j), at(d_v, i, j) = at(p.d_v, i, j);
      }
    // The last two keys are seen by nobody, the first two queries see nothing.
    for (int64_t i = 0; i < 16; ++i) {
      for (const int64_t j : {n - 2, n - 1}) at(p.k, i, j) = i % 2 == 0 ? kNan : HUGE_VALF, at(p.v, i, j) = kNan;
      for (const int64_t j : {0, 1}) at(p.q, i, j) = kNan, at(p.d_out, i, j) = i % 2 == 0 ? HUGE_VALF : kNan;
    }
    for (Array *a : {&p.d_q, &p.d_k, &p.d_v}) a->fill_with_bytes(0xff);
    p.backward();
    CHECK(p.d_q.same_memory(d_q));
    CHECK(p.d_k.same_memory(d_k));
    CHECK(p.d_v.same_memory(d_v));
    for (int64_t i = 0; i < 16; ++i) {
      CHECK(at(p.d_q, i, 0) == 0);
      CHECK(at(p.d_k, i, n - 1) == 0);
      CHECK(at(p.d_v, i, n - 1) == 0);
    }
  }
}

TEST_CASE("empty operands, gradients that are not wanted, and memory that grows with N alone") {
  Random random(1605);
  for (const auto &[nq, nk] : {std::pair<int64_t, int64_t>{0, 5}, {5, 0}, {0, 0}}) {
    Plain p(random, ATTEND_F32, 4, 3, nq, nk, 2, 1);
    p.forward();
    p.backward();
    const auto zeros = [](const Array &a) {
      Array z = a.like({a.t.shape[0], a.t.shape[1], a.t.shape[2], 1});
      for (int64_t h = 0; h < a.t.shape[2]; ++h)
        for (int64_t j = 0; j < a.t.shape[1]; ++j)
          for (int64_t i = 0; i < a.t.shape[0]; ++i) *reinterpret_cast<float *>(element(z.t, i, j, h)) = 0;
      return same_elements(a.t, z.t);
    };
    CHECK(zeros(p.d_q));
    CHECK(zeros(p.d_k));
    CHECK(zeros(p.d_v));
  }
  {  // no batch: what is shared by all of them, and sinks of sequences without queries
    Plain p(random, ATTEND_F32, 4, 3, 5, 6, 2, 1, {0, 1, 1}, 0);
    Array sinks(ATTEND_F32, {2, 1, 1, 1}), d_sinks = sinks.like({2, 1, 1, 1});
    sinks.fill(random);
    p.options.sinks = &sinks.t;
    p.gradients.d_sinks = &d_sinks.t;
    p.backward();
    for (const Array *a : {&p.d_k, &p.d_v, &d_sinks}) CHECK(*reinterpret_cast<float *>(element(a->t, 1, 0)) == 0);
    const int64_t starts[] = {0, 0, 5};
    Plain packed(random, ATTEND_F32, 4, 3, 5, 6, 2, 1, {1, 2, 2});
    std::vector<float> poison(1 << 20, 1e30f);
    packed.options.sinks = &sinks.t;
    packed.options.sequences = 2;
    packed.options.query_starts = starts;
    packed.gradients.d_sinks = &d_sinks.t;
    packed.gradients.workspace = poison.data(), packed.gradients.workspace_size = poison.size() * sizeof(float);
    packed.forward();
    packed.backward();
    for (int64_t h = 0; h < 2; ++h) CHECK(std::fabs(*reinterpret_cast<float *>(element(d_sinks.t, h, 0))) < 100);
  }
  for (const int64_t queries : {int64_t{1} << 56, int64_t{1} << 59, int64_t{1} << 60}) {  // that strides of 0 may claim
    float number = 0;
    const attend_tensor many = {&number, ATTEND_F32, 2, {1, queries, 0, 0}, {0, 0, 0, 0}},
                        few = {&number, ATTEND_F32, 2, {1, 1, 0, 0}, {1, 1, 0, 0}};
    float gradient = 0;
    const attend_tensor d_k = {&gradient, ATTEND_F32, 2, {1, 1, 0, 0}, {1, 1, 0, 0}};
    uint64_t bytes = 7;
    const attend_status status = attend_attention_backward_workspace(&many, &few, &few, &many, &many, nullptr, &d_k,
                                                                     nullptr, nullptr, nullptr, &bytes);
    CHECK((ATTEND_REASON(status) == ATTEND_OVERFLOW || bytes > uint64_t{1} << 56));
    CHECK(ATTEND_REASON(
              attend_attention_backward(&many, &few, &few, &many, &many, nullptr, &d_k, nullptr, nullptr, nullptr)) ==
          (status == ATTEND_OK ? ATTEND_OUT_OF_MEMORY : ATTEND_OVERFLOW));
  }
  Plain p(random, ATTEND_F32, 16, 8, 530, 300, 2, 1);  // (some of 256 queries for d_q alone)
  p.forward();
  p.backward();
  for (int wanted = 0; wanted < 8; ++wanted) {
    Array d_q = p.d_q.like({16, 530, 2, 1}), d_k = p.d_k.like({16, 300, 1, 1}), d_v = p.d_v.like({8, 300, 1, 1});
    ok(attend_attention_backward(&p.q.t, &p.k.t, &p.v.t, &p.out.t, &p.d_out.t, wanted & 1 ? &d_q.t : nullptr,
                                 wanted & 2 ? &d_k.t : nullptr, wanted & 4 ? &d_v.t : nullptr, &p.gradients,
                                 &p.options));
    if (wanted & 1) CHECK(same_elements(d_q.t, p.d_q.t));
    if (wanted & 2) CHECK(same_elements(d_k.t, p.d_k.t));
    if (wanted & 4) CHECK(same_elements(d_v.t, p.d_v.t));
  }
  uint64_t bytes[2] = {};
  for (const int64_t n : {8192, 65536}) {
    const attend_tensor t = {nullptr, ATTEND_F32, 3, {64, n, 4, 1}, {1, 64, 64 * n, 0}};
    attend_attention_options o = options_with<attend_attention_options>(0);
    for (const int32_t threads : {1, 64}) {
      attend_attention_backward_options g = options_with<attend_attention_backward_options>(threads);
      ok(attend_attention_backward_workspace(&t, &t, &t, &t, &t, &t, &t, &t, &g, &o, &bytes[n == 65536]));
    }
  }
  CHECK(static_cast<double>(bytes[1]) <= 1.1 * 8 * static_cast<double>(bytes[0]));
}
