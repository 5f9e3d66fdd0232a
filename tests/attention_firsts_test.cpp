// Attention::firsts, which no option of attend.h sets yet: of each batch the keys before the first one do not exist, are
// not read, and what is cut into chunks and spans begins with it.
#include "attention_oracle.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// As read_tensor leaves it.
template <class T>
Tensor given(T *data, const int64_t (&shape)[4], const int64_t (&stride)[4]) {
  Tensor t;
  t.data = const_cast<std::remove_const_t<T> *>(data);
  t.given = true;
  t.count = 1;
  t.low = t.high = 0;
  t.element = sizeof(T);
  for (size_t i = 0; i < 4; ++i) {
    t.shape[i] = shape[i];
    t.stride[i] = shape[i] > 1 ? stride[i] : 0;
    t.count *= shape[i];
    t.high += (shape[i] - 1) * t.stride[i];
  }
  t.begin = reinterpret_cast<intptr_t>(data);
  t.end = t.begin + (t.high + 1) * t.element;
  return t;
}
template <class T>
Tensor given(Operand<T> &o) {
  const attend_tensor *t = o.tensor();
  return given(static_cast<const T *>(t->data), t->shape, t->stride);
}

struct Options {
  bool causal, bottom_right;
  int64_t offset, left, right;
};

// Two batches, of which the second has its own first key and length.
template <class T>
struct FirstsCall {
  using O = Operand<T>;
  static constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
  O q, k, v, out, lse, scores, bias;
  std::vector<uint8_t> mask;
  int64_t firsts[2], lengths[2];
  Attention problem;
  reference::AttentionSpec<Wide<T>> spec;

  FirstsCall(Random &random, int64_t nq, int64_t nk, const Options &options)
      : q({9, nq, 2, 2}, {}),
        k({9, nk, 1, 2}, {}),
        v({11, nk, 1, 2}, {}),
        out({11, nq, 2, 2}, {}),
        lse({1, nq, 2, 2}, {}),
        scores({nk, nq, 2, 2}, {}),
        bias({nk, nq, 1, 1}, {}),
        firsts{random.in(0, nk / 2), 0},
        lengths{nk, random.in(nk / 2, nk)} {
    firsts[1] = std::min(lengths[1], random.pick<int64_t>({0, 1, 255, 256, 257, nk / 3, nk}));
    for (O *o : {&q, &k, &v}) o->fill(random);
    for (O *o : {&k, &v}) {
      o->each([&](T &x, int64_t, int64_t j, int64_t, int64_t b) {
        if (j < firsts[b]) x = kNan;
      });
    }
    const T scale = T(1) / 3;
    problem.dtype = sizeof(T) == 4 ? Dtype::f32 : Dtype::f64;
    problem.scale = spec.scale = static_cast<double>(scale);
    problem.causal = options.causal, problem.bottom_right = options.bottom_right;
    problem.offset = spec.query_offset = options.offset;
    problem.left = spec.left = options.left;
    problem.right = spec.right = options.right;
    spec.window = true;
    if (options.causal) {
      spec.causal = options.bottom_right ? reference::Causal::bottom_right : reference::Causal::top_left;
    }
    problem.firsts = spec.firsts = firsts;
    problem.lengths = spec.lengths = lengths;
    problem.q = given(q), problem.k = given(k), problem.v = given(v), problem.out = given(out);
    problem.lse = given(lse);
  }
  FirstsCall(const FirstsCall &) = delete;
  FirstsCall &operator=(const FirstsCall &) = delete;

  void use_bias(Random &random) {
    bias.fill(random, 2);
    problem.bias = given(bias);
    spec.bias = [this](int64_t j, int64_t i, auto...) { return Wide<T>(bias.at(j, i)); };
  }
  void use_mask(Random &random) {
    const int64_t nk = k.shape()[1], nq = q.shape()[1];
    for (int64_t n = 0; n < nk * nq; ++n) mask.push_back(random.one_in(3) ? 0 : 1);
    problem.mask = given(static_cast<const uint8_t *>(mask.data()), {nk, nq, 1, 1}, {1, nk, 0, 0});
    spec.mask = [this, nk](int64_t j, int64_t i, auto...) { return mask[static_cast<size_t>(i * nk + j)] != 0; };
  }
  void show_scores() {
    problem.scores = given(scores);
    problem.scores_stage = spec.scores_stage = ATTEND_SCORES_MASKED;
  }
  void run(int threads) {
    for (O *o : {&out, &lse, &scores}) o->fill_with(kNan);
    Execution execution;
    execution.threads = threads;
    CHECK(attention(*active_kernels(), problem, execution) == Acquired::ok);
    for (O *o : {&out, &lse, &scores}) CHECK(o->gaps_untouched());
  }
};

}  // namespace

TEST_CASE_TEMPLATE("keys before the first: the formula", T, float, double) {
  Random random(sizeof(T) == 4 ? 1401 : 1402);
  for (const Options &options :
       {Options{false, false, 0, -1, -1}, Options{true, true, 0, -1, -1}, Options{true, false, 40, -1, -1},
        Options{true, false, 300, 70, -1}, Options{false, false, 200, 100, 60}}) {
    for (const int64_t nq : {1, 7, 70}) {
      for (const int64_t nk : {90, 300, 1300}) {
        FirstsCall<T> call(random, nq, nk, options);
        INFO("Nq " << nq << " Nk " << nk << " firsts " << call.firsts[0] << " " << call.firsts[1] << " length "
                   << call.lengths[1] << " causal " << options.causal << options.bottom_right << " offset "
                   << options.offset << " left " << options.left << " right " << options.right);
        if (random.one_in(2)) call.use_bias(random);
        if (random.one_in(2)) call.use_mask(random);
        if (random.one_in(2)) call.show_scores();
        const Expected<T> want(call.q, call.k, call.v, call.spec, 10);
        for_each_isa([&] {
          for (const int threads : {1, 3}) {
            call.run(threads);
            CHECK(want.of_out(call.out) <= 1);
            CHECK(want.of_lse(call.lse) <= 1);
            if (call.problem.scores) CHECK(want.of_scores(call.scores) <= 1);
          }
        });
      }
    }
  }
}

TEST_CASE_TEMPLATE("keys before the first: the bits of a call without them", T, float, double) {
  Random random(sizeof(T) == 4 ? 1411 : 1412);
  for (const int64_t nk : {300, 1500}) {
    FirstsCall<T> call(random, 3, nk, {true, true, 0, -1, -1});
    for_each_isa([&] {
      call.run(2);
      for (int64_t b = 0; b < 2; ++b) {
        Operand<T> alone({11, 3, 2, 1}, {});
        attend_tensor q = *call.q.tensor(),
                      k = columns_of(call.k, call.firsts[b], call.lengths[b] - call.firsts[b], 0, b),
                      v = columns_of(call.v, call.firsts[b], call.lengths[b] - call.firsts[b], 0, b);
        q.data = &call.q.at(0, 0, 0, b);
        q.shape[3] = 1;
        k.rank = v.rank = 4;
        k.shape[3] = v.shape[3] = 1;
        auto options = options_with<attend_attention_options>(1);
        options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
        options.scale = call.problem.scale;
        ok(attend_attention(&q, &k, &v, alone.tensor(), &options));
        for (int64_t h = 0; h < 2; ++h) {
          for (int64_t i = 0; i < 3; ++i) {
            for (int64_t f = 0; f < 11; ++f) CHECK(alone.at(f, i, h) == call.out.at(f, i, h, b));
          }
        }
      }
    });
  }
}
