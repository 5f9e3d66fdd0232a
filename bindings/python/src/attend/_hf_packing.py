"""Encoders of transformers over padded batches without the padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from ._hf_attention import attention_function
from .torch import Packing


# Those whose layers work on each token alone but for attention, and take position_ids.
_KNOWN = {"bert", "roberta", "xlm-roberta", "camembert"}


def _check(model: Any) -> None:
    config = model.config
    name = type(model).__name__
    if not hasattr(model, "embeddings") or not hasattr(model, "encoder"):
        raise ValueError(f"encode_packed: {name} is not an encoder itself; pass the one inside it, as model.bert")
    if config.model_type not in _KNOWN:
        raise ValueError(f"encode_packed: nothing is known of packing {config.model_type} models, only of {sorted(_KNOWN)}")
    if config.is_decoder or getattr(config, "position_embedding_type", "absolute") not in (None, "absolute"):
        raise ValueError(f"encode_packed: this {name} is a decoder, or its positions are relative")
    if AttentionInterface().get(config._attn_implementation) is not attention_function:
        raise ValueError(f"encode_packed: attn_implementation is {config._attn_implementation!r}, which would mix the sequences; "
                         "attend's is needed")


def encode_packed(model: Any, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
                  ) -> BaseModelOutputWithPoolingAndCrossAttentions:
    """An encoder (BertModel, RobertaModel, ...; MiniLM is a BertModel) on a padded batch, without its padding.

    input_ids, attention_mask and token_type_ids ``[B, N]`` as for model itself, padding on either side. Every layer works on
    the tokens alone, so the time is that of the tokens. Returns what model returns: last_hidden_state ``[B, N, D]``, 0 where
    there is padding, and pooler_output if it has a pooler. Gradients as ever. ValueError, with the reason, for a model that
    cannot be packed.
    """
    _check(model)
    packing = Packing(attention_mask)
    embeddings = model.embeddings
    if hasattr(embeddings, "create_position_ids_from_input_ids"):  # positions begin behind padding_idx
        positions = packing.pack(embeddings.create_position_ids_from_input_ids(input_ids, embeddings.padding_idx))
    else:
        positions = packing.places % packing.shape[1]
    types = None if token_type_ids is None else packing.pack(token_type_ids)[None]
    hidden = model(input_ids=packing.pack(input_ids)[None], position_ids=positions[None], token_type_ids=types,
                   cu_seq_lens_q=packing.starts, cu_seq_lens_k=packing.starts).last_hidden_state
    last = packing.unpack(hidden[0])
    return BaseModelOutputWithPoolingAndCrossAttentions(  # the model's own pooler saw the first sequence alone
        last_hidden_state=last, pooler_output=None if model.pooler is None else model.pooler(last))
