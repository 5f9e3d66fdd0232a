"""Encoders over padded batches without the padding: sequences one after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._modules import MultiheadAttention, packed_sequences


class Packing:
    """Where the tokens of a padded batch lie when its sequences are one after the other.

    starts     int64, one more than sequences
    positions  int64 ``[total]``: each token's place in its own sequence
    """

    def __init__(self, mask: Tensor) -> None:
        """mask: ``[B, N]``, nonzero where there is a token; tokens keep their order, wherever the padding is."""
        if mask.ndim != 2:
            raise ValueError(f"attention_mask: [B, N] is needed, not {list(mask.shape)}")
        self.shape = mask.shape
        real = mask != 0
        self.places = real.flatten().nonzero().squeeze(1)
        lengths = real.sum(1)
        self.starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        self.positions = torch.arange(len(self.places)) - self.starts[:-1].repeat_interleave(lengths)

    def pack(self, x: Tensor) -> Tensor:
        """[total, ...] from [B, N, ...]: a copy of the tokens."""
        return x.flatten(0, 1).index_select(0, self.places)

    def unpack(self, x: Tensor) -> Tensor:
        """[B, N, ...] from [total, ...], 0 where there is padding."""
        return x.new_zeros(self.shape.numel(), *x.shape[1:]).index_copy(0, self.places, x).unflatten(0, self.shape)


def encode_packed(encoder: nn.TransformerEncoder, src: Tensor, src_key_padding_mask: Tensor, is_causal: bool = False
                  ) -> Tensor:
    """An ``nn.TransformerEncoder`` that :func:`convert` has been over, on a batch without its padding.

    src ``[B, N, E]`` (batch_first or not: this is always batch first), src_key_padding_mask bool ``[B, N]``, True is padding,
    as in the encoder's own forward. Returns a new ``[B, N, E]``, 0 where there is padding. Every layer works on the tokens
    alone, so the time is that of the tokens; each sequence has the result that it has alone. Gradients as ever.

    ValueError if the encoder has attention that is not attend's. Not to be used with layers that mix positions in other ways
    than by attention.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in encoder.modules()):
        raise ValueError("encode_packed: convert(encoder) first; PyTorch's own attention would mix the sequences")
    if not any(isinstance(module, MultiheadAttention) for module in encoder.modules()):
        raise ValueError("encode_packed: there is no attention of attend in this encoder")
    packing = Packing(~src_key_padding_mask)
    x = packing.pack(src)
    mask = nn.Transformer.generate_square_subsequent_mask(1) if is_causal else None
    with packed_sequences(packing.starts):
        for layer in encoder.layers:
            x = layer(x, src_mask=mask, is_causal=is_causal)
    return packing.unpack(x if encoder.norm is None else encoder.norm(x))
