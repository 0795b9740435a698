"""Multiply matrices as programs do where weights are packed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch


def packed_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor] | None:
    """A product of two matrices by oneDNN, which has packed the second one; None without oneDNN.

    `mkldnn::_reorder_linear_weight` and `mkldnn::_linear_pointwise` (2.11 to 2.15) are what it
    calls for linears, too; it has bfloat16 and float16 where the processor does.
    """
    ops = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available():
        return None
    supported = {
        torch.float32: True,
        torch.bfloat16: ops._is_mkldnn_bf16_supported(),
        torch.float16: ops._is_mkldnn_fp16_supported(),
    }
    if not supported.get(left.dtype, False):
        return None
    packed = ops._reorder_linear_weight(right.t().contiguous(), left.shape[0])
    return functools.partial(ops._linear_pointwise, left, packed, None, "none", [], "")
