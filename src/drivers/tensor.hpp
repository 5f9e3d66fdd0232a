// The operands as the drivers see them: validated, four extents, strides of 0 where an input broadcasts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

namespace attend {

enum class Dtype { f32, f64 };

constexpr int64_t size_of(Dtype dtype) { return dtype == Dtype::f32 ? 4 : 8; }

// What is not given has only its first three members set: zeroing the rest of every operand that might be there is a
// fifth of the overhead of a small call.
struct Tensor {
  void *data = nullptr;  // null if the tensor is empty, or only its size is asked for
  int64_t count = 0;     // elements; 0 = empty
  bool given = false;    // optional operands may be absent
  std::array<int64_t, 4> shape;
  std::array<int64_t, 4> stride;  // 0 where the extent is 1
  // The rest only of tensors that are not empty.
  int64_t low, high;    // offsets from data, in elements, of the lowest and the highest element
  int64_t element;      // bytes of one
  intptr_t begin, end;  // addresses of the first byte and behind the last one

  explicit operator bool() const { return given; }
  int64_t rows() const { return shape[0]; }
  int64_t columns() const { return shape[1]; }
  int64_t heads() const { return shape[2]; }
  int64_t batch() const { return shape[3]; }

  template <class T>
  T *at(int64_t row, int64_t column, int64_t head, int64_t in_batch) const {
    if (data == nullptr) return nullptr;
    return static_cast<T *>(data) + row * stride[0] + column * stride[1] + head * stride[2] + in_batch * stride[3];
  }
};

// Whether vectors `bytes` apart begin in the same sets of a cache whose sets repeat every `period` bytes.
inline bool shares_sets(int64_t bytes, int64_t period) {
  constexpr int64_t kNear = 256;
  const int64_t apart = std::abs(bytes % period);
  return std::min(apart, period - apart) < kNear;
}

}  // namespace attend
