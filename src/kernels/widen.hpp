// Vectors of stored elements: load_as and store_as of all lanes, load_some and store_some of the first ones, which touch no
// memory behind them. A backend that knows better than a lane at a time defines ATTEND_STORED_VECTORS, and widened_lanes
// and narrow_lanes for each type.
#pragma once

#include "kernels/simd.hpp"
#include "kernels/stored.hpp"

namespace attend {
namespace {

#ifndef ATTEND_STORED_VECTORS
template <class S>
ATTEND_INLINE vec<float> widened_lanes(const S *p) {
  float r[kLanes<float>];
  for (int i = 0; i < kLanes<float>; ++i) r[i] = widened(p[i]);
  return load(r);
}
template <class S>
ATTEND_INLINE void narrow_lanes(S *p, vec<float> v) {
  float r[kLanes<float>];
  store(r, v);
  for (int i = 0; i < kLanes<float>; ++i) narrow(r[i], p + i);
}
#endif
#ifndef ATTEND_BYTES_OF  // defined by backends that have a better way
template <int F>
ATTEND_INLINE vec<float> bytes_of(const int8_t (*p)[4]) {
  float r[kLanes<float>];
  for (int i = 0; i < kLanes<float>; ++i) r[i] = widened(p[i][F]);
  return load(r);
}
#endif

// Any bytes, as a vector of as many bits.
#ifdef ATTEND_STORED_VECTORS
// (Not by way of an array: g++ 12 copies it in halves, which the load of the whole then waits for.)
ATTEND_INLINE vec<float> load_bits(const void *p) { return load(static_cast<const float *>(p)); }
ATTEND_INLINE void store_bits(void *p, vec<float> v) { store(static_cast<float *>(p), v); }
#else  // where a load may be one of each element, which must be aligned
ATTEND_INLINE vec<float> load_bits(const void *p) {
  float r[kLanes<float>];
  __builtin_memcpy(r, p, sizeof r);
  return load(r);
}
ATTEND_INLINE void store_bits(void *p, vec<float> v) {
  float r[kLanes<float>];
  store(r, v);
  __builtin_memcpy(p, r, sizeof r);
}
#endif

template <class T, class S>
ATTEND_INLINE vec<T> load_as(const S *p) {
  if constexpr (kIsSame<T, S>) {
    return load(p);
  } else {
    return widened_lanes(p);
  }
}
template <class T, class S>
ATTEND_INLINE void store_as(S *p, vec<T> v) {
  if constexpr (kIsSame<T, S>) {
    store(p, v);
  } else {
    narrow_lanes(p, v);
  }
}

// The ends of lines are many places and little work.
template <class T, class S>
__attribute__((noinline)) vec<T> load_end(const S *p, int64_t count) {
  S lanes[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return widened_lanes(lanes);
}
template <class T, class S>
__attribute__((noinline)) void store_end(S *p, vec<T> v, int64_t count) {
  S lanes[kLanes<T>];
  narrow_lanes(lanes, v);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

// The first `count` lanes, 1 <= count <= kLanes<T>; those behind are 0.
template <class T, class S>
ATTEND_INLINE vec<T> load_some(const S *p, int64_t count) {
  if (count == kLanes<T>) return load_as<T>(p);
  if constexpr (kIsSame<T, S>) {
    return load(p, Tail<T>(count));
  } else {
    return load_end<T>(p, count);
  }
}
template <class T, class S>
ATTEND_INLINE void store_some(S *p, vec<T> v, int64_t count) {
  if (count == kLanes<T>) return store_as<T>(p, v);
  if constexpr (kIsSame<T, S>) {
    store(p, v, Tail<T>(count));
  } else {
    store_end<T>(p, v, count);
  }
}

}  // namespace
}  // namespace attend
