#include "api/argument.hpp"

const char *attend_status_string(attend_status status) {
  switch (ATTEND_REASON(status)) {
    case ATTEND_OK:
      return "success";
    case ATTEND_NULL_POINTER:
      return "null where a pointer is needed: pass the operand, its data, or (for a workspace) a size of 0";
    case ATTEND_INVALID_STRUCT_SIZE:
      return "wrong struct size: zero the struct and set `size` to its sizeof; fields unknown to this library must be "
             "0";
    case ATTEND_INVALID_RANK:
      return "rank must be 1, 2, 3 or 4";
    case ATTEND_INVALID_DTYPE:
      return "dtype must be an ATTEND_ element type that fits the other operands, BOOL for masks";
    case ATTEND_INVALID_SHAPE:
      return "shape does not fit: extents must not be negative and must match the other operands";
    case ATTEND_INVALID_STRIDE:
      return "strides let elements of an output share memory: each sorted stride must exceed the reach of the smaller "
             "ones";
    case ATTEND_INVALID_VALUE:
      return "value outside its documented range, or in conflict with another option";
    case ATTEND_OVERFLOW:
      return "shape and strides span more bytes than 63 bits can count";
    case ATTEND_OVERLAP:
      return "output overlaps another operand: give it memory of its own";
    case ATTEND_UNSUPPORTED:
      return "not supported by this version of the library";
    case ATTEND_WORKSPACE_TOO_SMALL:
      return "workspace too small for even one thread: ask the matching ..._workspace function";
    case ATTEND_OUT_OF_MEMORY:
      return "out of memory: free some, or pass a workspace";
    case ATTEND_UNKNOWN_ISA:
      return "no such instruction set in this library, or this CPU lacks it: see attend_isa_name";
    case ATTEND_RANKS_DIFFER:
      return "the ranks of MPI differ in what they must have in common";
    default:
      return "unknown status: from a newer library?";
  }
}

const char *attend_status_argument(attend_status status) {
  static const char *const names[] = {
#define ATTEND_TEXT(id, text) text,
      ATTEND_ARGUMENTS(ATTEND_TEXT)
#undef ATTEND_TEXT
  };
  const uint32_t argument = static_cast<uint32_t>(status) >> 8;
  return argument < sizeof names / sizeof names[0] ? names[argument] : "";
}
