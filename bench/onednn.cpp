#include "onednn.hpp"

#if defined(ATTEND_HAS_ONEDNN)

#include <omp.h>

#include <memory>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

namespace attend::bench::onednn {
namespace {

using dnnl::memory;

const dnnl::engine &cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

memory wrap(const memory::desc &desc, const float *data) { return memory(desc, cpu(), const_cast<float *>(data)); }

memory::desc dense(const memory::dims &dims, const memory::dims &strides) {
  return memory::desc(dims, memory::data_type::f32, strides);
}

// The two major versions differ in how a primitive is described.
dnnl::softmax_forward make_softmax(const memory::desc &desc, int axis) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::softmax_forward(dnnl::softmax_forward::primitive_desc(
      cpu(), dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, desc, desc, axis));
#else
  return dnnl::softmax_forward(dnnl::softmax_forward::primitive_desc(
      dnnl::softmax_forward::desc(dnnl::prop_kind::forward_inference, desc, axis), cpu()));
#endif
}

dnnl::matmul make_matmul(const memory::desc &a, const memory::desc &b, const memory::desc &c) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul(dnnl::matmul::primitive_desc(cpu(), a, b, c));
#else
  return dnnl::matmul(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, c), cpu()));
#endif
}

}  // namespace

std::string version() {
  omp_set_num_threads(1);
  const dnnl_version_t *v = dnnl_version();
  return std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
}

std::function<void()> softmax(int64_t rows, int64_t columns, bool contiguous_columns, const float *x, float *y) {
  const memory::desc desc =
      contiguous_columns ? dense({columns, rows}, {rows, 1}) : dense({rows, columns}, {columns, 1});
  auto primitive = make_softmax(desc, contiguous_columns ? 1 : 0);
  memory from = wrap(desc, x), to = wrap(desc, y);
  dnnl::stream stream(cpu());
  return [=]() mutable {
    primitive.execute(stream, {{DNNL_ARG_SRC, from}, {DNNL_ARG_DST, to}});
    stream.wait();
  };
}

std::function<void()> attention(int64_t features, int64_t items, int64_t heads, const float *q, const float *scaled_k,
                                const float *v, float *out) {
  const memory::dims item = {items * features, features, 1}, square = {items * items, items, 1};
  const memory::desc items_desc = dense({heads, items, features}, item);
  const memory::desc transposed = dense({heads, features, items}, {items * features, 1, features});
  const memory::desc scores_desc = dense({heads, items, items}, square);
  auto to_scores = make_matmul(items_desc, transposed, scores_desc);
  auto to_output = make_matmul(scores_desc, items_desc, items_desc);
  auto normalise = make_softmax(scores_desc, 2);
  const auto buffer = std::make_shared<std::vector<float>>(static_cast<size_t>(heads * items * items));
  memory queries = wrap(items_desc, q), keys = wrap(transposed, scaled_k), values = wrap(items_desc, v);
  memory scores = wrap(scores_desc, buffer->data()), result = wrap(items_desc, out);
  dnnl::stream stream(cpu());
  return [=]() mutable {
    to_scores.execute(stream, {{DNNL_ARG_SRC, queries}, {DNNL_ARG_WEIGHTS, keys}, {DNNL_ARG_DST, scores}});
    normalise.execute(stream, {{DNNL_ARG_SRC, scores}, {DNNL_ARG_DST, scores}});
    to_output.execute(stream, {{DNNL_ARG_SRC, scores}, {DNNL_ARG_WEIGHTS, values}, {DNNL_ARG_DST, result}});
    stream.wait();
    static_cast<void>(buffer);
  };
}

}  // namespace attend::bench::onednn

#else

namespace attend::bench::onednn {

std::string version() { return ""; }
std::function<void()> softmax(int64_t, int64_t, bool, const float *, float *) { return nullptr; }
std::function<void()> attention(int64_t, int64_t, int64_t, const float *, const float *, const float *, float *) {
  return nullptr;
}

}  // namespace attend::bench::onednn

#endif
