// Conformance cases of the ONNX operators, as the folder that ATTEND_ONNX_VECTORS names keeps them: cases.tsv and one
// .npy file a tensor. Nobody here wrote their inputs or results.
#pragma once

#include <cstddef>
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

  size_t element() const { return dtype == "bool" ? 1 : dtype == "float16" ? 2 : 4; }
  void widen();  // fills `values` from `bytes`
  // The same memory as the tensor with shape and strides reversed; not of float64 and int64.
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

// Every element of `got` (row-major) within 1e-5 |want| + 1e-6 of what the case expects, or, rounded to float16, equal to
// it where that is float16; says where not.
bool close(const std::vector<double> &got, const OnnxArray &want);
inline bool close(const std::vector<float> &got, const OnnxArray &want) {
  return close(std::vector<double>(got.begin(), got.end()), want);
}

}  // namespace attend::test
