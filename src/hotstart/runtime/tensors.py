"""What matters of a tensor that a program is given, and how errors say it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

TENSOR_TYPES = (torch.Tensor, torch.nn.Parameter)


def is_lazy_view(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for the conjugate or the negative of what is in its memory."""
    return tensor.is_conj() or tensor.is_neg()


def dense_copy(dim_order: Sequence[int]) -> str:
    """The method call that brings a tensor into an order of dimensions, without gaps."""
    formats = {(0, 2, 3, 1): "channels_last", (0, 2, 3, 4, 1): "channels_last_3d"}
    if tuple(dim_order) == tuple(range(len(dim_order))):
        return ".clone(memory_format=torch.contiguous_format)"
    if tuple(dim_order) in formats:
        return f".clone(memory_format=torch.{formats[tuple(dim_order)]})"
    back = tuple(dim_order.index(dim) for dim in range(len(dim_order)))
    return f".permute{tuple(dim_order)}.clone(memory_format=torch.contiguous_format).permute{back}"


def describe_tensor(tensor: torch.Tensor) -> str:
    """Such as `torch.float32 [2, 3] on cpu`, with all that keeps a program from taking it."""
    kind = "" if type(tensor) in TENSOR_TYPES else f"{type(tensor).__qualname__} "
    text = f"{kind}{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
    if tensor.layout is not torch.strided:
        return f"{text} of layout {tensor.layout}"
    return f"{text} (a conjugate or negative view)" if is_lazy_view(tensor) else text
