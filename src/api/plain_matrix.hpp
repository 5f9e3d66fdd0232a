// Matrices that are certainly fine, for calls so small that the general checks would cost more than the work. Whatever
// is not plain goes the general way, which finds out whether something is wrong with it and what.
#pragma once

#include <cstddef>
#include <cstring>
#include <utility>

#include "attend/attend.h"
#include "drivers/matmul.hpp"

namespace attend {

// There, not empty, extents and strides of 28 bits and not negative.
struct PlainMatrix {
  void *data;
  int64_t rows, columns, row, column;  // extents; strides, 0 where the extent is 1
  intptr_t begin, end;
};

// (g++ inlines a template more readily that says `inline`: 10 instructions each.)
template <class T>
inline bool is_plain(const attend_tensor *t, PlainMatrix *m) {
  if (t == nullptr || t->rank - 1 > 3 || static_cast<Dtype>(t->dtype) != dtype_of<T>() || t->data == nullptr) {
    return false;
  }
  for (uint32_t i = 2; i < t->rank; ++i) {
    if (t->shape[i] != 1) return false;
  }
  m->data = t->data;
  m->rows = t->shape[0];
  m->columns = t->rank >= 2 ? t->shape[1] : 1;
  m->row = m->rows == 1 ? 0 : t->stride[0];
  m->column = m->columns == 1 ? 0 : t->stride[1];
  // An extent of 0 becomes all bits. (Unsigned: extents may be anything yet.)
  const uint64_t seen = (static_cast<uint64_t>(m->rows) - 1) | (static_cast<uint64_t>(m->columns) - 1) |
                        static_cast<uint64_t>(m->row) | static_cast<uint64_t>(m->column);
  if (seen >> 28 != 0) return false;
  const int64_t last = (m->rows - 1) * m->row + (m->columns - 1) * m->column;
  m->begin = reinterpret_cast<intptr_t>(t->data);
  m->end = m->begin + (last + 1) * static_cast<int64_t>(sizeof(T));
  return true;
}

// Whether no two elements of an output share memory.
inline bool is_distinct(const PlainMatrix &m) {
  if (m.rows * m.columns == 1) return true;
  const bool apart = m.column > (m.rows - 1) * m.row || m.row > (m.columns - 1) * m.column;
  return apart && (m.rows == 1 || m.row != 0) && (m.columns == 1 || m.column != 0);
}

inline bool is_apart(const PlainMatrix &a, const PlainMatrix &b) { return a.end <= b.begin || b.end <= a.begin; }

// The bits of all words of a struct from byte `kBegin` on but for the one at `kExcept`.
template <size_t kBegin, size_t kExcept, class Struct, size_t... kWord>
uint64_t bits_of(const Struct &s, std::index_sequence<kWord...>) {
  const auto word = [&s](size_t at) {
    uint64_t bits = 0;
    if (at != kExcept) std::memcpy(&bits, reinterpret_cast<const char *>(&s) + at, sizeof bits);
    return bits;
  };
  return (word(kBegin + kWord * sizeof(uint64_t)) | ...);
}

// Whether an options struct, or null, is of today's version and asks for nothing but threads, a workspace, a message and
// the number that lies at `kScale`, if that is not 0. All other bytes must be 0, so that no field can be forgotten here.
template <size_t kScale = 0, class Options>
bool is_plain_options(const Options *o) {
  if (o == nullptr) return true;
  if (o->size != sizeof *o || (o->flags | o->reserved) != 0 || o->threads < 0) return false;
  if (o->workspace == nullptr && o->workspace_size != 0) return false;
  if (o->message == nullptr && o->message_size != 0) return false;
  constexpr size_t kBytes = sizeof(uint64_t), kHead = offsetof(Options, message_size) + kBytes;
  static_assert(sizeof(Options) % kBytes == 0 && kHead % kBytes == 0 && kScale % kBytes == 0, "whole words");
  return bits_of<kHead, kScale>(*o, std::make_index_sequence<(sizeof(Options) - kHead) / kBytes>()) == 0;
}
template <class Options>
Execution execution_of(const Options *o) {
  return o == nullptr ? Execution() : Execution{o->threads, o->workspace, o->workspace_size};
}

template <class T>
MatrixView<T> view_of(const PlainMatrix &m) {
  return {{static_cast<T *>(m.data), m.row, m.column}, m.rows, m.columns};
}

}  // namespace attend
