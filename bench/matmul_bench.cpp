// attend_bench_matmul: C = A B. For example --benchmark_filter='matmul/f32/512/.*threads:1'.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <string>

#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

struct Shape {
  const char *name;
  int64_t rows, columns, depth;
};

constexpr Shape
    kShapes
        [] =
            {
                {"32", 32, 32, 32},
                {"64", 64, 64, 64},
                {"128", 128, 128, 128},
                {"256", 256, 256, 256},
                {"512", 512, 512, 512},
                {"1024", 1024, 1024, 1024},
                {"768x768x512", 768, 512, 768},  // M x K x N: a projection of BERT's, 512 tokens of 768 features
};

// The naive loops need minutes of the large ones.
constexpr int64_t kLargestNaive = 256;

template <class T>
void register_type(const FmaPeak &peak) {
  for (const Shape &shape : kShapes) {
    for (const Row &row : all_rows(shape.rows <= kLargestNaive)) {
      const double one_core = peak_of<T>(peak);
      register_row(std::string("matmul/") + kTypeName<T> + "/" + shape.name, row, [=](benchmark::State &state) {
        const auto &problem = problem_for<MatmulProblem<T>>(shape.rows, shape.columns, shape.depth);
        const double seconds = time_calls(state, row, [&] { return problem.run(row); });
        count_flops(state, row, problem.flops(), seconds, one_core);
      });
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &peak) {
    register_type<float>(peak);
    register_type<double>(peak);
  });
}
