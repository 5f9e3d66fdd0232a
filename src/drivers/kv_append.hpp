// New keys and values into a cache: tokens for both at once, and slots that are given twice.
#pragma once

#include "drivers/rotary.hpp"

namespace attend {

struct KvAppend {
  Rotary k, v;  // v.x absent: keys alone
};

// What `given_twice` wants: 8 bytes for each slot, which are sorted there.
Need kv_append_need(const KvAppend &problem);

// A slot that two tokens have, or -1. `room`: as many numbers as there are tokens.
int64_t given_twice(const int64_t *slots, int64_t tokens, int64_t *room);

void kv_append(const KernelTable &kernels, const KvAppend &problem, const Execution &execution);

}  // namespace attend
