// No byte outside the operands is read or written: each operand ends at, or begins behind, a page that may not be
// touched, at every offset within a vector.
#include <sys/mman.h>
#include <unistd.h>

#include "support.hpp"

using namespace attend::test;

namespace {

// `count` elements, the last one right before an untouchable page or the first one right behind one.
template <class T>
class Guarded {
 public:
  Guarded(int64_t count, bool at_end, int64_t offset) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count + offset) * sizeof(T), pages = (bytes + page - 1) / page + 1;
    size_ = (pages + 2) * page;
    void *memory = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    start_ = static_cast<char *>(memory);
    REQUIRE(mprotect(start_ + page, pages * page, PROT_READ | PROT_WRITE) == 0);
    char *first = at_end ? start_ + (pages + 1) * page - bytes : start_ + page;
    // An offset moves the elements off the guard, so that every alignment is met on its far side.
    data = reinterpret_cast<T *>(first) + (at_end ? 0 : offset);
    for (int64_t i = 0; i < count; ++i) data[i] = static_cast<T>(i % 3);
  }
  ~Guarded() { munmap(start_, size_); }
  Guarded(const Guarded &) = delete;
  Guarded &operator=(const Guarded &) = delete;

  T *data;

 private:
  char *start_;
  size_t size_;
};

// Dense m x n, columns or rows contiguous.
template <class T>
attend_tensor matrix(T *data, int64_t m, int64_t n, bool by_rows, uint32_t dtype = kDtype<T>) {
  return {data, dtype, 2, {m, n, 0, 0}, {by_rows ? n : 1, by_rows ? 1 : m, 0, 0}};
}

}  // namespace

TEST_CASE_TEMPLATE("matmul stays within its operands", T, float, double) {
  Random random(301);
  for_each_isa([&] {
    for (int round = 0; round < 120; ++round) {
      const int64_t m = random.in(1, 40), n = random.in(1, 30),
                    k = random.one_in(5) ? random.in(1, 600) : random.in(1, 40);
      const bool end = random.one_in(2);
      const int64_t offset = random.in(0, 15);
      Guarded<T> a(m * k, end, offset), b(k * n, end, offset), c(m * n, end, offset), bias(m, end, offset);
      const attend_tensor ta = matrix(a.data, m, k, random.one_in(2)), tb = matrix(b.data, k, n, random.one_in(2));
      const attend_tensor tc = matrix(c.data, m, n, random.one_in(2)), tbias = matrix(bias.data, m, 1, false);
      attend_matmul_options options = {};
      options.size = sizeof options;
      options.bias = random.one_in(2) ? &tbias : nullptr;
      CHECK(ok(attend_matmul(1, &ta, &tb, random.one_in(2) ? 0 : 0.5, &tc, &options)));
    }
    // Long enough to be fetched ahead, packed, and cut into blocks of rows.
    for (const unsigned layouts : {0u, 1u, 2u, 3u}) {
      const int64_t m = 417, n = 131, k = 530;
      Guarded<T> a(m * k, true, 0), b(k * n, true, 0), c(m * n, true, 0);
      const attend_tensor ta = matrix(a.data, m, k, (layouts & 1u) != 0),
                          tb = matrix(b.data, k, n, (layouts & 2u) != 0);
      const attend_tensor tc = matrix(c.data, m, n, false);
      CHECK(ok(attend_matmul(1, &ta, &tb, 1, &tc, nullptr)));
    }
  });
}

TEST_CASE_TEMPLATE("softmax stays within its operands", T, float, double) {
  Random random(302);
  for_each_isa([&] {
    for (int round = 0; round < 150; ++round) {
      const int64_t m = random.one_in(6) ? random.in(300, 1100) : random.in(1, 40), n = random.in(1, 40);
      const bool end = random.one_in(2), rows = random.one_in(2);
      const int64_t offset = random.in(0, 15);
      Guarded<T> x(m * n, end, offset), y(m * n, end, offset), bias(m * n, end, offset), lse(n, end, offset);
      Guarded<uint8_t> mask(m * n, end, offset);
      for (int64_t i = 0; i < m * n; ++i) mask.data[i] = i % 5 != 0;
      const attend_tensor tx = matrix(x.data, m, n, rows), ty = matrix(y.data, m, n, random.one_in(4) ? !rows : rows);
      const attend_tensor tb = matrix(bias.data, m, n, rows), tl = matrix(lse.data, 1, n, true);
      const attend_tensor tm = matrix(mask.data, m, n, random.one_in(2), ATTEND_BOOL);
      attend_softmax_options options = {};
      options.size = sizeof options;
      options.flags = random.one_in(3) ? ATTEND_LOG : 0;
      options.lse = &tl;
      if (random.one_in(3)) options.bias = &tb;
      if (random.one_in(3)) options.mask = &tm;
      CHECK(ok(attend_softmax(&tx, &ty, &options)));
    }
  });
}

TEST_CASE_TEMPLATE("attention stays within its operands", T, float, double) {
  Random random(303);
  for_each_isa([&] {
    for (int round = 0; round < 150; ++round) {
      const int64_t d = random.in(1, 70), dv = random.in(1, 70), nq = random.in(1, 40);
      const int64_t nk = random.one_in(5) ? random.in(250, 300) : random.in(1, 40);
      const bool end = random.one_in(2);
      const int64_t offset = random.in(0, 15);
      Guarded<T> q(d * nq, end, offset), k(d * nk, end, offset), v(dv * nk, end, offset), out(dv * nq, end, offset);
      Guarded<T> lse(nq, end, offset), scores(nk * nq, end, offset), bias(nk * nq, end, offset);
      Guarded<uint8_t> mask(nk * nq, end, offset);
      for (int64_t i = 0; i < nk * nq; ++i) mask.data[i] = i % 3 != 0;
      const attend_tensor tq = matrix(q.data, d, nq, random.one_in(4)), tk = matrix(k.data, d, nk, random.one_in(4));
      const attend_tensor tv = matrix(v.data, dv, nk, random.one_in(4)),
                          tout = matrix(out.data, dv, nq, random.one_in(4));
      const attend_tensor tl = matrix(lse.data, 1, nq, true), ts = matrix(scores.data, nk, nq, random.one_in(2));
      const attend_tensor tb = matrix(bias.data, nk, nq, random.one_in(2)),
                          tm = matrix(mask.data, nk, nq, random.one_in(2), ATTEND_BOOL);
      attend_attention_options options = {};
      options.size = sizeof options;
      options.flags = random.one_in(2) ? ATTEND_CAUSAL_BOTTOM_RIGHT : 0;
      options.lse = &tl;
      if (random.one_in(3)) options.scores = &ts;
      if (random.one_in(3)) options.bias = &tb;
      if (random.one_in(3)) options.mask = &tm;
      CHECK(ok(attend_attention(&tq, &tk, &tv, &tout, &options)));
    }
  });
}
