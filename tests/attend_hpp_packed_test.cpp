// attend/attend.hpp: packed sequences and paged caches, which have the bits of each sequence alone.
#include <attend/attend.hpp>

#include "hpp/results.hpp"

using namespace attend::test;
using attend::columns;
using attend::matrix;
using attend::tensor;
using options = attend::attention_options;

namespace {

constexpr int64_t kD = 8, kHeads = 4, kKvHeads = 2, kPageSize = 4;

// Columns a to b of an array [total, heads, features], as serving has them: the tensor (D, b - a, heads).
template <class X>
auto part(X &x, int64_t heads, int64_t a, int64_t b) {
  return columns(x.data() + a * heads * kD, {kD, b - a, heads}, {int64_t{1}, heads * kD, kD});
}

// Two sequences of different lengths, and an empty one between them.
template <class T>
struct Packed {
  std::vector<int64_t> query_starts = {0, 3, 3, 8}, key_starts = {0, 5, 5, 17};
  std::vector<T> q = normals<T>(8 * kHeads * kD, 1), k = normals<T>(17 * kKvHeads * kD, 2),
                 v = normals<T>(17 * kKvHeads * kD, 3);

  auto queries(size_t b) { return part(q, kHeads, query_starts[b], query_starts[b + 1]); }
  auto keys(size_t b) { return part(k, kKvHeads, key_starts[b], key_starts[b + 1]); }
  auto values(size_t b) { return part(v, kKvHeads, key_starts[b], key_starts[b + 1]); }
  // Whether each sequence is that of its own call; `out` is (D, total, heads) of any order.
  void check(const attend::array<T> &out) {
    for (size_t b = 0; b < 3; ++b) {
      const attend::array<T> alone = attend::attention(queries(b), keys(b), values(b), options().causal_bottom_right());
      for (int64_t h = 0; h < kHeads; ++h) {
        for (int64_t i = query_starts[b]; i < query_starts[b + 1]; ++i)
          for (int64_t d = 0; d < kD; ++d) CHECK(out(d, i, h) == alone(d, i - query_starts[b], h));
      }
    }
  }
};

}  // namespace

TEST_CASE_TEMPLATE("packed queries and keys: each sequence as alone", T, float, double) {
  Packed<T> p;
  const auto q = part(p.q, kHeads, 0, 8), k = part(p.k, kKvHeads, 0, 17), v = part(p.v, kKvHeads, 0, 17);
  const options packed = options().query_starts(p.query_starts).key_starts(p.key_starts).causal_bottom_right();
  const attend::array<T> out = attend::attention(q, k, v, packed);
  CHECK((out.extent(1) == 8 && out.extent(3) == 1));
  p.check(out);
  attend::array<T> mine = attend::attention(q, k, v);
  attend::attention(q, k, v, mine, packed);
  CHECK(same_bits(mine, out));
  CHECK(attend::attention_workspace(q, k, v, mine, packed) > 0);
  // Lengths are those of sequences.
  const std::vector<int64_t> lengths = {5, 0, 12};
  options with_lengths = packed;
  CHECK(same_bits(attend::attention(q, k, v, with_lengths.kv_lengths(lengths)), out));
}

TEST_CASE_TEMPLATE("packed keys alone: the sequences are the batch", T, float, double) {
  Packed<T> p;
  const auto k = part(p.k, kKvHeads, 0, 17), v = part(p.v, kKvHeads, 0, 17);
  const std::vector<T> q = normals<T>(3 * kHeads * kD, 4);
  const attend::array<T> out =
      attend::attention(tensor(q, {int64_t{3}, kHeads, int64_t{1}, kD}), k, v, options().key_starts(p.key_starts));
  CHECK((out.extent(1) == 1 && out.extent(3) == 3));
  for (size_t b = 0; b < 3; ++b) {
    const size_t at = b * static_cast<size_t>(kHeads * kD);
    const attend::array<T> alone =
        attend::attention(tensor(q.data() + at, {kHeads, int64_t{1}, kD}), p.keys(b), p.values(b));
    CHECK(std::equal(alone.begin(), alone.end(), out.begin() + at));
  }
}

TEST_CASE_TEMPLATE("pages: as keys in one piece", T, float, double) {
  Packed<T> p;
  // A pool [page, kv head, column, feature] and a table [sequence, page]: what no key needs is no page.
  const std::vector<int32_t> table = {4, 1, -1, -7, -1, 9, 0, 3, 2};
  const int64_t pages = 5;
  std::vector<T> k_pool(static_cast<size_t>(pages * kKvHeads * kPageSize * kD)), v_pool = k_pool;
  const std::vector<int64_t> lengths = {5, 0, 12};
  for (size_t b = 0; b < 3; ++b) {
    for (int64_t j = 0; j < lengths[b]; ++j) {
      const int64_t page = table[b * 3 + static_cast<size_t>(j / kPageSize)];
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const int64_t from = ((p.key_starts[b] + j) * kKvHeads + h) * kD,
                      to = ((page * kKvHeads + h) * kPageSize + j % kPageSize) * kD;
        std::copy_n(p.k.begin() + from, kD, k_pool.begin() + to);
        std::copy_n(p.v.begin() + from, kD, v_pool.begin() + to);
      }
    }
  }
  const auto k = tensor(k_pool, {pages, kKvHeads, kPageSize, kD}), v = tensor(v_pool, {pages, kKvHeads, kPageSize, kD});
  const options paged = options().pages(tensor(table, {3, 3})).kv_lengths(lengths).causal_bottom_right();
  options packed = paged;
  p.check(attend::attention(part(p.q, kHeads, 0, 8), k, v, packed.query_starts(p.query_starts)));
  // One query for each sequence; the batch is that of the table, not that of the pool.
  const attend::array<T> out = attend::attention(tensor(p.q.data(), {kHeads, int64_t{1}, kD}), k, v, paged);
  CHECK((out.extent(1) == 1 && out.extent(3) == 3));
  for (size_t b = 0; b < 3; ++b) {
    const attend::array<T> alone =
        attend::attention(tensor(p.q.data(), {kHeads, int64_t{1}, kD}), p.keys(b), p.values(b));
    CHECK(std::equal(alone.begin(), alone.end(), out.begin() + b * static_cast<size_t>(kHeads * kD)));
  }
}

TEST_CASE_TEMPLATE("keys in several calls: the bits of one", T, float, double) {
  constexpr int64_t kKeys = 300, kQueries = 3;
  std::vector<T> q = normals<T>(kQueries * kHeads * kD, 1), k = normals<T>(kKeys * kKvHeads * kD, 2),
                 v = normals<T>(kKeys * kKvHeads * kD, 3), state(kHeads * kQueries * 2 * (kD + 2));
  const auto queries = part(q, kHeads, 0, kQueries);
  const auto keys = [&](std::vector<T> &of, int64_t a, int64_t b) { return part(of, kKvHeads, a, b); };
  const auto of_state = tensor(state, {kHeads, kQueries, 2 * (kD + 2)});
  const options whole = options().causal_top_left().query_offset(290);
  const attend::array<T> out = attend::attention(queries, keys(k, 0, kKeys), keys(v, 0, kKeys), whole);
  attend::array<T> pieces = attend::attention(queries, keys(k, 0, 1), keys(v, 0, 1));
  options first = whole, last = whole;
  attend::attention(queries, keys(k, 0, 256), keys(v, 0, 256), pieces, first.state(of_state).pauses());
  attend::attention(queries, keys(k, 256, kKeys), keys(v, 256, kKeys), pieces,
                    last.state(of_state).resumes().key_offset(256));
  CHECK(same_bits(pieces, out));
}

TEST_CASE("self-attention of packed sequences") {
  const std::vector<float> w = normals<float>(3 * kD * kD, 5), x = normals<float>(7 * kD, 6);
  const auto weight = [&](int64_t i) { return matrix(w.data() + i * kD * kD, {kD, kD}); };
  const attend::self_attention_weights weights(weight(0), weight(1), weight(2));
  const std::vector<int64_t> starts = {0, 4, 7};
  const auto out =
      attend::self_attention(tensor(x, {int64_t{7}, kD}), weights, options().query_starts(starts).causal_top_left());
  for (size_t b = 0; b < 2; ++b) {
    const int64_t a = starts[b], n = starts[b + 1] - a;
    const auto alone = attend::self_attention(tensor(x.data() + a * kD, {n, kD}), weights, options().causal_top_left());
    CHECK(std::equal(alone.begin(), alone.end(), out.begin() + a * kD));
  }
}

TEST_CASE("what is wrong with packed sequences and pages, in words") {
  const std::vector<float> x = normals<float>(6 * kD, 7);
  const tensor t(x, {int64_t{6}, kD});
  using numbers = std::vector<int64_t>;
  const auto what = [&](const options &o) { return thrown([&] { attend::attention(t, t, t, o); }).what; };
  CHECK(what(options().query_starts(numbers{})) ==
        "options.query_starts: has 0 numbers, but starts of sequences are at least 2.");
  CHECK(what(options().key_starts(numbers{0})) ==
        "options.key_starts: has 1 numbers, but starts of sequences are at least 2.");
  CHECK(what(options().query_starts(numbers{0, 2, 6}).key_starts(numbers{0, 6})) ==
        "options.key_starts: has 2 numbers, but query_starts has 3.");
  CHECK(what(options().query_starts(numbers{0, 2, 6}).key_starts(numbers{0, 2, 6}).kv_lengths(numbers{6})) ==
        "options.kv_lengths: has 1 numbers, but the batch is 2.");
  CHECK(what(options().query_starts(numbers{0, 2, 5}).key_starts(numbers{0, 2, 6})) ==
        "options.query_starts: ends with 5, but must end with 6, the number of packed items.");
  CHECK(what(options().pages(std::array<int32_t, 1>{})) ==
        "options.kv_lengths: is null, but required where keys lie in pages.");
  CHECK(what(options().pages(std::array<int32_t, 1>{3}).kv_lengths(numbers{6})) ==
        "options.pages: has 3 for page 0 of batch 0, but the pool has 1 pages, counted from 0.");
  CHECK(what(options().pages(std::array<float, 1>{}).kv_lengths(numbers{6})).find("options.pages: is float32") == 0);
}
