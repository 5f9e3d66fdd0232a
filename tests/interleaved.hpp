#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "attend/attend.h"

// One attention call whose heads lie side by side in each item, [N, H, D].
template <class T>
struct Interleaved {
  std::vector<T> q, k, v, out;
  attend_tensor tensors[4];
  attend_attention_options options = {};

  // Without data if `keys` are too many for a test's memory.
  Interleaved(int64_t queries, int64_t keys, int64_t heads, int64_t features, bool data) {
    options.size = sizeof options;
    options.threads = 1;
    std::vector<T> *const memory[] = {&q, &k, &v, &out};
    for (size_t i = 0; i < 4; ++i) {
      const int64_t items = i == 1 || i == 2 ? keys : queries;
      if (data) memory[i]->resize(static_cast<size_t>(items * heads * features));
      for (size_t e = 0; e < memory[i]->size(); ++e) (*memory[i])[e] = static_cast<T>((e * 2654435761u >> 7) % 64) / 64;
      const uint32_t dtype = sizeof(T) == 4 ? ATTEND_F32 : ATTEND_F64;
      tensors[i] = {data ? memory[i]->data() : nullptr,
                    dtype,
                    3,
                    {features, items, heads, 0},
                    {1, heads * features, features, 0}};
    }
  }
  uint64_t workspace_bytes() const {
    uint64_t bytes = 0;
    CHECK(attend_attention_workspace(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &options, &bytes) ==
          ATTEND_OK);
    return bytes;
  }
  attend_status run() const { return attend_attention(&tensors[0], &tensors[1], &tensors[2], &tensors[3], &options); }
};
