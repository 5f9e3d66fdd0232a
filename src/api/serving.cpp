#include "api/serving.hpp"

#include <cinttypes>

namespace attend {

attend_status check_starts(const int64_t *starts, int64_t sequences, int64_t total, Argument argument,
                           const Message &message) {
  if (starts[0] != 0) {
    return fail(message, ATTEND_INVALID_VALUE, argument, "begins with %" PRId64 ", but must begin with 0", starts[0]);
  }
  for (int64_t b = 0; b < sequences; ++b) {
    if (starts[b + 1] >= starts[b]) continue;
    return fail(message, ATTEND_INVALID_VALUE, argument,
                "falls from %" PRId64 " to %" PRId64 " at sequence %" PRId64 ", but must never decrease", starts[b],
                starts[b + 1], b);
  }
  if (starts[sequences] == total) return ATTEND_OK;
  return fail(message, ATTEND_INVALID_VALUE, argument,
              "ends with %" PRId64 ", but must end with %" PRId64 ", the number of packed items", starts[sequences],
              total);
}

attend_status check_pages(const Tensor &pages, int64_t page_size, int64_t pool_pages, const int64_t *first,
                          const int64_t *end, int64_t batch, Argument argument, const Message &message) {
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = first == nullptr ? 0 : first[b];
    if (begin >= end[b]) continue;
    for (int64_t i = begin / page_size; i <= (end[b] - 1) / page_size; ++i) {
      const int64_t page = *pages.at<const int32_t>(i, b, 0, 0);
      if (page >= 0 && page < pool_pages) continue;
      return fail(message, ATTEND_INVALID_VALUE, argument,
                  "has %" PRId64 " for page %" PRId64 " of batch %" PRId64 ", but the pool has %" PRId64
                  " pages, counted from 0",
                  page, i, b, pool_pages);
    }
  }
  return ATTEND_OK;
}

}  // namespace attend
