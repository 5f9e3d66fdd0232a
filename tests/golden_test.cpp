// Hashes of results that every platform with fused multiply-add must reproduce, bit by bit: inputs from integers alone,
// results over every instruction set and several numbers of threads. What passes through the C library's logarithm is
// left out where its last bit shows (log-sum-exp of f64). A hash may only change with attend_contract().
#include <functional>

#include "support.hpp"

using namespace attend::test;

namespace {

// FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/
template <class T>
uint64_t hash_of(const std::vector<T> &values) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const T value : values) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3u;
  }
  return hash;
}

// Multiples of 2^-10 in [-4, 4), the same everywhere.
template <class T>
struct Dense {
  std::vector<T> data;
  attend_tensor view;
  Dense(uint64_t seed, const Shape &shape, bool by_rows = false) : view{nullptr, kDtype<T>, 4, {}, {}} {
    int64_t count = 1;
    for (const size_t d : {size_t{by_rows}, size_t{!by_rows}, size_t{2}, size_t{3}}) {
      view.shape[d] = shape[d];
      view.stride[d] = count;
      count *= shape[d];
    }
    for (int64_t i = 0; i < count; ++i) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      data.push_back(static_cast<T>(static_cast<int64_t>(seed >> 51) - 4096) / 1024);
    }
    view.data = data.data();
  }
};

struct Product {
  int64_t m, n, k;
};

template <class T>
struct Golden {
  const char *what;
  uint64_t hash;
  std::function<std::vector<T>(int32_t threads)> compute;
};

template <class T>
std::vector<T> matmul(int64_t m, int64_t k, int64_t n, bool by_rows, int32_t threads) {
  Dense<T> a(1, {m, k, 2, 1}, by_rows), b(2, {k, n, 2, 1}), c(3, {m, n, 2, 1});
  attend_matmul_options options = {};
  options.size = sizeof options;
  options.threads = threads;
  REQUIRE(ok(attend_matmul(0.75, &a.view, &b.view, -0.5, &c.view, &options)));
  return c.data;
}

template <class T>
std::vector<T> softmax(int64_t m, int64_t n, bool by_rows, bool sums, int32_t threads) {
  Dense<T> x(4, {m, n, 1, 1}, by_rows), y(5, {m, n, 1, 1}, by_rows), lse(6, {1, n, 1, 1});
  attend_softmax_options options = {};
  options.size = sizeof options;
  options.threads = threads;
  options.scale = 1.5;
  options.lse = sums ? &lse.view : nullptr;
  REQUIRE(ok(attend_softmax(&x.view, &y.view, &options)));
  if (sums) y.data.insert(y.data.end(), lse.data.begin(), lse.data.end());
  return y.data;
}

template <class T>
std::vector<T> softmax_backward(int64_t m, int64_t n, bool by_rows, uint32_t flags, int32_t threads) {
  Dense<T> y(33, {m, n, 1, 1}, by_rows), d_y(34, {m, n, 1, 1}, by_rows), d_x(35, {m, n, 1, 1}, by_rows),
      d_lse(36, {1, n, 1, 1});
  attend_softmax_backward_options options = ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT;
  options.threads = threads;
  options.flags = flags;
  options.scale = 1.5;
  options.d_lse = &d_lse.view;
  REQUIRE(ok(attend_softmax_backward(&y.view, &d_y.view, &d_x.view, &options)));
  return d_x.data;
}

template <class T>
std::vector<T> attention(int64_t queries, int64_t keys, int64_t features, bool all, int32_t threads) {
  Dense<T> q(7, {features, queries, 4, 1}), k(8, {features, keys, 2, 1}), v(9, {features, keys, 2, 1}, all),
      out(10, {features, queries, 4, 1}), bias(11, {keys, queries, 1, 1}), slopes(12, {4, 1, 1, 1}),
      sinks(13, {4, 1, 1, 1});
  attend_attention_options options = {};
  options.size = sizeof options;
  options.threads = threads;
  if (all) {
    options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT | ATTEND_WINDOW;
    options.window_left = keys / 2;
    options.window_right = -1;
    options.softcap = 8;
    options.bias = &bias.view;
    options.alibi_slopes = &slopes.view;
    options.sinks = &sinks.view;
  }
  REQUIRE(ok(attend_attention(&q.view, &k.view, &v.view, &out.view, &options)));
  return out.data;
}

// d_q, d_k and d_v, one behind the other; of `all` options d_bias too.
template <class T>
std::vector<T> attention_backward(int64_t queries, int64_t keys, int64_t features, bool all, int32_t threads) {
  Dense<T> q(45, {features, queries, 4, 1}), k(46, {features, keys, 2, 1}), v(47, {features, keys, 2, 1}, all),
      out(48, {features, queries, 4, 1}), d_out(49, {features, queries, 4, 1}), d_q(50, {features, queries, 4, 1}),
      d_k(51, {features, keys, 2, 1}), d_v(52, {features, keys, 2, 1}), bias(53, {keys, queries, 1, 1}),
      d_bias(54, {keys, queries, 1, 1}), sinks(55, {4, 1, 1, 1});
  attend_attention_options forward = ATTEND_ATTENTION_OPTIONS_INIT;
  attend_attention_backward_options options = ATTEND_ATTENTION_BACKWARD_OPTIONS_INIT;
  options.threads = threads;
  if (all) {
    forward.flags = ATTEND_CAUSAL_BOTTOM_RIGHT;
    forward.softcap = 8;
    forward.bias = &bias.view;
    forward.sinks = &sinks.view;
    options.d_bias = &d_bias.view;
  }
  REQUIRE(ok(attend_attention(&q.view, &k.view, &v.view, &out.view, &forward)));
  REQUIRE(ok(attend_attention_backward(&q.view, &k.view, &v.view, &out.view, &d_out.view, &d_q.view, &d_k.view,
                                       &d_v.view, &options, &forward)));
  std::vector<T> gradients = d_q.data;
  for (const Dense<T> *g : {&d_k, &d_v}) gradients.insert(gradients.end(), g->data.begin(), g->data.end());
  if (all) gradients.insert(gradients.end(), d_bias.data.begin(), d_bias.data.end());
  return gradients;
}

template <class T>
std::vector<T> self_attention(int32_t threads) {
  Dense<T> x(14, {24, 37, 1, 1}), q(15, {8, 24, 3, 1}, true), k(16, {8, 24, 3, 1}, true), v(17, {8, 24, 3, 1}, true),
      o(18, {24, 8, 3, 1}, true), out(19, {24, 37, 1, 1});
  attend_self_attention_weights weights = {};
  weights.size = sizeof weights;
  weights.w_q = &q.view;
  weights.w_k = &k.view;
  weights.w_v = &v.view;
  weights.w_o = &o.view;
  attend_self_attention_options options = {};
  options.size = sizeof options;
  options.threads = threads;
  attend_attention_options inner = {};
  inner.size = sizeof inner;
  inner.flags = ATTEND_CAUSAL_TOP_LEFT;
  inner.scale = 0.01;
  REQUIRE(ok(attend_self_attention(&x.view, &weights, &out.view, &options, &inner)));
  return out.data;
}

template <class T>
std::vector<T> rotary(bool interleaved, int32_t threads) {
  Dense<T> x(41, {70, 60, 3, 2}), y(42, {70, 60, 3, 2}), cos(43, {32, 80, 1, 1}, true), sin(44, {32, 80, 1, 1}, true);
  const std::vector<int64_t> offsets = {7, 20};
  attend_rotary_options options = ATTEND_ROTARY_OPTIONS_INIT;
  options.threads = threads;
  options.rotary_dims = 64;
  options.offsets = offsets.data();
  options.flags = interleaved ? ATTEND_ROTARY_INTERLEAVED : ATTEND_ROTARY_INVERSE;
  REQUIRE(ok(attend_rotary(&x.view, &cos.view, &sin.view, &y.view, &options)));
  return y.data;
}

// The numbers of a Dense, in another type; of 8 bits the nearest of 32 times as much, or f8e4m3.
struct Narrow {
  std::vector<unsigned char> data;
  attend_tensor view;
  Narrow(uint32_t dtype, uint64_t seed, const Shape &shape, bool by_rows = false) : view{} {
    Dense<float> x(seed, shape, by_rows), scale(0, {1, 1, 1, 1});
    scale.data[0] = 1.0f / 32;
    data.resize(x.data.size() * (dtype == ATTEND_F32 || dtype == ATTEND_I32 ? 4 : dtype >= ATTEND_I8 ? 1 : 2));
    view = x.view;
    view.data = data.data();
    view.dtype = dtype;
    attend_convert_options options = ATTEND_CONVERT_OPTIONS_INIT;
    if (dtype == ATTEND_I8 || dtype == ATTEND_U8) options.scale = &scale.view;
    REQUIRE(ok(attend_convert(&x.view, &view, &options)));
  }
};
using Bytes = std::vector<unsigned char>;

Bytes narrow_matmul(uint32_t a, uint32_t b, uint32_t c, const Product &p, int32_t threads) {
  Narrow left(a, 21, {p.m, p.k, 2, 1}, true), right(b, 22, {p.k, p.n, 2, 1}), out(c, 23, {p.m, p.n, 2, 1});
  Dense<float> of_rows(24, {p.m, 1, 1, 1}), of_columns(25, {1, p.n, 2, 1});
  Narrow zero(ATTEND_I32, 26, {1, p.n, 1, 1});
  const bool scaled = c != ATTEND_I32, is_a = a >= ATTEND_I8, is_b = b >= ATTEND_I8;
  attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
  options.threads = threads;
  options.a_scale = scaled && is_a ? &of_rows.view : nullptr;
  options.b_scale = scaled && is_b ? &of_columns.view : nullptr;
  options.b_zero = is_a && b == ATTEND_I8 ? &zero.view : nullptr;
  REQUIRE(ok(attend_matmul(scaled ? 0.75 : 1, &left.view, &right.view, scaled ? -0.5 : 0, &out.view, &options)));
  return out.data;
}

Bytes narrow_softmax(uint32_t dtype, bool by_rows, int32_t threads) {
  Narrow x(dtype, 27, {600, 40, 1, 1}, by_rows), y(dtype, 28, {600, 40, 1, 1}, by_rows);
  attend_softmax_options options = ATTEND_SOFTMAX_OPTIONS_INIT;
  options.threads = threads;
  REQUIRE(ok(attend_softmax(&x.view, &y.view, &options)));
  return y.data;
}

Bytes narrow_attention(uint32_t dtype, uint32_t of_keys, int64_t queries, int64_t keys, int32_t threads) {
  Narrow q(dtype, 29, {40, queries, 4, 1}), k(of_keys, 30, {40, keys, 2, 1}), v(of_keys, 31, {40, keys, 2, 1}),
      out(dtype, 32, {40, queries, 4, 1});
  Dense<float> k_scale(33, {1, keys, 2, 1}), v_scale(34, {40, 1, 2, 1});
  attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
  options.threads = threads;
  if (of_keys >= ATTEND_I8) options.k_scale = &k_scale.view, options.v_scale = &v_scale.view;
  REQUIRE(ok(attend_attention(&q.view, &k.view, &v.view, &out.view, &options)));
  return out.data;
}

// The cache, and behind it the scales.
Bytes append(uint32_t from, uint32_t of_cache, bool interleaved, int32_t threads) {
  Narrow k(from, 35, {64, 90, 4, 2}), cache(of_cache, 36, {64, 120, 4, 2});
  Dense<float> cos(37, {32, 120, 1, 1}), sin(38, {32, 120, 1, 1}), scale(39, {1, 120, 4, 2});
  const std::vector<int64_t> offsets = {30, 2};
  attend_kv_append_options options = ATTEND_KV_APPEND_OPTIONS_INIT;
  options.threads = threads;
  options.offsets = offsets.data();
  options.cos = &cos.view;
  options.sin = &sin.view;
  options.flags = interleaved ? ATTEND_ROTARY_INTERLEAVED : 0;
  if (of_cache >= ATTEND_I8) options.k_scale = &scale.view, options.flags |= ATTEND_COMPUTE_K_SCALE;
  REQUIRE(ok(attend_kv_append(&k.view, nullptr, &cache.view, nullptr, &options)));
  const auto *const scales = reinterpret_cast<const unsigned char *>(scale.data.data());
  cache.data.insert(cache.data.end(), scales, scales + scale.data.size() * sizeof(float));
  return cache.data;
}

template <class T>
void compare(const std::vector<Golden<T>> &all) {
  for (const Golden<T> &golden : all) {
    for (int32_t i = 0; const char *name = attend_isa_name(i); ++i) {
      const std::string isa = name;
      if (!fuses(isa)) continue;
      REQUIRE(attend_set_isa(name) == ATTEND_OK);
      for (const int32_t threads : {1, 2, 5}) {
        INFO(std::string(golden.what) << " on " << isa << ", threads " << threads);
        CHECK(hash_of(golden.compute(threads)) == golden.hash);
      }
    }
  }
  attend_set_isa(nullptr);
}

}  // namespace

TEST_CASE("these are the hashes of contract 2") { CHECK(attend_contract() == 2); }

TEST_CASE("golden bits of f32") {
  using T = float;
  compare<T>({
      {"matmul 5 x 7 x 3", 0x14816ccc9ac4d5ecu, [](int32_t t) { return matmul<T>(5, 7, 3, false, t); }},
      {"matmul 65 x 700 x 33", 0x2e71ef10f6ae5e19u, [](int32_t t) { return matmul<T>(65, 700, 33, false, t); }},
      {"matmul 130 x 129 x 200", 0x2f2ee9300d449d7eu, [](int32_t t) { return matmul<T>(130, 129, 200, true, t); }},
      {"softmax 5 x 9, columns", 0xc36e49f032e3008eu, [](int32_t t) { return softmax<T>(5, 9, false, true, t); }},
      {"softmax 40 x 21, columns", 0xe6b90c6ed0d31fccu, [](int32_t t) { return softmax<T>(40, 21, false, true, t); }},
      {"softmax 1500 x 21, columns", 0x1d5d51a5522b080cu,
       [](int32_t t) { return softmax<T>(1500, 21, false, true, t); }},
      {"softmax 1100 x 300, rows", 0x01b8c8f149f9a2bcu, [](int32_t t) { return softmax<T>(1100, 300, true, true, t); }},
      {"softmax 200000 x 1", 0x3a7036ef2dcc7d15u, [](int32_t t) { return softmax<T>(200000, 1, false, true, t); }},
      {"softmax backward 40 x 21, columns", 0x2f183a36a476b289u,
       [](int32_t t) { return softmax_backward<T>(40, 21, false, ATTEND_ACCUMULATE, t); }},
      {"softmax backward 1500 x 41, columns, log", 0x6771c1eb8f8edb7eu,
       [](int32_t t) { return softmax_backward<T>(1500, 41, false, ATTEND_LOG, t); }},
      {"softmax backward 1100 x 600, rows", 0xa414f51067c9a3a0u,
       [](int32_t t) { return softmax_backward<T>(1100, 600, true, 0, t); }},
      {"attention 70 x 70 x 64", 0x2d3955678442d9cdu, [](int32_t t) { return attention<T>(70, 70, 64, false, t); }},
      {"attention 1 x 2100 x 40", 0xb6c4892ca0c45d84u, [](int32_t t) { return attention<T>(1, 2100, 40, false, t); }},
      {"attention 90 x 300 x 33, all", 0x16cf3cb17f0c8da2u,
       [](int32_t t) { return attention<T>(90, 300, 33, true, t); }},
      {"attention 2 x 40000 x 8", 0xc8b63d743069e0a3u, [](int32_t t) { return attention<T>(2, 40000, 8, false, t); }},
      {"attention 33 x 33000 x 5, all", 0xac691558bef2dd81u,
       [](int32_t t) { return attention<T>(33, 33000, 5, true, t); }},
      {"attention backward 70 x 2100 x 40", 0xb1a6e41fb9579dbbu,
       [](int32_t t) { return attention_backward<T>(70, 2100, 40, false, t); }},
      {"attention backward 150 x 300 x 33, all", 0x1e518652d4ea4c06u,
       [](int32_t t) { return attention_backward<T>(150, 300, 33, true, t); }},
      {"self-attention", 0x845340ec07726760u, [](int32_t t) { return self_attention<T>(t); }},
      {"rotary, halves, inverse", 0x0b816d6c6ebff4cau, [](int32_t t) { return rotary<T>(false, t); }},
      {"rotary, interleaved", 0xceeca875a5f8ef2bu, [](int32_t t) { return rotary<T>(true, t); }},
  });
}

TEST_CASE("golden bits of f64") {
  using T = double;
  compare<T>({
      {"matmul 5 x 7 x 3", 0xa890d748e73ece00u, [](int32_t t) { return matmul<T>(5, 7, 3, false, t); }},
      {"matmul 65 x 700 x 33", 0xad3955b3961c6c36u, [](int32_t t) { return matmul<T>(65, 700, 33, false, t); }},
      {"matmul 130 x 129 x 200", 0xe7a9303b1370bc73u, [](int32_t t) { return matmul<T>(130, 129, 200, true, t); }},
      {"softmax 5 x 9, columns", 0xd4b68b6149ac548du, [](int32_t t) { return softmax<T>(5, 9, false, false, t); }},
      {"softmax 40 x 21, columns", 0x9169f8ebac0551f4u, [](int32_t t) { return softmax<T>(40, 21, false, false, t); }},
      {"softmax 1500 x 21, columns", 0x3f19b6ffcf0b30b4u,
       [](int32_t t) { return softmax<T>(1500, 21, false, false, t); }},
      {"softmax 1100 x 300, rows", 0xaf9f12c523a8dc68u,
       [](int32_t t) { return softmax<T>(1100, 300, true, false, t); }},
      {"softmax 100000 x 1", 0xbd787e0d38d7d6c2u, [](int32_t t) { return softmax<T>(100000, 1, false, false, t); }},
      {"softmax backward 40 x 21, columns", 0x9f5b111b51ab0705u,
       [](int32_t t) { return softmax_backward<T>(40, 21, false, ATTEND_ACCUMULATE, t); }},
      {"softmax backward 1500 x 41, columns, log", 0x4a028140e5965021u,
       [](int32_t t) { return softmax_backward<T>(1500, 41, false, ATTEND_LOG, t); }},
      {"softmax backward 1100 x 600, rows", 0x506f1e2a0458c17du,
       [](int32_t t) { return softmax_backward<T>(1100, 600, true, 0, t); }},
      {"attention 70 x 70 x 64", 0x57ac2c648fb8df60u, [](int32_t t) { return attention<T>(70, 70, 64, false, t); }},
      {"attention 1 x 2100 x 40", 0xa04a10cb1ae30acau, [](int32_t t) { return attention<T>(1, 2100, 40, false, t); }},
      {"attention 90 x 300 x 33, all", 0x4797e6f1bb46e9b6u,
       [](int32_t t) { return attention<T>(90, 300, 33, true, t); }},
      {"attention 2 x 40000 x 8", 0x3974f391e123a06au, [](int32_t t) { return attention<T>(2, 40000, 8, false, t); }},
      {"attention 33 x 33000 x 5, all", 0xe6119fa55a86ee24u,
       [](int32_t t) { return attention<T>(33, 33000, 5, true, t); }},
      {"attention backward 70 x 2100 x 40", 0xcf74b907da58729du,
       [](int32_t t) { return attention_backward<T>(70, 2100, 40, false, t); }},
      {"attention backward 150 x 300 x 33, all", 0x26071108446cc351u,
       [](int32_t t) { return attention_backward<T>(150, 300, 33, true, t); }},
      {"self-attention", 0xc40ae7eb8d7343eau, [](int32_t t) { return self_attention<T>(t); }},
      {"rotary, halves, inverse", 0x6c2b697479a5538eu, [](int32_t t) { return rotary<T>(false, t); }},
      {"rotary, interleaved", 0xe925b03e914466edu, [](int32_t t) { return rotary<T>(true, t); }},
  });
}

TEST_CASE("golden bits of narrow types") {
  constexpr Product kSmall = {5, 3, 7}, kTall = {130, 2, 700}, kLarge = {130, 200, 1100};
  const auto product = [](uint32_t a, uint32_t b, uint32_t c, const Product &p) {
    return [=](int32_t t) { return narrow_matmul(a, b, c, p, t); };
  };
  const auto softmax_of = [](uint32_t dtype, bool by_rows) {
    return [=](int32_t t) { return narrow_softmax(dtype, by_rows, t); };
  };
  const auto attention_of = [](uint32_t dtype, uint32_t of_keys, int64_t queries, int64_t keys) {
    return [=](int32_t t) { return narrow_attention(dtype, of_keys, queries, keys, t); };
  };
  const auto append_to = [](uint32_t from, uint32_t of_cache, bool interleaved) {
    return [=](int32_t t) { return append(from, of_cache, interleaved, t); };
  };
  compare<unsigned char>({
      {"bf16 x f32, large", 0xe7a728b1744e3ea7u, product(ATTEND_BF16, ATTEND_F32, ATTEND_BF16, kLarge)},
      {"f16 x bf16, tall", 0xb8649d2e011ccf3du, product(ATTEND_F16, ATTEND_BF16, ATTEND_F32, kTall)},
      {"i8 x u8 to i32, small", 0x29e269b46e2d4b9au, product(ATTEND_I8, ATTEND_U8, ATTEND_I32, kSmall)},
      {"u8 x i8 to i32, large", 0xffd1a424e058cdfbu, product(ATTEND_U8, ATTEND_I8, ATTEND_I32, kLarge)},
      {"i8 x i8 to f32, large", 0xff11c9c8ebcea20au, product(ATTEND_I8, ATTEND_I8, ATTEND_F32, kLarge)},
      {"u8 x i8 to f16, tall", 0x2574cd8bb3e5ae1au, product(ATTEND_U8, ATTEND_I8, ATTEND_F16, kTall)},
      {"i8 x f32, tall", 0xff058c22724ad45bu, product(ATTEND_I8, ATTEND_F32, ATTEND_F32, kTall)},
      {"bf16 x i8, large", 0xd0ae334e7d7da70au, product(ATTEND_BF16, ATTEND_I8, ATTEND_BF16, kLarge)},
      {"softmax f16, columns", 0x3c87014ab6097931u, softmax_of(ATTEND_F16, false)},
      {"softmax bf16, rows", 0xdf5d431c223ef3e3u, softmax_of(ATTEND_BF16, true)},
      {"attention bf16", 0x11e314dd45b1f1c4u, attention_of(ATTEND_BF16, ATTEND_BF16, 70, 300)},
      {"attention f32, i8 keys", 0x457547df770e1c9cu, attention_of(ATTEND_F32, ATTEND_I8, 70, 300)},
      {"attention f16, f8e4m3 keys, decode", 0x56ab122a6321e131u, attention_of(ATTEND_F16, ATTEND_F8E4M3, 1, 2100)},
      {"append bf16 to bf16", 0xeb33cbe98e343ed3u, append_to(ATTEND_BF16, ATTEND_BF16, false)},
      {"append f32 to i8, interleaved", 0x0f276cb83ebb0113u, append_to(ATTEND_F32, ATTEND_I8, true)},
      {"append f16 to f8e4m3", 0x9d7433f570bcfb05u, append_to(ATTEND_F16, ATTEND_F8E4M3, false)},
  });
}
