// The bytes of a tensor are, counted upwards from its first, sum |stride_i| n_i + u with 0 <= n_i < extent_i and
// 0 <= u < element, and counted downwards from its last the same. So a and b share a byte iff
//
//     last byte of b - first byte of a = sum |stride_i| n_i (over the dimensions of both) + u + v,
//
// where u and v together take 1 byte up to element_a + element_b - 2 times. In general that is a knapsack. It is none
// for the strides that occur:
//
// 1. A step that is a multiple of a shorter one, c = m g, and reaches no further than this does, c <= g (most_g + 1),
//    leaves no multiple of g out: the two are one, g taken up to most_g + m most_c times. Equal strides become one that
//    way, and so do contiguous dimensions: a tensor without gaps adds nothing but to the step of 1.
// 2. Of the longest step that remains, c, there are between (r - reach) / c and r / c in a sum r, where `reach` is the
//    sum of all shorter ones. If each step divides the next this is one number: (1) left c beyond the reach. If each
//    stride of a tensor exceeds the reach of its shorter ones, then of two such tensors with equal strides, or one of
//    them without gaps, the reach is less than 2 c: at most two numbers, for each of at most four steps.
// 3. Of three steps 1, c, d the count n of d must leave a remainder (r - d n) mod c of at most most_1. The number of n
//    that do is a difference of two sums of floor((d i + e) / c), which Euclid's algorithm gives.
#include "api/overlap.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace attend {
namespace {

// So many bytes, taken up to so many times. No tensor spans more than 2^62 bytes (see measure): nothing overflows.
struct Step {
  uint64_t length, most;
  uint64_t reach() const { return length * most; }
};

constexpr size_t kSteps = 9, kTries = 64;

struct Steps {
  Step step[kSteps];
  size_t count = 0;

  // Kept in order of length, the shortest first.
  void add(Step s) {
    size_t at = count++;
    for (; at > 0 && step[at - 1].length > s.length; --at) step[at] = step[at - 1];
    step[at] = s;
  }
  void add(const Tensor &t) {
    for (size_t i = 0; i < 4; ++i) {
      if (t.stride[i] == 0) continue;
      add({static_cast<uint64_t>(std::abs(t.stride[i]) * size_of(t.dtype)), static_cast<uint64_t>(t.shape[i] - 1)});
    }
  }
  // (1): joins two steps; false if there are none to join.
  bool join() {
    for (size_t i = 0; i < count; ++i) {
      Step &g = step[i];
      for (size_t j = i + 1; j < count; ++j) {
        const Step c = step[j];
        if (c.length > g.reach() + g.length || c.length % g.length != 0) continue;
        g.most += c.length / g.length * c.most;
        --count;
        for (; j < count; ++j) step[j] = step[j + 1];
        return true;
      }
    }
    return false;
  }
};

// sum of floor((a i + b) / m) over 0 <= i < n, modulo 2^64; a n + b does not overflow.
uint64_t sum_of_floors(uint64_t n, uint64_t m, uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  while (true) {
    sum += (n % 2 == 0 ? n / 2 * (n - 1) : (n - 1) / 2 * n) * (a / m) + n * (b / m);
    a %= m;
    b %= m;
    const uint64_t last = a * n + b;
    if (last < m) return sum;
    // Counted the other way round: for each value of the floor, the i that have it.
    n = last / m;
    b = last % m;
    std::swap(a, m);
  }
}

// (2): of a step in a sum r with shorter ones of this reach.
struct Counts {
  uint64_t least, most;
  Counts(uint64_t r, const Step &c, uint64_t reach)
      : least(r > reach ? (r - reach - 1) / c.length + 1 : 0), most(std::min(c.most, r / c.length)) {}
};

// (3)
bool is_sum_of_three(uint64_t r, const Step &one, const Step &c, const Step &d) {
  const Counts counts(r, d, one.reach() + c.reach());
  if (counts.least > counts.most) return false;
  const uint64_t n = counts.most - counts.least + 1, e = r - d.length * counts.most + c.length;
  return sum_of_floors(n, c.length, d.length, e) != sum_of_floors(n, c.length, d.length, e - one.most - 1);
}

bool is_sum(uint64_t r, const Steps &steps) {
  const Step *const s = steps.step;
  uint64_t reach = 0;
  for (size_t i = 0; i < steps.count; ++i) reach += s[i].reach();
  if (r > reach) return false;
  if (steps.count == 1) return true;
  if (steps.count == 2) return r - s[1].length * std::min(s[1].most, r / s[1].length) <= s[0].most;
  uint64_t rest[kTries] = {r};
  size_t count = 1;
  for (size_t i = steps.count - 1; i > 2; --i) {
    uint64_t next[kTries];
    size_t found = 0;
    reach -= s[i].reach();
    for (size_t k = 0; k < count; ++k) {
      const Counts counts(rest[k], s[i], reach);
      // From the top: if a tensor has no gaps and an end of the other lies in it, that is what is tried first.
      for (uint64_t n = counts.most + 1; n > counts.least && found < kTries; --n) {
        next[found++] = rest[k] - (n - 1) * s[i].length;
      }
    }
    std::copy_n(next, found, rest);
    count = found;
  }
  return std::any_of(rest, rest + count, [s](uint64_t k) { return is_sum_of_three(k, s[0], s[1], s[2]); });
}

}  // namespace

bool share_a_byte(const Tensor &a, const Tensor &b) {
  if (a.end <= b.begin || b.end <= a.begin) return false;
  Steps steps;
  steps.add({1, static_cast<uint64_t>(size_of(a.dtype) + size_of(b.dtype) - 2)});
  steps.add(a);
  steps.add(b);
  while (steps.join()) {
  }
  return is_sum(static_cast<uint64_t>(b.end) - 1 - static_cast<uint64_t>(a.begin), steps);
}

}  // namespace attend
