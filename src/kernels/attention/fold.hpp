// Parts of attention that threads computed apart, each over one chunk of keys, folded in order: online_softmax.hpp's
// merge, row by row, and so the bits of a whole call.
#pragma once

#include "kernels/attention/resume.hpp"

namespace attend {
namespace {

// The state of `row` in a part or an open span.
template <class T>
ATTEND_INLINE RowState<T> state_in(T *part, int64_t row, int64_t rows, int64_t line, int64_t value_features) {
  T *const m = part + rows * value_features + row;
  return {part + row * value_features, 1, m, m + line};
}

template <class T>
void fold_into(const RowState<T> &to, const RowState<const T> &part, int64_t value_features) {
  const Fold<T> f = fold(broadcast(*to.m), broadcast(*to.l), broadcast(*part.m), broadcast(*part.l));
  store_lanes(to.m, 1, 1, f.m);
  store_lanes(to.l, 1, 1, f.l);
  fold_row(to.o, to.stride, f.old_factor, part.o, part.stride, f.new_factor, value_features);
}

template <class T>
void attention_fold(const FoldBlock<T> &x) {
  constexpr int64_t kChunks = Contract<T>::kKeySpan / Contract<T>::kKeyChunk;
  const AttentionBlock<T> &block = *x.x;
  const int64_t rows = block.rows, dv = block.value_features, before = block.key_offset / Contract<T>::kKeyChunk;
  for (int64_t row = 0; row < rows; ++row) {
    const RowState<T> whole = {row_at(block, block.out, row), block.out.element_stride, block.m + row, block.l + row};
    const RowState<T> open = state_in(x.open, row, rows, block.layout.rows, dv);
    const auto close = [&] {
      fold_into(whole, {open.o, open.stride, open.m, open.l}, dv);
      clear_row(open, dv);
    };
    if (x.begins && block.resumes) {
      copy_row(open_state(block, row), open, dv);
      copy_row(spans_state(block, row), whole, dv);
    } else if (x.begins) {
      clear_row(whole, dv);
      clear_row(open, dv);
    }
    for (int64_t c = x.chunk; c < x.chunk + x.chunks; ++c) {
      if ((before + c) % kChunks == 0) close();
      fold_into(open, state_in(x.parts[c - x.chunk], row, rows, block.layout.rows, dv), dv);
    }
    if (!x.ends) continue;
    if (block.pauses) {
      copy_row(open, open_state(block, row), dv);
      copy_row(whole, spans_state(block, row), dv);
      continue;
    }
    close();
    const T sink = block.sinks == nullptr ? T(0) : block.sinks[row / block.items * block.sink_stride];
    const Finished<T> r = finish(block, broadcast(*whole.m), broadcast(*whole.l), broadcast(sink));
    store_lanes(whole.m, 1, 1, r.m);
    store_lanes(whole.l, 1, 1, r.l);
    T factor[kLanes<T>];
    store(factor, r.factor);
    for (int64_t f = 0; f < dv; ++f)
      whole.o[f * whole.stride] = finish_output(whole.o[f * whole.stride], factor[0], T(0));
  }
}

}  // namespace
}  // namespace attend
