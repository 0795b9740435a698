"""Measure how far apart two tensors are, and how far rounding may bring them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

_CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
"""Differences that count as equal, as shares of the largest number of a tensor."""

_FAR = 100
"""Factor of the accepted error where there is no reference in float64."""

_APART = 1e3
"""Multiple of the median from which on a number says nothing of others, as -1e4 of a mask."""


def equal(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compare element by element; nan is the same as nan."""
    left, right = _wide(one), _wide(other)
    return (left == right) | (left.isnan() & right.isnan())


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Convert a tensor to a dtype that torch compares and subtracts."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64)


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether no element is infinite or nan."""
    plain = tensor if tensor.dtype in _CLOSE else _wide(tensor)
    return bool(plain.isfinite().all())


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether all elements are the same; nan is the same as nan."""
    return bool(equal(one, other).all())


def _is_inexact(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors are so close that they count as equal."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one is other or (one.dtype in _CLOSE and torch.equal(one, other)):
        return True  # the cheapest question first
    if one.dtype not in _CLOSE and same(one, other):
        return True
    found = (_error(one, other, part) for part in parts(one))
    return all(error <= _tolerance(one.dtype) * scale for error, scale in found)


def parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Select the elements of a tensor that are far larger than most, and the others; or all.

    A difference that is small beside the number of a mask may be large beside the rest.
    """
    every = torch.ones_like(tensor, dtype=torch.bool)
    size = _wide(tensor).abs()
    counts = size[size.isfinite() & (size > 0)]
    if not _is_inexact(tensor) or not counts.numel():
        return [every]
    large = size > _APART * counts.median()
    return [~large, large] if bool(large.any()) else [every]


def _tolerance(dtype: torch.dtype) -> float:
    real = dtype.to_real() if dtype.is_complex else dtype
    return _CLOSE.get(real, 0.0)


def errors(
    one: torch.Tensor,
    other: torch.Tensor,
    exact: torch.Tensor | None,
    decided: torch.Tensor,
) -> tuple[float, float]:
    """Compute the largest error of a unit's tensor, and the largest that rounding explains."""
    error, scale = _error(one, other, decided)
    limit = _tolerance(one.dtype) * scale
    if not _is_inexact(one) or exact is None or exact.shape != one.shape:
        return error, limit * _FAR if _is_inexact(one) else 0.0
    own, _ = _error(exact, one, decided)
    unit, _ = _error(exact, other, decided)
    return unit, max(limit, 4 * own)


def error_of_inputs(
    one: torch.Tensor,
    exact: torch.Tensor | None,
    nudged: Iterable[torch.Tensor | None],
    decided: torch.Tensor,
) -> float:
    """Compute the error that a unit may make where results depend on the last digit of inputs.

    Sums in another order differ by as much as sums of inputs that differ in their last digit. One
    element may show that, the others not: after tanh, say, only sums near zero do. So the error
    that the operators happen to make says little about it.

    Args:
        one: a result of the operators, in the dtype that it has.
        exact: in float64; None if there is none.
        nudged: as `exact`, for inputs that differ in the last digit; None where these are refused.
        decided: elements that count.

    Returns:
        Zero for dtypes narrower than float32, of which the tolerance is wide as it is.
    """
    limit = _tolerance(one.dtype)
    if exact is None or exact.shape != one.shape or not 0.0 < limit <= _CLOSE[torch.float32]:
        return 0.0
    others = [other for other in nudged if other is not None and other.shape == exact.shape]
    found = [_error(exact, other, decided) for other in others]
    return max((min(4 * error, _FAR * limit * scale) for error, scale in found), default=0.0)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Compute the largest difference of elements, as a share of the largest number expected.

    It is infinite where shapes or dtypes differ, integers do, or a number is finite in one only.
    """
    if (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return math.inf
    if not _is_inexact(expected):
        return 0.0 if same(found, expected) else math.inf
    error, scale = _error(expected, found, torch.ones_like(expected, dtype=torch.bool))
    if error == 0.0:
        return 0.0
    return error / scale if scale else math.inf


def _finite_error(left: torch.Tensor, right: torch.Tensor) -> tuple[float, float] | None:
    """Compute the same if all numbers are finite, in fewer passes; None if they are not."""
    if not left.numel():
        return None
    error, scale = float((left - right).abs().max()), float(left.abs().max())
    return (error, scale) if math.isfinite(error) and math.isfinite(scale) else None


def _error(one: torch.Tensor, other: torch.Tensor, decided: torch.Tensor) -> tuple[float, float]:
    """Compute the largest difference of elements, and the largest number.

    A number that is finite on one side only differs by infinity.
    """
    left, right = _wide(one), _wide(other)
    if bool(decided.all()) and (found := _finite_error(left, right)) is not None:
        return found
    finite = left.isfinite()
    if bool(((finite != right.isfinite()) & decided).any()):
        return math.inf, math.inf if not bool(finite.any()) else float(left[finite].abs().max())
    counts = finite & decided
    if not bool(counts.any()):
        return 0.0, 0.0
    return float((left - right)[counts].abs().max()), float(left[counts].abs().max())
