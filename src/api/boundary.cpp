#include "api/boundary.hpp"

#include <algorithm>

namespace attend {
namespace {

// Offsets in elements of the lowest and the highest element from data; false if they or their bytes overflow.
bool span_of(const Tensor &t, int64_t element, int64_t *low, int64_t *high) {
  *low = *high = 0;
  for (size_t i = 0; i < 4; ++i) {
    if (t.shape[i] <= 1) continue;
    int64_t reach = 0;
    if (__builtin_mul_overflow(t.shape[i] - 1, t.stride[i], &reach)) return false;
    int64_t *end = reach < 0 ? low : high;
    if (__builtin_add_overflow(*end, reach, end)) return false;
  }
  int64_t elements = 0, bytes = 0;
  return !__builtin_sub_overflow(*high, *low, &elements) && !__builtin_add_overflow(elements, int64_t{1}, &elements) &&
         !__builtin_mul_overflow(elements, element, &bytes) && !__builtin_mul_overflow(*low, element, &bytes) &&
         !__builtin_mul_overflow(*high, element, &bytes);
}

// The number of elements; false on overflow. 0 if any extent is.
bool count_of(const Tensor &t, int64_t *count) {
  *count = 1;
  if (is_empty(t)) return *count = 0, true;
  for (const int64_t extent : t.shape) {
    if (__builtin_mul_overflow(*count, extent, count)) return false;
  }
  return true;
}

// The sufficient test of attend.h: sorted by |stride|, each stride exceeds the reach of the ones before. The spans were checked
// for overflow already.
bool elements_apart(const Tensor &t) {
  size_t order[4] = {0, 1, 2, 3};
  std::sort(order, order + 4, [&](size_t a, size_t b) { return std::abs(t.stride[a]) < std::abs(t.stride[b]); });
  int64_t reach = 0;
  for (const size_t i : order) {
    if (t.shape[i] <= 1) continue;
    const int64_t stride = std::abs(t.stride[i]);
    if (stride <= reach) return false;
    reach += stride * (t.shape[i] - 1);
  }
  return true;
}

attend_status check_dtype(uint32_t given, Argument argument, uint32_t *dtype) {
  if (given == 0 || given > ATTEND_BOOL || given == ATTEND_BOOL) return failure(ATTEND_INVALID_DTYPE, argument);
  if (given != ATTEND_F32 && given != ATTEND_F64) return failure(ATTEND_UNSUPPORTED, argument);
  if (*dtype == kAnyDtype) *dtype = given;
  return given == *dtype ? ATTEND_OK : failure(ATTEND_INVALID_DTYPE, argument);
}

}  // namespace

bool is_empty(const Tensor &tensor) {
  return std::any_of(tensor.shape.begin(), tensor.shape.end(), [](int64_t extent) { return extent == 0; });
}

attend_status read_tensor(const attend_tensor *tensor, Argument argument, Role role, Purpose purpose, uint32_t *dtype,
                          Tensor *result) {
  *result = Tensor();
  if (tensor == nullptr) return failure(ATTEND_NULL_POINTER, argument);
  if (tensor->rank < 1 || tensor->rank > 4) return failure(ATTEND_INVALID_RANK, argument);
  if (attend_status s = check_dtype(tensor->dtype, argument, dtype)) return s;
  result->given = true;
  result->data = tensor->data;
  for (size_t i = 0; i < 4; ++i) {
    result->shape[i] = i < tensor->rank ? tensor->shape[i] : 1;
    if (result->shape[i] < 0) return failure(ATTEND_INVALID_SHAPE, argument);
    result->stride[i] = result->shape[i] > 1 ? tensor->stride[i] : 0;
    if (result->stride[i] == INT64_MIN) return failure(ATTEND_OVERFLOW, argument);
  }
  if (is_empty(*result)) return ATTEND_OK;
  int64_t low = 0, high = 0, count = 0;
  if (!span_of(*result, size_of(dtype_of(*dtype)), &low, &high) || !count_of(*result, &count)) {
    return failure(ATTEND_OVERFLOW, argument);
  }
  if (role == Role::output && !elements_apart(*result)) return failure(ATTEND_INVALID_STRIDE, argument);
  if (purpose == Purpose::compute && tensor->data == nullptr) return failure(ATTEND_NULL_POINTER, argument);
  return ATTEND_OK;
}

attend_status read_optional(const attend_tensor *tensor, Argument argument, Role role, Purpose purpose, uint32_t *dtype,
                            Tensor *result) {
  *result = Tensor();
  return tensor == nullptr ? ATTEND_OK : read_tensor(tensor, argument, role, purpose, dtype, result);
}

attend_status expect_shape(const Tensor &tensor, Argument argument, const std::array<int64_t, 4> &shape,
                           unsigned broadcasts) {
  for (size_t i = 0; i < 4; ++i) {
    const bool fits = tensor.shape[i] == shape[i] || (tensor.shape[i] == 1 && (broadcasts >> i & 1u) != 0);
    if (!fits) return failure(ATTEND_INVALID_SHAPE, argument);
  }
  return ATTEND_OK;
}

bool same_view(const Tensor &a, const Tensor &b) {
  return a.data == b.data && a.shape == b.shape && a.stride == b.stride;
}

attend_status expect_apart(const Tensor &output, Argument argument, const Tensor &other, Dtype dtype) {
  if (!output || !other || is_empty(output) || is_empty(other)) return ATTEND_OK;
  struct Range {
    intptr_t first, low, high;  // addresses of element 0, of the lowest and of the highest element
    bool dense;                 // every byte between them belongs to the tensor
  };
  const int64_t element = size_of(dtype);
  const auto range_of = [element](const Tensor &t) {
    Range r = {};
    int64_t low = 0, high = 0, count = 0;
    span_of(t, element, &low, &high);
    count_of(t, &count);
    r.first = reinterpret_cast<intptr_t>(t.data);
    r.low = r.first + low * element;
    r.high = r.first + high * element;
    r.dense = count == high - low + 1 && elements_apart(t);
    return r;
  };
  const Range p = range_of(output), o = range_of(other);
  const auto holds = [element](const Range &dense, intptr_t address) {
    return dense.dense && address > dense.low - element && address < dense.high + element;
  };
  const bool overlap = p.first == o.first || p.low == o.low || p.high == o.high || holds(p, o.low) ||
                       holds(p, o.high) || holds(o, p.low) || holds(o, p.high);
  return overlap ? failure(ATTEND_OVERLAP, argument) : ATTEND_OK;
}

attend_status check_size(const void *given, uint32_t size, size_t known, size_t first_version, Argument argument) {
  if (size < first_version) return failure(ATTEND_INVALID_STRUCT_SIZE, argument);
  const unsigned char *bytes = static_cast<const unsigned char *>(given);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] != 0) return failure(ATTEND_INVALID_STRUCT_SIZE, argument);
  }
  return ATTEND_OK;
}

attend_status check_head(uint32_t flags, uint32_t known_flags, int32_t threads, uint32_t reserved,
                         const void *workspace, uint64_t workspace_size, Execution *execution) {
  if ((flags & ~known_flags) != 0) return failure(ATTEND_UNSUPPORTED, Argument::options_flags);
  if (threads < 0) return failure(ATTEND_INVALID_VALUE, Argument::options_threads);
  if (reserved != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_reserved);
  if (workspace == nullptr && workspace_size != 0) return failure(ATTEND_NULL_POINTER, Argument::options_workspace);
  execution->threads = threads;
  execution->workspace = const_cast<void *>(workspace);
  execution->workspace_size = workspace_size;
  return ATTEND_OK;
}

attend_status status_of(Acquired result) {
  switch (result) {
    case Acquired::ok:
      return ATTEND_OK;
    case Acquired::workspace_too_small:
      return failure(ATTEND_WORKSPACE_TOO_SMALL, Argument::options_workspace_size);
    case Acquired::out_of_memory:
      break;
  }
  return ATTEND_OUT_OF_MEMORY;
}

attend_status store_bytes(const Need &need, int threads, uint64_t *bytes) {
  *bytes = static_cast<uint64_t>(need.workspace(threads));
  return ATTEND_OK;
}

}  // namespace attend
