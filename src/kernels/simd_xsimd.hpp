// What the backends built on xsimd have in common. Included by them after <xsimd/xsimd.hpp> with ATTEND_ARCH defined.
// The architecture is always spelled out: plain xsimd::batch<T> means something else in every file.
#pragma once

namespace attend {
namespace {

template <class T>
using vec = xsimd::batch<T, ATTEND_ARCH>;
template <class T>
using vec_bool = xsimd::batch_bool<T, ATTEND_ARCH>;
template <class T>
constexpr int kLanes = static_cast<int>(vec<T>::size);

template <class T>
ATTEND_INLINE vec<T> broadcast(T x) {
  return vec<T>(x);
}
template <class T>
ATTEND_INLINE vec<T> load(const T *p) {
  return vec<T>::load_unaligned(p);
}
template <class T>
ATTEND_INLINE vec<T> loaded_once(vec<T> v) {
#if defined(__x86_64__)
  __asm__("" : "+v"(v.data));
#endif
  return v;
}
template <class T>
ATTEND_INLINE void store(T *p, vec<T> v) {
  v.store_unaligned(p);
}
template <class T>
ATTEND_INLINE vec<T> select(vec_bool<T> which, vec<T> yes, vec<T> no) {
  return xsimd::select(which, yes, no);
}
template <class T>
ATTEND_INLINE bool any(vec_bool<T> b) {
  return xsimd::any(b);
}
template <class T>
ATTEND_INLINE bool all(vec_bool<T> b) {
  return xsimd::all(b);
}
template <class T>
ATTEND_INLINE vec<T> divide(vec<T> a, vec<T> b) {
  return a / b;
}
template <class T>
ATTEND_INLINE vec<T> round(vec<T> v) {
  return xsimd::nearbyint(v);
}

}  // namespace
}  // namespace attend
