// Whether two views share a byte, against the bytes themselves; and whether every function asks.
#include "api/overlap.hpp"

#include <algorithm>
#include <set>

#include "support.hpp"

using namespace attend::test;
using attend::share_a_byte;
using attend::Tensor;

namespace {

// As Operands::read leaves it; `data` is an address that nobody reads.
Tensor view(int64_t data, int64_t element, const Shape &shape, const Shape &stride) {
  Tensor t;
  t.data = reinterpret_cast<void *>(data);
  t.given = true;
  t.shape = shape;
  t.dtype = element == 1 ? attend::Dtype::u8 : element == 4 ? attend::Dtype::f32 : attend::Dtype::f64;
  t.count = 1;
  t.low = t.high = 0;
  for (size_t i = 0; i < 4; ++i) {
    t.stride[i] = shape[i] == 1 ? 0 : stride[i];
    const int64_t reach = (shape[i] - 1) * t.stride[i];
    (reach < 0 ? t.low : t.high) += reach;
    t.count *= shape[i];
  }
  t.begin = data + t.low * element;
  t.end = data + (t.high + 1) * element;
  return t;
}

std::set<int64_t> bytes(const Tensor &t) {
  std::set<int64_t> all;
  for (int64_t i = 0; i < t.count; ++i) {
    int64_t rest = i, at = 0;
    for (size_t d = 0; d < 4; ++d) {
      at += rest % t.shape[d] * t.stride[d];
      rest /= t.shape[d];
    }
    for (int64_t u = 0; u < size_of(t.dtype); ++u)
      all.insert(reinterpret_cast<int64_t>(t.data) + at * size_of(t.dtype) + u);
  }
  return all;
}

bool truth(const Tensor &a, const Tensor &b) {
  const std::set<int64_t> of_a = bytes(a), of_b = bytes(b);
  return std::any_of(of_b.begin(), of_b.end(), [&](int64_t at) { return of_a.count(at) != 0; });
}

// Strides that an output may have, for extents of at most `most`.
Shape of_outputs(Random &random, const Shape &most, int64_t slack) {
  std::array<size_t, 4> order = {0, 1, 2, 3};
  for (size_t i = 3; i > 0; --i) std::swap(order[i], order[static_cast<size_t>(random.in(0, static_cast<int64_t>(i)))]);
  Shape stride = {};
  int64_t reach = 0;
  for (const size_t d : order) {
    stride[d] = reach + 1 + random.in(0, random.one_in(2) ? 0 : slack);
    reach += stride[d] * (most[d] - 1);
  }
  return stride;
}

Shape shape_within(Random &random, const Shape &most) {
  Shape shape;
  std::transform(most.begin(), most.end(), shape.begin(), [&](int64_t n) { return random.in(1, n); });
  return shape;
}

Shape turned(Random &random, Shape stride) {
  for (int64_t &s : stride) s = random.one_in(4) ? -s : s;
  return stride;
}

struct Pair {
  Shape shape_a, stride_a, shape_b, stride_b;
};

// How often views at a random distance, in whole elements or not, are told apart wrongly.
template <class Draw>
void compare(unsigned stream, const std::string &what, bool exact, const Draw &draw) {
  Random random(stream);
  int shared = 0, apart = 0, missed = 0;
  for (int i = 0; i < 2000; ++i) {
    const Pair p = draw(random);
    const int64_t element_a = random.pick({4, 8}), element_b = random.pick({4, 8, 1});
    const Tensor a = view(1 << 20, element_a, p.shape_a, p.stride_a);
    Tensor b = view(0, element_b, p.shape_b, p.stride_b);
    int64_t data = random.in(a.begin - b.end, a.end - b.begin);
    if (!random.one_in(3)) data = data / element_b * element_b;
    b = view(data, element_b, p.shape_b, p.stride_b);
    const bool share = truth(a, b), said = share_a_byte(a, b);
    ++(share ? shared : apart);
    missed += share && !said;
    if (said == share || (!exact && share)) continue;
    INFO(what << ": " << a.begin << ".." << a.end << " and " << b.begin << ".." << b.end);
    CHECK(said == share);
  }
  MESSAGE(what << ": " << shared << " pairs that share a byte (" << missed << " missed), " << apart << " that do not");
  CHECK(shared > 50);
  CHECK(apart > 50);
  CHECK(missed <= 2);
}

}  // namespace

TEST_CASE("random views, against their bytes") {
  const Shape six = {6, 6, 6, 6};
  compare(1, "equal strides", true, [](Random &random) {
    const Shape most = shape_within(random, {7, 7, 7, 7}), stride = of_outputs(random, most, 9);
    return Pair{shape_within(random, most), turned(random, stride), shape_within(random, most), turned(random, stride)};
  });
  compare(2, "one without gaps", true, [&](Random &random) {
    const Shape a = shape_within(random, {3, 3, 3, 3}), b = shape_within(random, six);
    return Pair{a, turned(random, of_outputs(random, a, 0)), b, turned(random, of_outputs(random, b, 40))};
  });
  compare(3, "matrices", true, [](Random &random) {
    const Shape a = shape_within(random, {20, 30, 1, 1}), b = shape_within(random, {20, 30, 1, 1});
    const Shape stride_a = {1, random.in(0, 99), 0, 0}, stride_b = {1, random.in(0, 99), 0, 0};
    return Pair{a, turned(random, stride_a), b, turned(random, stride_b)};
  });
  compare(4, "strides that divide each other", true, [&](Random &random) {
    const int64_t two = random.in(2, 4), three = two * random.in(2, 4), four = three * random.in(2, 4);
    const auto stride = [&] {
      return Shape{random.pick({int64_t{1}, two}), random.pick({int64_t{0}, two, three}), random.pick({three, four}),
                   four};
    };
    const Shape small = {3, 3, 3, 3};
    return Pair{shape_within(random, small), turned(random, stride()), shape_within(random, small),
                turned(random, stride())};
  });
  compare(5, "parts of one [N, parts, H, D] array", true, [](Random &random) {
    const Shape most = shape_within(random, {8, 6, 4, 3});
    const int64_t d = most[0], h = most[2], parts = random.in(2, 4), item = parts * h * d;
    const Shape stride = {1, item, d, item * most[1]};
    return Pair{most, stride, shape_within(random, most), stride};
  });
  compare(6, "any outputs", false, [&](Random &random) {
    const Shape a = shape_within(random, {4, 4, 3, 2}), b = shape_within(random, {4, 4, 3, 2});
    return Pair{a, turned(random, of_outputs(random, a, 30)), b, turned(random, of_outputs(random, b, 30))};
  });
  compare(7, "any strides", false, [&](Random &random) {
    Shape a, b;
    for (int64_t &s : a) s = random.in(-200, 200);
    for (int64_t &s : b) s = random.in(-200, 200);
    const Shape small = {4, 3, 2, 2};
    return Pair{shape_within(random, small), a, shape_within(random, small), b};
  });
}

TEST_CASE("large views") {
  // Pitches of 10007 and 10000 elements: the columns meet after some hundred, and not before.
  const int64_t n = 1 << 20;
  const auto meet = [&](int64_t columns, int64_t rows, int64_t distance) {
    return share_a_byte(view(0, 4, {rows, columns, 1, 1}, {1, 10007, 0, 0}),
                        view(4 * distance, 4, {rows, columns, 1, 1}, {1, 10000, 0, 0}));
  };
  CHECK(meet(n, 8, 5000));          // column 714 begins at 4998 of those of the other
  CHECK_FALSE(meet(713, 8, 5000));  // column 712: 4984..4991
  CHECK(meet(714, 8, 4998));
  CHECK_FALSE(meet(n, 1, (int64_t{n} << 14) + 1));
  // As far apart as tensors may reach.
  const int64_t far = int64_t{1} << 57;
  const Tensor a = view(0, 8, {2, 2, 1, 1}, {far, 3, 0, 0});
  CHECK(share_a_byte(a, view(8 * far + 24, 8, {2, 1, 1, 1}, {far, 0, 0, 0})));
  CHECK(share_a_byte(a, view(8 * far + 31, 8, {2, 1, 1, 1}, {far, 0, 0, 0})));
  CHECK_FALSE(share_a_byte(a, view(8 * far + 8, 8, {2, 1, 1, 1}, {far, 0, 0, 0})));
  CHECK_FALSE(share_a_byte(a, view(8 * far + 8, 8, {2, 2, 1, 1}, {far, 1, 0, 0})));
  // Residues: even columns and odd ones, of any length.
  CHECK_FALSE(share_a_byte(view(0, 4, {n, 1, 1, 1}, {4, 0, 0, 0}), view(4, 4, {n, 1, 1, 1}, {6, 0, 0, 0})));
  CHECK(share_a_byte(view(0, 4, {n, 1, 1, 1}, {4, 0, 0, 0}), view(8, 4, {n, 1, 1, 1}, {6, 0, 0, 0})));
}
