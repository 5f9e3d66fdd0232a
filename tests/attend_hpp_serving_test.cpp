// attend/attend.hpp: rotary and kv_append, with the bits of the C calls; what does not fit.
#include <attend/attend.hpp>

#include "hpp/results.hpp"

using namespace attend::test;
using attend::tensor;

namespace {

// [batch, heads, tokens, features], and a cache with room for more.
constexpr int64_t kB = 2, kH = 3, kN = 4, kD = 6, kRoom = 9, kPositions = 12;

struct Numbers {
  std::vector<float> x = normals<float>(kB * kH * kN * kD, 901), v = normals<float>(kB * kH * kN * kD, 902);
  std::vector<float> cos = normals<float>(kPositions * kD / 2, 903), sin = normals<float>(kPositions * kD / 2, 904);
  std::vector<float> cache = std::vector<float>(kB * kH * kRoom * kD), v_cache = cache;
  attend_tensor c_view(const std::vector<float> &data, int64_t columns) const {
    return {const_cast<float *>(data.data()),
            ATTEND_F32,
            4,
            {kD, columns, kH, kB},
            {1, kD, columns * kD, kH * columns * kD}};
  }
  attend_tensor c_table(const std::vector<float> &data) const {
    return {const_cast<float *>(data.data()), ATTEND_F32, 2, {kD / 2, kPositions}, {1, kD / 2}};
  }
  template <class X>
  static auto view(X &x) {
    return tensor(x, {kB, kH, static_cast<int64_t>(x.size()) / (kB * kH * kD), kD});
  }
  auto of_cos() const { return tensor(cos, {kPositions, kD / 2}); }
  auto of_sin() const { return tensor(sin, {kPositions, kD / 2}); }
};

}  // namespace

TEST_CASE("attend.hpp: rotary") {
  const Numbers n;
  const std::vector<int64_t> offsets = {3, 8}, positions = {0, 11, 5, 5, 2, 7, 1, 3};
  const attend_tensor x = n.c_view(n.x, kN), cos = n.c_table(n.cos), sin = n.c_table(n.sin);
  std::vector<float> wanted(n.x.size()), mine(n.x.size());
  const attend_tensor y = n.c_view(wanted, kN);
  const auto expect = [&](const attend_rotary_options &c, const attend::rotary_options &o) {
    REQUIRE(ok(attend_rotary(&x, &cos, &sin, &y, &c)));
    attend::rotary(n.view(n.x), n.of_cos(), n.of_sin(), n.view(mine), o);
    CHECK(same_bits(mine, wanted));
    const attend::array<float> owned = attend::rotary(n.view(n.x), n.of_cos(), n.of_sin(), o);
    CHECK(same_bits(owned, wanted));
    CHECK(owned.extent(2) == kH);
    CHECK(attend::rotary_workspace(n.view(n.x), n.of_cos(), n.of_sin(), n.view(mine), o) == 0);
  };
  attend_rotary_options c = ATTEND_ROTARY_OPTIONS_INIT;
  expect(c, {});
  c.offsets = offsets.data();
  c.flags = ATTEND_ROTARY_INTERLEAVED;
  expect(c, attend::rotary_options().offsets(offsets).interleaved());
  c = ATTEND_ROTARY_OPTIONS_INIT;
  c.positions = positions.data();
  c.flags = ATTEND_ROTARY_INVERSE;
  expect(c, attend::rotary_options().positions(positions).inverse());

  const Thrown few =
      thrown([&] { attend::rotary(n.view(n.x), n.of_cos(), n.of_sin(), attend::rotary_options().positions(offsets)); });
  CHECK(few.reason == ATTEND_INVALID_SHAPE);
  CHECK(few.argument == "options.positions");
  CHECK(few.what.find("has 2 numbers, but the tokens are 8.") != std::string::npos);
  const Thrown many =
      thrown([&] { attend::rotary(n.view(n.x), n.of_cos(), n.of_sin(), attend::rotary_options().offsets(positions)); });
  CHECK(many.argument == "options.offsets");
  CHECK(many.what.find("has 8 numbers, but the batch is 2.") != std::string::npos);
  const Thrown dims =
      thrown([&] { attend::rotary(n.view(n.x), n.of_cos(), n.of_sin(), attend::rotary_options().rotary_dims(4)); });
  CHECK(dims.argument == "cos");
}

TEST_CASE("attend.hpp: packed sequences") {
  const int64_t tokens = kB * kN;
  const Numbers n;
  const std::vector<int64_t> starts = {0, 5, 5, tokens}, offsets = {1, 2, 3};
  const auto packed = [&](auto &data) { return tensor(data, {kH, tokens, kD}); };
  std::vector<float> wanted(n.x.size()), mine(n.x.size());
  attend_rotary_options c = ATTEND_ROTARY_OPTIONS_INIT;
  c.sequences = 3;
  c.starts = starts.data();
  c.offsets = offsets.data();
  const attend_tensor cos = n.c_table(n.cos), sin = n.c_table(n.sin);
  REQUIRE(ok(attend_rotary(&packed(n.x).c(), &cos, &sin, &packed(wanted).c(), &c)));
  attend::rotary(packed(n.x), n.of_cos(), n.of_sin(), packed(mine),
                 attend::rotary_options().starts(starts).offsets(offsets));
  CHECK(same_bits(mine, wanted));
  const std::vector<int64_t> none;
  CHECK(thrown([&] {
          attend::rotary(packed(n.x), n.of_cos(), n.of_sin(), attend::rotary_options().starts(none));
        }).argument == "options.sequences");
}

TEST_CASE("attend.hpp: kv_append") {
  Numbers wanted, mine;
  const std::vector<int64_t> offsets = {3, 5};
  attend_kv_append_options c = ATTEND_KV_APPEND_OPTIONS_INIT;
  const attend_tensor cos = wanted.c_table(wanted.cos), sin = wanted.c_table(wanted.sin);
  const attend_tensor k = wanted.c_view(wanted.x, kN), v = wanted.c_view(wanted.v, kN),
                      k_cache = wanted.c_view(wanted.cache, kRoom), v_cache = wanted.c_view(wanted.v_cache, kRoom);
  c.offsets = offsets.data();
  c.cos = &cos;
  c.sin = &sin;
  REQUIRE(ok(attend_kv_append(&k, &v, &k_cache, &v_cache, &c)));
  attend::kv_append(mine.view(mine.x), mine.view(mine.v), mine.view(mine.cache), mine.view(mine.v_cache),
                    attend::kv_append_options().offsets(offsets).rotary(mine.of_cos(), mine.of_sin()));
  CHECK(same_bits(mine.cache, wanted.cache));
  CHECK(same_bits(mine.v_cache, wanted.v_cache));

  // Keys alone, by slots and in pages: the same places.
  std::vector<int64_t> slots, positions;
  for (int64_t b = 0; b < kB; ++b) {
    for (int64_t i = 0; i < kN; ++i) {
      positions.push_back(offsets[static_cast<size_t>(b)] + i);
      slots.push_back(b * kRoom + positions.back());
    }
  }
  std::vector<float> by_slots(mine.cache.size()), by_pages = by_slots;
  const auto rotated = attend::kv_append_options().rotary(mine.of_cos(), mine.of_sin());
  std::vector<unsigned char> room(attend::kv_append_workspace(
      mine.view(mine.x), mine.view(by_slots), attend::kv_append_options(rotated).slots(slots).positions(positions)));
  CHECK(room.size() == 64 + 63);
  attend::kv_append(mine.view(mine.x), mine.view(by_slots),
                    attend::kv_append_options(rotated).slots(slots).positions(positions).workspace(room));
  CHECK(same_bits(by_slots, wanted.cache));
  const std::vector<std::int32_t> table = {0, 1};
  attend::kv_append(mine.view(mine.x), mine.view(by_pages),
                    attend::kv_append_options(rotated).offsets(offsets).pages(tensor(table, {kB, 1})));
  CHECK(same_bits(by_pages, wanted.cache));
  CHECK(attend::kv_append_workspace(mine.view(mine.x), mine.view(mine.v), mine.view(mine.cache),
                                    mine.view(mine.v_cache)) == 0);

  CHECK(thrown([&] {
          attend::kv_append(mine.view(mine.x), mine.view(by_slots), attend::kv_append_options().slots(offsets));
        }).what.find("has 2 numbers, but the tokens are 8.") != std::string::npos);
}

TEST_CASE("attend.hpp: kv_append quantises as convert does") {
  const Numbers n;
  std::vector<std::int8_t> cache(n.x.size()), wanted(n.x.size());
  std::vector<float> scale(kB * kH * kN), computed(scale.size());
  const auto of_scale = [](auto &data) { return tensor(data, {kB, kH, kN, 1}); };
  attend::convert(n.view(n.x), n.view(wanted), attend::convert_options().compute_scale(of_scale(scale)));
  attend::kv_append(n.view(n.x), n.view(cache), attend::kv_append_options().compute_k_scale(of_scale(computed)));
  CHECK(same_bits(cache, wanted));
  CHECK(same_bits(computed, scale));
  std::fill(cache.begin(), cache.end(), std::int8_t{0});
  std::vector<std::int8_t> v_cache = cache;
  attend::kv_append(n.view(n.x), n.view(n.x), n.view(cache), n.view(v_cache),
                    attend::kv_append_options().k_scale(of_scale(scale)).v_scale(of_scale(scale)));
  CHECK(same_bits(cache, wanted));
  CHECK(same_bits(v_cache, wanted));
  CHECK(thrown([&] { attend::kv_append(n.view(n.x), n.view(cache)); }).argument == "options.k_scale");
}
