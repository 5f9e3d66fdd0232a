// The named shapes through attend_attention, against the formula, with kernels that write down what they are given: each
// shape takes the path that it is named for, and what the plan says is what is done.
#include <mutex>
#include <set>

#include "attention_oracle.hpp"
#include "attention_shapes.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention.hpp"
#include "drivers/parallel.hpp"
#include "on_core.hpp"

using namespace attend;
using namespace attend::test;

namespace {

// What the kernels of one element type were given, in order.
template <class T>
struct Given {
  std::vector<AttentionBlock<T>> blocks;
  std::vector<FoldBlock<T>> folds;
};
template <class T>
Given<T> g_given;
template <class T>
const KernelsOf<T> *g_kernels = nullptr;
std::mutex g_mutex;

template <class T>
void watched_attention(const AttentionBlock<T> &x) {
  {
    const std::lock_guard<std::mutex> lock(g_mutex);
    g_given<T>.blocks.push_back(x);
  }
  g_kernels<T>->attention(x);
}
template <class T>
void watched_fold(const FoldBlock<T> &x) {
  g_given<T>.folds.push_back(x);
  g_kernels<T>->attention_fold(x);
}

// Runs f(kernels) with the watched kernels of each instruction set.
template <class T, class F>
void for_each_watched(const F &f) {
  for (int i = 0; const KernelTable *table = available_kernels(i); ++i) {
    KernelTable watched = *table;
    KernelsOf<T> *kernels = nullptr;
    if constexpr (sizeof(T) == 4) {
      kernels = &watched.f32;
    } else {
      kernels = &watched.f64;
    }
    g_kernels<T> = &kernels_of<T>(*table);
    kernels->attention = watched_attention<T>;
    kernels->attention_fold = watched_fold<T>;
    set_active_kernels(&watched);
    INFO(std::string(table->name));
    f(*kernels);
    set_active_kernels(nullptr);
  }
}

// The paths of a call.
enum Path : unsigned {
  kPacks = 1,       // queries of several heads in one block
  kBlocks = 2,      // several blocks of a head
  kSplits = 4,      // keys are shared out among threads,
  kRounds = 8,      // in several rounds
  kCopies = 16,     // of keys
  kByRows = 32,     // the output's lanes are rows
  kInScratch = 64,  // the output is summed in scratch
  kDiagonal = 128,  // queries see different keys
  kLooks = 256,     // at a mask or a bias
  kFar = 512,       // keys and values are asked for ahead
  kFew = 1024,      // lanes are keys, of one row (of how many more depends on the instruction set)
  kWide = 2048,     // more queries than usual in a block
  kValues = 4096,   // are copied
  kSpans = 8192,    // of keys, one after the other
};

struct Row {
  const char *shape;
  unsigned alone, by_three;                  // of f32, with one thread and with three
  unsigned far_alone = 0, far_by_three = 0;  // the same where the L3 is far, if that is not the same
};

const Row kPaths[] = {
    {"prefill", kBlocks, kBlocks},
    {"causal", kBlocks | kDiagonal, kBlocks | kDiagonal},
    {"causal, uneven", kBlocks | kDiagonal, kBlocks | kDiagonal},
    {"one query", kFew, kFew},
    {"few queries of a group", kPacks, kPacks},
    {"few queries of a group, uneven", kPacks | kInScratch, kPacks | kInScratch},
    {"one query of a group, uneven", kPacks, kPacks},  // heads equally far apart
    {"a group alone", kPacks, 0},
    {"many heads", kPacks, kPacks},
    {"group of seven", 0, 0},
    {"long keys", kFew, kFew | kSplits},
    {"long keys of a group", kPacks, kPacks | kSplits},
    {"long keys of a group, uneven", kPacks | kInScratch, kPacks | kSplits},  // parts are even
    {"long keys, strided values", kByRows | kInScratch, kSplits | kByRows | kInScratch},
    {"long keys of a causal block", kDiagonal, kSplits | kDiagonal},
    {"keys just long enough", 0, kSplits},
    {"keys one too short", 0, 0},
    {"one query too many", 0, 0},
    {"copied keys", kCopies, kCopies | kBlocks},
    {"copied keys, backwards", kCopies, kCopies | kBlocks},
    {"copied keys of large blocks", kCopies | kBlocks, kCopies | kBlocks, kCopies | kWide, kCopies | kBlocks},
    {"copied keys and values of wide blocks", kCopies | kBlocks, kCopies | kBlocks, kCopies | kBlocks | kWide | kValues,
     kCopies | kBlocks | kWide | kValues},
    {"copied keys of few queries", kCopies | kDiagonal, kCopies | kDiagonal | kSplits},
    {"strided values", kByRows | kInScratch, kByRows | kInScratch},
    {"strided values, one query", kFew | kByRows | kInScratch, kFew | kByRows | kInScratch},
    {"strided keys", 0, 0},
    {"strided keys, one query", 0, 0},
    {"one value feature", 0, 0},  // contiguous, whatever its stride
    {"mask", kLooks, kLooks},
    {"bias", kLooks, kLooks},
    {"mask, one query of a group", kPacks | kLooks, kPacks | kLooks},
    {"far", kFew | kFar | kSpans | kInScratch, kFew | kFar | kSplits},
    {"far, many rows", kPacks | kSpans | kInScratch, kPacks | kSplits | kRounds},
    {"scores", 0, 0},
    {"scores of long keys", kPacks, 0},
    {"no value features", kByRows | kInScratch, kByRows | kInScratch},
};
static_assert(std::size(kPaths) == std::size(kNamedShapes), "each shape has a row");

template <class T>
unsigned path_of(const Given<T> &given, const NamedShape &s) {
  unsigned path = 0;
  const auto take = [&path](bool taken, Path which) { path |= taken ? which : 0u; };
  for (const AttentionBlock<T> &x : given.blocks) {
    take(x.heads > 1, kPacks);
    take(x.items < s.queries, kBlocks);
    take(x.part, kSplits);
    take(x.copied_stride != 0, kCopies);
    take(x.values_stride != 0, kValues);
    take(x.items > 128, kWide);
    take(!x.by_features, kByRows);
    take(!x.in_place, kInScratch);
    take(x.rises, kDiagonal);
    take(x.looked_at, kLooks);
    take(x.far, kFar);
    take(x.rows == 1 && x.few_rows >= 1, kFew);
    take(x.spans, kSpans);
  }
  for (const FoldBlock<T> &fold : given.folds) take(!fold.ends, kRounds);
  return path;
}

// The operands of a named shape.
template <class T>
struct NamedCall {
  using O = Operand<T>;
  const NamedShape &s;
  O q, k, v, out, lse, scores, bias;
  std::vector<uint8_t> mask_bytes;
  attend_tensor mask = {};
  attend_attention_options options = options_with<attend_attention_options>(1);
  reference::AttentionSpec<Wide<T>> spec;

  static typename O::Layout layout(bool by_rows, bool uneven = false) {
    typename O::Layout l;
    if (by_rows) l.order = {1, 0, 2, 3};
    if (uneven) l.order = {0, 2, 1, 3};
    return l;
  }
  static typename O::Layout apart(typename O::Layout l, bool are_apart, int64_t features) {
    if (are_apart) l.padding = 2048 / static_cast<int64_t>(sizeof(T)) - features;
    return l;
  }
  static typename O::Layout layout_of_keys(const NamedShape &s) {
    typename O::Layout l = apart(layout(s.has(kKeysStrided)), s.has(kKeysApart), s.features);
    if (s.has(kBackwards)) l.sign[1] = -1;
    return l;
  }
  NamedCall(const NamedShape &shape, Random &random)
      : s(shape),
        q({s.features, s.queries, s.heads, s.batch}, layout(false, s.has(kRowsUneven))),
        k({s.features, s.keys, s.kv_heads, s.batch}, layout_of_keys(s)),
        v({s.value_features, s.keys, s.kv_heads, s.batch},
          apart(layout(s.has(kValuesStrided)), s.has(kValuesApart), s.value_features)),
        out({s.value_features, s.queries, s.heads, s.batch}, layout(false, s.has(kRowsUneven))),
        lse({1, s.queries, s.heads, s.batch}, {}),
        scores({s.keys, s.queries, s.heads, s.batch}, {}),
        bias({s.keys, s.queries, 1, 1}, {}) {
    for (O *o : {&q, &k, &v}) o->fill(random);
    if (s.has(kCausal)) options.flags = ATTEND_CAUSAL_BOTTOM_RIGHT, spec.causal = reference::Causal::bottom_right;
    if (s.has(kBiased)) {
      bias.fill(random);
      options.bias = bias.tensor();
      spec.bias = [this](int64_t j, int64_t i, auto...) { return Wide<T>(bias.at(j, i)); };
    }
    if (!s.has(kMasked)) return;
    for (int64_t n = 0; n < s.keys * s.queries; ++n) mask_bytes.push_back(random.one_in(3) ? 0 : 1);
    mask = {mask_bytes.data(), ATTEND_BOOL, 2, {s.keys, s.queries, 1, 1}, {1, s.keys, 0, 0}};
    options.mask = &mask;
    spec.mask = [this](int64_t j, int64_t i, auto...) { return mask_bytes[static_cast<size_t>(i * s.keys + j)] != 0; };
  }
  NamedCall(const NamedCall &) = delete;
  NamedCall &operator=(const NamedCall &) = delete;

  void run() {
    for (O *o : {&out, &lse, &scores}) o->fill_with(std::numeric_limits<T>::quiet_NaN());
    options.lse = lse.tensor();
    options.scores = s.has(kScores) ? scores.tensor() : nullptr;
    g_given<T> = {};
    ok(attend_attention(q.tensor(), k.tensor(), v.tensor(), out.tensor(), &options));
    for (O *o : {&out, &lse, &scores}) CHECK(o->gaps_untouched());
  }
  void compare(const Expected<T> &want) {
    CHECK(want.of_out(out) <= 1);
    CHECK(want.of_lse(lse) <= 1);
    if (s.has(kScores)) CHECK(want.of_scores(scores) <= 1);
  }
};

template <class T>
bool is_of(const AttentionBlock<T> &x, const AttentionPlan &plan) {
  const AttentionLayout &a = x.layout, &b = plan.layout;
  return x.heads == plan.heads && x.query_tile == plan.query_tile && x.few_rows == plan.few_rows &&
         x.by_features == plan.by_features && x.copied_stride == plan.copied_stride &&
         x.values_stride == plan.values_stride && x.far == plan.far && a.rows == b.rows && a.keys == b.keys &&
         a.state == b.state && a.queries == b.queries && a.output == b.output && a.segments == b.segments &&
         a.values == b.values && a.copied == b.copied;
}

// The blocks of the plan, each once; of one thread those of a head from the last, which sees the most keys, to the first.
template <class T>
void check_blocks(NamedCall<T> &call, const AttentionPlan &plan) {
  std::vector<AttentionBlock<T>> got = g_given<T>.blocks;
  REQUIRE(static_cast<int64_t>(got.size()) == plan.tasks);
  CHECK(g_given<T>.folds.empty());
  std::vector<std::pair<T *, int64_t>> blocks, want;
  for (const AttentionBlock<T> &x : got) blocks.push_back({x.out.data, x.items});
  for (int64_t b = 0; b < call.s.batch; ++b) {
    for (int64_t h = 0; h < call.s.heads; h += plan.heads) {
      for (int64_t block = plan.blocks - 1; block >= 0; --block) {
        const int64_t i = block * plan.block;
        want.push_back({&call.out.at(0, i, h, b), std::min(plan.block, call.s.queries - i)});
      }
    }
  }
  if (plan.threads > 1) {
    for (auto *list : {&blocks, &want}) std::sort(list->begin(), list->end());
  }
  CHECK((blocks == want || call.s.value_features == 0));
  for (const AttentionBlock<T> &x : got) CHECK(!x.part);
}

// The chunks of every block, in rounds of as many as the threads have room for.
template <class T>
void check_parts(const NamedCall<T> &call, const AttentionPlan &plan) {
  const int64_t chunks = (call.s.keys + 255) / 256, room = std::min<int64_t>(256, plan.threads * plan.parts);
  auto block = g_given<T>.blocks.begin();
  auto fold = g_given<T>.folds.begin();
  REQUIRE(static_cast<int64_t>(g_given<T>.blocks.size()) == plan.tasks * chunks);
  REQUIRE(static_cast<int64_t>(g_given<T>.folds.size()) == plan.tasks * ((chunks + room - 1) / room));
  for (int64_t task = 0; task < plan.tasks; ++task) {
    for (int64_t chunk = 0; chunk < chunks; chunk += room, ++fold) {
      const int64_t count = std::min(room, chunks - chunk);
      CHECK(fold->chunk == chunk);
      CHECK(fold->chunks == count);
      CHECK(fold->begins == (chunk == 0));
      CHECK(fold->ends == (chunk + count == chunks));
      std::sort(block, block + count, [](const auto &a, const auto &b) { return a.part_begin < b.part_begin; });
      std::vector<const T *> kept;
      for (int64_t c = chunk; c < chunk + count; ++c, ++block) {
        CHECK(block->part);
        CHECK(block->items == call.s.queries);
        CHECK(block->part_begin == c * 256);
        CHECK(block->keys == std::min(call.s.keys, (c + 1) * 256));
        kept.push_back(block->out.data);
      }
      std::sort(kept.begin(), kept.end());
      for (size_t i = 1; i < kept.size(); ++i) {
        CHECK((kept[i] - kept[i - 1]) * static_cast<int64_t>(sizeof(T)) >= plan.part_bytes);
      }
    }
  }
}

}  // namespace

namespace {

// One named shape on the core that is played: by one thread and by three; in memory of the library's own, in a workspace
// as large as is asked for, and in one as small as may be.
template <class T>
void check_paths(NamedCall<T> &call, const Row &row, const Expected<T> &want) {
  const NamedShape &s = call.s;
  const AttentionShape shape = s.of(sizeof(T));
  const Need need = attention_need(shape);
  const std::set<int64_t, std::greater<int64_t>> rooms = {need.faster + need.fastest, need.faster, 0};
  for_each_watched<T>([&](const KernelsOf<T> &kernels) {
    std::vector<T> first;
    for (const int32_t requested : {1, 3}) {
      for (const int64_t more : rooms) {
        const bool own = more == *rooms.begin();
        INFO(requested << " threads, bytes more for each " << more);
        const int threads = static_cast<int>(std::min<int64_t>(
            attention_threads(attention_work(shape), usable_threads(requested)), std::max<int64_t>(1, need.tasks)));
        std::vector<char> workspace(static_cast<size_t>(need.with(more).bytes(threads)));
        call.options.threads = requested;
        call.options.workspace = own ? nullptr : workspace.data();
        call.options.workspace_size = own ? 0 : workspace.size();
        call.run();
        call.compare(want);
        if (first.empty()) first = call.out.values();
        CHECK(same_bits(first, call.out.values()));

        const int64_t room = need.per_thread + more;
        const AttentionPlan plan = plan_attention(shape, {threads, room, kernels.attention_lanes, caches()});
        for (const AttentionBlock<T> &x : g_given<T>.blocks) CHECK(is_of(x, plan));
        plan.split_kv ? check_parts(call, plan) : check_blocks(call, plan);
        if (sizeof(T) != 4 || usable_threads(requested) != requested) continue;
        unsigned path = requested == 1 ? row.alone : row.by_three;
        const unsigned far_path = requested == 1 ? row.far_alone : row.far_by_three;
        if (has_far_l3(caches()) && own && far_path != 0) path = far_path;
        if (!own && more == 0) path &= ~kCopies;
        unsigned taken = path_of(g_given<T>, s);
        // Whether it must be far is up to the caches: where they are small other shapes are too.
        if (caches().l2 >= s.keys * s.features * 4) path &= ~kFar;
        if ((path & kFar) == 0) taken &= ~kFar;
        if (has_far_l3(caches()) && !own &&
            more > 0) {  // as wide as there is room for: the plan's blocks, compared above
          taken &= ~(kWide | kValues | kBlocks);
          path &= ~(kWide | kValues | kBlocks);
        }
        CHECK(taken == path);
      }
    }
  });
}

}  // namespace

TEST_CASE_TEMPLATE("each named shape: the formula, its path, and the plan", T, float, double) {
  Random random(sizeof(T) == 4 ? 1201 : 1202);
  for (size_t n = 0; n < std::size(kNamedShapes); ++n) {
    const NamedShape &s = kNamedShapes[n];
    INFO(std::string(s.name));
    REQUIRE(std::string(s.name) == kPaths[n].shape);
    NamedCall<T> call(s, random);
    const Expected<T> want(call.q, call.k, call.v, call.spec, s.has(kBiased) ? 6 : 0);
    if (!s.has(kKeysApart)) {
      check_paths(call, kPaths[n], want);
      continue;
    }
    for (const Caches &core : {Caches{32 << 10, 1 << 20}, Caches{48 << 10, 2 << 20}}) {
      INFO("an L2 of " << core.l2);
      const OnCore played(core);
      check_paths(call, kPaths[n], want);
    }
  }
}

TEST_CASE("every path is that of some named shape, and of some it is not") {
  unsigned taken = 0, always = ~0u;
  for (const Row &r : kPaths) {
    taken |= r.alone | r.by_three | r.far_alone | r.far_by_three;
    always &= r.alone & r.by_three;
  }
  CHECK(taken == 2 * kSpans - 1);
  CHECK(always == 0);
}

// What is short is one block of one head with no more than it needs: its line of scores is not even counted.
TEST_CASE_TEMPLATE("short calls are one block, made without a plan", T, float, double) {
  Random random(sizeof(T) == 4 ? 1211 : 1212);
  const NamedShape shapes[] = {{"one block", 20, 30, 16, 24, 1, 1, 1, 0},
                               {"a whole chunk", 2, 256, 16, 24, 1, 1, 1, 0},
                               {"values by rows", 5, 40, 16, 24, 1, 1, 1, kValuesStrided},
                               {"keys by rows", 5, 40, 16, 24, 1, 1, 1, kKeysStrided},
                               {"more than a chunk", 2, 257, 16, 24, 1, 1, 1, 0},
                               {"two heads", 2, 40, 16, 24, 2, 1, 1, 0},
                               {"too much work", 60, 250, 16, 24, 1, 1, 1, 0},
                               {"a diagonal", 5, 40, 16, 24, 1, 1, 1, kCausal}};
  for (const NamedShape &s : shapes) {
    INFO(std::string(s.name));
    const bool is_short = &s - shapes < 4;
    NamedCall<T> call(s, random);
    const Expected<T> want(call.q, call.k, call.v, call.spec);
    for_each_watched<T>([&](const KernelsOf<T> &kernels) {
      call.out.fill_with(std::numeric_limits<T>::quiet_NaN());
      g_given<T> = {};
      ok(attend_attention(call.q.tensor(), call.k.tensor(), call.v.tensor(), call.out.tensor(), &call.options));
      CHECK(want.of_out(call.out) <= 1);
      REQUIRE(g_given<T>.blocks.size() == 1);
      const AttentionBlock<T> &x = g_given<T>.blocks[0];
      CHECK((x.scores_keys == 0) == is_short);
      const AttentionPlan plan = plan_attention(s.of(sizeof(T)), {1, true, kernels.attention_lanes, caches()});
      CHECK(is_of(x, plan));
    });
  }
}
