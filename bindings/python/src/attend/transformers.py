"""attend as an attention of Hugging Face's transformers 5: one line, then ``attn_implementation="attend"``.

    import attend.transformers
    attend.transformers.register()
    model = AutoModelForCausalLM.from_pretrained(name, attn_implementation="attend")

Every attention of the model then runs in attend: prefill and decode, with static and dynamic caches, float32, bfloat16 and
float16, sliding windows, softcap and sinks, padding on either side. Masks that say positions, windows and padding reach
attend as such; any other is passed as a mask. What attend cannot do is an error; nothing goes to another attention.
"""

from __future__ import annotations

import transformers
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from ._hf_attention import Counts, attention_function, counts, reset_counts
from ._hf_masks import mask_function
from ._hf_packing import encode_packed

__all__ = ["Counts", "counts", "encode_packed", "register", "reset_counts"]

if int(transformers.__version__.split(".")[0]) < 5:
    raise ImportError(f"attend.transformers: transformers 5 or newer is needed, not {transformers.__version__}")


def register(name: str = "attend") -> None:
    """Makes attend an ``attn_implementation`` of transformers, of this name: attention and masks. Calling it again does no
    harm. Not to be called while another thread builds a model."""
    AttentionInterface.register(name, attention_function)
    AttentionMaskInterface.register(name, mask_function)
