#include "drivers/matmul_integers.hpp"

#include "drivers/matmul_cut.hpp"

namespace attend {
namespace {

constexpr int64_t rounded_up(int64_t n, int64_t unit) { return divide_up(n, unit) * unit; }

// One matrix of the product with the lanes along its rows.
struct Plan {
  const Matmul &p;
  Dtype sums;  // i32, or f32: those of `dots`
  bool transposes;
  int64_t m, n, k;
  bool pack_a;

  explicit Plan(const Matmul &problem)
      : p(problem),
        sums(problem.a.dtype == Dtype::bf16 ? Dtype::f32 : Dtype::i32),
        transposes(sums == Dtype::f32 && std::min(p.c.rows(), p.c.columns()) <= kFewColumns
                       ? p.c.rows() < p.c.columns()
                       : turns(p.a.matrix(0, 0, 0, 0), p.b.matrix(0, 0, 0, 0), p.c.matrix(0, 0, 0, 0), p.c.rows(),
                               p.c.columns(), p.a.columns())),
        m(transposes ? p.c.columns() : p.c.rows()),
        n(transposes ? p.c.rows() : p.c.columns()),
        k(static_cast<float>(p.alpha) == 0 ? 0 : p.a.columns()),
        pack_a(n > kFewColumns || (a().row_stride != 1 && a().col_stride != 1)) {}

  StoredMatrix turned(const StoredMatrix &x) const { return transposes ? transposed(x) : x; }

  StoredMatrix a() const { return turned((transposes ? p.b : p.a).matrix(0, 0, 0, 0)); }
  StoredMatrix b() const { return turned((transposes ? p.a : p.b).matrix(0, 0, 0, 0)); }

  // Where A is read in place, in long runs: all of its rows, or of its columns, one after the other.
  int64_t most_rows() const { return !pack_a && a().col_stride != 1 ? IntegerBlock::kThinRows : IntegerBlock::kRows; }
  // Where `dots` reads both where they lie, it reads them to their ends: the same sums.
  bool in_place() const { return sums == Dtype::f32 && !pack_a && b().row_stride == 1; }
  int64_t depth() const { return in_place() ? std::max<int64_t>(k, 1) : IntegerBlock::kDepth; }
  int64_t block_rows() const { return std::min(m, most_rows()); }
  int64_t block_columns() const { return std::min(n, IntegerBlock::kColumns); }
  int64_t ld() const { return rounded_up(block_rows(), 16); }
  // Columns are computed in pairs.
  int64_t sums_bytes() const { return aligned(ld() * rounded_up(block_columns(), 2) * int64_t{sizeof(int32_t)}); }
  int64_t b_bytes() const {
    const int64_t columns = std::min(IntegerBlock::kGroup, rounded_up(n, IntegerBlock::kTile));
    return k == 0 || in_place() ? 0 : aligned(columns * IntegerBlock::kHeight * int64_t{sizeof(int16_t)});
  }
  int64_t a_bytes() const {
    return !pack_a ? 0 : aligned(ld() * rounded_up(std::min(k, IntegerBlock::kDepth), 2) * int64_t{sizeof(int16_t)});
  }

  Need need() const {
    Need need;
    need.tasks = tasks_of(m, n, k, p.c.heads() * p.c.batch());
    need.per_thread = sums_bytes() + b_bytes() + a_bytes();
    return need;
  }

  void multiply(const KernelTable &kernels, const Piece &rows, const Piece &columns, int64_t head, int64_t batch,
                char *scratch) const {
    const StoredMatrix left = turned((transposes ? p.b : p.a).matrix(0, 0, head, batch)),
                       right = turned((transposes ? p.a : p.b).matrix(0, 0, head, batch)),
                       c = turned(p.c.matrix(0, 0, head, batch)), bias = turned(p.bias.matrix(0, 0, head, batch));
    const size_t of_a = transposes ? 1 : 0, of_b = 1 - of_a;
    IntegerBlock x = {};
    x.pack_a = pack_a;
    x.b_panel = reinterpret_cast<int16_t *>(scratch + sums_bytes());
    x.a_panel = reinterpret_cast<int16_t *>(scratch + sums_bytes() + b_bytes());
    const StoredMatrix all = {k == 0 ? nullptr : scratch, 1, ld(), sums};
    const auto kernel = sums == Dtype::f32 ? kernels.dots : kernels.integers;
    const int64_t most = depth();
    const auto blocks = [&](int64_t begin, int64_t end, bool direct) {
      const int64_t columns_end = columns.begin + columns.size;
      const int64_t most_columns = direct ? columns.size : IntegerBlock::kColumns;
      for (int64_t j = columns.begin; j < columns_end; j += most_columns) {
        x.n = std::min(most_columns, columns_end - j);
        x.b_zero = numbers<int32_t>(transposes ? p.scales->a_zero : p.scales->b_zero, of_b, j, head, batch);
        for (int64_t i = begin; i < end; i += most_rows()) {
          x.m = std::min(most_rows(), end - i);
          x.a_zero = numbers<int32_t>(transposes ? p.scales->b_zero : p.scales->a_zero, of_a, i, head, batch);
          x.sums = static_cast<int32_t *>(direct ? element_of(c, i, j) : scratch);
          x.ld = direct ? c.col_stride : ld();
          for (int64_t done = 0; done < k; done += most) {
            x.k = std::min(most, k - done);
            x.a = moved(left, i, done);
            x.b = moved(right, done, j);
            x.begins = done == 0;
            kernel(x);
          }
          if (!direct) scale_sums(kernels, p, transposes, all, c, bias, {i, j, x.m, x.n, head, batch});
        }
      }
    };
    // Where C is nothing but the sums, they are summed there: in whole vectors of rows, and pairs of columns.
    const bool plain =
        c.type == sums && c.row_stride == 1 && bias.data == nullptr && k > 0 && p.alpha == 1 && p.beta == 0;
    const int64_t whole = plain && columns.size % 2 == 0 ? rows.size / 16 * 16 : 0;
    if (whole > 0) blocks(rows.begin, rows.begin + whole, true);
    if (whole < rows.size) blocks(rows.begin + whole, rows.begin + rows.size, false);
  }
};

}  // namespace

bool takes_dots(const Matmul &problem) {
  if (!problem.native_dot || problem.a.dtype != Dtype::bf16 || problem.b.dtype != Dtype::bf16) return false;
  const Plan plan(problem);
  return plan.k > 0 && (std::min(plan.m, plan.n) > kFewColumns || plan.a().col_stride == 1);
}

Need integer_matmul_need(const Matmul &problem) { return Plan(problem).need(); }

Need dot_matmul_need(const Matmul &problem) {
  const Need dots = Plan(problem).need();
  Need need = matmul_need(problem);
  need.tasks = std::max(need.tasks, dots.tasks);
  need.per_thread = std::max(need.per_thread, dots.per_thread);
  return need;
}

Acquired dot_matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution) {
  // (Thin products wait for memory, and their dots turn nothing.)
  const Plan plan(problem);
  const bool pays = has_fast_pairs() || std::min(plan.m, plan.n) <= kFewColumns;
  return kernels.dots == nullptr || !pays ? matmul(kernels, problem, execution)
                                          : integer_matmul(kernels, problem, execution);
}

Acquired integer_matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution) {
  const Plan plan(problem);
  const Need need = plan.need();
  const Scratch scratch(execution, need, need.tasks == 1 ? 1 : execution.usable_threads());
  if (scratch.result() != Acquired::ok) return scratch.result();
  const int64_t heads = problem.c.heads(), slices = heads * problem.c.batch();
  for_each_piece(scratch, plan.m, plan.n, slices,
                 [&](const Piece &rows, const Piece &columns, int64_t slice, int thread) {
                   plan.multiply(kernels, rows, columns, slice % heads, slice / heads, scratch.of_thread(thread));
                 });
  return Acquired::ok;
}

}  // namespace attend
