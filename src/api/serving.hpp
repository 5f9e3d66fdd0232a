// What calls over ragged batches and paged caches have in common: the checks of their integer arrays, whose contents only
// the call itself looks at, never its ..._workspace.
#pragma once

#include "api/message.hpp"

namespace attend {

// Sequences are no more than a number for each that fits in memory.
attend_status check_count(int64_t sequences, const Message &message);

// `sequences` and `starts` go together, and what holds the packed sequences has one batch.
attend_status check_packing(int64_t sequences, const int64_t *starts, const Tensor &of, Argument argument,
                            const Message &message);

// What holds packed sequences has one batch.
attend_status expect_one_batch(const Tensor &of, Argument argument, const Message &message);

// A scale of keys has one row, one of features one key.
attend_status expect_row_or_key(const Tensor &scale, Argument argument, const Message &message);

// `starts` has sequences + 1 entries: the first 0, never decreasing, the last `total`.
attend_status check_starts(const int64_t *starts, int64_t sequences, int64_t total, Argument argument,
                           const Message &message);

// Columns of the longest.
int64_t longest(const int64_t *starts, int64_t sequences);

// The entries of `pages` (I32, most pages of a sequence by batch) for the columns first[b] (null: 0) to end[b] of each
// batch are pages of the pool; no other entry is read. Columns are known to lie in the table: 0 <= first[b], end[b] <=
// rows * page_size.
attend_status check_pages(const Tensor &pages, int64_t page_size, int64_t pool_pages, const int64_t *first,
                          const int64_t *end, int64_t batch, Argument argument, const Message &message);

// The same of one batch.
attend_status check_pages_of(const Tensor &pages, int64_t page_size, int64_t pool_pages, int64_t first, int64_t end,
                             int64_t batch, Argument argument, const Message &message);

}  // namespace attend
