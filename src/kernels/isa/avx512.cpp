#include "kernels/simd_avx512.hpp"
// The steps that are worth it are VNNI's, which avx512vnni has: AVX2's without it.
#define ATTEND_NO_INTEGERS
#define ATTEND_ISA avx512
#include "kernels/define_table.hpp"
