// Small calls take a shorter way through the library than others of the same shapes: the results must not show it, and
// what is wrong with a call must be found all the same.
#include "api/attention_options.hpp"
#include "api/plain_matrix.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

template <class T>
Operand<T> operand(Random &random, int64_t rows, int64_t columns, bool output = false) {
  typename Operand<T>::Layout l;
  if (random.one_in(3)) std::swap(l.order[0], l.order[1]);
  l.padding = random.pick<int64_t>({0, 0, 1, 17});
  l.offset = random.in(0, 3);
  Operand<T> o({rows, columns, 1, 1}, l);
  if (!output) o.fill(random);
  return o;
}

// The extents around which the short way begins and ends, and those of its tiles.
int64_t extent(Random &random) { return random.one_in(3) ? random.in(1, 70) : random.in(1, 9); }

}  // namespace

TEST_CASE_TEMPLATE("attention: the short way has the bits of the long one", T, float, double) {
  Random random(71);
  for (int round = 0; round < 300; ++round) {
    const int64_t d = extent(random), dv = extent(random), nq = extent(random), nk = extent(random);
    INFO("D " << d << " Dv " << dv << " Nq " << nq << " Nk " << nk);
    Operand<T> q = operand<T>(random, d, nq), k = operand<T>(random, d, nk), v = operand<T>(random, dv, nk),
               out = operand<T>(random, dv, nq, true), lse = operand<T>(random, 1, nq, true);
    attend_attention_options options = {};
    options.size = sizeof options;
    options.scale = random.pick({0.0, 0.7});
    options.threads = static_cast<int32_t>(random.in(0, 2));
    for_each_isa([&] {
      Operand<T> alone = out, with_lse = out, sums = lse;
      CHECK(ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), alone.tensor(), &options)));
      options.lse = sums.tensor();  // takes the long way
      CHECK(ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), with_lse.tensor(), &options)));
      options.lse = nullptr;
      CHECK(alone.same_memory(with_lse));
      CHECK(alone.gaps_untouched());
    });
  }
}

TEST_CASE_TEMPLATE("self-attention: the short way has the bits of the long one", T, float, double) {
  Random random(72);
  for (int round = 0; round < 300; ++round) {
    const int64_t d = extent(random), dh = extent(random), dv = extent(random), n = extent(random);
    INFO("D " << d << " Dh " << dh << " Dv " << dv << " N " << n);
    Operand<T> x = operand<T>(random, d, n), out = operand<T>(random, dv, n, true),
               lse = operand<T>(random, 1, n, true);
    Operand<T> w[] = {operand<T>(random, dh, d), operand<T>(random, dh, d), operand<T>(random, dv, d)};
    Operand<T> b[] = {operand<T>(random, dh, 1), operand<T>(random, dh, 1), operand<T>(random, dv, 1)};
    attend_self_attention_weights weights = {};
    weights.size = sizeof weights;
    weights.w_q = w[0].tensor(), weights.w_k = w[1].tensor(), weights.w_v = w[2].tensor();
    if (random.one_in(2)) weights.b_q = b[0].tensor();
    if (random.one_in(2)) weights.b_k = b[1].tensor();
    if (random.one_in(2)) weights.b_v = b[2].tensor();
    attend_attention_options attention = {};
    attention.size = sizeof attention;
    attention.scale = random.pick({0.0, 0.7});
    for_each_isa([&] {
      Operand<T> alone = out, with_lse = out, sums = lse;
      attention.lse = nullptr;
      CHECK(ok(attend_self_attention(x.tensor(), &weights, alone.tensor(), nullptr, &attention)));
      attention.lse = sums.tensor();
      CHECK(ok(attend_self_attention(x.tensor(), &weights, with_lse.tensor(), nullptr, &attention)));
      CHECK(alone.same_memory(with_lse));
      CHECK(alone.gaps_untouched());
    });

    // The workspace that is asked for is enough, and less than one thread's is refused as on the long way.
    attend_self_attention_options options = {};
    options.size = sizeof options;
    options.threads = 1;
    attention.lse = nullptr;
    uint64_t bytes = 0;
    REQUIRE(ok(attend_self_attention_workspace(x.tensor(), &weights, out.tensor(), &options, &attention, &bytes)));
    std::vector<unsigned char> workspace(bytes + 64);
    options.workspace = workspace.data() + random.in(0, 63);
    for (const uint64_t given : {bytes, bytes - 63, bytes - 64, uint64_t{1}}) {
      options.workspace_size = given;
      Operand<T> result = out, sums = lse;
      attention.lse = nullptr;
      const attend_status shorter = attend_self_attention(x.tensor(), &weights, result.tensor(), &options, &attention);
      attention.lse = sums.tensor();
      CHECK(shorter == attend_self_attention(x.tensor(), &weights, result.tensor(), &options, &attention));
      if (given == bytes) CHECK(shorter == ATTEND_OK);
    }
  }
}

TEST_CASE("small calls: what is wrong is found") {
  float memory[64] = {};
  const attend_tensor good = {memory, ATTEND_F32, 2, {4, 3}, {1, 4}},
                      out = {memory + 32, ATTEND_F32, 2, {4, 3}, {1, 4}};
  CHECK(attend_attention(&good, &good, &good, &out, nullptr) == ATTEND_OK);
  const auto fails = [&](const attend_tensor &q, const attend_tensor &k, const attend_tensor &v, const attend_tensor &o,
                         const char *argument) {
    const attend_status status = attend_attention(&q, &k, &v, &o, nullptr);
    CHECK(status != ATTEND_OK);
    CHECK(std::string(attend_status_argument(status)) == argument);
  };
  attend_tensor wrong = good;
  wrong.shape[0] = 3;
  fails(good, wrong, good, out, "k");
  wrong = good;
  wrong.dtype = ATTEND_F64;
  fails(good, wrong, good, out, "k");
  fails(out, good, good, out, "out");  // overlaps one of its inputs
  fails(good, out, good, out, "out");
  fails(good, good, out, out, "out");
  wrong = out;
  wrong.stride[1] = 3;
  fails(good, good, good, wrong, "out");
  wrong = good;
  wrong.data = nullptr;
  fails(wrong, good, good, out, "q");
  attend_attention_options options = {};
  options.size = sizeof options;
  options.scale = std::numeric_limits<double>::quiet_NaN();
  CHECK(attend_attention(&good, &good, &good, &out, &options) != ATTEND_OK);
  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  const attend_tensor square = {memory, ATTEND_F32, 2, {4, 4}, {1, 4}};
  weights.w_q = weights.w_k = weights.w_v = &square;
  for (const double beyond_f32 : {1e39, -1e39, 3.5e38, 1e-46, -1e-46}) {
    INFO("scale " << beyond_f32);
    options.scale = beyond_f32;
    attend_status status = attend_attention(&good, &good, &good, &out, &options);
    CHECK(ATTEND_REASON(status) == ATTEND_INVALID_VALUE);
    CHECK(std::string(attend_status_argument(status)) == "options.scale");
    status = attend_self_attention(&good, &weights, &out, nullptr, &options);
    CHECK(ATTEND_REASON(status) == ATTEND_INVALID_VALUE);
    CHECK(std::string(attend_status_argument(status)) == "attention_options.scale");
  }
  options.scale = 0;
  options.workspace_size = 1;  // without a workspace
  CHECK(attend_attention(&good, &good, &good, &out, &options) != ATTEND_OK);
}

// Whatever it may come to mean: no byte of the options can be set and not be seen.
TEST_CASE("small calls: every byte of the options counts") {
  const auto each_byte = [](auto options, size_t scale, const auto &is_plain) {
    using Options = decltype(options);
    options = {};
    options.size = sizeof options;
    CHECK(is_plain(options));
    for (size_t i = sizeof options.size; i < sizeof options; ++i) {
      const auto in = [i](size_t offset, size_t size) { return i >= offset && i < offset + size; };
      if (in(offsetof(Options, threads), sizeof options.threads) || in(scale, sizeof(double))) continue;
      if (in(offsetof(Options, workspace), sizeof options.workspace)) continue;
      if (in(offsetof(Options, message), sizeof options.message)) continue;
      INFO("byte " << i);
      reinterpret_cast<unsigned char *>(&options)[i] = 1;
      CHECK(!is_plain(options));
      reinterpret_cast<unsigned char *>(&options)[i] = 0;
    }
    options.threads = 3;
    options.workspace = &options;
    options.workspace_size = 8;
    CHECK(is_plain(options));
    char message[8];
    options.message = message;
    options.message_size = sizeof message;
    CHECK(is_plain(options));
    options.threads = -1;
    CHECK(!is_plain(options));
    options.threads = 0;
    ++options.size;
    CHECK(!is_plain(options));
  };
  constexpr size_t kNone = SIZE_MAX / 2;
  each_byte(attend_matmul_options(), kNone, [](const auto &o) { return is_plain_options(&o); });
  each_byte(attend_self_attention_options(), kNone, [](const auto &o) { return is_plain_options(&o); });
  each_byte(attend_attention_options(), offsetof(attend_attention_options, scale), [](const auto &o) {
    double scale = 0;
    return only_scales(&o, Dtype::f32, &scale);
  });
}
