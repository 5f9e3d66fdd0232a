#include "kernels/simd_avx512.hpp"
#define ATTEND_ISA avx512
#include "kernels/define_table.hpp"
