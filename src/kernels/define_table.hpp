// Defines attend_kernels_<ATTEND_ISA>, the only symbol that leaves a file of isa/. Included last. A file that has but a few
// kernels, for CPUs with one instruction more than those of the row behind it, says which: the others are holes.
//
// A file of all kernels compiles for minutes: the build makes four objects of it, by ATTEND_UNIT, each with its rows of
// kernels.def and holes. They define attend_kernels_<ATTEND_ISA>_<ATTEND_UNIT>; dispatch/registry.cpp makes one table of them.
#pragma once

#include "kernels/table.hpp"

#define ATTEND_JOIN_(a, b) a##b
#define ATTEND_JOIN(a, b) ATTEND_JOIN_(a, b)
#define ATTEND_TEXT_(a) #a
#define ATTEND_TEXT(a) ATTEND_TEXT_(a)

#define ATTEND_BIT_products 1
#define ATTEND_BIT_columns 2
#define ATTEND_BIT_attention_f32 4
#define ATTEND_BIT_attention_f64 8
#if defined(ATTEND_FEW_ROWS)
#define ATTEND_UNITS 0
#elif defined(ATTEND_UNIT)
#define ATTEND_UNITS ATTEND_JOIN(ATTEND_BIT_, ATTEND_UNIT)
#else
#define ATTEND_UNITS 15
#endif

// A unit's headers are not seen by the others: a change of them compiles it alone.
#if ATTEND_UNITS & ATTEND_BIT_products
#ifndef ATTEND_NO_INTEGERS
#include "kernels/integers.hpp"
#endif
#include "kernels/matmul.hpp"
#define ATTEND_ROW_products(name) of.name = &name<T>;
#else
#define ATTEND_ROW_products(name)
#endif

#if ATTEND_UNITS & ATTEND_BIT_columns
#include "kernels/convert.hpp"
#include "kernels/rotary.hpp"
#include "kernels/scale.hpp"
#include "kernels/softmax_backward.hpp"
#include "kernels/softmax_contiguous.hpp"
#include "kernels/softmax_long.hpp"
#include "kernels/softmax_strided.hpp"
#define ATTEND_ROW_columns(name) of.name = &name<T>;
#else
#define ATTEND_ROW_columns(name)
#endif

#if ATTEND_UNITS & (ATTEND_BIT_attention_f32 | ATTEND_BIT_attention_f64)
#include "kernels/attention/backward.hpp"
#include "kernels/attention/fold.hpp"
#include "kernels/attention/forward.hpp"
#include "kernels/attention/gradients.hpp"
#define ATTEND_ROW_attention(name)                                                                            \
  if constexpr ((ATTEND_UNITS & (sizeof(T) == 4 ? ATTEND_BIT_attention_f32 : ATTEND_BIT_attention_f64)) != 0) \
    of.name = &name<T>;
#else
#define ATTEND_ROW_attention(name)
#endif

namespace attend {
namespace {

template <class T>
constexpr KernelsOf<T> rows() {
  KernelsOf<T> of = {};
#if ATTEND_UNITS != 0
  of.turned_columns = kLanes<T> * sizeof(T) == 64 ? kTurnedColumns : kFewColumns;
  of.attention_lanes = kLanes<T>;
  of.attention_rows = Tiles<T>::kScoreVectors * kLanes<T>;
  of.key_span = Contract<T>::kKeySpan;
#endif
#define ATTEND_KERNEL(name, argument, unit) ATTEND_ROW_##unit(name)
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
  return of;
}
template <class T>
constexpr KernelsOf<T> kKernels = rows<T>();

#if !(ATTEND_UNITS & ATTEND_BIT_columns)
constexpr void (*convert)(const ConvertBlock &) = nullptr;
constexpr void (*scale)(const ScaleBlock &) = nullptr;
#endif
#if !(ATTEND_UNITS & ATTEND_BIT_products) && !defined(ATTEND_FEW_ROWS) || defined(ATTEND_NO_INTEGERS)
constexpr void (*integers)(const IntegerBlock &) = nullptr;
#endif
#ifndef ATTEND_DOTS
constexpr void (*dots)(const IntegerBlock &) = nullptr;
#endif

// What this very file was compiled to need: it cannot drift from the flags, since it comes from the compiler's own
// macros.
constexpr uint64_t kRequired = 0
#if defined(__SSE4_2__)
                               | kSse42
#endif
#if defined(__AVX2__)
                               | kAvx2
#endif
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
                               | kFma
#endif
#if defined(__AVX512F__)
                               | kAvx512F
#endif
#if defined(__AVX512BW__)
                               | kAvx512Bw
#endif
#if defined(__AVX512DQ__)
                               | kAvx512Dq
#endif
#if defined(__AVX512VL__)
                               | kAvx512Vl
#endif
#if defined(__F16C__)
                               | kF16c
#endif
#if defined(__AVX512BF16__)
                               | kAvx512Bf16
#endif
#if defined(__AVX512VNNI__)
                               | kAvx512Vnni
#endif
    ;

}  // namespace
}  // namespace attend

#ifdef ATTEND_UNIT
#define ATTEND_TABLE ATTEND_JOIN(ATTEND_JOIN(attend_kernels_, ATTEND_ISA), ATTEND_JOIN(_, ATTEND_UNIT))
#else
#define ATTEND_TABLE ATTEND_JOIN(attend_kernels_, ATTEND_ISA)
#endif

extern "C" {
extern const attend::KernelTable ATTEND_TABLE;
const attend::KernelTable ATTEND_TABLE = {
    ATTEND_TEXT(ATTEND_ISA), attend::kRequired, attend::kKernels<float>, attend::kKernels<double>,
    attend::convert,         attend::integers,  attend::scale,           attend::dots,
};
}
