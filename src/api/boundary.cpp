#include "api/boundary.hpp"

#include <atomic>
#include <cinttypes>
#include <cstddef>
#include <cstdlib>
#include <utility>

#include "api/overlap.hpp"

namespace attend {
namespace {

// The sufficient test of attend.h: sorted by |stride|, each stride exceeds the reach of the ones before. The spans
// were checked for overflow already.
attend_status expect_elements_apart(const Tensor &t, Argument argument, const Message &message) {
  // In order already: nearly always.
  int64_t reach = 0;
  bool in_order = true;
  for (size_t i = 0; i < 4 && in_order; ++i) {
    if (t.shape[i] == 1) continue;
    in_order = t.stride[i] > reach;
    reach += t.stride[i] * (t.shape[i] - 1);
  }
  if (in_order) return ATTEND_OK;

  size_t order[4], n = 0;
  const auto stride = [&t, &order](size_t i) { return std::abs(t.stride[order[i]]); };
  for (size_t i = 0; i < 4; ++i) {
    if (t.shape[i] == 1) continue;
    order[n++] = i;
    for (size_t at = n - 1; at > 0 && stride(at - 1) > stride(at); --at) std::swap(order[at - 1], order[at]);
  }
  reach = 0;
  for (size_t i = 0; i < n; ++i) {
    if (stride(i) <= reach) return too_close(message, argument, t, order[i], reach + 1);
    reach += stride(i) * (t.shape[order[i]] - 1);
  }
  return ATTEND_OK;
}

// Fills count, low and high with every step checked.
attend_status measure(Tensor *t, Argument argument, const Message &message) {
  int64_t count = 1, low = 0, high = 0;
  bool empty = false, overflows = false;
  for (size_t i = 0; i < 4; ++i) {
    if (t->shape[i] < 0) return negative_extent(message, argument, i, t->shape[i]);
    if (t->stride[i] == INT64_MIN) return too_wide(message, argument, *t);
    int64_t reach = 0;
    empty |= t->shape[i] == 0;
    overflows |= __builtin_mul_overflow(count, t->shape[i], &count);
    overflows |= __builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach);
    overflows |= __builtin_add_overflow(low, reach < 0 ? reach : 0, &low);
    overflows |= __builtin_add_overflow(high, reach < 0 ? 0 : reach, &high);
  }
  if (empty) return ATTEND_OK;
  constexpr int64_t kMost = INT64_MAX / 4 / 8;  // elements of any type
  if (overflows || low < -kMost || high > kMost) return too_wide(message, argument, *t);
  t->count = count;
  t->low = low;
  t->high = high;
  return ATTEND_OK;
}

// The same where all extents and strides have at most 28 bits: offsets cannot overflow, and the extents not in pairs.
// Nearly every call comes here, and a small one spends a good part of its time here.
attend_status measure_small(Tensor *t, Argument argument, size_t dimensions, const Message &message) {
  const std::array<int64_t, 4> &n = t->shape;
  if (__builtin_mul_overflow(n[0] * n[1], n[2] * n[3], &t->count)) return too_wide(message, argument, *t);
  if (t->count == 0) return ATTEND_OK;
  int64_t low = 0, high = 0;
  for (size_t i = 0; i < dimensions; ++i) {
    const int64_t reach = (n[i] - 1) * t->stride[i];
    low += reach < 0 ? reach : 0;
    high += reach < 0 ? 0 : reach;
  }
  t->low = low;
  t->high = high;
  return ATTEND_OK;
}

}  // namespace

attend_status Operands::read(const attend_tensor *tensor, Argument argument, Role role, Kind kind, Tensor *result) {
  if (tensor == nullptr) return fail(message_, ATTEND_NULL_POINTER, argument, "is null, but required");
  if (tensor->rank < 1 || tensor->rank > 4) {
    return fail(message_, ATTEND_INVALID_RANK, argument, "has rank %" PRIu32 ", not 1, 2, 3 or 4", tensor->rank);
  }
  const Rows before = rows_;
  rows_ &= types_.with(kind, tensor->dtype);
  if (rows_ == 0) return wrong_type(message_, argument, types_, before, kind, tensor->dtype);
  const size_t dimensions = tensor->rank;
  uint64_t seen = 0;
  for (size_t i = 0; i < dimensions; ++i) {
    const int64_t extent = tensor->shape[i], stride = extent > 1 ? tensor->stride[i] : 0;
    result->shape[i] = extent;
    result->stride[i] = stride;
    seen |= static_cast<uint64_t>(extent) | static_cast<uint64_t>(stride < 0 ? ~stride : stride);
  }
  for (size_t i = dimensions; i < 4; ++i) {
    result->shape[i] = 1;
    result->stride[i] = 0;
  }
  result->given = true;
  result->data = tensor->data;
  result->dtype = static_cast<Dtype>(tensor->dtype);
  if (attend_status s = (seen >> 28) == 0 ? measure_small(result, argument, dimensions, message_)
                                          : measure(result, argument, message_)) {
    return s;
  }
  if (result->count == 0) return ATTEND_OK;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor->data);
  const int64_t element = size_of(result->dtype);
  result->begin = static_cast<intptr_t>(data + static_cast<uintptr_t>(result->low * element));
  result->end = static_cast<intptr_t>(data + static_cast<uintptr_t>((result->high + 1) * element));
  if (role == Role::output) {
    if (attend_status s = expect_elements_apart(*result, argument, message_)) return s;
  }
  if (purpose_ == Purpose::compute && tensor->data == nullptr) {
    return fail(message_, ATTEND_NULL_POINTER, argument, "has %" PRId64 " elements, but null data", result->count);
  }
  return ATTEND_OK;
}

attend_status expect_shape(const Tensor &tensor, Argument argument, const std::array<int64_t, 4> &shape,
                           const Axes &axes, const Message &message, unsigned broadcasts) {
  for (size_t i = 0; i < 4; ++i) {
    const bool or_one = (broadcasts >> i & 1u) != 0,
               fits = tensor.shape[i] == shape[i] || (tensor.shape[i] == 1 && or_one);
    if (!fits) return wrong_extent(message, argument, axes.axis[i], tensor.shape[i], shape[i], or_one);
  }
  return ATTEND_OK;
}

bool same_view(const Tensor &a, const Tensor &b) {
  return a.data == b.data && a.shape == b.shape && a.stride == b.stride;
}

attend_status expect_apart_slow(const Tensor &output, Argument argument, const Tensor &other, Argument other_argument,
                                const Message &message) {
  const bool overlaps = output.data == other.data || output.begin == other.begin ||
                        output.end - size_of(output.dtype) == other.end - size_of(other.dtype) ||
                        share_a_byte(output, other);
  return overlaps ? overlap(message, argument, other_argument) : ATTEND_OK;
}

Tensor integers(const int64_t *first, int64_t count) {
  Tensor t;
  t.data = const_cast<int64_t *>(first);
  t.count = first == nullptr ? 0 : count;
  t.given = first != nullptr;
  t.shape = {count, 1, 1, 1};
  t.stride = {count > 1, 0, 0, 0};
  t.low = 0;
  t.high = count - 1;
  t.dtype = Dtype::i64;
  t.begin = reinterpret_cast<intptr_t>(first);
  t.end = t.begin + t.count * size_of(t.dtype);
  return t;
}

bool are_countable(int64_t bytes, std::initializer_list<int64_t> extents) {
  for (const int64_t extent : extents) {
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(1, extent), &bytes)) return false;
  }
  return bytes < INT64_MAX / 4;
}

attend_status check_size(const void *given, uint32_t size, size_t known, size_t first_version, Argument argument,
                         const Message &message) {
  if (size < first_version) {
    return fail(message, ATTEND_INVALID_STRUCT_SIZE, argument, "is %" PRIu32 " bytes, not %zu or more", size,
                first_version);
  }
  const unsigned char *bytes = static_cast<const unsigned char *>(given);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] != 0) {
      return fail(message, ATTEND_INVALID_STRUCT_SIZE, argument,
                  "is %" PRIu32 " bytes, of which this version knows %zu, and byte %zu is not 0", size, known, i);
    }
  }
  return ATTEND_OK;
}

attend_status no_memory(Acquired result, const Need &need, const Execution &execution, const Message &message) {
  if (result == Acquired::workspace_too_small) {
    return fail(message, ATTEND_WORKSPACE_TOO_SMALL, Argument::options_workspace_size,
                "is %" PRIu64 " bytes, but one thread needs %" PRId64, execution.workspace_size, need.bytes(1));
  }
  return fail(message, ATTEND_OUT_OF_MEMORY, Argument::none,
              "could not allocate %" PRId64 " bytes: free some, or pass a workspace", need.bytes(1));
}

attend_status store_bytes(const Need &need, int threads, const Message &message, uint64_t *bytes) {
  if (bytes == nullptr) return fail(message, ATTEND_NULL_POINTER, Argument::bytes, "is null, but required");
  *bytes = static_cast<uint64_t>(need.workspace(threads));
  return ATTEND_OK;
}

namespace {
std::atomic<const attend_executor *> g_executor{nullptr};
}  // namespace

attend_status read_executor(const attend_executor &given, Argument argument, const Message &message,
                            Executor *executor) {
  constexpr size_t kFirstVersion = offsetof(attend_executor, context) + sizeof(void *);
  if (attend_status s = check_size(&given, given.size, sizeof given, kFirstVersion, argument, message)) return s;
  if (given.workers < 0) {
    return fail(message, ATTEND_INVALID_VALUE, argument, "has %" PRId32 " workers, not 0 or more", given.workers);
  }
  if (given.run == nullptr) return fail(message, ATTEND_NULL_POINTER, argument, "has null for its run");
  *executor = {given.workers, given.run, given.context};
  return ATTEND_OK;
}

Executor library_executor() {
  const attend_executor *executor = g_executor.load(std::memory_order_acquire);
  return executor == nullptr ? Executor() : Executor{executor->workers, executor->run, executor->context};
}

void set_library_executor(const attend_executor *executor) { g_executor.store(executor, std::memory_order_release); }

}  // namespace attend
