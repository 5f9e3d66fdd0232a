// Tables and positions of a rotation, read alike for attend_rotary and attend_kv_append.
#pragma once

#include "api/boundary.hpp"
#include "drivers/rotary.hpp"

namespace attend {

// As what the caller knows them.
struct RotaryNames {
  Argument x, cos, sin;
};

// Fills cos, sin and pairs of a problem that has x and tokens.
attend_status read_tables(const attend_tensor *cos, const attend_tensor *sin, int64_t rotary_dims,
                          const RotaryNames &names, Operands *operands, const Message &message, Rotary *problem);

// Whether the table has them; those of tokens that go nowhere are not looked at.
attend_status check_positions(const Rotary &problem, const RotaryNames &names, const Message &message);

}  // namespace attend
