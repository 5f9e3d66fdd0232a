// ONNX's Gemm and MatMul cases through the C ABI. A row-major A @ B is matmul(B, A) of the reversed views.
#include <utility>

#include "onnx_vectors.hpp"
#include "support.hpp"

using namespace attend::test;

namespace {

// Inserts a dimension of extent 1 at `at`.
void insert(attend_tensor *t, uint32_t at) {
  for (uint32_t i = t->rank; i > at; --i) t->shape[i] = t->shape[i - 1], t->stride[i] = t->stride[i - 1];
  t->shape[at] = 1;
  t->stride[at] = 0;
  ++t->rank;
}

void transpose(attend_tensor *t) {
  std::swap(t->shape[0], t->shape[1]);
  std::swap(t->stride[0], t->stride[1]);
}

}  // namespace

TEST_CASE("Gemm: alpha A B + beta C") {
  int passed = 0;
  for (OnnxCase &c : onnx_cases("Gemm")) {
    INFO(c.name);
    for_each_isa([&] {
      attend_tensor a = c.inputs["A"].reversed(), b = c.inputs["B"].reversed(), y = c.outputs["Y"].reversed();
      if (c.attribute("transA", 0) != 0) transpose(&a);
      if (c.attribute("transB", 0) != 0) transpose(&b);
      std::vector<float> result(c.outputs["Y"].values.size(), 77.0f);
      y.data = result.data();
      // C broadcasts to Y and is scaled by beta: it goes where beta reads it.
      const double beta = c.has_input("C") ? c.attribute("beta", 1) : 0;
      if (c.has_input("C")) {
        const attend_tensor from = c.inputs["C"].reversed();
        for (int64_t j = 0; j < y.shape[1]; ++j) {
          for (int64_t i = 0; i < y.shape[0]; ++i) {
            const int64_t row = from.shape[0] == 1 ? 0 : i, column = from.rank < 2 || from.shape[1] == 1 ? 0 : j;
            result[static_cast<size_t>(j * y.shape[0] + i)] =
                static_cast<const float *>(from.data)[row * from.stride[0] + column * from.stride[1]];
          }
        }
      }
      if (ok(attend_matmul(c.attribute("alpha", 1), &b, &a, beta, &y, nullptr)))
        passed += close(result, c.outputs["Y"]);
    });
  }
  MESSAGE("passed " << passed);
}

TEST_CASE("MatMul: batches and vectors, broadcast") {
  int passed = 0;
  for (OnnxCase &c : onnx_cases("MatMul")) {
    INFO(c.name);
    for_each_isa([&] {
      attend_tensor a = c.inputs["A"].reversed(), b = c.inputs["B"].reversed(), y = c.outputs["Y"].reversed();
      std::vector<float> result(c.outputs["Y"].values.size(), 77.0f);
      y.data = result.data();
      // A vector is a row on the left and a column on the right; its dimension is absent from the result.
      const bool left = a.rank == 1, right = b.rank == 1, scalar = left && right;
      if (left) insert(&a, 1);
      if (right) insert(&b, 0);
      if (right && !scalar) insert(&y, 0);
      if (left && !scalar) insert(&y, 1);
      if (ok(attend_matmul(1, &b, &a, 0, &y, nullptr))) passed += close(result, c.outputs["Y"]);
    });
  }
  MESSAGE("passed " << passed);
}

TEST_CASE("MatMulInteger: sums of integers less their zero points, exact") {
  int passed = 0;
  for (OnnxCase &c : onnx_cases("MatMulInteger")) {
    INFO(c.name);
    for_each_isa([&] {
      attend_tensor a = c.inputs["A"].reversed(), b = c.inputs["B"].reversed(), y = c.outputs["Y"].reversed();
      std::vector<int32_t> result(static_cast<size_t>(y.shape[0] * y.shape[1]), 77);
      const void *const wanted = y.data;
      y.data = result.data();
      // A's rows are columns of the reversed view, the right operand.
      attend_matmul_options o = ATTEND_MATMUL_OPTIONS_INIT;
      std::vector<int32_t> zeros[2];
      attend_tensor views[2];
      for (const size_t right : {size_t{0}, size_t{1}}) {
        const char *const name = right == 1 ? "a_zero_point" : "b_zero_point";
        if (!c.has_input(name)) continue;
        attend_tensor stored = c.inputs[name].reversed();
        const int64_t count = stored.rank == 0 ? 1 : stored.shape[0];
        zeros[right].resize(static_cast<size_t>(count));
        views[right] = {
            zeros[right].data(), ATTEND_I32, 2, {right == 1 ? 1 : count, right == 1 ? count : 1, 0, 0}, {1, 1, 0, 0}};
        stored.rank = 2;
        std::copy(views[right].shape, views[right].shape + 4, stored.shape);
        std::copy(views[right].stride, views[right].stride + 4, stored.stride);
        REQUIRE(ok(attend_convert(&stored, &views[right], nullptr)));
        (right == 1 ? o.b_zero : o.a_zero) = &views[right];
      }
      if (!ok(attend_matmul(1, &b, &a, 0, &y, &o))) return;
      const bool equal = std::memcmp(result.data(), wanted, result.size() * sizeof(int32_t)) == 0;
      CHECK(equal);
      passed += equal;
    });
  }
  MESSAGE("passed " << passed);
}
