// A kernel table in scalar FMAs with tiles of odd shapes: it reaches edges of the drivers that no real table has, and
// since only the order of operations decides the bits, its results must equal those of AVX2 and AVX-512.
#include "../odd_tiles.hpp"
#define ATTEND_ISA odd_tiles
#include "kernels/define_table.hpp"
