// What the tests of attend.hpp share: operands, results, and what is thrown instead.
#pragma once

#include <attend/attend.hpp>
#include <string>
#include <vector>

#include "support.hpp"

namespace attend::test {

template <class T>
std::vector<T> normals(int64_t count, unsigned stream) {
  Random random(stream);
  std::vector<T> x(static_cast<size_t>(count));
  for (T &v : x) v = static_cast<T>(random.normal());
  return x;
}

template <class A, class B>
bool same_bits(const A &a, const B &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(*a.data())) == 0;
}

// What a call throws.
struct Thrown {
  int reason;
  std::string argument, what;
};
template <class F>
Thrown thrown(const F &f) {
  try {
    f();
  } catch (const attend::error &e) {
    CHECK(ATTEND_REASON(e.code()) == e.reason());
    return {e.reason(), e.argument(), e.what()};
  }
  return {ATTEND_OK, "", ""};
}

}  // namespace attend::test
