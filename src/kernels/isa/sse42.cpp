#include "kernels/simd_sse42.hpp"
#define ATTEND_ISA sse42
#include "kernels/define_table.hpp"
