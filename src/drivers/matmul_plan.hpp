// How a matrix product is computed.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "drivers/cache.hpp"
#include "drivers/matmul_cut.hpp"

// So that a small product, whose types are known, pays for none of them: what is not inlined takes the plan's address.
#define ATTEND_AT_ONCE inline __attribute__((always_inline))

namespace attend {

// Rows and columns that one call of the kernel takes at most on the short way, and so never more work than one thread
// has.
constexpr int64_t kMostSmall = 96;

// What of the machine decides how a product is computed.
struct MatmulMachine {
  int64_t turned_columns;  // of the kernels
  bool wide, fetches;      // is_wide_core, fetches_by_itself (drivers/cache.hpp)
};

// One matrix of the product with the lanes along its rows, and what the loops need to know of it.
template <class T>
struct MatmulPlan {
  int64_t m, n, k;
  int64_t most_rows = Contract<T>::kMc;  // of A that are packed at a time, of a whole chunk of k; of less, more
  int64_t kept_columns = 0;  // of B that are packed once for all rows of A; 0 = some at a time, for each block
  MatmulMachine machine;
  StoredMatrix a, b, c, bias;
  bool transposes, flips, pack_a, pack_b, long_columns, dot;
  bool tall;       // few columns in tall tiles: kernels/matmul_tiles.hpp
  bool in_runs;    // few columns of B pass by whole columns of A: kernels/matmul_runs.hpp
  bool scales;     // A or B is of 8-bit integers, whose sums are scaled when they are complete
  bool rounds;     // C is of a narrower type, or scales: its sums live in the scratch until they are rounded once
  bool starts_up;  // C0 is formed ahead of the product, since what it is made of must be widened

  ATTEND_AT_ONCE
  MatmulPlan(int64_t rows, int64_t columns, int64_t depth, const StoredMatrix &left, const StoredMatrix &right,
             const StoredMatrix &to, const StoredMatrix &added, double alpha, double beta, const MatmulMachine &runs_on)
      : m(rows),
        n(columns),
        k(depth),
        machine(runs_on),
        a(left),
        b(right),
        c(to),
        bias(added),
        transposes(turns(left, right, to, rows, columns, depth)) {
    if (transposes) {
      m = columns, n = rows;
      a = transposed(right), b = transposed(left);
      c = transposed(c), bias = transposed(bias);
    }
    // A and B are not read where alpha, as the kernels see it, is 0.
    if (static_cast<T>(alpha) == T(0)) k = 0;
    scales = a.type == Dtype::i8 || b.type == Dtype::i8;
    // Thin products of rows that lie backwards in memory begin with the last.
    flips = a.row_stride == -1 && n <= kLongColumns && m > kMostSmall && !scales;
    if (flips) {
      a.row_stride = -a.row_stride, c.row_stride = -c.row_stride, bias.row_stride = -bias.row_stride;
      a = last_first(a), c = last_first(c), bias = last_first(bias);
    }
    if (m == 1) a.row_stride = c.row_stride = 1;
    if (k == 1) a.col_stride = b.row_stride = 1;
    // (4096 x 4096, 1024 x 1024 and 768 x 768 times 16 columns 1.8, 1.5 and 1.14 times the speed on an Intel, times 8 1.4, 1.13 and
    // 1.19; 4096 x 4096 times 32 1.5. Of less depth run_rows might be none.)
    in_runs = k >= 64 && !scales && a.row_stride == 1 && !is_narrow(a) && !is_narrow(c) && n > kFewColumns &&
              n <= (in_step(4096) ? kStepColumns : kRunColumns) && m > kMostSmall && misses_l2();
    // (Of 16 registers a tile has too few; machine.turned_columns tells.)
    tall = machine.fetches && machine.turned_columns > kFewColumns && n <= kTallColumns && m > kMostSmall && k > 0 &&
           a.row_stride == 1 && !is_narrow(a) && !is_narrow(b) && !is_narrow(c) && !scales &&
           bytes_of_a() <= 3 * kUsualL2;
    long_columns = !in_runs && !tall && m > kMostSmall && k > 0 && a.row_stride == 1 &&
                   (n == 1 || (n <= kLongColumns && beyond_caches()) || sweeps());
    // (Backwards as well, but for what the kernels read as bytes.)
    const bool along_k = a.col_stride == 1 || (a.col_stride == -1 && a.type != Dtype::i8);
    pack_a =
        in_runs ||
        (k > 0 && (a.row_stride == 1 ? pays_a() || (is_narrow(a) && !long_columns) : !along_k || n > turned_columns()));
    pack_b = in_runs || (k > 0 && !long_columns && (pays_b() || (is_narrow(b) && !reads_rows())));
    rounds = scales || is_narrow(c);
    dot = m == 1 && n == 1 && a.col_stride == 1 && b.row_stride == 1 && !is_narrow(a) && !is_narrow(b) && !rounds;
    starts_up = !scales && (is_narrow(bias) || (rounds && static_cast<T>(beta) != T(0)));
  }
  MatmulPlan(const Matmul &p, const MatmulMachine &runs_on)
      : MatmulPlan(p.c.rows(), p.c.columns(), p.a.columns(), p.a.matrix(0, 0, 0, 0), p.b.matrix(0, 0, 0, 0),
                   p.c.matrix(0, 0, 0, 0), p.bias.matrix(0, 0, 0, 0), p.alpha, p.beta, runs_on) {}

  // Rows the other way round: from where the first was to where the last is, the strides being turned already.
  ATTEND_AT_ONCE StoredMatrix last_first(StoredMatrix x) const {
    if (flips && x.data != nullptr) x.data = element_of(x, 1 - m, 0);
    return x;
  }

  static constexpr int64_t kElement = static_cast<int64_t>(sizeof(T));
  static bool is_narrow(const StoredMatrix &x) { return attend::is_narrow<T>(x.type); }
  ATTEND_AT_ONCE int64_t depth() const { return least(k, Contract<T>::kKc); }

  // More of A than the last cache is likely to hold for this thread, or at all.
  ATTEND_AT_ONCE double bytes_of_a() const {
    return static_cast<double>(m) * static_cast<double>(k) * static_cast<double>(size_of(a.type));
  }
  // Of an L2 of 2 MiB.
  ATTEND_AT_ONCE bool misses_l2() const { return machine.fetches && bytes_of_a() >= 2 * kUsualL2; }
  // Columns so many bytes, or a multiple, apart begin in the same set of the L1, or the same two. (On Emerald Rapids, 1024 x 1024
  // to 4096 x 4096 times 33 to 48 columns in runs 1.2 to 1.35 times the speed, times 64 and 96 packed 1.15 to 1.5; 800 x 800 to
  // 2000 x 2000 0.88 to 1.0 of it in place, 512 and 1536 rows 0.86 to 1.02.)
  ATTEND_AT_ONCE bool in_step(int64_t bytes) const { return a.col_stride * kElement % bytes == 0; }
  // (Never of a small product, where the compiler is to see it.)
  ATTEND_AT_ONCE bool beyond_caches() const {
    return (m > kMostSmall || k > Contract<T>::kKc) && bytes_of_a() >= 2 * kUsualL3Share;
  }

  // A panel read in place touches one or two lines for each k, a column of A apart: as many pages as rows, and with strides
  // of a power of two few sets of the caches. Packing costs about 2 / n of the product. (n = 192 to 512 on an L1 of 32 KiB,
  // in place against packed: 0.86 to 1.0 where lines are whole, 0.75 to 1.0 of A 16 bytes off them. From memory, m and k
  // 3000 to 4096: 0.56 to 0.73 of n = 16 to 64.)
  ATTEND_AT_ONCE bool pays_a() const {
    constexpr int64_t kManyColumns = 192;
    const int64_t span = std::abs(a.col_stride) * kElement * depth();
    return m > kRowUnit && (n >= kManyColumns || (n >= 128 && span > kUsualL2 / 2) ||
                            (n > kLongColumns && (beyond_caches() || (misses_l2() && in_step(4096)))));
  }
  // B is read once per panel of rows. Contiguous columns stay in the L1 unless they begin in the same sets of it,
  // which repeat every 4 KiB. Of contiguous rows a panel reads a part of a line for each k: in place that took 1.2 to 1.6
  // times as long as packed from m = 192 on (NT, an L2 of 512 KiB), and as long at 128.
  ATTEND_AT_ONCE bool pays_b() const {
    constexpr int64_t kManyRows = 128;
    if (m <= 2 * kRowUnit || n <= kFewColumns || reads_rows()) return false;
    if (b.col_stride == 1) return m >= kManyRows;
    if (b.row_stride != 1) return true;
    return !machine.wide && shares_sets(b.col_stride * kElement, 4096) && depth() * kElement >= 1024;
  }

  // Two to four columns, A larger than the L2: the sums in the scratch, and A in long runs. (Emerald Rapids, of tiles: 1000 x 1000 to
  // 3072 x 768 times two 1.05 to 1.2, three 1.0 to 1.18, four 1.08 to 1.3, 768 x 768 times four 1.02 to 1.16; five and more pass in
  // runs.)
  ATTEND_AT_ONCE bool sweeps() const {
    return machine.fetches && n <= kFewColumns && !is_narrow(a) &&
           bytes_of_a() * static_cast<double>(n) >= 7 * kUsualL2;
  }

  // A from memory: while a packed block is used the next one comes. (16 columns 1.37 times the speed, 192 1.05; more hide it.)
  bool asks_for_a() const { return pack_a && a.row_stride == 1 && beyond_caches() && !is_fetched(); }

  // Few columns, rows of A contiguous along k, which the kernels transpose as they read them. (8 of 128 x 128 to 1024 x 1024,
  // 4096 x 4096 from memory: 1.28 to 1.86, 2.0 times the speed of packing A; 16: 1.17 to 1.3, 1.46. Five of 128 x 128 0.92; of f16
  // and i8, converted for each eight, 16 of 768 x 768 0.93, 4096 x 4096 1.15.)
  ATTEND_AT_ONCE bool reads_rows() const { return k > 0 && !pack_a && a.row_stride != 1; }
  ATTEND_AT_ONCE int64_t turned_columns() const {
    if (!holds_b()) return kFewColumns;
    const bool at_once = !is_narrow(a) || a.type == Dtype::bf16;
    const bool pays = beyond_caches() || (at_once && (n >= 8 || bytes_of_a() >= kUsualL2 / 4));
    return pays ? machine.turned_columns : kFewColumns;
  }

  // Few columns that all rows of A pass by again are copied first, in one of T, if the L2 has room for them, where their elements
  // lie a line or more apart, or there are so many that they might share the sets of the L1. (A column of a matrix of 4096 x 4096
  // by its rows took 3.3 times as long as a contiguous one, of 1000 x 1000 1.15; n first, for with more columns the
  // product of extents might overflow.)
  ATTEND_AT_ONCE bool holds_b() const {
    return m > kMostSmall && n <= kTurnedColumns && n * gathered_column() * kElement <= kUsualL2 / 2;
  }
  bool gathers_b() const {
    return reads_rows() && holds_b() && (n > kFewColumns || std::abs(b.row_stride) * size_of(b.type) >= 64);
  }
  // An odd number of lines.
  ATTEND_AT_ONCE int64_t gathered_column() const { return (divide_up(k * kElement, 64) | 1) * 64 / kElement; }
  int64_t gathered() const { return gathers_b() ? n * gathered_column() : 0; }

  // With more room than the least: blocks of A of twice the rows, where there is an L2 of 2 MiB, so that B passes by half as
  // often, and B of contiguous rows, which lie a page apart, packed once and not for each block.
  static constexpr int64_t kMostRows = 2 * Contract<T>::kMc, kMostKept = 22 * kColumnUnit;
  int64_t columns_to_keep(int threads) const {
    if (threads == 0 || !pack_b || rounds || in_runs || b.row_stride == 1 || m <= packed_rows()) return 0;
    return least(kMostKept, divide_up(divide_up(n, kColumnUnit), threads) * kColumnUnit);
  }
  void widen(int threads) {
    if (pack_a && !rounds && caches().l2 >= 2 << 20) most_rows = kMostRows;
    kept_columns = columns_to_keep(threads);
  }

  // More than the L2 holds: the kernels then fetch ahead what they need next.
  ATTEND_AT_ONCE bool far() const {
    return k >= 64 && (m * n + (m > n ? m : n) * k) * kElement > kUsualL2 / 2 && !is_fetched();
  }
  // Or the core does. (Emerald Rapids, tiles that do not ask for C, B and A: k = 64 and 128 1.03 to 1.08 times the speed, squares of
  // 384 to 2048 0.99 to 1.03, with B transposed 1.02 to 1.04, f64 1.03 to 1.05, 4096 x 4096 times 48 to 192 columns 1.06 to 1.1.)
  ATTEND_AT_ONCE bool is_fetched() const { return machine.fetches && !(n >= 12 && reads_rows() && beyond_caches()); }

  // Elements of A in place that lie so much later are asked for into the L1, 0 for none: prefetchers do not follow a tile from column
  // to column. (Emerald Rapids, a tile four columns ahead: A in the L2 times one to four columns 1.05 to 1.25 times the speed, times
  // 8 to 64 1.0 to 1.15; six or more columns ahead 0.85 where they are a power of two apart and share sets. In runs 384 bytes of
  // each column: 1.05 to 1.2, from memory up to 1.3, 0.92 to 1.0 where columns share sets.)
  int64_t ahead() const {
    if (!machine.fetches || k == 0 || a.row_stride != 1) return 0;
    if (in_runs) return !in_step(2048) || beyond_caches() ? 384 / kElement : 0;
    return !pack_a && !long_columns && bytes_of_a() >= kUsualL2 / 16 ? 4 * a.col_stride : 0;
  }

  // Rows of A that pass by one panel of B's columns before the next: as many as stay in the L2, in blocks of equal
  // size.
  int64_t row_block(int64_t rows) const {
    if (in_runs) return least(m, run_rows());
    int64_t most = rounds ? Contract<T>::kMc : packed_rows();
    if (rounds && long_columns) return std::min(rows, c_rows());
    if (long_columns || tall || rows <= most) return rows;
    if (rounds) return most;
    if (!pack_a) most = std::max(most, kUsualL2 / 2 / (kElement * std::max<int64_t>(1, depth())) / kRowUnit * kRowUnit);
    return divide_up(divide_up(rows, divide_up(rows, most)), kRowUnit) * kRowUnit;
  }

  // Columns of B, and rows of A whose sums a_panel has room for: whole tiles of up to 16 columns.
  static constexpr int64_t kRunColumns = 32, kStepColumns = 48;
  int64_t run_rows() const { return Contract<T>::kMc * depth() / (n + 15) / kRowUnit * kRowUnit; }

  // Rows and columns of C whose sums are in the scratch at a time: a block of A is then widened once for so many
  // columns.
  static constexpr int64_t kRoundedColumns = 4 * kColumnUnit;
  int64_t c_rows() const { return std::min(m, long_columns ? long_run<T>(n) : Contract<T>::kMc); }
  int64_t c_panel() const { return rounds ? c_rows() * std::min(n, kRoundedColumns) : 0; }
  int64_t b_panel() const {
    if (kept_columns > 0) return (kept_columns + 16) * Contract<T>::kMatmulHeight;  // the last panel may not be full
    if (pack_b || starts_up || (k > 0 && (is_narrow(a) || (is_narrow(b) && !gathers_b())))) {
      return Contract<T>::kMatmulPanels;
    }
    return long_columns ? Contract<T>::kLongColumn : 0;
  }

  // Rounded up to whole panels of any MR up to kRowUnit.
  ATTEND_AT_ONCE int64_t a_panel() const { return (least(m, packed_rows()) + kRowUnit - 1) * depth(); }
  // Or a vector of rows that were turned (kernels/matmul_turned.hpp).
  int64_t a_room() const {
    constexpr int64_t kLanes = 64 / kElement;
    return pack_a ? a_panel() : reads_rows() && n >= kKeptColumns && !is_narrow(a) ? kLanes * depth() : 0;
  }
  ATTEND_AT_ONCE int64_t packed_rows() const { return k > 0 ? most_rows * (Contract<T>::kKc / depth()) : most_rows; }

  int64_t bytes() const { return aligned((a_room() + b_panel() + c_panel() + gathered()) * kElement); }
  // `threads` 0: of a call that is not made here.
  Need need(int64_t slices, int threads) const {
    Need need;
    need.tasks = tasks_of(m, n, k, slices);
    need.per_thread = bytes();
    MatmulPlan wide = *this;
    if (pack_a && !rounds) wide.most_rows = kMostRows;
    wide.kept_columns = columns_to_keep(threads);
    need.set_faster(wide.bytes() - need.per_thread);
    return need;
  }
};

// What all blocks of one product share.
template <class T>
ATTEND_AT_ONCE MatmulBlock<T> block_of(double alpha, double beta, const MatmulPlan<T> &plan) {
  MatmulBlock<T> x;  // (each field below: cleared first, by `rep stos`, it took 20 cycles more)
  x.m = plan.m, x.n = plan.n, x.k = plan.k;
  x.a = {plan.a.data, plan.a.row_stride, plan.a.col_stride, plan.a.type};
  x.b = {plan.b.data, plan.b.row_stride, plan.b.col_stride, plan.b.type};
  x.c = {static_cast<T *>(plan.c.data), plan.c.row_stride, plan.c.col_stride};
  x.bias = {static_cast<const T *>(plan.bias.data), plan.bias.row_stride, plan.bias.col_stride};
  x.alpha = plan.scales ? T(1) : static_cast<T>(alpha);
  x.beta = plan.scales ? T(0) : static_cast<T>(beta);
  x.begins = true;
  x.pack_a = plan.pack_a;
  x.pack_b = plan.pack_b;
  x.long_columns = plan.long_columns;
  x.far = plan.far();
  x.from_memory = false;
  x.near = true;
  x.wide_core = plan.machine.wide;
  x.tall = plan.tall;
  x.keeps_b = x.b_is_packed = x.in_runs = false;
  x.next_a = nullptr;
  x.ahead = 0;
  x.next_rows = 0;
  x.a_panel = x.b_panel = nullptr;
  return x;
}

}  // namespace attend

#undef ATTEND_AT_ONCE
