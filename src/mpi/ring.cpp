#include "mpi/ring.hpp"

#include <algorithm>

namespace attend::mpi {
namespace {

constexpr int kAround = 0, kShare = 1;  // tags

// Keys of one slice, one behind the other.
void copy_keys(char *to, const OwnPart &part, const char *from, int64_t keys) {
  const int64_t bytes = part.rows * part.element;
  if (part.stride[0] == part.element || part.rows == 1) {
    if (part.stride[1] == bytes) {
      std::memcpy(to, from, static_cast<size_t>(bytes * keys));
      return;
    }
    for (int64_t j = 0; j < keys; ++j, to += bytes, from += part.stride[1]) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
    }
    return;
  }
  const size_t element = static_cast<size_t>(part.element);
  for (int64_t j = 0; j < keys; ++j, from += part.stride[1]) {
    for (int64_t f = 0; f < part.rows; ++f, to += element) std::memcpy(to, from + f * part.stride[0], element);
  }
}

}  // namespace

Ring::Ring(Team *team, const Keys &keys, const Pieces &pieces, const Layout &layout, const int32_t *roots,
           const OwnPart *own, char *slots)
    : team_(team),
      keys_(keys),
      pieces_(pieces),
      layout_(layout),
      own_(own),
      slots_(slots),
      before_((team->rank() + team->ranks() - 1) % team->ranks()),
      after_((team->rank() + 1) % team->ranks()),
      in_order_(pieces, layout, roots),
      out_order_(pieces, layout, roots),
      gather_order_(keys, pieces, roots),
      give_order_(keys, pieces, roots) {
  for (Link *link : {&in_, &out_, &gathered_, &given_}) {
    std::fill(link->requests, link->requests + kWindow, MPI_REQUEST_NULL);
  }
}

void Ring::copy_own(int64_t piece) {
  const int64_t begin = pieces_.begin(piece), size = pieces_.size(piece);
  for (int64_t r = own_range_; r < keys_.range_count && keys_.ranges[r].first < begin + size; ++r) {
    const KeyRange &range = keys_.ranges[r];
    if (range.first + range.count <= begin) own_range_ = r + 1;
    const int64_t from = std::max(begin, range.first), to = std::min(begin + size, range.first + range.count);
    if (range.owner != team_->rank() || from >= to) continue;
    for (int p = 0; p < layout_.parts; ++p) {
      const OwnPart &part = own_[p];
      for (int64_t slice = 0; slice < layout_.part[p].slices; ++slice) {
        copy_keys(slot(piece) + layout_.offset(p, slice, size) + (from - begin) * layout_.part[p].bytes, part,
                  part.data + (range.column + from - range.first) * part.stride[1] +
                      slice % part.heads * part.stride[2] + slice / part.heads * part.stride[3],
                  to - from);
      }
    }
  }
}

bool Ring::open() {
  while (freed_ < released_ && is_sent(freed_)) ++freed_;
  if (opened_ == pieces_.count() || opened_ == freed_ + kSlots) return false;
  copy_own(opened_++);
  return true;
}

bool Ring::receive() {
  if (!in_.has_next) {
    bool more = true;
    do more = in_order_.next(&in_next_);
    while (more && in_next_.root == team_->rank());
    if (!more) in_next_.piece = pieces_.count();
    in_.has_next = true;
  }
  pass(&in_, in_next_.piece);
  // (What was copied here to be given away must have left before it comes again.)
  if (in_next_.piece >= opened_ || !in_.has_room() || !given_.is_through(in_next_.piece)) return false;
  MPI_Irecv(slot(in_next_.piece) + in_next_.offset, in_next_.bytes, MPI_BYTE, before_, kAround, team_->comm(),
            in_.begin());
  return true;
}

bool Ring::send() {
  if (!out_.has_next) {
    bool more = true;
    while ((more = out_order_.next(&out_next_))) {
      if (out_next_.root != team_->rank()) ++received_before_out_;
      if (out_next_.root != after_) break;
    }
    if (!more) out_next_.piece = pieces_.count();
    out_.has_next = true;
  }
  pass(&out_, out_next_.piece);
  if (out_next_.piece >= opened_ || !out_.has_room()) return false;
  if (out_next_.root == team_->rank() ? !gathered_.is_through(out_next_.piece) : in_.ended < received_before_out_) {
    return false;
  }
  MPI_Isend(slot(out_next_.piece) + out_next_.offset, out_next_.bytes, MPI_BYTE, after_, kAround, team_->comm(),
            out_.begin());
  return true;
}

// Its keys in every slice of a piece.
MPI_Datatype Ring::type_of(const Share &share) const {
  const int64_t size = pieces_.size(share.piece), count = share.to - share.from;
  MPI_Datatype types[kMostParts], type = MPI_DATATYPE_NULL;
  MPI_Aint places[kMostParts];
  int lengths[kMostParts];
  for (int p = 0; p < layout_.parts; ++p) {
    const Part &part = layout_.part[p];
    MPI_Type_create_hvector(static_cast<int>(part.slices), static_cast<int>(count * part.bytes),
                            static_cast<MPI_Aint>(size * part.bytes), MPI_BYTE, &types[p]);
    places[p] =
        static_cast<MPI_Aint>(layout_.offset(p, 0, size) + (share.from - pieces_.begin(share.piece)) * part.bytes);
    lengths[p] = 1;
  }
  MPI_Type_create_struct(layout_.parts, lengths, places, types, &type);
  MPI_Type_commit(&type);
  for (int p = 0; p < layout_.parts; ++p) MPI_Type_free(&types[p]);
  return type;
}

bool Ring::gather() {
  if (!gathered_.has_next) {
    bool more = true;
    do more = gather_order_.next(&gather_next_);
    while (more && gather_next_.root != team_->rank());
    if (!more) gather_next_.piece = pieces_.count();
    gathered_.has_next = true;
  }
  pass(&gathered_, gather_next_.piece);
  if (gather_next_.piece >= opened_ || !gathered_.has_room()) return false;
  MPI_Datatype type = type_of(gather_next_);
  MPI_Irecv(slot(gather_next_.piece), 1, type, gather_next_.owner, kShare, team_->comm(), gathered_.begin());
  MPI_Type_free(&type);
  return true;
}

bool Ring::give() {
  if (!given_.has_next) {
    bool more = true;
    do more = give_order_.next(&give_next_);
    while (more && give_next_.owner != team_->rank());
    if (!more) give_next_.piece = pieces_.count();
    given_.has_next = true;
  }
  pass(&given_, give_next_.piece);
  if (give_next_.piece >= opened_ || !given_.has_room()) return false;
  MPI_Datatype type = type_of(give_next_);
  MPI_Isend(slot(give_next_.piece), 1, type, give_next_.root, kShare, team_->comm(), given_.begin());
  MPI_Type_free(&type);
  return true;
}

bool Ring::test(Link *link) {
  if (link->begun == link->ended) return false;
  int count = 0, indices[kWindow];
  MPI_Testsome(kWindow, link->requests, &count, indices, MPI_STATUSES_IGNORE);
  if (count == MPI_UNDEFINED) count = 0;
  for (int i = 0; i < count; ++i) link->done[indices[i]] = true;
  while (link->ended < link->begun && link->done[link->ended % kWindow]) ++link->ended;
  return count > 0;
}

void Ring::progress() {
  bool moved = true;
  while (moved) {
    moved = open();
    while (give() || gather()) moved = true;
    moved |= test(&given_);
    moved |= test(&gathered_);
    while (receive()) moved = true;
    moved |= test(&in_);
    while (send()) moved = true;
    moved |= test(&out_);
  }
}

template <class Done>
void Ring::wait_until(const Done &done) {
  const auto moves = [this] { return in_.ended + out_.ended + gathered_.ended + given_.ended + opened_; };
  double idle_since = 0;
  for (;;) {
    const int64_t before = moves();
    progress();
    if (done()) return;
    if (moves() != before) idle_since = 0;
    team_->watch(&idle_since);
  }
}

const char *Ring::piece(int64_t piece) {
  wait_until([this, piece] { return is_here(piece); });
  return slot(piece);
}

void Ring::finish() {
  wait_until([this] { return pieces_.count() == 0 || is_sent(pieces_.count() - 1); });
}

}  // namespace attend::mpi
