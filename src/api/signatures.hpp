// Which element types the operands of a call may have together: for each function a table, in it a row for each
// combination. To take a type is to add rows; no other check of the interface names types.
#pragma once

#include <cstddef>

#include "attend/attend.h"

namespace attend {

// What an operand is to its call, and so its column of the table.
enum class Kind {
  left,   // a, q, x, out_b
  right,  // b, k, v, weights and their biases
  added,  // bias, alibi_slopes, sinks
  out,    // c, y, out
  acc,    // lse, scores: of the type of the arithmetic
  mask,
};
constexpr size_t kKinds = 6, kTypes = ATTEND_F8E4M3 + 1;

// Sets of types; those of operands that the function lacks are empty.
using Types = uint32_t;
constexpr Types kF32 = 1u << ATTEND_F32, kF64 = 1u << ATTEND_F64, kBool = 1u << ATTEND_BOOL;

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
constexpr Signatures kMatmulTypes({{kF32, kF32, kF32, kF32}, {kF64, kF64, kF64, kF64}});
constexpr Signatures kSoftmaxTypes({{kF32, 0, kF32, kF32, kF32, kBool}, {kF64, 0, kF64, kF64, kF64, kBool}});
constexpr Signatures kAttentionTypes({{kF32, kF32, kF32, kF32, kF32, kBool}, {kF64, kF64, kF64, kF64, kF64, kBool}});
constexpr Signatures kMergeTypes({{kF32, 0, 0, kF32, kF32}, {kF64, 0, 0, kF64, kF64}});
constexpr Signatures kSelfAttentionTypes({{kF32, kF32, kF32, kF32, kF32, kBool},
                                          {kF64, kF64, kF64, kF64, kF64, kBool}});

constexpr const Signatures *kAllTypes[] = {&kMatmulTypes, &kSoftmaxTypes, &kAttentionTypes, &kMergeTypes,
                                           &kSelfAttentionTypes};

// By any function, as whatever operand.
inline bool is_taken(uint32_t dtype) {
  Rows rows = 0;
  for (const Signatures *s : kAllTypes) {
    for (size_t kind = 0; kind < kKinds; ++kind) rows |= s->with(static_cast<Kind>(kind), dtype);
  }
  return rows != 0;
}

}  // namespace attend
