"""attend for PyTorch: its attention, softmax and linear with tensors in and tensors out, on CPUs.

The functions are operators of PyTorch: gradients, ``torch.compile(fullgraph=True)``, ``torch.export`` and ``vmap`` work.
:class:`MultiheadAttention` and :func:`convert` put them in place of PyTorch's modules, :func:`encode_packed` runs an encoder
over a padded batch without its padding. PyTorch is imported here only; the package itself needs NumPy alone.
"""

from ._functions import linear, log_softmax, scaled_dot_product_attention, softmax
from ._modules import MultiheadAttention, convert
from ._packing import Packing, encode_packed

__all__ = ["MultiheadAttention", "Packing", "convert", "encode_packed", "linear", "log_softmax",
           "scaled_dot_product_attention", "softmax"]
