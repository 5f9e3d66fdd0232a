// Finite numbers raise neither an invalid operation nor a division by zero: a caller may trap on both. Scratch and outputs
// hold signaling NaN, so that what is read of them by mistake raises one.
#include <fenv.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arrays.hpp"
#include "attention_problem.hpp"
#include "stored.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr int kRaised = FE_INVALID | FE_DIVBYZERO;

// Whether calls run under traps, and what the call at hand is, for whoever is asked why the process ended.
bool g_traps = false;
char g_call[400];

// Makes the call under the traps, or looks at what it raised. (With doctest's own arithmetic outside.)
template <class Call>
void expect_none(const std::string &what, const Call &call) {
  INFO(what);
  what.copy(g_call, sizeof g_call - 1);
  g_call[std::min(what.size(), sizeof g_call - 1)] = 0;
  feclearexcept(FE_ALL_EXCEPT);
#if defined(__GLIBC__)
  if (g_traps) feenableexcept(kRaised);
#endif
  const attend_status status = call();
  const int raised = fetestexcept(kRaised);
#if defined(__GLIBC__)
  if (g_traps) fedisableexcept(kRaised);
#endif
  ok(status);
  CHECK((raised & FE_INVALID) == 0);
  CHECK((raised & FE_DIVBYZERO) == 0);
}

template <class T>
std::vector<T, LineAllocator<T>> g_workspace;

// need(bytes) says how large a workspace must be.
template <class T, class Options, class Need>
void lend_workspace(Options *options, const Need &need) {
  uint64_t bytes = 0;
  options->workspace = nullptr;
  options->workspace_size = 0;
  if (!ok(need(&bytes))) return;
  g_workspace<T>.assign(static_cast<size_t>(bytes) / sizeof(T) + 1, std::numeric_limits<T>::signaling_NaN());
  options->workspace = g_workspace<T>.data();
  options->workspace_size = bytes;
}

std::string threads_of(int32_t threads) { return std::string(attend_isa()) + ", threads " + std::to_string(threads); }

template <class T>
void softmax(Random &random, int64_t m, int64_t n, int32_t threads) {
  using O = Operand<T>;
  const T inf = std::numeric_limits<T>::infinity(), poison = std::numeric_limits<T>::signaling_NaN();
  typename O::Layout layout = O::random_layout(random);
  if (random.one_in(2)) layout = {};
  O x({m, n, 1, 1}, layout), y({m, n, 1, 1}, layout), lse({1, n, 1, 1}, {}),
      bias({m, random.one_in(2) ? n : 1, 1, 1}, {});
  x.fill(random, random.pick({1.0, 1.0, 100.0, 1e30}));
  bias.fill(random);
  const bool some = random.one_in(2);
  bias.each([&](T &b, auto...) { b = random.one_in(3) ? -inf : some ? b : std::numeric_limits<T>::lowest(); });
  std::vector<uint8_t> bytes(static_cast<size_t>(m * n));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i / static_cast<size_t>(m) % 3 != 1 && !random.one_in(3);
  const attend_tensor mask = {bytes.data(), ATTEND_BOOL, 2, {m, n, 0, 0}, {1, m, 0, 0}};  // every third column: none
  for (O *o : {&y, &lse}) o->fill_with(poison);
  auto options = options_with<attend_softmax_options>(threads);
  options.flags = random.one_in(3) ? ATTEND_LOG : 0;
  options.scale = random.pick({0.0, 0.0, 0.3, -2.0});
  options.lse = random.one_in(2) ? lse.tensor() : nullptr;
  options.bias = random.one_in(3) ? bias.tensor() : nullptr;
  options.mask = random.one_in(3) ? &mask : nullptr;
  lend_workspace<T>(&options,
                    [&](uint64_t *b) { return attend_softmax_workspace(x.tensor(), y.tensor(), &options, b); });
  const std::string what = "softmax " + std::to_string(m) + " x " + std::to_string(n) + " order " +
                           std::to_string(layout.order[0]) + " step " + std::to_string(layout.step) + " log " +
                           std::to_string(options.flags) + " lse " + std::to_string(options.lse != nullptr) + " bias " +
                           std::to_string(options.bias != nullptr) + " mask " + std::to_string(options.mask != nullptr);
  expect_none(what + ", " + threads_of(threads), [&] { return attend_softmax(x.tensor(), y.tensor(), &options); });
}

// A long column far below 0: what fills the vector behind its last element must not count as 0.
template <class T>
void low_column(T level) {
  Operand<T> x({66001, 1, 1, 1}, {}), y = x;
  x.fill_with(level);
  auto options = options_with<attend_softmax_options>(1);
  lend_workspace<T>(&options,
                    [&](uint64_t *b) { return attend_softmax_workspace(x.tensor(), y.tensor(), &options, b); });
  expect_none("softmax of 66001 x " + std::to_string(level) + ", " + threads_of(1),
              [&] { return attend_softmax(x.tensor(), y.tensor(), &options); });
}

template <class T>
void attention(Random &random, Problem<T> &p, int32_t threads) {
  const T poison = std::numeric_limits<T>::signaling_NaN();
  for (Operand<T> *o : {&p.out, &p.lse, &p.scores}) o->fill_with(poison);
  if (p.masked && random.one_in(4)) std::fill(p.mask_bytes.begin(), p.mask_bytes.end(), uint8_t{0});
  if (p.biased && random.one_in(4)) p.bias.fill_with(random.one_in(2) ? Problem<T>::kNan : -Problem<T>::kInf);
  if (p.biased) p.bias.each([&](T &b, auto...) { b = std::isnan(b) ? std::numeric_limits<T>::lowest() : b; });
  if (random.one_in(8)) p.k.fill(random, 1e17), p.q.fill(random, 1e17);
  if (p.options.softcap > 0) p.options.softcap = random.pick({p.options.softcap, 1e-20, 3.4e38});
  p.options.threads = threads;
  p.options.lse = random.one_in(2) ? p.lse.tensor() : nullptr;
  p.options.scores = random.one_in(3) ? p.scores.tensor() : nullptr;
  lend_workspace<T>(&p.options, [&](uint64_t *bytes) {
    return attend_attention_workspace(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), &p.options, bytes);
  });
  expect_none("attention" + p.description() + " lse " + std::to_string(p.options.lse != nullptr) + " scores " +
                  std::to_string(p.options.scores != nullptr) + ", " + threads_of(threads),
              [&] { return attend_attention(p.q.tensor(), p.k.tensor(), p.v.tensor(), p.out.tensor(), &p.options); });
}

template <class T>
void matmul(Random &random, int64_t m, int64_t n, int64_t k, int32_t threads) {
  using O = Operand<T>;
  O a({m, k, 1, 1}, O::random_layout(random)), b({k, n, 1, 1}, O::random_layout(random)),
      c({m, n, 1, 1}, O::random_layout(random)), bias({m, random.one_in(2) ? n : 1, 1, 1}, {});
  for (O *o : {&a, &b, &c, &bias}) o->fill(random);
  const double beta = random.pick({0.0, 1.0, 0.3});
  if (beta == 0) c.fill_with(std::numeric_limits<T>::signaling_NaN());
  auto options = options_with<attend_matmul_options>(threads);
  options.bias = random.one_in(3) ? bias.tensor() : nullptr;
  lend_workspace<T>(&options, [&](uint64_t *bytes) {
    return attend_matmul_workspace(1, a.tensor(), b.tensor(), beta, c.tensor(), &options, bytes);
  });
  expect_none("matmul " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) + ", " +
                  threads_of(threads),
              [&] { return attend_matmul(1, a.tensor(), b.tensor(), beta, c.tensor(), &options); });
}

template <class T>
void merge(Random &random, int64_t dv, int64_t nq, int32_t threads) {
  Operand<T> out_a({dv, nq, 1, 1}, {}), out_b = out_a, lse_a({1, nq, 1, 1}, {}), lse_b = lse_a;
  for (Operand<T> *o : {&out_a, &out_b}) o->fill(random);
  for (Operand<T> *o : {&lse_a, &lse_b}) {
    o->fill(random, random.pick({1.0, 1000.0}));
    o->each([&](T &x, auto...) { x = random.one_in(3) ? -std::numeric_limits<T>::infinity() : x; });
  }
  const auto options = options_with<attend_merge_options>(threads);
  expect_none("merge " + std::to_string(dv) + " x " + std::to_string(nq) + ", " + threads_of(threads), [&] {
    return attend_attention_merge(out_a.tensor(), lse_a.tensor(), out_b.tensor(), lse_b.tensor(), &options);
  });
}

template <class T>
void self_attention(Random &random, int64_t n, int32_t threads) {
  const int64_t features = random.in(1, 40), d = random.in(1, 40), dv = random.in(1, 40), outputs = random.in(1, 40);
  Operand<T> x({features, n, 1, 1}, {}), w_q({d, features, 2, 1}, {}), w_k({d, features, 1, 1}, {}),
      w_v({dv, features, 1, 1}, {}), w_o({outputs, dv, 2, 1}, {}), out({dv, n, 2, 1}, {}),
      projected({outputs, n, 1, 1}, {});
  for (Operand<T> *o : {&x, &w_q, &w_k, &w_v, &w_o}) o->fill(random, 0.3);
  const bool projects = random.one_in(2);
  Operand<T> &to = projects ? projected : out;
  to.fill_with(std::numeric_limits<T>::signaling_NaN());
  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  weights.w_q = w_q.tensor(), weights.w_k = w_k.tensor(), weights.w_v = w_v.tensor();
  weights.w_o = projects ? w_o.tensor() : nullptr;
  auto options = options_with<attend_self_attention_options>(threads);
  auto inner = options_with<attend_attention_options>(0);
  inner.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT});
  lend_workspace<T>(&options, [&](uint64_t *bytes) {
    return attend_self_attention_workspace(x.tensor(), &weights, to.tensor(), &options, &inner, bytes);
  });
  expect_none("self-attention of " + std::to_string(n) + ", " + threads_of(threads),
              [&] { return attend_self_attention(x.tensor(), &weights, to.tensor(), &options, &inner); });
}

// Rotation, and rounding to every type of a cache.
void append(Random &random, int32_t threads) {
  const int64_t d = 2 * random.in(1, 40), n = random.in(1, 40), heads = random.in(1, 3);
  Operand<float> k({d, n, heads, 1}, Operand<float>::random_layout(random)), cos({d / 2, n, 1, 1}, {}),
      sin = cos, scale({1, n, heads, 1}, {});
  k.fill(random, random.pick({1.0, 1e-3, 1e4, 1e30}));
  for (Operand<float> *o : {&cos, &sin}) o->fill(random);
  const uint32_t type = random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3});
  Operand<float> memory({d, n, heads, 1}, {});
  memory.fill_with(std::numeric_limits<float>::signaling_NaN());
  scale.fill_with(std::numeric_limits<float>::signaling_NaN());
  attend_tensor cache = *memory.tensor();
  cache.dtype = type;
  auto options = options_with<attend_kv_append_options>(threads);
  options.cos = cos.tensor();
  options.sin = sin.tensor();
  options.flags = random.one_in(2) ? ATTEND_ROTARY_INTERLEAVED : 0;
  if (type == ATTEND_I8 || (type == ATTEND_F8E4M3 && random.one_in(2))) {
    options.k_scale = scale.tensor();
    options.flags |= ATTEND_COMPUTE_K_SCALE;
  }
  expect_none("append of type " + std::to_string(type) + ", " + threads_of(threads),
              [&] { return attend_kv_append(k.tensor(), nullptr, &cache, nullptr, &options); });
}

// An output of a narrower type, which holds NaN, and an input; rows or columns contiguous.
Array unwritten(uint32_t dtype, const Shape &shape, bool turned = false) {
  Array a(dtype, shape, turned ? std::array<size_t, 4>{1, 0, 2, 3} : std::array<size_t, 4>{0, 1, 2, 3});
  a.fill_with_bytes(0xff);
  return a;
}
Array stored(Random &random, uint32_t dtype, const Shape &shape, bool turned = false) {
  Array a = unwritten(dtype, shape, turned);
  a.fill(random);
  return a;
}

// Few queries beside values of a narrower type are computed in powers of two: `uneven` asks for such as are not.
void stored_attention(Random &random, int64_t nq, bool uneven = false) {
  const int64_t heads = uneven ? 1 : random.in(1, 3), nk = random.one_in(3) ? random.in(200, 600) : random.in(1, 70);
  const auto features = [&] { return !uneven && random.one_in(3) ? random.in(1, 70) : 16 * random.in(1, 8); };
  const auto any = [&] { return random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_F8E4M3}); };
  const int64_t d = features(), dv = features();
  const Array q = stored(random, any_float(random), {d, nq, heads, 1}),
              k = stored(random, uneven ? uint32_t{ATTEND_F32} : any(), {d, nk, 1, 1}),
              v = stored(random, uneven ? uint32_t{ATTEND_BF16} : any(), {dv, nk, 1, 1}),
              out = unwritten(any_float(random), {dv, nq, heads, 1});
  auto options = options_with<attend_attention_options>(1);
  options.flags = uneven ? 0 : random.pick<uint32_t>({0, 0, ATTEND_CAUSAL_BOTTOM_RIGHT});
  lend_workspace<float>(
      &options, [&](uint64_t *bytes) { return attend_attention_workspace(&q.t, &k.t, &v.t, &out.t, &options, bytes); });
  expect_none("attention of " + std::to_string(nq) + " queries, " + std::to_string(heads) + " heads, " +
                  std::to_string(nk) + " keys of " + std::to_string(d) + ", " + std::to_string(dv) + ", types " +
                  std::to_string(q.t.dtype) + std::to_string(k.t.dtype) + std::to_string(v.t.dtype) + ", " +
                  threads_of(1),
              [&] { return attend_attention(&q.t, &k.t, &v.t, &out.t, &options); });
}

void stored_matmul(Random &random, int64_t n) {
  const int64_t m = random.in(1, 150), k = random.one_in(4) ? random.in(500, 600) : random.in(1, 70);
  const Array a = stored(random, any_float(random), {m, k, 1, 1}, random.one_in(2)),
              b = stored(random, any_float(random), {k, n, 1, 1}), c = unwritten(any_float(random), {m, n, 1, 1});
  auto options = options_with<attend_matmul_options>(1);
  options.flags = random.one_in(2) ? ATTEND_NATIVE_DOT : 0;
  lend_workspace<float>(
      &options, [&](uint64_t *bytes) { return attend_matmul_workspace(1, &a.t, &b.t, 0, &c.t, &options, bytes); });
  expect_none("matmul of narrow types " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) +
                  ", types " + std::to_string(a.t.dtype) + std::to_string(b.t.dtype) + std::to_string(c.t.dtype) +
                  ", " + threads_of(1),
              [&] { return attend_matmul(1, &a.t, &b.t, 0, &c.t, &options); });
}

void stored_softmax(Random &random, int64_t n) {
  const int64_t m = random.one_in(4) ? random.in(500, 600) : random.in(1, 70);
  const uint32_t type = any_float(random);
  const bool turned = random.one_in(2);
  const Array x = stored(random, type, {m, n, 1, 1}, turned),
              y = unwritten(random.one_in(2) ? type : uint32_t{ATTEND_F32}, {m, n, 1, 1}, turned);
  auto options = options_with<attend_softmax_options>(1);
  lend_workspace<float>(&options,
                        [&](uint64_t *bytes) { return attend_softmax_workspace(&x.t, &y.t, &options, bytes); });
  expect_none("softmax of narrow types " + std::to_string(m) + " x " + std::to_string(n) + ", " + threads_of(1),
              [&] { return attend_softmax(&x.t, &y.t, &options); });
}

// Sanitizers look at addresses, which other tests bring before them: here a few of each are enough.
#if defined(ATTEND_TEST_SANITIZED)
constexpr int kFewer = 5;
#else
constexpr int kFewer = 1;
#endif

template <class T>
void every_call() {
  for_each_isa([] {
    Random random(sizeof(T) == 4 ? 1001 : 1002);
    for (int64_t m = 1; m <= 66; m += kFewer) {
      for (int round = 0; round < 4; ++round) softmax<T>(random, m, random.in(1, 40), 1);
    }
    for (const int64_t m : {127, 511, 512, 513, 1600}) {
      for (int round = 0; round < 8; round += kFewer)
        softmax<T>(random, m, random.in(1, 70), static_cast<int32_t>(random.in(1, 3)));
    }
    for (int round = 0; round < 4; ++round) softmax<T>(random, 66000 + random.in(0, 20000), 1, 1 + round % 3);
    for (const double level : {-1e5, -1e10, -1e20, -1e25, -1e30, -1e37}) low_column(static_cast<T>(level));
    for (int round = 0; round < 3; round += kFewer) softmax<T>(random, 1600, 1400, 2);  // written past the caches
    for (int64_t nq = 1; nq <= 36; nq += kFewer) {
      for (int round = 0; round < 4; ++round) {
        Problem<T> p(random, random.in(1, 40), nq);
        attention<T>(random, p, 1);
      }
    }
    for (int round = 0; round < 60; round += kFewer) {
      Problem<T> p(random);
      attention<T>(random, p, static_cast<int32_t>(random.in(1, 4)));
    }
    for (int round = 0; round < 60; round += kFewer) {
      const int64_t k = random.one_in(4) ? random.in(250, 700) : random.in(1, 40);
      matmul<T>(random, random.in(1, 70), random.one_in(4) ? 1 : random.in(1, 50), k,
                static_cast<int32_t>(random.in(1, 3)));
    }
    for (int round = 0; round < 10; round += kFewer)
      merge<T>(random, random.in(1, 40), random.in(1, 60), 1 + round % 2);
    for (int round = 0; round < 60; round += kFewer) append(random, 1 + round % 2);
    for (int64_t n = 1; sizeof(T) == 4 && n <= 20; n += kFewer) {
      for (int round = 0; round < 6; ++round) {
        stored_attention(random, n);
        if (n == 3 || n == 7) stored_attention(random, n, true);
        stored_matmul(random, n);
        stored_softmax(random, n);
      }
    }
    for (int round = 0; round < 20; round += kFewer) self_attention<T>(random, random.in(1, 80), 1 + round % 3);
  });
}

}  // namespace

TEST_CASE_TEMPLATE("finite numbers raise no invalid operation and no division by zero", T, float, double) {
  every_call<T>();
}

#if defined(__GLIBC__) && defined(__x86_64__)

// Worker threads have flags of their own, but the traps of the thread that starts them: in a process whose first call is
// made under traps, none of them may end it.
TEST_CASE("nor do the threads that a call starts") {
  constexpr int kNotStarted = 99;
  fflush(nullptr);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    char executable[4096] = "";
    const ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    setenv("ATTEND_FLOAT_FLAGS_TRAP", "1", 1);
    if (length > 0) execl(executable, executable, "-tc=*under traps*", nullptr);
    _exit(kNotStarted);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotStarted) {
    MESSAGE("not tested: without /proc, or under an emulator, this program cannot start itself");
  } else {
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE_TEMPLATE("the same under traps, in a process of its own", T, float, double) {
  if (std::getenv("ATTEND_FLOAT_FLAGS_TRAP") == nullptr) return;
  g_traps = true;
  signal(SIGFPE, [](int) {
    const ssize_t said = write(2, g_call, std::strlen(g_call)) + write(2, " trapped\n", 9);
    _exit(said > 0 ? 1 : 2);
  });
  every_call<T>();
}

#endif
