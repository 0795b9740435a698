"""What matters of a tensor that a program is given, and how errors say it."""

from __future__ import annotations

import torch

TENSOR_TYPES = (torch.Tensor, torch.nn.Parameter)


def is_lazy_view(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor stands for the conjugate or the negative of what is in its memory."""
    return tensor.is_conj() or tensor.is_neg()


def describe_tensor(tensor: torch.Tensor) -> str:
    """Such as `torch.float32 [2, 3] on cpu`, with all that keeps a program from taking it."""
    kind = "" if type(tensor) in TENSOR_TYPES else f"{type(tensor).__qualname__} "
    text = f"{kind}{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
    if tensor.layout is not torch.strided:
        return f"{text} of layout {tensor.layout}"
    return f"{text} (a conjugate or negative view)" if is_lazy_view(tensor) else text
