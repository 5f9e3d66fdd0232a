// attend_bench_types: the same work with operands of each type, f32 first. What a narrower type should cost: as much as f32
// where arithmetic rules, in proportion to its bytes where memory does.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <string>
#include <vector>

#include "google_benchmark.hpp"
#include "stored.hpp"

namespace {

using namespace attend::bench;

const Row kBest = {nullptr, Path::library, 1};

template <class Function>
void add(const std::string &what, const Type &type, Function &&function) {
  register_row(std::string("types/") + type.name + "/" + what, kBest, std::forward<Function>(function));
}

// Keys and values of the type; queries and results too, but of 8 bits f32.
void attention(const char *what, int64_t features, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads,
               const std::vector<Type> &types) {
  for (const Type &type : types) {
    add(std::string(what) + "/D:" + std::to_string(features) + "/Nq:" + std::to_string(queries) +
            "/Nk:" + std::to_string(keys) + "/H:" + std::to_string(heads) + "on" + std::to_string(kv_heads),
        type, [=](benchmark::State &state) {
          const Type of_q = type.dtype == ATTEND_I8 || type.dtype == ATTEND_F8E4M3 ? kF32 : type;
          const Stored q(of_q, features, queries, heads), k(type, features, keys, kv_heads),
              v(type, features, keys, kv_heads), out(of_q, features, queries, heads);
          attend_attention_options options = ATTEND_ATTENTION_OPTIONS_INIT;
          options.threads = 1;
          if (type.dtype == ATTEND_I8) options.k_scale = options.v_scale = Stored::scale();
          time_calls(state, kBest, [&] { return attend_attention(&q.view, &k.view, &v.view, &out.view, &options); });
        });
  }
}

// Weights by rows, [out, in], times columns; with `all` these and the results are of the type too.
void linear(int64_t out, int64_t in, int64_t items, bool all) {
  const Type dots = {"bf16_dot", ATTEND_BF16};  // with ATTEND_NATIVE_DOT
  for (const Type &type : {kF32, kBf16, kF16, kI8, dots}) {
    const bool has_dots = type.name == dots.name;
    if (all ? type.dtype == ATTEND_I8 : has_dots) continue;
    add("linear/" + std::to_string(out) + "x" + std::to_string(in) + "/items:" + std::to_string(items) +
            (all ? "/all" : "/weights"),
        type, [=](benchmark::State &state) {
          const Type other = all ? type : kF32;
          const Stored w(type, out, in, 1, Layout::contiguous_rows), x(other, in, items), y(other, out, items);
          attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
          options.threads = 1;
          if (type.dtype == ATTEND_I8) options.a_scale = Stored::scale();
          if (has_dots) options.flags = ATTEND_NATIVE_DOT;
          time_calls(state, kBest, [&] { return attend_matmul(1, &w.view, &x.view, 0, &y.view, &options); });
        });
  }
}

// A by rows and B by columns both of the type: f32, or i8 with sums in i32 and scaled to f32.
void integers(int64_t m, int64_t k, int64_t n) {
  const auto product = [=](const Type &type, const Type &to) {
    return [=](benchmark::State &state) {
      const Stored a(type, m, k, 1, Layout::contiguous_rows), b(type, k, n);
      Stored c(kF32, m, n);
      c.view.dtype = to.dtype;
      attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
      options.threads = 1;
      if (type.dtype == ATTEND_I8 && to.dtype == ATTEND_F32) options.a_scale = options.b_scale = Stored::scale();
      time_calls(state, kBest, [&] { return attend_matmul(1, &a.view, &b.view, 0, &c.view, &options); });
    };
  };
  const std::string name = "integers/" + std::to_string(m) + "x" + std::to_string(k) + "x" + std::to_string(n);
  add(name, kF32, product(kF32, kF32));
  add(name, {"i8_to_i32", 0}, product(kI8, {"i32", ATTEND_I32}));
  add(name, {"i8_to_f32", 0}, product(kI8, kF32));
}

void softmax(int64_t rows, int64_t columns, Layout layout) {
  for (const Type &type : {kF32, kBf16, kF16}) {
    const char *name = layout == Layout::contiguous_columns ? "contiguous" : "strided";
    add("softmax/" + std::string(name) + "/" + std::to_string(rows) + "x" + std::to_string(columns), type,
        [=](benchmark::State &state) {
          const Stored x(type, rows, columns, 1, layout), y(type, rows, columns, 1, layout);
          attend_softmax_options options = ATTEND_SOFTMAX_OPTIONS_INIT;
          options.threads = 1;
          time_calls(state, kBest, [&] { return attend_softmax(&x.view, &y.view, &options); });
        });
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &) {
    const std::vector<Type> halves = {kF32, kBf16, kF16}, all = {kF32, kBf16, kF16, kI8, kF8};
    attention("attention", 64, 1024, 1024, 8, 8, halves);
    attention("attention", 128, 1024, 1024, 4, 4, halves);
    attention("decode", 64, 1, 65536, 1, 1, all);
    attention("decode", 128, 1, 65536, 1, 1, all);
    attention("decode", 64, 1, 65536, 4, 1, all);
    attention("decode", 128, 1, 4096, 32, 8, all);
    linear(1536, 384, 128, false);
    linear(1536, 384, 128, true);
    linear(2048, 2048, 512, true);
    for (const int64_t items : {1, 2}) linear(4096, 4096, items, false);
    integers(1024, 1024, 1024);
    integers(1536, 384, 128);
    integers(4096, 4096, 1);
    softmax(1024, 1024, Layout::contiguous_columns);
    softmax(1024, 1024, Layout::contiguous_rows);
  });
}
