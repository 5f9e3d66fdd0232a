// What attend_bench_against calls: operands made once, which all libraries work on in turns, at the same addresses.
//
// SPDX-License-Identifier: BSD-3-Clause
#ifndef ATTEND_BENCH_AGAINST_PROBLEMS_HPP
#define ATTEND_BENCH_AGAINST_PROBLEMS_HPP

#include <deque>
#include <vector>

#include "against_library.hpp"
#include "problems.hpp"

namespace attend::bench::against {

// A tensor of any type with its memory: normal numbers, and in masks four of five are true.
struct Array {
  std::unique_ptr<unsigned char[], FreeAligned> memory;
  attend_tensor tensor = {};

  Array(uint32_t dtype, int64_t rows, int64_t columns, int64_t heads = 1, Layout layout = Layout::contiguous_columns) {
    const bool by_columns = layout == Layout::contiguous_columns;
    const size_t count = static_cast<size_t>(rows * columns * heads);
    memory = allocate_aligned<unsigned char>(count * (dtype == ATTEND_BOOL ? 1 : dtype == ATTEND_F32 ? 4 : 8));
    tensor = {memory.get(),
              dtype,
              3,
              {rows, columns, heads, 1},
              {by_columns ? 1 : columns, by_columns ? rows : 1, rows * columns, rows * columns * heads}};
    if (dtype == ATTEND_F32) fill<float>(count, std::normal_distribution<float>());
    if (dtype == ATTEND_F64) fill<double>(count, std::normal_distribution<double>());
    if (dtype == ATTEND_BOOL) fill<uint8_t>(count, std::bernoulli_distribution(0.8));
  }

  template <class T>
  T *values() const {
    return reinterpret_cast<T *>(memory.get());
  }

 private:
  template <class T, class Distribution>
  void fill(size_t count, Distribution distribution) {
    static std::mt19937 random(1);  // goes on, so that no two operands are equal
    for (size_t i = 0; i < count; ++i) values<T>()[i] = distribution(random);
  }
};

// One row, ready to be called.
class Problem {
 public:
  virtual ~Problem() = default;
  // The name of a function that this library lacks, or null.
  virtual const char *missing(const Library &library) const = 0;
  // Gives the workspace that this library asks for. The one that the last library left is kept if it is larger, so that
  // in the end all have the same.
  virtual void prepare(const Library &library) = 0;
  virtual attend_status repeat(const Library &library, int64_t calls) const = 0;
};

// The loop lies here, so that nothing but the call through a pointer comes between two calls.
template <class Derived>
class Repeated : public Problem {
 public:
  attend_status repeat(const Library &library, int64_t calls) const override {
    attend_status status = ATTEND_OK;
    for (; calls > 0 && status == ATTEND_OK; --calls) status = static_cast<const Derived *>(this)->call(library);
    return status;
  }
};

class GrowingWorkspace {
 public:
  template <class Options>
  void give(attend_status status, uint64_t bytes, Passed<Options> &options) {
    if (status == ATTEND_OK && (memory_ == nullptr || bytes > bytes_)) {
      memory_ = allocate_aligned<unsigned char>(static_cast<size_t>(bytes));
      bytes_ = bytes;
    }
    options.value.workspace = memory_.get();
    options.value.workspace_size = bytes_;
    options.settle();
  }

 private:
  uint64_t bytes_ = 0;
  std::unique_ptr<unsigned char[], FreeAligned> memory_;
};

class Matmul final : public Repeated<Matmul> {
 public:
  Matmul(uint32_t dtype, int64_t m, int64_t n, int64_t k, Layout of_a, Layout of_b, int32_t threads)
      : a_(dtype, m, k, 1, of_a),
        b_(dtype, k, n, 1, of_b),
        c_(dtype, m, n),
        options_(make_options<attend_matmul_options>(threads)) {}

  const char *missing(const Library &library) const override { return library.matmul ? nullptr : "attend_matmul"; }
  void prepare(const Library &library) override {
    uint64_t bytes = 0;
    options_.settle();
    const attend_status status =
        library.matmul_workspace(1, &a_.tensor, &b_.tensor, 0, &c_.tensor, options_.to(library), &bytes);
    workspace_.give(status, bytes, options_);
  }
  attend_status call(const Library &library) const {
    return library.matmul(1, &a_.tensor, &b_.tensor, 0, &c_.tensor, options_.to(library));
  }

 private:
  Array a_, b_, c_;
  Passed<attend_matmul_options> options_;
  GrowingWorkspace workspace_;
};

// Products of m, n, k drawn from 1..64; a call is one of each.
class RandomMatmuls final : public Repeated<RandomMatmuls> {
 public:
  RandomMatmuls(int shapes, int32_t threads) {
    std::mt19937 random(7);
    const auto extent = [&random] { return 1 + static_cast<int64_t>(random() % 64); };
    for (int i = 0; i < shapes; ++i) {
      const int64_t m = extent(), n = extent(), k = extent();
      all_.emplace_back(ATTEND_F32, m, n, k, Layout::contiguous_columns, Layout::contiguous_columns, threads);
    }
  }

  const char *missing(const Library &library) const override { return all_[0].missing(library); }
  void prepare(const Library &library) override {
    for (Matmul &one : all_) one.prepare(library);
  }
  attend_status call(const Library &library) const {
    attend_status status = ATTEND_OK;
    for (const Matmul &one : all_) {
      if (status == ATTEND_OK) status = one.call(library);
    }
    return status;
  }

 private:
  std::vector<Matmul> all_;
};

class Softmax final : public Repeated<Softmax> {
 public:
  Softmax(int64_t rows, int64_t columns, Layout layout, bool is_masked, int32_t threads)
      : x_(ATTEND_F32, rows, columns, 1, layout),
        y_(ATTEND_F32, rows, columns, 1, layout),
        mask_(ATTEND_BOOL, rows, columns, 1, layout),
        options_(make_options<attend_softmax_options>(threads)) {
    if (is_masked) options_.value.mask = &mask_.tensor;
  }

  const char *missing(const Library &library) const override { return library.softmax ? nullptr : "attend_softmax"; }
  void prepare(const Library &library) override {
    uint64_t bytes = 0;
    options_.settle();
    const attend_status status = library.softmax_workspace(&x_.tensor, &y_.tensor, options_.to(library), &bytes);
    workspace_.give(status, bytes, options_);
  }
  attend_status call(const Library &library) const {
    return library.softmax(&x_.tensor, &y_.tensor, options_.to(library));
  }

 private:
  Array x_, y_, mask_;
  Passed<attend_softmax_options> options_;
  GrowingWorkspace workspace_;
};

// Public, for the functions that add an option or change a layout.
class Attention final : public Repeated<Attention> {
 public:
  Array q, k, v, out;
  Passed<attend_attention_options> options;
  std::deque<Array> more;  // does not move what it holds: options point there

  Attention(uint32_t dtype, int64_t features, int64_t queries, int64_t keys, int64_t heads, int64_t kv_heads,
            int32_t threads)
      : q(dtype, features, queries, heads),
        k(dtype, features, keys, kv_heads),
        v(dtype, features, keys, kv_heads),
        out(dtype, features, queries, heads),
        options(make_options<attend_attention_options>(threads)) {}

  const char *missing(const Library &library) const override {
    return library.attention ? nullptr : "attend_attention";
  }
  void prepare(const Library &library) override {
    uint64_t bytes = 0;
    options.settle();
    const attend_status status =
        library.attention_workspace(&q.tensor, &k.tensor, &v.tensor, &out.tensor, options.to(library), &bytes);
    workspace_.give(status, bytes, options);
  }
  attend_status call(const Library &library) const {
    return library.attention(&q.tensor, &k.tensor, &v.tensor, &out.tensor, options.to(library));
  }

 private:
  GrowingWorkspace workspace_;
};

// In place, again and again: lse grows as the logarithm of the calls, and out tends to that of the second set.
class Merge final : public Repeated<Merge> {
 public:
  Merge(int64_t features, int64_t queries, int64_t heads, int32_t threads)
      : out_a_(ATTEND_F32, features, queries, heads),
        lse_a_(ATTEND_F32, 1, queries, heads),
        out_b_(ATTEND_F32, features, queries, heads),
        lse_b_(ATTEND_F32, 1, queries, heads),
        options_(make_options<attend_merge_options>(threads)) {}

  const char *missing(const Library &library) const override {
    return library.attention_merge ? nullptr : "attend_attention_merge";
  }
  void prepare(const Library &) override { options_.settle(); }
  attend_status call(const Library &library) const {
    return library.attention_merge(&out_a_.tensor, &lse_a_.tensor, &out_b_.tensor, &lse_b_.tensor,
                                   options_.to(library));
  }

 private:
  Array out_a_, lse_a_, out_b_, lse_b_;
  Passed<attend_merge_options> options_;
};

// Weights lie as W[out][in] does in C. With `projects` the heads are brought together by w_o; with `allocates` the
// options are null, as in the notebook, and each call takes its memory from malloc.
class SelfAttention final : public Repeated<SelfAttention> {
 public:
  SelfAttention(uint32_t dtype, int64_t features, int64_t items, int64_t heads, bool projects, bool allocates,
                int32_t threads)
      : x_(dtype, features, items),
        out_(dtype, projects ? features : features / heads, items, projects ? 1 : heads),
        w_o_(dtype, features, features / heads, heads, Layout::contiguous_rows),
        b_o_(dtype, features, 1),
        options_(make_options<attend_self_attention_options>(threads)),
        allocates_(allocates) {
    weights_.size = sizeof weights_;
    for (int i = 0; i < 3; ++i) {
      w_.emplace_back(dtype, features / heads, features, heads, Layout::contiguous_rows);
      b_.emplace_back(dtype, features / heads, 1, heads);
    }
    weights_.w_q = &w_[0].tensor, weights_.w_k = &w_[1].tensor, weights_.w_v = &w_[2].tensor;
    weights_.b_q = &b_[0].tensor, weights_.b_k = &b_[1].tensor, weights_.b_v = &b_[2].tensor;
    if (projects) weights_.w_o = &w_o_.tensor, weights_.b_o = &b_o_.tensor;
  }

  const char *missing(const Library &library) const override {
    return library.self_attention ? nullptr : "attend_self_attention";
  }
  void prepare(const Library &library) override {
    uint64_t bytes = 0;
    options_.settle();
    const attend_status status =
        library.self_attention_workspace(&x_.tensor, &weights_, &out_.tensor, options_.to(library), nullptr, &bytes);
    workspace_.give(status, bytes, options_);
  }
  attend_status call(const Library &library) const {
    const attend_self_attention_options *const options = allocates_ ? nullptr : options_.to(library);
    return library.self_attention(&x_.tensor, &weights_, &out_.tensor, options, nullptr);
  }

 private:
  Array x_, out_, w_o_, b_o_;
  std::deque<Array> w_, b_;  // of q, k, v
  attend_self_attention_weights weights_ = {};
  Passed<attend_self_attention_options> options_;
  GrowingWorkspace workspace_;
  bool allocates_;
};

}  // namespace attend::bench::against

#endif  // ATTEND_BENCH_AGAINST_PROBLEMS_HPP
