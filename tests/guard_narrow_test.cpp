// No byte outside operands of the narrower types is read or written: as guard_pages_test.cpp, for elements of any size.
#include "arrays.hpp"
#include "guarded.hpp"

using namespace attend::test;

namespace {

constexpr uint32_t kFloats[] = {ATTEND_F32, ATTEND_BF16, ATTEND_F16};

// rows x columns x heads elements without gaps, rows or columns contiguous, between guards.
struct Between {
  Guarded<unsigned char> memory;
  attend_tensor view;
  Between(Random &random, uint32_t dtype, int64_t rows, int64_t columns, int64_t heads, const Place &at)
      : memory(rows * columns * heads * bytes_of_element(dtype), {at.end, at.offset * bytes_of_element(dtype)}),
        view{memory.data, dtype, 3, {rows, columns, heads, 0}, {1, rows, rows * columns, 0}} {
    if (random.one_in(2)) view.stride[0] = columns, view.stride[1] = 1;
  }
};

// test(place) for both guards, `count` times, now and then off the guard.
template <class F>
void each_place(Random &random, int count, const F &test) {
  for_each_isa([&] {
    for (int i = 0; i < count; ++i) test(Place{i % 2 == 0, random.one_in(3) ? random.in(1, 15) : 0});
  });
}

#if defined(ATTEND_TEST_SANITIZED)
constexpr int kTimes = 100;
#else
constexpr int kTimes = 600;
#endif

int64_t extent(Random &random) { return random.one_in(3) ? random.in(1, 8) : random.in(1, 70); }

}  // namespace

TEST_CASE("products of narrow types stay within their operands") {
  Random random(311);
  each_place(random, kTimes, [&](const Place &at) {
    const int64_t m = extent(random), n = extent(random), k = random.one_in(9) ? random.in(500, 600) : extent(random);
    const auto any = [&] { return kFloats[random.in(0, 2)]; };
    const auto integer = [&] { return random.pick<uint32_t>({ATTEND_I8, ATTEND_U8}); };
    uint32_t of_a = any(), of_b = any(), of_c = any();
    const int64_t kind = random.in(0, 4);
    if (kind == 0 && random.one_in(2)) of_a = of_b = ATTEND_BF16;
    if (kind == 1) of_a = integer(), of_b = integer(), of_c = ATTEND_I32;
    if (kind == 2) of_a = integer(), of_b = integer();
    if (kind == 3) of_a = ATTEND_I8;
    if (kind == 4) of_b = ATTEND_I8;
    Between a(random, of_a, m, k, 1, at), b(random, of_b, k, n, 1, at), c(random, of_c, m, n, 1, at);
    const uint32_t of_bias = kind == 1 ? of_c : any();
    Between bias(random, of_bias, m, 1, 1, at), scale(random, ATTEND_F32, 1, n, 1, at),
        zero(random, ATTEND_I32, m, 1, 1, at), row_scale(random, ATTEND_F32, m, 1, 1, at);
    std::fill_n(zero.memory.data, m * 4, static_cast<unsigned char>(0));
    attend_matmul_options o = ATTEND_MATMUL_OPTIONS_INIT;
    if (random.one_in(2)) o.flags = ATTEND_NATIVE_DOT;
    if (random.one_in(2)) o.bias = &bias.view;
    if (random.one_in(2) && (kind == 2 || kind == 4)) o.b_scale = &scale.view;
    if (random.one_in(2) && (kind == 2 || kind == 3)) o.a_scale = &row_scale.view;
    if (random.one_in(2) && (kind == 1 || kind == 2)) o.a_zero = &zero.view;
    const double beta = kind == 1 || random.one_in(2) ? 0 : 0.5;
    CHECK(ok(attend_matmul(1, &a.view, &b.view, beta, &c.view, &o)));
  });
}

// Rows a multiple of 4 KiB apart, which are read in whole lines, from a line's start and 16 bytes behind it.
TEST_CASE("thin products of narrow types stay within their operands") {
  Random random(313);
  for (const uint32_t dtype : {ATTEND_BF16, ATTEND_F16, ATTEND_I8}) {
    for (const int64_t m : {15, 19, 131}) {
      for (const int64_t n : {1, 2, 3, 4}) {
        const int64_t apart = 4096 / bytes_of_element(dtype),
                      skipped = (n == 1 ? 16 : random.pick<int64_t>({0, 16, 40})) / bytes_of_element(dtype);
        Between a(random, dtype, m, apart, 1, {true, 0}), b(random, ATTEND_F32, apart - skipped, n, 1, {true, 0}),
            c(random, ATTEND_F32, m, n, 1, {true, 0});
        a.view.data = a.memory.data + skipped * bytes_of_element(dtype);
        a.view.shape[1] -= skipped, a.view.stride[0] = apart, a.view.stride[1] = 1;
        INFO("type " << dtype << " m " << m << " n " << n << " skipped " << skipped);
        for_each_isa([&] { CHECK(ok(attend_matmul(1, &a.view, &b.view, 0, &c.view, nullptr))); });
      }
    }
  }
}

// Three columns are computed as four.
TEST_CASE("products of few columns by the CPU's dot products stay within their operands") {
  Random random(314);
  for (const int64_t m : {5, 131}) {
    for (const int64_t n : {1, 2, 3, 4}) {
      for (const int64_t k : {100, 128, 1057}) {
        Between a(random, ATTEND_BF16, m, k, 1, {true, 0}), b(random, ATTEND_BF16, k, n, 1, {true, 0}),
            c(random, ATTEND_F32, m, n, 1, {true, 0});
        a.view.stride[0] = k, a.view.stride[1] = 1;
        b.view.stride[0] = 1, b.view.stride[1] = k;
        attend_matmul_options o = ATTEND_MATMUL_OPTIONS_INIT;
        o.flags = ATTEND_NATIVE_DOT;
        INFO("m " << m << " n " << n << " k " << k);
        for_each_isa([&] { CHECK(ok(attend_matmul(1, &a.view, &b.view, 0, &c.view, &o))); });
      }
    }
  }
}

TEST_CASE("softmax of narrow types stays within its operands") {
  Random random(312);
  each_place(random, kTimes, [&](const Place &at) {
    const int64_t m = extent(random), n = extent(random);
    const uint32_t dtype = random.pick<uint32_t>({ATTEND_BF16, ATTEND_F16});
    Between x(random, dtype, m, n, 1, at), y(random, random.pick<uint32_t>({dtype, ATTEND_F32}), m, n, 1, at);
    CHECK(ok(attend_softmax(&x.view, &y.view, nullptr)));
  });
}

TEST_CASE("softmax backward of narrow types stays within its operands") {
  Random random(315);
  each_place(random, kTimes, [&](const Place &at) {
    const int64_t m = extent(random), n = extent(random);
    const auto any = [&] { return kFloats[random.in(0, 2)]; };
    Between y(random, any(), m, n, 1, at), d_y(random, any(), m, n, 1, at), d_x(random, any(), m, n, 1, at);
    attend_softmax_backward_options options = ATTEND_SOFTMAX_BACKWARD_OPTIONS_INIT;
    options.flags = random.pick<uint32_t>({0, ATTEND_LOG, ATTEND_ACCUMULATE});
    CHECK(ok(attend_softmax_backward(&y.view, &d_y.view, &d_x.view, &options)));
  });
}

TEST_CASE("attention of narrow types stays within its operands") {
  Random random(313);
  each_place(random, kTimes / 2, [&](const Place &at) {
    const int64_t features = random.in(1, 40), of_values = random.in(1, 40), heads = random.in(1, 4);
    const int64_t queries = random.one_in(2) ? random.in(1, 4) : random.in(5, 70), keys = random.in(1, 90);
    const auto any = [&] { return kFloats[random.in(0, 2)]; };
    const auto of_cache = [&] { return random.pick<uint32_t>({ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3}); };
    Between q(random, any(), features, queries, heads, at), out(random, any(), of_values, queries, heads, at);
    Between k(random, of_cache(), features, keys, 1, at), v(random, of_cache(), of_values, keys, 1, at);
    Between k_scale(random, ATTEND_F32, 1, keys, 1, at), v_scale(random, ATTEND_F32, of_values, 1, 1, at);
    attend_attention_options o = ATTEND_ATTENTION_OPTIONS_INIT;
    if (k.view.dtype == ATTEND_I8 || (k.view.dtype == ATTEND_F8E4M3 && random.one_in(2))) o.k_scale = &k_scale.view;
    if (v.view.dtype == ATTEND_I8 || (v.view.dtype == ATTEND_F8E4M3 && random.one_in(2))) o.v_scale = &v_scale.view;
    CHECK(ok(attend_attention(&q.view, &k.view, &v.view, &out.view, &o)));
  });
}

TEST_CASE("conversion stays within its operands") {
  Random random(314);
  each_place(random, kTimes, [&](const Place &at) {
    const auto any = [&] {
      return random.pick<uint32_t>(
          {ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_U8, ATTEND_I32, ATTEND_F8E4M3});
    };
    const int64_t m = extent(random), n = extent(random);
    Between x(random, any(), m, n, 1, at), y(random, any(), m, n, 1, at), scale(random, ATTEND_F32, 1, n, 1, at);
    attend_convert_options o = ATTEND_CONVERT_OPTIONS_INIT;
    if (y.view.dtype == ATTEND_I8 && x.view.dtype <= ATTEND_F16 && random.one_in(2)) {
      o.scale = &scale.view;
      o.flags = ATTEND_COMPUTE_SCALE;
    }
    CHECK(ok(attend_convert(&x.view, &y.view, &o)));
  });
}

TEST_CASE("rotation stays within its operands") {
  Random random(315);
  each_place(random, kTimes, [&](const Place &at) {
    const auto any = [&] { return kFloats[random.in(0, 2)]; };
    const int64_t features = random.one_in(20) ? random.in(760, 800) : extent(random) + 1, heads = random.in(1, 4),
                  n = extent(random), dims = 2 * random.in(1, features / 2);
    Between x(random, any(), features, n, heads, at), y(random, any(), features, n, heads, at);
    Between cos(random, any(), dims / 2, n, 1, at), sin(random, any(), dims / 2, n, 1, at);
    attend_rotary_options o = ATTEND_ROTARY_OPTIONS_INIT;
    o.rotary_dims = dims;
    if (random.one_in(2)) o.flags = ATTEND_ROTARY_INTERLEAVED;
    CHECK(ok(attend_rotary(&x.view, &cos.view, &sin.view, &y.view, &o)));
  });
}

TEST_CASE("appending stays within its operands") {
  Random random(316);
  each_place(random, kTimes, [&](const Place &at) {
    const auto any = [&] { return kFloats[random.in(0, 2)]; };
    const auto of_cache = [&] {
      return random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3});
    };
    const int64_t features = random.one_in(20) ? random.in(760, 800) : extent(random), values = extent(random),
                  heads = random.in(1, 4), n = extent(random);
    Between k(random, any(), features, n, heads, at), v(random, any(), values, n, heads, at);
    Between k_cache(random, of_cache(), features, n, heads, at), v_cache(random, of_cache(), values, n, heads, at);
    Between k_scale(random, ATTEND_F32, 1, n, heads, at), v_scale(random, ATTEND_F32, 1, n, heads, at);
    Between cos(random, any(), features / 2, n, 1, at), sin(random, any(), features / 2, n, 1, at);
    Guarded<int64_t> slots(n, at), positions(n, at);
    Guarded<int32_t> pages(n, at);
    attend_kv_append_options o = ATTEND_KV_APPEND_OPTIONS_INIT;
    const auto scaled = [&](const Between &cache) {
      return cache.view.dtype == ATTEND_I8 || cache.view.dtype == ATTEND_F8E4M3;
    };
    if (scaled(k_cache)) o.k_scale = &k_scale.view, o.flags |= ATTEND_COMPUTE_K_SCALE;
    if (scaled(v_cache)) o.v_scale = &v_scale.view, o.flags |= ATTEND_COMPUTE_V_SCALE;
    for (int64_t t = 0; t < n; ++t) slots.data[t] = n - 1 - t, positions.data[t] = t;
    for (int64_t t = 0; t < n; ++t) pages.data[t] = static_cast<int32_t>(n - 1 - t);
    const attend_tensor table = {pages.data, ATTEND_I32, 1, {n}, {1}};
    const int64_t kind = random.in(0, 2);
    if (kind == 1) o.slots = slots.data;
    if (kind == 2 && heads == 1) {  // pages of one column: the same memory, its columns the pages
      for (Between *b : {&k_cache, &v_cache, &k_scale, &v_scale}) {
        b->view.rank = 4;
        b->view.shape[1] = 1;
        b->view.shape[3] = n;
        b->view.stride[3] = b->view.stride[1];
      }
      o.pages = &table;
    }
    if (features % 2 == 0 && random.one_in(2)) {
      o.cos = &cos.view, o.sin = &sin.view;
      if (kind == 1) o.positions = positions.data;
      if (random.one_in(2)) o.flags |= ATTEND_ROTARY_INTERLEAVED;
    }
    CHECK(ok(attend_kv_append(&k.view, &v.view, &k_cache.view, &v_cache.view, &o)));
  });
}
