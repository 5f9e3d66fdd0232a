// attend_bench_softmax: softmax down the columns of a matrix, M x N, whose columns or rows are contiguous.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <string>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

struct Shape {
  const char *name;
  int64_t rows, columns;
};

// Many short columns, the square of the literature, and few long columns.
constexpr Shape kShapes[] = {{"64x4096", 64, 4096}, {"1024x1024", 1024, 1024}, {"4096x256", 4096, 256}};

template <class T>
void register_layout(const Shape &shape, Layout layout) {
  const std::string name = std::string("softmax/") + kTypeName<T> + "/" + shape.name +
                           (layout == Layout::contiguous_columns ? "/contiguous" : "/strided");
  for (const Row &row : all_rows(true)) {
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<SoftmaxProblem<T>>(shape.rows, shape.columns, layout);
      const double seconds = time_calls(state, row, [&] { return problem.run(row); });
      if (seconds <= 0) return;
      state.counters["Gelem/s"] = problem.elements() / seconds * 1e-9;
      // Every element is read once and written once: what a memcpy would move.
      state.counters["GB/s"] = 2 * sizeof(T) * problem.elements() / seconds * 1e-9;
    });
  }
}

template <class T>
void register_type() {
  for (const Shape &shape : kShapes) {
    register_layout<T>(shape, Layout::contiguous_columns);
    register_layout<T>(shape, Layout::contiguous_rows);
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &) {
    register_type<float>();
    register_type<double>();
  });
}
