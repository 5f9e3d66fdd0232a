#include "drivers/attention_plan.hpp"

#include <algorithm>

#include "drivers/tensor.hpp"

namespace attend {
namespace {

// FMAs below which a further thread costs more than it saves.
constexpr double kWorkPerThread = 1 << 18;
// Queries of a head up to which its group is packed and its keys may be shared out.
constexpr int64_t kFewQueries = 16;
// Keys below which they are not.
constexpr int64_t kManyKeys = 4 * Contract<float>::kKeyChunk;

// The constants of the contract that count elements, by the bytes of one.
int64_t query_block(int64_t element) {
  return element == 4 ? Contract<float>::kQueryBlock : Contract<double>::kQueryBlock;
}
int64_t widest_block(int64_t element) {
  return element == 4 ? Contract<float>::kMostQueries : Contract<double>::kMostQueries;
}
int64_t score_lanes(int64_t element) {
  return element == 4 ? Contract<float>::kScoreLanes : Contract<double>::kScoreLanes;
}
constexpr int64_t kKeyChunk = Contract<float>::kKeyChunk;
static_assert(kKeyChunk == Contract<double>::kKeyChunk, "chunks count keys, not bytes");

// Query heads whose queries are rows of one block, at most: half a block, which leaves a thread's share room for parts.
int64_t most_packed(const AttentionShape &s) {
  const int64_t group = s.heads / s.kv_heads;
  if (s.queries > kFewQueries || s.queries == 0 || group <= 1) return 1;
  int64_t heads = std::min(group, query_block(s.element) / 2 / s.queries);
  while (group % heads != 0) --heads;
  return heads;
}

// Whether a chunk of K, and of V, is made ready in the scratch whatever its strides.
bool stages_k(const AttentionShape &s) { return s.widens_k || s.paged; }
bool stages_v(const AttentionShape &s) { return s.widens_v || s.paged; }

bool keys_share_sets(const AttentionShape &s) {
  return !stages_k(s) && s.k_feature_stride == 1 && columns_share_sets(s.k_key_stride * s.element);
}

int64_t room_for_keys(const AttentionShape &s) { return std::min(kKeyChunk, round_up(s.keys)); }

bool values_share_sets(const AttentionShape &s) {
  return !stages_v(s) && s.value_features > 0 && s.v_feature_stride == 1 &&
         columns_share_sets(s.v_key_stride * s.element);
}

// Bytes of copies that are made for speed alone.
int64_t copy_bytes(const AttentionShape &s) {
  return keys_share_sets(s) ? aligned(room_for_keys(s) * stride_of_copies(s.features) * s.element) : 0;
}
int64_t value_copy_bytes(const AttentionShape &s) {
  return values_share_sets(s) ? room_for_keys(s) * round_up(s.value_features) * s.element : 0;
}

// Whether keys and values come from the L3 again, or are widened or gathered again, for each block of queries: those that are
// more than the L2 holds, and those whose strides leave them a few of its sets. Where the L3 is far, wide blocks bring and
// copy them a quarter as often. (Emerald Rapids, N = 512, [N, H, D] beside heads apart: D = 64, 16 heads 1.18, by blocks of 256
// queries 1.10, of 512 1.09, with values copied too 1.02; D = 128 1.21, 1.12, 1.09, 1.02; values copied in blocks of 128 1.18.
// bf16 is 3 to 8 % faster, f64 of D = 128 from N = 2048 on 4 to 6, f32 of D = 128 2 to 3; at N = 1024, all in the L2, 2 % slower.)
bool brings_again(const AttentionShape &s) {
  return keys_share_sets(s) || stages_k(s) || stages_v(s) ||
         s.keys >= 2 * kUsualL2 / s.element / std::max<int64_t>(1, s.features + s.value_features);
}
int64_t wide_bytes(const AttentionShape &s, int64_t rows) {
  return attention_block_bytes(s, rows) + copy_bytes(s) + value_copy_bytes(s);
}
// Queries of a block, as many as there is room for and about as many in each, or 0: no more than usual.
int64_t wide_block(const AttentionShape &s, int64_t room) {
  const int64_t usual = query_block(s.element), step = usual / 2;
  if (s.queries <= usual || !brings_again(s)) return 0;
  int64_t rows = std::min(round_up(s.queries, step), widest_block(s.element));
  while (rows > usual && wide_bytes(s, rows) > room) rows -= step;
  const int64_t blocks = (s.queries + rows - 1) / rows, even = round_up((s.queries + blocks - 1) / blocks, step);
  return even > usual ? even : 0;
}
int64_t wide_block_bytes(const AttentionShape &s, int64_t room) {
  const int64_t rows = wide_block(s, room);
  return rows == 0 ? 0 : wide_bytes(s, rows);
}
// What a wide block may take: of a workspace a share beside the copies of a chunk of f32, of the library's own memory half of an
// L2 of 2 MiB.
int64_t wide_share(const AttentionShape &s) {
  const bool copies = keys_share_sets(s) || stages_k(s) || stages_v(s);
  return Need::kShare + (copies ? kKeyChunk * (s.features + s.value_features) * int64_t{sizeof(float)} : 0);
}
constexpr int64_t kMostWide = kUsualL2;

// Queries of a block at most. A chunk of keys is read from beyond the L2, and copied, once a block; but with the copy a
// thread shall need no more than a usual L2's share.
int64_t most_queries(const AttentionShape &s) {
  const int64_t full = query_block(s.element);
  const bool fits = attention_block_bytes(s, full) + copy_bytes(s) <= Need::kShare;
  return std::min(keys_share_sets(s) && !fits ? full / 2 : full, s.queries);
}

int64_t most_rows(const AttentionShape &s) {
  const int64_t packed = most_packed(s);
  return packed > 1 ? packed * s.queries : most_queries(s);
}

// Whether the keys of a block can be shared out: few queries over long keys.
bool can_split(const AttentionShape &s) { return s.queries <= kFewQueries && !s.shows_scores && s.keys >= kManyKeys; }

// Rows, then their maxima and sums in whole vectors.
int64_t part_bytes(const AttentionShape &s) {
  const int64_t rows = std::max<int64_t>(1, most_rows(s));
  return aligned((rows * s.value_features + 2 * round_up(rows)) * s.element);
}

// Parts that a thread keeps: the more the better where other processes hold a core, since all threads wait for each
// other to fold them, as far as the L1 and a thread's share have room.
int64_t parts_of(const AttentionShape &s) {
  constexpr int64_t kL1 = 16 << 10, kLeast = 8, kMost = 64;
  // (Few rows widen no chunk: that room does not count.)
  const int64_t block = aligned(attention_layout(s, most_rows(s)).values * s.element);
  const int64_t bytes = part_bytes(s), share = Need::kShare - block;
  return std::max<int64_t>(1, std::min(std::clamp(kL1 / bytes, kLeast, kMost), share / bytes - 1));
}

}  // namespace

AttentionLayout attention_layout(const AttentionShape &s, int64_t rows) {
  AttentionLayout l;
  l.rows = round_up(rows);
  l.keys = room_for_keys(s);
  l.state = l.keys * std::min(l.rows, score_lanes(s.element));
  l.queries = l.state + AttentionLayout::kStateLines * l.rows;
  l.output = l.queries + l.rows * s.features;
  l.segments = l.output + l.rows * s.value_features;
  // A byte for each segment of a tile, which has two rows at least; then a word for each segment of a row.
  const int64_t segments = std::min(l.kSegments, (s.keys + l.kSegment - 1) / l.kSegment);
  l.hidden = l.segments + (s.looks ? l.rows * (l.kSegments / 2) / s.element : 0);
  l.results = l.hidden + (s.looks ? round_up(l.rows * segments * int64_t{sizeof(uint32_t)} / s.element) : 0);
  l.values = l.results + (s.rounds ? l.rows * s.value_features : 0);
  l.copied = l.values + (stages_v(s) ? l.keys * round_up(s.value_features) : 0);
  l.end = l.copied + (stages_k(s) ? l.keys * stride_of_copies(s.features) : 0);
  return l;
}

int64_t attention_block_bytes(const AttentionShape &s, int64_t rows) {
  return aligned(attention_layout(s, rows).end * s.element);
}

int64_t attention_parts_bytes(const AttentionShape &s) { return can_split(s) ? (parts_of(s) + 1) * part_bytes(s) : 0; }

Need attention_need(const AttentionShape &s, bool packed) {
  Need need;
  if (s.kv_heads == 0) return need;
  const auto bytes = [](const AttentionShape &of) {
    return attention_parts_bytes(of) + attention_block_bytes(of, most_rows(of));
  };
  need.per_thread = bytes(s);
  const int64_t block = query_block(s.element) / 2;
  need.tasks = (s.queries + block - 1) / block * s.heads;
  if (!packed) need.tasks *= s.batch;
  AttentionShape few = s;
  for (few.queries = 1; packed && few.queries < std::min(s.queries, kFewQueries + 1); ++few.queries) {
    need.per_thread = std::max(need.per_thread, bytes(few));
  }
  if (packed && s.queries > 0) need.tasks += s.batch * s.heads;  // a sequence may end inside a block
  // (A stride of 0 makes keys without end of a few elements.)
  few.queries = packed ? 1 : s.queries;
  if (can_split(few) && need.tasks < kMostThreads) {
    need.tasks *= std::min<int64_t>(kMostThreads, s.keys / kKeyChunk);
  }
  need.set_faster(copy_bytes(s));
  need.faster = std::max(need.faster, wide_block_bytes(s, wide_share(s)) - need.per_thread);
  need.fastest = std::max(need.fastest, wide_block_bytes(s, kMostWide) - need.per_thread - need.faster);
  return need;
}

double attention_work(const AttentionShape &s) {
  return static_cast<double>(s.queries) * (static_cast<double>(s.keys) + 1) * static_cast<double>(s.heads * s.batch) *
         static_cast<double>(s.features + s.value_features);
}

int attention_threads(double work, int available) {
  return work < kWorkPerThread * available ? std::max(1, static_cast<int>(work / kWorkPerThread)) : available;
}

bool splits_keys(const AttentionPlan &plan, const AttentionShape &s, double work) {
  AttentionShape block = s;
  block.queries = std::min(plan.block, s.queries);
  block.heads = plan.heads;
  block.batch = 1;
  return plan.threads > 1 && plan.parts > 0 && s.keys >= kManyKeys &&
         attention_work(block) * 4 * static_cast<double>(plan.threads) > work;
}

AttentionPlan plan_attention(const AttentionShape &s, const AttentionMeans &means) {
  AttentionPlan plan = {};
  const int64_t threads = means.threads;
  plan.threads = threads;
  const int64_t wide = has_far_l3(means.caches) ? wide_block(s, std::min(means.room, kMostWide)) : 0;
  plan.block = wide > 0 ? wide : std::max<int64_t>(1, most_queries(s));
  const auto count = [&](int64_t heads) {
    plan.heads = heads;
    plan.blocks = (s.queries + plan.block - 1) / plan.block;
    plan.tasks = plan.blocks * (s.heads / heads) * s.batch;
  };
  // Fewer heads to a block where their keys cannot be shared out and too few blocks would be left.
  count(most_packed(s));
  while (plan.heads > 1 && !can_split(s) && plan.tasks < threads) {
    int64_t heads = plan.heads - 1;
    while (plan.heads % heads != 0) --heads;
    count(heads);
  }
  // Smaller blocks where there are too few of them to keep all threads at work to the end.
  const int64_t half = query_block(s.element) / 2;
  while (threads > 1 && plan.block > half && plan.tasks < 4 * threads) {
    plan.block = round_up(plan.block / 2, half);
    if (plan.block <= 2 * half) plan.block = std::min(plan.block, most_queries(s));
    count(plan.heads);
  }
  plan.split_kv = threads > 1 && can_split(s) && plan.tasks < 4 * threads && plan.tasks % threads != 0;
  plan.parts = can_split(s) ? parts_of(s) : 0;
  plan.part_bytes = part_bytes(s);
  plan.parts_bytes = attention_parts_bytes(s);

  plan.query_tile = query_tile(s.element, means.caches);
  plan.few_rows = few_rows(s.k_feature_stride, means.lanes);
  plan.by_features = s.v_feature_stride == 1 || stages_v(s);
  const bool is_wide = plan.block > 2 * half, copies_values = is_wide && values_share_sets(s);
  const auto has_room = [&] {
    return means.room >= plan.parts_bytes + attention_block_bytes(s, most_rows(s)) + copy_bytes(s);
  };
  plan.copied_stride = stages_k(s) || (keys_share_sets(s) && has_room()) ? stride_of_copies(s.features) : 0;
  plan.values_stride = stages_v(s) || copies_values ? round_up(s.value_features) : 0;
  // Each key and value is read for a few rows and does not come back: what the caches would need is asked for ahead.
  plan.far = plan.heads * std::min(plan.block, s.queries) <= kFewQueries && s.k_feature_stride == 1 &&
             s.k_key_stride == s.features && s.keys * s.features * s.element > means.caches.l2;
  plan.layout = attention_layout(s, is_wide ? plan.block : most_rows(s));
  if (copies_values) plan.layout.values = plan.layout.copied + room_for_keys(s) * plan.copied_stride;
  return plan;
}

}  // namespace attend
