#include "drivers/matmul.hpp"

#include <algorithm>

#include "drivers/matmul_plan.hpp"

namespace attend {
namespace {

// What the loops of one product share.
template <class T>
struct MatmulCall {
  const Matmul &p;
  const MatmulPlan<T> &plan;
  const KernelTable &kernels;
  void (*kernel)(const MatmulBlock<T> &);
};

// C0 = fma(beta, C, bias) of a block, `to` C or its sums: the kernel's, for products of no depth.
template <class T>
void start(const MatmulCall<T> &call, const StoredMatrix &c, const StoredMatrix &bias, MatmulBlock<T> x) {
  const MatrixRef<T> to = x.c;
  if (call.plan.rounds && x.beta != T(0)) {
    call.kernels.convert({x.m, x.n, c, {to.data, to.row_stride, to.col_stride, dtype_of<T>()}, {}});
  }
  T *const widened = x.b_panel;
  const int64_t strip = bias.data == nullptr ? x.n : Contract<T>::kMatmulPanels / x.m, columns = x.n;
  x.k = 0;
  x.begins = true;
  x.a.data = x.b.data = nullptr;
  x.pack_a = x.pack_b = x.long_columns = x.tall = false;
  for (int64_t j = 0; j < columns; j += strip) {
    x.n = std::min(strip, columns - j);
    x.c.data = to.data + j * to.col_stride;
    if (bias.data != nullptr) {
      call.kernels.convert({x.m, x.n, moved(bias, 0, j), {widened, 1, x.m, dtype_of<T>()}, {}});
      x.bias = {widened, 1, x.m};
    }
    call.kernel(x);
  }
}

// LOOP 4 and LOOP 3 of one matrix, or of a piece of it.
template <class T>
void multiply(const MatmulCall<T> &call, const Piece &rows, const Piece &columns, int64_t head, int64_t batch,
              char *scratch, MatmulBlock<T> *x) {
  const Matmul &p = call.p;
  const MatmulPlan<T> &plan = call.plan;
  const auto slice = [&](const Tensor &t, StoredMatrix m) {
    m.data = t.matrix(0, 0, head, batch).data;
    return m;
  };
  const StoredMatrix a = plan.last_first(slice(plan.transposes ? p.b : p.a, plan.a));
  StoredMatrix b = slice(plan.transposes ? p.a : p.b, plan.b);
  const StoredMatrix c = plan.last_first(slice(p.c, plan.c)), bias = plan.last_first(slice(p.bias, plan.bias));
  x->from_memory = plan.bytes_of_a() >= 4 * kUsualL3Share && !plan.is_fetched();
  x->ahead = plan.ahead();
  x->near = plan.bytes_of_a() <= kUsualL2;
  x->keeps_b = plan.kept_columns > 0;
  x->b_panel = reinterpret_cast<T *>(scratch);
  x->a_panel = x->b_panel + plan.b_panel();
  T *const sums = x->a_panel + plan.a_room();
  if (plan.gathers_b()) {
    x->b = {sums + plan.c_panel(), 1, plan.gathered_column(), dtype_of<T>()};
    call.kernels.convert({plan.k, plan.n, b, x->b, {}});
    b = x->b;
  }
  const auto place = [&](int64_t i, int64_t m, int64_t j, int64_t n) {
    x->m = m;
    x->n = n;
    if (plan.rounds) {
      x->c = {sums, 1, plan.c_rows()};
    } else {
      x->c.data = static_cast<T *>(element_of(c, i, j));
    }
  };
  const int64_t depth = plan.dot ? plan.k : Contract<T>::kKc;  // of one call
  const auto chunk = [&](int64_t i, int64_t j, int64_t k) {
    x->k = std::min(depth, plan.k - k);
    x->begins = k == 0 && !plan.starts_up;
    x->a.data = x->k > 0 ? element_of(a, i, k) : nullptr;
    x->b.data = x->k > 0 ? element_of(b, k, j) : nullptr;
    x->bias.data = x->begins && !plan.scales ? static_cast<const T *>(moved(bias, i, j).data) : nullptr;
    call.kernel(*x);
  };
  const int64_t end = rows.begin + rows.size, columns_end = columns.begin + columns.size;
  const int64_t row_block = plan.reads_rows() ? kFewColumnsRows : plan.row_block(rows.size);
  if (plan.reads_rows() || plan.rounds) {
    // All of k for a block of C. Rows of A that are read in place are so read to their ends, memory in long runs (4096 x
    // 4096 times a vector: twice the speed).
    const int64_t column_block = plan.rounds ? MatmulPlan<T>::kRoundedColumns : columns.size;
    for (int64_t j = columns.begin; j < columns_end; j += column_block) {
      for (int64_t i = rows.begin; i < end; i += row_block) {
        place(i, std::min(row_block, end - i), j, std::min(column_block, columns_end - j));
        if (plan.starts_up) start(call, moved(c, i, j), moved(bias, i, j), *x);
        for (int64_t k = 0; k == 0 || k < plan.k; k += Contract<T>::kKc) chunk(i, j, k);
        const StoredMatrix all = {sums, 1, plan.c_rows(), dtype_of<T>()};
        if (plan.scales) {
          scale_sums(call.kernels, p, plan.transposes, plan.k == 0 ? StoredMatrix{} : all, c, bias,
                     {i, j, x->m, x->n, head, batch});
        } else if (plan.rounds) {
          call.kernels.convert({x->m, x->n, all, moved(c, i, j), {}});
        }
      }
    }
    return;
  }
  for (int64_t i = rows.begin; plan.starts_up && i < end; i += Contract<T>::kMc) {
    place(i, std::min(Contract<T>::kMc, end - i), columns.begin, columns.size);
    start(call, moved(c, i, columns.begin), moved(bias, i, columns.begin), *x);
  }
  const bool asks_for_a = plan.asks_for_a() && !plan.in_runs;
  const int64_t column_block = plan.kept_columns > 0 ? plan.kept_columns : columns.size;
  for (int64_t j = columns.begin; j < columns_end; j += column_block) {
    int64_t k = 0;
    do {                                                       // LOOP 4; once for k = 0, where A and B may be null
      for (int64_t i = rows.begin; i < end; i += row_block) {  // LOOP 3
        place(i, std::min(row_block, end - i), j, std::min(column_block, columns_end - j));
        if (asks_for_a) {
          const bool below = i + row_block < end;
          const int64_t next = below ? i + row_block : rows.begin, next_k = below ? k : k + depth;
          x->next_a = next_k < plan.k ? element_of(a, next, next_k) : nullptr;
          x->next_rows = std::min(row_block, end - next);
        }
        x->b_is_packed = x->keeps_b && i > rows.begin;
        // Rows that are no whole panel are packed.
        const int64_t whole = plan.in_runs ? x->m / kRowUnit * kRowUnit : 0, rest = x->m - whole;
        if (whole > 0) {
          x->m = whole, x->in_runs = true;
          chunk(i, j, k);
          x->in_runs = false;
          place(i + whole, rest, j, x->n);
        }
        if (rest > 0) chunk(i + whole, j, k);
      }
      k += depth;
    } while (k < plan.k);
  }
}

template <class T>
Acquired multiply_all(const KernelTable &kernels, const Matmul &p, const Execution &execution) {
  MatmulPlan<T> plan(p, {kernels_of<T>(kernels).turned_columns, is_wide_core(), fetches_by_itself()});
  const MatmulCall<T> call = {p, plan, kernels, kernels_of<T>(kernels).matmul};
  const int64_t heads = p.c.heads(), slices = heads * p.c.batch();
  // A step of self-attention may have no rows; the kernels take it that there is something to compute.
  if (plan.m == 0 || plan.n == 0 || slices == 0) return Acquired::ok;
  const int threads = tasks_of(plan.m, plan.n, plan.k, slices) == 1 ? 1 : execution.usable_threads();
  const Scratch scratch(execution, plan.need(slices, threads), threads);
  if (scratch.result() != Acquired::ok) return scratch.result();
  if (scratch.is_fastest()) plan.widen(threads);
  if (slices == 1 && scratch.threads() == 1) {
    MatmulBlock<T> x = block_of(p.alpha, p.beta, plan);
    multiply(call, Piece(plan.m), Piece(plan.n), 0, 0, scratch.of_thread(0), &x);
    return Acquired::ok;
  }
  for_each_piece(scratch, plan.m, plan.n, slices,
                 [&](const Piece &rows, const Piece &columns, int64_t slice, int thread) {
                   MatmulBlock<T> x = block_of(p.alpha, p.beta, plan);
                   multiply(call, rows, columns, slice % heads, slice / heads, scratch.of_thread(thread), &x);
                 });
  return Acquired::ok;
}

template <class T>
Need need_of(const Matmul &p) {
  // Whichever kernels will compute it.
  const int64_t slices = p.c.heads() * p.c.batch();
  Need need = MatmulPlan<T>(p, {kFewColumns, false, false}).need(slices, 0);
  for (const int64_t turned : {kFewColumns, kTurnedColumns}) {
    for (const bool fetches : {false, true}) {
      const MatmulPlan<T> other(p, {turned, false, fetches});
      need.per_thread = std::max(need.per_thread, other.need(slices, 0).per_thread);
    }
  }
  return need;
}

}  // namespace

Need matmul_need(const Matmul &problem) {
  return with_acc(problem.c.dtype, [&](auto t) { return need_of<decltype(t)>(problem); });
}

Acquired matmul(const KernelTable &kernels, const Matmul &problem, const Execution &execution) {
  return with_acc(problem.c.dtype, [&](auto t) { return multiply_all<decltype(t)>(kernels, problem, execution); });
}

}  // namespace attend
