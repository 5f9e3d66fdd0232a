// Rotation as attend.h says it, element by element, and tokens of batches and of packed sequences: for the tests of
// attend_rotary and attend_kv_append.
#pragma once

#include "stored.hpp"

namespace attend::test {

// What one rounding makes of a b + c: of sets of instructions without fused multiply-add, two.
template <class T>
T multiply_add(T a, T b, T c, bool fused) {
  if (fused) return std::fma(a, b, c);
  const volatile T product = a * b;
  return product + c;
}

// A line of features in place. cos(i), sin(i): of pair i.
template <class T, class Cos, class Sin>
void rotate_line(std::vector<T> *line, int64_t pairs, bool interleaved, bool inverse, bool fused, const Cos &cos,
                 const Sin &sin) {
  for (int64_t i = 0; i < pairs; ++i) {
    T &first = (*line)[static_cast<size_t>(interleaved ? 2 * i : i)],
      &second = (*line)[static_cast<size_t>(interleaved ? 2 * i + 1 : i + pairs)];
    const T x1 = first, x2 = second, c = cos(i), s = inverse ? -sin(i) : sin(i);
    const volatile T across = x2 * s, along = x1 * s;
    first = multiply_add<T>(x1, c, -across, fused);
    second = multiply_add<T>(x2, c, along, fused);
  }
}

// The tokens of a call: batches of as many columns each, or packed sequences, some of them empty.
struct TestTokens {
  int64_t columns = 0, batches = 1;  // of the operand
  std::vector<int64_t> starts;       // empty: not packed
  int64_t sequences() const { return starts.empty() ? batches : static_cast<int64_t>(starts.size()) - 1; }
  int64_t count() const { return columns * batches; }
  int64_t begin(int64_t sequence) const {
    return starts.empty() ? sequence * columns : starts[static_cast<size_t>(sequence)];
  }
  int64_t length(int64_t sequence) const { return begin(sequence + 1) - begin(sequence); }
  int64_t longest() const {
    int64_t most = 0;
    for (int64_t b = 0; b < sequences(); ++b) most = std::max(most, length(b));
    return most;
  }

  static TestTokens random(Random &random) {
    TestTokens t;
    if (random.one_in(2)) {
      t.columns = random.in(1, 40);
      t.batches = random.in(1, 3);
      return t;
    }
    t.starts = {0};
    for (int64_t b = random.in(1, 6); b > 0; --b) {
      t.starts.push_back(t.starts.back() + random.pick<int64_t>({0, 1, 1, random.in(1, 30)}));
    }
    if (t.starts.back() == 0) t.starts.back() = 3;
    t.columns = t.starts.back();
    return t;
  }
};

// f(token, its column, its batch, its sequence, its number there)
template <class F>
void for_each_token(const TestTokens &tokens, const F &f) {
  for (int64_t b = 0; b < tokens.sequences(); ++b) {
    for (int64_t i = 0; i < tokens.length(b); ++i) {
      const int64_t token = tokens.begin(b) + i;
      f(token, token % tokens.columns, token / tokens.columns, b, i);
    }
  }
}

}  // namespace attend::test
