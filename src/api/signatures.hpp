// Which element types the operands of a call may have together: for each function a table, in it a row for each
// combination. To take a type is to add rows; no other check of the interface names types.
#pragma once

#include <cstddef>

#include "attend/attend.h"

namespace attend {

// What an operand is to its call, and so its column of the table.
enum class Kind {
  left,   // a, q, x, out_b; k of an append; y of a gradient
  right,  // b, k, v, weights and their biases; cos, sin; d_y
  added,  // bias, alibi_slopes, sinks
  out,    // c, y, out, caches, d_x
  acc,    // lse, scores, scales, d_lse: of the type of the arithmetic
  mask,
  zero,  // zero points
  pages,
};
constexpr size_t kKinds = 8, kTypes = ATTEND_F8E4M3 + 1;

// Sets of types; those of operands that the function lacks are empty.
using Types = uint32_t;
constexpr Types kF32 = 1u << ATTEND_F32, kF64 = 1u << ATTEND_F64, kBool = 1u << ATTEND_BOOL;
constexpr Types kI8 = 1u << ATTEND_I8, kU8 = 1u << ATTEND_U8, kI32 = 1u << ATTEND_I32, kF8 = 1u << ATTEND_F8E4M3;
constexpr Types kBf16 = 1u << ATTEND_BF16, kF16 = 1u << ATTEND_F16, kF = kF32 | kBf16 | kF16;

// A set of rows, bit by bit.
using Rows = uint32_t;

class Signatures {
 public:
  template <size_t kRows>
  constexpr explicit Signatures(const Types (&table)[kRows][kKinds]) : with_() {
    static_assert(kRows <= 32, "a bit each");
    for (size_t i = 0; i < kRows * kKinds * kTypes; ++i) {
      const size_t row = i / kTypes / kKinds, kind = i / kTypes % kKinds, type = i % kTypes;
      with_[kind][type] |= (table[row][kind] >> type & 1u) << row;
    }
  }
  // Those in which such an operand has this type.
  constexpr Rows with(Kind kind, uint32_t dtype) const {
    return dtype < kTypes ? with_[static_cast<size_t>(kind)][dtype] : 0;
  }

 private:
  Rows with_[kKinds][kTypes];
};

// Columns as in Kind.
constexpr Signatures kMatmulTypes({{kF, kF, kF, kF},
                                   {kF64, kF64, kF64, kF64},
                                   {kI8 | kU8, kI8 | kU8, kI32, kI32, 0, 0, kI32},
                                   {kI8 | kU8, kI8 | kU8, kF, kF, kF32, 0, kI32},
                                   {kI8, kF, kF, kF, kF32},
                                   {kF, kI8, kF, kF, kF32}});
constexpr Signatures kSoftmaxTypes({{kF32, 0, kF, kF32, kF32, kBool},
                                    {kBf16, 0, kF, kF32 | kBf16, kF32, kBool},
                                    {kF16, 0, kF, kF32 | kF16, kF32, kBool},
                                    {kF64, 0, kF64, kF64, kF64, kBool}});
constexpr Signatures kSoftmaxBackwardTypes({{kF, kF, 0, kF, kF32}, {kF64, kF64, 0, kF64, kF64}});
constexpr Signatures kAttentionTypes({{kF, kF | kI8 | kF8, kF, kF, kF32, kBool, 0, kI32},
                                      {kF64, kF64, kF64, kF64, kF64, kBool, 0, kI32}});
constexpr Signatures kAttentionBackwardTypes({{kF, kF, kF, kF, kF32, kBool}, {kF64, kF64, kF64, kF64, kF64, kBool}});
constexpr Signatures kMergeTypes({{kF, 0, 0, kF, kF32}, {kF64, 0, 0, kF64, kF64}});
constexpr Signatures kSelfAttentionTypes({{kF, kF, kF, kF, kF32, kBool}, {kF64, kF64, kF64, kF64, kF64, kBool}});

constexpr Types kNumber = kF | kF64 | kI8 | kU8 | kI32 | kF8;
constexpr Signatures kConvertTypes({{kNumber, 0, 0, kNumber, kF32}});

constexpr Signatures kRotaryTypes({{kF, kF, 0, kF}, {kF64, kF64, 0, kF64}});
constexpr Signatures kAppendTypes({{kF, kF, 0, kF | kI8 | kF8, kF32, 0, 0, kI32},
                                   {kF64, kF64, 0, kF64, 0, 0, 0, kI32}});

}  // namespace attend
