#include "onednn.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <vector>

#include "peer_kernels.hpp"

namespace attend::bench::onednn {
namespace {

// What is needed of oneDNN's C interface, version 3: its objects are pointers to what only it knows.
using Object = void *;
using Dims = int64_t[12];
constexpr int kCpu = 1, kF32 = 3, kForwardInference = 96, kSoftmaxAccurate = 0x30000, kInOrder = 1;
constexpr int kSource = 1, kResult = 17, kWeights = 33, kQueryImplementation = 8;
struct Argument {
  int number;
  Object memory;
};
struct Version {
  int major, minor, patch;
};

struct Interface {
  const Version *(*version)() = nullptr;
  int (*effective_isa)() = nullptr;
  int (*engine_create)(Object *, int kind, size_t index) = nullptr;
  int (*stream_create)(Object *, Object engine, unsigned flags) = nullptr;
  int (*stream_wait)(Object) = nullptr;
  int (*desc_create)(Object *, int rank, const int64_t *dims, int type, const int64_t *strides) = nullptr;
  int (*memory_create)(Object *, Object desc, Object engine, void *data) = nullptr;
  int (*softmax_create)(Object *, Object engine, int kind, int algorithm, Object from, Object to, int axis,
                        Object attributes) = nullptr;
  int (*matmul_create)(Object *, Object engine, Object a, Object b, Object bias, Object c, Object attributes) = nullptr;
  int (*query)(Object description, int what, int index, void *answer) = nullptr;
  int (*primitive_create)(Object *, Object description) = nullptr;
  int (*execute)(Object, Object stream, int count, const Argument *) = nullptr;

  Object engine = nullptr, stream = nullptr;
  std::string text, kernels, left_out;
};

template <class Function>
bool find(void *library, const char *name, Function *function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

void open(Interface *api) {
  const char *path = std::getenv("ATTEND_BENCH_ONEDNN_PRIMITIVES");
  if (path == nullptr) path = std::getenv("ATTEND_BENCH_ONEDNN");
  void *library = dlopen(path == nullptr ? "libdnnl.so.3" : path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return;
  void (*set_threads)(int) = nullptr;
  if (find(RTLD_DEFAULT, "omp_set_num_threads", &set_threads)) set_threads(1);
  const bool is_whole = find(library, "dnnl_version", &api->version) &&
                        find(library, "dnnl_get_effective_cpu_isa", &api->effective_isa) &&
                        find(library, "dnnl_engine_create", &api->engine_create) &&
                        find(library, "dnnl_stream_create", &api->stream_create) &&
                        find(library, "dnnl_stream_wait", &api->stream_wait) &&
                        find(library, "dnnl_memory_desc_create_with_strides", &api->desc_create) &&
                        find(library, "dnnl_memory_create", &api->memory_create) &&
                        find(library, "dnnl_softmax_forward_primitive_desc_create", &api->softmax_create) &&
                        find(library, "dnnl_matmul_primitive_desc_create", &api->matmul_create) &&
                        find(library, "dnnl_primitive_desc_query", &api->query) &&
                        find(library, "dnnl_primitive_create", &api->primitive_create) &&
                        find(library, "dnnl_primitive_execute", &api->execute);
  if (!is_whole || api->version()->major != 3) return;
  const Version *v = api->version();
  const std::string text = std::to_string(v->major) + "." + std::to_string(v->minor) + "." + std::to_string(v->patch);
  const Vectors used = vectors_of_onednn(static_cast<unsigned>(api->effective_isa()));
  api->kernels = name_of(used);
  api->left_out = why_left_out(api->kernels, used, vectors_of_cpu());
  if (api->left_out.empty() && (api->engine_create(&api->engine, kCpu, 0) != 0 ||
                                api->stream_create(&api->stream, api->engine, kInOrder) != 0)) {
    api->left_out = "oneDNN " + text + " has no engine for this CPU (a build for SYCL needs an OpenCL driver)";
  }
  if (api->left_out.empty()) api->text = text;
}

const Interface &api() {
  static const Interface interface = [] {
    Interface made;
    open(&made);
    return made;
  }();
  return interface;
}

// None is ever destroyed: a few hundred bytes for each row of a short program.
Object dense(std::initializer_list<int64_t> dims, std::initializer_list<int64_t> strides) {
  Object desc = nullptr;
  const int rank = static_cast<int>(dims.size());
  Dims d = {}, s = {};
  std::copy(dims.begin(), dims.end(), d);
  std::copy(strides.begin(), strides.end(), s);
  return api().desc_create(&desc, rank, d, kF32, s) == 0 ? desc : nullptr;
}

Object wrap(Object desc, const float *data) {
  Object memory = nullptr;
  api().memory_create(&memory, desc, api().engine, const_cast<float *>(data));
  return memory;
}

// None where all it has is its reference code, a hundred times slower than what one would call instead.
Object primitive_of(int status, Object description) {
  Object primitive = nullptr;
  const char *implementation = nullptr;
  if (status != 0 || api().query(description, kQueryImplementation, 0, &implementation) != 0) return nullptr;
  if (std::strncmp(implementation, "ref", 3) == 0 || api().primitive_create(&primitive, description) != 0)
    return nullptr;
  return primitive;
}

Object make_softmax(Object desc, int axis) {
  Object description = nullptr;
  const int status =
      api().softmax_create(&description, api().engine, kForwardInference, kSoftmaxAccurate, desc, desc, axis, nullptr);
  return primitive_of(status, description);
}

Object make_matmul(Object a, Object b, Object c) {
  Object description = nullptr;
  const int status = api().matmul_create(&description, api().engine, a, b, nullptr, c, nullptr);
  return primitive_of(status, description);
}

}  // namespace

std::string version() { return api().text; }
std::string kernels() { return api().kernels; }
std::string left_out() { return api().left_out; }

std::function<void()> softmax(int64_t rows, int64_t columns, bool contiguous_columns, const float *x, float *y) {
  const Object desc = contiguous_columns ? dense({columns, rows}, {rows, 1}) : dense({rows, columns}, {columns, 1});
  const Object primitive = make_softmax(desc, contiguous_columns ? 1 : 0);
  if (primitive == nullptr) return nullptr;
  const Object from = wrap(desc, x), to = wrap(desc, y);
  return [=] {
    const Argument arguments[] = {{kSource, from}, {kResult, to}};
    api().execute(primitive, api().stream, 2, arguments);
    api().stream_wait(api().stream);
  };
}

std::function<void()> attention(int64_t features, int64_t items, int64_t heads, const float *q, const float *scaled_k,
                                const float *v, float *out) {
  const Object items_desc = dense({heads, items, features}, {items * features, features, 1});
  const Object transposed = dense({heads, features, items}, {items * features, 1, features});
  const Object scores_desc = dense({heads, items, items}, {items * items, items, 1});
  const Object to_scores = make_matmul(items_desc, transposed, scores_desc);
  const Object to_output = make_matmul(scores_desc, items_desc, items_desc);
  const Object normalise = make_softmax(scores_desc, 2);
  if (to_scores == nullptr || to_output == nullptr || normalise == nullptr) return nullptr;
  const auto buffer = std::make_shared<std::vector<float>>(static_cast<size_t>(heads * items * items));
  const Object queries = wrap(items_desc, q), keys = wrap(transposed, scaled_k), values = wrap(items_desc, v);
  const Object scores = wrap(scores_desc, buffer->data()), result = wrap(items_desc, out);
  return [=] {
    const Argument first[] = {{kSource, queries}, {kWeights, keys}, {kResult, scores}};
    const Argument second[] = {{kSource, scores}, {kResult, scores}};
    const Argument third[] = {{kSource, scores}, {kWeights, values}, {kResult, result}};
    api().execute(to_scores, api().stream, 3, first);
    api().execute(normalise, api().stream, 2, second);
    api().execute(to_output, api().stream, 3, third);
    api().stream_wait(api().stream);
    static_cast<void>(buffer);
  };
}

}  // namespace attend::bench::onednn
