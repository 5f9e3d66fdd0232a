#include "kernels/simd_neon.hpp"
#define ATTEND_ISA neon
#include "kernels/define_table.hpp"
