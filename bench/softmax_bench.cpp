// attend_bench_softmax: softmax down the columns of a matrix, M x N, whose columns or rows are contiguous, and its gradient.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <cstdint>
#include <functional>
#include <string>

#include "eigen.hpp"
#include "google_benchmark.hpp"
#include "onednn.hpp"

namespace {

using namespace attend::bench;

struct Shape {
  const char *name;
  int64_t rows, columns;
};

// Short columns, the square of the literature, few long columns, and one that only memory holds.
constexpr Shape kShapes[] = {{"4x65536", 4, 65536},     {"16x16384", 16, 16384}, {"64x4096", 64, 4096},
                             {"1024x1024", 1024, 1024}, {"4096x256", 4096, 256}, {"1048576x1", 1048576, 1},
                             {"8192x8192", 8192, 8192}};
// Of which the references compute those up to this.
constexpr int64_t kLargestReference = 1 << 20;

// Every element of each operand is read once or written once.
template <class T>
void count(benchmark::State &state, double elements, int operands, double seconds) {
  if (seconds <= 0) return;
  state.counters["Gelem/s"] = elements / seconds * 1e-9;
  count_bytes(state, operands * static_cast<double>(sizeof(T)) * elements, seconds);
}

void register_peer(const std::string &name, const char *peer, const Shape &shape, Layout layout) {
  const Row row = {peer, Path::blocked, 1};
  register_row(name, row, [=](benchmark::State &state) {
    const auto &problem = problem_for<SoftmaxProblem<float>>(shape.rows, shape.columns, layout);
    const float *x = problem.x.view().data;
    float *y = problem.y.view().data;
    problem.run({"", Path::library, 1});
    const std::vector<float> ours(y, y + shape.rows * shape.columns);
    const std::function<void()> call =
        row.name == std::string("onednn")
            ? onednn::softmax(shape.rows, shape.columns, layout == Layout::contiguous_columns, x, y)
            : std::function<void()>([=] { eigen::softmax(shape.rows, shape.columns, x, y); });
    if (!call) return state.SkipWithError("it has reference code alone for this");
    call();
    if (!agrees(state, ours, y, 1e-5)) return;
    count<float>(state, problem.elements(), 2, time_calls(state, row, [&] { return call(), ATTEND_OK; }));
  });
}

template <class T>
void register_layout(const Shape &shape, Layout layout) {
  const std::string name = std::string("softmax/") + kTypeName<T> + "/" + shape.name +
                           (layout == Layout::contiguous_columns ? "/contiguous" : "/strided");
  const bool is_large = shape.rows * shape.columns > kLargestReference;
  for (const Row &row : all_rows(!is_large)) {
    if (is_large && row.path != Path::library) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<SoftmaxProblem<T>>(shape.rows, shape.columns, layout);
      count<T>(state, problem.elements(), 2, time_calls(state, row, [&] { return problem.run(row); }));
    });
  }
  if (!std::is_same_v<T, float>) return;
  const bool by_columns = layout == Layout::contiguous_columns;
  // oneDNN's reference code, all it has for contiguous rows, takes seconds of the largest.
  if (!onednn::version().empty() && (by_columns || !is_large)) register_peer(name, "onednn", shape, layout);
  if (!eigen::version().empty() && by_columns) register_peer(name, "eigen", shape, layout);
}

template <class T>
void register_backward(const Shape &shape, Layout layout) {
  const std::string name = std::string("softmax_backward/") + kTypeName<T> + "/" + shape.name +
                           (layout == Layout::contiguous_columns ? "/contiguous" : "/strided");
  for (const Row &row : all_rows(shape.rows * shape.columns <= kLargestReference)) {
    if (row.path == Path::blocked) continue;
    register_row(name, row, [=](benchmark::State &state) {
      const auto &problem = problem_for<SoftmaxBackwardProblem<T>>(shape.rows, shape.columns, layout);
      count<T>(state, problem.elements(), 3, time_calls(state, row, [&] { return problem.run(row); }));
    });
  }
}

template <class T>
void register_type() {
  for (const Shape &shape : kShapes) {
    register_layout<T>(shape, Layout::contiguous_columns);
    register_backward<T>(shape, Layout::contiguous_columns);
    if (shape.columns == 1) continue;
    register_layout<T>(shape, Layout::contiguous_rows);
    register_backward<T>(shape, Layout::contiguous_rows);
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_benchmarks(argc, argv, [](const FmaPeak &) {
    register_type<float>();
    register_type<double>();
  });
}
