// What a good programmer writes without SIMD intrinsics: the benchmark's honest baseline, and a second oracle that is
// fast enough for large shapes. One block product carries matmul and both halves of attention, as in the library.
//
// SPDX-License-Identifier: BSD-3-Clause
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "reference.hpp"

namespace attend::reference::blocked {

namespace {

template <class T>
constexpr T kMinusInfinity = -std::numeric_limits<T>::infinity();

// The register tile. Its accumulators take 8 of the 16 SSE registers of the baseline x86-64 once the compiler has
// vectorized the loops over them, and the rest holds the operands: a larger tile spills.
template <class T>
constexpr int64_t kTileRows = 32 / static_cast<int64_t>(sizeof(T));
constexpr int64_t kTileColumns = 4;

// A block of A (kBlockRows x kBlockDepth, at most 256 KiB) stays in L2 while a panel of B, kBlockDepth x kTileColumns,
// passes through L1 over and over.
constexpr int64_t kBlockRows = 128, kBlockDepth = 256, kBlockColumns = 1024;

// Columns of a softmax that go together when rows are contiguous: whole cache lines of x.
constexpr int64_t kSoftmaxColumns = 16;

// Attention: K and V are packed again for every block of queries, hence many of them; scores take 32 or 64 KiB a block.
constexpr int64_t kQueryBlock = 128, kKeyBlock = 64;

// One matrix of a view. Plain strides without the broadcasting of View::at, which is too slow for inner loops.
template <class T>
struct Matrix {
  T *data;
  int64_t row_stride, column_stride;

  T &at(int64_t i, int64_t j) const { return data[i * row_stride + j * column_stride]; }
  Matrix from(int64_t i, int64_t j) const {
    return {data + (i * row_stride + j * column_stride), row_stride, column_stride};
  }
  Matrix transposed() const { return {data, column_stride, row_stride}; }
};

template <class T>
Matrix<T> matrix_of(const View<T> &view, int64_t h, int64_t b) {
  return {view.address(0, 0, h, b), view.stride[0], view.stride[1]};
}

template <class T>
struct Packed {
  std::vector<T> a, b;
};

// Copies rows x depth of A into panels of kPanel rows, one panel after the other, each in order of k: the order in
// which the tile reads them. The last panel is filled up with zeros; what they produce is never stored. B goes in
// transposed.
template <int64_t kPanel, class T>
void pack(Matrix<T> a, int64_t rows, int64_t depth, std::vector<T> &packed) {
  const int64_t panels = (rows + kPanel - 1) / kPanel;
  const auto needed = static_cast<std::size_t>(panels * kPanel * depth);
  if (packed.size() < needed) packed.resize(needed);
  T *to = packed.data();
  for (int64_t first = 0; first < rows; first += kPanel, to += kPanel * depth) {
    const int64_t count = std::min(kPanel, rows - first);
    if (count < kPanel) std::fill(to, to + kPanel * depth, T(0));
    // The inner loop runs along the smaller stride of the source, or every read would touch another cache line.
    if (std::abs(a.row_stride) <= std::abs(a.column_stride)) {
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t i = 0; i < count; ++i) to[k * kPanel + i] = a.at(first + i, k);
      }
    } else {
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t k = 0; k < depth; ++k) to[k * kPanel + i] = a.at(first + i, k);
      }
    }
  }
}

// C += alpha A B for at most one tile of C. The array is local and its loops have constant bounds, so that the compiler
// unrolls them and keeps it in registers.
template <class T>
void multiply_tile(T alpha, const T *a, const T *b, int64_t depth, Matrix<T> c, int64_t rows, int64_t columns) {
  constexpr int64_t kRows = kTileRows<T>;
  T sums[kTileColumns][static_cast<size_t>(kRows)] = {};
  for (int64_t k = 0; k < depth; ++k, a += kRows, b += kTileColumns) {
    for (int64_t j = 0; j < kTileColumns; ++j) {
      for (int64_t i = 0; i < kRows; ++i) sums[j][i] += a[i] * b[j];
    }
  }
  // The sums beyond the edge of C come from the padding of the panels and are dropped, even if NaN.
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) c.at(i, j) += alpha * sums[j][i];
  }
}

// C += alpha A B, A rows x depth, B depth x columns.
template <class T>
void multiply_add(T alpha, Matrix<T> a, Matrix<T> b, Matrix<T> c, int64_t rows, int64_t columns, int64_t depth,
                  Packed<T> &packed) {
  for (int64_t j0 = 0; j0 < columns; j0 += kBlockColumns) {
    const int64_t block_columns = std::min(kBlockColumns, columns - j0);
    for (int64_t k0 = 0; k0 < depth; k0 += kBlockDepth) {
      const int64_t block_depth = std::min(kBlockDepth, depth - k0);
      // Packed even when B is contiguous already: panels make the tile's reads sequential whatever the strides are.
      pack<kTileColumns>(b.from(k0, j0).transposed(), block_columns, block_depth, packed.b);
      for (int64_t i0 = 0; i0 < rows; i0 += kBlockRows) {
        const int64_t block_rows = std::min(kBlockRows, rows - i0);
        pack<kTileRows<T>>(a.from(i0, k0), block_rows, block_depth, packed.a);
        for (int64_t j = 0; j < block_columns; j += kTileColumns) {
          for (int64_t i = 0; i < block_rows; i += kTileRows<T>) {
            multiply_tile(alpha, packed.a.data() + i * block_depth, packed.b.data() + j * block_depth, block_depth,
                          c.from(i0 + i, j0 + j), std::min(kTileRows<T>, block_rows - i),
                          std::min(kTileColumns, block_columns - j));
          }
        }
      }
    }
  }
}

// The columns [first, first + count) of one matrix, row by row, so that contiguous rows are read in whole cache lines.
// The maximum may overlook a NaN: its exponential makes the sum NaN, and so the column, whatever it was shifted by.
template <class T>
void softmax_columns(Matrix<T> x, Matrix<T> y, int64_t rows, int64_t count, T scale, bool log, T *lse) {
  T m[kSoftmaxColumns], sum[kSoftmaxColumns], factor[kSoftmaxColumns], log_sum[kSoftmaxColumns];
  std::fill_n(m, count, kMinusInfinity<T>);
  std::fill_n(sum, count, T(0));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < count; ++j) m[j] = std::max(m[j], scale * x.at(i, j));
  }
  for (int64_t j = 0; j < count; ++j) {
    // A column of -inf: shifted by 0 every weight is exp(-inf) = 0, where shifted by its maximum it would be NaN.
    if (m[j] == kMinusInfinity<T>) m[j] = 0;
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      const T e = std::exp(scale * x.at(i, j) - m[j]);
      sum[j] += e;
      // In place, the logarithm still needs x in the last sweep.
      if (!log) y.at(i, j) = e;
    }
  }
  for (int64_t j = 0; j < count; ++j) {
    const bool empty = sum[j] == 0;
    factor[j] = empty ? T(0) : 1 / sum[j];
    log_sum[j] = empty ? T(0) : std::log(sum[j]);
    lse[j] = empty ? kMinusInfinity<T> : m[j] + log_sum[j];
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < count; ++j) {
      y.at(i, j) = log ? (scale * x.at(i, j) - m[j]) - log_sum[j] : y.at(i, j) * factor[j];
    }
  }
}

// The state of online softmax for one block of queries (Milakov and Gimelshein, arXiv 1805.02867): per query the
// maximum m and the sum l over the keys so far, and o = sum exp(s - m) v, not yet divided by l. All of it is O(block).
template <class T>
struct QueryBlock {
  std::vector<T> scores, m, l, o;
  Packed<T> packed;
  int64_t value_features;

  explicit QueryBlock(int64_t dv)
      : scores(static_cast<std::size_t>(kKeyBlock * kQueryBlock)),
        m(static_cast<std::size_t>(kQueryBlock)),
        l(static_cast<std::size_t>(kQueryBlock)),
        o(static_cast<std::size_t>(dv * kQueryBlock)),
        value_features(dv) {}

  void reset() {
    std::fill(m.begin(), m.end(), kMinusInfinity<T>);
    std::fill(l.begin(), l.end(), T(0));
    std::fill(o.begin(), o.end(), T(0));
  }
  Matrix<T> score_matrix() { return {scores.data(), 1, kKeyBlock}; }
  Matrix<T> output_matrix() { return {o.data(), 1, value_features}; }

  // Turns the first `keys` scores of a query into weights against the new maximum, and brings l and o to that maximum.
  void take(int64_t query, int64_t keys) {
    T *s = scores.data() + query * kKeyBlock;
    T &m_query = m[static_cast<std::size_t>(query)], &l_query = l[static_cast<std::size_t>(query)];
    T m_new = m_query;
    for (int64_t j = 0; j < keys; ++j) m_new = std::max(m_new, s[j]);
    const T shift = m_new == kMinusInfinity<T> ? T(0) : m_new;  // nothing but -inf so far: see softmax_columns
    const T correction = std::exp(m_query - shift);
    T sum = 0;
    for (int64_t j = 0; j < keys; ++j) {
      s[j] = std::exp(s[j] - shift);
      sum += s[j];
    }
    l_query = l_query * correction + sum;
    m_query = m_new;
    if (correction == 1) return;  // the usual case after the first few blocks: the maximum stands
    T *o_query = o.data() + query * value_features;
    for (int64_t d = 0; d < value_features; ++d) o_query[d] *= correction;
  }
};

// One block of queries of one head against all its keys.
template <class T>
void attend_queries(const AttentionSpec<T> &spec, T scale, const View<T> &q, const View<T> &k, const View<T> &v,
                    const View<T> &out, int64_t first, int64_t h, int64_t b, QueryBlock<T> &block) {
  const int64_t features = q.shape[0], keys = k.shape[1], queries = out.shape[1], value_features = out.shape[0];
  const int64_t count = std::min(kQueryBlock, queries - first);
  const int64_t key_head = h / (out.shape[2] / k.shape[2]);
  const bool probabilities = spec.scores_stage == 3, every_score = spec.scores && spec.scores_stage < 2;
  const auto visible = [&](int64_t key, int64_t query) { return spec.visible(key, query, keys, queries, b); };
  const Matrix<T> s = block.score_matrix();
  block.reset();

  for (int64_t k0 = 0; k0 < keys; k0 += kKeyBlock) {
    const int64_t block_keys = std::min(kKeyBlock, keys - k0);
    // Visibility only ends once along the keys and later for later queries: the last query decides whether any key of
    // the block counts, the first one whether all do. Where scores are asked for, the remaining rows must be filled
    // too.
    if (!spec.scores && !visible(k0, first + count - 1)) break;
    const bool all_visible = visible(k0 + block_keys - 1, first);

    // The product adds, so what the block before left here must go.
    std::fill(block.scores.begin(), block.scores.end(), T(0));
    multiply_add(scale, matrix_of(k, key_head, b).from(0, k0).transposed(), matrix_of(q, h, b).from(0, first), s,
                 block_keys, count, features, block.packed);
    const Matrix<T> values = matrix_of(v, key_head, b).from(0, k0);
    for (int64_t i = 0; i < count; ++i) {
      int64_t seen = all_visible ? block_keys : 0;
      while (seen < block_keys && visible(k0 + seen, first + i)) ++seen;
      for (int64_t j = 0; spec.scores && j < block_keys; ++j) {
        spec.scores->at(k0 + j, first + i, h, b) = every_score || j < seen ? s.at(j, i) : kMinusInfinity<T>;
      }
      block.take(i, seen);
      // A partly visible block is not left to the product below: its zero weights would meet NaN and Inf in V.
      const Matrix<T> o = block.output_matrix();
      for (int64_t j = 0; !all_visible && j < seen; ++j) {
        const T weight = s.at(j, i);
        for (int64_t d = 0; d < value_features; ++d) o.at(d, i) += weight * values.at(d, j);
      }
    }
    if (all_visible) {
      multiply_add(T(1), values, s, block.output_matrix(), value_features, count, block_keys, block.packed);
    }
  }

  for (int64_t i = 0; i < count; ++i) {
    const T m = block.m[static_cast<std::size_t>(i)], l = block.l[static_cast<std::size_t>(i)];
    const T factor = l == 0 ? T(0) : 1 / l;
    for (int64_t d = 0; d < value_features; ++d) {
      out.at(d, first + i, h, b) = block.output_matrix().at(d, i) * factor;
    }
    if (spec.lse) spec.lse->at(0, first + i, h, b) = l == 0 ? kMinusInfinity<T> : m + std::log(l);
    // The masked scores are in place by now, and only now m and l are final.
    for (int64_t j = 0; spec.scores && probabilities && j < keys; ++j) {
      T &p = spec.scores->at(j, first + i, h, b);
      if (!visible(j, first + i) || l == 0) {
        p = 0;
      } else {
        p = std::exp(p - m) * factor;
      }
    }
  }
}

// Head h alone, as a view of one head.
template <class T>
View<T> head_of(View<T> view, int64_t h) {
  view.data = view.address(0, 0, h, 0);
  view.shape[2] = 1;
  return view;
}

}  // namespace

template <class T>
void matmul(double alpha, View<T> a, View<T> b, double beta, View<T> c, View<T> *bias) {
  const T alpha_t = static_cast<T>(alpha), beta_t = static_cast<T>(beta);
  const int64_t rows = c.shape[0], columns = c.shape[1], depth = a.shape[1];
  Packed<T> packed;  // outside the loops: its memory serves every head
  for (int64_t batch = 0; batch < c.shape[3]; ++batch) {
    for (int64_t h = 0; h < c.shape[2]; ++h) {
      // First everything that is not the product; then the product is a pure sum, whatever the order of its blocks.
      for (int64_t j = 0; j < columns; ++j) {
        for (int64_t i = 0; i < rows; ++i) {
          T &result = c.at(i, j, h, batch);
          result = (beta_t == 0 ? T(0) : beta_t * result) + (bias ? bias->at(i, j, h, batch) : T(0));
        }
      }
      if (alpha_t == 0 || depth == 0 || rows == 0 || columns == 0) continue;
      multiply_add(alpha_t, matrix_of(a, h, batch), matrix_of(b, h, batch), matrix_of(c, h, batch), rows, columns,
                   depth, packed);
    }
  }
}

template <class T>
void softmax(View<T> x, View<T> y, double scale, bool log, View<T> *lse) {
  const T scale_t = scale == 0 ? T(1) : static_cast<T>(scale);
  // Contiguous columns go a few together, so that their sums do not wait for one another; more would compete for the
  // same cache sets when the columns lie a power of two apart.
  const int64_t width = std::abs(x.stride[0]) < std::abs(x.stride[1]) ? 4 : kSoftmaxColumns;
  for (int64_t b = 0; b < x.shape[3]; ++b) {
    for (int64_t h = 0; h < x.shape[2]; ++h) {
      for (int64_t j0 = 0; j0 < x.shape[1]; j0 += width) {
        const int64_t count = std::min(width, x.shape[1] - j0);
        T block_lse[kSoftmaxColumns];
        softmax_columns(matrix_of(x, h, b).from(0, j0), matrix_of(y, h, b).from(0, j0), x.shape[0], count, scale_t, log,
                        block_lse);
        for (int64_t j = 0; lse && j < count; ++j) lse->at(0, j0 + j, h, b) = block_lse[j];
      }
    }
  }
}

template <class T>
void attention(View<T> q, View<T> k, View<T> v, View<T> out, const AttentionSpec<T> &spec) {
  const T scale = spec.scale_for(q.shape[0]);
  QueryBlock<T> block(out.shape[0]);
  for (int64_t b = 0; b < out.shape[3]; ++b) {
    for (int64_t h = 0; h < out.shape[2]; ++h) {
      for (int64_t first = 0; first < out.shape[1]; first += kQueryBlock) {
        attend_queries(spec, scale, q, k, v, out, first, h, b, block);
      }
    }
  }
}

template <class T>
void self_attention(View<T> x, const Weights<T> &w, View<T> out, const AttentionSpec<T> &spec) {
  const int64_t items = x.shape[1], batches = out.shape[3], heads = w.w_q.shape[2], key_heads = w.w_k.shape[2];
  const int64_t features = w.w_q.shape[0], value_features = w.w_v.shape[0];
  Buffer<T> q(features, items, heads, batches), k(features, items, key_heads, batches);
  Buffer<T> v(value_features, items, key_heads, batches);
  matmul(1, w.w_q, x, 0, q.view, w.b_q);
  matmul(1, w.w_k, x, 0, k.view, w.b_k);
  matmul(1, w.w_v, x, 0, v.view, w.b_v);
  // Unlike K and V, Q could be projected block by block; three whole products are simpler and still O(N).
  if (!w.w_o) {
    attention(q.view, k.view, v.view, out, spec);
    return;
  }

  // The heads add up in `out` itself, which spares a copy of O with its heads side by side.
  Buffer<T> o(value_features, items, heads, batches);
  attention(q.view, k.view, v.view, o.view, spec);
  matmul(0, w.w_q, x, 0, out, w.b_o);
  for (int64_t h = 0; h < heads; ++h) matmul(1, head_of(*w.w_o, h), head_of(o.view, h), 1, out);
}

#define ATTEND_REFERENCE_INSTANTIATE(T)                                                     \
  template void matmul<T>(double, View<T>, View<T>, double, View<T>, View<T> *);            \
  template void softmax<T>(View<T>, View<T>, double, bool, View<T> *);                      \
  template void attention<T>(View<T>, View<T>, View<T>, View<T>, const AttentionSpec<T> &); \
  template void self_attention<T>(View<T>, const Weights<T> &, View<T>, const AttentionSpec<T> &);

ATTEND_REFERENCE_INSTANTIATE(float)
ATTEND_REFERENCE_INSTANTIATE(double)

#undef ATTEND_REFERENCE_INSTANTIATE

}  // namespace attend::reference::blocked
