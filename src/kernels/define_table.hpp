// Defines attend_kernels_<ATTEND_ISA>, the only symbol that leaves a file of isa/. Included last. A file that has but a few
// kernels, for CPUs with one instruction more than those of the row behind it, says which: the others are holes.
#pragma once

#include "kernels/table.hpp"
#ifndef ATTEND_FEW_ROWS
#include "kernels/attention/backward.hpp"
#include "kernels/attention/fold.hpp"
#include "kernels/attention/forward.hpp"
#include "kernels/attention/gradients.hpp"
#include "kernels/convert.hpp"
#ifndef ATTEND_NO_INTEGERS
#include "kernels/integers.hpp"
#endif
#include "kernels/matmul.hpp"
#include "kernels/rotary.hpp"
#include "kernels/scale.hpp"
#include "kernels/softmax_backward.hpp"
#include "kernels/softmax_contiguous.hpp"
#include "kernels/softmax_long.hpp"
#include "kernels/softmax_strided.hpp"
#endif

namespace attend {
namespace {

#ifdef ATTEND_FEW_ROWS
template <class T>
constexpr KernelsOf<T> kKernels = {};
constexpr void (*convert)(const ConvertBlock &) = nullptr;
constexpr void (*scale)(const ScaleBlock &) = nullptr;
#else
template <class T>
constexpr KernelsOf<T> kKernels = {
    kLanes<T>,
    Tiles<T>::kScoreVectors *kLanes<T>,
    Contract<T>::kKeySpan,
#define ATTEND_KERNEL(name, argument) &name<T>,
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
};
#endif
#ifdef ATTEND_NO_INTEGERS
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

#define ATTEND_JOIN_(a, b) a##b
#define ATTEND_JOIN(a, b) ATTEND_JOIN_(a, b)
#define ATTEND_TEXT_(a) #a
#define ATTEND_TEXT(a) ATTEND_TEXT_(a)

extern "C" {
extern const attend::KernelTable ATTEND_JOIN(attend_kernels_, ATTEND_ISA);
const attend::KernelTable ATTEND_JOIN(attend_kernels_, ATTEND_ISA) = {
    ATTEND_TEXT(ATTEND_ISA), attend::kRequired, attend::kKernels<float>, attend::kKernels<double>,
    attend::convert,         attend::integers,  attend::scale,           attend::dots,
};
}
