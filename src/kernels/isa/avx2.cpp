#include "kernels/simd_avx2.hpp"
#define ATTEND_ISA avx2
#include "kernels/define_table.hpp"
