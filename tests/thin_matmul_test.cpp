// attend_matmul with few rows or columns beside an operand that no cache holds, which is read in long runs: the bits of the
// same rows in a small product.
#include "arrays.hpp"
#include "drivers/matmul_plan.hpp"
#include "on_core.hpp"
#include "stored.hpp"
#include "tables.hpp"

using namespace attend::test;

namespace {

// Elements of A may lie upon each other, so that many of them need little memory: A(i, k) = memory[i rows + k columns].
struct Overlapping {
  std::vector<unsigned char> memory;
  attend_tensor tensor;
  Overlapping(Random &random, uint32_t dtype, int64_t rows, int64_t columns, int64_t row_stride, int64_t col_stride) {
    const int64_t element = bytes_of_element(dtype);
    const int64_t count = (rows - 1) * row_stride + (columns - 1) * col_stride + 1;
    // 16 bytes off a line, as malloc gives them.
    memory.resize(static_cast<size_t>(count * element) + 128);
    const auto past = reinterpret_cast<uintptr_t>(memory.data()) % 64;
    unsigned char *const first = memory.data() + (80 - past) % 64;
    for (int64_t i = 0; i < count; ++i) {
      const double v = dtype == ATTEND_I8 ? static_cast<double>(random.in(-127, 127))
                                          : static_cast<double>(random.in(-4096, 4096)) / 1024;
      if (dtype == ATTEND_F64) {
        std::memcpy(first + i * 8, &v, 8);
      } else {
        const uint32_t bits = nearest_in(dtype, v);
        std::memcpy(first + i * element, &bits, static_cast<size_t>(element));
      }
    }
    tensor = {first, dtype, 2, {rows, columns, 1, 1}, {row_stride, col_stride, 0, 0}};
  }
};

struct Case {
  uint32_t a, b;
  int64_t m, n, k;
  int64_t row_stride, col_stride;  // of A
  double alpha, beta;
  bool biased;
};

// C = A B, and C^T = B^T A^T, whose C is the other way round.
template <class T>
void check_thin(Random &random, const Case &x, int32_t threads, bool turned) {
  const auto flipped = [](attend_tensor t) {
    std::swap(t.shape[0], t.shape[1]);
    std::swap(t.stride[0], t.stride[1]);
    return t;
  };
  const bool scales = x.a == ATTEND_I8;
  // Elements of B's columns side by side or, as those of a matrix by its rows are, apart.
  const int64_t b_row = random.one_in(3) ? 1 : x.n + random.in(0, 1) * random.in(0, 60);
  Overlapping a(random, x.a, x.m, x.k, x.row_stride, x.col_stride),
      b(random, x.b, x.k, x.n, b_row, b_row == 1 ? x.k + 4 : 1), bias(random, kDtype<T>, x.m, x.n, 1, x.m);
  Operand<T> c({x.m, x.n, 1, 1}, {}), scale({x.m, 1, 1, 1}, {});
  c.fill(random);
  scale.fill(random);
  // Rows, or k, from the last to the first.
  const bool backwards = random.one_in(2);
  if (backwards) {
    const size_t d = x.row_stride == 1 ? 0 : 1;
    a.tensor.data = element(a.tensor, d == 0 ? x.m - 1 : 0, d == 0 ? 0 : x.k - 1);
    a.tensor.stride[d] = -1;
  }
  INFO("A's type " << x.a << " m " << x.m << " n " << x.n << " k " << x.k << " strides " << x.row_stride << ' '
                   << x.col_stride << " B's rows apart " << b_row << " threads " << threads << " turned " << turned
                   << " backwards " << backwards);
  const auto multiply = [&](int64_t first, int64_t rows, Operand<T> *result, int32_t on) {
    attend_tensor ta = along(a.tensor, 0, first, rows);
    // Rows of a part lie where they share no sets, and forwards.
    const int64_t bytes = bytes_of_element(x.a), apart = x.k + 1;
    std::vector<unsigned char> copy;
    if (rows < x.m && (x.col_stride == 1 || backwards)) {
      copy.resize(static_cast<size_t>(rows * apart * bytes));
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t k = 0; k < x.k; ++k) {
          std::memcpy(copy.data() + (i * apart + k) * bytes, element(ta, i, k), static_cast<size_t>(bytes));
        }
      }
      ta.data = copy.data();
      ta.stride[0] = apart;
      ta.stride[1] = 1;
    }
    attend_tensor tb = b.tensor, tc = *result->tensor(), tbias = along(bias.tensor, 0, first, rows),
                  factor = along(*scale.tensor(), 0, first, rows);
    tc = along(tc, 0, first, rows);
    if (turned) {
      ta = flipped(ta), tb = flipped(tb), tc = flipped(tc), tbias = flipped(tbias), factor = flipped(factor);
    }
    const OnCore core(random);
    attend_matmul_options options = options_with<attend_matmul_options>(on);
    options.bias = x.biased ? &tbias : nullptr;
    if (scales) (turned ? options.b_scale : options.a_scale) = &factor;
    return ok(turned ? attend_matmul(x.alpha, &tb, &ta, x.beta, &tc, &options)
                     : attend_matmul(x.alpha, &ta, &tb, x.beta, &tc, &options));
  };
  for_each_isa([&] {
    Operand<T> whole = c, parts = c;
    if (!multiply(0, x.m, &whole, threads)) return;
    constexpr int64_t kRows = 41;
    int64_t wrong = 0;
    for (const int64_t first : {int64_t{0}, x.m / 2 - 17, x.m - kRows}) {
      if (!multiply(first, kRows, &parts, 1)) return;
      for (int64_t i = first; i < first + kRows; ++i) {
        for (int64_t j = 0; j < x.n; ++j) wrong += whole.at(i, j, 0, 0) != parts.at(i, j, 0, 0);
      }
    }
    CHECK(wrong == 0);
  });
}

constexpr uint32_t F32 = ATTEND_F32, F64 = ATTEND_F64;

}  // namespace

TEST_CASE("thin products from memory: columns of A contiguous") {
  Random random(1);
  for (const Case &x :
       {Case{F32, F32, 4103, 2, 1030, 1, 3, 1, 0, false}, Case{F32, F32, 4103, 3, 1030, 1, 3, -0.7, 1, false},
        Case{F32, F32, 4103, 4, 1030, 1, 3, 1, 0, true}, Case{F32, ATTEND_BF16, 4103, 5, 1030, 1, 3, 1, 0, false},
        Case{F32, F32, 4103, 8, 1030, 1, 3, 1, 0.3, true}, Case{F32, F32, 4103, 9, 1030, 1, 3, 1, 0, false},
        Case{ATTEND_BF16, F32, 8201, 4, 1030, 1, 3, 1, 0, true},
        Case{ATTEND_F16, ATTEND_F16, 8201, 7, 1030, 1, 3, 1, 1, false},
        Case{ATTEND_I8, F32, 16421, 6, 1030, 1, 3, 1, 0, true}, Case{F32, F32, 4103, 13, 1030, 1, 3, -0.7, 0.3, true},
        Case{F32, F32, 4103, 16, 1027, 1, 3, 1, 0, false}, Case{F32, F32, 4103, 17, 1030, 1, 3, 1, 1, false},
        Case{ATTEND_BF16, ATTEND_BF16, 8201, 14, 1030, 1, 3, 1, 1, false}}) {
    check_thin<float>(random, x, static_cast<int32_t>(random.in(1, 3)), random.one_in(2));
  }
  check_thin<double>(random, {F64, F64, 2053, 3, 1030, 1, 3, 1, 0.3, true}, 2, false);
  check_thin<double>(random, {F64, F64, 2053, 6, 1030, 1, 3, 1, 0, false}, 1, true);
  check_thin<double>(random, {F64, F64, 2053, 11, 1030, 1, 3, 1, 1, false}, 2, false);
}

// In tall tiles by kernels of 32 registers, where the L2 has 2 MiB (OnCore plays one); then what is left of the rows.
TEST_CASE("thin products from the L2: columns of A contiguous") {
  Random random(6);
  for (int round = 0; round < 6; ++round) {
    for (const int64_t n : {1, 2, 3}) {
      const auto some = [&](uint32_t type) {
        const int64_t m = random.one_in(3) ? 16 * random.in(7, 26) + random.in(-1, 1) : random.in(97, 420);
        const int64_t k = random.in(1, type == F64 ? 450 : 900), apart = random.one_in(2) ? m + random.in(0, 9) : 3;
        // (The parts of fewer rows lie on each other.)
        const double beta = m < 131 ? 0.0 : random.pick({0.0, 1.0, 0.3});
        return Case{type, type, m, n, k, 1, apart, random.pick({1.0, -0.7}), beta, random.one_in(2)};
      };
      check_thin<float>(random, some(F32), static_cast<int32_t>(random.in(1, 3)), random.one_in(2));
      check_thin<double>(random, some(F64), static_cast<int32_t>(random.in(1, 3)), random.one_in(2));
    }
  }
}

// Rows that begin in the same sets of the caches are read from a whole vector on, and whole.
TEST_CASE("thin products: rows of A contiguous, a power of two apart") {
  Random random(2);
  for (const int64_t n : {1, 2, 3, 4}) {
    for (const int64_t stride : {1024, 1040, 1027}) {
      const int64_t k = random.in(500, 1030);
      check_thin<float>(random, {F32, F32, random.in(100, 140), n, k, stride, 1, 1, 0, false}, 1, random.one_in(2));
      check_thin<double>(random, {F64, F64, random.in(100, 140), n, k, stride, 1, 1, 0, false}, 1, random.one_in(2));
    }
    for (const uint32_t type : {ATTEND_BF16, ATTEND_F16, ATTEND_I8}) {
      const int64_t stride = type == ATTEND_I8 ? 4096 : 2048;
      check_thin<float>(random, {type, F32, random.in(100, 140), n, random.in(600, 700), stride, 1, 1, 0, false}, 1,
                        false);
    }
  }
}

// Some columns after the others, by kernels of 32 registers.
TEST_CASE("thin products: rows of A contiguous, more columns") {
  Random random(5);
  for (const int64_t n : {5, 7, 8, 11, 16, 17}) {
    const auto some = [&](uint32_t a, uint32_t b, int64_t stride) {
      const int64_t m = random.in(300, 340), k = random.in(500, 1030);
      return Case{a, b, m, n, k, stride, 1, random.pick({1.0, -0.7}), random.pick({0.0, 1.0, 0.3}), random.one_in(2)};
    };
    const int32_t threads = static_cast<int32_t>(random.in(1, 3));
    const uint32_t b = random.pick({F32, uint32_t{ATTEND_F16}});
    check_thin<float>(random, some(F32, b, random.one_in(2) ? 1024 : 1037), threads, random.one_in(2));
    check_thin<float>(random, some(ATTEND_BF16, b, random.one_in(2) ? 2048 : 1037), threads, random.one_in(2));
    check_thin<double>(random, some(F64, F64, random.one_in(2) ? 1024 : 1037), threads, random.one_in(2));
  }
}

TEST_CASE("thin products from memory: rows of A contiguous, a power of two apart") {
  Random random(3);
  for (const int64_t n : {1, 2, 6})
    check_thin<float>(random, {F32, F32, 8203, n, 1030, 1024, 1, 1, 0, false}, 2, n == 2);
  check_thin<float>(random, {ATTEND_F16, F32, 8203, 9, 1030, 2048, 1, 1, 1, true}, 2, false);
  check_thin<float>(random, {ATTEND_I8, ATTEND_BF16, 16421, 7, 1030, 1037, 1, 1, 0.3, false}, 1, true);
}

// Of one number the chunks of k are lanes; beside another row they are one after the other.
TEST_CASE_TEMPLATE("thin products: one number", T, float, double) {
  Random random(4);
  constexpr int64_t kChunk = 2048 / static_cast<int64_t>(sizeof(T));
  for (const int64_t k :
       {kChunk, kChunk + 1, 2 * kChunk - 1, 3 * kChunk, 16 * kChunk, 17 * kChunk + 3, 45 * kChunk + 100}) {
    Operand<T> a({2, k, 1, 1}, {{1, 0, 2, 3}, 4, 1, 0, {1, 1, 1, 1}}), b({k, 1, 1, 1}, {}), bias({2, 1, 1, 1}, {}),
        c({2, 1, 1, 1}, {});
    for (Operand<T> *o : {&a, &b, &bias, &c}) o->fill(random);
    const double beta = random.pick({0.0, 1.0, 0.3});
    INFO("k " << k << " beta " << beta);
    for_each_isa([&] {
      Operand<T> both = c, one = c;
      attend_matmul_options options = options_with<attend_matmul_options>(2);
      options.bias = bias.tensor();
      const attend_tensor ta = along(*a.tensor(), 0, 1, 1), tc = along(*one.tensor(), 0, 1, 1),
                          tbias = along(*bias.tensor(), 0, 1, 1);
      if (!ok(attend_matmul(-0.7, a.tensor(), b.tensor(), beta, both.tensor(), &options))) return;
      options.bias = &tbias;
      if (!ok(attend_matmul(-0.7, &ta, b.tensor(), beta, &tc, &options))) return;
      CHECK(one.at(1, 0, 0, 0) == both.at(1, 0, 0, 0));
      CHECK(one.at(0, 0, 0, 0) == c.at(0, 0, 0, 0));
    });
  }
}

// Which way a product goes depends on the kernels and on the core's caches, its workspace on neither.
TEST_CASE("thin products: the reported workspace suffices for all kernels on every core") {
  Random random(9);
  for (const int64_t n : {1, 2, 3, 4, 12, 40}) {
    for (const int64_t rows : {300, 840, 1024}) {
      const int64_t m = rows, k = random.in(rows - 20, rows);
      Operand<float> a({m, k, 1, 1}, {}), b({k, n, 1, 1}, {}), c({m, n, 1, 1}, {});
      attend_matmul_options options = ATTEND_MATMUL_OPTIONS_INIT;
      options.threads = 1;
      uint64_t size = 0;
      CHECK(attend_matmul_workspace(1, a.tensor(), b.tensor(), 0, c.tensor(), &options, &size) == ATTEND_OK);
      std::vector<unsigned char> workspace(size + 1);
      options.workspace = workspace.data();
      options.workspace_size = size;
      INFO("m " << m << " n " << n << " k " << k << " bytes " << size);
      for (const attend::Caches &core :
           {attend::Caches{32 << 10, 1 << 20}, attend::Caches{48 << 10, 2 << 20}, attend::Caches{48 << 10, 1 << 20}}) {
        const OnCore on(core);
        for_each_isa([&] { CHECK(attend_matmul(1, a.tensor(), b.tensor(), 0, c.tensor(), &options) == ATTEND_OK); });
      }
    }
  }
}

// Which of the drivers takes it depends on the CPU, so the kernel is called here, on every one.
TEST_CASE_TEMPLATE("columns of A that pass by in runs while the sums wait", T, float, double) {
  Random random(21);
  for (int round = 0; round < 40; ++round) {
    const int64_t m = 48 * random.in(1, 4), n = random.in(1, 48), k = random.in(1, attend::Contract<T>::kKc);
    const int64_t a_k = m + random.in(0, 5), b_k = random.one_in(2) ? 1 : n + 1, b_col = b_k == 1 ? k + 2 : 1;
    const bool turned = random.one_in(4), begins = random.one_in(2), biased = random.one_in(2);
    const T alpha = T(random.in(1, 2)), beta = T(random.in(0, 1));
    const auto numbers = [&](int64_t count) {
      std::vector<T> v(static_cast<size_t>(count));
      for (T &x : v) x = T(random.in(-4, 4));
      return v;
    };
    std::vector<T> a = numbers(k * a_k), b = numbers(b_k == 1 ? n * b_col : k * b_k), bias = numbers(m);
    const std::vector<T> c = numbers(m * n);
    attend::MatmulBlock<T> x = {};
    x.m = m, x.n = n, x.k = k;
    x.a = {a.data(), 1, a_k, attend::dtype_of<T>()};
    x.b = {b.data(), b_k, b_col, attend::dtype_of<T>()};
    if (biased) x.bias = {bias.data(), 1, 0};
    x.alpha = alpha, x.beta = beta;
    x.begins = begins;
    x.pack_a = x.pack_b = x.in_runs = true;
    x.ahead = random.one_in(2) ? 384 / static_cast<int64_t>(sizeof(T)) : 0;
    INFO("m " << m << " n " << n << " k " << k << " b_k " << b_k << " turned " << turned << " begins " << begins);
    for (int i = 0; const attend::KernelTable *table = attend::available_kernels(i); ++i) {
      INFO(table->name);
      std::vector<T> result = c;
      x.c = {result.data(), turned ? n : 1, turned ? 1 : m};
      constexpr T kNan = std::numeric_limits<T>::quiet_NaN();
      std::vector<T> sums(static_cast<size_t>(m * (n + 15)), kNan), panels(attend::Contract<T>::kMatmulPanels, kNan);
      x.a_panel = sums.data();
      x.b_panel = panels.data();
      attend::kernels_of<T>(*table).matmul(x);
      int64_t wrong = 0;
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t j = 0; j < n; ++j) {
          T sum = 0;
          for (int64_t l = 0; l < k; ++l) {
            sum += a[static_cast<size_t>(row + l * a_k)] * b[static_cast<size_t>(l * b_k + j * b_col)];
          }
          const auto at = static_cast<size_t>(turned ? row * n + j : row + j * m);
          const T start = begins ? beta * c[at] + (biased ? bias[static_cast<size_t>(row)] : T(0)) : c[at];
          wrong += result[at] != alpha * sum + start;
        }
      }
      CHECK(wrong == 0);
    }
  }
}
