// C from the sums of a product with 8-bit integers: scales, alpha, beta, bias, and one rounding to C's type.
#pragma once

#include "kernels/convert.hpp"

namespace attend {
namespace {

// Elements of column j from row `first` on.
ATTEND_INLINE const void *element_or_null(const StoredMatrix &m, int64_t first, int64_t j) {
  return m.data == nullptr ? nullptr : element_of(m, first, j);
}

ATTEND_INLINE void scale_to_i32(const ScaleBlock &x, int64_t j) {
  const auto *const sums = static_cast<const int32_t *>(element_or_null(x.sums, 0, j));
  const auto *const bias = static_cast<const int32_t *>(element_or_null(x.bias, 0, j));
  auto *const c = static_cast<int32_t *>(element_of(x.c, 0, j));
  for (int64_t i = 0; i < x.m; ++i) {
    const uint32_t sum = sums == nullptr ? 0u : static_cast<uint32_t>(sums[i]);
    const uint32_t start = bias == nullptr ? 0u : static_cast<uint32_t>(bias[i * x.bias.row_stride]);
    c[i * x.c.row_stride] = static_cast<int32_t>(sum + start);
  }
}

// C0 of `count` rows from `first` on.
ATTEND_INLINE void start_of(const ScaleBlock &x, int64_t first, int64_t count, int64_t j, float *start) {
  const auto widen = [&](const StoredMatrix &m, float *to) {
    convert_by_f32({element_of(m, first, j), to, nullptr, m.row_stride, 1, 0, count, m.type, Dtype::f32});
  };
  if (x.bias.data == nullptr) {
    for (int64_t i = 0; i < count; ++i) start[i] = 0;
  } else {
    widen(x.bias, start);
  }
  if (x.beta == 0) return;
  float before[kConverted];
  widen(x.c, before);
  for (int64_t i = 0; i < count; ++i) start[i] = fused(x.beta, before[i], start[i]);
}

template <class S>
ATTEND_INLINE void add_scaled(const ScaleBlock &x, const S *sums, int64_t first, int64_t count, float of_column,
                              float *c) {
  for (int64_t i = 0; i < count; ++i) {
    const float of_row = x.a_scale.data == nullptr ? 1.0f : x.a_scale.data[(first + i) * x.a_scale.step];
    c[i] = fused(x.alpha, of_row * of_column * static_cast<float>(sums[i]), c[i]);
  }
}

ATTEND_INLINE float column_scale(const ScaleBlock &x, int64_t j) {
  return x.b_scale.data == nullptr ? 1.0f : x.b_scale.data[j * x.b_scale.step];
}

ATTEND_INLINE vec<float> load_sums(const float *sums, int64_t count) { return load_some<float>(sums, count); }
ATTEND_INLINE vec<float> load_sums(const int32_t *sums, int64_t count) {
  float some[kLanes<float>] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = static_cast<float>(sums[i]);
  return load(some);
}

// The same without C0 and with rows side by side, from register to register. (By way of the buffers 1536 x 384 x 128 by
// `dots` took 1.06 times as long.)
template <class S>
void scale_lines(const ScaleBlock &x) {
  constexpr int W = kLanes<float>;
  const vec<float> alpha = broadcast(x.alpha), zero = broadcast(0.0f);
  with_float<float>(x.c.type, [&](auto stored) {
    for (int64_t j = 0; j < x.n; ++j) {
      const auto *const sums = static_cast<const S *>(element_of(x.sums, 0, j));
      auto *const c = static_cast<decltype(stored) *>(element_of(x.c, 0, j));
      const vec<float> of_column = broadcast(column_scale(x, j));
      for (int64_t i = 0; i < x.m; i += W) {
        const int64_t count = smaller<int64_t>(W, x.m - i);
        vec<float> scale = of_column;
        if (x.a_scale.data != nullptr) scale = load_some<float>(x.a_scale.data + i, count) * scale;
        store_some(c + i, fma(alpha, scale * load_sums(sums + i, count), zero), count);
      }
    }
  });
}
ATTEND_INLINE bool is_plain(const ScaleBlock &x) {
  return x.c.type != Dtype::i32 && x.c.row_stride == 1 && x.beta == 0 && x.bias.data == nullptr &&
         x.sums.data != nullptr && (x.a_scale.data == nullptr || x.a_scale.step == 1);
}

void scale(const ScaleBlock &x) {
  if (is_plain(x)) return x.sums.type == Dtype::i32 ? scale_lines<int32_t>(x) : scale_lines<float>(x);
  for (int64_t j = 0; j < x.n; ++j) {
    if (x.c.type == Dtype::i32) {
      scale_to_i32(x, j);
      continue;
    }
    const float of_column = column_scale(x, j);
    for (int64_t first = 0; first < x.m; first += kConverted) {
      const int64_t count = smaller(kConverted, x.m - first);
      float c[kConverted];
      start_of(x, first, count, j, c);
      const void *const sums = element_or_null(x.sums, first, j);
      if (sums != nullptr && x.sums.type == Dtype::i32) {
        add_scaled(x, static_cast<const int32_t *>(sums), first, count, of_column, c);
      } else if (sums != nullptr) {
        add_scaled(x, static_cast<const float *>(sums), first, count, of_column, c);
      }
      convert_by_f32({c, element_of(x.c, first, j), nullptr, 1, x.c.row_stride, 0, count, Dtype::f32, x.c.type});
    }
  }
}

}  // namespace
}  // namespace attend
