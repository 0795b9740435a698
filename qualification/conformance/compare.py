"""Compare what a program returns with what the model returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Wrong(Exception):
    """A program returned something else than the model."""


def largest_difference(found: Any, expected: Any) -> float:
    """The largest absolute difference over all tensors of a result; NaN equals NaN.

    Raises:
        Wrong: the results differ in their types, in the shape or dtype of a tensor, or in a value
            that is no floating-point number.
    """
    leaves, structure = pytree.tree_flatten(found)
    expected_leaves, expected_structure = pytree.tree_flatten(expected)
    if type(found) is not type(expected) or structure != expected_structure:
        raise Wrong(f"returns {structure}, the model returns {expected_structure}")
    pairs = zip(leaves, expected_leaves, strict=True)
    return max((_difference(index, *pair) for index, pair in enumerate(pairs)), default=0.0)


def _difference(index: int, found: Any, expected: Any) -> float:
    if not isinstance(expected, Tensor):
        if type(found) is not type(expected) or found != expected:
            raise Wrong(f"value {index} is {found!r}, the model returns {expected!r}")
        return 0.0
    if type(found) is not type(expected) or _kind(found) != _kind(expected):
        raise Wrong(f"tensor {index} is {_kind(found)}, the model returns {_kind(expected)}")
    inexact = expected.is_floating_point() or expected.is_complex()
    differ = found != expected
    if inexact:
        differ &= ~(found.isnan() & expected.isnan())
    if not differ.any():
        return 0.0
    if not inexact:
        raise Wrong(f"tensor {index} differs in {int(differ.sum())} of {differ.numel()} values")
    wide = torch.complex128 if expected.is_complex() else torch.float64
    apart = (found[differ].to(wide) - expected[differ].to(wide)).abs()
    return float(apart.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.dtype, tensor.device
