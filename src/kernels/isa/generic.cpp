#include "kernels/simd_generic.hpp"
#define ATTEND_ISA generic
#include "kernels/define_table.hpp"
