// Pieces of keys on their way around the ring of ranks: a broadcast of each from the rank where it begins, handed on from
// rank to rank, several pieces at once.
//
// Each rank has as many slots as pieces may be on their way here. A slot is opened in the order of pieces: this rank's own
// keys are copied into it and, where the piece begins elsewhere, but has keys of several ranks, sent there; then all of it is
// received from the rank before, and sent on as it comes. It is free again when the piece was worked on and all of it was
// sent. A piece waits only for itself and pieces before it, on whatever rank, so that the wait has an end.
#pragma once

#include "mpi/shards.hpp"
#include "mpi/team.hpp"

namespace attend::mpi {

// Where a part of the own keys lies: element (row, column, head, batch) of some bytes, strides in bytes.
struct OwnPart {
  const char *data;
  int64_t rows, element, heads, batches;
  int64_t stride[4];
};

class Ring {
 public:
  static constexpr int kSlots = 8;

  // `slots`: kSlots pieces.
  Ring(Team *team, const Keys &keys, const Pieces &pieces, const Layout &layout, const int32_t *roots,
       const OwnPart *own, char *slots);

  // Does what can be done now without waiting.
  void progress();
  // Waits until it is here. Pieces are asked for in order.
  const char *piece(int64_t piece);
  // It was worked on.
  void release(int64_t piece) { released_ = piece + 1; }
  // Waits until everything was sent.
  void finish();

 private:
  static constexpr int kWindow = 32;  // messages under way in each direction

  // One direction of this rank: messages are begun in order and end in any.
  struct Link {
    MPI_Request requests[kWindow] = {};
    bool done[kWindow] = {};
    int64_t begun = 0, ended = 0;    // ended: with all before it
    int64_t piece_end[kSlots] = {};  // messages up to the end of the piece in the slot
    int64_t pieces = 0;              // of which all messages were begun
    bool has_next = false;
    bool has_room() const { return begun - ended < kWindow; }
    bool is_through(int64_t piece) const { return piece < pieces && ended >= piece_end[piece % kSlots]; }
    MPI_Request *begin() {
      done[begun % kWindow] = false;
      has_next = false;
      return &requests[begun++ % kWindow];
    }
  };
  // Pieces before `next`, the one of the next message, have begun all theirs.
  void pass(Link *link, int64_t next) const {
    while (link->pieces < next && link->pieces < opened_) link->piece_end[link->pieces++ % kSlots] = link->begun;
  }

  bool is_here(int64_t piece) const { return in_.is_through(piece) && gathered_.is_through(piece); }
  bool is_sent(int64_t piece) const { return out_.is_through(piece) && given_.is_through(piece); }
  char *slot(int64_t piece) const { return slots_ + piece % kSlots * pieces_.keys * layout_.bytes_of_key(); }
  template <class Done>
  void wait_until(const Done &done);
  bool open();
  void copy_own(int64_t piece);
  bool receive();
  bool send();
  bool gather();  // shares of others, of pieces that begin here
  bool give();    // own shares of pieces that begin elsewhere
  MPI_Datatype type_of(const Share &share) const;
  bool test(Link *link);

  Team *const team_;
  const Keys &keys_;
  const Pieces &pieces_;
  const Layout &layout_;
  const OwnPart *const own_;
  char *const slots_;
  const int before_, after_;
  Messages in_order_, out_order_;
  Shares gather_order_, give_order_;
  Link in_, out_, gathered_, given_;
  Message in_next_ = {}, out_next_ = {};
  Share gather_next_ = {}, give_next_ = {};
  int64_t opened_ = 0, released_ = 0, freed_ = 0;
  int64_t received_before_out_ = 0;  // messages to this rank that come before out_next_, and itself
  int64_t own_range_ = 0;            // none before it has keys in a piece that is still to be opened
};

}  // namespace attend::mpi
