"""Tell plain tensors, memory with strides and nothing else, from all others."""

from __future__ import annotations

from typing import Literal

import torch

from hotstart import _torch

Oddity = Literal["class", "layout", "lazy"]
"""A tensor's class is not torch's own; its elements do not lie in memory by strides, or stand for
others (quantized); it is the conjugate or negative of its memory."""


def oddity(tensor: torch.Tensor) -> Oddity | None:
    """Say why a tensor is not plain; None if it is."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) and not _torch.is_fake(tensor):
        return "class"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "layout"
    return "lazy" if tensor.is_conj() or tensor.is_neg() else None
