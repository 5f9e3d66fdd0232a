#include "mpi/shards.hpp"

#include <algorithm>

namespace attend::mpi {

bool Messages::next(Message *message) {
  for (; piece_ < pieces_.count(); ++piece_, at_ = 0) {
    const int64_t bytes = pieces_.size(piece_) * layout_.bytes_of_key();
    if (at_ == bytes) continue;
    const int64_t length = std::min(kMostBytes, bytes - at_);
    *message = {piece_, at_, roots_[piece_], static_cast<int32_t>(length)};
    at_ += length;
    return true;
  }
  return false;
}

bool Shares::next(Share *share) {
  while (range_ < keys_.range_count) {
    const KeyRange &range = keys_.ranges[range_];
    const int64_t begin = pieces_.begin(piece_), end = begin + pieces_.size(piece_),
                  end_of_range = range.first + range.count;
    *share = {piece_, std::max(begin, range.first), std::min(end, end_of_range), range.owner, roots_[piece_]};
    if (end_of_range >= end) ++piece_;
    if (end_of_range <= end) ++range_;
    if (share->owner != share->root) return true;
  }
  return false;
}

void find_roots(const Keys &keys, const Pieces &pieces, int ranks, int32_t *roots) {
  int64_t r = 0;
  for (int64_t p = 0; p < pieces.count(); ++p) {
    const int64_t begin = pieces.begin(p), end = begin + pieces.size(p);
    while (keys.ranges[r].first + keys.ranges[r].count <= begin) ++r;
    int32_t root = keys.ranges[r].owner;
    for (int64_t n = r; n < keys.range_count && keys.ranges[n].first < end; ++n) {
      if (keys.ranges[n].owner != keys.ranges[r].owner) root = static_cast<int32_t>(p * ranks / pieces.count());
    }
    roots[p] = root;
  }
}

bool order_keys(KeyRange *ranges, int64_t *count, int64_t total, int64_t *bad) {
  KeyRange *const end = std::remove_if(ranges, ranges + *count, [](const KeyRange &r) { return r.count == 0; });
  std::sort(ranges, end, [](const KeyRange &a, const KeyRange &b) { return a.first < b.first; });
  *count = end - ranges;
  int64_t next = 0;
  for (const KeyRange *r = ranges; r < end && r->first == next; ++r) next += r->count;
  *bad = next;
  return next == total;
}

}  // namespace attend::mpi
