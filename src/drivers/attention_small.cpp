#include "drivers/attention_small.hpp"

#include "drivers/attention.hpp"

namespace attend {
namespace {

// FMAs below which the general way would not use threads either.
constexpr int64_t kMostWork = 1 << 17;

const auto &attention_kernel(const KernelTable &kernels, float) { return kernels.attention_f32; }
const auto &attention_kernel(const KernelTable &kernels, double) { return kernels.attention_f64; }
const auto &matmul_kernel(const KernelTable &kernels, float) { return kernels.matmul_f32; }
const auto &matmul_kernel(const KernelTable &kernels, double) { return kernels.matmul_f64; }

template <class T>
bool is_small(int64_t items, int64_t keys, int64_t features, int64_t value_features) {
  constexpr int64_t kMost = 1 << 16;  // of each, so that the product cannot overflow
  return items <= Contract<T>::kQueryBlock && keys <= Contract<T>::kKeyChunk && features <= kMost &&
         value_features <= kMost && items * keys * (features + value_features) <= kMostWork;
}

template <class T>
void attend(const KernelTable &kernels, const SmallAttention<T> &p, char *scratch) {
  T maximum[Contract<T>::kQueryBlock], sum[Contract<T>::kQueryBlock];
  AttentionBlock<T> x = {};
  x.queries = p.q.columns;
  x.keys = x.visible = p.k.columns;
  x.features = p.q.rows;
  x.value_features = p.v.rows;
  x.q = p.q.data, x.q_feature = p.q.row, x.q_item = p.q.column;
  x.k = p.k.data, x.k_feature = p.k.row, x.k_item = p.k.column;
  x.v = p.v.data, x.v_feature = p.v.rows == 1 ? 1 : p.v.row, x.v_item = p.v.column;
  x.out = p.out.data, x.out_feature = p.v.rows == 1 ? 1 : p.out.row, x.out_item = p.out.column;
  x.scale_log2 = static_cast<T>(p.scale * kLog2E);
  x.maximum = maximum;
  x.sum = sum;
  set_scratch_sizes(x.queries, x.keys, &x);
  x.scratch = reinterpret_cast<T *>(scratch);
  attention_kernel(kernels, T())(x);
}

}  // namespace

template <class T>
bool attention_small(const KernelTable &kernels, const SmallAttention<T> &p, const Execution &execution) {
  if (!is_small<T>(p.q.columns, p.k.columns, p.q.rows, p.v.rows)) return false;
  Need need;
  need.per_thread = attention_block_bytes<T>(p.q.columns, p.k.columns, p.q.rows, p.v.rows);
  const Scratch scratch(execution, need, 1);
  if (scratch.result() != Acquired::ok) return false;
  attend(kernels, p, scratch.of_thread(0));
  return true;
}

template <class T>
bool self_attention_small(const KernelTable &kernels, const SmallSelfAttention<T> &p, const Execution &execution) {
  const int64_t items = p.x.columns, features = p.w_q.rows, value_features = p.w_v.rows;
  if (!is_small<T>(items, items, features, value_features)) return false;
  constexpr int64_t kElement = static_cast<int64_t>(sizeof(T));
  const int64_t qk_bytes = aligned(items * features * kElement);
  Need need;
  need.shared = 2 * qk_bytes + aligned(items * value_features * kElement);
  need.per_thread = attention_block_bytes<T>(items, items, features, value_features);
  const Scratch scratch(execution, need, 1);
  if (scratch.result() != Acquired::ok) return false;

  T *const projected = reinterpret_cast<T *>(scratch.shared());
  T *const panel = reinterpret_cast<T *>(scratch.of_thread(0));
  const auto project = [&](const MatrixView<T> &weight, const MatrixView<T> &bias, int64_t at, MatrixView<T> *to) {
    *to = {projected + at / kElement, weight.rows, items, weight.rows == 1 ? 0 : 1, items == 1 ? 0 : weight.rows};
    return matmul_small<T>(matmul_kernel(kernels, T()), 1, weight, p.x, 0, *to,
                           {bias, panel, need.per_thread / kElement});
  };
  SmallAttention<T> attention;
  attention.out = p.out;
  attention.scale = p.scale;
  if (!project(p.w_q, p.b_q, 0, &attention.q) || !project(p.w_k, p.b_k, qk_bytes, &attention.k) ||
      !project(p.w_v, p.b_v, 2 * qk_bytes, &attention.v)) {
    return false;
  }
  attend(kernels, attention, scratch.of_thread(0));
  return true;
}

template bool attention_small(const KernelTable &, const SmallAttention<float> &, const Execution &);
template bool attention_small(const KernelTable &, const SmallAttention<double> &, const Execution &);
template bool self_attention_small(const KernelTable &, const SmallSelfAttention<float> &, const Execution &);
template bool self_attention_small(const KernelTable &, const SmallSelfAttention<double> &, const Execution &);

}  // namespace attend
