"""What generated code calls in the rare cases that are not straight-line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree


def strides_fit(tensor: torch.Tensor, strides: Sequence[int]) -> bool:
    """Whether a tensor has these strides wherever they matter: where a size is above one."""
    if tensor.stride() == strides or tensor.numel() == 0:
        return True
    return all(
        size == 1 or have == want
        for size, have, want in zip(tensor.shape, tensor.stride(), strides, strict=True)
    )


def fit(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The tensor itself if its strides fit, else a copy that has them."""
    if strides_fit(tensor, strides):
        return tensor
    made = torch.empty_strided(
        tensor.shape, tuple(strides), dtype=tensor.dtype, device=tensor.device
    )
    return made.copy_(tensor)


def dense_strides(shape: Sequence[int], dim_order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without gaps whose dimensions lie in memory in this order."""
    strides = [0] * len(shape)
    step = 1
    for dim in reversed(dim_order):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def unflatten(cls: type, children: list[Any], context: Any) -> Any:
    """Build a value of a type that is registered with torch's pytree."""
    return pytree.SUPPORTED_NODES[cls].unflatten_fn(children, context)
