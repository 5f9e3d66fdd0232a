// attend_bench_cliffs: pairs of rows that should take about the same time: strides of a power of two beside friendly
// ones, denormal numbers beside normal ones, a size beside its neighbours. No pair should differ by a factor of 2.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <random>
#include <string>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

const Row kBest = {nullptr, Path::library, 1};  // the best instruction set

// A matrix whose columns are `ld` apart, as a part of a larger one.
struct Matrix {
  Operand<float> memory;
  attend_tensor view;

  Matrix(int64_t rows, int64_t columns, int64_t ld, float size) : memory(ld, columns), view(memory.tensor()) {
    std::mt19937 random(1);
    memory.fill_with_normals(random);
    float *values = static_cast<float *>(view.data);
    for (int64_t i = 0; i < ld * columns; ++i) values[i] *= size;
    view.shape[0] = rows;
  }
};

constexpr float kDenormal = 1e-40f;

void register_matmul(int64_t n, int64_t ld, float size, const char *what) {
  register_row("cliffs/matmul/n:" + std::to_string(n) + "/ld:" + std::to_string(ld) + "/" + what,
               {"best", Path::library, 1}, [=](benchmark::State &state) {
                 const Matrix a(n, n, ld, size), b(n, n, ld, 1), c(n, n, ld, 1);
                 time_calls(state, kBest, [&] { return attend_matmul(1, &a.view, &b.view, 0, &c.view, nullptr); });
               });
}

// A of contiguous rows by one to four columns: side by side, of a matrix of contiguous rows, and k backwards.
void register_thin(int64_t n, int64_t columns, const std::string &what) {
  register_row("cliffs/thin/n:" + std::to_string(n) + "x" + std::to_string(columns) + "/" + what,
               {"best", Path::library, 1}, [=](benchmark::State &state) {
                 Matrix a(n, n, n, 1), c(n, columns, n, 1);
                 const bool apart = what == "apart", backwards = what == "backwards";
                 Matrix b(n, apart ? n : columns, n, 1);
                 std::swap(a.view.stride[0], a.view.stride[1]);
                 if (apart) b.view.shape[1] = columns, std::swap(b.view.stride[0], b.view.stride[1]);
                 if (backwards) a.view.data = static_cast<float *>(a.view.data) + n - 1, a.view.stride[1] = -1;
                 time_calls(state, kBest, [&] { return attend_matmul(1, &a.view, &b.view, 0, &c.view, nullptr); });
               });
}

void register_softmax(int64_t rows, int64_t columns, int64_t ld, bool turned, float size, const char *what) {
  const std::string layout = turned ? "rows" : "columns";
  register_row("cliffs/softmax/contiguous_" + layout + "/" + std::to_string(rows) + "x" + std::to_string(columns) +
                   "/ld:" + std::to_string(ld) + "/" + what,
               {"best", Path::library, 1}, [=](benchmark::State &state) {
                 Matrix x(turned ? columns : rows, turned ? rows : columns, ld, size);
                 Matrix y(turned ? columns : rows, turned ? rows : columns, ld, 1);
                 for (attend_tensor *t : {&x.view, &y.view}) {
                   if (turned) std::swap(t->shape[0], t->shape[1]), std::swap(t->stride[0], t->stride[1]);
                 }
                 time_calls(state, kBest, [&] { return attend_softmax(&x.view, &y.view, nullptr); });
               });
}

void register_attention(int64_t items, int64_t features, int64_t ld, float size, const char *what) {
  register_row("cliffs/attention/N:" + std::to_string(items) + "/D:" + std::to_string(features) +
                   "/ld:" + std::to_string(ld) + "/" + what,
               {"best", Path::library, 1}, [=](benchmark::State &state) {
                 const Matrix q(features, items, ld, 1), k(features, items, ld, size), v(features, items, ld, size),
                     out(features, items, ld, 1);
                 time_calls(state, kBest,
                            [&] { return attend_attention(&q.view, &k.view, &v.view, &out.view, nullptr); });
               });
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &) {
    for (const int64_t n : {255, 256, 257, 511, 512, 513, 1023, 1024, 1025}) register_matmul(n, n, 1, "normal");
    for (const int64_t ld : {512, 528, 1024, 1040, 2048, 2064, 4096, 4112}) register_matmul(512, ld, 1, "normal");
    register_matmul(512, 528, kDenormal, "denormal");
    for (const int64_t n : {512, 1000, 2048, 4096}) {
      for (const int64_t columns : {1, 2, 4}) {
        for (const char *what : {"contiguous", "apart", "backwards"}) register_thin(n, columns, what);
      }
    }
    for (const bool turned : {false, true}) {
      for (const int64_t ld : {1024, 1040, 2048, 2064, 4096, 4112}) {
        register_softmax(1024, 1024, ld, turned, 1, "normal");
      }
      for (const int64_t rows : {511, 512, 513, 1023, 1025}) {
        register_softmax(rows, 1024, turned ? 1040 : 1056, turned, 1, "normal");
      }
      register_softmax(1024, 1024, 1040, turned, kDenormal, "denormal");
      register_softmax(1024, 1024, 1040, turned, 100, "underflowing");  // most results are 0
    }
    for (const int64_t ld : {64, 80, 512, 528, 1024, 1040, 2048, 2064, 4096, 4112}) {
      register_attention(512, 64, ld, 1, "normal");
    }
    for (const int64_t items : {511, 512, 513, 1023, 1024, 1025}) register_attention(items, 64, 64, 1, "normal");
    register_attention(512, 64, 80, kDenormal, "denormal");
  });
}
