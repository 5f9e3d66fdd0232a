// Products of 8-bit integers; all else is avx512's.
#include <immintrin.h>

#include "kernels/integers_vnni.hpp"
#define ATTEND_ISA avx512vnni
#define ATTEND_FEW_ROWS
#include "kernels/define_table.hpp"
