// Keys in pieces, call by call: the bits of one call over all of them.
#include "arrays.hpp"
#include "attention_problem.hpp"
#include "operands.hpp"
#include "stored.hpp"
#include "tables.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// The keys [begin, end) of what has a row for each key, or one for all.
attend_tensor rows(const attend_tensor &t, int64_t begin, int64_t end) {
  return t.shape[0] == 1 ? t : along(t, 0, begin, end - begin);
}

// One call after the other over pieces that end at multiples of 256 keys, the last one where the keys end or, without
// keys, behind it. Where nothing is to be written there is poison, which must stay.
template <class T>
void run_in_pieces(Problem<T> &p, Random &random, Operand<T> *out, Operand<T> *lse) {
  Operand<T> state({2 * (p.dv + 2), p.nq, p.heads, p.batch}, Operand<T>::random_layout(random));
  const attend_tensor k = *p.k.tensor(), v = *p.v.tensor();
  const int64_t past = random.one_in(4) ? (p.nk + 255) / 256 * 256 : p.nk;  // then an empty piece at the end
  std::vector<int64_t> lengths(p.lengths.size());
  attend_attention_options o = p.options;
  o.scores = nullptr;
  o.lse = lse->tensor();
  o.state = state.tensor();
  for (int64_t begin = 0, end = 0; begin < past || begin == 0; begin = end) {
    end = std::min(past, begin + 256 * random.pick<int64_t>({1, 1, 2, 3, 7}));
    const bool last = end == past && past == p.nk;
    const int64_t stop = std::min(end, p.nk);
    const attend_tensor k1 = along(k, 1, begin, stop - begin), v1 = along(v, 1, begin, stop - begin);
    attend_tensor mask, bias;
    if (p.options.mask != nullptr) o.mask = &(mask = rows(*p.options.mask, begin, stop));
    if (p.options.bias != nullptr) o.bias = &(bias = rows(*p.options.bias, begin, stop));
    for (size_t b = 0; b < lengths.size(); ++b) lengths[b] = std::clamp<int64_t>(p.lengths[b] - begin, 0, stop - begin);
    if (!lengths.empty()) o.kv_lengths = lengths.data();
    o.key_offset = begin;
    o.flags = p.options.flags | (begin > 0 ? ATTEND_CONTINUE : 0u) | (last ? 0u : ATTEND_PARTIAL);
    o.threads = static_cast<int32_t>(random.in(1, 4));
    for (Operand<T> *poisoned : {out, lse}) poisoned->fill_with(Problem<T>::kNan);
    const Operand<T> before = *out;
    if (!ok(attend_attention(p.q.tensor(), &k1, &v1, out->tensor(), &o))) return;
    if (!last) CHECK(out->same_memory(before));
    CHECK(state.gaps_untouched());
  }
  if (past == p.nk) return;
  const attend_tensor none = along(k, 1, 0, 0), no_values = along(v, 1, 0, 0);
  attend_tensor mask, bias;
  if (p.options.mask != nullptr) o.mask = &(mask = rows(*p.options.mask, 0, 0));
  if (p.options.bias != nullptr) o.bias = &(bias = rows(*p.options.bias, 0, 0));
  std::fill(lengths.begin(), lengths.end(), 0);
  o.key_offset = past;
  o.flags = p.options.flags | ATTEND_CONTINUE;
  const Operand<T> state_before = state;
  ok(attend_attention(p.q.tensor(), &none, &no_values, out->tensor(), &o));
  CHECK(state.same_memory(state_before));
}

template <class T>
void check_pieces(Random &random, int64_t keys, int64_t queries) {
  Problem<T> p(random, keys, queries);
  if (!p.firsts.empty()) {  // what lies before them is poison
    for (Operand<T> *o : {&p.k, &p.v, &p.bias}) o->fill(random);
  }
  p.options.kv_first = nullptr;
  if (p.options.flags & ATTEND_CAUSAL_BOTTOM_RIGHT) {
    p.options.flags ^= ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_CAUSAL_TOP_LEFT;
    p.options.query_offset = p.nk - p.nq;
  }
  INFO(p.description());
  Operand<T> out = p.out, lse = p.lse, alone = p.out, alone_lse = p.lse;
  p.options.threads = 1;
  p.options.lse = alone_lse.tensor();
  p.options.scores = nullptr;
  if (!ok(attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), alone.tensor(), &p.options))) return;
  run_in_pieces(p, random, &out, &lse);
  CHECK(same_bits(out.values(), alone.values()));
  CHECK(same_bits(lse.values(), alone_lse.values()));
}

}  // namespace

TEST_CASE_TEMPLATE("keys in pieces: every combination of features", T, float, double) {
  Random random(sizeof(T) == 4 ? 1301 : 1302);
  const int count = rounds(40, 1000);
  for (int round = 0; round < count; ++round) {
    for_each_isa([&] { check_pieces<T>(random, random.in(1, 1500), 0); });
  }
}

TEST_CASE_TEMPLATE("keys in pieces over several spans", T, float, double) {
  Random random(sizeof(T) == 4 ? 1303 : 1304);
  set_active_kernels(&short_spans());
  const int count = rounds(40, 1000);
  for (int round = 0; round < count; ++round) {
    check_pieces<T>(random, random.in(400, 3000), random.pick<int64_t>({1, 2, 5, 40}));
  }
  set_active_kernels(nullptr);
}

TEST_CASE("a piece alone is the call without state, and only says where its keys are") {
  Random random(1305);
  Operand<float> q({16, 9, 2, 1}, {}), k({16, 300, 2, 1}, {}), v({16, 300, 2, 1}, {}), slopes({2, 1, 1, 1}, {});
  for (Operand<float> *o : {&q, &k, &v, &slopes}) o->fill(random);
  const auto run = [&](int64_t key_offset, int64_t query_offset, const attend_tensor *state) {
    Operand<float> out({16, 9, 2, 1}, {});
    attend_attention_options o = options_with<attend_attention_options>(1);
    o.flags = ATTEND_CAUSAL_TOP_LEFT;
    o.alibi_slopes = slopes.tensor();
    o.key_offset = key_offset, o.query_offset = query_offset, o.state = state;
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &o));
    return out.values();
  };
  Operand<float> state({36, 9, 2, 1}, {});
  const Operand<float> before = state;
  CHECK(same_bits(run(0, 200, nullptr), run(256 * 1000, 256 * 1000 + 200, nullptr)));
  CHECK(same_bits(run(0, 200, nullptr), run(0, 200, state.tensor())));
  CHECK(state.same_memory(before));
}

// What attend_mpi_decode folds spans with.
TEST_CASE_TEMPLATE("a key that nobody sees closes the span before it", T, float, double) {
  Random random(sizeof(T) == 4 ? 1306 : 1307);
  set_active_kernels(&short_spans());
  for (int round = 0; round < 10; ++round) {
    const int64_t d = 8, dv = random.pick<int64_t>({1, 8, 33}), nq = random.pick<int64_t>({1, 3, 40}), heads = 4;
    const int64_t nk = random.in(513, 3000), half = dv + 2;
    INFO("Dv " << dv << " Nq " << nq << " Nk " << nk);
    Operand<T> q({d, nq, heads, 1}, {}), k({d, nk, 2, 1}, {}), v({dv, nk, 2, 1}, {}), out({dv, nq, heads, 1}, {}),
        whole = out, state({2 * half, nq, heads, 1}, {}), zero({d, 1, 2, 1}, {}), no_value({dv, 1, 2, 1}, {});
    for (Operand<T> *o : {&q, &k, &v}) o->fill(random);
    zero.fill_with(0), no_value.fill_with(0);
    attend_attention_options o = options_with<attend_attention_options>(static_cast<int32_t>(random.in(1, 3)));
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), whole.tensor(), &o));
    uint8_t hides = 0;
    const attend_tensor mask = {&hides, ATTEND_BOOL, 1, {1}, {}};
    o.state = state.tensor();
    // The last span first: what came before it is put in front of it afterwards.
    Operand<T> spans_before = state;
    spans_before.fill_with(0);
    spans_before.each([&](T &x, int64_t i, auto...) { x = i % half == 0 ? -std::numeric_limits<T>::infinity() : x; });
    for (int64_t begin = 0; begin < nk; begin += 512) {
      const attend_tensor k1 = along(*k.tensor(), 1, begin, std::min<int64_t>(512, nk - begin)),
                          v1 = along(*v.tensor(), 1, begin, k1.shape[1]);
      o.key_offset = begin, o.flags = ATTEND_PARTIAL, o.mask = nullptr;
      ok(attend_attention(q.tensor(), &k1, &v1, out.tensor(), &o));
      state.each([&](T &x, int64_t i, int64_t j, int64_t h, auto...) { x = i < half ? x : spans_before.at(i, j, h); });
      if (begin + 512 >= nk) break;
      o.key_offset = begin + 512, o.flags = ATTEND_PARTIAL | ATTEND_CONTINUE, o.mask = &mask;
      ok(attend_attention(q.tensor(), zero.tensor(), no_value.tensor(), out.tensor(), &o));
      state.each([&](T &x, int64_t i, auto...) {
        if (i == 0) CHECK(x == -std::numeric_limits<T>::infinity());
        if (i > 0 && i < half) CHECK(x == 0);
      });
      spans_before = state;
    }
    const attend_tensor none = along(*k.tensor(), 1, 0, 0), no_values = along(*v.tensor(), 1, 0, 0);
    o.key_offset = (nk + 255) / 256 * 256, o.flags = ATTEND_CONTINUE, o.mask = nullptr;
    ok(attend_attention(q.tensor(), &none, &no_values, out.tensor(), &o));
    CHECK(same_bits(out.values(), whole.values()));
  }
  set_active_kernels(nullptr);
}

TEST_CASE("pieces that are wrong") {
  struct PieceCall : operands::AttentionCall {
    attend_tensor state;
    PieceCall() {
      static float memory[512];
      state = {memory, ATTEND_F32, 4, {10, 6, 4, 2}, {1, 10, 60, 240}};
      options.value.flags = ATTEND_PARTIAL;
      options.value.state = &state;
      options.value.key_offset = 256;
    }
  };
  operands::expect_success(PieceCall());
  const auto wrong = [](int reason, const char *argument, const std::function<void(PieceCall &)> &spoil) {
    PieceCall call;
    spoil(call);
    operands::expect_failure(call, reason, argument);
  };
  wrong(ATTEND_NULL_POINTER, "options.state", [](PieceCall &c) { c.options.value.state = nullptr; });
  wrong(ATTEND_INVALID_VALUE, "options.key_offset", [](PieceCall &c) { c.options.value.key_offset = 128; });
  wrong(ATTEND_INVALID_VALUE, "options.key_offset", [](PieceCall &c) { c.options.value.key_offset = -256; });
  wrong(ATTEND_INVALID_VALUE, "options.flags",
        [](PieceCall &c) { c.options.value.flags |= ATTEND_CAUSAL_BOTTOM_RIGHT; });
  wrong(ATTEND_UNSUPPORTED, "options.scores",
        [](PieceCall &c) { c.options.value.scores_stage = ATTEND_SCORES_PROBABILITIES; });
  static int64_t firsts[2];
  wrong(ATTEND_INVALID_VALUE, "options.kv_first", [](PieceCall &c) { c.options.value.kv_first = firsts; });
  wrong(ATTEND_INVALID_SHAPE, "options.state", [](PieceCall &c) { c.state.shape[0] = 9; });
  wrong(ATTEND_INVALID_SHAPE, "options.state", [](PieceCall &c) { c.state.shape[2] = 2; });
  wrong(ATTEND_INVALID_DTYPE, "options.state", [](PieceCall &c) { c.state.dtype = ATTEND_F64; });
  wrong(ATTEND_INVALID_STRIDE, "options.state", [](PieceCall &c) { c.state.stride[1] = 0; });
  PieceCall onto;
  onto.state.data = onto.k.view.data;
  operands::expect_failure(onto, ATTEND_OVERLAP, "options.state", operands::Twin::accepts);
  PieceCall from;  // read only: `out` on it
  from.options.value.flags = ATTEND_CONTINUE;
  from.state.data = from.out.view.data;
  operands::expect_failure(from, ATTEND_OVERLAP, "out", operands::Twin::accepts);
  operands::SelfAttentionCall self;
  self.attention_options.value.key_offset = 256;
  operands::expect_failure(self, ATTEND_INVALID_VALUE, "attention_options.key_offset");
}
