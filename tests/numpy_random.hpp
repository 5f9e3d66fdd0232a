// NumPy's legacy random numbers, the notebook's inputs drawn from them, and what the notebook's systems give for them.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_TESTS_NUMPY_RANDOM_HPP
#define ATTEND_TESTS_NUMPY_RANDOM_HPP

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace attend::test {

// np.random.seed(seed), then np.random.normal() again and again. std::mt19937 produces NumPy's stream of 32-bit words;
// std::normal_distribution would not produce its normals, since the standard leaves that algorithm open.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint32_t seed) : words_(seed) {}

  // The polar method. It yields two normals at a time: NumPy returns the second first and keeps the other for next
  // time.
  double normal() {
    if (has_kept_) {
      has_kept_ = false;
      return kept_;
    }
    double x, y, square;
    do {
      x = 2 * uniform() - 1;
      y = 2 * uniform() - 1;
      square = x * x + y * y;
    } while (square >= 1 || square == 0);
    const double factor = std::sqrt(-2 * std::log(square) / square);
    kept_ = factor * x;
    has_kept_ = true;
    return factor * y;
  }

  // np.random.normal(size=...): arrays are filled in the order of their memory, that is row by row.
  std::vector<double> normals(int count) {
    std::vector<double> drawn(static_cast<std::size_t>(count));
    for (double &value : drawn) value = normal();
    return drawn;
  }

 private:
  // 53 bits in [0, 1), from 27 bits of one word and 26 of the next. Two statements, because the order of the draws
  // matters and that of evaluation within an expression is not defined.
  double uniform() {
    const std::uint_fast32_t high = words_() >> 5;
    const std::uint_fast32_t low = words_() >> 6;
    return (static_cast<double>(high) * 67108864.0 + static_cast<double>(low)) / 9007199254740992.0;
  }

  std::mt19937 words_;
  double kept_ = 0;  // the other normal of the last pair, if has_kept_
  bool has_kept_ = false;
};

constexpr int kNotebookItems = 3;     // N
constexpr int kNotebookFeatures = 4;  // D

// The notebook's X, Omega and beta, in the order in which it draws them.
struct NotebookInputs {
  // D x N, column-major: item after item, as drawn. (4, 3), strides (1, 4)
  std::vector<double> x;
  // D x D, row by row as drawn: the tensor has shape (4, 4) and strides (4, 1).
  std::vector<double> omega_q, omega_k, omega_v;
  // (4), stride (1)
  std::vector<double> beta_q, beta_k, beta_v;

  NotebookInputs() {
    constexpr int kN = kNotebookItems, kD = kNotebookFeatures;
    x = NumpyRandom(3).normals(kD * kN);
    NumpyRandom parameters(0);  // one generator for all that follows: a draw too many would shift every later array
    omega_q = parameters.normals(kD * kD);
    omega_k = parameters.normals(kD * kD);
    omega_v = parameters.normals(kD * kD);
    beta_q = parameters.normals(kD);
    beta_k = parameters.normals(kD);
    beta_v = parameters.normals(kD);
  }
};

// One system's results, item after item: out is D x N and attention Nk x Nq, both column-major, so that out[n] is the
// row that the notebook prints for item n and attention[n] is the column of query n.
struct NotebookResult {
  double out[kNotebookItems][kNotebookFeatures];
  double attention[kNotebookItems][kNotebookItems];
};

// The digits as they are printed: 8 after the point (out), 9 significant ones (attention).
constexpr NotebookResult kUnscaledPrinted = {{{0.94744244, -0.24348429, -0.91310441, -0.44522983},
                                              {1.64201168, -0.08470004, 4.02764044, 2.18690791},
                                              {1.61949281, -0.06641533, 3.96863308, 2.15858316}},
                                             {{1.24326146e-13, 9.98281489e-01, 1.71851130e-03},
                                              {2.79525306e-12, 5.85506360e-03, 9.94144936e-01},
                                              {5.05707907e-03, 6.54776072e-03, 9.88395160e-01}}};

// Really scaled by 1/sqrt(D). The notebook prints the unscaled numbers here: its cell drops the result of the division.
constexpr NotebookResult kScaledPrinted = {{{0.97411966, -0.23738409, -0.72333202, -0.34413007},
                                            {1.59622051, -0.09516106, 3.70194096, 2.01339538},
                                            {1.32638014, 0.13062402, 3.02371664, 1.6902419}},
                                           {{3.38843552e-07, 9.60161968e-01, 3.98376935e-02},
                                            {1.55730194e-06, 7.12734969e-02, 9.28724946e-01},
                                            {6.20418746e-02, 7.05962187e-02, 8.67361907e-01}}};

// The same to the last bit of a double: computed with 50 digits (mpmath) from NumPy's inputs, then rounded. For bounds
// tighter than the printed digits allow.
constexpr NotebookResult kUnscaledExact = {
    {{0.9474424396438315, -0.24348429178055644, -0.913104405557717, -0.4452298286764293},
     {1.6420116829361084, -0.08470004249181597, 4.027640439001328, 2.186907907459348},
     {1.6194928068993577, -0.0664153331929803, 3.968633082977552, 2.158583158229822}},
    {{1.2432614615724152e-13, 0.9982814887008525, 0.0017185112990231383},
     {2.795253062008753e-12, 0.00585506359837585, 0.994144936398829},
     {0.005057079072941113, 0.006547760717181926, 0.9883951602098769}}};

constexpr NotebookResult kScaledExact = {
    {{0.9741196633239888, -0.23738408866162003, -0.7233320173486345, -0.34413007350725877},
     {1.5962205145151667, -0.0951610647432936, 3.70194096325901, 2.01339537553023},
     {1.3263801382160196, 0.13062401730050094, 3.0237166367032082, 1.6902418986698322}},
    {{3.388435524379629e-07, 0.960161967617774, 0.03983769353867361},
     {1.557301939653218e-06, 0.07127349686936743, 0.9287249458286929},
     {0.06204187462264913, 0.07059621866149549, 0.8673619067158553}}};

}  // namespace attend::test

#endif  // ATTEND_TESTS_NUMPY_RANDOM_HPP
