// Tokens of a batch, of packed sequences too, and where each lies: what calls over ragged batches have in common.
#pragma once

#include <algorithm>
#include <cstdint>

#include "drivers/tensor.hpp"

namespace attend {

// In the order of arrays that have one number a token: columns, then batches.
struct Tokens {
  int64_t columns = 0, batch = 0;      // packed: columns of all sequences, and how many sequences
  const int64_t *starts = nullptr;     // null: nothing is packed
  const int64_t *offsets = nullptr;    // one a sequence, or null
  const int64_t *positions = nullptr;  // one a token, or null: offset + number in its sequence

  int64_t count() const { return starts != nullptr ? columns : columns * batch; }
  int64_t begin(int64_t sequence) const { return starts != nullptr ? starts[sequence] : sequence * columns; }
  int64_t length(int64_t sequence) const { return begin(sequence + 1) - begin(sequence); }
  int64_t offset(int64_t sequence) const { return offsets != nullptr ? offsets[sequence] : 0; }
  int64_t sequence_of(int64_t token) const {
    if (starts == nullptr) return token / columns;
    return std::upper_bound(starts, starts + batch + 1, token) - starts - 1;  // empty ones lie before it
  }
};

// A token's column and batch in a tensor.
struct TokenPlace {
  int64_t column, batch;  // column -1: nowhere
};

// Where tokens go.
struct Destination {
  bool is_cache = false;           // else to where they are
  int64_t columns = 0;             // of the cache, or of one of its pages
  const int64_t *slots = nullptr;  // batch * columns + column of each token, -1: nowhere; or null
  Tensor pages;                    // the page of each run of columns of a sequence, by sequence; or absent
};

inline TokenPlace place_in(const Tokens &tokens, int64_t token, int64_t sequence) {
  return tokens.starts != nullptr ? TokenPlace{token, 0} : TokenPlace{token - sequence * tokens.columns, sequence};
}
inline TokenPlace place_of(const Destination &to, const Tokens &tokens, int64_t token, int64_t sequence) {
  if (!to.is_cache) return place_in(tokens, token, sequence);
  if (to.slots != nullptr) {
    const int64_t slot = to.slots[token];
    return slot < 0 ? TokenPlace{-1, 0} : TokenPlace{slot % to.columns, slot / to.columns};
  }
  const int64_t column = tokens.offset(sequence) + token - tokens.begin(sequence);
  if (!to.pages) return {column, sequence};
  return {column % to.columns, *to.pages.at<const int32_t>(column / to.columns, sequence, 0, 0)};
}

}  // namespace attend
