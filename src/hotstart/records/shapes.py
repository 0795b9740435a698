"""Sizes, and variants of a call by sizes; strides, and what of them matters."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

IMAGES = (4, 5)
"""Dimensions of images and volumes, of which all strides count: see `is_laid_out`."""


class Interval(msgspec.Struct, frozen=True, order=True):
    """The sizes from `lo` to `hi`, both included."""

    lo: int
    hi: int

    def __contains__(self, size: int) -> bool:
        return self.lo <= size <= self.hi

    def __str__(self) -> str:
        return f"{self.lo}..{self.hi}"


Choice = Interval | int
"""One way to serve an axis: a range compiled symbolically, or one size compiled statically."""


class Variant(msgspec.Struct, frozen=True):
    """One choice of range or size for every axis. Each variant is one stitched function.

    Attributes:
        choices: the range or size of each axis.
        where: Python expression over the axes, for a variant that serves only some of these sizes;
            empty if it serves all.
        sides: the sides of branches on what tensors hold that bring a call here, from the first
            branch on; empty where calls begin.
    """

    choices: tuple[tuple[str, Choice], ...]
    where: str = ""
    sides: tuple[bool, ...] = ()

    @property
    def name(self) -> str:
        """Such as `batch=1,seq=2..64`; `static` for a model without dynamic axes."""
        name = ",".join(f"{axis}={choice}" for axis, choice in self.choices) or "static"
        if self.where:
            name += f" where {self.where}"
        if self.sides:
            name += f" branches {','.join('yes' if side else 'no' for side in self.sides)}"
        return name

    def of(self, axis: str) -> Choice:
        """The choice this variant makes for `axis`."""
        return dict(self.choices)[axis]

    def intervals(self) -> dict[str, Interval]:
        """Every axis as an interval; a single size is an interval of one."""
        return {
            axis: choice if isinstance(choice, Interval) else Interval(choice, choice)
            for axis, choice in self.choices
        }

    def covers(self, sizes: Mapping[str, int]) -> bool:
        """Tell whether this variant serves a call with these sizes."""
        inside = all(sizes[axis] in interval for axis, interval in self.intervals().items())
        return inside and (not self.where or self._holds(sizes))

    def _holds(self, sizes: Mapping[str, int]) -> bool:
        # Written by hotstart, as the rest of what is in an artifact.
        return bool(eval(self.where, {"math": math}, dict(sizes)))


def spanned(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Count the elements from a tensor's first to its last in memory."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def may_overlap(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Tell whether two elements of a tensor may share memory; also said of some that interleave."""
    if 0 in shape:
        return False
    past = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size > 1:
            if step < past:
                return True
            past += (size - 1) * step
    return False


def labelled(call: str, variant: Variant) -> str:
    """The name of a variant where calls may have names."""
    return f"{call}: {variant.name}" if call else variant.name


def dense_strides(shape: Sequence[int], dim_order: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor without gaps whose dimensions lie in memory in this order."""
    strides = [0] * len(shape)
    step = 1
    for dim in reversed(dim_order):
        strides[dim] = step
        step *= max(shape[dim], 1)
    return tuple(strides)


def strides_match(shape: Sequence[int], have: Sequence[int], want: Sequence[int]) -> bool:
    """Tell whether strides are the same wherever a size is not one."""
    return all(size == 1 or h == w for size, h, w in zip(shape, have, want, strict=True))


def is_laid_out(shape: Sequence[int], have: Sequence[int], want: Sequence[int]) -> bool:
    """Tell whether a weight has these strides, those of sizes of 1 included for images.

    Convolutions look at strides of sizes of 1 too, to tell if something is channels last.
    """
    if tuple(have) == tuple(want):
        return True
    return len(want) not in IMAGES and (0 in shape or strides_match(shape, have, want))


def layout_fits(
    shape: Sequence[int], have: Sequence[int], want: Sequence[int], layout: str
) -> bool:
    """Tell whether a contract takes these strides in the place of the compiled ones."""
    if layout == "copied" or tuple(have) == tuple(want):
        return True
    return layout == "fixed" and (0 in shape or strides_match(shape, have, want))


def has_layout(tensor: Any, dim_order: Sequence[int], layout: str) -> bool:
    """Tell whether a tensor or an array lies in memory as a contract asks that fixes its layout."""
    strides = dense_strides(tensor.shape, dim_order)
    return layout_fits(tensor.shape, tensor.stride(), strides, layout)
