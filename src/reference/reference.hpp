// The oracle and the benchmark's baseline: what attend computes, twice more in plain scalar C++.
//
//   naive     the formulas as they stand, one loop per index, slow and checked by eye. Tests compare with it, usually
//             in double or long double, so that its own rounding is far below the error they look for.
//   blocked   the same signatures as a good programmer writes them without SIMD intrinsics: blocks that stay in cache,
//             a register tile, online softmax. It is the row that says what the vector kernels are worth.
//
// Both follow include/attend/attend.h word by word. Neither is linked into the shared library, neither checks its
// arguments, and both may allocate: the caller is a test or a benchmark.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_REFERENCE_REFERENCE_HPP
#define ATTEND_REFERENCE_REFERENCE_HPP

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace attend::reference {

// A strided view of four dimensions: rows, columns, heads, batch. The same memory model as attend_tensor.
template <class T>
struct View {
  T *data;
  std::array<int64_t, 4> shape, stride;

  // An extent of 1 broadcasts: its index counts as 0, whatever the caller loops over.
  T &at(int64_t i, int64_t j, int64_t h = 0, int64_t b = 0) const { return *address(i, j, h, b); }

  // Apart from at(), since empty views may have null data, to which no reference can be formed.
  T *address(int64_t i, int64_t j, int64_t h, int64_t b) const {
    const int64_t row = shape[0] == 1 ? 0 : i * stride[0];
    const int64_t column = shape[1] == 1 ? 0 : j * stride[1];
    const int64_t head = shape[2] == 1 ? 0 : h * stride[2];
    const int64_t batch = shape[3] == 1 ? 0 : b * stride[3];
    return data + (row + column + head + batch);
  }
};

// Memory with a contiguous column-major view of it, for intermediate results such as Q, K and V. Not copyable, because
// a copied view would still point into the memory of the original.
template <class T>
struct Buffer {
  std::vector<T> values;
  View<T> view;

  explicit Buffer(int64_t rows, int64_t columns = 1, int64_t heads = 1, int64_t batch = 1)
      : values(static_cast<std::size_t>(rows * columns * heads * batch)),
        view{values.data(), {rows, columns, heads, batch}, {1, rows, rows * columns, rows * columns * heads}} {}
  Buffer(const Buffer &) = delete;
  Buffer &operator=(const Buffer &) = delete;
};

enum class Causal { none, top_left, bottom_right };

template <class T>
struct AttentionSpec {
  double scale = 0;  // 0 = 1/sqrt(D)
  Causal causal = Causal::none;
  int64_t query_offset = 0;
  const int64_t *query_offsets = nullptr;  // one per batch, instead of query_offset
  double softcap = 0;
  bool window = false;  // left and right hold; -1 = unbounded
  int64_t left = -1, right = -1;
  // Of each batch the keys from `firsts` (or 0) to before `lengths` (or Nk) exist.
  const int64_t *firsts = nullptr, *lengths = nullptr;
  // (key, query, head, batch), or empty
  std::function<bool(int64_t, int64_t, int64_t, int64_t)> mask;
  std::function<T(int64_t, int64_t, int64_t, int64_t)> bias;
  const T *slopes = nullptr, *sinks = nullptr;  // one per head
  View<T> *lse = nullptr;                       // (1, Nq, H, B)
  View<T> *scores = nullptr;                    // (Nk, Nq, H, B)
  int scores_stage = 0;                         // ATTEND_SCORES_... of attend.h

  // Not 1/sqrt(D) in double: the oracle in long double would then be wrong from the 17th digit on.
  T scale_for(int64_t features) const {
    return scale == 0 ? T(1) / std::sqrt(static_cast<T>(features)) : static_cast<T>(scale);
  }

  int64_t offset(int64_t keys, int64_t queries, int64_t b) const {
    if (causal == Causal::bottom_right) return (lengths ? lengths[b] : keys) - queries;
    return query_offsets ? query_offsets[b] : query_offset;
  }

  bool exists(int64_t key, int64_t b) const { return (!firsts || key >= firsts[b]) && (!lengths || key < lengths[b]); }

  // Key j is visible iff j <= i + offset, and i + offset - left <= j <= i + offset + right. In floating point, since
  // numbers near the limits of int64 are legal and their sums would overflow.
  bool visible(int64_t key, int64_t query, int64_t keys, int64_t queries, int64_t b) const {
    if (!exists(key, b)) return false;
    const long double ahead = static_cast<long double>(key) - static_cast<long double>(query) -
                              static_cast<long double>(offset(keys, queries, b));
    if (causal != Causal::none && ahead > 0) return false;
    if (window && left >= 0 && ahead < -static_cast<long double>(left)) return false;
    return !(window && right >= 0 && ahead > static_cast<long double>(right));
  }
};

// Shapes as in attend_self_attention_weights.
template <class T>
struct Weights {
  View<T> w_q, w_k, w_v;
  View<T> *b_q = nullptr, *b_k = nullptr, *b_v = nullptr, *w_o = nullptr, *b_o = nullptr;
};

// Instantiated for float, double and long double.
namespace naive {

// C = alpha A B + beta C (+ bias)
template <class T>
void matmul(double alpha, View<T> a, View<T> b, double beta, View<T> c, View<T> *bias = nullptr);

// Down each column; y may be x; scale 0 = 1, as in attend.h.
template <class T>
void softmax(View<T> x, View<T> y, double scale = 1, bool log = false, View<T> *lse = nullptr);

// Its gradient: d_x (+)= from y, d_y and that of lse.
template <class T>
void softmax_backward(View<T> y, View<T> d_y, View<T> d_x, double scale = 1, bool log = false, View<T> *d_lse = nullptr,
                      bool accumulates = false);

// O = V softmax(scale K^T Q)
template <class T>
void attention(View<T> q, View<T> k, View<T> v, View<T> out, const AttentionSpec<T> &spec = {});

// Projections, attention, and with w_o the sum over heads of W_o O + b_o.
template <class T>
void self_attention(View<T> x, const Weights<T> &w, View<T> out, const AttentionSpec<T> &spec = {});

}  // namespace naive

// The same but for gradients, instantiated for float and double. Results differ from naive by rounding only.
namespace blocked {

template <class T>
void matmul(double alpha, View<T> a, View<T> b, double beta, View<T> c, View<T> *bias = nullptr);

template <class T>
void softmax(View<T> x, View<T> y, double scale = 1, bool log = false, View<T> *lse = nullptr);

template <class T>
void attention(View<T> q, View<T> k, View<T> v, View<T> out, const AttentionSpec<T> &spec = {});

template <class T>
void self_attention(View<T> x, const Weights<T> &w, View<T> out, const AttentionSpec<T> &spec = {});

}  // namespace blocked

}  // namespace attend::reference

#endif  // ATTEND_REFERENCE_REFERENCE_HPP
