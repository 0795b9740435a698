"""Describe tensors that a program is given, and find where they lie in memory."""

from __future__ import annotations

import torch

from hotstart.records.shapes import spanned
from hotstart.runtime.shared_memory import Memory, Span

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


class TensorMemory(Memory):
    """Finds the places of tensors by addresses, and those around them by their storages.

    One memory may have several storages, as what `torch.from_numpy` makes of parts of an array.
    """

    @staticmethod
    def holds(tensor: torch.Tensor) -> bool:
        """Tell whether a tensor has elements, and memory for them."""
        return tensor.device.type != "meta" and tensor.numel() > 0

    @staticmethod
    def around(tensor: torch.Tensor) -> Span:
        """Return the addresses at which a tensor's storage begins and ends."""
        storage = tensor.untyped_storage()
        begin = storage.data_ptr()
        return begin, begin + storage.nbytes()

    @staticmethod
    def span(tensor: torch.Tensor) -> Span:
        """Return the addresses at which a tensor begins and ends."""
        begin = tensor.untyped_storage().data_ptr()
        first, past = bytes_in_storage(tensor)
        return begin + first, begin + past


def bytes_in_storage(tensor: torch.Tensor) -> tuple[int, int]:
    """Count the bytes from the beginning of a tensor's storage to where it begins and ends."""
    first = int(tensor.storage_offset())
    past = first + int(spanned(tensor.shape, tensor.stride()))
    return first * tensor.dtype.itemsize, past * tensor.dtype.itemsize
