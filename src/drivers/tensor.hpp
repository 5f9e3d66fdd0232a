// The operands as the drivers see them: validated, four extents, strides of 0 where an input broadcasts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <type_traits>

#include "attend/attend.h"

namespace attend {

// By attend.h's numbers; 0, which is none of them, are the arrays of integers among the options.
enum class Dtype : uint32_t {
  i64 = 0,
  f32 = ATTEND_F32,
  f64 = ATTEND_F64,
  bf16 = ATTEND_BF16,
  f16 = ATTEND_F16,
  i8 = ATTEND_I8,
  u8 = ATTEND_U8,
  boolean = ATTEND_BOOL,
  i32 = ATTEND_I32,
  f8e4m3 = ATTEND_F8E4M3,
};

// In the order of the numbers.
constexpr unsigned char kElementBytes[] = {8, 4, 8, 2, 2, 1, 1, 1, 4, 1};
constexpr int64_t size_of(Dtype dtype) { return kElementBytes[static_cast<size_t>(dtype)]; }

template <class T>
constexpr Dtype dtype_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "no other so far");
  return std::is_same_v<T, double> ? Dtype::f64 : Dtype::f32;
}

// What arithmetic on elements of a type is done in.
constexpr Dtype acc_of(Dtype dtype) { return dtype == Dtype::f64 ? Dtype::f64 : Dtype::f32; }

// What is not given has only its first three members set: zeroing the rest of every operand that might be there is a
// fifth of the overhead of a small call.
struct Tensor {
  void *data = nullptr;  // null if the tensor is empty, or only its size is asked for
  int64_t count = 0;     // elements; 0 = empty
  bool given = false;    // optional operands may be absent
  Dtype dtype;
  std::array<int64_t, 4> shape;
  std::array<int64_t, 4> stride;  // 0 where the extent is 1
  // The rest only of tensors that are not empty.
  int64_t low, high;    // offsets from data, in elements, of the lowest and the highest element
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
