// attend: element types, for attend.hpp.
//
// SPDX-License-Identifier: BSD-3-Clause
//
// C++ has float, double, integers and bool. The narrow floating-point types are known by whatever holds their bits: a
// type of the compiler's, of a library's, or of your own, of the same size. Say once which it is,
//
//     struct bf16 { std::uint16_t bits; };
//     struct f8 { std::uint8_t bits; };
//     template <> struct attend::element<bf16> { static constexpr std::uint32_t dtype = ATTEND_BF16; };
//     template <> struct attend::element<f8> { static constexpr std::uint32_t dtype = ATTEND_F8E4M3; };
//     template <> struct attend::element<_Float16> { static constexpr std::uint32_t dtype = ATTEND_F16; };
//
// and vectors, spans and matrices of it are operands and results like those of float:
//
//     const auto narrow = attend::convert<bf16>(attend::tensor(x, {n, d}));
//     auto out = attend::attention(narrow, attend::tensor(k, {n, d}), attend::tensor(v, {n, d}));  // of bf16, as q is
//
// Memory of bare bits, std::uint16_t *bits, is viewed as attend::tensor(reinterpret_cast<bf16 *>(bits), {n, d}).
#ifndef ATTEND_ELEMENT_HPP
#define ATTEND_ELEMENT_HPP

#include <attend/status.hpp>
#include <cstdint>

namespace attend {
inline namespace ATTEND_HPP_NAMESPACE {

// The ATTEND_ constant of an element type.
template <class T>
struct element;
template <>
struct element<float> {
  static constexpr std::uint32_t dtype = ATTEND_F32;
};
template <>
struct element<double> {
  static constexpr std::uint32_t dtype = ATTEND_F64;
};
template <>
struct element<bool> {
  static constexpr std::uint32_t dtype = ATTEND_BOOL;
};
// A number; where a mask is expected, zero or not.
template <>
struct element<std::uint8_t> {
  static constexpr std::uint32_t dtype = ATTEND_U8;
};
template <>
struct element<std::int8_t> {
  static constexpr std::uint32_t dtype = ATTEND_I8;
};
template <>
struct element<std::int32_t> {
  static constexpr std::uint32_t dtype = ATTEND_I32;
};

}  // namespace ATTEND_HPP_NAMESPACE
}  // namespace attend

#endif  // ATTEND_ELEMENT_HPP
