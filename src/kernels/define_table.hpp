// Defines attend_kernels_<ATTEND_ISA>, the only symbol that leaves a file of isa/. Included last.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/attention_fold.hpp"
#include "kernels/matmul.hpp"
#include "kernels/softmax_contiguous.hpp"
#include "kernels/softmax_long.hpp"
#include "kernels/softmax_strided.hpp"

namespace attend {
namespace {

void matmul_f32(const MatmulBlock<float> &x) { matmul(x); }
void matmul_f64(const MatmulBlock<double> &x) { matmul(x); }
void softmax_contiguous_f32(const SoftmaxBlock<float> &x) { softmax_contiguous(x); }
void softmax_contiguous_f64(const SoftmaxBlock<double> &x) { softmax_contiguous(x); }
void softmax_long_f32(const LongSoftmaxBlock<float> &x) { softmax_long(x); }
void softmax_long_f64(const LongSoftmaxBlock<double> &x) { softmax_long(x); }
void softmax_strided_f32(const SoftmaxBlock<float> &x) { softmax_strided(x); }
void softmax_strided_f64(const SoftmaxBlock<double> &x) { softmax_strided(x); }
void attention_f32(const AttentionBlock<float> &x) { attention(x); }
void attention_f64(const AttentionBlock<double> &x) { attention(x); }
void attention_fold_f32(const FoldBlock<float> &x) { attention_fold(x); }
void attention_fold_f64(const FoldBlock<double> &x) { attention_fold(x); }

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
    ATTEND_TEXT(ATTEND_ISA),
    attend::kRequired,
#define ATTEND_KERNEL(name, argument) attend::name,
#include "kernels/kernels.def"
#undef ATTEND_KERNEL
};
}
