// What every block of work rests on: the order of sums, element types, and operands as the kernels see them. Part of
// kernels/table.hpp, and plain data like all of it.
#pragma once

#include <cstdint>

namespace attend {

// The number of the arithmetic contract, which changes with any bit that a caller can see.
constexpr int32_t kContract = 2;

// The constants of the arithmetic contract and the sizes of scratch. They decide bits and workspaces, so they are the
// same on every machine and never derived from cache sizes.
template <class T>
struct Contract {
  // k of a matrix product is cut here: 512 f32 and 256 f64 are the same 2 KiB of a column of B.
  static constexpr int64_t kKc = 2048 / static_cast<int64_t>(sizeof(T));
  // Keys of attention are cut here.
  static constexpr int64_t kKeyChunk = 256;
  // Chunks are folded into spans of so many keys, and these one after the other. (The tests have a table with short
  // ones.)
#ifndef ATTEND_KEY_SPAN
#define ATTEND_KEY_SPAN 16384
#endif
  static constexpr int64_t kKeySpan = ATTEND_KEY_SPAN;
  // Elements of a softmax column are cut here; element i of a chunk belongs to virtual lane i mod 16.
  static constexpr int64_t kSoftmaxChunk = 512;
  // In columns that are not contiguous: one chain over so many elements.
  static constexpr int64_t kStridedChunk = 8;
  // A lane adds so many of its elements, and then these sums.
  static constexpr int64_t kSoftmaxPart = 8 * 16;
  static constexpr int kVirtualLanes = 16;
  // Contiguous columns longer than this, 256 KiB, are read twice and their exponentials computed twice, rather than
  // kept.
  static constexpr int64_t kSoftmaxLong = (1 << 18) / static_cast<int64_t>(sizeof(T));

  // Rows of A that a matmul block packs: 192 x one chunk is 384 KiB, at home in an L2 of 1 MiB (MatmulPlan says where it is
  // more). A multiple of every table's panel.
  static constexpr int64_t kMc = 192;
  // B is packed in panels of columns a chunk and a cache line apart, so that they do not fall into the same sets of
  // the L1, or in panels of rows, kMatmulColumns at a time at most. Elements of either (16 columns is the widest
  // panel).
  static constexpr int64_t kMatmulHeight = (2048 + 64) / static_cast<int64_t>(sizeof(T)), kMatmulColumns = 48;
  static constexpr int64_t kMatmulPanels = kMatmulColumns * kMatmulHeight;
  // Sums that a product with one column keeps in its scratch: 32 KiB.
  static constexpr int64_t kLongColumn = 32768 / static_cast<int64_t>(sizeof(T));
  // Queries of one attention block as a rule, and at most; and how many of them share one buffer of scores at most (128
  // bytes of lanes).
  static constexpr int64_t kQueryBlock = 512 / static_cast<int64_t>(sizeof(T)), kMostQueries = 4 * kQueryBlock;
  static constexpr int64_t kScoreLanes = 128 / static_cast<int64_t>(sizeof(T));
};

// Beyond this, on either side, an lse = m + log l is too large to hold log l well: weights of gradients are found from the
// maximum and the sum then.
constexpr double kLargeLse = 1024;

// Drivers and kernels share some functions, which no object file exports: always inlined, and static.
#define ATTEND_SHARED static inline __attribute__((always_inline))

// Element types, by attend.h's numbers; 0, which is none of them, are the arrays of integers among the options, and
// operands that are absent.
enum class Dtype : uint32_t { i64 = 0, f32, f64, bf16, f16, i8, u8, boolean, i32, f8e4m3 };

ATTEND_SHARED constexpr int64_t size_of(Dtype dtype) {
  constexpr unsigned char kBytes[] = {8, 4, 8, 2, 2, 1, 1, 1, 4, 1};  // in the order of the numbers
  return kBytes[static_cast<uint32_t>(dtype)];
}

template <class T>
ATTEND_SHARED constexpr Dtype dtype_of() {
  static_assert(sizeof(T) == sizeof(float) || sizeof(T) == sizeof(double), "the types of arithmetic");
  return sizeof(T) == sizeof(double) ? Dtype::f64 : Dtype::f32;
}
// Whether elements of an operand that is there must be widened to those of the arithmetic, T.
template <class T>
ATTEND_SHARED constexpr bool is_narrow(Dtype dtype) {
  return dtype != dtype_of<T>() && dtype != Dtype::i64;
}
// Whether a scale can go with the type.
ATTEND_SHARED constexpr bool takes_scale(Dtype dtype) {
  return dtype == Dtype::i8 || dtype == Dtype::u8 || dtype == Dtype::f8e4m3;
}

// The scale that takes magnitudes up to `most` to all that i8 or f8e4m3 holds.
ATTEND_SHARED float scale_to(Dtype type, float most) {
  return most == 0 ? 1 : most / (type == Dtype::i8 ? 127.0f : 448.0f);
}

// A matrix in place: element (r, c) lies at data + r * row_stride + c * col_stride.
template <class T>
struct MatrixRef {
  T *data;
  int64_t row_stride, col_stride;
};

// The same, of elements as they are stored: of the type of the arithmetic or, where that is f32, of a narrower one.
struct StoredMatrix {
  void *data;                      // inputs are only read
  int64_t row_stride, col_stride;  // in elements
  Dtype type;
};
ATTEND_SHARED void *element_of(const StoredMatrix &m, int64_t row, int64_t column) {
  return static_cast<char *>(m.data) + (row * m.row_stride + column * m.col_stride) * size_of(m.type);
}

}  // namespace attend
