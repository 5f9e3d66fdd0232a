#include "onnx_vectors.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "stored.hpp"

namespace attend::test {
namespace {

template <class T>
void widen_all(OnnxArray *a) {
  std::vector<T> raw(a->bytes.size() / sizeof(T));
  std::memcpy(raw.data(), a->bytes.data(), raw.size() * sizeof(T));
  for (const T &x : raw) a->values.push_back(static_cast<double>(x));
}

// NPY version 1.0: ten bytes, a header of the length that the last two give, the elements.
OnnxArray read_array(const std::string &path, const std::string &dtype, const std::string &shape) {
  OnnxArray a;
  a.dtype = dtype;
  if (shape != "-") {
    std::istringstream in(shape);
    for (std::string n; std::getline(in, n, ',');) a.shape.push_back(std::stoll(n));
  }
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> all{std::istreambuf_iterator<char>(file), {}};
  REQUIRE_MESSAGE(all.size() >= 10, path);
  const size_t header = 10 + static_cast<unsigned char>(all[8]) + 256u * static_cast<unsigned char>(all[9]);
  a.bytes.assign(all.begin() + static_cast<std::ptrdiff_t>(header), all.end());
  a.widen();
  size_t count = 1;
  for (const int64_t n : a.shape) count *= static_cast<size_t>(n);
  REQUIRE_MESSAGE(a.values.size() == count, path);
  return a;
}

}  // namespace

void OnnxArray::widen() {
  values.clear();
  if (dtype == "float32") widen_all<float>(this);
  if (dtype == "float64") widen_all<double>(this);
  if (dtype == "int64") widen_all<int64_t>(this);
  if (dtype == "int32") widen_all<int32_t>(this);
  if (dtype == "uint8" || dtype == "bool") widen_all<uint8_t>(this);
  if (dtype == "int8") widen_all<int8_t>(this);
  if (dtype == "float16") {
    std::vector<uint16_t> raw(bytes.size() / 2);
    std::memcpy(raw.data(), bytes.data(), bytes.size());
    for (const uint16_t h : raw) values.push_back(number_in(ATTEND_F16, h));
  }
}

attend_tensor OnnxArray::reversed() {
  const std::map<std::string, uint32_t> types = {{"bool", ATTEND_BOOL}, {"float16", ATTEND_F16},
                                                 {"int8", ATTEND_I8},   {"uint8", ATTEND_U8},
                                                 {"int32", ATTEND_I32}, {"float32", ATTEND_F32}};
  attend_tensor t = {bytes.data(), types.at(dtype), static_cast<uint32_t>(shape.size()), {}, {}};
  if (shape.empty()) t.rank = 1, t.shape[0] = 1;
  int64_t stride = 1;
  for (size_t i = 0; i < shape.size(); ++i) {
    t.shape[i] = shape[shape.size() - 1 - i];
    t.stride[i] = stride;
    stride *= t.shape[i];
  }
  return t;
}

std::vector<OnnxCase> onnx_cases(const std::string &op) {
  std::vector<OnnxCase> cases;
  const char *folder = std::getenv("ATTEND_ONNX_VECTORS");
  if (folder == nullptr) {
    const std::string said = "ATTEND_ONNX_VECTORS is not set: no " + op + " case of ONNX was run";
    MESSAGE(said);
    return cases;
  }
  const std::string root = std::string(folder) + "/";
  std::ifstream list(root + "cases.tsv");
  REQUIRE_MESSAGE(list.good(), root);
  bool wanted = false;
  std::string path;
  for (std::string line; std::getline(list, line);) {
    std::vector<std::string> field;
    std::istringstream in(line);
    for (std::string f; std::getline(in, f, '\t');) field.push_back(f);
    if (field.empty()) continue;
    if (field[0] == "C") {
      wanted = field[2] == op;
      path = root + field[5] + "/";
      if (wanted) {
        cases.emplace_back();
        cases.back().name = field[1];
        cases.back().op = op;
      }
    } else if (wanted && field[0] == "A" && field[2] != "s") {
      cases.back().attributes[field[1]] = std::stod(field[3]);
    } else if (wanted && (field[0] == "I" || field[0] == "O")) {
      auto &arrays = field[0] == "I" ? cases.back().inputs : cases.back().outputs;
      arrays[field[1]] = read_array(path + field[5], field[3], field[4]);
    }
  }
  REQUIRE_MESSAGE(!cases.empty(), op);
  return cases;
}

bool close(const std::vector<double> &got, const OnnxArray &want) {
  const bool half = want.dtype == "float16";
  const double rtol = half ? 0 : 1e-5, atol = half ? 0 : 1e-6;
  CHECK(got.size() == want.values.size());
  for (size_t i = 0; i < std::min(got.size(), want.values.size()); ++i) {
    const double g = half ? number_in(ATTEND_F16, nearest_in(ATTEND_F16, got[i])) : got[i], w = want.values[i];
    if (g == w || (std::isnan(g) && std::isnan(w)) || std::fabs(g - w) <= atol + rtol * std::fabs(w)) continue;
    INFO("element " << i << ": " << g << ", expected " << w);
    CHECK(false);
    return false;
  }
  return got.size() == want.values.size();
}

}  // namespace attend::test
