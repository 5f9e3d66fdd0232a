#include "drivers/matmul.hpp"

#include <cinttypes>
#include <cstddef>

#include "api/boundary.hpp"
#include "api/plain_matrix.hpp"
#include "dispatch/registry.hpp"
#include "drivers/matmul_integers.hpp"
#include "drivers/matmul_small.hpp"

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

bool is_integer(const Tensor &t) { return t.dtype == Dtype::i8 || t.dtype == Dtype::u8; }
bool of_integers(const Matmul &p) { return is_integer(p.a) && is_integer(p.b); }

// A zero point is a number of the type it is one of.
attend_status expect_of_type(const Tensor &zero, Argument argument, const Tensor &of, Argument of_argument,
                             const Message &message) {
  const int32_t least = of.dtype == Dtype::i8 ? -128 : 0, most = of.dtype == Dtype::i8 ? 127 : 255;
  for (int64_t i = 0; i < zero.count; ++i) {
    const int64_t row = i % zero.rows(), column = i / zero.rows() % zero.columns(),
                  slice = i / zero.rows() / zero.columns();
    const int32_t value = *zero.at<const int32_t>(row, column, slice % zero.heads(), slice / zero.heads());
    if (value < least || value > most) {
      return fail(message, ATTEND_INVALID_VALUE, argument,
                  "has %" PRId32 ", which is not in %s, %s's type: %" PRId32 " to %" PRId32, value, name_of(of.dtype),
                  attend_status_argument(failure(0, of_argument)), least, most);
    }
  }
  return ATTEND_OK;
}

// The scale or the zero points of A (dimension 0: a number a row) or B (1: a number a column).
attend_status read_numbers(const attend_tensor *given, Argument argument, Kind kind, const Tensor &of,
                           Argument of_argument, size_t dimension, Purpose purpose, Operands *operands, const Matmul &p,
                           const Message &message, Tensor *numbers) {
  if (given == nullptr) return ATTEND_OK;
  const char *const name = attend_status_argument(failure(0, of_argument));
  if (!is_integer(of)) {
    return fail(message, ATTEND_INVALID_VALUE, argument, "is given, but %s's type is %s, not int8 or uint8", name,
                name_of(of.dtype));
  }
  if (kind == Kind::zero && !of_integers(p)) {
    return fail(message, ATTEND_INVALID_VALUE, argument,
                "is given, but a's type is %s and b's type is %s: zero points go with two operands of integers",
                name_of(p.a.dtype), name_of(p.b.dtype));
  }
  if (kind == Kind::acc && p.c.dtype == Dtype::i32) {
    return fail(message, ATTEND_INVALID_VALUE, argument, "is given, but c's type is int32, not a floating-point type");
  }
  if (attend_status s = operands->read(given, argument, Role::input, kind, numbers)) return s;
  std::array<int64_t, 4> shape = {1, 1, p.c.heads(), p.c.batch()};
  shape[dimension] = of.shape[dimension];
  Axes axes = kPlainAxes;
  axes.axis[dimension].as = of_argument;
  if (attend_status s = expect_shape(*numbers, argument, shape, axes, message, kAll)) return s;
  if (purpose == Purpose::size) return ATTEND_OK;
  if (attend_status s = expect_apart(p.c, Argument::c, *numbers, argument, message)) return s;
  return kind == Kind::zero ? expect_of_type(*numbers, argument, of, of_argument, message) : ATTEND_OK;
}

attend_status read_scales(const attend_matmul_options &options, Purpose purpose, Operands *operands,
                          const Message &message, const Matmul &p, Scales *scales) {
  const auto numbers = [&](const attend_tensor *given, Argument argument, Kind kind, bool of_a, Tensor *to) {
    return read_numbers(given, argument, kind, of_a ? p.a : p.b, of_a ? Argument::a : Argument::b, of_a ? 0 : 1,
                        purpose, operands, p, message, to);
  };
  if (attend_status s = numbers(options.a_scale, Argument::options_a_scale, Kind::acc, true, &scales->a)) return s;
  if (attend_status s = numbers(options.b_scale, Argument::options_b_scale, Kind::acc, false, &scales->b)) return s;
  if (attend_status s = numbers(options.a_zero, Argument::options_a_zero, Kind::zero, true, &scales->a_zero)) return s;
  if (attend_status s = numbers(options.b_zero, Argument::options_b_zero, Kind::zero, false, &scales->b_zero)) return s;
  if (p.c.dtype != Dtype::i32) return ATTEND_OK;
  if (p.alpha != 1) return wrong_value(message, Argument::alpha, p.alpha, "1 where c's type is int32");
  if (p.beta != 0) return wrong_value(message, Argument::beta, p.beta, "0 where c's type is int32");
  return ATTEND_OK;
}

attend_status read(double alpha, const attend_tensor *a, const attend_tensor *b, double beta, const attend_tensor *c,
                   const attend_matmul_options *given, Purpose purpose, Matmul *p, Scales *scales, Execution *execution,
                   Message *message) {
  attend_matmul_options options;
  if (attend_status s = read_options(given, kFirstVersion, 0, purpose, &options, execution, message)) return s;
  Operands operands(kMatmulTypes, purpose, *message);
  if (attend_status s = operands.read(a, Argument::a, Role::input, Kind::left, &p->a)) return s;
  if (attend_status s = operands.read(b, Argument::b, Role::input, Kind::right, &p->b)) return s;
  if (attend_status s = operands.read(c, Argument::c, Role::output, Kind::out, &p->c)) return s;
  if (attend_status s =
          operands.read_optional(options.bias, Argument::options_bias, Role::input, Kind::added, &p->bias))
    return s;
  p->alpha = alpha;
  p->beta = beta;
  p->native_dot = (options.flags & ATTEND_NATIVE_DOT) != 0;
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
  if (attend_status s = read_scales(options, purpose, &operands, *message, *p, scales)) return s;
  p->scales = scales;
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

Need need_of(const Matmul &p) {
  if (is_empty(p.c)) return Need();
  return of_integers(p) ? integer_matmul_need(p) : takes_dots(p) ? dot_matmul_need(p) : matmul_need(p);
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
  Scales scales;
  Execution execution;
  Message message;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::compute, &problem, &scales, &execution, &message))
    return s;
  if (is_empty(problem.c)) return ATTEND_OK;
  const Acquired result = of_integers(problem)  ? integer_matmul(kernels, problem, execution)
                          : takes_dots(problem) ? dot_matmul(kernels, problem, execution)
                                                : matmul(kernels, problem, execution);
  return status_of(
      result, [&] { return need_of(problem); }, execution, message);
}

attend_status attend_matmul_workspace(double alpha, const attend_tensor *a, const attend_tensor *b, double beta,
                                      const attend_tensor *c, const attend_matmul_options *options, uint64_t *bytes) {
  Matmul problem;
  Scales scales;
  Execution execution;
  Message message;
  if (attend_status s = read(alpha, a, b, beta, c, options, Purpose::size, &problem, &scales, &execution, &message))
    return s;
  return store_bytes(need_of(problem), execution.threads, message, bytes);
}
