#include "drivers/attention.hpp"

#include <algorithm>
#include <cmath>

namespace attend {
namespace {

constexpr double kLn2 = 0.6931471805599453;
// FMAs below which a further thread costs more than it saves.
constexpr double kWorkPerThread = 1 << 18;
// Queries of a block whose keys may be taken in parts, and heads that go through them side by side.
constexpr int64_t kPartQueries = 16, kSideBySide = 8;

// Whether the query heads that share a key and value head go through its keys together, as if they were queries: with
// one query each they would read K and V as often as there are heads in the group. (Slopes and sinks belong to heads,
// not to queries.)
template <class T>
bool shares_pass(const Attention &p) {
  return p.out.columns() == 1 && p.out.heads() > p.k.heads() && !p.slopes && !p.sinks &&
         p.out.heads() / p.k.heads() <= Contract<T>::kQueryBlock;
}

// Blocks of so many queries.
template <class T>
int64_t tasks_of(const Attention &p, int64_t size) {
  const int64_t blocks = (p.out.columns() + size - 1) / size;
  return blocks * (shares_pass<T>(p) ? p.k.heads() : p.out.heads()) * p.out.batch();
}

template <class T>
constexpr int64_t bytes_of(int64_t elements) {
  return aligned(elements * static_cast<int64_t>(sizeof(T)));
}

// Whether the keys of a tile, 12 or 16 that are read side by side, begin in the same sets of the L1, which repeat every
// 4 KiB.
template <class T>
bool copies_keys(const Attention &p) {
  constexpr int64_t kHalf = 2048;
  const int64_t bytes = p.k.stride[1] * static_cast<int64_t>(sizeof(T));
  return p.k.stride[0] == 1 && std::abs(bytes) > kHalf / 2 && shares_sets(bytes, kHalf);
}

// Elements between two keys of a copied chunk: a line more than whole lines, so that they begin in different sets.
int64_t copied_item(const Attention &p) { return (p.k.rows() + 15) / 16 * 16 + 16; }

template <class T>
int64_t copy_bytes(const Attention &p) {
  return bytes_of<T>(scratch_keys<T>(p.k.columns()) * copied_item(p));
}

// Queries of a block at most: those of a head, or one of every head of a group. A chunk of keys is read from beyond the
// L2, and copied, once a block; but with the copy a thread shall need no more than a usual L2's share.
template <class T>
int64_t most_queries(const Attention &p) {
  constexpr int64_t kFull = Contract<T>::kQueryBlock;
  if (shares_pass<T>(p)) return p.out.heads() / p.k.heads();
  const bool fits =
      attention_block_bytes<T>(kFull, p.k.columns(), p.q.rows(), p.v.rows()) + copy_bytes<T>(p) <= Need::kShare;
  return std::min(copies_keys<T>(p) && !fits ? kFull / 2 : kFull, p.out.columns());
}

// Whether the keys of a block can be taken in parts, chunk by chunk: few queries over long keys.
template <class T>
bool can_split(const Attention &p) {
  return most_queries<T>(p) <= kPartQueries && !p.scores && p.k.columns() >= 4 * Contract<T>::kKeyChunk;
}

// Of a thread's scratch the parts come first, then the block's own, last the copy of a chunk's keys.
template <class T>
int64_t part_bytes(const Attention &p) {
  return bytes_of<T>(most_queries<T>(p) * (p.v.rows() + 2));
}

// Parts that a thread keeps, results over a chunk of keys each, before all wait for each other to fold them: the more
// the better where other processes hold a core, as far as the L1 has room.
template <class T>
int64_t parts_of(const Attention &p) {
  return std::clamp<int64_t>((16 << 10) / part_bytes<T>(p), kSideBySide, 64);
}

template <class T>
int64_t parts_bytes(const Attention &p) {
  return can_split<T>(p) ? parts_of<T>(p) * part_bytes<T>(p) : 0;
}

template <class T>
Need need_of(const Attention &p) {
  Need need;
  if (p.k.heads() == 0) return need;
  const int64_t keys = p.k.columns();
  need.per_thread = parts_bytes<T>(p) + attention_block_bytes<T>(most_queries<T>(p), keys, p.q.rows(), p.v.rows());
  if (copies_keys<T>(p)) need.faster = copy_bytes<T>(p);
  need.tasks = tasks_of<T>(p, Contract<T>::kQueryBlock / 2);
  // (A stride of 0 makes keys without end of a few elements.)
  if (can_split<T>(p) && need.tasks < kMostThreads) {
    need.tasks *= std::min<int64_t>(kMostThreads, p.k.columns() / Contract<T>::kKeyChunk);
  }
  return need;
}

// Where sums of a few positions cannot overflow.
int64_t near(int64_t position) {
  constexpr int64_t kFar = int64_t{1} << 60;
  return std::clamp(position, -kFar, kFar);
}

// The sum of two of any size, which may be near although they are not.
int64_t near_sum(int64_t a, int64_t b) {
  int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) sum = b < 0 ? INT64_MIN : INT64_MAX;
  return near(sum);
}

int64_t keys_of(const Attention &p, int64_t batch) { return p.lengths != nullptr ? p.lengths[batch] : p.k.columns(); }

// Which keys the block that begins with query `first` sees.
template <class T>
void set_visible(const Attention &p, int64_t first, int64_t batch, AttentionBlock<T> *x) {
  const int64_t offset = p.bottom_right         ? keys_of(p, batch) - p.out.columns()
                         : p.offsets != nullptr ? p.offsets[batch]
                                                : p.offset;
  const int64_t position = near(offset) + first;
  x->keys = keys_of(p, batch);
  x->visible = x->keys;
  if (p.causal || p.right >= 0) {
    x->visible = first + 1 + (p.causal ? near(offset) : near_sum(offset, p.right));
    x->visible_step = 1;
  }
  if (p.left >= 0) {
    x->hidden = first + near_sum(offset, -p.left);
    x->hidden_step = 1;
  }
  x->position = position;
}

template <class T>
AttentionBlock<T> block_of(const Attention &p, int64_t first, int64_t queries, int64_t head, int64_t batch) {
  const int64_t kv_head = head / (p.out.heads() / p.k.heads());
  AttentionBlock<T> x = {};
  x.queries = std::min(queries, p.out.columns() - first);
  set_visible(p, first, batch, &x);
  x.features = p.q.rows();
  x.value_features = p.v.rows();
  x.q = p.q.at<T>(0, first, head, batch);
  x.q_feature = p.q.stride[0];
  x.q_item = p.q.stride[1];
  x.k = p.k.at<T>(0, 0, kv_head, batch);
  x.k_feature = p.k.stride[0];
  x.k_item = p.k.stride[1];
  x.v = p.v.at<T>(0, 0, kv_head, batch);
  // One feature is contiguous whatever its stride.
  x.v_feature = p.v.rows() == 1 ? 1 : p.v.stride[0];
  x.v_item = p.v.stride[1];
  x.out = p.out.at<T>(0, first, head, batch);
  x.out_feature = p.v.rows() == 1 ? 1 : p.out.stride[0];
  x.out_item = p.out.stride[1];
  x.scale_log2 = static_cast<T>(p.scale * kLog2E);
  x.softcap = static_cast<T>(p.softcap * kLog2E);
  if (p.slopes) x.slope = *p.slopes.at<T>(head, 0, 0, 0) * static_cast<T>(kLog2E);
  if (p.sinks) x.sink = p.sinks.at<T>(head, 0, 0, 0);
  if (p.bias) {
    x.bias = p.bias.at<T>(0, first, head, batch);
    x.bias_key = p.bias.stride[0];
    x.bias_item = p.bias.stride[1];
  }
  if (p.mask) {
    x.mask = p.mask.at<uint8_t>(0, first, head, batch);
    x.mask_key = p.mask.stride[0];
    x.mask_item = p.mask.stride[1];
  }
  if (p.scores) {
    x.scores = p.scores.at<T>(0, first, head, batch);
    x.scores_keys = p.k.columns();
    x.scores_key = p.scores.stride[0];
    x.scores_item = p.scores.stride[1];
    x.scores_stage = p.scores_stage;
  }
  set_scratch_sizes(most_queries<T>(p), p.k.columns(), &x);
  // Each key and value is read for at most 16 queries and does not come back: what the caches would need is asked for
  // ahead.
  constexpr int64_t kFew = 16, kBytes = 1 << 20;
  x.far = x.queries <= kFew && x.k_feature == 1 && x.k_item == x.features &&
          x.keys * x.features * static_cast<int64_t>(sizeof(T)) > kBytes;
  if (shares_pass<T>(p)) {
    x.queries = p.out.heads() / p.k.heads();
    x.visible_step = x.hidden_step = 0;  // one query, one position
    x.q_item = p.q.stride[2];
    x.out_item = p.out.stride[2];
    x.bias_item = p.bias ? p.bias.stride[2] : 0;
    x.mask_item = p.mask ? p.mask.stride[2] : 0;
    x.scores_item = p.scores ? p.scores.stride[2] : 0;
  }
  return x;
}

template <class T>
void store_lse(const Attention &p, const AttentionBlock<T> &x, int64_t first, int64_t head, int64_t batch) {
  if (!p.lse) return;
  const bool shares = shares_pass<T>(p);
  for (int64_t i = 0; i < x.queries; ++i) {
    *p.lse.at<T>(0, shares ? 0 : first + i, shares ? head + i : head, batch) =
        static_cast<T>(static_cast<double>(x.maximum[i]) * kLn2 + std::log(static_cast<double>(x.sum[i])));
  }
}

// Lends the block a thread's scratch.
template <class T>
void set_scratch(const Attention &p, const Scratch &scratch, int thread, AttentionBlock<T> *x) {
  x->scratch = reinterpret_cast<T *>(scratch.of_thread(thread) + parts_bytes<T>(p));
  x->copied_item = copies_keys<T>(p) && scratch.is_faster() ? copied_item(p) : 0;
}

template <class T>
void run_block(void (*kernel)(const AttentionBlock<T> &), const Attention &p, int64_t first, int64_t queries,
               int64_t head, int64_t batch, const Scratch &scratch, int thread) {
  T maximum[Contract<T>::kQueryBlock], sum[Contract<T>::kQueryBlock];
  AttentionBlock<T> x = block_of<T>(p, first, queries, head, batch);
  x.maximum = maximum;
  x.sum = sum;
  set_scratch(p, scratch, thread, &x);
  kernel(x);
  store_lse(p, x, first, head, batch);
}

template <class T>
struct Kernels {
  void (*attention)(const AttentionBlock<T> &);
  void (*fold)(const FoldBlock<T> &);
};

// Query heads that share a key and value head go through its keys side by side, chunk by chunk, where each alone would
// read them from beyond the L2: at most so many.
template <class T>
int64_t heads_side_by_side(const Attention &p) {
  constexpr int64_t kFar = 1 << 20;
  const int64_t group = p.out.heads() / p.k.heads(), features = p.q.rows() + p.v.rows();
  if (group == 1 || shares_pass<T>(p) || !can_split<T>(p)) return 1;
  if (p.k.columns() * features * static_cast<int64_t>(sizeof(T)) < kFar) return 1;
  int64_t heads = std::min(group, kSideBySide);
  while (group % heads != 0) --heads;
  return heads;
}

// A block of each of `heads` neighbouring heads, which share a key and value head, on `team` threads from `thread` on:
// the chunks of their keys in parallel, as many as there is room for, then their fold in order. (Not inlined, to keep
// frames below 8 KiB.)
template <class T>
__attribute__((noinline)) void run_parts(const Kernels<T> &kernels, const Attention &p, int64_t head, int64_t heads,
                                         int64_t batch, const Scratch &scratch, int thread, int team) {
  constexpr int64_t kChunk = Contract<T>::kKeyChunk;
  T maximum[kSideBySide][kPartQueries], sum[kSideBySide][kPartQueries];
  AttentionBlock<T> blocks[kSideBySide] = {};
  for (int64_t h = 0; h < heads; ++h) {
    blocks[h] = block_of<T>(p, 0, kPartQueries, head + h, batch);
    blocks[h].maximum = maximum[h];
    blocks[h].sum = sum[h];
  }
  const AttentionBlock<T> &x = blocks[0];
  const auto seen = [&](int64_t bound, int64_t step, int64_t i) {
    return std::clamp<int64_t>(bound + step * i, 0, x.keys);
  };
  const int64_t begin = seen(x.hidden, x.hidden_step, 0) / kChunk;
  const int64_t end = (seen(x.visible, x.visible_step, x.queries - 1) + kChunk - 1) / kChunk;
  const int64_t kept = parts_of<T>(p);
  const auto part = [&](int64_t i) {
    return reinterpret_cast<T *>(scratch.of_thread(thread + static_cast<int>(i / kept)) + i % kept * part_bytes<T>(p));
  };
  constexpr int64_t kMostChunks = 256;
  const T *parts[kMostChunks];
  const int64_t room = std::min(kMostChunks, team * kept / heads);
  int64_t chunk = begin;
  do {
    const int64_t count = std::clamp<int64_t>(end - chunk, 0, room);
    parallel_for(team, count, [&](int64_t i, int worker) {
      for (int64_t h = 0; h < heads; ++h) {
        AttentionBlock<T> y = blocks[h];
        y.part = true;
        y.from_key = (chunk + i) * kChunk;
        y.keys = std::min(x.keys, y.from_key + kChunk);
        y.sink = nullptr;
        y.out = part(i * heads + h);
        y.out_item = x.value_features;
        y.out_feature = 1;
        y.maximum = y.out + x.queries * x.value_features;
        y.sum = y.maximum + x.queries;
        set_scratch(p, scratch, thread + worker, &y);
        kernels.attention(y);
      }
    });
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < count; ++i) parts[i] = part(i * heads + h);
      kernels.fold({&blocks[h], chunk == begin, chunk, count, parts});
    }
    chunk += count;
  } while (chunk < end);
  for (int64_t h = 0; h < heads; ++h) store_lse(p, blocks[h], 0, head + h, batch);
}

template <class T>
Acquired run(const Kernels<T> &kernels, const Attention &p, const Execution &execution) {
  const Need need = need_of<T>(p);
  if (need.tasks == 0) return Acquired::ok;
  int threads = usable_threads(execution.threads);
  const double work = static_cast<double>(p.out.columns()) * (static_cast<double>(p.k.columns()) + 1) *
                      static_cast<double>(p.out.heads() * p.out.batch()) * static_cast<double>(p.q.rows() + p.v.rows());
  if (work < kWorkPerThread * threads) threads = std::max(1, static_cast<int>(work / kWorkPerThread));
  const Scratch scratch(execution, need, threads);
  if (scratch.result() != Acquired::ok) return scratch.result();

  if (p.k.heads() == 0) return Acquired::ok;

  // Few queries: one block a head, or one for all heads side by side.
  const int workers = scratch.threads();
  const int64_t side_by_side = heads_side_by_side<T>(p);
  const int64_t heads = (shares_pass<T>(p) ? p.k.heads() : p.out.heads()) / side_by_side;
  // Smaller blocks where there are too few of them to keep all threads at work to the end.
  int64_t size = std::max<int64_t>(1, most_queries<T>(p));
  constexpr int64_t kHalf = Contract<T>::kQueryBlock / 2;
  if (workers > 1 && size > kHalf && tasks_of<T>(p, size) < 4 * workers) size = kHalf;
  if (shares_pass<T>(p)) size = 1;
  const int64_t blocks = (p.out.columns() + size - 1) / size, tasks = blocks * heads * p.out.batch();
  const bool splits = workers > 1 && can_split<T>(p) && tasks < 4 * workers && tasks % workers != 0;
  // Blocks of one head follow each other, sharing its keys and values; under a causal mask the longest come first.
  const auto run_task = [&](int64_t task, int thread, int team) {
    const int64_t block = blocks - 1 - task % blocks, slice = task / blocks;
    const int64_t head = slice % heads * (p.out.heads() / heads), batch = slice / heads;
    if (splits || side_by_side > 1) return run_parts(kernels, p, head, side_by_side, batch, scratch, thread, team);
    run_block(kernels.attention, p, block * size, size, head, batch, scratch, thread);
  };
  if (splits) {
    for (int64_t task = 0; task < tasks; ++task) run_task(task, 0, workers);
  } else {
    parallel_for(workers, tasks, [&](int64_t task, int thread) { run_task(task, thread, 1); });
  }
  return Acquired::ok;
}

}  // namespace

Need attention_need(const Attention &problem) {
  return problem.dtype == Dtype::f32 ? need_of<float>(problem) : need_of<double>(problem);
}

Acquired attention(const KernelTable &kernels, const Attention &problem, const Execution &execution) {
  return problem.dtype == Dtype::f32
             ? run<float>({kernels.attention_f32, kernels.attention_fold_f32}, problem, execution)
             : run<double>({kernels.attention_f64, kernels.attention_fold_f64}, problem, execution);
}

}  // namespace attend
