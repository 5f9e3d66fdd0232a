// The portable backend as the tests use it: single lanes, real FMAs, tiles of odd shapes.
#pragma once

#define ATTEND_GENERIC_BYTES 4
#define ATTEND_GENERIC_TILES
#define ATTEND_GENERIC_FMA
#include "kernels/simd_generic.hpp"
// after the backend
#include "kernels/exp.hpp"
