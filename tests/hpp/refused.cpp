// Programs that must not compile, each with words that say what to mend: tests/CMakeLists.txt has them.
#include <attend/attend.hpp>
#include <vector>

struct Expression {
  long rows() const;
  long cols() const;
};
struct Complex {
  float re, im;
};

void refused(std::vector<bool> &bits, std::vector<float> &x, const std::vector<float> &fixed, float *pointer,
             std::vector<Complex> &complex, std::vector<int> &lengths) {
  const attend::tensor t(x, {2, 3});
#if CASE == 1
  attend::softmax(t, attend::softmax_options().mask(bits));
#elif CASE == 2
  attend::softmax(t, attend::tensor(fixed, {2, 3}));
#elif CASE == 3
  attend::softmax(t, std::vector<float>(6));
#elif CASE == 4
  attend::softmax(Expression());
#elif CASE == 5
  attend::softmax(pointer);
#elif CASE == 6
  attend::softmax(complex);
#elif CASE == 7
  attend::softmax(t, attend::softmax_options().mask(x));
#elif CASE == 8
  attend::attention(t, t, t, attend::attention_options().kv_lengths(lengths));
#elif CASE == 9
  attend::tensor(x, {1, 1, 1, 2, 3});
#else
  attend::softmax(t, t);
#endif
  static_cast<void>(bits), static_cast<void>(fixed), static_cast<void>(pointer), static_cast<void>(complex);
  static_cast<void>(lengths);
}
