#include "kernels/simd_avx512.hpp"
// The steps that are worth it are VNNI's, whose kernel waits for a CPU to run on: AVX2's until then.
#define ATTEND_NO_INTEGERS
#define ATTEND_ISA avx512
#include "kernels/define_table.hpp"
