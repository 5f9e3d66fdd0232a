#include "drivers/attention_small.hpp"

#include "drivers/attention.hpp"
#include "drivers/matmul_small.hpp"

namespace attend {
namespace {

// FMAs below which the general way would not use threads either.
constexpr int64_t kMostWork = 1 << 17;

template <class T>
bool is_small(int64_t items, int64_t keys, int64_t features, int64_t value_features) {
  constexpr int64_t kMost = 1 << 16;  // of each, so that the product cannot overflow
  return items <= Contract<T>::kQueryBlock && keys <= Contract<T>::kKeyChunk && features <= kMost &&
         value_features <= kMost && items * keys * (features + value_features) <= kMostWork;
}

template <class T>
int64_t block_bytes(const AttentionLayout &layout) {
  return aligned(layout.end * static_cast<int64_t>(sizeof(T)));
}

template <class T>
AttentionShape shape_of(int64_t items, int64_t keys, int64_t features, int64_t value_features) {
  return {sizeof(T), items, keys, features, value_features, 1, 1, 1, 1, features, 1, false, false};
}

template <class T>
void attend(const KernelsOf<T> &kernels, const SmallAttention<T> &p, const AttentionShape &shape,
            const AttentionLayout &layout, char *scratch) {
  T m[Contract<T>::kQueryBlock], l[Contract<T>::kQueryBlock];
  AttentionBlock<T> x = {};
  x.items = shape.queries;
  x.heads = 1;
  x.keys = x.key_end = shape.keys;
  x.features = shape.features;
  x.value_features = shape.value_features;
  x.q = {p.q.at.data, p.q.at.row_stride, p.q.at.col_stride, 0, dtype_of<T>()};
  x.k = stored<T>(p.k.at);
  x.v = stored<T>(p.v.at);
  if (p.v.rows == 1) x.v.row_stride = 1;
  x.out = {p.out.at.data, p.v.rows == 1 ? 1 : p.out.at.row_stride, p.out.at.col_stride, 0};
  x.scale = static_cast<T>(p.scale);
  x.query_tile = query_tile(sizeof(T), caches());
  x.few_rows = few_rows(p.k.at.row_stride, kernels.attention_lanes);
  x.by_features = x.v.row_stride == 1;
  x.m = m;
  x.l = l;
  x.layout = layout;
  x.scratch = reinterpret_cast<T *>(scratch);
  set_derived(kernels, &x);
  kernels.attention(x);
}

}  // namespace

template <class T>
bool attention_small(const KernelTable &kernels, const SmallAttention<T> &p, const Execution &execution) {
  if (!is_small<T>(p.q.columns, p.k.columns, p.q.rows, p.v.rows)) return false;
  const AttentionShape shape = shape_of<T>(p.q.columns, p.k.columns, p.q.rows, p.v.rows);
  const AttentionLayout layout = attention_layout(shape, shape.queries);
  Need need;
  need.per_thread = block_bytes<T>(layout);
  const Scratch scratch(execution, need, 1);
  if (scratch.result() != Acquired::ok) return false;
  attend(kernels_of<T>(kernels), p, shape, layout, scratch.of_thread(0));
  return true;
}

template <class T>
bool self_attention_small(const KernelTable &kernels, const SmallSelfAttention<T> &p, const Execution &execution) {
  const int64_t items = p.x.columns, features = p.w_q.rows, value_features = p.w_v.rows;
  if (!is_small<T>(items, items, features, value_features)) return false;
  constexpr int64_t kElement = static_cast<int64_t>(sizeof(T));
  const AttentionShape shape = shape_of<T>(items, items, features, value_features);
  const int64_t qk_bytes = aligned(items * features * kElement);
  Need need;
  need.shared = 2 * qk_bytes + aligned(items * value_features * kElement);
  const AttentionLayout layout = attention_layout(shape, items);
  need.per_thread = block_bytes<T>(layout);
  const Scratch scratch(execution, need, 1);
  if (scratch.result() != Acquired::ok) return false;

  T *const projected = reinterpret_cast<T *>(scratch.shared());
  T *const panel = reinterpret_cast<T *>(scratch.of_thread(0));
  const auto project = [&](const MatrixView<const T> &weight, const MatrixRef<const T> &bias, int64_t at,
                           MatrixView<const T> *result) {
    const MatrixView<T> to = {
        {projected + at / kElement, weight.rows == 1 ? 0 : 1, items == 1 ? 0 : weight.rows}, weight.rows, items};
    *result = {{to.at.data, to.at.row_stride, to.at.col_stride}, to.rows, to.columns};
    return matmul_small<T>(kernels_of<T>(kernels).matmul, 1, weight, p.x, 0, to,
                           {bias, panel, need.per_thread / kElement});
  };
  SmallAttention<T> attention;
  attention.out = p.out;
  attention.scale = p.scale;
  if (!project(p.w_q, p.b_q, 0, &attention.q) || !project(p.w_k, p.b_k, qk_bytes, &attention.k) ||
      !project(p.w_v, p.b_v, 2 * qk_bytes, &attention.v)) {
    return false;
  }
  attend(kernels_of<T>(kernels), attention, shape, layout, scratch.of_thread(0));
  return true;
}

template bool attention_small(const KernelTable &, const SmallAttention<float> &, const Execution &);
template bool attention_small(const KernelTable &, const SmallAttention<double> &, const Execution &);
template bool self_attention_small(const KernelTable &, const SmallSelfAttention<float> &, const Execution &);
template bool self_attention_small(const KernelTable &, const SmallSelfAttention<double> &, const Execution &);

}  // namespace attend
