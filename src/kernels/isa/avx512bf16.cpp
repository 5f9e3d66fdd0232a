// Products of bf16 for those who allow other bits; all else is avx512vnni's.
#include <immintrin.h>

#include "kernels/dots_bf16.hpp"
#define ATTEND_ISA avx512bf16
#define ATTEND_FEW_ROWS
#define ATTEND_NO_INTEGERS
#define ATTEND_DOTS
#include "kernels/define_table.hpp"
