// What the benchmarks and the demo compute, and the ways to compute it: inputs and workspaces made once, then run() as
// often as one likes without an allocation of ours (the reference paths do allocate).
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_PROBLEMS_HPP
#define ATTEND_BENCH_PROBLEMS_HPP

#include <attend/attend.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <random>
#include <type_traits>
#include <vector>

#include "reference/reference.hpp"

namespace attend::bench {

// One row of a table: who computes. The references know one thread only.
enum class Path { naive, blocked, library };

struct Row {
  const char *name;  // "naive", "blocked", or the library's instruction set (null: the best)
  Path path;
  int32_t threads;
};

// naive (on request), blocked, and every instruction set of this CPU with one thread and with all of them.
inline std::vector<Row> all_rows(bool with_naive) {
  std::vector<Row> rows;
  if (with_naive) rows.push_back({"naive", Path::naive, 1});
  rows.push_back({"blocked", Path::blocked, 1});
  for (int32_t i = 0; const char *isa = attend_isa_name(i); ++i) {
    rows.push_back({isa, Path::library, 1});
    if (attend_threads() > 1) rows.push_back({isa, Path::library, attend_threads()});
  }
  return rows;
}

// Cache-line aligned memory. Not a std::vector, because that aligns to 16 bytes and the split lines would be measured.
struct FreeAligned {
  void operator()(void *memory) const { ::operator delete(memory, std::align_val_t(64)); }
};

template <class T>
std::unique_ptr<T[], FreeAligned> allocate_aligned(std::size_t count) {
  return std::unique_ptr<T[], FreeAligned>(static_cast<T *>(::operator new(count * sizeof(T), std::align_val_t(64))));
}

enum class Layout { contiguous_columns, contiguous_rows };

// A tensor with its memory, for the library and for the references. Starts as zeros, so its pages are there.
template <class T>
class Operand {
 public:
  Operand(int64_t rows, int64_t columns, int64_t heads = 1, Layout layout = Layout::contiguous_columns)
      : count_(rows * columns * heads), memory_(allocate_aligned<T>(static_cast<std::size_t>(count_))) {
    const bool by_columns = layout == Layout::contiguous_columns;
    tensor_.data = memory_.get();
    tensor_.dtype = std::is_same_v<T, float> ? ATTEND_F32 : ATTEND_F64;
    tensor_.rank = 3;
    const int64_t shape[] = {rows, columns, heads, 1};
    const int64_t stride[] = {by_columns ? 1 : columns, by_columns ? rows : 1, rows * columns, rows * columns * heads};
    for (int i = 0; i < 4; ++i) {
      tensor_.shape[i] = shape[i];
      tensor_.stride[i] = stride[i];
    }
    for (int64_t i = 0; i < count_; ++i) memory_[static_cast<std::size_t>(i)] = T(0);
  }

  void fill_with_normals(std::mt19937 &random) {
    std::normal_distribution<T> normal;
    for (int64_t i = 0; i < count_; ++i) memory_[static_cast<std::size_t>(i)] = normal(random);
  }

  // Converts the elements of an operand of equal shape and layout.
  template <class From>
  void fill_from(const Operand<From> &from) {
    const From *source = static_cast<const From *>(from.tensor().data);
    for (int64_t i = 0; i < count_; ++i) memory_[static_cast<std::size_t>(i)] = static_cast<T>(source[i]);
  }

  const attend_tensor &tensor() const { return tensor_; }
  double elements() const { return static_cast<double>(count_); }

  // The first columns and heads alone, in place.
  attend_tensor tensor(int64_t columns, int64_t heads) const {
    attend_tensor part = tensor_;
    part.shape[1] = columns;
    part.shape[2] = heads;
    return part;
  }

  reference::View<T> view() const { return view_of(tensor_); }
  reference::View<T> view(int64_t columns, int64_t heads) const { return view_of(tensor(columns, heads)); }

 private:
  static reference::View<T> view_of(const attend_tensor &t) {
    return {static_cast<T *>(t.data),
            {t.shape[0], t.shape[1], t.shape[2], t.shape[3]},
            {t.stride[0], t.stride[1], t.stride[2], t.stride[3]}};
  }

  int64_t count_;
  std::unique_ptr<T[], FreeAligned> memory_;
  attend_tensor tensor_ = {};
};

// An options struct of any function, zeroed but for its size.
template <class Options>
Options make_options(int32_t threads = 0) {
  Options options = {};
  options.size = sizeof(Options);
  options.threads = threads;
  return options;
}

// A workspace that serves any number of threads up to attend_threads().
class Workspace {
 public:
  // `query` stores the bytes needed, as the ..._workspace functions do. If it fails there is no workspace, and the call
  // itself will fail for the same reason.
  template <class Query>
  explicit Workspace(Query &&query) {
    if (query(&bytes_) != ATTEND_OK) bytes_ = 0;
    memory_ = allocate_aligned<unsigned char>(static_cast<std::size_t>(bytes_));
  }

  template <class Options>
  void give_to(Options &options) const {
    options.workspace = memory_.get();
    options.workspace_size = bytes_;
  }

 private:
  uint64_t bytes_ = 0;
  std::unique_ptr<unsigned char[], FreeAligned> memory_;
};

// C = A B, everything dense, C column-major.
template <class T>
struct MatmulProblem {
  Operand<T> a, b, c;
  Workspace workspace;

  MatmulProblem(int64_t rows, int64_t columns, int64_t depth, Layout layout_a = Layout::contiguous_columns,
                Layout layout_b = Layout::contiguous_columns)
      : a(rows, depth, 1, layout_a),
        b(depth, columns, 1, layout_b),
        c(rows, columns),
        workspace([this](uint64_t *bytes) {
          const auto options = make_options<attend_matmul_options>(attend_threads());
          return attend_matmul_workspace(1, &a.tensor(), &b.tensor(), 0, &c.tensor(), &options, bytes);
        }) {
    std::mt19937 random(1);
    a.fill_with_normals(random);
    b.fill_with_normals(random);
  }

  double flops() const {
    return 2.0 * static_cast<double>(c.tensor().shape[0] * c.tensor().shape[1] * a.tensor().shape[1]);
  }

  double bytes() const { return sizeof(T) * (a.elements() + b.elements() + c.elements()); }

  attend_status run(const Row &row) const {
    if (row.path == Path::naive) {
      reference::naive::matmul<T>(1, a.view(), b.view(), 0, c.view());
    } else if (row.path == Path::blocked) {
      reference::blocked::matmul<T>(1, a.view(), b.view(), 0, c.view());
    } else {
      auto options = make_options<attend_matmul_options>(row.threads);
      workspace.give_to(options);
      return attend_matmul(1, &a.tensor(), &b.tensor(), 0, &c.tensor(), &options);
    }
    return ATTEND_OK;
  }
};

// Y = softmax(X), not in place.
template <class T>
struct SoftmaxProblem {
  Operand<T> x, y;
  Workspace workspace;

  SoftmaxProblem(int64_t rows, int64_t columns, Layout layout)
      : x(rows, columns, 1, layout), y(rows, columns, 1, layout), workspace([this](uint64_t *bytes) {
          const auto options = make_options<attend_softmax_options>(attend_threads());
          return attend_softmax_workspace(&x.tensor(), &y.tensor(), &options, bytes);
        }) {
    std::mt19937 random(1);
    x.fill_with_normals(random);
  }

  double elements() const { return static_cast<double>(x.tensor().shape[0] * x.tensor().shape[1]); }

  attend_status run(const Row &row) const {
    if (row.path == Path::naive) {
      reference::naive::softmax<T>(x.view(), y.view());
    } else if (row.path == Path::blocked) {
      reference::blocked::softmax<T>(x.view(), y.view());
    } else {
      auto options = make_options<attend_softmax_options>(row.threads);
      workspace.give_to(options);
      return attend_softmax(&x.tensor(), &y.tensor(), &options);
    }
    return ATTEND_OK;
  }
};

// dX from Y and dY, not in place.
template <class T>
struct SoftmaxBackwardProblem {
  Operand<T> y, d_y, d_x;
  Workspace workspace;

  SoftmaxBackwardProblem(int64_t rows, int64_t columns, Layout layout)
      : y(rows, columns, 1, layout),
        d_y(rows, columns, 1, layout),
        d_x(rows, columns, 1, layout),
        workspace([this](uint64_t *bytes) {
          const auto options = make_options<attend_softmax_backward_options>(attend_threads());
          return attend_softmax_backward_workspace(&y.tensor(), &d_y.tensor(), &d_x.tensor(), &options, bytes);
        }) {
    std::mt19937 random(1);
    d_x.fill_with_normals(random);
    attend_softmax(&d_x.tensor(), &y.tensor(), nullptr);
    d_y.fill_with_normals(random);
  }

  double elements() const { return static_cast<double>(y.tensor().shape[0] * y.tensor().shape[1]); }

  attend_status run(const Row &row) const {
    if (row.path != Path::library) {
      reference::naive::softmax_backward<T>(y.view(), d_y.view(), d_x.view());
      return ATTEND_OK;
    }
    auto options = make_options<attend_softmax_backward_options>(row.threads);
    workspace.give_to(options);
    return attend_softmax_backward(&y.tensor(), &d_y.tensor(), &d_x.tensor(), &options);
  }
};

// Attention, usually of as many keys as queries; every operand is [head, N, D] in the words of NumPy. Parts of it (the
// first items of the first heads) can be computed too, where the whole would take too long.
template <class T>
struct AttentionProblem {
  Operand<T> q, k, v, out;
  Workspace workspace;

  AttentionProblem(int64_t features, int64_t items, int64_t heads)
      : AttentionProblem(features, items, items, heads, heads) {}

  AttentionProblem(int64_t features, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads)
      : q(features, queries, heads),
        k(features, keys, kv_heads),
        v(features, keys, kv_heads),
        out(features, queries, heads),
        workspace([this](uint64_t *bytes) {
          const auto options = make_options<attend_attention_options>(attend_threads());
          return attend_attention_workspace(&q.tensor(), &k.tensor(), &v.tensor(), &out.tensor(), &options, bytes);
        }) {
    std::mt19937 random(1);
    q.fill_with_normals(random);
    k.fill_with_normals(random);
    v.fill_with_normals(random);
  }

  // What a call on so many threads is given beside its operands.
  uint64_t scratch_bytes(int32_t threads) const {
    uint64_t bytes = 0;
    const auto options = make_options<attend_attention_options>(threads);
    attend_attention_workspace(&q.tensor(), &k.tensor(), &v.tensor(), &out.tensor(), &options, &bytes);
    return bytes;
  }

  int64_t items() const { return q.tensor().shape[1]; }
  int64_t heads() const { return q.tensor().shape[2]; }

  // Scores and output take 2 D flops each for every pair of a query and a key that it sees.
  double flops(bool causal, int64_t item_count, int64_t head_count) const {
    const double n = static_cast<double>(item_count);
    const double pairs = causal ? n * (n + 1) / 2 : n * n;
    return 4.0 * pairs * static_cast<double>(q.tensor().shape[0] * head_count);
  }

  double bytes() const { return sizeof(T) * (q.elements() + k.elements() + v.elements() + out.elements()); }

  attend_status run(const Row &row, bool causal) const { return run(row, causal, items(), heads()); }

  attend_status run(const Row &row, bool causal, int64_t item_count, int64_t head_count) const {
    const int64_t key_count = item_count == items() ? k.tensor().shape[1] : item_count;
    const int64_t kv_count = head_count == heads() ? k.tensor().shape[2] : head_count;
    if (row.path == Path::library) {
      auto options = make_options<attend_attention_options>(row.threads);
      workspace.give_to(options);
      options.flags = causal ? ATTEND_CAUSAL_TOP_LEFT : 0;
      const attend_tensor queries = q.tensor(item_count, head_count), keys = k.tensor(key_count, kv_count);
      const attend_tensor values = v.tensor(key_count, kv_count), result = out.tensor(item_count, head_count);
      return attend_attention(&queries, &keys, &values, &result, &options);
    }
    reference::AttentionSpec<T> spec;
    spec.causal = causal ? reference::Causal::top_left : reference::Causal::none;
    const auto attention = row.path == Path::naive ? reference::naive::attention<T> : reference::blocked::attention<T>;
    attention(q.view(item_count, head_count), k.view(key_count, kv_count), v.view(key_count, kv_count),
              out.view(item_count, head_count), spec);
    return ATTEND_OK;
  }
};

}  // namespace attend::bench

#endif  // ATTEND_BENCH_PROBLEMS_HPP
