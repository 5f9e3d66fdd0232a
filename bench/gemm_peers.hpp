// Other libraries' matrix products, opened at run time where they are installed: rows beside ours, in the same process.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_GEMM_PEERS_HPP
#define ATTEND_BENCH_GEMM_PEERS_HPP

#include <cstdint>
#include <string>
#include <vector>

namespace attend::bench {

// Column-major C = A B on one thread, every matrix dense; A and B as they are (N) or with contiguous rows (T).
struct GemmPeer {
  using Fortran = void (*)(const char *, const char *, const int *, const int *, const int *, const void *,
                           const void *, const int *, const void *, const int *, const void *, void *, const int *);
  using OneDnn = int (*)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *, int64_t,
                         float, float *, int64_t);

  std::string name, version;
  std::string kernels;                       // what it says that it runs on this CPU, "" if it says nothing
  std::string left_out;                      // why no row of it is made, "" if rows are
  Fortran sgemm = nullptr, dgemm = nullptr;  // the BLAS's
  OneDnn onednn = nullptr;                   // row-major, so it gets B^T A^T
  bool is_eigen = false;                     // compiled into this program, for N N alone

  bool has(bool is_double, const char *layouts = "NN") const {
    if (!left_out.empty()) return false;
    if (is_eigen) return layouts[0] == 'N' && layouts[1] == 'N';
    return is_double ? dgemm != nullptr : sgemm != nullptr || onednn != nullptr;
  }
  void run(int64_t m, int64_t n, int64_t k, const float *a, const float *b, float *c, const char *layouts = "NN") const;
  void run(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c,
           const char *layouts = "NN") const;
};

// Those that $ATTEND_BENCH_OPENBLAS, ..._MKL, ..._ONEDNN name, else those found under their usual names, and those at
// `paths` (a BLAS with sgemm_, or oneDNN). Holds them to one thread, and asks each which kernels it runs.
std::vector<GemmPeer> find_gemm_peers(const std::vector<std::string> &paths);

}  // namespace attend::bench

#endif  // ATTEND_BENCH_GEMM_PEERS_HPP
