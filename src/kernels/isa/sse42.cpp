#include "kernels/simd_sse42.hpp"
// Nobody runs quantized models on such CPUs: generic's.
#define ATTEND_NO_INTEGERS
#define ATTEND_ISA sse42
#include "kernels/define_table.hpp"
