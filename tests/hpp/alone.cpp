// The C++ header first, and twice; whoever needs less includes what it consists of.
#include <attend/attend.hpp>
// (clang-format makes one of two that stand together.)
#include <attend/attend.hpp>
