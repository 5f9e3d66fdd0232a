// Arrays of any element type with views of their parts, for tests that compare calls with each other, byte for byte.
#pragma once

#include <memory>

#include "support.hpp"

namespace attend::test {

inline int64_t bytes_of_element(uint32_t dtype) {
  switch (dtype) {
    case ATTEND_F64:
      return 8;
    case ATTEND_F32:
    case ATTEND_I32:
      return 4;
    case ATTEND_BF16:
    case ATTEND_F16:
      return 2;
    default:
      return 1;
  }
}

inline char *element(const attend_tensor &t, int64_t i, int64_t j, int64_t h = 0, int64_t b = 0) {
  const int64_t at = i * t.stride[0] + j * t.stride[1] + h * t.stride[2] + b * t.stride[3];
  return static_cast<char *>(t.data) + at * bytes_of_element(t.dtype);
}

// What is there of dimension `d` from `first` on.
inline attend_tensor along(attend_tensor t, size_t d, int64_t first, int64_t count) {
  t.data = static_cast<char *>(t.data) + first * t.stride[d] * bytes_of_element(t.dtype);
  t.shape[d] = count;
  return t;
}
// The same of one batch, of the only one if there is one.
inline attend_tensor part(const attend_tensor &t, size_t d, int64_t first, int64_t count, int64_t batch = 0) {
  return along(along(t, 3, t.shape[3] == 1 ? 0 : batch, 1), d, first, count);
}

inline bool same_elements(const attend_tensor &a, const attend_tensor &b) {
  bool same = true;
  for (int64_t batch = 0; batch < a.shape[3]; ++batch)
    for (int64_t h = 0; h < a.shape[2]; ++h)
      for (int64_t j = 0; j < a.shape[1]; ++j)
        for (int64_t i = 0; i < a.shape[0]; ++i)
          same &= std::memcmp(element(a, i, j, h, batch), element(b, i, j, h, batch),
                              static_cast<size_t>(bytes_of_element(a.dtype))) == 0;
  return same;
}

// In memory of its own. `order` lists the dimensions from the one contiguous in memory outwards, with `padding` elements
// behind each run of the first.
struct Array {
  attend_tensor t = {};

  Array(uint32_t dtype, const Shape &shape, const std::array<size_t, 4> &order = {0, 1, 2, 3}, int64_t padding = 0)
      : order_(order), padding_(padding) {
    t.dtype = dtype;
    t.rank = 4;
    int64_t reach = 1;
    for (const size_t d : order) {
      t.shape[d] = shape[d];
      t.stride[d] = reach;
      reach *= std::max<int64_t>(1, shape[d]);
      if (d == order[0]) reach += padding;
    }
    bytes_ = static_cast<size_t>(std::max<int64_t>(1, reach) * bytes_of_element(dtype));
    memory_ = std::make_unique<double[]>(bytes_ / 8 + 1);
    t.data = memory_.get();
    fill_with_bytes(0xfe);
  }
  // Another of the same kind.
  Array like(const Shape &shape) const { return Array(t.dtype, shape, order_, padding_); }
  void fill_with_bytes(int byte) { std::memset(t.data, byte, bytes_); }
  bool same_memory(const Array &other) const {
    return bytes_ == other.bytes_ && std::memcmp(t.data, other.t.data, bytes_) == 0;
  }
  // Of the normal distribution, rounded to the type.
  void fill(Random &random, double size = 1) {
    Array wide(ATTEND_F64, {t.shape[0], t.shape[1], t.shape[2], t.shape[3]});
    double *const numbers = static_cast<double *>(wide.t.data);
    for (size_t i = 0; i < wide.bytes_ / 8; ++i) numbers[i] = size * random.normal();
    ok(attend_convert(&wide.t, &t, nullptr));
  }

 private:
  std::array<size_t, 4> order_;
  int64_t padding_;
  size_t bytes_;
  std::unique_ptr<double[]> memory_;
};

}  // namespace attend::test
