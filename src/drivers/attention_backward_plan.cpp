#include "drivers/attention_backward_plan.hpp"

#include <algorithm>

#include "drivers/attention_sequence.hpp"

namespace attend {
namespace {

// Columns of features are copied where they are of another type, where features lie apart, and where columns begin in the
// same sets of the L1: they are read for all queries of a chunk, or all keys of a block. So many elements apart; 0 = in
// place.
int64_t copied_stride(const Tensor &t, int64_t element) {
  const bool in_place =
      !t.is_narrow() && (t.stride[0] == 1 || t.rows() == 1) && !columns_share_sets(t.stride[1] * element);
  return in_place ? 0 : stride_of_copies(t.rows());
}

}  // namespace

int64_t backward_span(int64_t keys) {
  int64_t span = Contract<float>::kKeyChunk;
  while ((keys - 1) / span >= kMostSpans) span *= 2;
  return span;
}

SharedGradients shared_gradients(const AttentionBackward &p) {
  const Attention &f = p.forward;
  const bool several = count_sequences(f) > 1;
  const bool packs_q = f.query_starts != nullptr, packs_k = f.key_starts != nullptr;
  SharedGradients s = {};
  s.q = several && p.d_q && !packs_q && f.q.batch() == 1;
  s.k = several && p.d_k && !packs_k && f.k.batch() == 1;
  s.v = several && p.d_v && !packs_k && f.v.batch() == 1;
  s.bias = several && p.d_bias && (packs_q ? f.bias.columns() : f.bias.batch()) == 1;
  s.heads = p.d_bias && f.bias.heads() == 1 && f.out.heads() > 1;
  s.spans = p.d_bias && f.bias.rows() == 1;
  return s;
}

UnitShape unit_shape(const AttentionBackward &p) {
  // Enough to pay for copying a chunk of keys and values, few enough for any number of threads.
  constexpr int64_t kQueries = 4 * kBackwardQueries;
  const Attention &f = p.forward;
  if (!p.d_k && !p.d_v && !p.d_bias && !p.d_sinks) return {true, 1, std::min(kQueries, f.out.columns())};
  return {false, f.k.heads() == 0 ? 0 : f.out.heads() / f.k.heads(), f.out.columns()};
}

template <class T>
BackwardRoom backward_room(const AttentionBackward &p) {
  constexpr int64_t kElement = sizeof(T), kLine = 64 / kElement, kChunk = Contract<T>::kKeyChunk;
  constexpr int64_t kSquare = kBackwardQueries * kChunk;
  // A tile of columns may be read beyond its last one: 16 lines of a query tile at most.
  constexpr int64_t kBeyond = 16 * Contract<T>::kScoreLanes;
  const Attention &f = p.forward;
  const UnitShape unit = unit_shape(p);
  const int64_t d = f.q.rows(), dv = f.v.rows(), heads = unit.heads;
  int64_t end = 0;
  const auto room = [&](int64_t elements) {
    const int64_t at = end;
    end += round_up(elements, kLine);
    return at;
  };
  BackwardRoom r = {};
  BackwardLayout &l = r.layout;
  l.lines = room(AttentionLayout::kStateLines * Contract<T>::kScoreLanes);
  l.weights = room(kSquare);
  l.d_scores = room(kSquare + kBeyond);
  l.cap_slopes = room(f.softcap == 0 ? 0 : kSquare);
  l.queries = room(kBackwardQueries * d);
  l.d_out = room(kBackwardQueries * dv);
  l.query_stride = copied_stride(f.q, kElement);
  l.d_out_stride = copied_stride(p.d_out, kElement);
  r.copied_stride = copied_stride(f.k, kElement);
  r.values_stride = copied_stride(f.v, kElement);
  l.query_rows = room(kBackwardQueries * l.query_stride);
  l.d_out_rows = room(kBackwardQueries * l.d_out_stride);
  r.chunk.copied = room(kChunk * r.copied_stride);
  r.chunk.values = room(kChunk * r.values_stride);
  r.d_k = room(p.d_k ? kChunk * d : 0);
  r.d_v = room(p.d_v ? kChunk * dv : 0);
  r.lines = round_up(unit.queries, kBackwardQueries);
  AttentionShape forward = {};
  forward.element = kElement;
  forward.keys = kChunk;
  forward.features = d;
  forward.looks = f.mask || f.bias;
  forward.widens_k = r.copied_stride > 0;
  r.forward = attention_layout(forward, kBackwardQueries);
  end = std::max(end, r.forward.end);  // in place of all of the above
  r.shift = room(heads * r.lines);
  r.factor = room(heads * r.lines);
  r.delta = room(heads * r.lines);
  r.sums_size = p.d_q ? round_up(heads * unit.queries * d, kLine) : 0;
  r.sums = room(2 * r.sums_size);
  r.end = end;
  return r;
}

template BackwardRoom backward_room<float>(const AttentionBackward &problem);
template BackwardRoom backward_room<double>(const AttentionBackward &problem);

}  // namespace attend
