// One table for each kind of problem.
//
// SPDX-License-Identifier: BSD-3-Clause
#include "against_rows.hpp"

#include "against_problems.hpp"

namespace attend::bench::against {
namespace {

constexpr uint32_t F32 = ATTEND_F32, F64 = ATTEND_F64;

// Of A and B: N = contiguous columns, T = contiguous rows, which is a transposition.
struct MatmulRow {
  const char *name;
  uint32_t dtype;
  int64_t m, n, k;
  const char *layouts;
};

constexpr MatmulRow kMatmuls[] = {
    {"sgemm/32", F32, 32, 32, 32, "NN"},
    {"sgemm/64", F32, 64, 64, 64, "NN"},
    {"sgemm/128", F32, 128, 128, 128, "NN"},
    {"sgemm/192", F32, 192, 192, 192, "NN"},
    {"sgemm/256", F32, 256, 256, 256, "NN"},
    {"sgemm/384", F32, 384, 384, 384, "NN"},
    {"sgemm/512", F32, 512, 512, 512, "NN"},
    {"sgemm/768", F32, 768, 768, 768, "NN"},
    {"sgemm/1024", F32, 1024, 1024, 1024, "NN"},
    {"sgemm/256_nt", F32, 256, 256, 256, "NT"},
    {"sgemm/256_tn", F32, 256, 256, 256, "TN"},
    {"sgemm/256_tt", F32, 256, 256, 256, "TT"},
    {"sgemm/1024_nt", F32, 1024, 1024, 1024, "NT"},
    {"sgemm/1024_tn", F32, 1024, 1024, 1024, "TN"},
    {"sgemm/1024_tt", F32, 1024, 1024, 1024, "TT"},
    {"dgemm/64", F64, 64, 64, 64, "NN"},
    {"dgemm/256", F64, 256, 256, 256, "NN"},
    {"dgemm/512", F64, 512, 512, 512, "NN"},
    {"gemv/1024_n", F32, 1024, 1, 1024, "NN"},
    {"gemv/1024_t", F32, 1024, 1, 1024, "TN"},
    {"gemv/4096_n", F32, 4096, 1, 4096, "NN"},
    {"gemv/4096_t", F32, 4096, 1, 4096, "TN"},
    {"small_gemm/8", F32, 8, 8, 8, "NN"},
    {"small_gemm/16", F32, 16, 16, 16, "NN"},
};
constexpr char kRandomMatmuls[] = "small_gemm/20_random_1..64";

struct SoftmaxRow {
  const char *name;
  int64_t rows, columns;
  Layout layout;
  bool is_masked;
};

constexpr Layout kContiguous = Layout::contiguous_columns, kStrided = Layout::contiguous_rows;

constexpr SoftmaxRow kSoftmaxes[] = {
    {"softmax/64x64", 64, 64, kContiguous, false},
    {"softmax/512x512", 512, 512, kContiguous, false},
    {"softmax/1024x1024", 1024, 1024, kContiguous, false},
    {"softmax/4096x256", 4096, 256, kContiguous, false},
    {"softmax/8x8192", 8, 8192, kContiguous, false},
    {"softmax/32x2048", 32, 2048, kContiguous, false},
    {"softmax/64x64_strided", 64, 64, kStrided, false},
    {"softmax/512x512_strided", 512, 512, kStrided, false},
    {"softmax/1024x1024_strided", 1024, 1024, kStrided, false},
    {"softmax/4096x256_strided", 4096, 256, kStrided, false},
    {"softmax/8x8192_strided", 8, 8192, kStrided, false},
    {"softmax/32x2048_strided", 32, 2048, kStrided, false},
    {"softmax/512x512_masked", 512, 512, kContiguous, true},
    {"softmax/512x512_masked_strided", 512, 512, kStrided, true},
};

// An option or a layout of attention, put on a problem that has neither.
using Change = void (*)(Attention &);

const attend_tensor *add(Attention &p, uint32_t dtype, int64_t rows, int64_t columns) {
  return &p.more.emplace_back(dtype, rows, columns).tensor;
}

void plain(Attention &) {}
void causal(Attention &p) { p.options.value.flags = ATTEND_CAUSAL_TOP_LEFT; }
void window_256(Attention &p) {
  p.options.value.flags = ATTEND_CAUSAL_TOP_LEFT | ATTEND_WINDOW;
  p.options.value.window_left = 255;
}
void mask(Attention &p) { p.options.value.mask = add(p, ATTEND_BOOL, p.k.tensor.shape[1], p.q.tensor.shape[1]); }
void bias(Attention &p) { p.options.value.bias = add(p, F32, p.k.tensor.shape[1], p.q.tensor.shape[1]); }
void softcap(Attention &p) { p.options.value.softcap = 20; }
void alibi(Attention &p) {
  p.options.value.alibi_slopes = add(p, F32, p.q.tensor.shape[2], 1);
  for (int64_t h = 0; h < p.q.tensor.shape[2]; ++h) p.more.back().values<float>()[h] = 1.0f / 64;
}
// Heads become a batch, whose sequences have different lengths.
void lengths(Attention &p) {
  static constexpr int64_t kLengths[] = {512, 300, 77, 129};
  for (attend_tensor *t : {&p.q.tensor, &p.k.tensor, &p.v.tensor, &p.out.tensor}) {
    *t = {t->data, t->dtype, 4, {t->shape[0], t->shape[1], 1, 4}, {1, t->stride[1], 0, t->stride[2]}};
  }
  p.options.value.kv_lengths = kLengths;
}
// [N, H, D] in the words of NumPy: the heads of an item lie side by side.
void interleaved(Attention &p) {
  for (attend_tensor *t : {&p.q.tensor, &p.k.tensor, &p.v.tensor, &p.out.tensor}) {
    t->stride[1] = t->shape[0] * t->shape[2];
    t->stride[2] = t->shape[0];
  }
}
void strided_values(Attention &p) {
  p.v.tensor.stride[0] = p.v.tensor.shape[1];
  p.v.tensor.stride[1] = 1;
}

struct AttentionRow {
  const char *name;
  uint32_t dtype;
  int64_t features, queries, keys, heads, kv_heads;
  Change change;
};

constexpr AttentionRow kAttentions[] = {
    {"attention/d64_n32", F32, 64, 32, 32, 1, 1, plain},
    {"attention/d64_n64", F32, 64, 64, 64, 1, 1, plain},
    {"attention/d64_n128", F32, 64, 128, 128, 1, 1, plain},
    {"attention/d64_n256", F32, 64, 256, 256, 1, 1, plain},
    {"attention/d64_n512", F32, 64, 512, 512, 1, 1, plain},
    {"attention/d64_n1024", F32, 64, 1024, 1024, 1, 1, plain},
    {"attention/d64_n2048", F32, 64, 2048, 2048, 1, 1, plain},
    {"attention/d64_n4096", F32, 64, 4096, 4096, 1, 1, plain},
    {"attention/d128_n32", F32, 128, 32, 32, 1, 1, plain},
    {"attention/d128_n64", F32, 128, 64, 64, 1, 1, plain},
    {"attention/d128_n128", F32, 128, 128, 128, 1, 1, plain},
    {"attention/d128_n256", F32, 128, 256, 256, 1, 1, plain},
    {"attention/d128_n512", F32, 128, 512, 512, 1, 1, plain},
    {"attention/d128_n1024", F32, 128, 1024, 1024, 1, 1, plain},
    {"attention/d128_n2048", F32, 128, 2048, 2048, 1, 1, plain},
    {"attention/d128_n4096", F32, 128, 4096, 4096, 1, 1, plain},
    {"attention_f64/d64_n256", F64, 64, 256, 256, 1, 1, plain},
    {"attention_f64/d64_n1024", F64, 64, 1024, 1024, 1, 1, plain},
    {"options/causal_256", F32, 64, 256, 256, 1, 1, causal},
    {"options/causal_1024", F32, 64, 1024, 1024, 1, 1, causal},
    {"options/causal_4096", F32, 64, 4096, 4096, 1, 1, causal},
    {"options/window_256_of_4096", F32, 64, 4096, 4096, 1, 1, window_256},
    {"options/mask_1024", F32, 64, 1024, 1024, 1, 1, mask},
    {"options/bias_1024", F32, 64, 1024, 1024, 1, 1, bias},
    {"options/softcap_1024", F32, 64, 1024, 1024, 1, 1, softcap},
    {"options/alibi_1024", F32, 64, 1024, 1024, 1, 1, alibi},
    {"options/kv_lengths_4x512", F32, 64, 512, 512, 4, 4, lengths},
    {"layouts/heads_8_on_2_n512", F32, 64, 512, 512, 8, 2, plain},
    {"layouts/interleaved_8_heads_n512", F32, 64, 512, 512, 8, 8, interleaved},
    {"layouts/strided_values_n512", F32, 64, 512, 512, 1, 1, strided_values},
    {"decode/1x4096", F32, 128, 1, 4096, 1, 1, plain},
    {"decode/1x65536", F32, 128, 1, 65536, 1, 1, plain},
    {"decode/1x4096_heads_8_on_1", F32, 128, 1, 4096, 8, 1, plain},
    {"decode/4x4096_heads_8_on_1", F32, 128, 4, 4096, 8, 1, plain},
    {"small_attention/d4_n3", F32, 4, 3, 3, 1, 1, plain},
    {"small_attention/d64_n16", F32, 64, 16, 16, 1, 1, plain},
};

struct MergeRow {
  const char *name;
  int64_t features, queries, heads;
};

constexpr MergeRow kMerges[] = {{"merge/d64_n1", 64, 1, 8}, {"merge/d64_n512", 64, 512, 8}};

struct SelfAttentionRow {
  const char *name;
  uint32_t dtype;
  int64_t features, items, heads;
  bool projects, allocates;
};

constexpr SelfAttentionRow kSelfAttentions[] = {
    {"self_attention/d4_n3", F32, 4, 3, 1, false, false},
    {"self_attention/d4_n3_notebook", F64, 4, 3, 1, false, true},
    {"self_attention/d64_n16", F32, 64, 16, 1, false, false},
    {"self_attention/d256_n128_heads_4", F32, 256, 128, 4, true, false},
};

}  // namespace

std::vector<NamedProblem> all_problems(int32_t threads) {
  std::vector<NamedProblem> all;
  const auto layout = [](char letter) { return letter == 'T' ? kStrided : kContiguous; };
  for (const MatmulRow &r : kMatmuls) {
    all.push_back({r.name, [=] {
                     return std::make_unique<Matmul>(r.dtype, r.m, r.n, r.k, layout(r.layouts[0]), layout(r.layouts[1]),
                                                     threads);
                   }});
  }
  all.push_back({kRandomMatmuls, [=] { return std::make_unique<RandomMatmuls>(20, threads); }});
  for (const SoftmaxRow &r : kSoftmaxes) {
    all.push_back(
        {r.name, [=] { return std::make_unique<Softmax>(r.rows, r.columns, r.layout, r.is_masked, threads); }});
  }
  for (const AttentionRow &r : kAttentions) {
    all.push_back({r.name, [=] {
                     auto problem = std::make_unique<Attention>(r.dtype, r.features, r.queries, r.keys, r.heads,
                                                                r.kv_heads, threads);
                     r.change(*problem);
                     return problem;
                   }});
  }
  for (const MergeRow &r : kMerges) {
    all.push_back({r.name, [=] { return std::make_unique<Merge>(r.features, r.queries, r.heads, threads); }});
  }
  for (const SelfAttentionRow &r : kSelfAttentions) {
    all.push_back({r.name, [=] {
                     return std::make_unique<SelfAttention>(r.dtype, r.features, r.items, r.heads, r.projects,
                                                            r.allocates, threads);
                   }});
  }
  return all;
}

}  // namespace attend::bench::against
