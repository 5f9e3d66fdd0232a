// Packed sequences and paged caches: each sequence has the bits that it has alone, with keys that lie in one piece.
#include "arrays.hpp"
#include "guarded.hpp"
#include "stored.hpp"

using namespace attend;
using namespace attend::test;

namespace {

enum class Keys { batched, packed, paged };

// A call over random sequences with random options.
struct Ragged {
  static constexpr int64_t kKvHeads = 2;
  Keys keys;
  bool packs_queries;
  int64_t d, dv, heads, sequences, page_size, row;  // row: pages that a sequence has room for
  std::vector<int64_t> queries, room, lengths, firsts, offsets, query_starts, key_starts;
  std::vector<int32_t> table;
  std::unique_ptr<Array> q, k, v, out, lse, k_scale, v_scale, mask, bias, slopes, sinks;
  attend_tensor pages = {};
  attend_attention_options options = {};

  Ragged(Random &random, Keys where, uint32_t q_type, uint32_t k_type, int64_t most_queries, int64_t most_keys)
      : keys(where), packs_queries(where == Keys::batched || random.one_in(2)) {
    d = random.pick<int64_t>({1, 8, 17, 32, 64});
    dv = random.pick<int64_t>({1, 8, 16, 33, 64});
    heads = kKvHeads * random.pick<int64_t>({1, 1, 2, 4, 6});
    page_size = random.pick<int64_t>({1, 3, 16, 16, 32, 64, 100});
    row = (most_keys + page_size - 1) / page_size;
    sequences = random.in(1, 6);
    const int64_t same = random.pick<int64_t>({1, 1, 4, 20});
    for (int64_t b = 0; b < sequences; ++b) {
      queries.push_back(!packs_queries     ? same
                        : random.one_in(6) ? 0
                        : random.one_in(2) ? random.in(1, 17)
                                           : random.in(1, most_queries));
      const int64_t count = random.one_in(8) ? 0 : random.one_in(2) ? random.in(1, 40) : random.in(1, most_keys);
      room.push_back(keys == Keys::packed ? count : keys == Keys::paged ? row * page_size : most_keys);
      lengths.push_back(random.one_in(2) ? count : random.in(0, count));
      firsts.push_back(random.one_in(2) ? 0 : random.in(0, lengths.back()));
      offsets.push_back(random.in(-3, most_keys));
    }
    starts_of(queries, &query_starts);
    starts_of(room, &key_starts);
    set_operands(random, q_type, k_type);
    set_options(random, k_type);
    if (keys == Keys::paged) set_table(random);
  }

  static void starts_of(const std::vector<int64_t> &counts, std::vector<int64_t> *starts) {
    starts->assign(1, 0);
    for (const int64_t n : counts) starts->push_back(starts->back() + n);
  }
  int64_t query_columns() const { return packs_queries ? query_starts.back() : queries[0]; }
  int64_t query_batch() const { return packs_queries ? 1 : sequences; }
  Shape key_shape(int64_t rows) const {
    if (keys == Keys::paged) return {rows, page_size, kKvHeads, sequences * row + 2};
    if (keys == Keys::packed) return {rows, key_starts.back(), kKvHeads, 1};
    return {rows, room[0], kKvHeads, sequences};
  }

  void set_operands(Random &random, uint32_t q_type, uint32_t k_type) {
    const auto order = [&random] {
      return random.pick<std::array<size_t, 4>>({{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 2, 1, 3}, {1, 0, 2, 3}});
    };
    const auto make = [&](std::unique_ptr<Array> &to, uint32_t type, const Shape &shape, double size) {
      to = std::make_unique<Array>(type, shape, order(), random.pick<int64_t>({0, 0, 5}));
      to->fill(random, size);
    };
    const double of_keys = k_type == ATTEND_I8 ? 40 : 1;
    make(q, q_type, {d, query_columns(), heads, query_batch()}, 1);
    make(k, k_type, key_shape(d), of_keys);
    make(v, k_type, key_shape(dv), of_keys);
    const uint32_t out_type = q_type == ATTEND_F64 || random.one_in(2) ? q_type : uint32_t{ATTEND_F32};
    make(out, out_type, {dv, query_columns(), heads, query_batch()}, 1);
    make(lse, q_type == ATTEND_F64 ? ATTEND_F64 : ATTEND_F32, {1, query_columns(), heads, query_batch()}, 1);
  }

  void set_options(Random &random, uint32_t k_type) {
    attend_attention_options &o = options;
    o = options_with<attend_attention_options>(1);
    if (packs_queries || keys == Keys::packed) o.sequences = sequences;
    if (packs_queries) o.query_starts = query_starts.data();
    if (keys == Keys::packed) o.key_starts = key_starts.data();
    if (keys == Keys::paged) o.pages = &pages;
    if (keys == Keys::paged || random.one_in(2)) {
      o.kv_lengths = lengths.data();
    } else {
      lengths = room;
    }
    if (random.one_in(3)) {
      o.kv_first = firsts.data();
    } else {
      firsts.assign(firsts.size(), 0);
    }
    o.flags = random.pick<uint32_t>({0, ATTEND_CAUSAL_TOP_LEFT, ATTEND_CAUSAL_BOTTOM_RIGHT});
    if (o.flags != ATTEND_CAUSAL_BOTTOM_RIGHT && random.one_in(2)) {
      o.query_offsets = offsets.data();
    } else {
      offsets.assign(offsets.size(), 0);
    }
    if (random.one_in(4)) {
      o.flags |= ATTEND_WINDOW;
      o.window_left = random.in(-1, 300);
      o.window_right = random.in(-1, 20);
    }
    if (random.one_in(4)) o.softcap = 3;
    const uint32_t acc = lse->t.dtype;
    const auto use = [&](std::unique_ptr<Array> &to, uint32_t type, const Shape &shape, double size,
                         const attend_tensor **option) {
      to = std::make_unique<Array>(type, shape);
      to->fill(random, size);
      *option = &to->t;
    };
    if (random.one_in(4)) use(slopes, acc, {heads, 1, 1, 1}, 0.1, &o.alibi_slopes);
    if (random.one_in(4)) use(sinks, acc, {heads, 1, 1, 1}, 1, &o.sinks);
    // As many rows as the longest has keys, or more.
    const int64_t rows = *std::max_element(room.begin(), room.end()) + (keys == Keys::packed ? random.in(0, 3) : 0);
    const Shape of_scores = {rows, query_columns(), random.one_in(2) ? 1 : heads, query_batch()};
    if (random.one_in(5)) use(bias, acc, of_scores, 1, &o.bias);
    if (random.one_in(5)) {
      use(mask, ATTEND_U8, of_scores, 1, &o.mask);  // half of them are 0
      mask->t.dtype = ATTEND_BOOL;
    }
    if (k_type != ATTEND_I8 && (k_type != ATTEND_F8E4M3 || random.one_in(2))) return;
    const auto scale_shape = [&](int64_t features) {
      Shape s = key_shape(1);
      if (random.one_in(3)) s[1] = 1;
      if (random.one_in(3)) s = {features, 1, kKvHeads, 1};
      return s;
    };
    use(k_scale, ATTEND_F32, scale_shape(d), 0.03, &o.k_scale);
    use(v_scale, ATTEND_F32, scale_shape(dv), 0.03, &o.v_scale);
  }

  // A page for each row of each table, in any order; what no key needs is no page at all.
  void set_table(Random &random) {
    std::vector<int32_t> order_of(static_cast<size_t>(sequences * row + 2));
    std::iota(order_of.begin(), order_of.end(), 0);
    for (size_t i = order_of.size() - 1; i > 0; --i)
      std::swap(order_of[i], order_of[static_cast<size_t>(random.in(0, static_cast<int64_t>(i)))]);
    for (int64_t b = 0; b < sequences; ++b) {
      for (int64_t i = 0; i < row; ++i) {
        const size_t at = static_cast<size_t>(b);
        const bool needed = i * page_size < lengths[at] && (i + 1) * page_size > firsts[at];
        table.push_back(needed ? order_of[table.size()] : random.pick<int32_t>({-1, INT32_MAX, INT32_MIN}));
      }
    }
    pages = {table.data(), ATTEND_I32, 2, {row, sequences, 0, 0}, {1, row, 0, 0}};
  }

  // Over poison; with a workspace of the size that the library asks for, behind which nothing may be touched.
  void run(int32_t threads, bool with_workspace) {
    out->fill_with_bytes(0xfe);
    lse->fill_with_bytes(0xfe);
    options.threads = threads;
    options.lse = &lse->t;
    uint64_t bytes = 0;
    if (!ok(attend_attention_workspace(&q->t, &k->t, &v->t, &out->t, &options, &bytes))) return;
    const Guarded<char> workspace(static_cast<int64_t>(bytes), {true, 0});
    attend_attention_options o = options;
    if (with_workspace) o.workspace = workspace.data, o.workspace_size = bytes;
    ok(attend_attention(&q->t, &k->t, &v->t, &out->t, &o));
  }

  // What sequence b has of an operand whose columns go with queries.
  attend_tensor of_queries(const attend_tensor &t, int64_t b) const {
    const size_t at = static_cast<size_t>(b);
    return packs_queries ? part(t, 1, query_starts[at], queries[at]) : part(t, 1, 0, queries[at], b);
  }
  // Of one that goes with keys; what lies in pages is copied to `room_for`.
  attend_tensor of_keys(const Array &from, int64_t b, std::unique_ptr<Array> *room_for) const {
    const size_t at = static_cast<size_t>(b);
    const attend_tensor &t = from.t;
    if (keys != Keys::paged) {
      const bool packed = keys == Keys::packed;
      if (t.shape[1] != k->t.shape[1]) return part(t, 1, 0, 1, b);  // a scale of all keys
      return packed ? part(t, 1, key_starts[at], room[at]) : part(t, 1, 0, room[at], b);
    }
    if (t.shape[3] == 1) return part(t, 1, 0, t.shape[1]);
    *room_for = std::make_unique<Array>(from.like({t.shape[0], room[at], t.shape[2], 1}));
    for (int64_t j = firsts[at]; j < lengths[at]; ++j) {
      const int64_t page = table[static_cast<size_t>(b * row + j / page_size)];
      for (int64_t h = 0; h < t.shape[2]; ++h) {
        for (int64_t i = 0; i < t.shape[0]; ++i) {
          std::memcpy(element((*room_for)->t, i, j, h), element(t, i, t.shape[1] == 1 ? 0 : j % page_size, h, page),
                      static_cast<size_t>(bytes_of_element(t.dtype)));
        }
      }
    }
    return (*room_for)->t;
  }

  void check_alone(int64_t b) {
    const size_t at = static_cast<size_t>(b);
    INFO("sequence " << b << " queries " << queries[at] << " keys " << firsts[at] << ".." << lengths[at]);
    std::unique_ptr<Array> rooms[4];
    const attend_tensor q1 = of_queries(q->t, b), k1 = of_keys(*k, b, &rooms[0]), v1 = of_keys(*v, b, &rooms[1]);
    attend_tensor mask1, bias1, k_scale1, v_scale1;
    attend_attention_options alone = options;
    alone.sequences = 0;
    alone.query_starts = alone.key_starts = alone.query_offsets = nullptr;
    alone.pages = nullptr;
    alone.query_offset = offsets[at];
    alone.threads = 1;
    if (options.kv_lengths != nullptr) alone.kv_lengths = &lengths[at];
    if (options.kv_first != nullptr) alone.kv_first = &firsts[at];
    if (mask) alone.mask = &(mask1 = part(of_queries(mask->t, b), 0, 0, room[at]));
    if (bias) alone.bias = &(bias1 = part(of_queries(bias->t, b), 0, 0, room[at]));
    if (k_scale) alone.k_scale = &(k_scale1 = of_keys(*k_scale, b, &rooms[2]));
    if (v_scale) alone.v_scale = &(v_scale1 = of_keys(*v_scale, b, &rooms[3]));
    Array out1 = out->like({dv, queries[at], heads, 1}), lse1 = lse->like({1, queries[at], heads, 1});
    alone.lse = &lse1.t;
    if (!ok(attend_attention(&q1, &k1, &v1, &out1.t, &alone))) return;
    CHECK(same_elements(out1.t, of_queries(out->t, b)));
    CHECK(same_elements(lse1.t, of_queries(lse->t, b)));
  }
};

void check(Random &random, Ragged &ragged) {
  INFO("keys " << static_cast<int>(ragged.keys) << " packed " << ragged.packs_queries << " types " << ragged.q->t.dtype
               << " " << ragged.k->t.dtype << " D " << ragged.d << " Dv " << ragged.dv << " H " << ragged.heads
               << " page " << ragged.page_size << " flags " << ragged.options.flags << " mask " << !!ragged.mask
               << " bias " << !!ragged.bias << " scales " << !!ragged.k_scale);
  for_each_isa([&] {
    ragged.run(static_cast<int32_t>(random.in(2, 4)), random.one_in(2));
    for (int64_t b = 0; b < ragged.sequences; ++b) ragged.check_alone(b);
    ragged.run(1, random.one_in(2));
    for (int64_t b = 0; b < ragged.sequences; ++b) ragged.check_alone(b);
  });
}

}  // namespace

TEST_CASE("ragged batches and paged caches: the bits of each sequence alone") {
  Random random(1201);
  const int count = rounds(60, 1500);
  for (int round = 0; round < count; ++round) {
    const Keys keys = random.pick({Keys::batched, Keys::packed, Keys::paged, Keys::paged});
    const uint32_t type = random.pick<uint32_t>({ATTEND_F32, ATTEND_F32, ATTEND_F64, ATTEND_BF16, ATTEND_F16});
    const uint32_t k_type = type == ATTEND_F64 || random.one_in(2)
                                ? type
                                : random.pick<uint32_t>({ATTEND_BF16, ATTEND_F16, ATTEND_I8, ATTEND_F8E4M3});
    Ragged ragged(random, keys, type, k_type, 150, random.one_in(4) ? 700 : 90);
    check(random, ragged);
  }
}

// A cache of 65536 keys takes what one of 256 does, whatever lies in starts, lengths and tables.
TEST_CASE("nothing is gathered or widened whole") {
  for (const uint32_t type : {ATTEND_F32, ATTEND_BF16, ATTEND_I8}) {
    for (const Keys keys : {Keys::batched, Keys::packed, Keys::paged}) {
      uint64_t first = 0;
      for (const int64_t count : {256, 65536}) {
        const int64_t starts[] = {0, 1, 7}, lengths[] = {count, count};
        const auto tensor = [](uint32_t dtype, const Shape &shape) {
          attend_tensor t = {nullptr, dtype, 4, {}, {}};
          for (int64_t d = 0, reach = 1; d < 4; reach *= shape[static_cast<size_t>(d++)]) {
            t.shape[d] = shape[static_cast<size_t>(d)], t.stride[d] = reach;
          }
          return t;
        };
        const int64_t columns = keys == Keys::paged ? 16 : count, batch = keys == Keys::batched  ? 2
                                                                          : keys == Keys::packed ? 1
                                                                                                 : count / 16;
        const attend_tensor q = tensor(ATTEND_F32, {64, 7, 8, 1}), out = q, k = tensor(type, {64, columns, 2, batch}),
                            scale = tensor(ATTEND_F32, {1, columns, 2, batch}),
                            pages = tensor(ATTEND_I32, {count / 16, 2, 1, 1});
        attend_attention_options o = options_with<attend_attention_options>(2);
        o.sequences = 2;
        o.query_starts = starts;
        if (keys == Keys::packed) o.key_starts = starts;
        if (keys == Keys::paged) o.pages = &pages;
        if (keys != Keys::packed) o.kv_lengths = lengths;
        if (type == ATTEND_I8) o.k_scale = o.v_scale = &scale;
        uint64_t bytes = 0;
        if (!ok(attend_attention_workspace(&q, &k, &k, &out, &o, &bytes))) return;
        // (Parts of shared keys take the rest: at most 32 KiB a thread.)
        if (first == 0) first = bytes;
        CHECK(bytes <= first + 2 * (80 << 10));
      }
    }
  }
}

TEST_CASE("ragged batches of few queries over long keys: threads share out the keys of one") {
  Random random(1202);
  const int count = rounds(12, 200);
  for (int round = 0; round < count; ++round) {
    const Keys keys = random.pick({Keys::batched, Keys::packed, Keys::paged});
    const uint32_t k_type = random.pick<uint32_t>({ATTEND_F32, ATTEND_BF16, ATTEND_I8});
    Ragged ragged(random, keys, ATTEND_F32, k_type, 6, 3000);
    check(random, ragged);
  }
}

TEST_CASE("left padding in pages: each key has the scale of its own place") {
  Random random(1203);
  const int count = rounds(4, 40);
  for (int found = 0; found < count;) {
    Ragged ragged(random, Keys::paged, ATTEND_F32, ATTEND_I8, 20, 90);
    const bool by_key = ragged.k_scale->t.shape[1] > 1 || ragged.k_scale->t.shape[3] > 1;
    bool pads = false;
    for (size_t b = 0; b < ragged.firsts.size(); ++b) {
      const int64_t first = ragged.firsts[b];
      pads |= ragged.queries[b] > 0 && first >= ragged.page_size && first % ragged.page_size != 0 &&
              first < ragged.lengths[b];
    }
    if (!by_key || !pads) continue;
    ++found;
    check(random, ragged);
  }
}
