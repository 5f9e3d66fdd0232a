// The flag that is accepted before any function does something with it.
#include "operands.hpp"

using namespace operands;

TEST_CASE("ATTEND_NATIVE_DOT is accepted by every function, without effect") {
  for (int f = 0; f < kFunctions; ++f) {
    const auto plain = make(f), flagged = make(f);
    INFO(plain->function);
    for (Head &head : flagged->heads) *head.flags |= ATTEND_NATIVE_DOT;
    expect_success(*plain);
    expect_success(*flagged);
    CHECK(plain->memory() == flagged->memory());
  }
}
