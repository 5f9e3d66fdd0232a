#include "drivers/kv_append.hpp"

#include <cinttypes>
#include <cstddef>
#include <iterator>

#include "api/rotary_options.hpp"
#include "api/serving.hpp"
#include "dispatch/registry.hpp"

namespace attend {
namespace {

constexpr size_t kFirstVersion = offsetof(attend_kv_append_options, positions) + sizeof(void *);
constexpr uint32_t kFlags = ATTEND_ROTARY_INTERLEAVED | ATTEND_COMPUTE_K_SCALE | ATTEND_COMPUTE_V_SCALE;
constexpr RotaryNames kNames = {Argument::k, Argument::options_cos, Argument::options_sin};

constexpr Axes kAxesOfV = {
    {{Count::features}, {Count::keys, Argument::k}, {Count::heads, Argument::k}, {Count::batches, Argument::k}}};
constexpr Axes kAxesOfVCache = {{{Count::features, Argument::v},
                                 {Count::keys, Argument::k_cache},
                                 {Count::heads, Argument::k_cache},
                                 {Count::batches, Argument::k_cache}}};

int64_t product(int64_t a, int64_t b) {  // the most there is if it is beyond that
  int64_t r = 0;
  return __builtin_mul_overflow(a, b, &r) ? INT64_MAX : r;
}

const char *text_of(Argument argument) { return attend_status_argument(failure(0, argument)); }

// What goes with what, whatever the shapes.
attend_status check_options(const attend_kv_append_options &o, bool has_v, const Message &message) {
  const bool rotates = o.cos != nullptr || o.sin != nullptr;
  const struct {
    bool wrong;
    int reason;
    Argument argument;
    const char *why;
  } rules[] = {
      {o.slots != nullptr && o.offsets != nullptr, ATTEND_INVALID_VALUE, Argument::options_offsets,
       "is given beside slots, which say where each token goes"},
      {o.slots != nullptr && o.pages != nullptr, ATTEND_INVALID_VALUE, Argument::options_pages,
       "is given beside slots, which say where each token goes"},
      {o.cos == nullptr && rotates, ATTEND_NULL_POINTER, Argument::options_cos, "is null, but sin is given"},
      {o.sin == nullptr && rotates, ATTEND_NULL_POINTER, Argument::options_sin, "is null, but cos is given"},
      {!rotates && o.rotary_dims != 0, ATTEND_INVALID_VALUE, Argument::options_rotary_dims,
       "is given without cos and sin"},
      {!rotates && o.positions != nullptr, ATTEND_INVALID_VALUE, Argument::options_positions,
       "is given without cos and sin"},
      {!rotates && (o.flags & ATTEND_ROTARY_INTERLEAVED) != 0, ATTEND_INVALID_VALUE, Argument::options_flags,
       "has ATTEND_ROTARY_INTERLEAVED without cos and sin"},
      {rotates && o.slots != nullptr && o.positions == nullptr, ATTEND_NULL_POINTER, Argument::options_positions,
       "is null, but required where slots say where rotated keys go"},
      {!has_v && o.v_scale != nullptr, ATTEND_INVALID_VALUE, Argument::options_v_scale, "is given without v"},
      {!has_v && (o.flags & ATTEND_COMPUTE_V_SCALE) != 0, ATTEND_INVALID_VALUE, Argument::options_flags,
       "has ATTEND_COMPUTE_V_SCALE without v"},
  };
  for (const auto &rule : rules) {
    if (rule.wrong) return fail(message, rule.reason, rule.argument, "%s", rule.why);
  }
  return ATTEND_OK;
}

// The scale of a cache: integers want one, f8e4m3 may have one. Computed, it has one row for each token and head.
attend_status read_cache_scale(const attend_tensor *given, Argument argument, bool computes, Argument cache,
                               Operands *operands, const Message &message, Rotary *p) {
  const Dtype type = p->y.dtype;
  const bool takes = type == Dtype::i8 || type == Dtype::f8e4m3;
  p->computes_scale = computes;
  if (given == nullptr && !computes && type != Dtype::i8) return ATTEND_OK;
  if (!takes) {
    return fail(message, ATTEND_INVALID_VALUE, computes ? Argument::options_flags : argument,
                "%s, but %s's type is %s, not int8 or float8_e4m3", computes ? "wants a scale computed" : "is given",
                text_of(cache), name_of(type));
  }
  if (given == nullptr) {
    return fail(message, ATTEND_NULL_POINTER, argument, "is null, but required where %s",
                computes ? "it is to be computed" : "the cache's type is int8");
  }
  if (attend_status s = operands->read(given, argument, computes ? Role::output : Role::input, Kind::acc, &p->scale)) {
    return s;
  }
  const Axes axes = {{{Count::features}, {Count::keys, cache}, {Count::heads, cache}, {Count::batches, cache}}};
  std::array<int64_t, 4> shape = p->y.shape;
  if (computes) shape[0] = 1;
  if (attend_status s = expect_shape(p->scale, argument, shape, axes, message, computes ? 0 : kAll)) return s;
  return computes ? ATTEND_OK : expect_row_or_key(p->scale, argument, message);
}

// Columns that a sequence may have in the cache.
int64_t capacity_of(const Rotary &p) { return p.to.pages ? product(p.to.pages.rows(), p.to.columns) : p.to.columns; }

// That each sequence's new columns lie in the cache, or in pages that do.
attend_status check_offsets(const Rotary &p, const Message &message) {
  const Tokens &tokens = p.tokens;
  const int64_t capacity = capacity_of(p);
  // Without arrays all are alike.
  const int64_t different = tokens.starts != nullptr || tokens.offsets != nullptr ? tokens.batch : 1;
  for (int64_t b = 0; b < different; ++b) {
    const int64_t length = tokens.length(b), offset = tokens.offset(b);
    if (length == 0 || (offset >= 0 && length <= capacity && offset <= capacity - length)) continue;
    if (tokens.offsets != nullptr) {
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_offsets,
                  "is %" PRId64 " for batch %" PRId64 " of %" PRId64 " new keys, but a sequence has room for %" PRId64,
                  offset, b, length, capacity);
    }
    const Argument wrong = tokens.starts != nullptr ? Argument::options_starts
                           : p.to.pages             ? Argument::options_pages
                                                    : Argument::k_cache;
    return fail(message, tokens.starts != nullptr ? ATTEND_INVALID_VALUE : ATTEND_INVALID_SHAPE, wrong,
                "has %" PRId64 " new keys for batch %" PRId64 ", but a sequence has room for %" PRId64, length, b,
                capacity);
  }
  return ATTEND_OK;
}

attend_status check_slots(const Rotary &p, const Message &message) {
  const int64_t all = product(p.y.columns(), p.y.batch()), count = p.tokens.count();
  for (int64_t t = 0; t < count; ++t) {
    const int64_t slot = p.to.slots[t];
    if (slot >= -1 && slot < all) continue;
    return fail(message, ATTEND_INVALID_VALUE, Argument::options_slots,
                "is %" PRId64 " for item %" PRId64 ", but must be -1 or one of the cache's %" PRId64
                " slots, counted from 0",
                slot, t, all);
  }
  return ATTEND_OK;
}

// What the arrays say, which ..._workspace does not look at.
attend_status check_arrays(const Rotary &k, const Message &message) {
  const Tokens &tokens = k.tokens;
  if (tokens.starts != nullptr) {
    if (attend_status s =
            check_starts(tokens.starts, tokens.batch, tokens.columns, Argument::options_starts, message)) {
      return s;
    }
  }
  if (k.to.slots != nullptr) {
    if (attend_status s = check_slots(k, message)) return s;
  } else {
    if (attend_status s = check_offsets(k, message)) return s;
    for (int64_t b = 0; k.to.pages && b < tokens.batch; ++b) {
      const int64_t offset = tokens.offset(b);
      if (attend_status s = check_pages_of(k.to.pages, k.to.columns, k.y.batch(), offset, offset + tokens.length(b), b,
                                           Argument::options_pages, message)) {
        return s;
      }
    }
  }
  return k.cos ? check_positions(k, kNames, message) : ATTEND_OK;
}

attend_status check_overlaps(const KvAppend &p, const Message &message) {
  const Tokens &tokens = p.k.tokens;
  const struct {
    Tensor tensor;
    Argument argument;
    bool written;
  } operands[] = {{p.k.y, Argument::k_cache, true},
                  {p.v.y, Argument::v_cache, true},
                  {p.k.scale, Argument::options_k_scale, p.k.computes_scale},
                  {p.v.scale, Argument::options_v_scale, p.v.computes_scale},
                  {p.k.x, Argument::k, false},
                  {p.v.x, Argument::v, false},
                  {p.k.cos, Argument::options_cos, false},
                  {p.k.sin, Argument::options_sin, false},
                  {p.k.to.pages, Argument::options_pages, false},
                  {integers(tokens.starts, tokens.batch + 1), Argument::options_starts, false},
                  {integers(tokens.offsets, tokens.batch), Argument::options_offsets, false},
                  {integers(p.k.to.slots, tokens.count()), Argument::options_slots, false},
                  {integers(tokens.positions, tokens.count()), Argument::options_positions, false}};
  for (size_t i = 0; i < std::size(operands); ++i) {
    for (size_t j = 0; operands[i].written && j < std::size(operands); ++j) {
      if (j == i || (operands[j].written && j > i)) continue;  // of two outputs the later is named
      if (attend_status s = expect_apart(operands[i].tensor, operands[i].argument, operands[j].tensor,
                                         operands[j].argument, message)) {
        return s;
      }
    }
  }
  return ATTEND_OK;
}

bool has_nothing_to_do(const KvAppend &p) { return is_empty(p.k.x) && is_empty(p.v.x); }

attend_status read(const attend_tensor *k, const attend_tensor *v, const attend_tensor *k_cache,
                   const attend_tensor *v_cache, const attend_kv_append_options *given, Purpose purpose, KvAppend *p,
                   Execution *execution, Message *message) {
  attend_kv_append_options o;
  if (attend_status s = read_options(given, kFirstVersion, kFlags, purpose, &o, execution, message)) return s;
  const bool has_v = v != nullptr || v_cache != nullptr;
  if (attend_status s = check_options(o, has_v, *message)) return s;
  Operands operands(kAppendTypes, purpose, *message);
  Rotary &pk = p->k, &pv = p->v;
  if (attend_status s = operands.read(k, Argument::k, Role::input, Kind::left, &pk.x)) return s;
  if (attend_status s = check_packing(o.sequences, o.starts, pk.x, Argument::k, *message)) return s;
  if (has_v) {
    if (attend_status s = operands.read(v, Argument::v, Role::input, Kind::right, &pv.x)) return s;
    const std::array<int64_t, 4> of_v = {pv.x.rows(), pk.x.columns(), pk.x.heads(), pk.x.batch()};
    if (attend_status s = expect_shape(pv.x, Argument::v, of_v, kAxesOfV, *message)) return s;
  }
  pk.tokens = {pk.x.columns(), o.starts != nullptr ? o.sequences : pk.x.batch(), o.starts, o.offsets, o.positions};
  constexpr int64_t kMost = int64_t{1} << 48;  // a slot for each fits in memory
  if (o.slots != nullptr && product(pk.x.columns(), pk.x.batch()) > kMost) {
    return fail(*message, ATTEND_OVERFLOW, Argument::k, "has more than 2^48 new keys, too many for slots");
  }

  if (attend_status s = operands.read(k_cache, Argument::k_cache, Role::output, Kind::out, &pk.y)) return s;
  const bool is_pool = o.slots != nullptr || o.pages != nullptr;
  const Axes of_cache = {{{Count::features, Argument::k},
                          {Count::keys},
                          {Count::heads, Argument::k},
                          {Count::batches, o.starts == nullptr ? Argument::k : Argument::none}}};
  const std::array<int64_t, 4> cache = {pk.x.rows(), pk.y.columns(), pk.x.heads(),
                                        is_pool ? pk.y.batch() : pk.tokens.batch};
  if (attend_status s = expect_shape(pk.y, Argument::k_cache, cache, of_cache, *message)) return s;
  if (has_v) {
    if (attend_status s = operands.read(v_cache, Argument::v_cache, Role::output, Kind::out, &pv.y)) return s;
    const std::array<int64_t, 4> of_values = {pv.x.rows(), cache[1], cache[2], cache[3]};
    if (attend_status s = expect_shape(pv.y, Argument::v_cache, of_values, kAxesOfVCache, *message)) return s;
  }
  if (attend_status s = read_cache_scale(o.k_scale, Argument::options_k_scale, (o.flags & ATTEND_COMPUTE_K_SCALE) != 0,
                                         Argument::k_cache, &operands, *message, &pk)) {
    return s;
  }
  if (has_v) {
    if (attend_status s =
            read_cache_scale(o.v_scale, Argument::options_v_scale, (o.flags & ATTEND_COMPUTE_V_SCALE) != 0,
                             Argument::v_cache, &operands, *message, &pv)) {
      return s;
    }
  }
  if (o.cos != nullptr) {
    if (attend_status s = read_tables(o.cos, o.sin, o.rotary_dims, kNames, &operands, *message, &pk)) return s;
  }
  pk.interleaved = (o.flags & ATTEND_ROTARY_INTERLEAVED) != 0;
  pk.to.is_cache = true;
  pk.to.columns = pk.y.columns();
  pk.to.slots = o.slots;
  if (o.pages != nullptr) {
    const Argument pages = Argument::options_pages;
    if (attend_status s = operands.read(o.pages, pages, Role::input, Kind::pages, &pk.to.pages)) return s;
    const Axes of_pages = {{{Count::rows}, {Count::columns}, {Count::heads}, {Count::batches}}};
    const std::array<int64_t, 4> shape = {pk.to.pages.rows(), pk.tokens.batch, 1, 1};
    if (attend_status s = expect_shape(pk.to.pages, pages, shape, of_pages, *message)) return s;
  }
  pv.tokens = pk.tokens;
  pv.to = pk.to;
  if (has_nothing_to_do(*p)) return ATTEND_OK;
  // Where no array says how many there are, or where.
  if (o.starts == nullptr && o.offsets == nullptr && o.slots == nullptr) {
    if (attend_status s = check_offsets(pk, *message)) return s;
    if (pk.cos && o.positions == nullptr) {
      if (attend_status s = check_positions(pk, kNames, *message)) return s;
    }
  }
  if (purpose == Purpose::size) return ATTEND_OK;
  if (attend_status s = check_overlaps(*p, *message)) return s;
  return check_arrays(pk, *message);
}

}  // namespace
}  // namespace attend

using namespace attend;

attend_status attend_kv_append(const attend_tensor *k, const attend_tensor *v, const attend_tensor *k_cache,
                               const attend_tensor *v_cache, const attend_kv_append_options *options) {
  KvAppend problem;
  Execution execution;
  Message message;
  if (attend_status s = read(k, v, k_cache, v_cache, options, Purpose::compute, &problem, &execution, &message)) {
    return s;
  }
  if (has_nothing_to_do(problem)) return ATTEND_OK;
  if (problem.k.to.slots != nullptr) {
    const Scratch scratch(execution, kv_append_need(problem), 1);
    if (scratch.result() != Acquired::ok) {
      return no_memory(scratch.result(), kv_append_need(problem), execution, message);
    }
    const int64_t slot =
        given_twice(problem.k.to.slots, problem.k.tokens.count(), reinterpret_cast<int64_t *>(scratch.shared()));
    if (slot >= 0) {
      return fail(message, ATTEND_INVALID_VALUE, Argument::options_slots, "has slot %" PRId64 " twice, for two keys",
                  slot);
    }
  }
  kv_append(*active_kernels(), problem, execution);
  return ATTEND_OK;
}

attend_status attend_kv_append_workspace(const attend_tensor *k, const attend_tensor *v, const attend_tensor *k_cache,
                                         const attend_tensor *v_cache, const attend_kv_append_options *options,
                                         uint64_t *bytes) {
  KvAppend problem;
  Execution execution;
  Message message;
  if (attend_status s = read(k, v, k_cache, v_cache, options, Purpose::size, &problem, &execution, &message)) return s;
  return store_bytes(has_nothing_to_do(problem) ? Need() : kv_append_need(problem), execution.threads, message, bytes);
}
