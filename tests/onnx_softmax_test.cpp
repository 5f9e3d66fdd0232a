// ONNX's Softmax and LogSoftmax cases through the C ABI: any axis is a matter of strides.
#include <utility>

#include "onnx_vectors.hpp"
#include "support.hpp"

using namespace attend::test;

namespace {

void run(const std::string &op, uint32_t flags) {
  int passed = 0;
  for (OnnxCase &c : onnx_cases(op)) {
    INFO(c.name);
    for_each_isa([&] {
      attend_tensor x = c.inputs["input"].reversed(), y = c.outputs["output"].reversed();
      std::vector<float> result(c.outputs["output"].values.size(), 77.0f);
      y.data = result.data();
      const int rank = static_cast<int>(x.rank), axis = static_cast<int>(c.attribute("axis", -1));
      const int row = rank - 1 - (axis < 0 ? axis + rank : axis);
      for (attend_tensor *t : {&x, &y}) {
        std::swap(t->shape[0], t->shape[row]);
        std::swap(t->stride[0], t->stride[row]);
      }
      attend_softmax_options options = {};
      options.size = sizeof options;
      options.flags = flags;
      if (ok(attend_softmax(&x, &y, &options))) passed += close(result, c.outputs["output"]);
    });
  }
  MESSAGE(op << ": passed " << passed);
}

}  // namespace

TEST_CASE("Softmax along any axis") { run("Softmax", 0); }
TEST_CASE("LogSoftmax along any axis") { run("LogSoftmax", ATTEND_LOG); }
