"""What matters of a tensor that a program is given, and how errors say it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

TENSOR_TYPES = (torch.Tensor, torch.nn.Parameter)


def is_lazy_view(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for the conjugate or the negative of what is in its memory."""
    return tensor.is_conj() or tensor.is_neg()


def overlap(tensors: Sequence[torch.Tensor], written: Sequence[int]) -> tuple[int, ...]:
    """Two tensors in one storage, by number, the first of them written to; empty without."""
    if len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors):
        return ()
    for number in written:
        for other, tensor in enumerate(tensors):
            if other != number and _share_memory(tensors[number], tensor):
                return number, other
    return ()


def _share_memory(left: torch.Tensor, right: torch.Tensor) -> bool:
    if left.device.type == "meta" or left.numel() == 0 or right.numel() == 0:
        return False
    return left.untyped_storage().data_ptr() == right.untyped_storage().data_ptr()


def describe_tensor(tensor: torch.Tensor) -> str:
    """Such as `torch.float32 [2, 3] on cpu`, with all that keeps a program from taking it."""
    kind = "" if type(tensor) in TENSOR_TYPES else f"{type(tensor).__qualname__} "
    text = f"{kind}{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
    if tensor.layout is not torch.strided:
        return f"{text} of layout {tensor.layout}"
    return f"{text} (a conjugate or negative view)" if is_lazy_view(tensor) else text
