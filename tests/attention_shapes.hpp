// Named shapes of attention that between them take every path: attention_plan_test.cpp says what their plans are,
// attention_paths_test.cpp computes them and looks at what the kernels are given.
#pragma once

#include <cstring>

#include "drivers/attention_plan.hpp"

namespace attend::test {

// How the operands of a named shape lie, where not dense, and what is asked for beside the output.
enum Lies : unsigned {
  kKeysApart = 1,      // [N, H, D] with the keys 2 KiB apart
  kKeysStrided = 2,    // one feature of all keys is contiguous
  kValuesStrided = 4,  // the same of V
  kRowsUneven = 8,     // queries and output are [N, H, D]: rows of several heads are not equally far apart
  kMasked = 16,        // a mask
  kScores = 32,        // the scores are shown
  kCausal = 64,        // bottom right
  kBackwards = 128,    // keys from the last to the first in memory
  kBiased = 256,       // a bias
  kValuesApart = 512,  // as the keys
};

struct NamedShape {
  const char *name;
  int64_t queries, keys, features, value_features, heads, kv_heads, batch;
  unsigned lies;

  bool has(Lies lie) const { return (lies & lie) != 0; }

  AttentionShape of(int64_t element) const {
    const int64_t apart = has(kKeysApart) ? 2048 / element : features;
    return {element,
            queries,
            keys,
            features,
            value_features,
            heads,
            kv_heads,
            batch,
            has(kKeysStrided) ? keys : 1,
            has(kKeysStrided) ? 1
            : has(kBackwards) ? -apart
                              : apart,
            value_features == 0                         ? 0  // nobody asks
            : has(kValuesStrided) && value_features > 1 ? keys
                                                        : 1,
            has(kMasked) || has(kBiased),
            has(kScores),
            false,
            false,
            false,
            false,
            has(kValuesStrided) ? 1
            : has(kValuesApart) ? 2048 / element
                                : value_features};
  }
};

// Of those up to 1000 keys none can be shared out among threads. Each is work for three threads.
inline const NamedShape kNamedShapes[] = {
    {"prefill", 300, 300, 64, 64, 2, 2, 1, 0},
    {"causal", 210, 700, 32, 40, 3, 3, 1, kCausal},
    {"causal, uneven", 130, 260, 16, 24, 4, 2, 2, kCausal | kRowsUneven},
    {"one query", 1, 700, 64, 64, 12, 12, 1, 0},
    {"few queries of a group", 4, 600, 64, 64, 8, 2, 1, 0},
    {"few queries of a group, uneven", 4, 600, 64, 60, 8, 2, 1, kRowsUneven},
    {"one query of a group, uneven", 1, 900, 64, 64, 16, 2, 1, kRowsUneven},
    {"a group alone", 2, 1000, 64, 64, 4, 1, 1, 0},
    {"many heads", 1, 100, 64, 64, 128, 1, 1, 0},
    {"group of seven", 16, 300, 32, 32, 7, 1, 1, 0},
    {"long keys", 1, 8200, 64, 64, 1, 1, 1, 0},
    {"long keys of a group", 2, 3000, 32, 32, 6, 2, 1, 0},
    {"long keys of a group, uneven", 3, 2100, 32, 40, 6, 2, 1, kRowsUneven},
    {"long keys, strided values", 5, 2500, 32, 40, 1, 1, 1, kValuesStrided},
    {"long keys of a causal block", 16, 2400, 16, 16, 1, 1, 1, kCausal},
    {"keys just long enough", 16, 1024, 32, 33, 1, 1, 1, 0},
    {"keys one too short", 16, 1023, 32, 33, 1, 1, 1, 0},
    {"one query too many", 17, 1500, 32, 32, 2, 1, 1, 0},
    {"copied keys", 70, 530, 64, 64, 1, 1, 1, kKeysApart},
    {"copied keys, backwards", 70, 530, 64, 64, 1, 1, 1, kKeysApart | kBackwards},
    {"copied keys of large blocks", 300, 300, 128, 128, 2, 2, 1, kKeysApart},
    {"copied keys and values of wide blocks", 600, 300, 64, 48, 4, 4, 1, kKeysApart | kValuesApart},
    {"copied keys of few queries", 3, 3000, 60, 36, 1, 1, 1, kKeysApart | kCausal},
    {"strided values", 40, 500, 48, 40, 1, 1, 1, kValuesStrided},
    {"strided values, one query", 1, 900, 64, 64, 8, 8, 1, kValuesStrided},
    {"strided keys", 40, 500, 48, 40, 1, 1, 1, kKeysStrided},
    {"strided keys, one query", 1, 900, 64, 64, 8, 8, 1, kKeysStrided},
    {"one value feature", 50, 600, 40, 1, 1, 1, 1, kValuesStrided},
    {"mask", 40, 700, 24, 40, 1, 1, 1, kMasked},
    {"bias", 40, 700, 24, 40, 1, 1, 1, kBiased},
    {"mask, one query of a group", 1, 900, 64, 64, 8, 2, 1, kMasked},
    {"far", 1, 40000, 32, 32, 1, 1, 1, 0},
    {"far, many rows", 9, 24000, 32, 32, 2, 1, 1, 0},
    {"scores", 20, 400, 64, 64, 1, 1, 1, kScores},
    {"scores of long keys", 2, 3000, 64, 64, 4, 2, 1, kScores},
    {"no value features", 33, 300, 80, 0, 2, 2, 1, kScores},
};

inline const NamedShape &named(const char *name) {
  for (const NamedShape &s : kNamedShapes) {
    if (std::strcmp(s.name, name) == 0) return s;
  }
  std::abort();
}

}  // namespace attend::test
