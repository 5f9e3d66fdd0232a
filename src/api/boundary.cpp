#include "api/boundary.hpp"

#include <cstdlib>

namespace attend {
namespace {

// Fills count, low and high; false if they, or the bytes they stand for, overflow.
bool measure(Tensor *t) {
  t->count = 1;
  t->low = t->high = 0;
  for (size_t i = 0; i < 4; ++i) {
    if (t->shape[i] == 1) continue;
    int64_t reach = 0;
    if (__builtin_mul_overflow(t->count, t->shape[i], &t->count) ||
        __builtin_mul_overflow(t->shape[i] - 1, t->stride[i], &reach)) {
      return false;
    }
    int64_t *end = reach < 0 ? &t->low : &t->high;
    if (__builtin_add_overflow(*end, reach, end)) return false;
  }
  constexpr int64_t kMost = INT64_MAX / 4;
  return t->low > -kMost / t->element && t->high < kMost / t->element;
}

// The sufficient test of attend.h: sorted by |stride|, each stride exceeds the reach of the ones before. The spans were checked
// for overflow already.
bool elements_apart(const Tensor &t) {
  int64_t stride[4], extent[4];
  size_t n = 0;
  for (size_t i = 0; i < 4; ++i) {
    if (t.shape[i] == 1) continue;
    const int64_t size = std::abs(t.stride[i]);
    size_t at = n++;
    for (; at > 0 && stride[at - 1] > size; --at) {
      stride[at] = stride[at - 1];
      extent[at] = extent[at - 1];
    }
    stride[at] = size;
    extent[at] = t.shape[i];
  }
  int64_t reach = 0;
  for (size_t i = 0; i < n; ++i) {
    if (stride[i] <= reach) return false;
    reach += stride[i] * (extent[i] - 1);
  }
  return true;
}

attend_status check_dtype(uint32_t given, Argument argument, uint32_t *dtype) {
  if (given == 0 || given > ATTEND_BOOL || (given == ATTEND_BOOL) != (*dtype == ATTEND_BOOL)) {
    return failure(ATTEND_INVALID_DTYPE, argument);
  }
  if (given == ATTEND_BOOL) return ATTEND_OK;
  if (given != ATTEND_F32 && given != ATTEND_F64) return failure(ATTEND_UNSUPPORTED, argument);
  if (*dtype == kAnyDtype) *dtype = given;
  return given == *dtype ? ATTEND_OK : failure(ATTEND_INVALID_DTYPE, argument);
}

}  // namespace

attend_status read_tensor(const attend_tensor *tensor, Argument argument, Role role, Purpose purpose, uint32_t *dtype,
                          Tensor *result) {
  *result = Tensor();
  if (tensor == nullptr) return failure(ATTEND_NULL_POINTER, argument);
  if (tensor->rank < 1 || tensor->rank > 4) return failure(ATTEND_INVALID_RANK, argument);
  if (attend_status s = check_dtype(tensor->dtype, argument, dtype)) return s;
  result->given = true;
  result->data = tensor->data;
  bool empty = false;
  for (size_t i = 0; i < 4; ++i) {
    result->shape[i] = i < tensor->rank ? tensor->shape[i] : 1;
    empty |= result->shape[i] == 0;
    if (result->shape[i] < 0) return failure(ATTEND_INVALID_SHAPE, argument);
    result->stride[i] = result->shape[i] > 1 ? tensor->stride[i] : 0;
    if (result->stride[i] == INT64_MIN) return failure(ATTEND_OVERFLOW, argument);
  }
  if (empty) return ATTEND_OK;
  result->element = *dtype == ATTEND_BOOL ? 1 : size_of(dtype_of(*dtype));
  if (!measure(result)) return failure(ATTEND_OVERFLOW, argument);
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

attend_status expect_apart(const Tensor &output, Argument argument, const Tensor &other) {
  if (output.count == 0 || other.count == 0) return ATTEND_OK;  // absent or empty
  const auto address = [](const Tensor &t, int64_t offset) {
    return reinterpret_cast<intptr_t>(t.data) + offset * t.element;
  };
  // Their ranges are apart: the usual case, and the quick one.
  if (address(output, output.high + 1) <= address(other, other.low)) return ATTEND_OK;
  if (address(other, other.high + 1) <= address(output, output.low)) return ATTEND_OK;
  // One that fills its range without gaps holds every element of the other that begins or ends there.
  const auto holds = [&](const Tensor &dense, intptr_t at) {
    return dense.count == dense.high - dense.low + 1 && elements_apart(dense) && at > address(dense, dense.low - 1) &&
           at < address(dense, dense.high + 1);
  };
  const bool overlap = output.data == other.data || address(output, output.low) == address(other, other.low) ||
                       address(output, output.high) == address(other, other.high) ||
                       holds(output, address(other, other.low)) || holds(output, address(other, other.high)) ||
                       holds(other, address(output, output.low)) || holds(other, address(output, output.high));
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
                         const void *workspace, uint64_t workspace_size, Purpose purpose, Execution *execution) {
  if ((flags & ~known_flags) != 0) return failure(ATTEND_UNSUPPORTED, Argument::options_flags);
  if (threads < 0) return failure(ATTEND_INVALID_VALUE, Argument::options_threads);
  if (reserved != 0) return failure(ATTEND_INVALID_VALUE, Argument::options_reserved);
  if (purpose == Purpose::compute && workspace == nullptr && workspace_size != 0) {
    return failure(ATTEND_NULL_POINTER, Argument::options_workspace);
  }
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
