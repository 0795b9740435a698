"""Strides of tensors, and two functions that generated code calls: `fit` and `unflatten`."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree

from hotstart.records.shapes import strides_match


def strides_fit(tensor: torch.Tensor, strides: Sequence[int]) -> bool:
    """Tell whether a tensor has these strides wherever they matter: where a size is above one."""
    if tensor.stride() == strides or tensor.numel() == 0:
        return True
    return strides_match(tensor.shape, tensor.stride(), strides)


def fit(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The tensor if it has these strides, a view of it where they fit, else a copy."""
    if tensor.stride() == tuple(strides):
        return tensor
    if strides_fit(tensor, strides):
        return tensor.as_strided(tensor.shape, tuple(strides))
    made = torch.empty_strided(
        tensor.shape, tuple(strides), dtype=tensor.dtype, device=tensor.device
    )
    return made.copy_(tensor)


def unflatten(cls: type, children: list[Any], context: Any) -> Any:
    """Build a value of a type that is registered with torch's pytree.

    Stitched code in files imports it from this module.
    """
    return pytree.SUPPORTED_NODES[cls].unflatten_fn(children, context)
