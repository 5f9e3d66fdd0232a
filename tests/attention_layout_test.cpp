// What attend.h says of masks and layouts: padded keys, and windows of images, whose mask repeats.
#include <vector>

#include "support.hpp"

using namespace attend::test;

namespace {

template <class T>
attend_tensor tensor(std::vector<T> &data, const Shape &shape, const Shape &stride) {
  attend_tensor t = {data.data(), sizeof(T) == 1 ? uint32_t{ATTEND_BOOL} : kDtype<T>, 4, {}, {}};
  std::copy(shape.begin(), shape.end(), t.shape);
  std::copy(stride.begin(), stride.end(), t.stride);
  return t;
}

template <class T>
std::vector<T> drawn(Random &random, int64_t count) {
  std::vector<T> all(static_cast<size_t>(count));
  for (T &x : all) x = static_cast<T>(sizeof(T) == 1 ? !random.one_in(3) : random.normal());
  return all;
}

// The batches from `first` on, `count` of them.
template <class T>
attend_tensor batches(attend_tensor t, int64_t first, int64_t count) {
  t.data = static_cast<T *>(t.data) + first * t.stride[3];
  t.shape[3] = count;
  return t;
}

}  // namespace

TEST_CASE_TEMPLATE("a mask of padded keys is (Nk, 1, 1, B)", T, float, double) {
  Random random(sizeof(T) == 4 ? 71 : 72);
  const int64_t d = 8, n = 37, keys = 300, heads = 3, batch = 2;
  std::vector<T> q = drawn<T>(random, d * n * heads * batch), k = drawn<T>(random, d * keys * heads * batch), v = k;
  const auto of = [&](std::vector<T> &data, int64_t items) {
    return tensor(data, {d, items, heads, batch}, {1, d, d * items, d * items * heads});
  };
  const int64_t lengths[] = {257, random.in(1, keys)};
  std::vector<uint8_t> padding(static_cast<size_t>(keys * batch));
  for (int64_t b = 0; b < batch; ++b) std::fill_n(padding.begin() + b * keys, lengths[b], uint8_t{1});
  const attend_tensor mask = tensor(padding, {keys, 1, 1, batch}, {1, 0, 0, keys});
  std::vector<T> masked(q.size()), shorter(q.size());
  const attend_tensor tq = of(q, n), tk = of(k, keys), tv = of(v, keys), a = of(masked, n), b = of(shorter, n);
  for_each_isa([&] {
    attend_attention_options options = {};
    options.size = sizeof options;
    options.mask = &mask;
    REQUIRE(ok(attend_attention(&tq, &tk, &tv, &a, &options)));
    options.mask = nullptr;
    options.kv_lengths = lengths;
    REQUIRE(ok(attend_attention(&tq, &tk, &tv, &b, &options)));
    CHECK(same_bits(masked, shorter));
  });
}

TEST_CASE_TEMPLATE("windows of images: one call, whose mask repeats or whose heads are those of all windows", T, float,
                   double) {
  Random random(sizeof(T) == 4 ? 73 : 74);
  for (int round = 0; round < 20; ++round) {
    const int64_t d = random.in(1, 40), n = random.in(1, 49), heads = random.in(1, 4), windows = random.in(1, 5),
                  images = random.in(1, 4), batch = windows * images;
    INFO("D " << d << " N " << n << " H " << heads << " windows " << windows << " images " << images);
    // [images * windows, H, N, D]
    const int64_t size = d * n, all = size * heads * batch, square = n * n;
    const Shape shape = {d, n, heads, batch}, stride = {1, d, size, size * heads};
    std::vector<T> q = drawn<T>(random, all), k = drawn<T>(random, all), v = drawn<T>(random, all), want(q), got(q);
    std::vector<T> bias = drawn<T>(random, square * heads), sum(static_cast<size_t>(square * heads * windows));
    std::vector<uint8_t> mask = drawn<uint8_t>(random, square * windows), repeated;
    const attend_tensor tq = tensor(q, shape, stride), tk = tensor(k, shape, stride), tv = tensor(v, shape, stride),
                        to = tensor(want, shape, stride);
    const attend_tensor of_heads = tensor(bias, {n, n, heads, 1}, {1, n, square, 0}),
                        of_windows = tensor(mask, {n, n, 1, windows}, {1, n, 0, square});
    for (int64_t i = 0; i < images; ++i) repeated.insert(repeated.end(), mask.begin(), mask.end());
    const attend_tensor of_all = tensor(repeated, {n, n, 1, batch}, {1, n, 0, square});
    for (int64_t w = 0; w < windows; ++w)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t e = 0; e < square; ++e) {
          const bool visible = mask[static_cast<size_t>(w * square + e)] != 0;
          sum[static_cast<size_t>((w * heads + h) * square + e)] =
              visible ? bias[static_cast<size_t>(h * square + e)] : -std::numeric_limits<T>::infinity();
        }
    const attend_tensor of_both = tensor(sum, {n, n, heads * windows, 1}, {1, n, square, 0});
    const auto folded = [&](std::vector<T> &data) {
      return tensor(data, {d, n, heads * windows, images}, {1, d, size, size * heads * windows});
    };
    for_each_isa([&] {
      attend_attention_options options = {};
      options.size = sizeof options;
      options.bias = &of_heads;
      options.mask = &of_windows;
      for (int64_t i = 0; i < images; ++i) {
        const attend_tensor iq = batches<T>(tq, i * windows, windows), ik = batches<T>(tk, i * windows, windows),
                            iv = batches<T>(tv, i * windows, windows), io = batches<T>(to, i * windows, windows);
        REQUIRE(ok(attend_attention(&iq, &ik, &iv, &io, &options)));
      }
      const attend_tensor result = tensor(got, shape, stride);
      options.mask = &of_all;
      REQUIRE(ok(attend_attention(&tq, &tk, &tv, &result, &options)));
      CHECK(same_bits(want, got));
      std::fill(got.begin(), got.end(), T(77));
      options.mask = nullptr;
      options.bias = &of_both;
      const attend_tensor fq = folded(q), fk = folded(k), fv = folded(v), fo = folded(got);
      REQUIRE(ok(attend_attention(&fq, &fk, &fv, &fo, &options)));
      CHECK(same_bits(want, got));
    });
  }
}
