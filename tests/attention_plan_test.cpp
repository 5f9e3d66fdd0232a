// The plan of attention is a pure function: what it says of the named shapes, and what holds of all plans.
#include <unistd.h>

#include "attention_shapes.hpp"
#include "support.hpp"

using namespace attend;
using namespace attend::test;

namespace {

constexpr Caches kSmall = {32 << 10, 1 << 20}, kLarge = {48 << 10, 2 << 20};
constexpr int64_t kShare = 256 << 10;

constexpr int64_t kRoomy = 16 << 20;  // for all that makes a call faster

AttentionPlan plan_of(const AttentionShape &shape, int threads, int64_t room = kRoomy, int64_t lanes = 8,
                      const Caches &caches = kSmall) {
  return plan_attention(shape, {threads, room, lanes, caches});
}

struct Row {
  const char *shape;
  int64_t element;
  int threads;
  int64_t heads, block, tasks;
  bool splits;
  Caches caches = kSmall;
  int64_t room = kRoomy;
};

// Blocks of rows: 128 queries (f64: 64), half of them where threads would be idle, up to 64 (32) rows of packed heads; and,
// where keys are copied and the L3 is far, more, as many as there is room for.
const Row kRows[] = {
    {"prefill", 4, 1, 1, 128, 6, false},
    {"prefill", 4, 2, 1, 64, 10, false},
    {"prefill", 4, 8, 1, 64, 10, false},
    {"prefill", 8, 1, 1, 64, 10, false},
    {"prefill", 8, 2, 1, 64, 10, false},
    {"prefill", 8, 3, 1, 32, 20, false},
    {"causal", 4, 1, 1, 128, 6, false},
    {"causal", 4, 2, 1, 64, 12, false},
    {"causal, uneven", 4, 3, 1, 128, 16, false},  // enough blocks for 4 threads: not halved
    {"causal, uneven", 4, 4, 1, 128, 16, false},
    {"causal, uneven", 4, 5, 1, 64, 24, false},
    {"one query", 4, 1, 1, 1, 12, false},
    {"one query", 4, 8, 1, 1, 12, false},
    {"few queries of a group", 4, 1, 4, 4, 2, false},
    {"few queries of a group", 4, 2, 4, 4, 2, false},
    {"few queries of a group", 4, 3, 2, 4, 4, false},  // fewer heads to a block
    {"few queries of a group", 4, 5, 1, 4, 8, false},
    {"few queries of a group", 8, 2, 4, 4, 2, false},
    {"a group alone", 4, 1, 4, 2, 1, false},
    {"a group alone", 4, 2, 2, 2, 2, false},
    {"a group alone", 4, 3, 1, 2, 4, false},
    {"a group alone", 4, 64, 1, 2, 4, false},
    {"many heads", 4, 1, 64, 1, 2, false},
    {"many heads", 4, 3, 32, 1, 4, false},
    {"many heads", 4, 8, 16, 1, 8, false},
    {"many heads", 8, 1, 32, 1, 4, false},
    {"many heads", 8, 8, 16, 1, 8, false},
    {"group of seven", 4, 1, 1, 16, 7, false},  // 4 heads of 16 queries have room, but do not divide 7
    {"long keys", 4, 1, 1, 1, 1, false},
    {"long keys", 4, 2, 1, 1, 1, true},
    {"long keys", 4, 3, 1, 1, 1, true},
    {"long keys", 4, 8, 1, 1, 1, true},
    {"long keys", 8, 8, 1, 1, 1, true},
    {"long keys of a group", 4, 1, 3, 2, 2, false},
    {"long keys of a group", 4, 2, 3, 2, 2, false},  // a block for each thread
    {"long keys of a group", 4, 3, 3, 2, 2, true},
    {"long keys of a group", 8, 8, 3, 2, 2, true},
    {"keys just long enough", 4, 2, 1, 16, 1, true},
    {"keys one too short", 4, 2, 1, 16, 1, false},
    {"one query too many", 4, 3, 1, 17, 2, false},
    {"scores of long keys", 4, 2, 2, 2, 2, false},
    {"scores of long keys", 4, 3, 1, 2, 4, false},
    {"copied keys", 4, 1, 1, 70, 1, false},
    {"copied keys", 4, 2, 1, 64, 2, false},
    {"copied keys", 8, 1, 1, 32, 3, false},  // with the copy 64 queries would take more than a share
    {"copied keys of large blocks", 4, 1, 1, 64, 10, false},
    {"copied keys of large blocks", 8, 1, 1, 32, 20, false},
    {"copied keys of large blocks", 4, 1, 1, 320, 2, false, kLarge},
    {"copied keys and values of wide blocks", 4, 1, 1, 128, 20, false},
    {"copied keys and values of wide blocks", 4, 1, 1, 320, 8, false, kLarge},
    {"copied keys and values of wide blocks", 4, 2, 1, 320, 8, false, kLarge},
    {"copied keys and values of wide blocks", 4, 3, 1, 192, 16, false, kLarge},  // halved, as other blocks
    {"copied keys and values of wide blocks", 4, 5, 1, 128, 20, false, kLarge},
    {"copied keys and values of wide blocks", 4, 6, 1, 64, 40, false, kLarge},
    {"copied keys and values of wide blocks", 8, 1, 1, 224, 12, false, kLarge},
    {"copied keys and values of wide blocks", 4, 1, 1, 320, 8, false, kLarge, 320 << 10},
    {"copied keys and values of wide blocks", 4, 1, 1, 128, 20, false, kLarge, 200 << 10},
    {"no value features", 4, 1, 1, 33, 2, false},
    {"no value features", 8, 2, 1, 32, 4, false},
};

}  // namespace

TEST_CASE("blocks, packed heads, and keys that are shared out") {
  for (const Row &r : kRows) {
    INFO(std::string(r.shape) << ", " << r.element << " bytes, " << r.threads << " threads");
    const NamedShape &s = named(r.shape);
    const AttentionPlan plan = plan_of(s.of(r.element), r.threads, r.room, 8, r.caches);
    CHECK(plan.heads == r.heads);
    CHECK(plan.block == r.block);
    CHECK(plan.tasks == r.tasks);
    CHECK(plan.blocks * (s.heads / r.heads) * s.batch == r.tasks);
    CHECK(plan.split_kv == r.splits);
    CHECK(plan.threads == r.threads);
  }
}

TEST_CASE("as many blocks as it takes not to leave threads idle: keys are not shared out then") {
  AttentionShape shape = named("long keys").of(4);
  for (const int64_t heads : {1, 3, 7, 8, 9, 11, 12, 13}) {
    INFO(heads << " heads");
    shape.heads = shape.kv_heads = heads;
    CHECK(plan_of(shape, 2).split_kv == (heads < 8 && heads % 2 != 0));
    CHECK(plan_of(shape, 3).split_kv == (heads < 12 && heads % 3 != 0));
  }
}

TEST_CASE("parts: how many a thread keeps, and their bytes") {
  struct Case {
    const char *shape;
    int64_t element, parts, bytes;
  };
  // Rows times value features, then two lines of whole vectors; 16 KiB of them, at least 8 and at most 64.
  for (const Case &c :
       {Case{"long keys", 4, 42, 64 * 4 + 2 * 64}, Case{"long keys", 8, 21, 64 * 8 + 2 * 128},
        Case{"far", 4, 64, 32 * 4 + 2 * 64}, Case{"far", 8, 32, 32 * 8 + 2 * 128},
        Case{"long keys of a group", 4, 18, 6 * 32 * 4 + 2 * 64}, Case{"far, many rows", 4, 8, 18 * 32 * 4 + 2 * 128},
        Case{"keys one too short", 4, 0, 16 * 33 * 4 + 2 * 64},
        Case{"scores of long keys", 4, 0, 4 * 64 * 4 + 2 * 64}}) {
    INFO(std::string(c.shape) << ", " << c.element << " bytes");
    const AttentionShape shape = named(c.shape).of(c.element);
    const AttentionPlan plan = plan_of(shape, 3);
    CHECK(plan.parts == c.parts);
    CHECK(plan.part_bytes == c.bytes);
    CHECK(plan.parts_bytes == (c.parts == 0 ? 0 : (c.parts + 1) * c.bytes));  // and the open span
    CHECK(attention_parts_bytes(shape) == plan.parts_bytes);
  }
  // Rows so large that a share has no room for eight, nor for one.
  AttentionShape large = {4, 16, 5000, 128, 128, 4, 1, 1, 1, 128, 1, false, false};
  CHECK(plan_of(large, 3).heads == 4);
  CHECK(plan_of(large, 3).parts == 3);
  large.features = large.value_features = large.k_key_stride = 4096;
  CHECK(plan_of(large, 3).parts == 1);
}

TEST_CASE("inside a block: query tiles, few rows, the output's lanes, copied keys") {
  const AttentionShape shape = named("prefill").of(4), wide = named("prefill").of(8);
  CHECK(plan_of(shape, 1).query_tile == 16);
  CHECK(plan_of(shape, 1, kRoomy, 8, kLarge).query_tile == 32);
  CHECK(plan_of(wide, 1).query_tile == 8);
  CHECK(plan_of(wide, 1, kRoomy, 4, kLarge).query_tile == 16);
  CHECK(query_tile(4, {(48 << 10) - 1, 1 << 20}) == 16);

  for (const int64_t lanes : {1, 2, 4, 8, 16}) {
    CHECK(plan_of(shape, 1, kRoomy, lanes).few_rows == (lanes == 1 ? 1 : lanes / 2));
    CHECK(plan_of(named("strided keys").of(4), 1, kRoomy, lanes).few_rows == 0);
    CHECK(plan_of(named("strided keys, one query").of(8), 1, kRoomy, lanes).few_rows == 0);
  }

  for (const NamedShape &s : kNamedShapes) {
    INFO(std::string(s.name));
    for (const int64_t element : {4, 8}) {
      const AttentionPlan plan = plan_of(s.of(element), 1);
      CHECK(plan.by_features == (s.value_features > 0 && (!s.has(kValuesStrided) || s.value_features == 1)));
      const int64_t stride = s.features == 60 ? 64 + 16 : s.features + 16;  // a line more than whole lines
      CHECK(plan.copied_stride == (s.has(kKeysApart) ? stride : 0));
      CHECK(plan_of(s.of(element), 1, 0).copied_stride == 0);
    }
  }
  // About a multiple of 2 KiB; less is not copied, since a few keys then share a line of the cache's sets.
  AttentionShape apart = shape;
  const auto copied = [&apart](int64_t stride) {
    apart.k_key_stride = stride;
    const bool forwards = plan_of(apart, 1).copied_stride != 0;
    apart.k_key_stride = -stride;
    CHECK((plan_of(apart, 1).copied_stride != 0) == forwards);
    CHECK((attention_need(apart).faster != 0) == forwards);
    return forwards;
  };
  for (const int64_t stride : {512, 1024, 512 - 63, 512 + 63, 2048 - 63, 2048 + 63}) CHECK(copied(stride));
  for (const int64_t stride : {0, 1, 16, 63, 64, 128, 256, 512 - 64, 512 + 64, 768, 1024 + 256}) CHECK(!copied(stride));
  apart.k_feature_stride = 2;
  CHECK(!copied(512));
}

TEST_CASE("wide blocks: what would come from a far L3, or be widened, for each block of queries") {
  AttentionShape shape = {4, 2000, 4096, 64, 64, 1, 1, 1, 1, 64, 1, false, false};  // 2 MiB of keys and values
  const auto block = [&shape](const Caches &caches = kLarge) { return plan_of(shape, 1, kRoomy, 8, caches).block; };
  CHECK(block() == 512);
  CHECK(block(kSmall) == 128);
  CHECK(plan_of(shape, 1, attention_need(shape).per_thread, 8, kLarge).block == 128);
  shape.keys = 4095;
  CHECK(block() == 128);
  shape.widens_v = true;
  CHECK(block() == 512);
  shape.widens_v = false, shape.paged = true;
  CHECK(block() == 512);
  shape.widens_k = shape.rounds = true, shape.features = shape.value_features = 128;
  CHECK(block() == 448);  // of as many as there is room for
  shape.queries = 512;
  CHECK(block() == 256);  // evenly
  shape.queries = 128;
  CHECK(block() == 128);
}

TEST_CASE("what is far: each key is read once, and all of them are more than the L2") {
  AttentionShape shape = {4, 1, 1 << 13, 32, 32, 16, 1, 1, 1, 32, 1, false, false};  // 1 MiB of keys
  const auto far = [&shape](const Caches &caches = kSmall) { return plan_of(shape, 1, kRoomy, 8, caches).far; };
  CHECK(!far());
  shape.keys += 1;
  CHECK(far());
  CHECK(!far(kLarge));
  shape.heads = 17;  // rows of the block
  CHECK(!far());
  shape.heads = 8;
  shape.queries = 2;
  CHECK(far());
  shape.queries = 3;
  CHECK(!far());
  shape.heads = 1;
  shape.queries = 16;
  CHECK(far());
  shape.queries = 17;
  CHECK(!far());
  shape.queries = 1;
  shape.element = 8;
  CHECK(far(kLarge) == (shape.keys * 256 > kLarge.l2));
  shape.k_key_stride = 33;  // with gaps
  CHECK(!far());
  shape.k_key_stride = 32;
  shape.k_feature_stride = 2;
  CHECK(!far());
}

#if defined(_SC_LEVEL1_DCACHE_SIZE)
TEST_CASE("caches are what the system says, or usual") {
  const auto known = [](int level, int64_t otherwise) {
    const int64_t bytes = sysconf(level);
    return bytes > 0 ? bytes : otherwise;
  };
  for (int i = 0; i < 2; ++i) {
    CHECK(caches().l1 == known(_SC_LEVEL1_DCACHE_SIZE, 32 << 10));
    CHECK(caches().l2 == known(_SC_LEVEL2_CACHE_SIZE, 1 << 20));
  }
}
#endif

TEST_CASE("how many threads are worth starting") {
  AttentionShape shape = {4, 64, 4095, 32, 32, 1, 1, 1, 1, 32, 1, false, false};  // 2^24 FMAs
  CHECK(attention_threads(attention_work(shape), 1) == 1);
  CHECK(attention_threads(attention_work(shape), 64) == 64);
  CHECK(attention_threads(attention_work(shape), 65) == 64);
  shape.heads = 2, shape.batch = 3;
  CHECK(attention_threads(attention_work(shape), 1000) == 6 * 64);
  shape.heads = shape.batch = 1;
  shape.value_features = 0;
  CHECK(attention_threads(attention_work(shape), 1000) == 32);
  shape.features = shape.value_features = 1;
  shape.keys = 0;
  CHECK(attention_threads(attention_work(shape), 8) == 1);
  shape.queries = 0;
  CHECK(attention_threads(attention_work(shape), 8) == 1);
  shape.queries = shape.keys = int64_t{1} << 60;  // does not overflow
  shape.features = shape.value_features = 1 << 20;
  CHECK(attention_threads(attention_work(shape), 8) == 8);
}

TEST_CASE("what a call needs") {
  AttentionShape shape = named("prefill").of(4);
  shape.kv_heads = shape.heads = 0;
  const Need none = attention_need(shape);
  CHECK(none.per_thread == 0);
  CHECK(none.faster == 0);
  CHECK(none.workspace(8) == 0);
  shape = named("prefill").of(4);
  shape.queries = 0;
  CHECK(attention_need(shape).tasks == 0);
  // Blocks of the smaller size: as many threads as they are may have something to do.
  CHECK(attention_need(named("prefill").of(4)).tasks == 10);
  CHECK(attention_need(named("prefill").of(8)).tasks == 20);
  CHECK(attention_need(named("causal, uneven").of(4)).tasks == 3 * 4 * 2);
  CHECK(attention_need(named("long keys").of(4)).tasks == 8200 / 256);
  CHECK(attention_need(named("long keys of a group").of(4)).tasks == 6 * 11);
  CHECK(attention_need(named("keys one too short").of(4)).tasks == 1);
  CHECK(attention_need(named("scores of long keys").of(4)).tasks == 4);
  shape = named("long keys").of(4);
  shape.keys = int64_t{1} << 60;
  CHECK(attention_need(shape).tasks == kMostThreads);
  shape.heads = shape.kv_heads = 2 * kMostThreads;
  CHECK(attention_need(shape).tasks == 2 * kMostThreads);

  CHECK(attention_need(named("copied keys").of(4)).faster == 256 * 80 * 4);
  CHECK(attention_need(named("copied keys of few queries").of(8)).faster == 256 * 80 * 8);
  shape = named("copied keys").of(4);
  shape.keys = 30;  // rounded up to whole lines
  CHECK(attention_need(shape).faster == 32 * 80 * 4);
}

namespace {

// Where the kernels keep what: regions that do not overlap and are large enough, in the scratch that is asked for.
void check_layout(const AttentionShape &s, const AttentionPlan &plan, int64_t room) {
  const AttentionLayout &l = plan.layout;
  const int64_t rows = plan.heads * std::min(plan.block, s.queries), lines = (rows + 15) / 16 * 16;
  const int64_t chunk = std::min<int64_t>(256, (s.keys + 15) / 16 * 16);
  int64_t wrong = 0;
  const auto holds = [&wrong](bool condition) { wrong += !condition; };
  holds(rows <= 2048 / s.element);
  holds(l.rows >= lines && l.rows % 16 == 0);
  holds(l.keys >= chunk && l.keys % 16 == 0);
  holds(l.state >= chunk * std::min(lines, plan.query_tile));
  holds(l.queries - l.state >= 10 * lines);
  holds(l.output - l.queries >= lines * s.features);
  holds(l.segments - l.output >= lines * s.value_features);
  if (s.looks) holds((l.copied - l.segments) * s.element >= lines / 2 * 128);  // tiles of two rows at least
  for (const int64_t at : {l.state, l.queries, l.output, l.segments, l.copied}) holds(at % 16 == 0);
  const Need need = attention_need(s);
  const int64_t end = l.copied + chunk * plan.copied_stride;
  holds(plan.parts_bytes + end * s.element <= room);
  holds(plan.copied_stride == 0 || plan.copied_stride >= s.features);
  holds(plan.values_stride == 0 || (plan.values_stride >= s.value_features && l.values >= end));
  holds(plan.parts_bytes + (l.values + chunk * plan.values_stride) * s.element <= room);
  holds(need.per_thread % 64 == 0 && need.faster % 64 == 0 && need.fastest % 64 == 0 && plan.parts_bytes % 64 == 0 &&
        plan.part_bytes % 64 == 0);
  holds(plan.parts == 0 || plan.part_bytes >= (rows * s.value_features + 2 * l.rows) * s.element);
  if (plan.split_kv) holds(plan.parts >= 1 && plan.parts_bytes >= (plan.parts + 1) * plan.part_bytes);
  // Blocks cover the queries, heads are packed in groups, and no thread that has a task is not counted with.
  holds(plan.blocks * plan.block >= s.queries && (plan.blocks - 1) * plan.block < s.queries);
  holds(plan.heads >= 1 && s.heads / s.kv_heads % plan.heads == 0);
  holds(plan.heads == 1 || plan.blocks == 1);
  holds(plan.tasks == plan.blocks * (s.heads / plan.heads) * s.batch);
  holds(plan.tasks <= need.tasks);
  holds(!plan.split_kv || (s.queries <= 16 && s.keys >= 1024 && !s.shows_scores && plan.threads > 1));
  holds(plan.few_rows <= plan.query_tile / 2);
  CHECK(wrong == 0);
}

bool same_layout(const AttentionLayout &a, const AttentionLayout &b) {
  return a.rows == b.rows && a.keys == b.keys && a.state == b.state && a.queries == b.queries && a.output == b.output &&
         a.segments == b.segments && a.copied == b.copied;
}

}  // namespace

TEST_CASE("all plans: the layout is large enough, fits what is asked for, and but in wide blocks is of no machine") {
  struct Machine {
    int threads, room;  // 0: what is needed, 1: what is asked for, 2: all
    int64_t lanes;
    Caches caches;
  };
  const Machine machines[] = {{1, 2, 8, kSmall}, {1, 0, 16, kLarge}, {2, 2, 4, kSmall},  {3, 0, 8, kLarge},
                              {3, 1, 8, kLarge}, {8, 2, 16, kLarge}, {300, 1, 1, kSmall}};
  int wide = 0;
  for (const int64_t element : {4, 8}) {
    for (const int64_t queries : {0, 1, 2, 5, 16, 17, 33, 64, 65, 128, 1000}) {
      for (const int64_t keys : {0, 1, 17, 255, 1023, 1024, 5000}) {
        for (const int64_t features : {1, 33, 64, 128}) {
          if (queries == 0 && keys >= 1024) continue;
          for (const int64_t group : {1, 3, 7, 8, 128}) {
            for (int variant = 0; variant < 6; ++variant) {
              const int64_t value_features = variant == 1 ? 0 : variant == 2 ? 128 : features;
              const int64_t key_stride = variant >= 3 ? 4096 / element : features;
              AttentionShape s = {element, queries, keys,       features, value_features,   group,       1,
                                  1,       1,       key_stride, 1,        variant % 2 == 0, variant == 5};
              s.v_key_stride = variant == 4 ? key_stride : 0;
              INFO(element << " bytes, Nq " << queries << " Nk " << keys << " D " << features << " Dv "
                           << value_features << " group " << group << " variant " << variant);
              const Need need = attention_need(s);
              const AttentionPlan first = plan_of(s, 1, 0);
              for (const Machine &m : machines) {
                const int64_t more = (m.room > 0 ? need.faster : 0) + (m.room > 1 ? need.fastest : 0);
                const AttentionPlan plan = plan_of(s, m.threads, need.per_thread + more, m.lanes, m.caches);
                check_layout(s, plan, need.per_thread + more);
                const bool is_wide = plan.heads * std::min(plan.block, queries) > 512 / element;
                wide += is_wide;
                CHECK((is_wide ? has_far_l3(m.caches) : same_layout(plan.layout, first.layout)));
                CHECK(plan.parts_bytes == first.parts_bytes);
                CHECK(plan.part_bytes == first.part_bytes);
              }
              CHECK(need.per_thread <= kShare);
              CHECK(need.per_thread + need.faster <=
                    kShare + (variant < 3 ? 0 : 256 * (features + value_features) * 4));
              CHECK(need.per_thread + need.fastest <= 1 << 20);
            }
          }
        }
      }
    }
  }
  CHECK(wide > 100);
}
