// Conformance cases of the ONNX operators, as the folder that ATTEND_ONNX_VECTORS names keeps them: cases.tsv and one
// .npy file a tensor. Nobody here wrote their inputs or results.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "attend/attend.h"

namespace attend::test {

// A row-major array as it was stored; numbers are widened to double besides, for comparisons.
struct OnnxArray {
  std::string dtype;  // float32, float16, bool, int64, ...
  std::vector<int64_t> shape;
  std::vector<char> bytes;
  std::vector<double> values;

  // The same memory as the tensor with shape and strides reversed; float32 and bool only.
  attend_tensor reversed();
};

struct OnnxCase {
  std::string name, op;
  std::map<std::string, double> attributes;
  std::map<std::string, OnnxArray> inputs, outputs;  // by the operator's own names

  double attribute(const std::string &key, double otherwise) const {
    const auto found = attributes.find(key);
    return found == attributes.end() ? otherwise : found->second;
  }
  bool has_input(const std::string &key) const { return inputs.count(key) != 0; }
};

// The cases of one operator; empty, with a message, where ATTEND_ONNX_VECTORS is not set. A folder that is set but
// cannot be read fails the test.
std::vector<OnnxCase> onnx_cases(const std::string &op);

// Every element of `got` (row-major) within rtol and atol of what the case expects; says where not.
bool close(const std::vector<float> &got, const OnnxArray &want, double rtol = 1e-5, double atol = 1e-6);

}  // namespace attend::test
