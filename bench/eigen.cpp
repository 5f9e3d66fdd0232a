#include "eigen.hpp"

#if defined(ATTEND_HAS_EIGEN)

#define EIGEN_DONT_PARALLELIZE
#include <Eigen/Dense>
#include <cmath>

namespace attend::bench::eigen {
namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

template <class T>
Eigen::Map<const Matrix<T>> view(const T *data, int64_t rows, int64_t columns) {
  return {data, rows, columns};
}
template <class T>
Eigen::Map<Matrix<T>> view(T *data, int64_t rows, int64_t columns) {
  return {data, rows, columns};
}

template <class T>
void product(int64_t m, int64_t n, int64_t k, const T *a, const T *b, T *c) {
  view(c, m, n).noalias() = view(a, m, k) * view(b, k, n);
}

}  // namespace

std::string version() {
  return std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) + "." +
         std::to_string(EIGEN_MINOR_VERSION);
}

void matmul(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c) { product(m, n, k, a, b, c); }
void matmul(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c) { product(m, n, k, a, b, c); }

void softmax(int64_t rows, int64_t columns, const float *x, float *y) {
  const auto from = view(x, rows, columns);
  auto to = view(y, rows, columns);
  for (int64_t j = 0; j < columns; ++j) {
    to.col(j) = (from.col(j).array() - from.col(j).maxCoeff()).exp();
    to.col(j) /= to.col(j).sum();
  }
}

void attention(int64_t features, int64_t items, int64_t heads, const float *q, const float *k, const float *v,
               float *out) {
  Matrix<float> scores(items, items);
  const float scale = 1 / std::sqrt(static_cast<float>(features));
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t offset = h * items * features;
    scores.noalias() =
        view(k + offset, features, items).transpose() * (view(q + offset, features, items) * scale).eval();
    softmax(items, items, scores.data(), scores.data());
    view(out + offset, features, items).noalias() = view(v + offset, features, items) * scores;
  }
}

}  // namespace attend::bench::eigen

#else

namespace attend::bench::eigen {

std::string version() { return ""; }
void matmul(int64_t, int64_t, int64_t, const float *, const float *, float *) {}
void matmul(int64_t, int64_t, int64_t, const double *, const double *, double *) {}
void softmax(int64_t, int64_t, const float *, float *) {}
void attention(int64_t, int64_t, int64_t, const float *, const float *, const float *, float *) {}

}  // namespace attend::bench::eigen

#endif
