// Which keys a query sees: what a tile's slices are cut into (skipped, plain, hidden by position, looked at key by key),
// and each lane and row, against masks, biases and positions themselves; on the scalar instantiation.
#include <memory>

#include "odd_tiles.hpp"
// after the backend
#include "drivers/attention_plan.hpp"
#include "kernels/attention/hidden_blocks.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

#if defined(ATTEND_TEST_SANITIZED)
constexpr int kRounds = 60;
#else
constexpr int kRounds = 400;
#endif

// Entries for every row and key, some of them shared: a stride of 0 repeats.
template <class T>
struct Lines {
  std::vector<T> memory;
  RowsRef<const T> ref = {};

  // In long runs of keys that are alike, so that whole segments are.
  Lines(Random &random, int64_t items, int64_t heads, int64_t keys, std::initializer_list<T> entries) {
    const int64_t step = random.pick<int64_t>({1, 1, 1, 2, 0}), line = keys * std::max<int64_t>(step, 1) + 3;
    memory.resize(static_cast<size_t>(items * heads * line));
    const bool alike = random.one_in(2);  // over all rows
    const int64_t run = random.pick<int64_t>({1, 31, 32, 64, 300, 5000}), from = random.in(0, run - 1);
    std::vector<T> of_run;
    for (int64_t i = 0; i <= (keys + run) / run; ++i) of_run.push_back(random.pick(entries));
    for (size_t i = 0; i < memory.size(); ++i) {
      const size_t n = static_cast<size_t>((static_cast<int64_t>(i) % line / std::max<int64_t>(step, 1) + from) / run);
      memory[i] = n < of_run.size() && (alike || !random.one_in(run)) ? of_run[n] : random.pick(entries);
    }
    ref = {memory.data(), step, line, items * line};
    if (random.one_in(3)) ref.item_stride = 0;
    if (random.one_in(3)) ref.head_stride = 0;
  }
};

template <class T>
struct Block {
  static constexpr T kInf = std::numeric_limits<T>::infinity(), kNan = std::numeric_limits<T>::quiet_NaN();

  AttentionBlock<T> x = {};
  std::unique_ptr<Lines<uint8_t>> mask;
  std::unique_ptr<Lines<T>> bias;
  std::vector<T> queries, output;
  std::vector<T, LineAllocator<T>> scratch;

  explicit Block(Random &random) {
    x.items = random.pick<int64_t>({1, 2, 5, 17, 40});
    x.heads = x.items > 16 ? 1 : random.pick<int64_t>({1, 1, 3, 4});
    x.keys = random.one_in(8) ? random.in(4000, 9000) : random.in(1, 700);
    x.key_end = x.keys;
    if (random.one_in(2)) x.key_end = random.in(-5, x.keys), x.key_end_step = 1;
    if (random.one_in(3)) x.key_begin = random.in(-40, x.keys + 5), x.key_begin_step = 1;
    x.features = x.value_features = 1;
    if (random.one_in(2)) {
      mask = std::make_unique<Lines<uint8_t>>(random, x.items, x.heads, x.keys,
                                              std::initializer_list<uint8_t>{0, 0, 1, 255});
      x.mask = mask->ref;
    }
    if (random.one_in(3)) {
      bias = std::make_unique<Lines<T>>(random, x.items, x.heads, x.keys,
                                        std::initializer_list<T>{-kInf, -kInf, T(0), T(0), T(-0.0), T(2), kNan});
      const RowsRef<const T> &b = bias->ref;
      x.bias = {b.data, b.element_stride, b.item_stride, b.head_stride, sizeof(T) == 8 ? Dtype::f64 : Dtype::f32};
    }
    x.query_tile = Contract<T>::kScoreLanes;
    x.by_features = true;
    const int64_t rows = x.items * x.heads;
    queries.assign(static_cast<size_t>(rows), T(1));
    output.assign(static_cast<size_t>(rows), T(0));
    x.q = {queries.data(), 1, 1, x.items, sizeof(T) == 8 ? Dtype::f64 : Dtype::f32};
    x.out = {output.data(), 1, 1, x.items};
    const AttentionShape shape = {sizeof(T), x.items, x.keys, 1, 1, x.heads, 1, 1, 1, 1, 1, true, false};
    x.layout = attention_layout(shape, rows);
    scratch.resize(static_cast<size_t>(x.layout.end));
    x.scratch = scratch.data();
    KernelsOf<T> kernels = {};
    kernels.attention_lanes = kLanes<T>;
    kernels.attention_rows = Tiles<T>::kScoreVectors * kLanes<T>;
    kernels.key_span = Contract<T>::kKeySpan;
    set_derived(kernels, &x);
  }

  bool by_position(int64_t row, int64_t key) const {
    const int64_t item = row % x.items;
    return key < x.keys && key >= x.key_begin + x.key_begin_step * item && key < x.key_end + x.key_end_step * item;
  }
  template <class Of>
  Of entry(const RowsRef<const Of> &of, int64_t row, int64_t key) const {
    return of.data[key * of.element_stride + row % x.items * of.item_stride + row / x.items * of.head_stride];
  }
  bool masked(int64_t row, int64_t key) const { return mask != nullptr && entry(x.mask, row, key) == 0; }
  T added(int64_t row, int64_t key) const { return bias == nullptr ? T(0) : entry(bias->ref, row, key); }
};

// What becomes of a key of a tile.
enum Fate : int { skipped = 4, plain = 0, hides = 1, adds = 2 };

// What mask and bias hide counts for a segment as a whole, as far as the tile sees it by position: from the first key of
// its first item to the last of its last.
template <class T>
std::vector<int> fates(const Block<T> &block, const QueryTile<T> &t) {
  const AttentionBlock<T> &x = block.x;
  const bool one_head = t.row / x.items == (t.row + t.count - 1) / x.items;
  const int64_t least = one_head ? t.row % x.items : 0,
                largest = one_head ? (t.row + t.count - 1) % x.items : x.items - 1;
  std::vector<int> fate(static_cast<size_t>(x.keys), skipped);
  for (int64_t segment = 0; segment < x.keys; segment += kSegment) {
    const int64_t begin = std::max(segment, x.key_begin + x.key_begin_step * least),
                  end = std::min({segment + kSegment, x.keys, x.key_end + x.key_end_step * largest});
    bool unmasked = false, hidden = false, unbiased = false, changed = false;
    for (int64_t key = begin; key < end; ++key) {
      for (int64_t row = t.row; row < t.row + t.count; ++row) {
        (block.masked(row, key) ? hidden : unmasked) = true;
        const T b = block.added(row, key);
        (b == -Block<T>::kInf ? hidden : unbiased) = true;
        changed |= b != 0 && b != -Block<T>::kInf;
      }
    }
    for (int64_t key = begin; key < end && unmasked && unbiased; ++key) {
      const bool by_all = block.by_position(least, key) && block.by_position(largest, key);
      fate[static_cast<size_t>(key)] = (hidden || changed ? adds : plain) | (by_all ? plain : hides);
    }
  }
  return fate;
}

// What the kernels make of the tile's keys; checks that runs are in order and as long as can be.
template <class T>
std::vector<int> runs_of_tile(const Block<T> &block, const QueryTile<T> &t) {
  const AttentionBlock<T> &x = block.x;
  std::vector<int> fate(static_cast<size_t>(x.keys), skipped);
  const KeyRange seen = seen_by_any(x, t);
  int64_t wrong = 0;
  for (int64_t c0 = 0; c0 < x.keys; c0 += Contract<T>::kKeyChunk) {
    if (x.looked_at && c0 % kWindow == 0) look_at_window(x, t, c0);
    KeySlice<T> slice = {};
    slice.begin = std::max(c0, seen.begin);
    slice.end = std::min(c0 + Contract<T>::kKeyChunk, seen.end);
    if (slice.begin >= slice.end) continue;
    const KeyRuns runs = runs_of(x, t, slice);
    wrong += runs.count > static_cast<int>(std::size(runs.run));
    for (int n = 0; n < runs.count; ++n) {
      const KeyRun &run = runs.run[n];
      wrong += run.begin < slice.begin || run.begin >= run.end || run.end > slice.end;
      if (n > 0) {
        const KeyRun &before = runs.run[n - 1];
        wrong += run.begin < before.end;
        wrong += run.begin == before.end && run.hides == before.hides && run.adds == before.adds;
      }
      for (int64_t key = run.begin; key < run.end; ++key) {
        fate[static_cast<size_t>(key)] = (run.hides ? hides : 0) | (run.adds ? adds : 0);
      }
    }
  }
  CHECK(wrong == 0);
  return fate;
}

}  // namespace

TEST_CASE_TEMPLATE("runs: every key of a tile is skipped, plain or looked at as it should be", T, float, double) {
  Random random(sizeof(T) == 4 ? 1301 : 1302);
  int64_t of_fate[5] = {};
  for (int round = 0; round < kRounds; ++round) {
    const Block<T> block(random);
    const AttentionBlock<T> &x = block.x;
    INFO("round " << round << " items " << x.items << " heads " << x.heads << " keys " << x.keys << " from "
                  << x.key_begin << " step " << x.key_begin_step << " to " << x.key_end << " step " << x.key_end_step
                  << " mask " << (x.mask.data != nullptr) << " bias " << (x.bias.data != nullptr));
    for (int64_t row = 0; row < x.rows; row += x.tile_rows) {
      const QueryTile<T> t = tile_of(x, row);
      INFO("row " << row << " of " << t.count);
      const std::vector<int> got = runs_of_tile(block, t);
      CHECK((got == fates(block, t)));
      for (const int f : got) ++of_fate[f];
    }
  }
  for (const int64_t keys : of_fate) CHECK(keys > 0);  // both ways of hiding at once too
}

TEST_CASE_TEMPLATE("lanes and rows: who sees a key", T, float, double) {
  Random random(sizeof(T) == 4 ? 1311 : 1312);
  for (int round = 0; round < kRounds / 4; ++round) {
    const Block<T> block(random);
    const AttentionBlock<T> &x = block.x;
    INFO("round " << round << " items " << x.items << " heads " << x.heads << " keys " << x.keys << " from "
                  << x.key_begin << " step " << x.key_begin_step << " to " << x.key_end << " step " << x.key_end_step);
    int64_t wrong_lanes = 0, wrong_rows = 0;
    for (int64_t row = 0; row < x.rows; row += x.tile_rows) {
      const QueryTile<T> t = tile_of(x, row);
      begin_tile(x, t);
      for (int64_t key = random.in(0, 20); key < x.keys; key += random.in(1, 9)) {
        for (int64_t i = 0; i < t.count; ++i) {
          const bool seen = block.by_position(row + i, key);
          wrong_rows += is_visible(x, row + i, key) !=
                        (seen && !block.masked(row + i, key) && block.added(row + i, key) != -Block<T>::kInf);
          if (!x.rises) continue;  // then nobody asks
          T lanes[kLanes<T>];
          store(lanes, hide(x, t, key, static_cast<int>(i / kLanes<T>), broadcast(T(3))));
          wrong_lanes += lanes[i % kLanes<T>] != (seen ? T(3) : -Block<T>::kInf);
        }
      }
    }
    CHECK(wrong_lanes == 0);
    CHECK(wrong_rows == 0);
  }
}
