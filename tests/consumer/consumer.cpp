// The same as consumer.c through the C++ header: a product, a softmax, and their values; and an error.
#include <attend/attend.hpp>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

int main() {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6}, b = {1, 0, -1, 2, 1, 0};
  const float product[] = {-4, -4, 5, 8};

  const auto c = attend::matmul(attend::columns(a, {2, 3}), attend::columns(b, {3, 2}));
  const auto p = attend::softmax(c);
  for (std::size_t i = 0; i < 4; ++i) {
    const double pair = std::exp(product[i & ~std::size_t{1}]) + std::exp(product[i | 1]);
    if (c[i] != product[i]) return std::printf("c[%zu] = %g, not %g\n", i, c[i], product[i]), 1;
    if (std::fabs(p[i] - std::exp(product[i]) / pair) > 1e-6) return std::printf("p[%zu] = %g\n", i, p[i]), 1;
  }
  try {
    attend::matmul(attend::columns(a, {2, 3}), attend::columns(b, {2, 3}));
    return std::puts("a product of matrices that do not fit"), 1;
  } catch (const attend::error &e) {
    if (std::strcmp(e.argument(), "b") != 0) return std::printf("%s\n", e.what()), 1;
  }
  std::printf("attend %u on %s, %d threads\n", attend::version(), attend::isa(), attend::threads());
  return 0;
}
