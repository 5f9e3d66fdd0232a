#include "api/serving.hpp"

#include <algorithm>
#include <cinttypes>

namespace attend {

attend_status check_count(int64_t sequences, const Message &message) {
  constexpr int64_t kMost = int64_t{1} << 48;
  if (sequences >= 0 && sequences <= kMost) return ATTEND_OK;
  return wrong_value(message, Argument::options_sequences, sequences, "0 or more, and at most 2^48");
}

attend_status check_packing(int64_t sequences, const int64_t *starts, const Tensor &of, Argument argument,
                            const Message &message) {
  const auto wrong = [&](const char *needed) {
    return wrong_value(message, Argument::options_sequences, sequences, needed);
  };
  if (attend_status s = check_count(sequences, message)) return s;
  if (sequences == 0 && starts == nullptr) return ATTEND_OK;
  if (sequences == 0) return wrong("the number of packed sequences where starts are given");
  if (starts == nullptr) return wrong("0 without starts");
  return expect_one_batch(of, argument, message);
}

attend_status expect_one_batch(const Tensor &of, Argument argument, const Message &message) {
  if (of.batch() == 1) return ATTEND_OK;
  return fail(message, ATTEND_INVALID_SHAPE, argument, "has %" PRId64 " batches, not 1, but its sequences are packed",
              of.batch());
}

attend_status expect_row_or_key(const Tensor &scale, Argument argument, const Message &message) {
  if (scale.rows() == 1 || scale.columns() == 1) return ATTEND_OK;
  return fail(message, ATTEND_INVALID_SHAPE, argument,
              "has %" PRId64 " features and %" PRId64 " keys; one of the two must be 1", scale.rows(), scale.columns());
}

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

int64_t longest(const int64_t *starts, int64_t sequences) {
  int64_t most = 0;
  for (int64_t b = 0; b < sequences; ++b) most = std::max(most, starts[b + 1] - starts[b]);
  return most;
}

attend_status check_pages_of(const Tensor &pages, int64_t page_size, int64_t pool_pages, int64_t first, int64_t end,
                             int64_t batch, Argument argument, const Message &message) {
  if (first >= end) return ATTEND_OK;
  for (int64_t i = first / page_size; i <= (end - 1) / page_size; ++i) {
    const int64_t page = *pages.at<const int32_t>(i, batch, 0, 0);
    if (page >= 0 && page < pool_pages) continue;
    return fail(message, ATTEND_INVALID_VALUE, argument,
                "has %" PRId64 " for page %" PRId64 " of batch %" PRId64 ", but the pool has %" PRId64
                " pages, counted from 0",
                page, i, batch, pool_pages);
  }
  return ATTEND_OK;
}

attend_status check_pages(const Tensor &pages, int64_t page_size, int64_t pool_pages, const int64_t *first,
                          const int64_t *end, int64_t batch, Argument argument, const Message &message) {
  for (int64_t b = 0; b < batch; ++b) {
    const int64_t begin = first == nullptr ? 0 : first[b];
    if (attend_status s = check_pages_of(pages, page_size, pool_pages, begin, end[b], b, argument, message)) return s;
  }
  return ATTEND_OK;
}

}  // namespace attend
