#include "drivers/matmul.hpp"

#include <cstddef>

#include "api/boundary.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_matmul_options, bias) + sizeof(void *);

attend_status read(double alpha, const attend_tensor *a, const attend_tensor *b, double beta, const attend_tensor *c,
                   const attend_matmul_options *given, Purpose purpose, Matmul *p, Execution *execution) {
  attend_matmul_options options;
  if (attend_status s = read_options(given, kFirstVersion, 0, purpose, &options, execution)) return s;
  uint32_t dtype = kAnyDtype;
  if (attend_status s = read_tensor(a, Argument::a, Role::input, purpose, &dtype, &p->a)) return s;
  if (attend_status s = read_tensor(b, Argument::b, Role::input, purpose, &dtype, &p->b)) return s;
  if (attend_status s = read_tensor(c, Argument::c, Role::output, purpose, &dtype, &p->c)) return s;
  if (attend_status s = read_optional(options.bias, Argument::options_bias, Role::input, purpose, &dtype, &p->bias)) {
    return s;
  }
  p->dtype = dtype_of(dtype);
  p->alpha = alpha;
  p->beta = beta;
  const int64_t m = p->c.rows(), n = p->c.columns(), depth = p->a.columns(), heads = p->c.heads(), batch = p->c.batch();
  if (attend_status s = expect_shape(p->a, Argument::a, {m, depth, heads, batch}, kHeadsAndBatch)) return s;
  if (attend_status s = expect_shape(p->b, Argument::b, {depth, n, heads, batch}, kHeadsAndBatch)) return s;
  if (p->bias) {
    if (attend_status s = expect_shape(p->bias, Argument::options_bias, p->c.shape, kAll)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  for (const Tensor *input : {&p->a, &p->b, &p->bias}) {
    if (attend_status s = expect_apart(p->c, Argument::c, *input)) return s;
  }
  return ATTEND_OK;
}

// A single matrix that is certainly fine: there, not empty, extents and strides of 28 bits and not negative.
struct PlainMatrix {
  int64_t rows, columns, row, column;
  intptr_t begin, end;
};

bool is_plain(const attend_tensor *t, uint32_t dtype, PlainMatrix *m) {
  if (t == nullptr || t->rank - 1 > 3 || t->dtype != dtype || t->data == nullptr) return false;
  for (uint32_t i = 2; i < t->rank; ++i) {
    if (t->shape[i] != 1) return false;
  }
  m->rows = t->shape[0];
  m->columns = t->rank >= 2 ? t->shape[1] : 1;
  m->row = m->rows == 1 ? 0 : t->stride[0];
  m->column = m->columns == 1 ? 0 : t->stride[1];
  // An extent of 0 becomes -1, which has all bits.
  const int64_t seen = (m->rows - 1) | (m->columns - 1) | m->row | m->column;
  if (static_cast<uint64_t>(seen) >> 28 != 0) return false;
  const int64_t last = (m->rows - 1) * m->row + (m->columns - 1) * m->column;
  m->begin = reinterpret_cast<intptr_t>(t->data);
  m->end = m->begin + (last + 1) * size_of(dtype_of(dtype));
  return true;
}

// The small products whose arguments are beyond doubt, without the general checks, which cost more than such a product
// itself. False leaves the call, and the search for what is wrong with it, to the general way.
template <class T>
bool multiply_at_once(void (*kernel)(const MatmulBlock<T> &), double alpha, const attend_tensor *a,
                      const attend_tensor *b, double beta, const attend_tensor *c,
                      const attend_matmul_options *options) {
  PlainMatrix p, q, r;
  if (!is_plain(a, c->dtype, &p) || !is_plain(b, c->dtype, &q) || !is_plain(c, c->dtype, &r)) return false;
  if (p.rows != r.rows || p.columns != q.rows || q.columns != r.columns) return false;
  const bool apart = r.column > (r.rows - 1) * r.row || r.row > (r.columns - 1) * r.column;
  const bool distinct = (r.rows == 1 || r.row != 0) && (r.columns == 1 || r.column != 0);
  const bool disjoint = (r.end <= p.begin || p.end <= r.begin) && (r.end <= q.begin || q.end <= r.begin);
  if (!(apart || r.rows * r.columns == 1) || !distinct || !disjoint) return false;
  if (options != nullptr) {
    const attend_matmul_options &o = *options;
    if (o.size != sizeof o || (o.flags | o.reserved) != 0 || o.threads < 0 || o.bias != nullptr) return false;
    if (o.workspace == nullptr && o.workspace_size != 0) return false;
  }
  const MatrixView<T> views[] = {{static_cast<T *>(a->data), p.rows, p.columns, p.row, p.column},
                                 {static_cast<T *>(b->data), q.rows, q.columns, q.row, q.column},
                                 {static_cast<T *>(c->data), r.rows, r.columns, r.row, r.column}};
  return matmul_small(kernel, alpha, views[0], views[1], beta, views[2]);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_matmul(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                            const attend_tensor *c, const attend_matmul_options *options) {
  const KernelTable &kernels = *active_kernels();
  if (c != nullptr && c->dtype == ATTEND_F32) {
    if (multiply_at_once(kernels.matmul_f32, alpha, a, b, beta, c, options)) return ATTEND_OK;
  } else if (c != nullptr && c->dtype == ATTEND_F64) {
    if (multiply_at_once(kernels.matmul_f64, alpha, a, b, beta, c, options)) return ATTEND_OK;
  }
  Matmul problem;
  Execution execution;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::compute, &problem, &execution)) return s;
  if (is_empty(problem.c)) return ATTEND_OK;
  return status_of(matmul(kernels, problem, execution));
}

attend_status attend_matmul_workspace(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                                      const attend_tensor *c, const attend_matmul_options *options, uint64_t *bytes) {
  if (bytes == nullptr) return failure(ATTEND_NULL_POINTER, Argument::bytes);
  Matmul problem;
  Execution execution;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::size, &problem, &execution)) return s;
  return store_bytes(is_empty(problem.c) ? Need() : matmul_need(problem), execution.threads, bytes);
}
