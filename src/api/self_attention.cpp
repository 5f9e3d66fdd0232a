#include "drivers/self_attention.hpp"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstddef>
#include <iterator>

#include "api/attention_options.hpp"
#include "api/plain_matrix.hpp"
#include "api/serving.hpp"
#include "dispatch/registry.hpp"
#include "drivers/attention_small.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_self_attention_options, executor) + sizeof(void *);
constexpr size_t kFirstVersionOfWeights = offsetof(attend_self_attention_weights, b_o) + sizeof(void *);

constexpr Axes weight_axes(const Axis &rows, const Axis &columns, const Axis &heads) {
  return {{rows, columns, heads, {Count::batches}}};
}
constexpr Axis kRows = {Count::rows}, kColumns = {Count::columns}, kHeads = {Count::heads},
               kInputs = {Count::columns, Argument::x, Count::features},
               kRowsOfQ = {Count::rows, Argument::weights_w_q}, kHeadsOfQ = {Count::heads, Argument::weights_w_q};
// One of them has them all from a weight.
constexpr Axes axes_of_bias(Argument weight) {
  return weight_axes({Count::rows, weight}, kColumns, {Count::heads, weight});
}
constexpr Axes kAxesOfWeights[] = {
    weight_axes(kRows, kInputs, kHeads),
    weight_axes(kRowsOfQ, kInputs, kHeads),
    weight_axes(kRows, kInputs, {Count::heads, Argument::weights_w_k}),
    axes_of_bias(Argument::weights_w_q),
    axes_of_bias(Argument::weights_w_k),
    axes_of_bias(Argument::weights_w_v),
    weight_axes(kRows, {Count::columns, Argument::weights_w_v, Count::rows}, kHeadsOfQ),
    weight_axes({Count::rows, Argument::weights_w_o}, kColumns, kHeads),
};
constexpr Axes kAxesOfOut = {
    {{Count::features, Argument::weights_w_v}, {Count::items, Argument::x}, kHeadsOfQ, {Count::batches, Argument::x}}};
constexpr Axes kAxesOfProjected = {
    {{Count::features, Argument::weights_w_o}, {Count::items, Argument::x}, kHeads, {Count::batches, Argument::x}}};
constexpr AttentionAxes kAxes({Count::keys, Argument::x, Count::items}, {Count::queries, Argument::x, Count::items},
                              kHeadsOfQ, {Count::batches, Argument::x});

attend_status read_weights(const attend_self_attention_weights *given, Operands *operands, const Message &message,
                           SelfAttention *p) {
  if (given == nullptr) return fail(message, ATTEND_NULL_POINTER, Argument::weights, "is null, but required");
  attend_self_attention_weights w;
  if (attend_status s = read_struct(given, kFirstVersionOfWeights, Argument::weights_size, message, &w)) return s;
  if (w.reserved != 0) return wrong_value(message, Argument::weights_reserved, int64_t{w.reserved}, "0");
  const struct {
    const attend_tensor *from;
    Argument argument;
    Tensor *to;
    bool required;
  } weights[] = {
      {w.w_q, Argument::weights_w_q, &p->w_q, true},  {w.w_k, Argument::weights_w_k, &p->w_k, true},
      {w.w_v, Argument::weights_w_v, &p->w_v, true},  {w.b_q, Argument::weights_b_q, &p->b_q, false},
      {w.b_k, Argument::weights_b_k, &p->b_k, false}, {w.b_v, Argument::weights_b_v, &p->b_v, false},
      {w.w_o, Argument::weights_w_o, &p->w_o, false}, {w.b_o, Argument::weights_b_o, &p->b_o, false},
  };
  for (const auto &o : weights) {
    if (o.from == nullptr && !o.required) continue;
    if (attend_status s = operands->read(o.from, o.argument, Role::input, Kind::right, o.to)) return s;
  }
  if (p->b_o && !p->w_o) {
    return fail(message, ATTEND_INVALID_VALUE, Argument::weights_b_o, "is given, but not weights.w_o's matrix");
  }
  const int64_t features = p->x.rows(), head_features = p->w_q.rows(), heads = p->w_q.heads(),
                kv_heads = p->w_k.heads();
  const int64_t value_features = p->w_v.rows();
  if (head_features == 0 || heads == 0) {
    return fail(message, ATTEND_INVALID_SHAPE, Argument::weights_w_q,
                "has %" PRId64 " heads of %" PRId64 " rows, not 1 or more", heads, head_features);
  }
  if (head_features > kMostFeatures) return too_many_features(message, Argument::weights_w_q, head_features);
  if (value_features > kMostFeatures) return too_many_features(message, Argument::weights_w_v, value_features);
  if (kv_heads == 0 || heads % kv_heads != 0) {
    return fail(message, ATTEND_INVALID_SHAPE, Argument::weights_w_k,
                "has %" PRId64 " heads; weights.w_q's %" PRId64 " heads are no multiple of them", kv_heads, heads);
  }
  const struct {
    const Tensor *tensor;
    Argument argument;
    std::array<int64_t, 4> shape;
  } shapes[] = {
      {&p->w_q, Argument::weights_w_q, {head_features, features, heads, 1}},
      {&p->w_k, Argument::weights_w_k, {head_features, features, kv_heads, 1}},
      {&p->w_v, Argument::weights_w_v, {value_features, features, kv_heads, 1}},
      {&p->b_q, Argument::weights_b_q, {head_features, 1, heads, 1}},
      {&p->b_k, Argument::weights_b_k, {head_features, 1, kv_heads, 1}},
      {&p->b_v, Argument::weights_b_v, {value_features, 1, kv_heads, 1}},
      {&p->w_o, Argument::weights_w_o, {p->w_o.rows(), value_features, heads, 1}},
      {&p->b_o, Argument::weights_b_o, {p->w_o.rows(), 1, 1, 1}},
  };
  for (size_t i = 0; i < std::size(shapes); ++i) {
    const auto &e = shapes[i];
    if (!*e.tensor) continue;
    if (attend_status s = expect_shape(*e.tensor, e.argument, e.shape, kAxesOfWeights[i], message)) return s;
  }
  return ATTEND_OK;
}

// Q, K, V and O lie in the workspace: their bytes must be countable.
bool fits(const SelfAttention &p) {
  constexpr int64_t kFive = 5 * 8;  // five tensors of at most 8 bytes an element, generously
  const int64_t rows = std::max({p.w_q.rows(), p.w_v.rows(), p.w_o ? p.w_o.rows() : 0});
  return are_countable(kFive, {rows, p.x.columns(), p.w_q.heads(), p.x.batch()});
}

attend_status read(const attend_tensor *x, const attend_self_attention_weights *weights, const attend_tensor *out,
                   const attend_self_attention_options *given, const attend_attention_options *attention_given,
                   Purpose purpose, SelfAttention *p, Execution *execution, Message *message) {
  attend_self_attention_options options;
  if (attend_status s = read_options(given, kFirstVersion, 0, purpose, &options, execution, message)) return s;
  AttentionOptions inner;
  inner.message = *message;
  inner.message.of_attention_options = true;  // those of `options` are done with
  const Message &said = inner.message;
  if (attend_status s = read_attention_options(attention_given, purpose, &inner, &p->attention)) return s;
  if (attend_status s = expect_plain_head(attention_given, inner)) return s;
  Attention &attention = p->attention;
  if (attention.resumes || attention.pauses) {
    return fail(said, ATTEND_INVALID_VALUE, Argument::options_flags,
                "has ATTEND_PARTIAL or ATTEND_CONTINUE, but the keys are all of x");
  }
  if (inner.state != nullptr || attention.key_offset != 0) {
    return fail(said, ATTEND_INVALID_VALUE,
                inner.state != nullptr ? Argument::options_state : Argument::options_key_offset,
                "is given, but the keys are all of x");
  }
  if (attention.key_starts != nullptr || inner.pages != nullptr) {
    return fail(said, ATTEND_INVALID_VALUE,
                inner.pages != nullptr ? Argument::options_pages : Argument::options_key_starts,
                "is given, but keys are those of x, which query_starts pack");
  }
  if (inner.k_scale != nullptr || inner.v_scale != nullptr) {
    return fail(said, ATTEND_INVALID_VALUE,
                inner.k_scale != nullptr ? Argument::options_k_scale : Argument::options_v_scale,
                "is given, but keys and values have no scales here");
  }

  Operands operands(kSelfAttentionTypes, purpose, said);
  if (attend_status s = operands.read(x, Argument::x, Role::input, Kind::left, &p->x)) return s;
  if (attend_status s = read_weights(weights, &operands, said, p)) return s;
  if (attend_status s = operands.read(out, Argument::out, Role::output, Kind::out, &p->out)) return s;
  const int64_t items = p->x.columns(), batch = p->x.batch();
  if (p->x.rows() == 0) return fail(said, ATTEND_INVALID_SHAPE, Argument::x, "has 0 features, not 1 or more");
  if (p->x.heads() != 1) return wrong_extent(said, Argument::x, kHeads, p->x.heads(), 1, false);
  if (attention.sequences > 0) {
    constexpr Argument kStarts = Argument::options_query_starts;
    if (attend_status s =
            expect_packed(attention.query_starts, attention.sequences, p->x, Argument::x, kStarts, purpose, said)) {
      return s;
    }
    attention.key_starts = attention.query_starts;
  }
  const std::array<int64_t, 4> attended = {p->w_v.rows(), items, p->w_q.heads(), batch};
  const std::array<int64_t, 4> expected = p->w_o ? std::array<int64_t, 4>{p->w_o.rows(), items, 1, batch} : attended;
  const Axes &axes = p->w_o ? kAxesOfProjected : kAxesOfOut;
  if (attend_status s = expect_shape(p->out, Argument::out, expected, axes, said)) return s;
  if (!fits(*p)) {
    return fail(said, ATTEND_OVERFLOW, Argument::x,
                "Q, K and V of its %" PRId64 " items in %" PRId64 " batches take more bytes than 63 bits can count",
                items, batch);
  }
  const int64_t keys = attention.sequences == 0   ? items
                       : purpose == Purpose::size ? 0
                                                  : longest(attention.key_starts, attention.sequences);
  if (attend_status s =
          finish_attention(inner, &operands, p->x.dtype, p->w_q.rows(), keys, attended, kAxes, purpose, &attention)) {
    return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  const int64_t count = attention.sequences > 0 ? attention.sequences : batch;
  const struct {
    const Tensor &tensor;
    Argument argument;
  } others[] = {{p->out, Argument::out},         {p->x, Argument::x},
                {p->w_q, Argument::weights_w_q}, {p->w_k, Argument::weights_w_k},
                {p->w_v, Argument::weights_w_v}, {p->b_q, Argument::weights_b_q},
                {p->b_k, Argument::weights_b_k}, {p->b_v, Argument::weights_b_v},
                {p->w_o, Argument::weights_w_o}, {p->b_o, Argument::weights_b_o}},
    outputs[] = {
        {p->out, Argument::out}, {attention.lse, Argument::options_lse}, {attention.scores, Argument::options_scores}};
  for (const auto &o : outputs) {
    for (const auto &other : others) {
      if (&other.tensor == &o.tensor) continue;
      if (attend_status s = expect_apart(o.tensor, o.argument, other.tensor, other.argument, said)) return s;
    }
    if (attend_status s = expect_apart_from_options(o.tensor, o.argument, attention, count, said)) return s;
  }
  return ATTEND_OK;
}

bool has_nothing_to_do(const SelfAttention &p) {
  const Tensor &lse = p.attention.lse, &scores = p.attention.scores;
  return is_empty(p.out) && (!lse || is_empty(lse)) && (!scores || is_empty(scores));
}

// Small calls of one head whose arguments are beyond doubt; false leaves the call to the general way.
template <class T>
bool attend_at_once(const attend_tensor *x, const attend_self_attention_weights *w, const attend_tensor *out,
                    const attend_self_attention_options *options, const attend_attention_options *attention_options) {
  SmallSelfAttention<T> p;
  if (!is_plain_options(options) || !only_scales(attention_options, dtype_of<T>(), &p.scale)) return false;
  if (attention_options != nullptr && (attention_options->threads != 0 || attention_options->workspace != nullptr ||
                                       attention_options->message != nullptr)) {
    return false;
  }
  if (w == nullptr || w->size != sizeof *w || w->reserved != 0 || w->w_o != nullptr || w->b_o != nullptr) return false;
  PlainMatrix mx, mo, q, k, v;
  if (!is_plain<T>(x, &mx) || !is_plain<T>(out, &mo) || !is_plain<T>(w->w_q, &q) || !is_plain<T>(w->w_k, &k) ||
      !is_plain<T>(w->w_v, &v)) {
    return false;
  }
  if (q.columns != mx.rows || k.columns != mx.rows || v.columns != mx.rows || k.rows != q.rows) return false;
  if (mo.rows != v.rows || mo.columns != mx.columns || !is_distinct(mo)) return false;
  if (!is_apart(mo, mx) || !is_apart(mo, q) || !is_apart(mo, k) || !is_apart(mo, v)) return false;
  const struct {
    const attend_tensor *from;
    int64_t rows;
    MatrixRef<const T> *to;
  } biases[] = {{w->b_q, q.rows, &p.b_q}, {w->b_k, k.rows, &p.b_k}, {w->b_v, v.rows, &p.b_v}};
  for (const auto &b : biases) {
    *b.to = {};
    if (b.from == nullptr) continue;
    PlainMatrix m;
    if (!is_plain<T>(b.from, &m) || m.rows != b.rows || m.columns != 1 || !is_apart(mo, m)) return false;
    *b.to = view_of<const T>(m).at;
  }
  if (p.scale == 0) p.scale = 1 / std::sqrt(static_cast<double>(q.rows));
  p.x = view_of<const T>(mx), p.out = view_of<T>(mo);
  p.w_q = view_of<const T>(q), p.w_k = view_of<const T>(k), p.w_v = view_of<const T>(v);
  return self_attention_small(*active_kernels(), p, execution_of(options));
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_self_attention(const attend_tensor *x, const attend_self_attention_weights *weights,
                                    const attend_tensor *out, const attend_self_attention_options *options,
                                    const attend_attention_options *attention_options) {
  if (out != nullptr && out->dtype == ATTEND_F32) {
    if (attend_at_once<float>(x, weights, out, options, attention_options)) return ATTEND_OK;
  } else if (out != nullptr && out->dtype == ATTEND_F64) {
    if (attend_at_once<double>(x, weights, out, options, attention_options)) return ATTEND_OK;
  }
  SelfAttention problem;
  Execution execution;
  Message message;
  if (attend_status s =
          read(x, weights, out, options, attention_options, Purpose::compute, &problem, &execution, &message)) {
    return s;
  }
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  return status_of(
      self_attention(*active_kernels(), problem, execution), [&] { return self_attention_need(problem); }, execution,
      message);
}

attend_status attend_self_attention_workspace(const attend_tensor *x, const attend_self_attention_weights *weights,
                                              const attend_tensor *out, const attend_self_attention_options *options,
                                              const attend_attention_options *attention_options, uint64_t *bytes) {
  SelfAttention problem;
  Execution execution;
  Message message;
  if (attend_status s =
          read(x, weights, out, options, attention_options, Purpose::size, &problem, &execution, &message)) {
    return s;
  }
  return store_bytes(has_nothing_to_do(problem) ? Need() : self_attention_need(problem), execution.threads, message,
                     bytes);
}
