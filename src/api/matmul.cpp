#include "drivers/matmul.hpp"

#include <cstddef>

#include "api/boundary.hpp"
#include "api/plain_matrix.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_matmul_options, b_zero) + sizeof(void *);

constexpr Axes kAxesOfB = {{{Count::rows, Argument::a, Count::columns},
                            {Count::columns},
                            {Count::heads, Argument::a},
                            {Count::batches, Argument::a}}};
constexpr Axes kAxesOfC = {
    {{Count::rows, Argument::a}, {Count::columns, Argument::b}, {Count::heads}, {Count::batches}}};
constexpr Axes kAxesOfBias = axes_of(Argument::c);

attend_status read(double alpha, const attend_tensor *a, const attend_tensor *b, double beta, const attend_tensor *c,
                   const attend_matmul_options *given, Purpose purpose, Matmul *p, Execution *execution,
                   Message *message) {
  attend_matmul_options options;
  if (attend_status s = read_options(given, kFirstVersion, 0, purpose, &options, execution, message)) return s;
  if (attend_status s = expect_unset({{options.a_scale != nullptr, Argument::options_a_scale},
                                      {options.b_scale != nullptr, Argument::options_b_scale},
                                      {options.a_zero != nullptr, Argument::options_a_zero},
                                      {options.b_zero != nullptr, Argument::options_b_zero}},
                                     *message)) {
    return s;
  }
  Operands operands(kMatmulTypes, purpose, *message);
  if (attend_status s = operands.read(a, Argument::a, Role::input, Kind::left, &p->a)) return s;
  if (attend_status s = operands.read(b, Argument::b, Role::input, Kind::right, &p->b)) return s;
  if (attend_status s = operands.read(c, Argument::c, Role::output, Kind::out, &p->c)) return s;
  if (attend_status s =
          operands.read_optional(options.bias, Argument::options_bias, Role::input, Kind::added, &p->bias))
    return s;
  p->alpha = alpha;
  p->beta = beta;
  // The inputs settle the shape, so that an output of another is what is wrong.
  const auto common = [p](size_t dimension) {
    const int64_t of_a = p->a.shape[dimension], of_b = p->b.shape[dimension];
    return of_a != 1 ? of_a : of_b != 1 ? of_b : p->c.shape[dimension];
  };
  const int64_t heads = common(2), batch = common(3);
  const std::array<int64_t, 4> of_b = {p->a.columns(), p->b.columns(), heads, batch};
  if (attend_status s = expect_shape(p->b, Argument::b, of_b, kAxesOfB, *message, kHeadsAndBatch)) return s;
  const std::array<int64_t, 4> of_c = {p->a.rows(), p->b.columns(), heads, batch};
  if (attend_status s = expect_shape(p->c, Argument::c, of_c, kAxesOfC, *message)) return s;
  if (p->bias) {
    if (attend_status s = expect_shape(p->bias, Argument::options_bias, of_c, kAxesOfBias, *message, kAll)) return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (attend_status s = expect_apart(p->c, Argument::c, p->a, Argument::a, *message)) return s;
  if (attend_status s = expect_apart(p->c, Argument::c, p->b, Argument::b, *message)) return s;
  return expect_apart(p->c, Argument::c, p->bias, Argument::options_bias, *message);
}

// The small products whose arguments are beyond doubt, without the general checks, which cost more than such a product
// itself. False leaves the call, and the search for what is wrong with it, to the general way.
template <class T>
bool multiply_at_once(void (*kernel)(const MatmulBlock<T> &), double alpha, const attend_tensor *a,
                      const attend_tensor *b, double beta, const attend_tensor *c,
                      const attend_matmul_options *options) {
  PlainMatrix p, q, r;
  if (!is_plain<T>(a, &p) || !is_plain<T>(b, &q) || !is_plain<T>(c, &r)) return false;
  if (p.rows != r.rows || p.columns != q.rows || q.columns != r.columns) return false;
  if (!is_distinct(r) || !is_apart(r, p) || !is_apart(r, q)) return false;
  if (!is_plain_options(options)) return false;
  return matmul_small(kernel, alpha, view_of<const T>(p), view_of<const T>(q), beta, view_of<T>(r));
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_matmul(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                            const attend_tensor *c, const attend_matmul_options *options) {
  const KernelTable &kernels = *active_kernels();
  if (c != nullptr && c->dtype == ATTEND_F32) {
    if (multiply_at_once(kernels.f32.matmul, alpha, a, b, beta, c, options)) return ATTEND_OK;
  } else if (c != nullptr && c->dtype == ATTEND_F64) {
    if (multiply_at_once(kernels.f64.matmul, alpha, a, b, beta, c, options)) return ATTEND_OK;
  }
  Matmul problem;
  Execution execution;
  Message message;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::compute, &problem, &execution, &message)) return s;
  if (is_empty(problem.c)) return ATTEND_OK;
  return status_of(
      matmul(kernels, problem, execution), [&] { return matmul_need(problem); }, execution, message);
}

attend_status attend_matmul_workspace(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                                      const attend_tensor *c, const attend_matmul_options *options, uint64_t *bytes) {
  Matmul problem;
  Execution execution;
  Message message;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(is_empty(problem.c) ? Need() : matmul_need(problem), execution.threads, message, bytes);
}
