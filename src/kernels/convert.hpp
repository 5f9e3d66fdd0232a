// y = x between any two element types, a line of elements at a time through a buffer of f32, or of f64 where either type
// needs it. The scale comes between: from integers and f8e4m3 it is multiplied by, to them divided by (a reciprocal
// would differ now and then).
#pragma once

#include "kernels/pack.hpp"

namespace attend {
namespace {

constexpr int64_t kConverted = 256;  // elements at a time, a multiple of every vector

// The nearest f32, but for its last bit, which tells whether anything was lost: what is rounded from it to fewer bits is
// rounded as if from v (Boldo and Melquiond).
ATTEND_INLINE float rounded_to_odd(double v) {
  const auto nearest = static_cast<float>(v);
  uint32_t bits = bits_of(nearest);
  const double back = static_cast<double>(nearest);
  if (back == v || v != v) return nearest;
  if ((back < 0 ? -back : back) > (v < 0 ? -v : v)) --bits;
  return float_of(bits | 1u);
}

ATTEND_INLINE void narrow_double(double v, double *to) { *to = v; }
ATTEND_INLINE void narrow_double(double v, float *to) { *to = static_cast<float>(v); }
ATTEND_INLINE void narrow_double(double v, int32_t *to) {
  constexpr double kUnits = 0x1.8p52, kLeast = -2147483648.0, kMost = 2147483647.0;
  v = v != v ? 0 : v < kLeast ? kLeast : v > kMost ? kMost : v;
  *to = static_cast<int32_t>(v + kUnits - kUnits);
}
template <class S>
ATTEND_INLINE void narrow_double(double v, S *to) {
  narrow(rounded_to_odd(v), to);
}
ATTEND_INLINE double widened(int32_t v) { return static_cast<double>(v); }

// Those that f32 holds, and all.
template <class F>
ATTEND_INLINE void with_stored(Dtype type, const F &f) {
  if (type == Dtype::u8) return f(uint8_t());
  with_key_or_value<float>(type, f);
}
template <class F>
ATTEND_INLINE void with_any(Dtype type, const F &f) {
  if (type == Dtype::f64) return f(double());
  if (type == Dtype::i32) return f(int32_t());
  with_stored(type, f);
}

// One line: elements of x and y `step`s apart, and of the scale, if there is one.
struct ConvertedLine {
  const void *x;
  void *y;
  const float *scale;
  int64_t x_step, y_step, scale_step, count;
  Dtype x_type, y_type;
};

// Within +-bound; NaN stays.
template <class T>
ATTEND_INLINE vec<T> bounded(vec<T> v, vec<T> bound) {
  const vec<T> minus = broadcast(T(-1)), least = bound * minus;
  return maximum(least, maximum(least, v) * minus) * minus;
}

template <class T>
ATTEND_INLINE void apply_scale(const ConvertedLine &line, T *values) {
  const bool divides = takes_scale(line.y_type);
  const T bound = line.y_type == Dtype::i8 ? T(127) : T(0);
  if (line.scale_step == 0) {  // one for the whole line
    constexpr int W = kLanes<T>;
    const vec<T> scale = broadcast(static_cast<T>(*line.scale));
    for (int64_t i = 0; i < line.count; i += W) {
      const int64_t count = smaller<int64_t>(W, line.count - i);
      vec<T> v = load_some<T>(values + i, count);
      v = divides ? divide(v, scale) : v * scale;
      store_some(values + i, bound != T(0) ? bounded(v, broadcast(bound)) : v, count);
    }
    return;
  }
  for (int64_t i = 0; i < line.count; ++i) {
    const T scale = static_cast<T>(line.scale[i * line.scale_step]);
    T v = divides ? values[i] / scale : values[i] * scale;
    if (bound != T(0)) v = v < -bound ? -bound : v > bound ? bound : v;
    values[i] = v;
  }
}

inline void convert_by_f64(const ConvertedLine &line) {
  double values[kConverted];
  with_any(line.x_type, [&](auto stored) {
    const auto *x = static_cast<const decltype(stored) *>(line.x);
    for (int64_t i = 0; i < line.count; ++i) values[i] = static_cast<double>(widened(x[i * line.x_step]));
  });
  if (line.scale != nullptr) apply_scale(line, values);
  with_any(line.y_type, [&](auto stored) {
    auto *y = static_cast<decltype(stored) *>(line.y);
    for (int64_t i = 0; i < line.count; ++i) narrow_double(values[i], y + i * line.y_step);
  });
}

__attribute__((noinline)) void convert_by_f32(const ConvertedLine &line) {
  constexpr int W = kLanes<float>;
  float buffer[kConverted];
  // f32 side by side is a buffer itself.
  float *values = line.y_type == Dtype::f32 && line.y_step == 1 ? static_cast<float *>(line.y) : buffer;
  if (line.x_type == Dtype::f32 && line.x_step == 1 && line.scale == nullptr) {
    values = static_cast<float *>(const_cast<void *>(line.x));  // only read
  } else {
    with_stored(line.x_type, [&](auto stored) {
      const auto *x = static_cast<const decltype(stored) *>(line.x);
      int64_t i = 0;
      for (; line.x_step == 1 && i < line.count; i += W) {
        const int64_t count = smaller<int64_t>(W, line.count - i);
        store_some(values + i, load_some<float>(x + i, count), count);
      }
      for (; i < line.count; ++i) values[i] = widened(x[i * line.x_step]);
    });
  }
  if (line.scale != nullptr) apply_scale(line, values);
  if (values == line.y) return;
  with_stored(line.y_type, [&](auto stored) {
    auto *y = static_cast<decltype(stored) *>(line.y);
    int64_t i = 0;
    for (; line.y_step == 1 && i < line.count; i += W) {
      const int64_t count = smaller<int64_t>(W, line.count - i);
      store_some(y + i, load_some<float>(values + i, count), count);
    }
    for (; i < line.count; ++i) narrow(values[i], y + i * line.y_step);
  });
}

// Elements `step` apart, side by side in T.
template <class T>
ATTEND_INLINE void load_line(const void *from, int64_t step, Dtype type, int64_t count, T *to) {
  if constexpr (kIsSame<T, float>) {
    convert_by_f32({from, to, nullptr, step, 1, 0, count, type, Dtype::f32});
  } else {
    const T *x = static_cast<const T *>(from);
    for (int64_t i = 0; i < count; ++i) to[i] = x[i * step];
  }
}

// And back.
template <class T>
ATTEND_INLINE void store_line(const T *from, int64_t count, void *to, int64_t step, Dtype type) {
  if constexpr (kIsSame<T, float>) {
    convert_by_f32({from, to, nullptr, 1, step, 0, count, Dtype::f32, type});
  } else {
    T *const y = static_cast<T *>(to);
    for (int64_t i = 0; i < count; ++i) y[i * step] = from[i];
  }
}

void convert(const ConvertBlock &block) {
  ConvertBlock b = block;
  // Along what is contiguous, or longer.
  const auto turned = [](auto m) {
    auto t = m;
    t.row_stride = m.col_stride;
    t.col_stride = m.row_stride;
    return t;
  };
  const int by_rows = (b.x.row_stride == 1) + (b.y.row_stride == 1),
            by_columns = (b.x.col_stride == 1) + (b.y.col_stride == 1);
  if (by_columns > by_rows || (by_columns == by_rows && b.columns > b.rows)) {
    b.x = turned(b.x), b.y = turned(b.y), b.scale = turned(b.scale);
    b.rows = block.columns, b.columns = block.rows;
  }
  const auto needs_f64 = [](Dtype type) { return type == Dtype::f64 || type == Dtype::i32; };
  for (int64_t j = 0; j < b.columns; ++j) {
    for (int64_t i = 0; i < b.rows; i += kConverted) {
      const float *scale =
          b.scale.data == nullptr ? nullptr : b.scale.data + i * b.scale.row_stride + j * b.scale.col_stride;
      const ConvertedLine line = {
          element_of(b.x, i, j), element_of(b.y, i, j),           scale,    b.x.row_stride, b.y.row_stride,
          b.scale.row_stride,    smaller(kConverted, b.rows - i), b.x.type, b.y.type};
      needs_f64(b.x.type) || needs_f64(b.y.type) ? convert_by_f64(line) : convert_by_f32(line);
    }
  }
}

}  // namespace
}  // namespace attend
