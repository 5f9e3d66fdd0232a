// attend_bench_matmul: C = A B, beside the other libraries that are installed. For example
// --benchmark_filter='matmul/f32/512/.*threads:1'. --gemm=PATH, any number of times: a further library with sgemm_.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "eigen.hpp"
#include "gemm_peers.hpp"
#include "google_benchmark.hpp"

namespace {

using namespace attend::bench;

// `layouts`: of A and of B, N = contiguous columns, T = contiguous rows.
struct Shape {
  const char *name;
  int64_t rows, columns, depth;
  const char *layouts = "NN";

  Layout layout(int operand) const {
    return layouts[operand] == 'N' ? Layout::contiguous_columns : Layout::contiguous_rows;
  }
};

// Squares; M x K x N of a transformer's projections, 512 tokens of 768 features and one to 16 tokens of 4096; a thin A and
// a thin depth; the other three layouts.
constexpr Shape kShapes[] = {{"8", 8, 8, 8},
                             {"16", 16, 16, 16},
                             {"32", 32, 32, 32},
                             {"64", 64, 64, 64},
                             {"96", 96, 96, 96},
                             {"128", 128, 128, 128},
                             {"256", 256, 256, 256},
                             {"384", 384, 384, 384},
                             {"512", 512, 512, 512},
                             {"768", 768, 768, 768},
                             {"1024", 1024, 1024, 1024},
                             {"2048", 2048, 2048, 2048},
                             {"768x768x512", 768, 512, 768},
                             {"3072x768x512", 3072, 512, 768},
                             {"4096x4096x1", 4096, 1, 4096},
                             {"4096x4096x4", 4096, 4, 4096},
                             {"4096x4096x16", 4096, 16, 4096},
                             {"4x1024x1024", 4, 1024, 1024},
                             {"1024x16x1024", 1024, 1024, 16},
                             {"512/A_transposed", 512, 512, 512, "TN"},
                             {"512/B_transposed", 512, 512, 512, "NT"},
                             {"512/both_transposed", 512, 512, 512, "TT"}};

// The naive loops need minutes of the large ones, the blocked ones of the largest.
constexpr double kLargestNaive = 1 << 24, kLargestBlocked = 1 << 28;

template <class T>
const MatmulProblem<T> &problem_of(const Shape &shape) {
  return problem_for<MatmulProblem<T>>(shape.rows, shape.columns, shape.depth, shape.layout(0), shape.layout(1));
}

template <class T>
void register_peers(const std::vector<GemmPeer> &peers, const Shape &shape, const std::string &name, double one_core) {
  for (const GemmPeer &peer : peers) {
    if (!peer.has(sizeof(T) == 8, shape.layouts)) continue;
    const Row row = {peer.name.c_str(), Path::library, 1};
    register_row(name, row, [=, &peer](benchmark::State &state) {
      const auto &problem = problem_of<T>(shape);
      const T *a = problem.a.view().data, *b = problem.b.view().data;
      T *c = problem.c.view().data;
      // Checked against ours before it is timed.
      problem.run({"", Path::library, 1});
      const std::vector<T> ours(c, c + shape.rows * shape.columns);
      peer.run(shape.rows, shape.columns, shape.depth, a, b, c, shape.layouts);
      if (!agrees(state, ours, c, 1e-3)) return;
      const Row timed = {nullptr, Path::blocked, 1};  // nothing to choose
      const double seconds = time_calls(state, timed, [&] {
        peer.run(shape.rows, shape.columns, shape.depth, a, b, c, shape.layouts);
        return ATTEND_OK;
      });
      count_flops(state, timed, problem.flops(), seconds, one_core);
      count_bytes(state, problem.bytes(), seconds);
    });
  }
}

template <class T>
void register_type(const FmaPeak &peak, const std::vector<GemmPeer> &peers) {
  const double one_core = peak_of<T>(peak);
  for (const Shape &shape : kShapes) {
    const double work = static_cast<double>(shape.rows * shape.columns * shape.depth);
    const std::string name = std::string("matmul/") + kTypeName<T> + "/" + shape.name;
    for (const Row &row : all_rows(work <= kLargestNaive)) {
      if (row.path == Path::blocked && work > kLargestBlocked) continue;
      register_row(name, row, [=](benchmark::State &state) {
        const auto &problem = problem_of<T>(shape);
        const double seconds = time_calls(state, row, [&] { return problem.run(row); });
        count_flops(state, row, problem.flops(), seconds, one_core);
        count_bytes(state, problem.bytes(), seconds);
      });
    }
    register_peers<T>(peers, shape, name, one_core);
  }
}

// m, n, k drawn from 1..64: the geometric mean over the shapes of how much longer the fastest of the peers takes, each
// measured in turns with ours.
void register_random_shapes(const std::vector<GemmPeer> &peers) {
  benchmark::RegisterBenchmark(
      "matmul/f32/random 1..64/threads:1",
      [&peers](benchmark::State &state) {
        constexpr int kShapeCount = 300, kRounds = 8;
        attend_set_isa(nullptr);
        double logs = 0, logs_from_8 = 0;
        int from_8 = 0, slower_from_8 = 0;
        for (auto _ : state) {
          std::mt19937 random(7);
          for (int i = 0; i < kShapeCount; ++i) {
            const int64_t m = 1 + static_cast<int64_t>(random() % 64), n = 1 + static_cast<int64_t>(random() % 64),
                          k = 1 + static_cast<int64_t>(random() % 64);
            const MatmulProblem<float> p(m, n, k);
            const int calls = static_cast<int>(std::max<int64_t>(20, 40000 / (200 + m * n * k / 16)));
            std::vector<double> best(peers.size() + 1, 1e9);
            for (int round = 0; round < kRounds; ++round) {
              for (size_t who = 0; who < best.size(); ++who) {
                const auto start = std::chrono::steady_clock::now();
                for (int c = 0; c < calls; ++c) {
                  if (who == 0) {
                    p.run({"", Path::library, 1});
                  } else {
                    peers[who - 1].run(m, n, k, p.a.view().data, p.b.view().data, p.c.view().data);
                  }
                }
                const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
                best[who] = std::min(best[who], elapsed.count());
              }
            }
            const double ratio = peers.empty() ? 1 : *std::min_element(best.begin() + 1, best.end()) / best[0];
            logs += std::log(ratio);
            if (std::min(m, n) < 8) continue;
            logs_from_8 += std::log(ratio);
            ++from_8;
            slower_from_8 += ratio < 0.9;
          }
        }
        const double iterations = static_cast<double>(state.iterations());
        state.counters["xbest"] = std::exp(logs / (iterations * kShapeCount));
        state.counters["xbest8"] = std::exp(logs_from_8 / std::max(1, from_8));
        state.counters["below0.9"] = static_cast<double>(slower_from_8) / std::max(1, from_8);
      })
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char **argv) {
  std::vector<std::string> paths;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--gemm=", 7) == 0) {
      paths.push_back(argv[i] + 7);
    } else {
      argv[kept++] = argv[i];
    }
  }
  attend_threads();  // the default, before the peers are held to one thread
  std::vector<GemmPeer> peers = find_gemm_peers(paths);
  for (const GemmPeer &peer : peers) {
    // Every program says of Eigen what it is.
    if (!peer.is_eigen) describe_peer(peer.name, peer.version, peer.kernels, peer.left_out);
  }
  peers.erase(std::remove_if(peers.begin(), peers.end(), [](const GemmPeer &peer) { return !peer.left_out.empty(); }),
              peers.end());
  return run_benchmarks(kept, argv, [&peers](const FmaPeak &peak) {
    register_type<float>(peak, peers);
    register_type<double>(peak, peers);
    register_random_shapes(peers);
  });
}
