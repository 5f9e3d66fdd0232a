// Where the keys of all ranks lie, and the order in which they travel: a function of what all ranks know, so that sender and
// receiver need no word about it.
#pragma once

#include <cstdint>

// The numbers of the contract, and of element types.
#include "kernels/table.hpp"

namespace attend::mpi {

// Keys [first, first + count) of a rank, whose columns from `column` on they are.
struct KeyRange {
  int64_t first, count, column;
  int32_t owner, reserved;
};

struct Keys {
  const KeyRange *ranges;  // ascending, without empty ones; they cover 0..total - 1
  int64_t range_count, total;
};

// Attention is told the keys in pieces.
struct Pieces {
  int64_t total, keys;  // of one piece but the last: a multiple of a chunk

  // Long, since reading and writing the state of a query (16 bytes a value feature) is to cost little beside computing it
  // (4 D operations a key): a piece of 256 costs 14 % of a call, of 512 7, of 2048 3. Eight at least, which overlap.
  static Pieces of(int64_t total) {
    constexpr int64_t kChunk = Contract<float>::kKeyChunk, kMost = 2048;
    const int64_t eighth = total / 8 / kChunk * kChunk;
    return {total, eighth < kChunk ? kChunk : eighth > kMost ? kMost : eighth};
  }
  int64_t count() const { return (total + keys - 1) / keys; }
  int64_t begin(int64_t piece) const { return piece * keys; }
  int64_t size(int64_t piece) const { return begin(piece) + keys < total ? keys : total - begin(piece); }
};

// One of the arrays that a key has a row in: K, V, their scales. Within a piece it is slices (heads, then batches) of keys.
struct Part {
  int64_t bytes;  // of a key in a slice
  int64_t slices;
};
constexpr int kMostParts = 4;
struct Layout {
  Part part[kMostParts];
  int parts;

  int64_t bytes_of_key() const {
    int64_t sum = 0;
    for (int p = 0; p < parts; ++p) sum += part[p].bytes * part[p].slices;
    return sum;
  }
  // Where a slice begins in a piece of so many keys. Parts lie one behind the other.
  int64_t offset(int part_number, int64_t slice, int64_t keys) const {
    int64_t sum = 0;
    for (int p = 0; p < part_number; ++p) sum += part[p].bytes * part[p].slices;
    return (sum + part[part_number].bytes * slice) * keys;
  }
};

// Bytes of a piece that go around the ring in one message, from the rank where it begins.
struct Message {
  int64_t piece, offset;
  int32_t root, bytes;
};

// All messages in order.
class Messages {
 public:
  // Short enough that a rank soon has something to hand on, long enough for the network's full speed.
  static constexpr int64_t kMostBytes = 1 << 16;

  Messages(const Pieces &pieces, const Layout &layout, const int32_t *roots)
      : pieces_(pieces), layout_(layout), roots_(roots) {}

  // False behind the last one.
  bool next(Message *message);

 private:
  const Pieces &pieces_;
  const Layout &layout_;
  const int32_t *const roots_;
  int64_t piece_ = 0, at_ = 0;
};

// Keys [from, to) of a piece that are not on the rank where it begins, and go there first.
struct Share {
  int64_t piece, from, to;
  int32_t owner, root;
};

// All such, in order.
class Shares {
 public:
  Shares(const Keys &keys, const Pieces &pieces, const int32_t *roots) : keys_(keys), pieces_(pieces), roots_(roots) {}
  bool next(Share *share);

 private:
  const Keys &keys_;
  const Pieces &pieces_;
  const int32_t *const roots_;
  int64_t piece_ = 0, range_ = 0;
};

// Where pieces begin: on the rank that has all of its keys; those of several ranks are dealt out evenly in ascending order,
// so that whose turn it is goes around the ring once.
void find_roots(const Keys &keys, const Pieces &pieces, int ranks, int32_t *roots);

// Sorts the ranges, drops empty ones and looks whether they cover 0..total - 1. If not, `*bad` is the first position that
// none or several have.
bool order_keys(KeyRange *ranges, int64_t *count, int64_t total, int64_t *bad);

}  // namespace attend::mpi
