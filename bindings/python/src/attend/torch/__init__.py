"""attend for PyTorch: its attention, softmax and linear with tensors in and tensors out, on CPUs.

The functions are operators of PyTorch: gradients, ``torch.compile(fullgraph=True)``, ``torch.export`` and ``vmap`` work.
PyTorch is imported here only; the package itself needs NumPy alone.
"""

from ._functions import linear, log_softmax, scaled_dot_product_attention, softmax

__all__ = ["linear", "log_softmax", "scaled_dot_product_attention", "softmax"]
