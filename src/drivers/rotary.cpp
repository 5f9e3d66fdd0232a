#include "drivers/rotary.hpp"

#include "drivers/element.hpp"

namespace attend {
namespace {

TokenStrides strides_of(const Tensor &t) {
  return t ? TokenStrides{t.stride[0], t.stride[2], t.dtype} : TokenStrides{0, 0, Dtype::i64};
}

template <class T>
void rotate(const KernelsOf<T> &kernels, const Rotary &p, int64_t begin, int64_t end) {
  typename RotaryBlock<T>::Token tokens[RotaryBlock<T>::kMost];
  RotaryBlock<T> block = {tokens,          0,         p.x.heads(),       p.x.rows(),        p.pairs,
                          strides_of(p.x), {},        strides_of(p.cos), strides_of(p.sin), strides_of(p.scale),
                          p.interleaved,   p.inverse, p.computes_scale};
  block.y = strides_of(p.y);
  int64_t sequence = p.tokens.sequence_of(begin);
  for (int64_t token = begin; token < end; ++token) {
    while (token >= p.tokens.begin(sequence + 1)) ++sequence;
    const TokenPlace from = place_in(p.tokens, token, sequence), to = place_of(p.to, p.tokens, token, sequence);
    if (to.column >= 0) {
      const int64_t position = p.tokens.positions != nullptr
                                   ? p.tokens.positions[token]
                                   : p.tokens.offset(sequence) + token - p.tokens.begin(sequence);
      tokens[block.count++] = {p.x.matrix(0, from.column, 0, from.batch).data,
                               p.cos.matrix(0, position, 0, sequence).data, p.sin.matrix(0, position, 0, sequence).data,
                               p.y.matrix(0, to.column, 0, to.batch).data,
                               p.scale ? p.scale.at<float>(0, to.column, 0, to.batch) : nullptr};
    }
    if (block.count == RotaryBlock<T>::kMost || (block.count > 0 && token + 1 == end)) {
      kernels.rotary(block);
      block.count = 0;
    }
  }
}

}  // namespace

void rotate_tokens(const KernelTable &kernels, const Rotary &p, int64_t begin, int64_t end) {
  with_acc(p.x.dtype, [&](auto t) { rotate(kernels_of<decltype(t)>(kernels), p, begin, end); });
}

void rotary(const KernelTable &kernels, const Rotary &p, const Execution &execution) {
  for_tokens(execution, p.tokens.count(), p.x.rows() * p.x.heads(),
             [&](int64_t begin, int64_t end) { rotate_tokens(kernels, p, begin, end); });
}

}  // namespace attend
