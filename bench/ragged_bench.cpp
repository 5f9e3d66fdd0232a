// attend_bench_ragged: what servers batch, beside what it could cost. Decoding over caches of mixed lengths, in pages and
// packed, beside reading as many bytes; sentences packed, each alone, and padded; many short sequences beside one call of
// as many operations; a mixed batch beside its parts; a prefix that sequences share, read by each of them or once; the
// shapes of multi-head latent attention.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "google_benchmark.hpp"
#include "stored.hpp"

namespace {

using namespace attend::bench;

Row row_of(int32_t threads) { return {nullptr, Path::library, threads}; }

std::vector<int64_t> starts_of(const std::vector<int64_t> &counts) {
  std::vector<int64_t> starts(1, 0);
  for (const int64_t n : counts) starts.push_back(starts.back() + n);
  return starts;
}

// 32 sequences of 17 to 4096 keys, in no order.
std::vector<int64_t> mixed_lengths() {
  std::vector<int64_t> lengths;
  for (int64_t b = 0; b < 32; ++b) lengths.push_back(17 + (4096 - 17) * (b * 37 % 32) / 31);
  return lengths;
}

attend_tensor tensor(const Stored &of, const std::vector<int64_t> &shape, const std::vector<int64_t> &stride) {
  attend_tensor t = {of.view.data, of.view.dtype, 4, {}, {}};
  std::copy(shape.begin(), shape.end(), t.shape);
  std::copy(stride.begin(), stride.end(), t.stride);
  return t;
}

// A word of each cache line, in eight streams: what memory gives one thread.
double sum_of(const unsigned char *memory, int64_t bytes) {
  double sums[8] = {};
  const int64_t part = bytes / 8 / 64 * 64;
  for (int64_t i = 0; i < part; i += 64) {
    for (int64_t s = 0; s < 8; ++s) {
      uint64_t word = 0;
      __builtin_memcpy(&word, memory + s * part + i, sizeof word);
      sums[s] += static_cast<double>(word & 1u);
    }
  }
  return std::accumulate(sums, sums + 8, 0.0);
}

// One new token of each sequence: heads lie apart in pages of `page` keys, or, page 0, in one packed array.
void decode(const Type &type, int64_t heads, int64_t kv_heads, int64_t page, int32_t threads) {
  const std::string name = std::string("ragged/") + type.name + "/decode/H:" + std::to_string(heads) +
                           "/Hkv:" + std::to_string(kv_heads) +
                           (page != 0 ? "/page:" + std::to_string(page) : "/packed");
  register_row(name, row_of(threads), [=](benchmark::State &state) {
    constexpr int64_t kD = 128;
    const std::vector<int64_t> lengths = mixed_lengths(), starts = starts_of(lengths);
    const int64_t batch = static_cast<int64_t>(lengths.size()), size = page != 0 ? page : 1;
    std::vector<int64_t> pages_of;
    for (const int64_t n : lengths) pages_of.push_back((n + size - 1) / size);
    const std::vector<int64_t> page_starts = starts_of(pages_of);
    const int64_t pages = page_starts.back(), most = (4096 + size - 1) / size, columns = pages * size;
    std::vector<int32_t> order(static_cast<size_t>(pages)), table(static_cast<size_t>(batch * most), -1);
    std::iota(order.begin(), order.end(), 0);
    std::mt19937 random(1);
    std::shuffle(order.begin(), order.end(), random);
    for (int64_t b = 0; page != 0 && b < batch; ++b) {
      const int64_t first = page_starts[static_cast<size_t>(b)];
      std::copy_n(order.begin() + first, pages_of[static_cast<size_t>(b)], table.begin() + b * most);
    }
    const Stored q(kF32, kD, heads, batch), out(kF32, kD, heads, batch), k(type, kD, columns, kv_heads),
        v(type, kD, columns, kv_heads);
    const std::vector<int64_t> of_queries = {1, kD, kD, kD * heads},
                               of_keys = page != 0 ? std::vector<int64_t>{1, kD, kD * page, kD * page * kv_heads}
                                                   : std::vector<int64_t>{1, kD, kD * columns, 0};
    const attend_tensor tq = tensor(q, {kD, 1, heads, batch}, of_queries),
                        to = tensor(out, {kD, 1, heads, batch}, of_queries);
    const std::vector<int64_t> shape =
        page != 0 ? std::vector<int64_t>{kD, page, kv_heads, pages} : std::vector<int64_t>{kD, columns, kv_heads, 1};
    const attend_tensor tk = tensor(k, shape, of_keys), tv = tensor(v, shape, of_keys),
                        tp = {table.data(), ATTEND_I32, 2, {most, batch, 0, 0}, {1, most, 0, 0}};
    attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
    options.threads = threads;
    if (page != 0) options.pages = &tp, options.kv_lengths = lengths.data();
    if (page == 0) options.sequences = batch, options.key_starts = starts.data();
    if (type.dtype == ATTEND_I8) options.k_scale = options.v_scale = Stored::scale();
    const double seconds =
        time_calls(state, row_of(threads), [&] { return attend_attention(&tq, &tk, &tv, &to, &options); });
    count_bytes(state, 2.0 * static_cast<double>(starts.back() * kv_heads * kD * bytes_of(type.dtype)), seconds);
  });
}

void read(int64_t kv_heads) {
  const Row row = {"read", Path::naive, 1};
  register_row("ragged/f32/decode/H:32/Hkv:" + std::to_string(kv_heads), row, [=](benchmark::State &state) {
    const int64_t bytes = 2 * starts_of(mixed_lengths()).back() * kv_heads * 128 * 4;
    const std::vector<unsigned char> memory(static_cast<size_t>(bytes), 1);
    const double seconds = time_calls(state, row, [&] {
      benchmark::DoNotOptimize(sum_of(memory.data(), bytes));
      return attend_status{ATTEND_OK};
    });
    count_bytes(state, static_cast<double>(bytes), seconds);
  });
}

// Sequences in arrays [tokens, H, D], attention over each of them.
enum class How { packed, alone, padded };
void sentences(const std::string &name, const std::vector<int64_t> &counts, int64_t heads, int64_t features, How how,
               double peak) {
  static constexpr const char *kNames[] = {"packed", "alone", "padded"};
  register_row("ragged/f32/" + name + "/" + kNames[static_cast<int>(how)], row_of(1), [=](benchmark::State &state) {
    const std::vector<int64_t> starts = starts_of(counts);
    const int64_t batch = static_cast<int64_t>(counts.size()), token = heads * features;
    const int64_t longest = *std::max_element(counts.begin(), counts.end());
    const bool padded = how == How::padded;
    const int64_t columns = padded ? longest : starts.back(), batches = padded ? batch : 1;
    const auto operand = [&] { return Stored(kF32, features, columns, heads * batches); };
    const Stored q = operand(), k = operand(), v = operand(), out = operand();
    const auto view = [&](const Stored &of) {
      return tensor(of, {features, columns, heads, batches}, {1, token, features, token * columns});
    };
    const attend_tensor tq = view(q), tk = view(k), tv = view(v), to = view(out);
    attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
    options.threads = 1;
    if (how == How::packed) {
      options.sequences = batch;
      options.query_starts = options.key_starts = starts.data();
    } else if (padded) {
      options.kv_lengths = counts.data();
    }
    double pairs = 0;
    for (const int64_t n : counts) pairs += static_cast<double>(n * n);
    const double seconds = time_calls(state, row_of(1), [&] {
      if (how != How::alone) return attend_attention(&tq, &tk, &tv, &to, &options);
      for (size_t b = 0; b < counts.size(); ++b) {
        const auto one = [&](attend_tensor t) {
          t.data = static_cast<float *>(t.data) + starts[b] * token;
          t.shape[1] = counts[b];
          return t;
        };
        const attend_tensor q1 = one(tq), k1 = one(tk), v1 = one(tv), o1 = one(to);
        if (const attend_status status = attend_attention(&q1, &k1, &v1, &o1, &options)) return status;
      }
      return attend_status{ATTEND_OK};
    });
    count_flops(state, row_of(1), 4 * pairs * static_cast<double>(heads * features), seconds, peak);
  });
}

// A token of each of 32 sequences, whose first 256 pages are the same, and 4 its own: in one call, or in two, whose first
// has all tokens for the queries of one sequence, and so reads the prefix once.
void prefix(const Type &type, int64_t kv_heads, bool shared, int32_t threads, double peak) {
  constexpr int64_t kD = 128, kHeads = 32, kSequences = 32, kPage = 16, kCommon = 256, kOwn = 4, kMost = kCommon + kOwn;
  const std::string name = std::string("ragged/") + type.name +
                           "/prefix:4096/sequences:32/H:32/Hkv:" + std::to_string(kv_heads) +
                           (shared ? "/once" : "/by_each");
  register_row(name, row_of(threads), [=](benchmark::State &state) {
    const int64_t pages = kCommon + kSequences * kOwn;
    std::vector<int32_t> table(kSequences * kMost);
    for (int64_t i = 0; i < kSequences * kMost; ++i) {
      const int64_t page = i % kMost, own = kCommon + i / kMost * kOwn + page - kCommon;
      table[static_cast<size_t>(i)] = static_cast<int32_t>((page < kCommon ? page : own) * 7 % pages);
    }
    const Stored q(kF32, kD, kHeads, kSequences), out(kF32, kD, kHeads, kSequences),
        k(type, kD, kPage * pages, kv_heads), v(type, kD, kPage * pages, kv_heads),
        kept(kF32, 2 * (kD + 2), kHeads, kSequences);
    const auto pool = [&](const Stored &of) {
      return tensor(of, {kD, kPage, kv_heads, pages}, {1, kD, kD * kPage, kD * kPage * kv_heads});
    };
    // A batch of sequences, or their queries one after the other.
    const auto batch = [&](const Stored &of) {
      return tensor(of, {kD, 1, kHeads, kSequences}, {1, kD, kD, kD * kHeads});
    };
    const auto packed = [&](const Stored &of) {
      const int64_t rows = of.view.shape[0];
      return tensor(of, {rows, kSequences, kHeads, 1}, {1, rows * kHeads, rows, 0});
    };
    const attend_tensor tq = shared ? packed(q) : batch(q), to = shared ? packed(out) : batch(out), tk = pool(k),
                        tv = pool(v), of_state = packed(kept),
                        all = {table.data(), ATTEND_I32, 2, {kMost, kSequences}, {1, kMost}},
                        common = {table.data(), ATTEND_I32, 2, {kCommon, 1}, {1, kMost}},
                        own = {table.data() + kCommon, ATTEND_I32, 2, {kOwn, kSequences}, {1, kMost}};
    const std::vector<int64_t> lengths(kSequences, kPage * kMost), of_own(kSequences, kPage * kOwn),
        starts = starts_of(std::vector<int64_t>(kSequences, 1)), of_common(1, kPage * kCommon);
    attend_attention_options whole = ATTEND_ATTENTION_OPTIONS_INIT;
    whole.threads = threads;
    attend_attention_options first = whole, last = whole;
    whole.pages = &all, whole.kv_lengths = lengths.data();
    first.flags = ATTEND_PARTIAL, first.pages = &common, first.kv_lengths = of_common.data();
    last.flags = ATTEND_CONTINUE, last.pages = &own, last.kv_lengths = of_own.data();
    last.sequences = kSequences, last.query_starts = starts.data(), last.key_offset = kPage * kCommon;
    first.state = last.state = &of_state;
    const double seconds = time_calls(state, row_of(threads), [&] {
      if (!shared) return attend_attention(&tq, &tk, &tv, &to, &whole);
      const attend_status status = attend_attention(&tq, &tk, &tv, &to, &first);
      return status != ATTEND_OK ? status : attend_attention(&tq, &tk, &tv, &to, &last);
    });
    count_flops(state, row_of(threads), 4.0 * static_cast<double>(kSequences * kHeads * kPage * kMost * kD), seconds,
                peak);
  });
}

// Multi-head latent attention: 576 features a key, of which the first 512 are the value; all heads on one key head.
void latent(int64_t heads, double peak) {
  register_row("ragged/f32/latent/keys:4096/H:" + std::to_string(heads), row_of(1), [=](benchmark::State &state) {
    constexpr int64_t kD = 576, kDv = 512, kKeys = 4096;
    const Stored q(kF32, kD, heads), k(kF32, kD, kKeys), out(kF32, kDv, heads);
    const attend_tensor tq = tensor(q, {kD, 1, heads, 1}, {1, kD, kD, 0}),
                        to = tensor(out, {kDv, 1, heads, 1}, {1, kDv, kDv, 0}),
                        tk = tensor(k, {kD, kKeys, 1, 1}, {1, kD, 0, 0}),
                        tv = tensor(k, {kDv, kKeys, 1, 1}, {1, kD, 0, 0});
    attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
    options.threads = 1;
    const double seconds = time_calls(state, row_of(1), [&] { return attend_attention(&tq, &tk, &tv, &to, &options); });
    count_flops(state, row_of(1), 2.0 * static_cast<double>(heads * kKeys * (kD + kDv)), seconds, peak);
  });
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    for (const int64_t kv_heads : {8, 32}) {
      read(kv_heads);
      for (const Type &type : {kF32, kBf16, kI8}) {
        for (const int64_t page : {0, 16, 64}) decode(type, 32, kv_heads, page, 1);
      }
    }
    for (const Type &type : {kF32, kBf16}) decode(type, 32, 8, 16, 2);
    const std::vector<int64_t> sentence = {4,  9,  12, 15, 18, 21, 25,  28,  32,  37,
                                           41, 46, 52, 60, 71, 85, 101, 130, 170, 233};
    for (const How how : {How::packed, How::alone, How::padded})
      sentences("sentences:20/H:12/D:32", sentence, 12, 32, how, peak.f32);
    const std::vector<int64_t> tiny(256, 8), one(1, 128);
    sentences("tokens:8x256/H:12/D:64", tiny, 12, 64, How::packed, peak.f32);
    sentences("tokens:128x1/H:12/D:64", one, 12, 64, How::alone, peak.f32);
    for (const int64_t kv_heads : {8, 32}) {
      for (const Type &type : {kF32, kBf16}) {
        for (const bool shared : {false, true}) prefix(type, kv_heads, shared, 1, peak.f32);
      }
    }
    for (const bool shared : {false, true}) prefix(kF32, 8, shared, 2, peak.f32);
    for (const int64_t heads : {1, 16, 128}) latent(heads, peak.f32);
  });
}
