// Attention of 8 heads over 100 items of 64 features each: NumPy's arrays [heads, items, features], in vectors.
#include <attend/attend.hpp>
#include <cstdio>
#include <vector>

int main() {
  const int heads = 8, items = 100, features = 64;
  std::vector<float> x(heads * items * features);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 3;

  const attend::tensor t(x, {heads, items, features});
  const auto out = attend::attention(t, t, t, attend::attention_options().causal_top_left());  // owns its memory
  std::printf("%g on %s\n", static_cast<double>(out(0, 99, 7)), attend::isa());                // row, column, head
}
