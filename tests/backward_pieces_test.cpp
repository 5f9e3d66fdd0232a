// Gradients in several calls, keys in pieces or queries in pieces: the bits of one call, with all options that compose.
#include "arrays.hpp"
#include "attention_problem.hpp"

using namespace attend;
using namespace attend::test;

namespace {

attend_tensor rows(const attend_tensor &t, int64_t begin, int64_t end) {
  return t.shape[0] == 1 ? t : along(t, 0, begin, end - begin);
}
attend_tensor columns(const attend_tensor &t, int64_t begin, int64_t end) {
  return t.shape[1] == 1 ? t : along(t, 1, begin, end - begin);
}
// Every `group`-th head from the `first` on.
attend_tensor heads_of(attend_tensor t, int64_t first, int64_t group) {
  if (t.shape[2] == 1) return t;
  t = along(t, 2, first, t.shape[2] - first);
  t.shape[2] = (t.shape[2] + group - 1) / group;
  t.stride[2] *= group;
  return t;
}

// A problem's gradients over poison, or over what is added to.
template <class T>
struct Gradients {
  Operand<T> q, k, v;

  explicit Gradients(Problem<T> &p, Random &random, bool accumulates)
      : q(p.q.shape(), Operand<T>::random_layout(random)),
        k(p.k.shape(), Operand<T>::random_layout(random)),
        v(p.v.shape(), Operand<T>::random_layout(random)) {
    for (Operand<T> *o : {&q, &k, &v}) accumulates ? o->fill(random) : o->fill_with(Problem<T>::kNan);
  }
  void check_equal(Gradients &other) {
    CHECK(same_bits(q.values(), other.q.values()));
    CHECK(same_bits(k.values(), other.k.values()));
    CHECK(same_bits(v.values(), other.v.values()));
    for (Operand<T> *o : {&q, &k, &v}) CHECK(o->gaps_untouched());
  }
};

// What both ways of cutting need.
template <class T>
struct Pieces {
  Problem<T> &p;
  Random &random;
  Operand<T> d_out, d_lse, delta;
  attend_attention_options a;
  attend_attention_backward_options g;
  bool reads_delta;

  // Keys in pieces count from key_offset, and so have no kv_first.
  Pieces(Problem<T> &problem, Random &random_numbers, bool of_keys)
      : p(problem),
        random(random_numbers),
        d_out(p.out.shape(), Operand<T>::random_input_layout(random, 4)),
        d_lse(p.lse.shape(), Operand<T>::random_input_layout(random, 4)),
        delta(p.lse.shape(), Operand<T>::random_layout(random)),
        g(options_with<attend_attention_backward_options>(0)),
        reads_delta(random.one_in(2)) {
    if (!p.firsts.empty() && of_keys) {  // what lies before them is poison
      for (Operand<T> *o : {&p.k, &p.v, &p.bias}) o->fill(random);
    }
    if (of_keys) p.options.kv_first = nullptr;
    if (p.options.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) {
      p.options.flags ^= ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_CAUSAL_TOP_LEFT;
      p.options.query_offset = p.nk - p.nq;
    }
    for (Operand<T> *o : {&d_out, &d_lse}) o->fill(random);
    p.options.lse = p.lse.tensor();
    p.options.scores = nullptr;
    p.options.scores_stage = 0;
    forward();
    // (A weight whose lse is large is found in another way from pieces. Distances of ALiBi are what is.)
    bool large = false;
    p.lse.each([&](T &x, auto...) { large |= std::isfinite(x) && std::fabs(x) > 1000; });
    if (large) p.options.alibi_slopes = nullptr, forward();
    p.options.threads = 0;
    a = p.options;
    if (random.one_in(3)) g.flags = ATTEND_ACCUMULATE;
    if (random.one_in(2)) g.d_lse = d_lse.tensor();
  }

  void forward() { ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), &p.options)); }
  bool whole(Gradients<T> *to) {
    return ok(attend_attention_backward(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), d_out.tensor(),
                                        to->q.tensor(), to->k.tensor(), to->v.tensor(), &g, &a));
  }
  // Of a known delta `out` and d_lse are a part.
  void find_delta() {
    delta.fill_with(Problem<T>::kNan);
    attend_attention_backward_options o = g;
    o.delta = delta.tensor();
    ok(attend_attention_backward(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), d_out.tensor(), nullptr,
                                 nullptr, nullptr, &o, &a));
    CHECK(delta.gaps_untouched());
  }
};

template <class T>
void run_keys(Pieces<T> &c, Gradients<T> *to) {
  Problem<T> &p = c.p;
  Random &random = c.random;
  Operand<T> state({2 * p.d, p.nq, p.heads, p.batch}, Operand<T>::random_layout(random));
  state.fill_with(Problem<T>::kNan);
  std::vector<int64_t> lengths(p.lengths.size()), total(static_cast<size_t>(p.batch), p.nk);
  std::copy(p.lengths.begin(), p.lengths.end(), total.begin());
  attend_attention_options a = c.a;
  attend_attention_backward_options g = c.g;
  g.d_q_state = state.tensor(), g.total_keys = total.data();
  if (c.reads_delta) g.d_lse = nullptr, g.delta = c.delta.tensor();
  const int64_t past = random.one_in(4) ? (p.nk + 255) / 256 * 256 : p.nk;  // then an empty piece at the end
  for (int64_t begin = 0, end = 0; begin < past; begin = end) {
    end = std::min(past, begin + 256 * random.pick<int64_t>({1, 1, 2, 3, 7}));
    const int64_t stop = std::min(end, p.nk);
    const bool last = end == past && past == p.nk;
    const attend_tensor k = along(*p.k.tensor(), 1, begin, stop - begin),
                        v = along(*p.v.tensor(), 1, begin, stop - begin),
                        d_k = along(*to->k.tensor(), 1, begin, stop - begin),
                        d_v = along(*to->v.tensor(), 1, begin, stop - begin);
    attend_tensor mask, bias;
    if (c.a.mask != nullptr) a.mask = &(mask = rows(*c.a.mask, begin, stop));
    if (c.a.bias != nullptr) a.bias = &(bias = rows(*c.a.bias, begin, stop));
    for (size_t b = 0; b < lengths.size(); ++b) lengths[b] = std::clamp<int64_t>(p.lengths[b] - begin, 0, stop - begin);
    if (!lengths.empty()) a.kv_lengths = lengths.data();
    a.key_offset = begin;
    g.flags = c.g.flags | (begin > 0 ? ATTEND_CONTINUE : 0u) | (last ? 0u : ATTEND_PARTIAL);
    g.threads = static_cast<int32_t>(random.in(1, 4));
    const Operand<T> before = to->q;
    const bool alone = random.one_in(2);  // d_q by itself is shared out in another way
    const attend_tensor *const out = c.reads_delta ? nullptr : p.out.tensor();
    if (!ok(attend_attention_backward(p.q.tensor(), &k, &v, out, c.d_out.tensor(), to->q.tensor(),
                                      alone ? nullptr : &d_k, alone ? nullptr : &d_v, &g, &a))) {
      return;
    }
    if (!last) CHECK(to->q.same_memory(before));
    CHECK(state.gaps_untouched());
    if (!alone) continue;
    g.d_q_state = nullptr, g.total_keys = nullptr, g.flags = c.g.flags;
    ok(attend_attention_backward(p.q.tensor(), &k, &v, out, c.d_out.tensor(), nullptr, &d_k, &d_v, &g, &a));
    g.d_q_state = state.tensor(), g.total_keys = total.data();
  }
  if (past == p.nk) return;
  const attend_tensor k = along(*p.k.tensor(), 1, 0, 0), v = along(*p.v.tensor(), 1, 0, 0);
  attend_tensor mask, bias;
  if (c.a.mask != nullptr) a.mask = &(mask = rows(*c.a.mask, 0, 0));
  if (c.a.bias != nullptr) a.bias = &(bias = rows(*c.a.bias, 0, 0));
  std::fill(lengths.begin(), lengths.end(), 0);
  a.key_offset = past;
  g.flags = c.g.flags | ATTEND_CONTINUE;
  ok(attend_attention_backward(p.q.tensor(), &k, &v, c.reads_delta ? nullptr : p.out.tensor(), c.d_out.tensor(),
                               to->q.tensor(), nullptr, nullptr, &g, &a));
}

template <class T>
void run_queries(Pieces<T> &c, Gradients<T> *to) {
  Problem<T> &p = c.p;
  Random &random = c.random;
  Operand<T> k_state({p.d, p.nk, p.kv_heads, p.batch}, Operand<T>::random_layout(random)),
      v_state({p.dv, p.nk, p.kv_heads, p.batch}, Operand<T>::random_layout(random));
  for (Operand<T> *s : {&k_state, &v_state}) s->fill_with(Problem<T>::kNan);
  attend_attention_backward_options g = c.g;
  if (c.reads_delta) g.d_lse = nullptr;
  // Both at once, or one after the other.
  for (const int wanted : random.one_in(2) ? std::vector<int>{3} : std::vector<int>{2, 1}) {
    const int64_t group = p.heads / p.kv_heads;
    for (int64_t h = 0; h < group; ++h) {
      for (int64_t begin = 0, end = 0; begin < p.nq; begin = end) {
        end = std::min(p.nq, begin + 64 * random.pick<int64_t>({1, 1, 2, 3}));
        const auto of = [&](const attend_tensor &t) { return heads_of(columns(t, begin, end), h, group); };
        // (One query of several stands for itself alone.)
        const auto exactly = [&](const attend_tensor &t) {
          return heads_of(along(t, 1, begin, end - begin), h, group);
        };
        const attend_tensor q = exactly(*p.q.tensor()), out = exactly(*p.out.tensor()),
                            d_out = exactly(*c.d_out.tensor()), lse = exactly(*p.lse.tensor()),
                            d_lse = exactly(*c.d_lse.tensor()), delta = exactly(*c.delta.tensor()),
                            d_q = exactly(*to->q.tensor());
        attend_attention_options a = c.a;
        attend_tensor mask, bias, slopes, sinks;
        std::vector<int64_t> offsets = p.offsets;
        const auto of_heads = [&](const attend_tensor *t, attend_tensor *some) {
          *some = *t;
          some->data = element(*t, h, 0);
          some->shape[0] = p.kv_heads;
          some->stride[0] *= group;
          return some;
        };
        if (a.mask != nullptr) a.mask = &(mask = of(*a.mask));
        if (a.bias != nullptr) a.bias = &(bias = of(*a.bias));
        if (a.alibi_slopes != nullptr) a.alibi_slopes = of_heads(a.alibi_slopes, &slopes);
        if (a.sinks != nullptr) a.sinks = of_heads(a.sinks, &sinks);
        for (int64_t &offset : offsets) offset += begin;
        offsets.empty() ? void(a.query_offset += begin) : void(a.query_offsets = offsets.data());
        a.lse = &lse;
        const bool first = h == 0 && begin == 0, last = h + 1 == group && end == p.nq;
        g.flags = c.g.flags | (first ? 0u : ATTEND_CONTINUE) | (last ? 0u : ATTEND_PARTIAL);
        g.threads = static_cast<int32_t>(random.in(1, 4));
        g.d_k_state = wanted & 1 ? k_state.tensor() : nullptr, g.d_v_state = wanted & 2 ? v_state.tensor() : nullptr;
        if (g.d_lse != nullptr) g.d_lse = &d_lse;
        if (c.reads_delta) g.delta = &delta;
        if (!ok(attend_attention_backward(&q, p.k.tensor(), p.v.tensor(), c.reads_delta ? nullptr : &out, &d_out,
                                          wanted & 1 ? &d_q : nullptr, wanted & 1 ? to->k.tensor() : nullptr,
                                          wanted & 2 ? to->v.tensor() : nullptr, &g, &a))) {
          return;
        }
        for (Operand<T> *s : {&k_state, &v_state}) CHECK(s->gaps_untouched());
      }
    }
  }
}

template <class T>
void check(Random &random, int64_t keys, int64_t queries) {
  Problem<T> p(random, keys, queries);
  INFO(p.description());
  const bool by_keys = random.one_in(2);
  Pieces<T> c(p, random, by_keys);
  const Gradients<T> start(p, random, c.g.flags != 0);
  Gradients<T> whole = start, in_pieces = start;
  if (!c.whole(&whole)) return;
  c.find_delta();
  by_keys ? run_keys(c, &in_pieces) : run_queries(c, &in_pieces);
  in_pieces.check_equal(whole);
}

}  // namespace

TEST_CASE_TEMPLATE("gradients in pieces: every combination of features", T, float, double) {
  Random random(sizeof(T) == 4 ? 2201 : 2202);
  const int count = rounds(14, 1500);
  for (int round = 0; round < count; ++round) {
    INFO("round " << round);
    for_each_isa([&] {
      const bool many = random.one_in(2);
      check<T>(random, many ? random.in(600, 3000) : random.in(1, 600), many ? random.in(1, 70) : random.in(65, 300));
    });
  }
}

// Columns of packed sequences from `begin` on, `most` of each: in memory of its own, with the sequences' starts; and back.
struct PackedPiece {
  Array array;
  std::vector<int64_t> starts = {0};

  PackedPiece(const Array &whole, const std::vector<int64_t> &of_whole, int64_t begin, int64_t most)
      : array(whole.like({})) {
    for (size_t s = 0; s + 1 < of_whole.size(); ++s) {
      starts.push_back(starts.back() + std::clamp<int64_t>(of_whole[s + 1] - of_whole[s] - begin, 0, most));
    }
    array = whole.like({whole.t.shape[0], starts.back(), whole.t.shape[2], 1});
    each(of_whole, begin, [&](int64_t from, int64_t to, int64_t count) { copy(whole.t, from, array.t, to, count); });
  }
  void store(const std::vector<int64_t> &of_whole, int64_t begin, Array *whole) const {
    each(of_whole, begin, [&](int64_t to, int64_t from, int64_t count) { copy(array.t, from, whole->t, to, count); });
  }

 private:
  template <class F>
  void each(const std::vector<int64_t> &of_whole, int64_t begin, const F &f) const {
    for (size_t s = 0; s + 1 < starts.size(); ++s) f(of_whole[s] + begin, starts[s], starts[s + 1] - starts[s]);
  }
  static void copy(const attend_tensor &from, int64_t at, const attend_tensor &to, int64_t to_at, int64_t count) {
    for (int64_t h = 0; h < to.shape[2]; ++h)
      for (int64_t j = 0; j < count; ++j)
        for (int64_t i = 0; i < to.shape[0]; ++i) {
          std::memcpy(element(to, i, to_at + j, h), element(from, i, at + j, h), 4);
        }
  }
};

TEST_CASE("pieces of packed sequences") {
  Random random(2204);
  for (int round = 0; round < rounds(12, 200); ++round) {
    std::vector<int64_t> queries = {0}, keys = {0}, total;
    for (int s = 0; s < 3; ++s) {
      queries.push_back(queries.back() + random.in(0, 150)), total.push_back(random.in(0, 900));
      keys.push_back(keys.back() + total.back());
    }
    const int64_t nq = queries.back(), nk = keys.back();
    Array q(ATTEND_F32, {8, nq, 2, 1}), k(ATTEND_F32, {8, nk, 1, 1}), v(ATTEND_F32, {5, nk, 1, 1}),
        out(ATTEND_F32, {5, nq, 2, 1}),
        d_out = out.like({5, nq, 2, 1}), lse(ATTEND_F32, {1, nq, 2, 1}), delta = lse.like({1, nq, 2, 1}),
        d_q = q.like({8, nq, 2, 1}), d_k = k.like({8, nk, 1, 1}), d_v = v.like({5, nk, 1, 1}),
        got_q = d_q.like({8, nq, 2, 1}), got_k = d_k.like({8, nk, 1, 1}), got_v = d_v.like({5, nk, 1, 1});
    for (Array *x : {&q, &k, &v, &d_out}) x->fill(random);
    attend_attention_options a = options_with<attend_attention_options>(0);
    a.flags = random.one_in(2) ? ATTEND_CAUSAL_TOP_LEFT : 0;
    a.lse = &lse.t, a.sequences = 3, a.query_starts = queries.data(), a.key_starts = keys.data();
    attend_attention_backward_options g = options_with<attend_attention_backward_options>(0);
    ok(attend_attention(&q.t, &k.t, &v.t, &out.t, &a));
    g.delta = &delta.t;
    ok(attend_attention_backward(&q.t, &k.t, &v.t, &out.t, &d_out.t, &d_q.t, &d_k.t, &d_v.t, &g, &a));
    // Keys.
    Array state(ATTEND_F32, {16, nq, 2, 1});
    g.d_q_state = &state.t, g.total_keys = total.data();
    const int64_t longest = *std::max_element(total.begin(), total.end());
    for (int64_t begin = 0, end = 0; begin == 0 || begin < longest; begin = end) {
      end = begin + 256 * random.in(1, 2);
      PackedPiece k1(k, keys, begin, end - begin), v1(v, keys, begin, end - begin),
          d_k1 = {got_k, keys, begin, end - begin}, d_v1 = {got_v, keys, begin, end - begin};
      a.key_starts = k1.starts.data(), a.key_offset = begin;
      g.flags = (begin > 0 ? ATTEND_CONTINUE : 0u) | (end < longest ? ATTEND_PARTIAL : 0u);
      g.threads = static_cast<int32_t>(random.in(1, 3));
      ok(attend_attention_backward(&q.t, &k1.array.t, &v1.array.t, nullptr, &d_out.t, &got_q.t, &d_k1.array.t,
                                   &d_v1.array.t, &g, &a));
      d_k1.store(keys, begin, &got_k), d_v1.store(keys, begin, &got_v);
    }
    CHECK(same_elements(got_q.t, d_q.t));
    CHECK(same_elements(got_k.t, d_k.t));
    CHECK(same_elements(got_v.t, d_v.t));
    // Queries, the second head behind the first.
    Array k_state(ATTEND_F32, {8, nk, 1, 1}), v_state(ATTEND_F32, {5, nk, 1, 1});
    for (Array *x : {&got_k, &got_v}) x->fill_with_bytes(0xfe);
    g.d_q_state = nullptr, g.total_keys = nullptr, g.d_k_state = &k_state.t, g.d_v_state = &v_state.t;
    a.key_starts = keys.data(), a.key_offset = 0;
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t begin = 0; begin < 150; begin += 64) {
        PackedPiece q1(q, queries, begin, 64), d_out1(d_out, queries, begin, 64), lse1(lse, queries, begin, 64),
            delta1(delta, queries, begin, 64);
        const auto one = [h](const PackedPiece &x) { return along(x.array.t, 2, h, 1); };
        const attend_tensor q2 = one(q1), d_out2 = one(d_out1), lse2 = one(lse1), delta2 = one(delta1);
        a.query_starts = q1.starts.data(), a.query_offset = begin, a.lse = &lse2;
        g.delta = &delta2;
        g.flags = (h + begin > 0 ? ATTEND_CONTINUE : 0u) | (h == 0 || begin < 128 ? ATTEND_PARTIAL : 0u);
        ok(attend_attention_backward(&q2, &k.t, &v.t, nullptr, &d_out2, nullptr, &got_k.t, &got_v.t, &g, &a));
      }
    }
    CHECK(same_elements(got_k.t, d_k.t));
    CHECK(same_elements(got_v.t, d_v.t));
  }
}

TEST_CASE("delta is what out and d_out say, less d_lse, and takes their place") {
  Random random(2203);
  for (int round = 0; round < 20; ++round) {
    Problem<double> p(random);
    Pieces<double> c(p, random, false);
    c.find_delta();
    c.delta.each([&](double &x, int64_t, int64_t i, int64_t h, int64_t b) {
      double want = c.g.d_lse != nullptr ? -c.d_lse.at(0, i, h, b) : 0, size = std::fabs(want);
      for (int64_t f = 0; f < p.dv; ++f) {
        const double product = p.out.at(f, i, h, b) * c.d_out.at(f, i, h, b);
        want += product, size += std::fabs(product);
      }
      CHECK(std::fabs(x - want) <= 1e-14 * size);
    });
  }
}
