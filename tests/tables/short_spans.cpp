// A kernel table whose spans are two chunks of keys, so that small problems have several of them: four floats a vector.
#define ATTEND_KEY_SPAN 512
#define ATTEND_GENERIC_BYTES 16
#define ATTEND_GENERIC_FMA
#include "kernels/simd_generic.hpp"
// after the backend
#define ATTEND_ISA short_spans
#include "kernels/define_table.hpp"
