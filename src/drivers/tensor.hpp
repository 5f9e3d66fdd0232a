// The operands as the drivers see them: validated, four extents, strides of 0 where an input broadcasts.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>

#include "attend/attend.h"
#include "kernels/table.hpp"

namespace attend {

static_assert(static_cast<int>(Dtype::f32) == ATTEND_F32 && static_cast<int>(Dtype::f64) == ATTEND_F64 &&
                  static_cast<int>(Dtype::bf16) == ATTEND_BF16 && static_cast<int>(Dtype::f16) == ATTEND_F16 &&
                  static_cast<int>(Dtype::i8) == ATTEND_I8 && static_cast<int>(Dtype::u8) == ATTEND_U8 &&
                  static_cast<int>(Dtype::boolean) == ATTEND_BOOL && static_cast<int>(Dtype::i32) == ATTEND_I32 &&
                  static_cast<int>(Dtype::f8e4m3) == ATTEND_F8E4M3,
              "one list of numbers");

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
  // Whether its elements are of another type than the arithmetic.
  bool is_narrow() const { return given && dtype != acc_of(dtype); }
  int64_t rows() const { return shape[0]; }
  int64_t columns() const { return shape[1]; }
  int64_t heads() const { return shape[2]; }
  int64_t batch() const { return shape[3]; }

  template <class T>
  T *at(int64_t row, int64_t column, int64_t head, int64_t in_batch) const {
    if (data == nullptr) return nullptr;
    return static_cast<T *>(data) + row * stride[0] + column * stride[1] + head * stride[2] + in_batch * stride[3];
  }
  // One matrix from its element (row, column) on.
  StoredMatrix matrix(int64_t row, int64_t column, int64_t head, int64_t in_batch) const {
    if (!given) return {nullptr, 0, 0, Dtype::i64};
    if (data == nullptr) return {nullptr, stride[0], stride[1], dtype};
    const StoredMatrix first = {data, stride[0], stride[1], dtype};
    const int64_t before = (head * stride[2] + in_batch * stride[3]) * size_of(dtype);
    return {static_cast<char *>(element_of(first, row, column)) + before, stride[0], stride[1], dtype};
  }
};

// Whether vectors `bytes` apart begin in the same sets of a cache whose sets repeat every `period` bytes.
inline bool shares_sets(int64_t bytes, int64_t period) {
  constexpr int64_t kNear = 256;
  const int64_t apart = std::abs(bytes % period);
  return std::min(apart, period - apart) < kNear;
}
// Whether columns that are read side by side, 12 or 16 of a tile, begin in the same sets of the L1, which repeat every
// 4 KiB.
inline bool columns_share_sets(int64_t bytes) {
  constexpr int64_t kHalf = 2048;
  return std::abs(bytes) > kHalf / 2 && shares_sets(bytes, kHalf);
}

constexpr int64_t round_up(int64_t n, int64_t to = 16) { return (n + to - 1) / to * to; }
// Elements between two columns that are copied: a line more than whole lines, so that they begin in different sets.
constexpr int64_t stride_of_copies(int64_t rows) { return round_up(rows) + 16; }

}  // namespace attend
