// attend_kv_append against the formula, bit by bit: where each token goes, what is made of it, and that all else stays.
#include "rotary_model.hpp"
#include "tables.hpp"

using namespace attend::test;

namespace {

bool has_scale(uint32_t dtype) { return dtype == ATTEND_I8 || dtype == ATTEND_F8E4M3; }

uint32_t bits_of(Stored &s, int64_t i, int64_t j, int64_t h, int64_t b) {
  if (s.dtype() != ATTEND_F32) return s.bits(i, j, h, b);
  uint32_t bits = 0;
  std::memcpy(&bits, &s.numbers.at(i, j, h, b), sizeof bits);
  return bits;
}
uint32_t bits_as(uint32_t dtype, float value) {
  if (dtype != ATTEND_F32) return nearest_in(dtype, static_cast<double>(value));
  uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

enum class Cache { columns, pages, slots };

// One of K and V: what goes in, what it goes into, and its scale.
struct Side {
  Stored from, cache;
  Operand<float> scale;
  bool computes, scaled;

  Side(Random &random, const Shape &shape, const Shape &of_cache, uint32_t type, bool computes_scale)
      : from(any_float(random), shape, Operand<float>::random_input_layout(random, 1)),
        cache(type, of_cache, Operand<float>::random_layout(random)),
        scale(scale_shape(random, of_cache, computes_scale), Operand<float>::random_layout(random)),
        computes(computes_scale),
        scaled(computes_scale || type == ATTEND_I8 || (type == ATTEND_F8E4M3 && random.one_in(2))) {
    from.fill(random, random.one_in(9) ? 0 : 3);
    cache.fill(random, 20);
    scale.each([&](float &s, auto...) { s = static_cast<float>(0.01 + std::fabs(random.normal()) / 20); });
  }
  static Shape scale_shape(Random &random, const Shape &cache, bool computes) {
    if (computes) return {1, cache[1], cache[2], cache[3]};
    Shape s = cache;
    s[random.one_in(2) ? 1 : 0] = 1;
    for (int64_t &extent : s) extent = random.one_in(4) ? 1 : extent;
    return s;
  }
  float &scale_at(Operand<float> &s, int64_t i, int64_t j, int64_t h, int64_t b) const {
    const Shape &n = s.shape();
    return s.at(n[0] == 1 ? 0 : i, n[1] == 1 ? 0 : j, n[2] == 1 ? 0 : h, n[3] == 1 ? 0 : b);
  }
  // What a line becomes at its place in the copies `to` and `to_scale`, whether or not it is there already.
  size_t wrong(std::vector<float> line, Stored &to, Operand<float> &to_scale, int64_t j, int64_t h, int64_t b) const {
    size_t count = 0;
    float most = 0;
    for (const float v : line) most = std::max(most, std::fabs(v));
    if (computes) {
      const float largest = to.dtype() == ATTEND_I8 ? 127.0f : 448.0f;
      count += to_scale.at(0, j, h, b) != (most == 0 ? 1 : most / largest);
    }
    for (int64_t i = 0; i < static_cast<int64_t>(line.size()); ++i) {
      float v = line[static_cast<size_t>(i)];
      if (scaled) v /= scale_at(to_scale, i, j, h, b);
      if (to.dtype() == ATTEND_I8) v = std::clamp(v, -127.0f, 127.0f);
      count += bits_of(to, i, j, h, b) != bits_as(to.dtype(), v);
    }
    return count;
  }
};

struct Problem {
  TestTokens tokens;
  Cache kind;
  int64_t heads, features, values, dims = 0, positions = 0;
  bool interleaved = false, has_v, packs;
  Shape cache;  // but for rows
  std::vector<int64_t> offsets, slots, at;
  std::vector<int32_t> pages;
  int64_t most_pages = 0;

  explicit Problem(Random &random) : tokens(TestTokens::random(random)) {
    kind = random.pick({Cache::columns, Cache::pages, Cache::slots});
    heads = random.in(1, 4);
    features = random.one_in(20) ? random.in(770, 900) : random.in(2, 140);
    values = random.one_in(20) ? random.in(770, 900) : random.in(1, 140);
    has_v = !random.one_in(4);
    const int64_t sequences = tokens.sequences();
    if (kind == Cache::columns) {
      cache = {0, tokens.longest() + random.in(0, 9), heads, sequences};
      for (int64_t b = 0; b < sequences; ++b) offsets.push_back(random.in(0, cache[1] - tokens.length(b)));
    } else if (kind == Cache::pages) {
      const int64_t page = random.pick<int64_t>({1, 3, 4, 16});
      most_pages = (tokens.longest() + 9) / page + 2;
      // Each page of the pool once, in any order; those that no new token needs out of range.
      std::vector<int32_t> free(static_cast<size_t>(most_pages * sequences + 2));
      std::iota(free.begin(), free.end(), 0);
      for (size_t i = free.size(); i > 1; --i)
        std::swap(free[i - 1], free[static_cast<size_t>(random.in(0, static_cast<int64_t>(i) - 1))]);
      cache = {0, page, heads, static_cast<int64_t>(free.size())};
      for (int64_t b = 0; b < sequences; ++b) {
        const int64_t offset = random.in(0, most_pages * page - tokens.length(b));
        offsets.push_back(offset);
        for (int64_t i = 0; i < most_pages; ++i) {
          const bool needed = (i + 1) * page > offset && i * page < offset + tokens.length(b);
          pages.push_back(needed ? free.back() : random.pick<int32_t>({-1, INT32_MIN, INT32_MAX}));
          free.pop_back();
        }
      }
    } else {
      cache = {0, random.in(1, 20), heads, 0};
      cache[3] = tokens.count() / cache[1] + random.in(1, 3);
      std::vector<int64_t> free(static_cast<size_t>(cache[1] * cache[3]));
      std::iota(free.begin(), free.end(), 0);
      const bool in_order = random.one_in(2);
      for (size_t i = free.size(); !in_order && i > 1; --i)
        std::swap(free[i - 1], free[static_cast<size_t>(random.in(0, static_cast<int64_t>(i) - 1))]);
      for (int64_t t = 0; t < tokens.count(); ++t)
        slots.push_back(random.one_in(5) ? -1 : free[static_cast<size_t>(t)]);
    }
    if (kind != Cache::slots && random.one_in(5)) {
      const bool fits = std::all_of(offsets.begin(), offsets.end(), [](int64_t o) { return o == 0; });
      if (fits) offsets.clear();
    }
    if (random.one_in(3)) return;
    dims = 2 * random.in(1, features / 2);
    if (features % 2 == 0 && random.one_in(2)) dims = features;
    interleaved = random.one_in(2);
    if (kind == Cache::slots || random.one_in(3)) {
      positions = random.in(1, 50);
      for (int64_t t = 0; t < tokens.count(); ++t) {
        const bool skipped = kind == Cache::slots && slots[static_cast<size_t>(t)] == -1;
        at.push_back(skipped ? INT64_MIN : random.in(0, positions - 1));
      }
    } else {
      for (int64_t b = 0; b < sequences; ++b) positions = std::max(positions, offset(b) + tokens.length(b));
    }
  }
  int64_t offset(int64_t sequence) const { return offsets.empty() ? 0 : offsets[static_cast<size_t>(sequence)]; }
  Shape of(int64_t rows) const { return {rows, tokens.columns, heads, tokens.batches}; }
  Shape of_cache(int64_t rows) const { return {rows, cache[1], cache[2], cache[3]}; }
  // f(token's column and batch in k, its sequence and position, its column and batch in the cache)
  template <class F>
  void each_move(const F &f) const {
    for_each_token(tokens, [&](int64_t token, int64_t j, int64_t b, int64_t sequence, int64_t number) {
      const int64_t column = kind == Cache::slots ? 0 : offset(sequence) + number;
      const int64_t position = dims == 0 ? 0 : at.empty() ? column : at[static_cast<size_t>(token)];
      if (kind == Cache::columns) return f(j, b, sequence, position, column, sequence);
      if (kind == Cache::pages) {
        const int32_t page = pages[static_cast<size_t>(sequence * most_pages + column / cache[1])];
        return f(j, b, sequence, position, column % cache[1], static_cast<int64_t>(page));
      }
      const int64_t slot = slots[static_cast<size_t>(token)];
      if (slot >= 0) f(j, b, sequence, position, slot % cache[1], slot / cache[1]);
    });
  }
};

// What a call takes besides K and V.
struct Arguments {
  attend_kv_append_options options = ATTEND_KV_APPEND_OPTIONS_INIT;
  attend_tensor pages;

  explicit Arguments(Problem &p, int32_t threads) : pages{} {
    options.threads = threads;
    if (!p.tokens.starts.empty()) options.sequences = p.tokens.sequences(), options.starts = p.tokens.starts.data();
    if (!p.offsets.empty()) options.offsets = p.offsets.data();
    if (!p.slots.empty()) options.slots = p.slots.data();
    if (!p.at.empty()) options.positions = p.at.data();
    if (p.kind == Cache::pages) {
      pages = {p.pages.data(), ATTEND_I32, 2, {p.most_pages, p.tokens.sequences()}, {1, p.most_pages}};
      options.pages = &pages;
    }
    if (p.interleaved) options.flags |= ATTEND_ROTARY_INTERLEAVED;
    if (p.dims != p.features) options.rotary_dims = p.dims;
  }
  Arguments(const Arguments &) = delete;
  Arguments &operator=(const Arguments &) = delete;
};

}  // namespace

TEST_CASE("kv_append: every kind of cache, type, layout and scale, and nothing else is written") {
  Random random(721);
  for (int round = 0; round < rounds(400, 20000); ++round) {
    Problem p(random);
    const auto type = [&] {
      return random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3});
    };
    const uint32_t of_k = type(), of_v = type();
    Side k(random, p.of(p.features), p.of_cache(p.features), of_k, has_scale(of_k) && random.one_in(2)),
        v(random, p.of(p.values), p.of_cache(p.values), of_v, has_scale(of_v) && random.one_in(2));
    const Shape of_table = {p.dims / 2, p.positions, random.one_in(4) ? p.heads : 1,
                            random.one_in(4) ? p.tokens.sequences() : 1};
    Stored cos(any_float(random), of_table, Operand<float>::random_input_layout(random)),
        sin(any_float(random), of_table, Operand<float>::random_input_layout(random));
    cos.fill(random);
    sin.fill(random);
    Arguments a(p, static_cast<int32_t>(random.in(1, 3)));
    if (p.dims != 0) a.options.cos = cos.tensor(), a.options.sin = sin.tensor();
    if (k.computes) a.options.flags |= ATTEND_COMPUTE_K_SCALE;
    if (v.computes && p.has_v) a.options.flags |= ATTEND_COMPUTE_V_SCALE;
    INFO("kind " << static_cast<int>(p.kind) << ", " << p.features << " and " << p.values << " features, " << p.dims
                 << " rotated, " << p.tokens.count() << " tokens, from " << k.from.dtype() << " to " << of_k
                 << ", flags " << a.options.flags);
    for_each_table([&](const std::string &, const std::string &group) {
      Stored k_cache = k.cache, v_cache = v.cache;
      Operand<float> k_scale = k.scale, v_scale = v.scale;
      a.options.k_scale = k.scaled ? k_scale.tensor() : nullptr;
      a.options.v_scale = v.scaled && p.has_v ? v_scale.tensor() : nullptr;
      REQUIRE(ok(attend_kv_append(k.from.tensor(), p.has_v ? v.from.tensor() : nullptr, k_cache.tensor(),
                                  p.has_v ? v_cache.tensor() : nullptr, &a.options)));
      CHECK(k_cache.gaps_untouched());
      CHECK(v_cache.gaps_untouched());
      CHECK(k_scale.gaps_untouched());
      CHECK(v_scale.gaps_untouched());
      size_t wrong = 0;
      p.each_move([&](int64_t j, int64_t b, int64_t sequence, int64_t position, int64_t column, int64_t batch) {
        for (int64_t h = 0; h < p.heads; ++h) {
          std::vector<float> line, of_values;
          for (int64_t i = 0; i < p.features; ++i) line.push_back(k.from.numbers.at(i, j, h, b));
          const auto number_of = [&](Stored &table) {
            return [&, h, position, sequence](int64_t i) {
              return table.numbers.at(i, position, of_table[2] == 1 ? 0 : h, of_table[3] == 1 ? 0 : sequence);
            };
          };
          rotate_line(&line, p.dims / 2, p.interleaved, false, group == "FMA", number_of(cos), number_of(sin));
          wrong += k.wrong(line, k_cache, k_scale, column, h, batch);
          if (!p.has_v) continue;
          for (int64_t i = 0; i < p.values; ++i) of_values.push_back(v.from.numbers.at(i, j, h, b));
          wrong += v.wrong(of_values, v_cache, v_scale, column, h, batch);
        }
      });
      CHECK(wrong == 0);
      // Put back what was named; then all is as before.
      p.each_move([&](int64_t, int64_t, int64_t, int64_t, int64_t column, int64_t batch) {
        for (int64_t h = 0; h < p.heads; ++h) {
          k_cache.copy_column(k.cache, column, h, batch);
          v_cache.copy_column(v.cache, column, h, batch);
          if (k.computes) k_scale.at(0, column, h, batch) = k.scale.at(0, column, h, batch);
          if (v.computes) v_scale.at(0, column, h, batch) = v.scale.at(0, column, h, batch);
        }
      });
      CHECK(k_cache.same_memory(k.cache));
      CHECK(v_cache.same_memory(v.cache));
      CHECK(k_scale.same_memory(k.scale));
      CHECK(v_scale.same_memory(v.scale));
    });
  }
}

TEST_CASE("kv_append: f64") {
  Random random(722);
  for (int round = 0; round < rounds(100, 4000); ++round) {
    Problem p(random);
    using Values = Operand<double>;
    Values k(p.of(p.features), Values::random_input_layout(random, 1)),
        v(p.of(p.values), Values::random_layout(random)),
        k_cache(p.of_cache(p.features), Values::random_layout(random)),
        v_cache(p.of_cache(p.values), Values::random_layout(random));
    Values cos({p.dims / 2, p.positions, 1, 1}, Values::random_input_layout(random)), sin = cos;
    for (Values *o : {&k, &v, &k_cache, &v_cache, &cos, &sin}) o->fill(random);
    Arguments a(p, static_cast<int32_t>(random.in(1, 3)));
    if (p.dims != 0) a.options.cos = cos.tensor(), a.options.sin = sin.tensor();
    for_each_table([&](const std::string &, const std::string &group) {
      Values got_k = k_cache, got_v = v_cache, want_k = k_cache, want_v = v_cache;
      p.each_move([&](int64_t j, int64_t b, int64_t, int64_t position, int64_t column, int64_t batch) {
        for (int64_t h = 0; h < p.heads; ++h) {
          std::vector<double> line;
          for (int64_t i = 0; i < p.features; ++i) line.push_back(k.at(i, j, h, b));
          rotate_line(
              &line, p.dims / 2, p.interleaved, false, group == "FMA", [&](int64_t i) { return cos.at(i, position); },
              [&](int64_t i) { return sin.at(i, position); });
          for (int64_t i = 0; i < p.features; ++i) want_k.at(i, column, h, batch) = line[static_cast<size_t>(i)];
          for (int64_t i = 0; i < p.values; ++i) want_v.at(i, column, h, batch) = v.at(i, j, h, b);
        }
      });
      REQUIRE(ok(attend_kv_append(k.tensor(), v.tensor(), got_k.tensor(), got_v.tensor(), &a.options)));
      CHECK(got_k.same_memory(want_k));
      CHECK(got_v.same_memory(want_v));
    });
  }
}

// Large enough for several tasks of several threads, at the sizes of models.
TEST_CASE("kv_append: one pass has the bits of rotary, then convert, for any number of threads") {
  const int64_t d = 128, n = 70, heads = 8, capacity = 100;
  auto cos = drawn<float>({d / 2, capacity, 1, 1}, 731), sin = drawn<float>({d / 2, capacity, 1, 1}, 732);
  Random random(733);
  for (const uint32_t type : {ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3}) {
    Stored k(ATTEND_BF16, {d, n, heads, 2}, {}), rotated(ATTEND_F32, {d, n, heads, 2}, {});
    k.fill(random, 3);
    const Stored empty(type, {d, capacity, heads, 2}, {});
    const Operand<float> no_scale({1, capacity, heads, 2}, {});
    const std::vector<int64_t> offsets = {30, 0};
    for_each_isa([&] {
      attend_rotary_options rotary = options_with<attend_rotary_options>(1);
      rotary.offsets = offsets.data();
      REQUIRE(ok(attend_rotary(k.tensor(), cos.tensor(), sin.tensor(), rotated.tensor(), &rotary)));
      Stored two_steps(type, {d, n, heads, 2}, {});
      Operand<float> scale({1, n, heads, 2}, {});
      attend_convert_options convert = options_with<attend_convert_options>(1);
      if (has_scale(type)) convert.scale = scale.tensor(), convert.flags = ATTEND_COMPUTE_SCALE;
      REQUIRE(ok(attend_convert(rotated.tensor(), two_steps.tensor(), &convert)));
      for (const int32_t threads : {1, 2, 5}) {
        INFO("type " << type << " threads " << threads);
        Stored cache = empty;
        Operand<float> of_cache = no_scale;
        attend_kv_append_options o = options_with<attend_kv_append_options>(threads);
        o.offsets = offsets.data();
        o.cos = cos.tensor();
        o.sin = sin.tensor();
        if (has_scale(type)) o.k_scale = of_cache.tensor(), o.flags = ATTEND_COMPUTE_K_SCALE;
        REQUIRE(ok(attend_kv_append(k.tensor(), nullptr, cache.tensor(), nullptr, &o)));
        size_t wrong = 0;
        two_steps.numbers.each([&](float &, int64_t i, int64_t j, int64_t h, int64_t b) {
          const int64_t column = offsets[static_cast<size_t>(b)] + j;
          wrong += two_steps.bits(i, j, h, b) != cache.bits(i, column, h, b);
          if (has_scale(type)) wrong += scale.at(0, j, h, b) != of_cache.at(0, column, h, b);
        });
        CHECK(wrong == 0);
      }
    });
  }
}

TEST_CASE("kv_append: numbers that are none") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> k = {1, -254, nan, 3}, all_nan(4, nan), infinite = {1, 2, -inf, 4};
  std::vector<int8_t> bytes(4);
  float scale = 0;
  const attend_tensor cache = {bytes.data(), ATTEND_I8, 2, {4, 1}, {1, 4}},
                      of_scale = {&scale, ATTEND_F32, 2, {1, 1}, {1, 1}};
  attend_kv_append_options o = options_with<attend_kv_append_options>(1);
  o.flags = ATTEND_COMPUTE_K_SCALE;
  o.k_scale = &of_scale;
  for_each_isa([&] {
    const auto append = [&](std::vector<float> &from) {
      const attend_tensor x = {from.data(), ATTEND_F32, 2, {4, 1}, {1, 4}};
      CHECK(ok(attend_kv_append(&x, nullptr, &cache, nullptr, &o)));
    };
    append(k);
    CHECK(scale == 2);
    CHECK(bytes == std::vector<int8_t>{0, -127, 0, 2});
    append(all_nan);
    CHECK(scale == 1);
    CHECK(bytes == std::vector<int8_t>(4, 0));
    append(infinite);
    CHECK(scale == inf);
    CHECK(bytes == std::vector<int8_t>(4, 0));
  });
}

TEST_CASE("kv_append: K and V interleaved in one allocation, as pools of servers are") {
  // (2, D, page, heads, pages) with K and V beside each other in each page.
  const int64_t d = 3, page = 4, heads = 2, pages = 3, one = d * heads * page;
  std::vector<float> pool(static_cast<size_t>(2 * one * pages), 77);
  const attend_tensor k_cache = {pool.data(), ATTEND_F32, 4, {d, page, heads, pages}, {1, d * heads, d, 2 * one}};
  attend_tensor v_cache = k_cache;
  v_cache.data = pool.data() + one;
  auto k = drawn<float>({d, 2, heads, 1}, 741), v = drawn<float>({d, 2, heads, 1}, 742);
  const std::vector<int64_t> slots = {5, 8};
  attend_kv_append_options o = options_with<attend_kv_append_options>(1);
  o.slots = slots.data();
  REQUIRE(ok(attend_kv_append(k.tensor(), v.tensor(), &k_cache, &v_cache, &o)));
  size_t written = 0;
  for (size_t s = 0; s < slots.size(); ++s) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < d; ++i) {
        const auto at = static_cast<size_t>(slots[s] / page * 2 * one + (slots[s] % page * heads + h) * d + i);
        CHECK(pool[at] == k.at(i, static_cast<int64_t>(s), h));
        CHECK(pool[at + static_cast<size_t>(one)] == v.at(i, static_cast<int64_t>(s), h));
      }
    }
  }
  for (const float x : pool) written += x != 77;
  CHECK(written == 2 * 2 * d * heads);
}
