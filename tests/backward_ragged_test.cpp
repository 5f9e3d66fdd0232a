// Gradients of packed and padded sequences have the bits of each sequence alone; those of narrow operands the bits of the
// f32 call on widened operands, rounded once.
#include "arrays.hpp"
#include "guarded.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// A call over random sequences with random options.
struct Ragged {
  bool packs_queries, packs_keys;
  int64_t d, dv, heads, kv_heads, sequences, most_queries = 0, most_keys = 0;
  std::vector<int64_t> queries, keys, lengths, firsts, offsets, query_starts = {0}, key_starts = {0};
  uint32_t acc;
  std::unique_ptr<Array> q, k, v, out, lse, d_out, d_lse, bias, slopes, sinks, d_q, d_k, d_v, d_bias;
  attend_attention_options options = options_with<attend_attention_options>(0);

  Ragged(Random &random, uint32_t type, uint32_t k_type)
      : packs_queries(random.one_in(2)),
        packs_keys(random.one_in(2)),
        d(random.pick<int64_t>({1, 8, 17, 64})),
        dv(random.pick<int64_t>({0, 1, 16, 33, 64})),
        heads(random.pick<int64_t>({2, 4})),
        kv_heads(heads / random.pick<int64_t>({1, 2})),
        sequences(random.in(1, 4)),
        acc(type == ATTEND_F64 ? ATTEND_F64 : ATTEND_F32) {
    const int64_t nq = random.in(1, 90), nk = random.one_in(4) ? random.in(250, 700) : random.in(1, 90);
    for (int64_t b = 0; b < sequences; ++b) {
      queries.push_back(!packs_queries ? nq : random.one_in(5) ? 0 : random.in(1, nq));
      keys.push_back(!packs_keys ? nk : random.one_in(5) ? 0 : random.in(1, nk));
      lengths.push_back(random.in(0, keys.back()));
      firsts.push_back(random.in(0, lengths.back()));
      offsets.push_back(random.in(-3, nk));
      query_starts.push_back(query_starts.back() + queries.back());
      key_starts.push_back(key_starts.back() + keys.back());
      most_keys = std::max(most_keys, keys.back());
    }
    const auto order = [&random] {
      return random.pick<std::array<size_t, 4>>({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}});
    };
    const auto make = [&](std::unique_ptr<Array> &to, uint32_t dtype, const Shape &shape) {
      to = std::make_unique<Array>(dtype, shape, order(), random.pick<int64_t>({0, 0, 5}));
      to->fill(random);
    };
    const int64_t columns = packs_queries ? query_starts.back() : nq, q_batch = packs_queries ? 1 : sequences;
    const int64_t key_columns = packs_keys ? key_starts.back() : nk, k_batch = packs_keys ? 1 : sequences;
    make(q, type, {d, columns, heads, q_batch});
    make(d_q, random.one_in(2) ? type : acc, q_shape(d));
    make(out, type, q_shape(dv));
    make(d_out, random.one_in(2) ? type : acc, q_shape(dv));
    make(lse, acc, q_shape(1));
    make(d_lse, acc, q_shape(1));
    make(k, k_type, {d, key_columns, kv_heads, k_batch});
    make(v, k_type, {dv, key_columns, kv_heads, k_batch});
    make(d_k, random.one_in(2) ? k_type : acc, {d, key_columns, kv_heads, k_batch});
    make(d_v, random.one_in(2) ? k_type : acc, {dv, key_columns, kv_heads, k_batch});
    make(bias, acc, {most_keys, columns, random.one_in(2) ? 1 : heads, q_batch});
    make(slopes, acc, {heads, 1, 1, 1});
    make(sinks, acc, {heads, 1, 1, 1});
    d_bias = std::make_unique<Array>(bias->like({most_keys, columns, heads, q_batch}));
    set_options(random);
  }
  Shape q_shape(int64_t rows) const { return {rows, q->t.shape[1], q->t.shape[2], q->t.shape[3]}; }

  void set_options(Random &random) {
    attend_attention_options &o = options;
    if (packs_queries || packs_keys) o.sequences = sequences;
    if (packs_queries) o.query_starts = query_starts.data();
    if (packs_keys) o.key_starts = key_starts.data();
    if (random.one_in(2)) {
      o.kv_lengths = lengths.data();
    } else {
      lengths = keys;
    }
    if (random.one_in(3)) {
      for (size_t b = 0; b < firsts.size(); ++b) firsts[b] = std::min(firsts[b], lengths[b]);
      o.kv_first = firsts.data();
    }
    o.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
    if (o.flags != ATTEND_CAUSAL_BOTTOM_RIGHT && random.one_in(2)) {
      o.query_offsets = offsets.data();
    } else {
      offsets.assign(offsets.size(), 0);
    }
    if (random.one_in(4)) {
      o.flags |= ATTEND_WINDOW;
      o.window_left = random.in(-1, 100);
      o.window_right = random.in(-1, 20);
    }
    if (random.one_in(4)) o.softcap = 3;
    if (random.one_in(4)) o.alibi_slopes = &slopes->t;
    if (random.one_in(4)) o.sinks = &sinks->t;
    if (random.one_in(3)) o.bias = &bias->t;
  }

  attend_tensor of_queries(const Array &a, int64_t b) const {
    const size_t at = static_cast<size_t>(b);
    return packs_queries ? part(a.t, 1, query_starts[at], queries[at]) : part(a.t, 1, 0, queries[at], b);
  }
  attend_tensor of_keys(const Array &a, int64_t b) const {
    const size_t at = static_cast<size_t>(b);
    return packs_keys ? part(a.t, 1, key_starts[at], keys[at]) : part(a.t, 1, 0, keys[at], b);
  }

  // Over poison, in a workspace of the size asked for, behind which nothing may be touched.
  void run(int32_t threads, bool with_workspace) {
    options.lse = &lse->t;
    options.threads = threads;
    ok(attend_attention(&q->t, &k->t, &v->t, &out->t, &options));
    options.threads = 0;
    for (Array *a : {d_q.get(), d_k.get(), d_v.get(), d_bias.get()}) a->fill_with_bytes(0xfe);
    attend_attention_backward_options o = options_with<attend_attention_backward_options>(threads);
    o.d_lse = &d_lse->t;
    // (A bias of all heads sums over them: that is another test's.)
    if (options.bias != nullptr && bias->t.shape[2] == heads) o.d_bias = &d_bias->t;
    uint64_t bytes = 0;
    if (!ok(attend_attention_backward_workspace(&q->t, &k->t, &v->t, &out->t, &d_out->t, &d_q->t, &d_k->t, &d_v->t, &o,
                                                &options, &bytes))) {
      return;
    }
    const Guarded<char> workspace(static_cast<int64_t>(bytes), {true, 0});
    if (with_workspace) o.workspace = workspace.data, o.workspace_size = bytes;
    ok(attend_attention_backward(&q->t, &k->t, &v->t, &out->t, &d_out->t, &d_q->t, &d_k->t, &d_v->t, &o, &options));
  }

  // The same elements, widened.
  Array wide(const attend_tensor &t) const {
    Array a(acc, {t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
    ok(attend_convert(&t, &a.t, nullptr));
    return a;
  }
  // `t`'s elements are those of `a`, rounded.
  void check_rounded(const char *name, const Array &a, const attend_tensor &t) const {
    INFO(std::string(name));
    Array rounded(t.dtype, {t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
    ok(attend_convert(&a.t, &rounded.t, nullptr));
    CHECK(same_elements(rounded.t, t));
  }

  void check_alone(int64_t b) {
    const size_t at = static_cast<size_t>(b);
    INFO("sequence " << b << " queries " << queries[at] << " keys " << keys[at]);
    const Array q1 = wide(of_queries(*q, b)), k1 = wide(of_keys(*k, b)), v1 = wide(of_keys(*v, b)),
                out1 = wide(of_queries(*out, b)), lse1 = wide(of_queries(*lse, b)),
                d_out1 = wide(of_queries(*d_out, b)), d_lse1 = wide(of_queries(*d_lse, b)),
                bias1 = wide(part(of_queries(*bias, b), 0, 0, keys[at]));
    attend_attention_options alone = options;
    alone.sequences = 0;
    alone.query_starts = alone.key_starts = alone.query_offsets = nullptr;
    alone.query_offset = offsets[at];
    if (options.kv_lengths != nullptr) alone.kv_lengths = &lengths[at];
    if (options.kv_first != nullptr) alone.kv_first = &firsts[at];
    if (options.bias != nullptr) alone.bias = &bias1.t;
    alone.lse = &lse1.t;
    attend_attention_backward_options o = options_with<attend_attention_backward_options>(1);
    o.d_lse = &d_lse1.t;
    const bool has_bias = options.bias != nullptr && bias->t.shape[2] == heads;
    Array d_q1(acc, {d, queries[at], heads, 1}), d_k1(acc, {d, keys[at], kv_heads, 1}),
        d_v1(acc, {dv, keys[at], kv_heads, 1}), d_bias1(acc, {keys[at], queries[at], heads, 1});
    if (has_bias) o.d_bias = &d_bias1.t;
    if (!ok(attend_attention_backward(&q1.t, &k1.t, &v1.t, &out1.t, &d_out1.t, &d_q1.t, &d_k1.t, &d_v1.t, &o,
                                      &alone))) {
      return;
    }
    check_rounded("d_q", d_q1, of_queries(*d_q, b));
    check_rounded("d_k", d_k1, of_keys(*d_k, b));
    check_rounded("d_v", d_v1, of_keys(*d_v, b));
    if (has_bias) check_rounded("d_bias", d_bias1, part(of_queries(*d_bias, b), 0, 0, keys[at]));
  }
};

}  // namespace

TEST_CASE("gradients of ragged batches and of narrow types") {
  Random random(1501);
  const int count = rounds(60, 1500);
  for (int round = 0; round < count; ++round) {
    const uint32_t type = random.pick<uint32_t>({ATTEND_F32, ATTEND_F32, ATTEND_F64, ATTEND_BF16, ATTEND_F16});
    const uint32_t k_type = type == ATTEND_F64 ? type : random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16});
    Ragged r(random, type, k_type);
    INFO("round " << round << " types " << type << " " << k_type << " packed " << r.packs_queries << r.packs_keys
                  << " D " << r.d << " Dv " << r.dv << " H " << r.heads << " Hkv " << r.kv_heads << " flags "
                  << r.options.flags);
    for_each_isa([&] {
      r.run(random.one_in(2) ? 1 : static_cast<int32_t>(random.in(2, 4)), random.one_in(2));
      for (int64_t b = 0; b < r.sequences; ++b) r.check_alone(b);
    });
  }
}
