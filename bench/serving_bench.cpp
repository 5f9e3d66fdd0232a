// attend_bench_serving: new keys and values on their way into a cache, beside memcpy of as many bytes: what is read once and
// written once cannot be faster. Heads lie beside each other in what is new, [N, H, D], as projections write it.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "google_benchmark.hpp"
#include "stored.hpp"

namespace {

using namespace attend::bench;

const Row kBest = {nullptr, Path::library, 1};

// New tokens of some heads, and room for them; K is rotated.
struct Shape {
  int64_t tokens, heads, features;
  int64_t elements() const { return tokens * heads * features; }
  std::string text() const {
    return "tokens:" + std::to_string(tokens) + "/H:" + std::to_string(heads) + "/D:" + std::to_string(features);
  }
};

// As lies an array [N, H, D].
Stored tokens_of(const Type &type, const Shape &s) {
  Stored x(type, s.features, s.tokens, s.heads);
  x.view.stride[1] = s.heads * s.features;
  x.view.stride[2] = s.features;
  return x;
}

struct Tables {
  Stored cos, sin;
  Tables(const Shape &s, int64_t positions)
      : cos(kF32, s.features / 2, positions), sin(kF32, s.features / 2, positions) {}
};

// Caches have room for so many calls' tokens, each of which goes behind the one before: into memory that no cache holds.
constexpr int64_t kCalls = 16;

// K and V one after the other, as an append does.
void copy(const std::string &name, int64_t bytes, int64_t calls) {
  const Row row = {"memcpy", Path::naive, 1};
  register_row("serving/" + name, row, [=](benchmark::State &state) {
    const auto size = static_cast<size_t>(bytes);
    std::vector<char> from[2], to[2];
    for (std::vector<char> &memory : from) memory.assign(size, 'x');
    for (std::vector<char> &memory : to) memory.assign(size * static_cast<size_t>(calls), 'y');
    size_t call = 0;
    const double seconds = time_calls(state, row, [&] {
      for (size_t i = 0; i < 2; ++i) std::memcpy(to[i].data() + call * size, from[i].data(), size);
      call = (call + 1) % static_cast<size_t>(calls);
      return attend_status{ATTEND_OK};
    });
    count_bytes(state, 4.0 * static_cast<double>(bytes), seconds);
  });
}

void rotary(const Shape &s, const Type &type, uint32_t flags) {
  const std::string pairs = flags == 0 ? "/halves" : "/interleaved";
  register_row(std::string("serving/") + type.name + "/rotary/" + s.text() + pairs, kBest,
               [=](benchmark::State &state) {
                 const Stored x = tokens_of(type, s), y = tokens_of(type, s);
                 const Tables tables(s, s.tokens);
                 attend_rotary_options options = ATTEND_ROTARY_OPTIONS_INIT;
                 options.threads = 1;
                 options.flags = flags;
                 const double seconds = time_calls(state, kBest, [&] {
                   return attend_rotary(&x.view, &tables.cos.view, &tables.sin.view, &y.view, &options);
                 });
                 count_bytes(state, 2.0 * static_cast<double>(s.elements() * bytes_of(type.dtype)), seconds);
               });
}

// Caches of columns whose heads lie apart, [H, columns, D], or side by side, [columns, H, D]; pools of pages of 16 columns,
// whose heads lie apart with a table, side by side with slots, as servers have them.
enum class Kind { apart, together, pages, slots };
constexpr int64_t kPage = 16;

struct Cache {
  Stored memory;
  attend_tensor view;
  Cache(const Type &type, Kind kind, const Shape &s, int64_t columns)
      : memory(type, s.features, columns, s.heads), view(memory.view) {
    const int64_t d = s.features, h = s.heads;
    if (kind == Kind::together) view.stride[1] = h * d, view.stride[2] = d;
    if (kind == Kind::pages) view = pool({1, d, d * kPage, d * h * kPage}, s, columns);
    if (kind == Kind::slots) view = pool({1, d * h, d, d * h * kPage}, s, columns);
  }
  attend_tensor pool(const std::vector<int64_t> &strides, const Shape &s, int64_t columns) const {
    attend_tensor t = memory.view;
    const int64_t shape[4] = {s.features, kPage, s.heads, columns / kPage};
    t.rank = 4;
    for (size_t i = 0; i < 4; ++i) t.shape[i] = shape[i], t.stride[i] = strides[i];
    return t;
  }
};

void append(const Shape &s, Kind kind, const Type &from, const Type &to, int32_t threads) {
  static constexpr const char *kNames[] = {"apart", "together", "pages", "slots"};
  Row row = kBest;
  row.threads = threads;
  const std::string name = std::string("serving/") + from.name + "_to_" + to.name + "/append/" + s.text();
  register_row(name + "/" + kNames[static_cast<int>(kind)], row, [=](benchmark::State &state) {
    const Stored k = tokens_of(from, s), v = tokens_of(from, s);
    const int64_t columns = kCalls * s.tokens, pages = columns / kPage;
    const Cache k_cache(to, kind, s, columns), v_cache(to, kind, s, columns);
    const Stored k_scale(kF32, 1, columns, s.heads), v_scale(kF32, 1, columns, s.heads);
    const Tables tables(s, columns);
    // Neighbouring pages of a sequence lie apart.
    std::vector<int32_t> table(static_cast<size_t>(pages));
    for (int64_t i = 0; i < pages; ++i) table[static_cast<size_t>(i)] = static_cast<int32_t>(i * 7 % pages);
    const attend_tensor of_table = {table.data(), ATTEND_I32, 1, {pages}, {1}};
    std::vector<int64_t> slots(static_cast<size_t>(columns)), positions(slots.size());
    std::iota(positions.begin(), positions.end(), 0);
    for (size_t c = 0; c < slots.size(); ++c) slots[c] = table[c / kPage] * kPage + static_cast<int64_t>(c % kPage);
    int64_t offset = 0;
    attend_kv_append_options options = ATTEND_KV_APPEND_OPTIONS_INIT;
    options.threads = threads;
    options.cos = &tables.cos.view;
    options.sin = &tables.sin.view;
    if (kind != Kind::slots) options.offsets = &offset;
    if (kind == Kind::pages) options.pages = &of_table;
    if (to.dtype == ATTEND_I8 || to.dtype == ATTEND_F8E4M3) {
      options.flags = ATTEND_COMPUTE_K_SCALE | ATTEND_COMPUTE_V_SCALE;
      options.k_scale = &k_scale.view;
      options.v_scale = &v_scale.view;
    }
    const double seconds = time_calls(state, row, [&] {
      if (kind == Kind::slots) options.slots = slots.data() + offset, options.positions = positions.data() + offset;
      const attend_status status = attend_kv_append(&k.view, &v.view, &k_cache.view, &v_cache.view, &options);
      offset = (offset + s.tokens) % columns;
      return status;
    });
    count_bytes(state, 2.0 * static_cast<double>(s.elements() * (bytes_of(from.dtype) + bytes_of(to.dtype))), seconds);
  });
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &) {
    const Shape prompt = {512, 32, 128}, grouped = {512, 8, 128}, decode = {32, 8, 128};
    for (const Shape &s : {prompt, grouped, decode}) {
      copy("bf16/append/" + s.text(), s.elements() * 2, kCalls);
      for (const Kind kind : {Kind::together, Kind::apart, Kind::pages, Kind::slots}) append(s, kind, kBf16, kBf16, 1);
      append(s, Kind::together, kBf16, kBf16, 2);
      append(s, Kind::together, kF32, kBf16, 1);
      append(s, Kind::together, kF32, kF32, 1);
      append(s, Kind::together, kBf16, kI8, 1);
      append(s, Kind::together, kBf16, kF8, 1);
      for (const Type &type : {kF32, kBf16}) {
        copy(std::string(type.name) + "/rotary/" + s.text(), s.elements() * bytes_of(type.dtype) / 2, 1);
        for (const uint32_t flags : {0u, ATTEND_ROTARY_INTERLEAVED}) rotary(s, type, flags);
      }
    }
  });
}
