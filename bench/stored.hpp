// Operands of any element type, for benchmarks of more than one.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_STORED_HPP
#define ATTEND_BENCH_STORED_HPP

#include <attend/attend.h>

#include <cstdint>
#include <random>
#include <vector>

#include "problems.hpp"

namespace attend::bench {

struct Type {
  const char *name;
  uint32_t dtype;
};
inline constexpr Type kF32 = {"f32", ATTEND_F32}, kBf16 = {"bf16", ATTEND_BF16}, kF16 = {"f16", ATTEND_F16},
                      kI8 = {"i8", ATTEND_I8}, kF8 = {"f8e4m3", ATTEND_F8E4M3};

inline int64_t bytes_of(uint32_t dtype) {
  return dtype == ATTEND_F32 ? 4 : dtype == ATTEND_BF16 || dtype == ATTEND_F16 ? 2 : 1;
}

// Normal numbers in a type; of i8 127 is 4.
struct Stored {
  Operand<float> numbers;
  std::vector<unsigned char> memory;
  attend_tensor view;

  Stored(const Type &type, int64_t rows, int64_t columns, int64_t heads = 1, Layout layout = Layout::contiguous_columns)
      : numbers(rows, columns, heads, layout),
        memory(static_cast<size_t>(rows * columns * heads) * sizeof(float)),
        view(numbers.tensor()) {
    std::mt19937 random(1);
    numbers.fill_with_normals(random);
    view.data = memory.data();
    view.dtype = type.dtype;
    attend_convert_options options = ATTEND_CONVERT_OPTIONS_INIT;
    if (type.dtype == ATTEND_I8) options.scale = scale();
    if (attend_convert(&numbers.tensor(), &view, &options) != ATTEND_OK) view.data = nullptr;  // the call then fails
  }
  static const attend_tensor *scale() {
    static float number = 4.0f / 127;
    static const attend_tensor one = {&number, ATTEND_F32, 1, {1, 0, 0, 0}, {1, 0, 0, 0}};
    return &one;
  }
};

}  // namespace attend::bench

#endif  // ATTEND_BENCH_STORED_HPP
