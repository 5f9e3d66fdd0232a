#include "api/attention_operands.hpp"

#include <cinttypes>

#include "api/serving.hpp"

namespace attend {
namespace {

constexpr Axes kAxesOfK = {
    {{Count::features, Argument::q}, {Count::keys}, {Count::heads}, {Count::batches, Argument::q}}};
constexpr Axes kAxesOfV = {
    {{Count::features}, {Count::keys, Argument::k}, {Count::heads, Argument::k}, {Count::batches}}};
constexpr Axes kAxesOfOut = {
    {{Count::features, Argument::v}, {Count::queries, Argument::q}, {Count::heads, Argument::q}, {Count::batches}}};
constexpr AttentionAxes kAxes({Count::keys, Argument::k}, {Count::queries, Argument::q}, {Count::heads, Argument::q},
                              {Count::batches, Argument::out});

// The scale of K or V: integers want one, f8e4m3 may have one. In pools it lies as they do, but that of features is the
// same in all pages.
attend_status read_scale(const attend_tensor *given, Argument argument, const Tensor &of, Argument of_argument,
                         int64_t batch, bool paged, Operands *operands, const Message &message, Tensor *scale) {
  const char *const name = attend_status_argument(failure(0, of_argument));
  if (given == nullptr) {
    if (of.dtype != Dtype::i8) return ATTEND_OK;
    return fail(message, ATTEND_NULL_POINTER, argument, "is null, but required where %s's type is int8", name);
  }
  if (of.dtype != Dtype::i8 && of.dtype != Dtype::f8e4m3) {
    return fail(message, ATTEND_INVALID_VALUE, argument, "is given, but %s's type is %s, not int8 or float8_e4m3", name,
                name_of(of.dtype));
  }
  if (attend_status s = operands->read(given, argument, Role::input, Kind::acc, scale)) return s;
  const Axes axes = {
      {{Count::features, of_argument}, {Count::keys, of_argument}, {Count::heads, of_argument}, {Count::batches}}};
  const std::array<int64_t, 4> shape = {of.rows(), of.columns(), of.heads(), batch};
  if (attend_status s = expect_shape(*scale, argument, shape, axes, message, kAll)) return s;
  if (attend_status s = expect_row_or_key(*scale, argument, message)) return s;
  if (paged && scale->rows() != 1 && scale->batch() != 1) {
    return fail(message, ATTEND_INVALID_SHAPE, argument,
                "has %" PRId64 " features and %" PRId64 " pages; one of the two must be 1", scale->rows(),
                scale->batch());
  }
  return ATTEND_OK;
}

// The table of pages; how many keys a sequence has room for in it.
attend_status read_pages(const attend_tensor *given, const Tensor &k, int64_t batch, Operands *operands,
                         const Message &message, Tensor *pages, int64_t *keys) {
  constexpr Argument kPages = Argument::options_pages;
  constexpr Axes kAxesOfPages = {{{Count::rows}, {Count::batches, Argument::out}, {Count::heads}, {Count::batches}}};
  if (attend_status s = operands->read(given, kPages, Role::input, Kind::pages, pages)) return s;
  if (attend_status s = expect_shape(*pages, kPages, {pages->rows(), batch, 1, 1}, kAxesOfPages, message)) return s;
  if (__builtin_mul_overflow(pages->rows(), k.columns(), keys) || *keys > INT64_MAX / 4 / 8) {
    return fail(message, ATTEND_OVERFLOW, kPages,
                "has %" PRId64 " pages of %" PRId64 " keys for a sequence: more than can be counted", pages->rows(),
                k.columns());
  }
  return ATTEND_OK;
}

// A sequence's entries of the table, as far as keys exist.
attend_status check_entries(const Attention &p, int64_t batch, const Message &message) {
  if (!p.pages || p.k.columns() == 0) return ATTEND_OK;
  return check_pages(p.pages, p.k.columns(), p.k.batch(), p.firsts, p.lengths, batch, Argument::options_pages, message);
}

// Packed columns, and the number of batches, that of sequences if some are packed.
attend_status read_packing(const Attention &p, Purpose purpose, const Message &message, int64_t *batch) {
  if (p.query_starts != nullptr) {
    constexpr Argument kStarts = Argument::options_query_starts;
    if (attend_status s = expect_packed(p.query_starts, p.sequences, p.q, Argument::q, kStarts, purpose, message))
      return s;
  }
  if (p.key_starts != nullptr) {
    constexpr Argument kStarts = Argument::options_key_starts;
    if (attend_status s = expect_packed(p.key_starts, p.sequences, p.k, Argument::k, kStarts, purpose, message))
      return s;
  }
  *batch = p.sequences;
  return ATTEND_OK;
}

}  // namespace

attend_status read_operands(const attend_tensor *q, const attend_tensor *k, const attend_tensor *v,
                            const attend_tensor *out, Argument of_out, Role role_of_out,
                            const AttentionOptions &options, Operands *operands, Purpose purpose, Attention *p,
                            int64_t *to_batch) {
  const Message &message = options.message;
  if (attend_status s = operands->read(q, Argument::q, Role::input, Kind::left, &p->q)) return s;
  if (attend_status s = operands->read(k, Argument::k, Role::input, Kind::right, &p->k)) return s;
  if (attend_status s = operands->read(v, Argument::v, Role::input, Kind::right, &p->v)) return s;
  if (attend_status s = operands->read(out, of_out, role_of_out, Kind::out, &p->out)) return s;
  // The inputs settle the shape, so that an output of another is what is wrong.
  const int64_t features = p->q.rows(), heads = p->q.heads(), kv_heads = p->k.heads();
  const bool paged = options.pages != nullptr;
  int64_t &batch = *to_batch;
  batch = p->q.batch() != 1             ? p->q.batch()
          : !paged && p->k.batch() != 1 ? p->k.batch()
          : !paged && p->v.batch() != 1 ? p->v.batch()
                                        : p->out.batch();
  if (p->sequences > 0) {
    if (attend_status s = read_packing(*p, purpose, message, &batch)) return s;
  }
  const int64_t q_batch = p->query_starts != nullptr ? 1 : batch, k_batch = paged                      ? p->k.batch()
                                                                            : p->key_starts != nullptr ? 1
                                                                                                       : batch;
  if (features == 0) return fail(message, ATTEND_INVALID_SHAPE, Argument::q, "has 0 features, not 1 or more");
  if (features > kMostFeatures) return too_many_features(message, Argument::q, features);
  if (p->out.rows() > kMostFeatures) return too_many_features(message, of_out, p->out.rows());
  if (p->sequences > 0 && p->query_starts == nullptr) {
    const std::array<int64_t, 4> of_q = {features, p->q.columns(), heads, batch};
    if (attend_status s = expect_shape(p->q, Argument::q, of_q, kPlainAxes, message, kBatch)) return s;
  }
  const std::array<int64_t, 4> of_k = {features, p->k.columns(), kv_heads, k_batch};
  if (attend_status s = expect_shape(p->k, Argument::k, of_k, kAxesOfK, message, paged ? 0 : kBatch)) return s;
  const std::array<int64_t, 4> of_v = {p->v.rows(), p->k.columns(), kv_heads, k_batch};
  if (attend_status s = expect_shape(p->v, Argument::v, of_v, kAxesOfV, message, paged ? 0 : kBatch)) return s;
  if (heads != 0 && (kv_heads == 0 || heads % kv_heads != 0)) {
    return fail(message, ATTEND_INVALID_SHAPE, Argument::k,
                "has %" PRId64 " heads; q's %" PRId64 " heads are no multiple of them", kv_heads, heads);
  }
  if (attend_status s = read_scale(options.k_scale, Argument::options_k_scale, p->k, Argument::k, k_batch, paged,
                                   operands, message, &p->k_scale)) {
    return s;
  }
  if (attend_status s = read_scale(options.v_scale, Argument::options_v_scale, p->v, Argument::v, k_batch, paged,
                                   operands, message, &p->v_scale)) {
    return s;
  }
  const std::array<int64_t, 4> shape = {p->v.rows(), p->q.columns(), heads, q_batch};
  if (attend_status s = expect_shape(p->out, of_out, shape, kAxesOfOut, message)) return s;
  int64_t keys = p->k.columns();
  if (paged) {
    if (attend_status s = read_pages(options.pages, p->k, batch, operands, message, &p->pages, &keys)) return s;
  }
  if (p->key_starts != nullptr) keys = purpose == Purpose::size ? 0 : longest(p->key_starts, p->sequences);
  if (attend_status s = finish_attention(options, operands, p->q.dtype, features, keys, shape, kAxes, purpose, p)) {
    return s;
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  return check_entries(*p, batch, message);
}

}  // namespace attend
