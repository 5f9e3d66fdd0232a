// Eigen as rows beside ours, compiled for this very CPU; only where it was found when the benchmarks were built.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_EIGEN_HPP
#define ATTEND_BENCH_EIGEN_HPP

#include <cstdint>
#include <string>

namespace attend::bench::eigen {

// "" if there is none.
std::string version();

// Column-major and dense. Attention of [head, N, D] arrays: products and softmax of whole matrices, head by head.
void matmul(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c);
void matmul(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c);
void softmax(int64_t rows, int64_t columns, const float *x, float *y);
void attention(int64_t features, int64_t items, int64_t heads, const float *q, const float *k, const float *v,
               float *out);

}  // namespace attend::bench::eigen

#endif  // ATTEND_BENCH_EIGEN_HPP
