// kv_first: the sequences of a batch that is padded on the left have the bits that each has alone.
#include "arrays.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
Operand<T> drawn(Random &random, const Shape &shape, bool output = false) {
  Operand<T> o(shape, Operand<T>::random_layout(random));
  if (!output) o.fill(random);
  return o;
}

// Whether columns, or rows, of batch b of `whole` from `first` on are `alone`, bit for bit.
template <class T>
bool is_at(Operand<T> &alone, Operand<T> &whole, size_t d, int64_t first, int64_t b) {
  bool same = true;
  alone.each([&](T &x, int64_t i, int64_t j, int64_t h, int64_t) {
    same &= std::memcmp(&x, &whole.at(i + (d == 0 ? first : 0), j + (d == 1 ? first : 0), h, b), sizeof x) == 0;
  });
  return same;
}

struct Case {
  int64_t queries, keys;
};

}  // namespace

TEST_CASE_TEMPLATE("attention of a batch padded on the left: the bits of each sequence alone", T, float, double) {
  using O = Operand<T>;
  constexpr T kInf = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();
  constexpr int64_t kBatch = 3, kHeads = 4, kKvHeads = 2;
  Random random(811);
  const int rounds = std::getenv("ATTEND_TEST_LONG") != nullptr ? 40 : 4;
  for (int round = 0; round < rounds; ++round) {
    for (const Case &c : {Case{1, 40}, Case{5, 300}, Case{70, 300}, Case{17, 800}, Case{1, 1700}, Case{4, 1300}}) {
      const int64_t d = random.pick<int64_t>({1, 8, 20, 64}), dv = random.pick<int64_t>({1, 16, 33});
      O q = drawn<T>(random, {d, c.queries, kHeads, kBatch}), k = drawn<T>(random, {d, c.keys, kKvHeads, kBatch}),
        v = drawn<T>(random, {dv, c.keys, kKvHeads, kBatch}), bias = drawn<T>(random, {c.keys, c.queries, 1, kBatch}),
        slopes = drawn<T>(random, {kHeads, 1, 1, 1});
      std::vector<uint8_t> bytes(static_cast<size_t>(c.keys * c.queries * kHeads));
      for (uint8_t &b : bytes) b = !random.one_in(3);
      const attend_tensor mask = {
          bytes.data(), ATTEND_BOOL, 4, {c.keys, c.queries, kHeads, 1}, {1, c.keys, c.keys * c.queries, 0}};
      attend_attention_options options = {};
      options.size = sizeof options;
      options.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
      if (random.one_in(2)) options.mask = &mask;
      if (random.one_in(2)) options.bias = bias.tensor();
      if (random.one_in(2)) options.alibi_slopes = slopes.tensor();
      if (random.one_in(4)) options.softcap = 3;
      if (random.one_in(2)) {
        options.flags |= ATTEND_WINDOW;
        options.window_left = random.in(-1, c.keys);
        options.window_right = random.in(-1, 20);
      }
      const bool bottom_right = (options.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) != 0;
      int64_t firsts[kBatch], lengths[kBatch], offsets[kBatch];
      for (size_t b = 0; b < kBatch; ++b) {
        lengths[b] = random.one_in(3) ? c.keys : random.in(0, c.keys);
        firsts[b] = random.in(0, random.one_in(2) ? lengths[b] : std::min<int64_t>(lengths[b], 40));
        offsets[b] = bottom_right ? 0 : random.in(0, c.keys);
      }
      options.kv_first = firsts;
      options.kv_lengths = lengths;
      if (!bottom_right) options.query_offsets = offsets;
      options.scores_stage = static_cast<uint32_t>(random.in(0, 3));
      for (O *o : {&k, &v, &bias}) {
        o->each([&](T &x, int64_t i, int64_t j, int64_t, int64_t b) {
          const int64_t key = o == &bias ? i : j;
          if (key < firsts[b] || key >= lengths[b]) x = random.pick({kNan, kInf, -kInf});
        });
      }
      const O out = drawn<T>(random, {dv, c.queries, kHeads, kBatch}, true),
              lse = drawn<T>(random, {1, c.queries, kHeads, kBatch}, true),
              scores = drawn<T>(random, {c.keys, c.queries, kHeads, kBatch}, true);
      INFO("D " << d << " Dv " << dv << " Nq " << c.queries << " Nk " << c.keys << " flags " << options.flags);
      for_each_isa([&] {
        O together = out, sums = lse, shown = scores, plain = out;
        options.lse = sums.tensor();
        options.scores = shown.tensor();
        options.threads = static_cast<int32_t>(random.in(1, 3));
        if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), together.tensor(), &options))) return;
        // Without scores the keys of few queries are shared out among threads.
        options.lse = options.scores = nullptr;
        options.threads = static_cast<int32_t>(random.in(2, 4));
        if (!ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), plain.tensor(), &options))) return;
        CHECK(plain.same_memory(together));
        for (int64_t b = 0; b < kBatch; ++b) {
          const int64_t first = firsts[b], count = lengths[b] - first;
          INFO("batch " << b << " first " << first << " keys " << count);
          attend_attention_options alone = options;
          alone.kv_first = alone.kv_lengths = alone.query_offsets = nullptr;
          alone.query_offset = bottom_right ? 0 : offsets[b] - first;
          alone.threads = 1;
          const attend_tensor q1 = part(*q.tensor(), 1, 0, c.queries, b), k1 = part(*k.tensor(), 1, first, count, b),
                              v1 = part(*v.tensor(), 1, first, count, b), mask1 = part(mask, 0, first, count, b),
                              bias1 = part(*bias.tensor(), 0, first, count, b);
          if (options.mask != nullptr) alone.mask = &mask1;
          if (options.bias != nullptr) alone.bias = &bias1;
          O out1({dv, c.queries, kHeads, 1}, {}), lse1({1, c.queries, kHeads, 1}, {}),
              scores1({count, c.queries, kHeads, 1}, {});
          alone.lse = lse1.tensor();
          alone.scores = scores1.tensor();
          if (!ok(attend_attention(&q1, &k1, &v1, out1.tensor(), &alone))) return;
          CHECK(is_at(out1, together, 1, 0, b));
          CHECK(is_at(lse1, sums, 1, 0, b));
          CHECK(is_at(scores1, shown, 0, first, b));
        }
        int64_t wrong = 0;
        const T missing = options.scores_stage == ATTEND_SCORES_PROBABILITIES ? T(0) : -kInf;
        shown.each([&](T &x, int64_t j, int64_t, int64_t, int64_t b) {
          wrong += (j < firsts[b] || j >= lengths[b]) && x != missing;
        });
        CHECK(wrong == 0);
      });
    }
  }
}

TEST_CASE_TEMPLATE("self-attention of a batch padded on the left: the bits of each sequence alone", T, float, double) {
  using O = Operand<T>;
  constexpr int64_t kBatch = 3, kFeatures = 10, kDh = 8, kDv = 6, kHeads = 2;
  Random random(812);
  for (const int64_t items : {3, 40, 290, 600}) {
    O x = drawn<T>(random, {kFeatures, items, 1, kBatch}), w_q = drawn<T>(random, {kDh, kFeatures, kHeads, 1}),
      w_k = drawn<T>(random, {kDh, kFeatures, 1, 1}), w_v = drawn<T>(random, {kDv, kFeatures, 1, 1}),
      w_o = drawn<T>(random, {kFeatures, kDv, kHeads, 1});
    attend_self_attention_weights weights = {};
    weights.size = sizeof weights;
    weights.w_q = w_q.tensor(), weights.w_k = w_k.tensor(), weights.w_v = w_v.tensor(), weights.w_o = w_o.tensor();
    const int64_t firsts[kBatch] = {0, random.in(1, items - 1), items};
    x.each([&](T &value, int64_t, int64_t j, int64_t, int64_t b) {
      if (j < firsts[b]) value = std::numeric_limits<T>::quiet_NaN();
    });
    attend_attention_options options = {};
    options.size = sizeof options;
    options.kv_first = firsts;
    options.flags = ATTEND_CAUSAL_TOP_LEFT;
    INFO("items " << items << " first " << firsts[1]);
    for_each_isa([&] {
      O out({kFeatures, items, 1, kBatch}, {});
      if (!ok(attend_self_attention(x.tensor(), &weights, out.tensor(), nullptr, &options))) return;
      for (int64_t b = 0; b < kBatch; ++b) {
        const int64_t count = items - firsts[b];
        attend_attention_options causal = {};
        causal.size = sizeof causal;
        causal.flags = ATTEND_CAUSAL_TOP_LEFT;
        O alone({kFeatures, count, 1, 1}, {});
        const attend_tensor x1 = part(*x.tensor(), 1, firsts[b], count, b);
        if (!ok(attend_self_attention(&x1, &weights, alone.tensor(), nullptr, &causal))) return;
        CHECK(is_at(alone, out, 1, firsts[b], b));
      }
    });
  }
}
